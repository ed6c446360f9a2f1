"""Logs as text: CSV tables, also as W&B exports them, and what Megatron-LM prints.

Sources: megatron/training/training.py (`training_log`: ` iteration 10/ 100 | ...`;
`evaluate_and_print_results`: ` validation-0 loss at iteration 10 on test set | lm loss value: 2`);
W&B's exported runs have a column `State`, its exported charts columns `RUN - METRIC`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from cuvee.tasks.run_logs import LATEST, Measured, RunLog, log_reader
from cuvee.tasks.run_logs.json_logs import STEPS
from cuvee.tasks.study.table_file import CsvTable, read_csv

NAMES = ("fingerprint", "run", "run_id", "run id", "id", "name", "run name")
STEP = ("step", *STEPS, "iteration", "tokens")
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
    named = next((lower[name] for name in STEP if name in lower), "")
    steps = [int(step or 0) for step in _numbers(table, named)] if named else [0] * table.rows
    ids = [lower[name] for name in NAMES if name in lower]
    charts = {name: chart for name in table.columns if (chart := CHART.fullmatch(name))}
    if not ids and charts:
        return [
            _rows(path, (chart[1],), steps, {chart[2]: _numbers(table, name)}, range(table.rows))
            for name, chart in charts.items()
        ]
    steps, rows = steps if named else [LATEST] * table.rows, dict[tuple[str, ...], list[int]]()
    for row, names in enumerate(zip(*(table.columns[name] for name in ids), strict=True)):
        rows.setdefault(names, []).append(row)
    states = table.columns.get(lower.get("state", ""))
    values = {name: _numbers(table, name) for name in {*table.columns} - {*ids, named}}
    tokens = _numbers(table, lower["tokens"]) if "tokens" in lower else [0.0] * table.rows
    found = []
    for names, own in (rows or {(): list(range(table.rows))}).items():
        log = _rows(path, names, steps, values, own)
        state = {states[row].strip().lower() for row in own} if states else set()
        most = max(int(tokens[row] or 0) for row in own)
        ended = state <= {"finished"} if state else None if named else True
        found.append(replace(log, ended=ended, tokens=most))
    return found


def _rows(
    path: Path,
    names: tuple[str, ...],
    steps: Sequence[int],
    values: Mapping[str, Sequence[float | None]],
    own: Sequence[int],
) -> RunLog:
    """What some rows of a table say of a run."""
    points = []
    for row in own:
        known = {name: (one, 0.0, 1) for name, column in values.items()
                 if (one := column[row]) is not None}  # fmt: skip
        points += [(steps[row], known)] if known else []
    return RunLog(path, points, names, last=max((step for step, _ in points), default=0))


def _numbers(table: CsvTable, name: str) -> list[float | None]:
    """The numbers of a column, also those that are not finite; None where a cell has none."""
    found: list[float | None] = []
    for cell in table.columns[name]:
        try:
            found.append(float(cell.replace(table.decimal, ".")))
        except ValueError:
            found.append(None)
    return found


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
