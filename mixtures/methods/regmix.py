"""RegMix: a Dirichlet design, gradient-boosted trees, simulation.

Source: Liu et al. 2024, "RegMix: Data Mixture as Regression for Language Model Pre-training" (arXiv
2407.01492). The paper trains 512 proxies; the default here is what a small study can pay.
Departures: repeated anchors, a law chosen by cross-validation if several are given, intervals.
"""

from dataclasses import dataclass
from typing import Any

from cuvee.mixtures.methods.swarm import Swarm
from cuvee.mixtures.registry import register


@register("method")
@dataclass(frozen=True)
class RegMix(Swarm):
    """One round of runs; its fields are those of `mixtures.methods.swarm.Swarm`."""

    name = "regmix"

    runs: int = 64
    laws: tuple[Any, ...] = ("lightgbm",)
    search: Any = "simulate"
