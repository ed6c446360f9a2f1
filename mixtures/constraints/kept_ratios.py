"""Kept ratios: limits that hold the proportions among some domains as an earlier study found them.

The equalities behind Olmix's mixture reuse: with them, every candidate and the answer move these
domains as one, and the design `reuse` draws what is left.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from cuvee.mixtures.constraints import Constraints, Limit
from cuvee.mixtures.errors import ConstraintError


def keep_ratios(constraints: Constraints, ratios: Mapping[str, float]) -> Constraints:
    """The constraints with the ratios among some domains held as they are.

    Args:
        constraints: what is to hold besides.
        ratios: positive, by domain; only their proportions count.

    Raises:
        ConstraintError: fewer than two domains, one that is unknown, or a ratio not above zero.
    """
    unknown = sorted(set(ratios) - set(constraints.domains))
    if len(ratios) < 2 or unknown or not all(value > 0 for value in ratios.values()):
        raise ConstraintError(
            "kept ratios need two or more of the domains, each with a number above zero; got "
            f"{dict(ratios)}"
            + (f", of which the corpus lacks {', '.join(unknown)}" * bool(unknown))
        )
    total, limits = sum(ratios.values()), list(constraints.limits)
    for name in list(ratios)[:-1]:  # the last follows from the others
        row = np.array([-ratios[name] / total * (d in ratios) for d in constraints.domains])
        row[constraints.domains.index(name)] += 1.0
        sides = [tuple(map(float, side)) for side in (row, -row)]
        limits += [Limit(f"kept ratio of {name}", side, 0.0) for side in sides]
    return replace(constraints, limits=tuple(limits))
