"""Logs in JSON: lm-eval's results, trainer_state.json of transformers, OLMo-core's metrics, W&B's.

Sources: lm_eval/loggers/evaluation_tracker.py (`results_TIME.json`; a metric is `name,filter`, its
error `name_stderr,filter`); transformers/trainer_callback.py (`TrainerState`);
olmo_core/train/callbacks/metric_saver.py (`metrics_stepN.json`, and `metrics.json` in the end); of
W&B the rows of `Run.history` or `Run.scan_history` as JSON. Its wandb-summary.json is not read: it
repeats the last value of each metric, whenever that was measured.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cuvee.tasks.run_logs import (
    LATEST,
    Measured,
    Points,
    RunLog,
    json_values,
    log_reader,
    numbers,
)

STEPS = ("trainer/global_step", "train/global_step", "global_step", "_step")  # of a row of W&B
OLMO_TOKENS = "throughput/total tokens"
STEP_OF_NAME = re.compile(r"metrics_step(\d+)\.json")
MODEL_OF_ARGS = re.compile(r"(?:^|,)\s*(?:pretrained|peft|delta|model|path)=([^,]+)")
VERSION_OF_ARGS = re.compile(r"(?:^|,)\s*(?:revision|subfolder)=([^,]+)")
STEP_OF_MODEL = re.compile(r"(?i)(?:checkpoint|ckpt|step|iter|iteration)[-_]?(\d+)")


@log_reader("lm-eval", r"results.*\.json|.*_\d{4}-\d\d-\d\dt[\d.-]+\.json")
def lm_eval_results(path: Path) -> list[RunLog]:
    """Scores of tasks as `task/metric`, with their errors; the run is in the model's path.

    Metrics of which more is better, as the file says, are read with their sign turned. Those of
    which it does not say, and those of a part of the items (`--limit`), go by other names. A model
    whose path names a step is one on the way.
    """
    (body,) = json_values(path)
    if not isinstance(body, dict) or not isinstance(body.get("results"), dict):
        return []
    items = body.get("n-samples") or {}
    short = {task for task, n in items.items() if n["effective"] < n.get("original", 0)}
    scores: dict[str, Measured] = {}
    for task, values in body["results"].items():
        count = (items.get(task) or {}).get("effective", 1)
        more = (body.get("higher_is_better") or {}).get(task) or {}
        found = _task_scores(task, values, int(count), more)
        part = task in short or (short and task not in items)  # of a group
        scores.update((f"{name} of a part of its items" if part else name, m) for name, m in found)
    args = (body.get("config") or {}).get("model_args") or ""
    if isinstance(args, dict):
        args = ",".join(f"{name}={value}" for name, value in args.items())
    names = [str(body.get("model_name") or ""), *MODEL_OF_ARGS.findall(args)]
    steps = STEP_OF_MODEL.findall(" ".join([*names, *VERSION_OF_ARGS.findall(args)]))
    last = int(steps[-1]) if steps else LATEST
    return [RunLog(path, [(last, scores)], tuple(names), last=last, ended=None if steps else True)]


def _task_scores(
    task: str, values: Mapping[str, Any], count: int, more: Mapping[str, bool]
) -> Iterator[tuple[str, Measured]]:
    for name, (value, _, _) in numbers(values).items():
        metric, _, of = name.partition(",")
        if of and not metric.endswith("_stderr"):
            error = numbers(values).get(f"{metric}_stderr,{of}", (0.0, 0.0, 1))[0]
            score = (-value if more.get(metric) else value, 0.0 if error != error else error, count)
            unsaid = "" if isinstance(more.get(metric), bool) else " without higher_is_better"
            yield f"{task}/{metric}" + ("" if of == "none" else f",{of}") + unsaid, score


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

    The last file names no step and is written when training ends, well or not: tokens order the
    files. Each repeats the last value of a metric, whenever that was measured.
    """
    (body,) = json_values(path)
    step, found = STEP_OF_NAME.fullmatch(path.name), numbers(body if isinstance(body, dict) else {})
    tokens = int(found.get(OLMO_TOKENS, (0.0,))[0])
    at = tokens or (int(step[1]) if step else 0)
    return [RunLog(path, [(at, found)], last=at, tokens=tokens)] if found else []


@log_reader("W&B", r".*history.*\.jsonl?|.*wandb(?!-summary).*\.jsonl?")
def wandb_rows(path: Path) -> list[RunLog]:
    """Rows of a run's history."""
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
