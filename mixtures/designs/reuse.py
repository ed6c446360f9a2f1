"""Mixture reuse: domains whose ratio is settled move as one.

Source: Olmix (mixture reuse): when a corpus changes in part, the ratios found for the rest are
frozen, and only the groups' totals and the new domains are drawn again, so that far fewer runs are
needed. Any design draws over the groups; its mixtures are then spread over the members.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np

from cuvee.mixtures import simplex
from cuvee.mixtures.constraints import Constraints, Limit
from cuvee.mixtures.designs import Design, distinct_rows, first_rows
from cuvee.mixtures.domains import Array, Domain, DomainSet
from cuvee.mixtures.errors import ConstraintError, RecipeError
from cuvee.mixtures.registry import ByName, Registered, build, register


@register("design")
@dataclass(frozen=True)
class Reuse(Design):
    """A design over groups of frozen ratios and the domains beside them.

    Take it where a corpus changed in part: ratios that an earlier study found are kept, and far
    fewer runs are needed.

    Attributes:
        frozen: groups, each (domain, ratio) pairs or a mapping; ratios are renormalized.
        design: what draws the groups' shares; a registered design.
    """

    name = "reuse"

    frozen: Annotated[tuple[Any, ...], tuple[ByName, ...]] = ()
    design: Annotated[Any, Registered("design")] = "dirichlet"

    def __post_init__(self) -> None:
        groups = tuple(
            tuple(sorted(g.items())) if isinstance(g, Mapping) else tuple(map(tuple, g))
            for g in self.frozen
        )
        names = [name for group in groups for name, _ in group]
        if len(set(names)) != len(names):
            raise RecipeError(f"a domain stands in two frozen groups: {', '.join(sorted(names))}")
        if any(ratio <= 0 for group in groups for _, ratio in group):
            raise RecipeError("frozen ratios must be positive; leave a domain out instead")
        object.__setattr__(self, "frozen", groups)
        object.__setattr__(self, "design", build("design", self.design))

    def draw(
        self, domains: DomainSet, constraints: Constraints, n: int, rng: np.random.Generator
    ) -> Array:
        expand, groups = self._groups(domains)
        rows, _ = constraints.matrix
        folded = Constraints(
            domains=groups.names,
            limits=tuple(
                Limit(limit.name, tuple(map(float, row @ expand)), limit.bound)
                for limit, row in zip(constraints.limits, rows, strict=True)
            ),
        )
        kept = np.zeros((0, len(domains)))
        for count in (n, 4 * n, 16 * n):
            try:
                drawn = self.design.draw(groups, folded, count, rng) @ expand.T
            except ConstraintError:
                break
            kept = distinct_rows(np.vstack([kept, drawn[constraints.satisfied(drawn)]]))
            if len(kept) >= n:
                break
        return first_rows(kept, n, "reuse")

    def _groups(self, domains: DomainSet) -> tuple[Array, DomainSet]:
        """How groups expand into domains (K, G), and the groups as domains."""
        frozen = {name: g for g, group in enumerate(self.frozen) for name, _ in group}
        columns: list[Array] = []
        members: list[Domain] = []
        for group in self.frozen:
            column = simplex.normalized(domains.vector(dict(group)))
            inside = [domains.domains[domains.index(name)] for name, _ in group]
            columns.append(column)
            members.append(
                Domain(
                    name="+".join(d.name for d in inside),
                    tokens=sum(d.tokens for d in inside),
                    bytes=sum(d.bytes for d in inside),
                    identity="+".join(d.identity for d in inside),
                    drawn_tokens=sum(d.natural_tokens for d in inside),
                )
            )
        for k, domain in enumerate(domains):
            if domain.name not in frozen:
                columns.append(np.eye(len(domains))[k])
                members.append(domain)
        return np.array(columns).T, DomainSet(tuple(members))
