"""From a finished study to a trainer: approve, export, deliver, one proxy as a checkpoint."""
