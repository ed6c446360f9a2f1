"""The trainer of packs: optimizer, checkpoints, branches, warm starts, controllers."""
