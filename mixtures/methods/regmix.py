"""RegMix: a Dirichlet design, gradient-boosted trees, simulation.

Source: Liu et al. 2024, "RegMix: Data Mixture as Regression for Language Model Pre-training" (arXiv
2407.01492). The paper trains 512 proxies; the default here is what a small study can pay.
Departures: repeated anchors, a law chosen by cross-validation if several are given, intervals.
"""

from dataclasses import dataclass
from typing import Annotated, Any

from cuvee.mixtures.methods.swarm import Swarm
from cuvee.mixtures.registry import Registered, register


@register("method")
@dataclass(frozen=True)
class RegMix(Swarm):
    """One round of runs; its fields are those of `mixtures.methods.swarm.Swarm`.

    Take it with `laws: [kriging]`, for nearly every study: one round of small runs, each on a
    mixture of its own, then a law and a search. With the trees of the paper it needs several times
    the runs.
    """

    name = "regmix"

    runs: int = 64
    laws: Annotated[tuple[Any, ...], Registered("law", many=True)] = ("lightgbm",)
    search: Annotated[Any, Registered("search")] = "simulate"
