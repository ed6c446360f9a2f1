"""Seed parts: how much of the noise is initialization, how much data order, how much neither alone.

Runs of one mixture in which both differ apart (`crossed` of the swarms) are a two-way layout
without repeats: value_ij = mean + init_i + order_j + rest_ij. Its mean squares give the variances:
`E[MS_init] = rest + orders * init` and so on; negative ones count as 0. Intervals are generalized
ones (Weerahandi 1993, JASA 88): sums of squares over quantiles of chi-squared, in all pairs.
PolyPythias (van der Wal et al. 2025) trained language models with such seeds apart.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cuvee.mixtures import simplex
from cuvee.mixtures.domains import Array
from cuvee.mixtures.inference.power import QUANTILES
from cuvee.mixtures.recommendation import LEVEL
from cuvee.mixtures.runs.run_spec import RunSpec

PARTS = ("initialization", "data order", "neither alone")
ADVICE = (
    "the noise is that of initialization in the main: runs that share one, such as all that go on "
    "from a checkpoint, look quieter than they are; spend runs on other initializations",
    "the noise is that of data order in the main: repeats may share an initialization or a "
    "checkpoint, as long as each reads the data in an order of its own; spend runs on orders",
    "neither initialization nor data order is clearly the larger part: change both from run to "
    "run, as seeds do, since runs that share one say nothing of it",
)


@dataclass(frozen=True, eq=False)
class SeedParts:
    """Where the noise of each column comes from: standard deviations by `PARTS`.

    Attributes:
        sd: (3, M) of each part.
        low: (3, M) lower ends of their intervals at `LEVEL`.
        high: (3, M) upper ends.
        degrees: (3,) of freedom.
    """

    sd: Array
    low: Array
    high: Array
    degrees: Array

    def advice(self, column: int) -> str:
        """Where to spend runs, for what one column measures."""
        for main, other in ((0, 1), (1, 0)):
            if self.low[main, column] > self.high[other, column]:
                return ADVICE[main]
        return ADVICE[2]


def seed_parts(specs: Sequence[RunSpec], values: Array) -> SeedParts | None:
    """The parts of each column of scores (N, M) of runs; None where no two seeds are crossed."""
    member = simplex.group_rows([spec.weights for spec in specs])
    squares, degrees, sizes = np.zeros((3, values.shape[1])), np.zeros(3), np.zeros(2)
    for group in range(member.max() + 1):
        rows = [int(i) for i in np.flatnonzero(member == group)]
        grid = _whole_grid({(specs[i].seed, specs[i].order_seed): values[i] for i in rows})
        if grid is None:
            continue
        means = [grid.mean(axis=axis, keepdims=True) for axis in (1, 0, (0, 1))]
        a, b = grid.shape[:2]
        own = np.array([a - 1, b - 1, (a - 1) * (b - 1)])
        degrees, sizes = degrees + own, sizes + own[:2] * (b, a)
        squares[0] += b * ((means[0] - means[2]) ** 2).sum(axis=(0, 1))
        squares[1] += a * ((means[1] - means[2]) ** 2).sum(axis=(0, 1))
        squares[2] += ((grid - means[0] - means[1] + means[2]) ** 2).sum(axis=(0, 1))
    return _estimated(squares, degrees, sizes / degrees[:2]) if degrees.all() else None


def _whole_grid(cells: dict[tuple[int, int], Array]) -> Array | None:
    """Scores (a, b, M) of the seeds that are crossed, without those that lack a run; or None."""
    apart = [pair for pair in cells if pair[0] != pair[1]]
    orders = sorted({j for _, j in apart})
    inits = [i for i in sorted({i for i, _ in apart}) if all((i, j) in cells for j in orders)]
    if len(inits) < 2 or len(orders) < 2:
        return None
    return np.array([[cells[i, j] for j in orders] for i in inits])


def _estimated(squares: Array, degrees: Array, sizes: Array) -> SeedParts:
    """From sums of squares (3, M), their degrees, and the runs behind each mean of a part (2,)."""
    from scipy import stats  # here: see `simplex`

    each = squares / degrees[:, None]
    draws = squares[:, :, None] / stats.chi2.ppf(QUANTILES, degrees[:, None])[:, None]  # (3, M, Q)
    ends = np.quantile(draws[2], [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=1)[:, None]  # (2, 1, M)
    variances, intervals = [each[2]], [ends]
    for k in (1, 0):
        apart = (draws[k][:, :, None] - draws[2][:, None]).reshape(squares.shape[1], -1) / sizes[k]
        both = np.quantile(apart, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=1)[:, None]
        variances, intervals = [(each[k] - each[2]) / sizes[k], *variances], [both, *intervals]
    sd = np.sqrt(np.maximum(variances, 0.0))
    low, high = np.sqrt(np.maximum(np.concatenate(intervals, axis=1), 0.0))
    return SeedParts(sd, np.minimum(low, sd), np.maximum(high, sd), degrees)
