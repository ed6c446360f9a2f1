"""Power: the smallest gain that a confirmation can show, and the seeds that a wanted one needs.

A gain is claimed where the lower end of its interval at `LEVEL` lies above 0: a one-sided t test of
differences paired by seed, whose power is a tail of the noncentral t. Of the noise, earlier runs
give s and its degrees of freedom d, and not sigma, so the power is the mean over
`sigma = s sqrt(d / chi2_d)`: then claims hold as often as was promised, over many such s. The power
at sigma = s does not keep its word (3 seeds, d = 2: it promises 80 % and keeps 64 %).
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cuvee.mixtures.domains import Array
from cuvee.mixtures.inference.crossed_intervals import FEWEST
from cuvee.mixtures.inference.diagnostics import Rows
from cuvee.mixtures.recommendation import LEVEL

POWER = 0.8  # of a confirmation that is said to show a gain
MOST = 1000  # seeds of a confirmation
QUANTILES = (np.arange(100) + 0.5) / 100
GAINS = np.geomspace(0.01, 1000.0, 4000)  # that are tried, in deviations of one difference


@dataclass(frozen=True)
class PairNoise:
    """The noise of the difference of two mixtures under one seed.

    Attributes:
        sd: standard deviation over seeds, in the objective's unit.
        degrees: of freedom of `sd`.
        items: standard error over new items, which no number of seeds makes smaller; 0 where a
            claim is for new seeds alone.
        critical: t that a claim must pass where its deviation has `degrees` too, such as
            Dunnett's; None for a paired test of two mixtures under their seeds.
    """

    sd: float
    degrees: int
    items: float = 0.0
    critical: float | None = None

    def power(self, gain: float, seeds: int) -> float:
        """The chance that a confirmation under so many seeds claims a true gain."""
        from scipy import stats  # here: see `simplex`

        sigma = self.sd * np.sqrt(self.degrees / stats.chi2.ppf(QUANTILES, self.degrees))
        variance = sigma**2 / seeds + self.items**2
        if self.critical is None:
            share = sigma**2 / seeds / variance
            degrees = 1 / (share / (seeds - 1) + (1 - share) / (FEWEST - 1))  # `crossed_intervals`
            bar = stats.t.ppf((1 + LEVEL) / 2, degrees)
        else:
            degrees, bar = self.degrees, self.critical
        return float(stats.nct.sf(bar, degrees, gain / np.sqrt(variance)).mean())

    def smallest_gain(self, seeds: int) -> float:
        """The least true gain that is claimed with `POWER`, to half a percent."""
        gains = GAINS * float(np.hypot(self.sd, self.items))
        return float(gains[bisect_left(gains, POWER, key=lambda gain: self.power(gain, seeds))])

    def seeds_for(self, gain: float) -> int | None:
        """The fewest seeds that claim a true gain with `POWER`; None where no number does."""
        counts = range(2, MOST + 1)
        at = bisect_left(counts, POWER, key=lambda seeds: self.power(gain, seeds))
        return counts[at] if at < len(counts) else None


def pair_noise(values: Array, mixtures: Rows, seeds: Sequence[int]) -> PairNoise | None:
    """From runs of several mixtures under common seeds; None where they say nothing.

    What the runs of a seed have in common cancels in a pair: twice the variance that is left by an
    additive fit of mixtures and seeds, whichever cells of that table are there.

    Args:
        values: (N,) objective of each run.
        mixtures: (N,) number of its mixture.
        seeds: (N,) that make runs of different mixtures a pair.
    """
    kept = np.bincount(mixtures)[mixtures] > 1
    columns = [
        np.equal.outer(own[kept], np.unique(own[kept])) for own in (mixtures, np.array(seeds))
    ]
    X, y = np.hstack(columns).astype(np.float64), values[kept]
    fit, _, rank, _ = np.linalg.lstsq(X, y)
    degrees, squares = len(y) - int(rank), float(((y - X @ fit) ** 2).sum())
    return PairNoise((2 * squares / degrees) ** 0.5, degrees) if degrees and squares else None
