"""TensorBoard's event files, read by its own library, which is in the extra `logs`."""

from pathlib import Path

from cuvee.tasks.extras import require
from cuvee.tasks.run_logs import Measured, RunLog, log_reader


@log_reader("TensorBoard", r".*events\.out\.tfevents\..*")
def event_file(path: Path) -> list[RunLog]:
    """Scalars by tag; of two that one process wrote at a step, the last stands."""
    require("TensorBoard's event files", "logs")
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
    from tensorboard.util.tensor_util import make_ndarray

    points: dict[int, dict[str, Measured]] = {}
    event = None
    for event in EventFileLoader(str(path)).Load():
        for value in event.summary.value:
            if value.metadata.plugin_data.plugin_name == "scalars":
                number = float(make_ndarray(value.tensor).item())
                points.setdefault(event.step, {})[value.tag] = (number, 0.0, 1)
    if event is None:
        raise ValueError("no whole record is in it")
    return [RunLog(path, list(points.items()), last=max(points))] if points else []
