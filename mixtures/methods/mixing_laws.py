"""Mixing laws: a Dirichlet design, the log-linear law, its exact optimum.

Source: Ye et al. 2024, "Data Mixing Laws: Optimizing Data Mixtures by Predicting Language Modeling
Performance" (arXiv 2403.16952). The paper finds the optimum on a grid of powers of two; the law
is convex, so that it is solved here exactly. Its nesting over steps and sizes is not part of this
method. Departures: as in `regmix`. With laws of several forms, set `search: auto`.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from cuvee.mixtures.inference import recommend as choice
from cuvee.mixtures.methods import Method, swarm
from cuvee.mixtures.problem import Problem
from cuvee.mixtures.recommendation import Recommendation
from cuvee.mixtures.registry import register
from cuvee.mixtures.runs import History, RunSpec


@register("method")
@dataclass(frozen=True)
class MixingLaws(Method):
    """One round of runs; its fields are those of `mixtures.methods.swarm.Swarm`."""

    name = "mixing_laws"

    runs: int = 32
    design: Any = "dirichlet"
    laws: tuple[Any, ...] = ("log_linear",)
    search: Any = "exact"
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
        return choice.recommend_mixture(self, problem, history, rng)
