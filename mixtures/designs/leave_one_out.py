"""Leave-one-out: the natural mixture, and the natural mixture without each domain in turn.

What the study loses without a domain is what the domain is worth beside the others, which its
vertex cannot tell. Where a domain is required, it is lowered to what the constraints allow.
"""

from dataclasses import dataclass

import numpy as np

from cuvee.mixtures.constraints import Constraints
from cuvee.mixtures.designs import Design, distinct_rows, first_rows
from cuvee.mixtures.domains import Array, DomainSet
from cuvee.mixtures.errors import ConstraintError
from cuvee.mixtures.registry import register


@register("design")
@dataclass(frozen=True)
class LeaveOneOut(Design):
    """K + 1 mixtures at most: all domains, then all but one.

    Take it to learn what each domain is worth beside the others, in one run more than there are
    domains.
    """

    name = "leave_one_out"

    def draw(
        self, domains: DomainSet, constraints: Constraints, n: int, rng: np.random.Generator
    ) -> Array:
        rows = []
        for left_out in (None, *range(len(domains))):
            shares = domains.natural.copy()
            if left_out is not None:
                shares[left_out] = 0.0
            try:
                rows.append(constraints.project(shares / shares.sum()))
            except ConstraintError:
                continue
        return first_rows(
            distinct_rows(np.array(rows).reshape(-1, len(domains))), n, "leave_one_out"
        )
