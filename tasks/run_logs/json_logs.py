"""Logs in JSON: lm-eval's results, trainer_state.json of transformers, OLMo-core's metrics, W&B's.

Sources: lm_eval/loggers/evaluation_tracker.py (`results_TIME.json`; a metric is `name,filter`, its
error `name_stderr,filter`); transformers/trainer_callback.py (`TrainerState`);
olmo_core/train/callbacks/metric_saver.py (`metrics_stepN.json`, and `metrics.json` in the end); of
W&B the rows of `Run.history` or `Run.scan_history` as JSON, and wandb-summary.json.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cuvee.tasks.run_logs import Measured, Points, RunLog, json_values, log_reader, numbers

STEPS = ("trainer/global_step", "train/global_step", "global_step", "_step")  # of a row of W&B
OLMO_TOKENS = "throughput/total tokens"
STEP_OF_NAME = re.compile(r"metrics_step(\d+)\.json")


@log_reader("lm-eval", r"results.*\.json|.*_\d{4}-\d\d-\d\dt[\d.-]+\.json")
def lm_eval_results(path: Path) -> list[RunLog]:
    """Scores of tasks as `task/metric`, with their errors; the run is in the model's path.

    Metrics of which more is better, as the file says, are read with their sign turned.
    """
    (body,) = json_values(path)
    if not isinstance(body, dict) or not isinstance(body.get("results"), dict):
        return []
    items = body.get("n-samples") or {}
    scores: dict[str, Measured] = {}
    for task, values in body["results"].items():
        count = (items.get(task) or {}).get("effective", 1)
        more = (body.get("higher_is_better") or {}).get(task) or {}
        scores.update(_task_scores(task, values, int(count), more))
    config = body.get("config") or {}
    names = (str(body.get("model_name", "")), str(config.get("model_args", "")))
    return [RunLog(path, [(0, scores)], names, ended=True)]


def _task_scores(
    task: str, values: Mapping[str, Any], count: int, more: Mapping[str, bool]
) -> Iterator[tuple[str, Measured]]:
    for name, (value, _, _) in numbers(values).items():
        metric, _, of = name.partition(",")
        if of and not metric.endswith("_stderr"):
            error = numbers(values).get(f"{metric}_stderr,{of}", (0.0, 0.0, 1))[0]
            score = (-value if more.get(metric) else value, 0.0 if error != error else error, count)
            yield f"{task}/{metric}" + ("" if of == "none" else f",{of}"), score


@log_reader("trainer_state", r"trainer_state\.json")
def trainer_state(path: Path) -> list[RunLog]:
    """Metrics as they are called there, such as `eval_loss` or `eval_web_loss`."""
    (body,) = json_values(path)
    if not isinstance(body, dict) or not isinstance(body.get("log_history"), list):
        return []
    points: Points = [(int(row.get("step", 0)), numbers(row)) for row in body["log_history"]]
    length, last = max(0, int(body["max_steps"])), int(body["global_step"])
    return [RunLog(path, points, last=last, length=length)]


@log_reader("OLMo-core", r"metrics(_step\d+)?\.json")
def olmo_core_metrics(path: Path) -> list[RunLog]:
    """Metrics as they are called there, such as `eval/lm/web/CE loss`.

    The last file names no step and is written when training ends, well or not: its tokens tell.
    """
    (body,) = json_values(path)
    step, found = STEP_OF_NAME.fullmatch(path.name), numbers(body if isinstance(body, dict) else {})
    last, tokens = int(step[1]) if step else 0, int(found.get(OLMO_TOKENS, (0.0,))[0])
    return [RunLog(path, [(last, found)], last=last, tokens=tokens)] if found else []


@log_reader("W&B", r".*(wandb|history).*\.jsonl?")
def wandb_rows(path: Path) -> list[RunLog]:
    """Rows of a run's history, or its summary."""
    points = wandb_points([row for value in json_values(path) for row in _rows(value)])
    return [RunLog(path, points, last=max(step for step, _ in points))] if points else []


def _rows(value: Any) -> list[dict[str, Any]]:
    rows = value if isinstance(value, list) else [value]
    return [row for row in rows if isinstance(row, dict) and "_step" in row]


def wandb_points(rows: Sequence[Mapping[str, Any]]) -> Points:
    """Rows of a history of W&B by the trainer's own step, where they have it."""
    known = [numbers(row) for row in rows]
    steps = [next((row[name][0] for name in STEPS if name in row), 0) for row in known]
    return [(int(step), row) for step, row in zip(steps, known, strict=True)]
