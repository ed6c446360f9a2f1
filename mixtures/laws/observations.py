"""Observations: what every law is fitted to, checked once: shares, scores and their noise."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cuvee.mixtures import simplex
from cuvee.mixtures.domains import Array
from cuvee.mixtures.errors import EvidenceError
from cuvee.mixtures.laws import Law

DIGITS = 1e5  # of the concentration, beyond which they are as good as random


@dataclass(frozen=True)
class Observations:
    """Runs as a law sees them.

    Attributes:
        W: (N, K) shares of tokens.
        Y: (N, M) scores.
        noise: (N, M) standard deviation of each score over seeds; 0 where unknown.
        shifted: whether scaled scores have mean 0; laws that need positive scores do without.
    """

    W: Array
    Y: Array
    noise: Array
    shifted: bool = True

    @property
    def center(self) -> Array:
        """(M,) what is subtracted to scale: the mean score per target, or 0."""
        if not self.shifted:
            return np.zeros(self.Y.shape[1])
        return np.asarray(self.Y.mean(axis=0), dtype=np.float64)

    @property
    def spread(self) -> Array:
        """(M,) standard deviation over runs per target; 1 where a target does not vary."""
        spread = self.Y.std(axis=0)
        flat = spread <= 1e-12 * np.maximum(1.0, np.abs(self.Y).max(axis=0))
        return np.where(flat, 1.0, spread)

    @property
    def scaled(self) -> Array:
        """(N, M) scores with standard deviation 1 and, where shifted, mean 0 per target."""
        return np.asarray((self.Y - self.center) / self.spread, dtype=np.float64)

    @property
    def scaled_noise(self) -> Array:
        """(N, M) noise in units of the spread."""
        return np.asarray(self.noise / self.spread, dtype=np.float64)

    def logarithms(self) -> "Observations":
        """The same runs with the logarithms of their scores, which must be positive."""
        return Observations(self.W, np.log(self.Y), self.noise / self.Y, self.shifted)


def concentration(W: Array) -> Array:
    """(N,) log of the sum of squared shares: 0 for one domain, -log K for equal shares."""
    return np.asarray(np.log(np.sum(W**2, axis=1)), dtype=np.float64)


def scattered_rows(W: Array, y: Array) -> NDArray[np.intp]:
    """The runs in an order that is as good as random, whatever order of runs and domains.

    Runs of one mixture stay together, so that some of them tell the noise.
    """
    spread = concentration(W)
    digits = np.round(np.mod(spread * DIGITS, 1.0), 4)
    return np.lexsort((y.sum(axis=0), spread, digits))


def observe(law: Law, W: ArrayLike, Y: ArrayLike, noise: ArrayLike) -> Observations:
    """Check what a law is given.

    Args:
        law: says how few runs it can be fitted to.
        W: (N, K) shares of tokens.
        Y: (N, M) scores.
        noise: (M,) or (N, M) standard deviation of a score over seeds.

    Raises:
        EvidenceError: too few runs, tables that do not fit together, a value that is
            not finite.
    """
    name = law.name
    w, y = np.asarray(W, dtype=np.float64), np.asarray(Y, dtype=np.float64)
    if w.ndim != 2 or y.ndim != 2 or len(w) != len(y):
        raise EvidenceError(
            f"law {name!r} needs a table of shares and a table of scores with one row per run; "
            f"got shapes {w.shape} and {y.shape}"
        )
    rows = law.rows(w.shape[1])
    if len(w) < rows:
        raise EvidenceError(
            f"law {name!r} needs at least {rows} runs for {w.shape[1]} domains; got {len(w)}: "
            f"train {rows - len(w)} more or choose a law with fewer parameters"
        )
    sums = w.sum(axis=1)
    if not np.all(np.isfinite(w)) or np.any(w < 0) or np.any(abs(sums - 1) > simplex.TOLERANCE):
        worst = int(np.argmax(np.where(np.isfinite(sums), abs(sums - 1), np.inf)))
        raise EvidenceError(
            f"law {name!r} needs shares that are not negative and sum to 1 in every run; "
            f"run {worst} has {w[worst]} (sum {sums[worst]:.6g})"
        )
    try:
        sd = np.broadcast_to(np.asarray(noise, dtype=np.float64), y.shape)
    except ValueError:
        raise EvidenceError(
            f"law {name!r} needs noise of shape {y.shape[1:]} or {y.shape}; got {np.shape(noise)}"
        ) from None
    if not np.all(np.isfinite(y)) or not np.all(np.isfinite(sd)) or np.any(sd < 0):
        raise EvidenceError(
            f"law {name!r} needs finite scores and a finite noise of at least 0; "
            "remove or repeat the runs without a score"
        )
    return Observations(w, y, sd)
