"""Olmix: a Dirichlet swarm, the log-linear law, its exact optimum with a price on leaving natural.

Source: allenai/olmix: `generate/synthesize_mixture.py` (temperature 1, minimum weight 0.002, ten
draws for each mixture kept), `fit/law.py` (`y = exp(c) + exp(x . t)`) and `fit/core.py` (`kl_reg`
0.05 in the paper's configurations). Departures: repeated anchors, cross-validation and intervals,
as in `regmix`.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mixtures.history import History, RunSpec
from mixtures.methods import choice, swarm
from mixtures.problem import Problem
from mixtures.recommendation import Recommendation
from mixtures.registry import register

DESIGN = (("name", "dirichlet"), ("temperature", 1.0), ("minimum", 0.002), ("oversample", 10))
LAW = (("name", "log_linear"), ("offset", "positive"))
SEARCH = (("name", "exact"), ("kl_reg", 0.05))


@register("method", "olmix")
@dataclass(frozen=True)
class Olmix:
    """One round of runs; its fields are those of `mixtures.methods.swarm.Swarm`."""

    runs: int = 64
    design: Any = field(default_factory=lambda: dict(DESIGN))
    laws: tuple[Any, ...] = field(default_factory=lambda: (dict(LAW),))
    search: Any = field(default_factory=lambda: dict(SEARCH))
    anchors: tuple[Any, ...] = ("natural", "uniform")
    seeds: int = 3
    folds: int = 5
    refits: int | None = None

    def __post_init__(self) -> None:
        swarm.assemble(self)

    def ask(
        self, problem: Problem, history: History, rng: np.random.Generator
    ) -> tuple[RunSpec, ...]:
        return swarm.ask(self, problem, history, rng)

    def recommend(
        self, problem: Problem, history: History, rng: np.random.Generator
    ) -> Recommendation:
        return choice.recommend(self, problem, history, rng)
