"""RegMix: a Dirichlet design, gradient-boosted trees, simulation.

Source: Liu et al. 2024, "RegMix: Data Mixture as Regression for Language Model Pre-training" (arXiv
2407.01492). The paper trains 512 proxies; the default here is what a small study can pay.
Departures: repeated anchors, a law chosen by cross-validation if several are given, intervals.
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
class RegMix(Method):
    """One round of runs; its fields are those of `mixtures.methods.swarm.Swarm`."""

    name = "regmix"

    runs: int = 64
    design: Any = "dirichlet"
    laws: tuple[Any, ...] = ("lightgbm",)
    search: Any = "simulate"
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
