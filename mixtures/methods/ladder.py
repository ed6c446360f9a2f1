"""Ladder: many mixtures at the smallest size, fewer at larger ones, an answer for full scale.

The first rung is the study's own proxy: a design and repeated anchors. Each further rung trains a
part of the mixtures of the rung before: the best third, the anchors, and mixtures far from these,
so that laws of scale see both what is wanted and what is different. The answer comes from
`extrapolation.py`: a scaling law if it beat single-scale ranking in the back-test, ranking if not.

Sources: rungs and laws as in "Scaling Laws for Optimal Data Mixtures" (arXiv 2507.09404) and Data
Mixing Laws (arXiv 2403.16952); the rival and its test from DataDecide (arXiv 2504.11393).
The choice of the mixtures that climb is ours (assumption, not studied).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, TypedDict

import numpy as np

from cuvee.mixtures import simplex, ties
from cuvee.mixtures.designs.anchors import Anchors
from cuvee.mixtures.domains import Array
from cuvee.mixtures.errors import RecipeError, UnknownName
from cuvee.mixtures.inference.paired_trial import missing_specs
from cuvee.mixtures.methods.swarm import Swarm
from cuvee.mixtures.multiscale import extrapolation
from cuvee.mixtures.multiscale.steps import LadderStep, step_runs
from cuvee.mixtures.problem import FIRST_SEED, Problem
from cuvee.mixtures.recommendation import Recommendation
from cuvee.mixtures.registry import Registered, build, register
from cuvee.mixtures.runs.run_results import History, score_table
from cuvee.mixtures.runs.run_spec import RunSpec
from cuvee.mixtures.units import whole_number


class Rung(TypedDict):
    """A rung of a ladder, as recipes write it.

    Attributes:
        size: of the proxies, such as 1M, or a shape as in proxy.size.
        tokens: of each training, such as 2M.
        runs: mixtures that are trained at it, no more than on the rung before.
    """

    size: str
    tokens: Annotated[int, whole_number]
    runs: Annotated[int, whole_number]


FIELDS = tuple(Rung.__annotations__)
BEST = 3  # one part in this many of a rung's mixtures are the best of the rung before


@register("method")
@dataclass(frozen=True)
class Ladder(Swarm):
    """Runs of several sizes; the fields beside these are those of `mixtures.methods.swarm.Swarm`.

    Take it where the model at full scale is far larger than a proxy and runs of three sizes or
    more can be paid: it says whether the best mixture moves with scale.

    Attributes:
        runs: mixtures of the first rung, at the study's own proxy.
        rungs: the larger ones, each a mapping of `size`, `tokens` and `runs` (mixtures).
        scaling: scaling laws to be back-tested; one is used if it beats single-scale ranking.
    """

    name = "ladder"

    runs: int = 48
    rungs: Annotated[tuple[Any, ...], tuple[Rung, ...]] = field(
        default=(),
        metadata={"unbounded": True},  # tokens are counts
    )
    scaling: Annotated[tuple[Any, ...], Registered("scaling", many=True)] = (
        "additive",
        "joint",
        "bimix",
    )

    def __post_init__(self) -> None:
        self.assemble()
        scaling = self.scaling if isinstance(self.scaling, list | tuple) else (self.scaling,)
        object.__setattr__(self, "scaling", tuple(build("scaling", law) for law in scaling))
        object.__setattr__(self, "rungs", tuple(_rung(value) for value in self.rungs))

    @property
    def sizes(self) -> tuple[tuple[str, int], ...]:
        return tuple((size, tokens) for size, tokens, _ in self.rungs)

    def steps(self, problem: Problem) -> tuple[LadderStep, ...]:
        """Every rung, the study's own proxy first.

        Raises:
            RecipeError: a rung that trains more mixtures than the one before, or one twice.
        """
        each = self.seeds + self.crossed * max(0, self.crossed - 1)
        repeats = len(self.anchors) * each + self.repeats
        first = LadderStep(problem.proxy.size, problem.proxy.tokens, self.runs, repeats)
        found = (first, *(LadderStep(*values) for values in self.rungs))
        if len({(rung.size, rung.tokens) for rung in found}) < len(found):
            raise RecipeError("a ladder's rungs differ in size or tokens; one is there twice")
        most = self.runs + len(self.anchors)
        for rung in found[1:]:
            if rung.runs > most:
                raise RecipeError(
                    f"the rung of size {rung.size} asks for {rung.runs} mixtures, the rung before "
                    f"it has at most {most}: mixtures climb from rung to rung"
                )
            most = rung.runs
        return found

    def ask(
        self, problem: Problem, history: History, rng: np.random.Generator
    ) -> tuple[RunSpec, ...]:
        before, *rungs = self.steps(problem)
        if first := self.first_round(problem, history, rng):
            return first
        for rung in rungs:
            specs = self._climb(problem, history, before, rung)
            if missing := missing_specs(history, specs):
                return missing
            before = rung
        return ()

    def recommend(
        self, problem: Problem, history: History, rng: np.random.Generator
    ) -> Recommendation:
        return extrapolation.extrapolate(self, problem, history, rng, steps=self.steps(problem))

    def _climb(
        self, problem: Problem, history: History, before: LadderStep, rung: LadderStep
    ) -> tuple[RunSpec, ...]:
        """The runs of a rung, by what the rung before found; none if all of that failed."""
        runs = step_runs(problem, history, before)
        if not runs:
            return ()
        W, Y, _ = score_table(runs, problem.targets)
        membership = simplex.group_rows(W)
        count = int(membership.max()) + 1
        points = np.array([W[membership == g][0] for g in range(count)])
        means = np.array([Y[membership == g].mean(axis=0) for g in range(count)])
        scalar = problem.objective.scalarize(problem.targets, means.mean(axis=0))
        forced = Anchors(self.anchors).all(problem.domains, problem.constraints)
        rows = climbers(points, scalar.relaxed(means), rung.runs, forced)
        return tuple(problem.spec(points[i], FIRST_SEED, rung.size, rung.tokens) for i in rows)


def climbers(points: Array, levels: Array, count: int, forced: Array) -> list[int]:
    """Rows of the mixtures that are trained on the next rung: the best, the anchors, the farthest.

    Args:
        points: (n, K) mixtures of a rung.
        levels: (n,) their objective.
        count: how many climb.
        forced: (A, K) mixtures that do, if they are there and there is room.
    """
    order = [int(i) for i in ties.sort_order(levels)]
    taken = order[: max(1, count // BEST)]
    for row in forced:
        near = np.flatnonzero(np.abs(points - row).max(axis=1) <= 2 * simplex.SAME)
        taken += [int(i) for i in near[:1] if int(i) not in taken]
    taken = taken[:count]
    roots = np.sqrt(points)
    while len(taken) < min(count, len(points)):
        gaps = ((roots[:, None] - roots[taken][None]) ** 2).sum(axis=2).min(axis=1)
        gaps[taken] = -1.0
        taken.append(ties.highest(gaps))
    return taken


def _rung(value: Any) -> tuple[str, int, int]:
    """A rung from a recipe's mapping, or from the tuple that it became."""
    if isinstance(value, Mapping):
        for name in value:
            if name not in FIELDS:
                raise UnknownName("field of a rung", str(name), FIELDS)
        value = tuple(value.get(name) for name in FIELDS)
    size, tokens, runs = (*value, None, None, None)[:3]
    tokens, runs = whole_number(tokens), whole_number(runs)
    good = isinstance(size, str) and all(
        isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in (tokens, runs)
    )
    if not good:
        raise RecipeError(
            "a rung is a `size` of the ladder with `tokens` and `runs`, such as "
            f"{{size: 1M, tokens: 1M, runs: 12}}; got {value}"
        )
    return str(size), int(tokens), int(runs)
