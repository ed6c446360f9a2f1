"""Metric audit: which continuous score of a task puts mixtures in the order of its accuracy.

Proxies are compared by bits per byte of the right answer, because accuracy at their size is coarse,
and often that of guessing. Whether that score orders what is meant differs by task. So where
accuracy is above chance, Spearman's correlation of each score (see evaluation/scores.py) with it is
given, over mixtures, with percentiles of a bootstrap over mixtures: 90 % held the truth of pairs
that were simulated in 89 to 100 % (docs/results/audits.md). An order without a mistake, of which
every draw is one too, has the interval of Bonett and Wright (2000).

Assumption, not mended: score and accuracy are of the same items and runs, so that noise which both
share counts as agreement; noise of accuracy alone keeps every correlation below 1.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from cuvee.mixtures import simplex, ties
from cuvee.mixtures.domains import Array
from cuvee.mixtures.inference.diagnostics import rank_correlations
from cuvee.mixtures.inference.held_out import rank_interval
from cuvee.mixtures.recommendation import LEVEL, Estimate
from cuvee.mixtures.runs.run_results import RunResult, Score

SURE = 2.0  # standard errors above chance from which a run counts as above it
LEAST = 8  # runs or mixtures from which anything is told
ABOVE = 0.5  # share of the runs that must be above chance
DRAWS, MOST = 1000, 200_000  # of a bootstrap, with so many values in all but never under 200
ACCURACY, CHANCE = "/accuracy", "/chance"  # how names of details end
SCORES = {"bits per byte": "", "probability": "/probability", "margin": "/margin"}


@dataclass(frozen=True)
class MetricAudit:
    """What a task's scores say of its accuracy.

    Attributes:
        task: such as "task/piqa".
        accuracy, chance: means over the runs.
        above: share of the runs whose accuracy is above chance by `SURE` standard errors.
        below: whether the mean is below chance by as many, of a run's mean error: runs share items.
        mixtures: that the runs are of.
        ranks: by score, rank correlation with accuracy, positive where it orders it right; empty
            where `above` is less than `ABOVE`, or `mixtures` than `LEAST`.
    """

    task: str
    accuracy: float
    chance: float
    above: float
    below: bool
    mixtures: int
    ranks: Mapping[str, Estimate] = field(default_factory=dict)


def audit_metrics(runs: Sequence[RunResult], rng: np.random.Generator) -> tuple[MetricAudit, ...]:
    """The audit of each task that has accuracy and chance, over the runs that are trained alike."""
    told = [(r.spec.weights, {**r.scores, **r.details}) for r in trained_alike(runs)]
    names = dict.fromkeys(n for _, known in told for n in known if n.endswith(ACCURACY))
    audits = []
    for task in (name.removesuffix(ACCURACY) for name in names):
        rows = [one for one in told if {task + ACCURACY, task + CHANCE} <= one[1].keys()]
        audits += [_audit(task, rows, rng)] if rows else []
    return tuple(audits)


def _audit(
    task: str, rows: Sequence[tuple[Array, Mapping[str, Score]]], rng: np.random.Generator
) -> MetricAudit:
    member = simplex.group_rows([w for w, _ in rows])

    def values(end: str) -> Array:
        return np.array([known[task + end].value for _, known in rows])

    accuracy, chance = values(ACCURACY), values(CHANCE)
    errors = np.array([known[task + ACCURACY].stderr for _, known in rows])
    above = float((accuracy > chance + SURE * errors).mean())
    count = int(member.max()) + 1
    mean, guessed = float(accuracy.mean()), float(chance.mean())
    below = bool(mean + SURE * errors.mean() < guessed)
    found = MetricAudit(task, mean, guessed, above, below, count)
    if above < ABOVE or count < LEAST:
        return found
    meant = simplex.group_means(accuracy, member)[None]
    ranks = {}
    for name, end in SCORES.items():
        if all(task + end in known for _, known in rows):
            score = simplex.group_means(values(end) if end else -values(end), member)[None]
            ranks[name] = bootstrap_rank(score, meant, rng)
    return replace(found, ranks=ranks)


def trained_alike(runs: Sequence[RunResult]) -> tuple[RunResult, ...]:
    """The most runs at fixed shares that differ in mixture and seed alone: over sizes any score
    orders accuracy, whatever it does over mixtures."""
    fixed = [run for run in runs if len(run.spec.stages) == 1 and not run.spec.controller]
    kinds = [(s.size, s.tokens, s.schedule, s.rate, s.start) for s in (run.spec for run in fixed)]
    most = Counter(kinds).most_common(1)
    return tuple(run for run, kind in zip(fixed, kinds, strict=True) if kind == most[0][0])


def bootstrap_rank(first: Array, second: Array, rng: np.random.Generator) -> Estimate:
    """Rank correlation of the columns of two tables (S, G), the mean over rows, with its interval
    at `LEVEL`: columns are drawn with replacement, alike in all rows."""
    tables = [np.stack([ties.leveled(row) for row in table]) for table in (first, second)]
    count = first.shape[1]
    drawn = rng.integers(count, size=(max(200, min(DRAWS, MOST // count)), count))
    told = rank_correlations(*(table[:, drawn] for table in tables)).mean(axis=0)
    mean = float(rank_correlations(*tables).mean())
    low, high = np.quantile(told, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    if low == high:  # an order without a mistake, of which every draw is one too
        low, high = rank_interval(mean, count, LEVEL)
    return Estimate(mean, min(float(low), mean), max(float(high), mean))
