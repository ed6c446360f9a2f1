"""Logs as text: CSV tables, also as W&B exports them, and what Megatron-LM prints.

Sources: megatron/training/training.py (`training_log`: ` iteration 10/ 100 | ...`;
`evaluate_and_print_results`: ` validation-0 loss at iteration 10 on test set | lm loss value: 2`);
W&B's exported runs have a column `State`, its exported charts columns `RUN - METRIC`.
"""

import contextlib
import re
from pathlib import Path

from cuvee.tasks.run_logs import Measured, RunLog, log_reader
from cuvee.tasks.study.table_file import CsvTable, read_csv

NAMES = ("fingerprint", "run", "run_id", "run id", "id", "name", "run name")
STEP, STATE, TOKENS = ("step", "_step", "global_step", "iteration"), "state", "tokens"
CHART = re.compile(r"(.+) - (.+?)(?<!__MIN)(?<!__MAX)")
LONGEST_LINE = 1 << 16
ITERATION = re.compile(r"\biteration\s+(\d+)/\s*(\d+) \|")
EVALUATION = re.compile(r"\bvalidation(-\d+)? loss at iteration (\d+)( on [^|]*)? \| (.*)")
VALUE = re.compile(r"(?:^|\| )([^|]+?) value: (\S+)")


@log_reader("CSV", r".*\.[ct]sv(\.gz)?")
def csv_table(path: Path) -> list[RunLog]:
    """A row for a run, or for a step of one; or a chart of W&B, a column for a run."""
    table = read_csv(path)
    lower = {name.lower(): name for name in reversed(table.columns)}
    step = next((lower[name] for name in STEP if name in lower), "")
    ids = [lower[name] for name in NAMES if name in lower]
    charts = {name: chart for name in table.columns if (chart := CHART.fullmatch(name))}
    if not ids and charts:
        return [_column(table, name, chart, step) for name, chart in charts.items()]
    states, tokens = table.columns.get(lower.get(STATE, "")), lower.get(TOKENS, "")
    found = []
    for i in range(table.rows):
        row = {name: _number(table, name, i) for name in table.columns if name not in (*ids, step)}
        known = {name: (value, 0.0, 1) for name, value in row.items() if value is not None}
        at = int(_number(table, step, i) or 0) if step else 0
        ended = states[i].strip().lower() == "finished" if states else None if step else True
        log = RunLog(
            path, [(at, known)], tuple(table.columns[name][i] for name in ids), last=at,
            tokens=int(row.get(tokens) or 0), ended=ended,
        )  # fmt: skip
        found.append(log)
    return found


def _column(table: CsvTable, name: str, chart: re.Match[str], step: str) -> RunLog:
    points = []
    for i in range(table.rows):
        value, at = _number(table, name, i), int(_number(table, step, i) or 0) if step else i
        points += [] if value is None else [(at, {chart[2]: (value, 0.0, 1)})]
    return RunLog(table.path, points, (chart[1],), last=max((at for at, _ in points), default=0))


def _number(table: CsvTable, name: str, row: int) -> float | None:
    with contextlib.suppress(ValueError):
        return float(table.columns[name][row].replace(table.decimal, "."))
    return None


@log_reader("Megatron", r".*\.(log|out|txt)|.*stdout.*")
def megatron_log(path: Path) -> list[RunLog]:
    """Losses as its TensorBoard calls them: `lm loss validation`, `lm loss validation-0` of several
    sets; of its last evaluation on the test set `lm loss test`.

    The last evaluation draws other text than one during the training at the same iteration, and
    stands for it.
    """
    points: list[tuple[str, int, dict[str, Measured]]] = []
    last = length = 0
    with path.open("rb") as file:
        while raw := file.readline(LONGEST_LINE):
            line = raw.decode(errors="replace") if raw.endswith(b"\n") else ""  # else cut off
            if told := ITERATION.search(line):
                last, length = max(last, int(told[1])), int(told[2])
            elif told := EVALUATION.search(line):
                suffix, step, final, values = (part or "" for part in told.groups())
                kind = "test" if "test" in final else "validation"
                known = {f"{m[1]} {kind}{suffix}": float(m[2]) for m in VALUE.finditer(values)}
                points.append((final, int(step), {n: (v, 0.0, 1) for n, v in known.items()}))
    replaced = {step for final, step, _ in points if final}
    kept = [(step, found) for final, step, found in points if final or step not in replaced]
    last = max([last, *(step for step, _ in kept)])
    return [RunLog(path, kept, length=length, last=last)] if last else []
