"""Mixing laws: a Dirichlet design, the log-linear law, its exact optimum.

Source: Ye et al. 2024, "Data Mixing Laws: Optimizing Data Mixtures by Predicting Language Modeling
Performance" (arXiv 2403.16952). The paper finds the optimum on a grid of powers of two; the law
is convex, so that it is solved here exactly. Its nesting over steps and sizes is not part of this
method. Departures: as in `regmix`. With laws of several forms, set `search: auto`.
"""

from dataclasses import dataclass
from typing import Annotated, Any

from cuvee.mixtures.methods.swarm import Swarm
from cuvee.mixtures.registry import Registered, register


@register("method")
@dataclass(frozen=True)
class MixingLaws(Swarm):
    """One round of runs; its fields are those of `mixtures.methods.swarm.Swarm`.

    Take it where runs are few and each domain acts on a score by itself; where domains help or
    hurt one another, its one law stays wrong however many runs there are, and `regmix` with `laws:
    [kriging]` is better.
    """

    name = "mixing_laws"

    runs: int = 32
    laws: Annotated[tuple[Any, ...], Registered("law", many=True)] = ("log_linear",)
    search: Annotated[Any, Registered("search")] = "exact"
