"""Olmix: a Dirichlet swarm, the log-linear law, its exact optimum with a price on leaving natural.

Source: allenai/olmix: `generate/synthesize_mixture.py` (temperature 1, minimum weight 0.002, ten
draws for each mixture kept), `fit/law.py` (`y = exp(c) + exp(x . t)`) and `fit/core.py` (`kl_reg`
0.05 in the paper's configurations). Departures: repeated anchors, cross-validation and intervals,
as in `regmix`; its proposer `search`, which looks the best row up, goes by the law's prediction of
the rows, since the lowest score of many is low by luck.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mixtures import simplex
from mixtures.domains import Array
from mixtures.errors import ConstraintError
from mixtures.history import History, RunSpec
from mixtures.laws import FittedLaw
from mixtures.methods import choice, evidence, swarm
from mixtures.problem import Problem
from mixtures.recommendation import Recommendation
from mixtures.registry import register
from mixtures.searches import score

DESIGN = (("name", "dirichlet"), ("temperature", 1.0), ("minimum", 0.002), ("oversample", 10))
LAW = (("name", "log_linear"), ("offset", "positive"))
SEARCH = (("name", "exact"), ("kl_reg", 0.05))


@dataclass(frozen=True, eq=False)
class Tried:
    """A search among given mixtures alone.

    Attributes:
        points: (n, K) mixtures that were run.
    """

    points: Array

    def choose(
        self, law: FittedLaw, problem: Problem, reference: Array, rng: np.random.Generator
    ) -> Array:
        feasible = self.points[problem.constraints.satisfied(self.points)]
        if not len(feasible):
            raise ConstraintError(
                f"none of {len(self.points)} mixtures that were run meets the constraints; relax "
                "them, or search beyond the runs"
            )
        found = score.best_of(law, feasible, score.shape(problem, reference))
        return simplex.normalized(found)


@register("method", "olmix")
@dataclass(frozen=True)
class Olmix:
    """One round of runs; the fields beside these are those of `mixtures.methods.swarm.Swarm`.

    Attributes:
        only_tried: recommend the best of the mixtures that were run, in place of a search.
    """

    runs: int = 64
    design: Any = field(default_factory=lambda: dict(DESIGN))
    laws: tuple[Any, ...] = field(default_factory=lambda: (dict(LAW),))
    search: Any = field(default_factory=lambda: dict(SEARCH))
    anchors: tuple[Any, ...] = ("natural", "uniform")
    seeds: int = 3
    folds: int = 5
    refits: int | None = None
    only_tried: bool = False

    def __post_init__(self) -> None:
        swarm.assemble(self)

    def ask(
        self, problem: Problem, history: History, rng: np.random.Generator
    ) -> tuple[RunSpec, ...]:
        return swarm.ask(self, problem, history, rng)

    def recommend(
        self, problem: Problem, history: History, rng: np.random.Generator
    ) -> Recommendation:
        instead = None
        if self.only_tried:
            instead = Tried(evidence.gather(problem, history).sample.W)
        return choice.recommend(self, problem, history, rng, instead=instead)
