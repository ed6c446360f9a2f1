"""The scores of one run at its end, from all logs that are its: whole, finite, and told once."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cuvee.mixtures.runs.run_results import Score
from cuvee.tasks.run_logs import LATEST, Measured, RunLog
from cuvee.tasks.trainer.contract import RefusedResult

SAME = 1e-6  # two values of a score differ by no more, of their size: rounding to 7 digits
TOKENS = 0.99  # of its tokens, for which a run has ended: the last step may not fill


@dataclass(frozen=True)
class LoggedScores:
    """What the logs of a run say of its end.

    Attributes:
        scores: by target, of logs that reach the end.
        unfinished: why others say nothing of it, in sentences.
    """

    scores: Mapping[str, Score]
    unfinished: tuple[str, ...]


def final_scores(
    logs: Sequence[tuple[str, RunLog]],
    metrics: Mapping[str, str],
    *,
    tokens: int,
    steps: int,
) -> LoggedScores:
    """The scores of a run.

    Args:
        logs: format and log; those of one format are one log, which a requeued job has continued.
        metrics: by target, what logs call it.
        tokens: that the run was to be trained on.
        steps: that it takes, where a log says neither tokens nor steps.

    Raises:
        RefusedResult: a score is not finite, or stands there twice with other values.
    """
    found: dict[str, list[tuple[Measured, Path]]] = {target: [] for target in metrics}
    unfinished, every = [], [log for _, log in logs]
    for form, group in itertools.groupby(sorted(logs, key=lambda one: one[0]), lambda one: one[0]):
        ours = [log for _, log in group]
        last, lacks = max(log.last for log in ours), _unfinished(form, ours, every, tokens, steps)
        for target, metric in metrics.items() if not lacks else ():
            values = [
                (s, m[metric], log.path) for log in ours for s, m in log.points if metric in m
            ]
            at = max((step for step, _, _ in values), default=last)
            if at < last:
                end = f"{last:,}" if last < LATEST else "those at its end"
                lacks = f"the last {metric} of {values[-1][2]} is of step {at:,} of {end}"
            found[target] += [(one, path) for step, one, path in values if step == at == last]
        unfinished += [lacks] if lacks else []
    scores = {target: _agreed(target, values) for target, values in found.items() if values}
    return LoggedScores(scores, tuple(unfinished))


def _unfinished(
    form: str, logs: Sequence[RunLog], every: Sequence[RunLog], tokens: int, steps: int
) -> str:
    """Why the logs of one format do not reach the end of their run; nothing if they do.

    What counts of a requeued job is its furthest log. A number of tokens or steps that a log of the
    run gives stands over one that claims to have ended, and the steps of run.json come last.
    """
    last, trained = max(log.last for log in logs), max(log.tokens for log in logs)
    said, where = {log.ended for log in logs if log.last == last}, f"{form} log {logs[-1].path}"
    if False in said and True not in said:
        return f"{where} says that the run did not finish"
    if trained:
        short = trained < TOKENS * tokens
        return f"{where} ends at {trained:,} of {tokens:,} tokens" if short else ""
    length = max(log.length for log in every)
    if True in said and None not in said:
        reached = [log.last for log in every if log.last < LATEST and not log.tokens]
        short = max(reached, default=length) < length
        return f"a log beside the {where} does not reach step {length:,}" if short else ""
    length = length or steps
    if last > length + 1 and not any(log.length for log in logs):
        return (
            f"{where} ends at step {last:,}, and the run has {length:,}: its steps are other ones, "
            "and a table without steps, or with a column `tokens`, says what is final"
        )
    return "" if last >= length else f"{where} ends at step {last:,} of {length:,}"


def _agreed(target: str, values: Sequence[tuple[Measured, Path]]) -> Score:
    """The value on which all agree, as the log has it that says most of its error."""
    for (value, error, count), path in values:
        if not (math.isfinite(value) and math.isfinite(error) and error >= 0 and count >= 1):
            raise RefusedResult(f"{path}: the score of {target} is not finite ({value}, +-{error})")
    (first, where), *others = values
    for (value, _, _), path in others:
        if not same_value(value, first[0]):
            raise RefusedResult(
                f"{target} stands there twice with other values: {first[0]!r} in {where}, and "
                f"{value!r} in {path}. Two jobs have trained the run: leave one of them out"
            )
    return Score(*max((one for one, _ in values), key=lambda one: (one[1] > 0, one[2])))


def same_value(one: float, other: float) -> bool:
    """Whether two values of a score are one, written with other digits."""
    return math.isclose(one, other, rel_tol=SAME, abs_tol=SAME)
