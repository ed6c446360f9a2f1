"""Early ranking: the order of mixtures after a part of the tokens in one seed, against that of the
end in other seeds.

A run's early score agrees with its own end by more than its mixture explains. So each of S seeds is
compared with the mean of the others (Spearman, over mixtures), and the S correlations are averaged.
What the end in one seed says of the others' ends stands beside it: no early point can be expected
to say more. Intervals are those of metric_audit.py.

Only points that can be compared with each other count (`RunResult.points`, `ScalingRuns`): none of
a rate on its way down. A point before the decay is not the end of a shorter run, which would have
had a decay of its own: that both rank alike is assumed, not studied.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cuvee.mixtures import simplex
from cuvee.mixtures.domains import Array
from cuvee.mixtures.inference.metric_audit import LEAST, bootstrap_rank, trained_alike
from cuvee.mixtures.problem import Problem
from cuvee.mixtures.recommendation import Estimate
from cuvee.mixtures.runs.run_results import RunResult

SURE_RANK = 0.9  # lower end of an interval from which shorter proxies are advised


@dataclass(frozen=True)
class EarlyRanking:
    """How early the order of mixtures is that of the end.

    Attributes:
        targets: whose mean is ranked: those of the objective that are scored on the way, else all;
            none where at no point all runs are scored on one.
        ranks: (tokens seen, rank correlation with the end in other seeds), ascending, the end
            itself last; empty without targets, or where fewer than `LEAST` mixtures share two
            seeds.
        mixtures, seeds: that were compared.
    """

    targets: tuple[str, ...]
    ranks: tuple[tuple[int, Estimate], ...]
    mixtures: int
    seeds: int

    @property
    def enough(self) -> int | None:
        """The fewest tokens after which the order surely is that of the end, if any are."""
        return next((seen for seen, rank in self.ranks[:-1] if rank.low >= SURE_RANK), None)


def rank_early(
    runs: Sequence[RunResult], problem: Problem, rng: np.random.Generator
) -> EarlyRanking | None:
    """The early ranking over the runs that are trained alike; None where none has points."""
    plain = [run for run in runs if run.points and run.spec.data_seed in (None, run.spec.seed)]
    if not (runs := trained_alike(plain)):
        return None
    points = [dict(run.points) for run in runs]
    steps = sorted(set.intersection(*map(set, points)))
    scored = [set(one[seen]) for one in points for seen in steps]
    weights = _weights(problem, sorted(set.intersection(*scored)) if scored else ())
    seeds, mixtures = (grid := _grid(runs)).shape
    if not weights or mixtures < LEAST:
        return EarlyRanking(tuple(weights), (), mixtures, seeds)

    def table(scores: Sequence[Mapping[str, float]]) -> Array:
        return np.array([sum(w * one[t] for t, w in weights.items()) for one in scores])[grid]

    ends = table([{t: run.scores[t].value for t in weights} for run in runs])
    others = (ends.sum(axis=0) - ends) / (seeds - 1)
    tables = [(seen, table([one[seen] for one in points])) for seen in steps]
    tables.append((runs[0].spec.tokens, ends))
    ranks = tuple((seen, bootstrap_rank(early, others, rng)) for seen, early in tables)
    return EarlyRanking(tuple(weights), ranks, mixtures, seeds)


def _weights(problem: Problem, scored: Sequence[str]) -> dict[str, float]:
    """By target: those of an objective that is a mean; else alike, of what is scored on the way."""
    row, read = problem.objective.linear(problem.targets), problem.objective.targets
    known = {} if row is None else dict(zip(problem.targets, map(float, row), strict=True))
    return {t: known.get(t, 1.0) for t in scored if t in read} or dict.fromkeys(scored, 1.0)


def _grid(runs: Sequence[RunResult]) -> NDArray[np.int64]:
    """Rows (S, G) of runs: the mixtures that the two most frequent seeds share, and all seeds that
    each of them has."""
    member = simplex.group_rows([run.spec.weights for run in runs])
    place = {(run.spec.seed, int(member[row])): row for row, run in enumerate(runs)}
    groups: dict[int, set[int]] = {}
    for seed, group in place:
        groups.setdefault(seed, set()).add(group)
    first, *rest = sorted(groups, key=lambda seed: -len(groups[seed]))
    shared = groups[first] & groups[rest[0]] if rest else set()
    seeds = [first, *(seed for seed in rest if shared and shared <= groups[seed])]
    return np.array([[place[seed, g] for g in sorted(shared)] for seed in seeds], dtype=np.int64)
