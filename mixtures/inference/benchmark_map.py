"""From bits per byte to accuracy: `accuracy = chance + (top - chance) / (1 + exp(s (x - x0)))`.

Source: Bhagia et al. 2024, "Establishing Task Scaling Laws via Compute-Efficient Model Ladders"
(arXiv 2412.04403), equation 2 (task loss to accuracy), and Ruan et al. 2024, "Observational Scaling
Laws" (arXiv 2405.10938): accuracy is a sigmoid of the loss, with chance as its floor.

It is fitted only where the data support it: where enough runs are above chance by more than their
sampling error, and accuracy falls with the loss. Proxies of a few million parameters mostly
guess, and a sigmoid through guesses forecasts anything.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from cuvee.mixtures.domains import Array
from cuvee.mixtures.errors import EvidenceError
from cuvee.mixtures.inference.diagnostics import spearman
from cuvee.mixtures.inference.metric_audit import ABOVE, LEAST, SURE

Mask = NDArray[np.bool_]
FALLS = -0.3  # rank correlation of accuracy with the loss, at most
BEYOND = 0.5  # how far past the observed losses the map is used, in their range


@dataclass(frozen=True, eq=False)
class BenchmarkMap:
    """A fitted sigmoid.

    Attributes:
        chance: accuracy of guessing.
        p: (3,) log s, x0, logit of top over (chance, 1).
        covariance: (3, 3) of p.
        residual: deviation of a run's accuracy from the curve.
        observed: lowest and highest loss that it was fitted to.
    """

    chance: float
    p: Array
    covariance: Array
    residual: float
    observed: tuple[float, float]

    def supported(self, bits: Array) -> Mask:
        """Which losses (n,) lie near enough to the observed ones."""
        low, high = self.observed
        margin = BEYOND * (high - low)
        return np.asarray((bits >= low - margin) & (bits <= high + margin), dtype=np.bool_)

    def predict(self, bits: Array) -> tuple[Array, Array]:
        """Accuracy (n,) at losses (n,), and its deviation for a new run.

        Raises:
            EvidenceError: a loss too far from those observed.
        """
        x = np.asarray(bits, dtype=np.float64)
        if not self.supported(x).all():
            low, high = self.observed
            raise EvidenceError(
                f"accuracy was seen at {low:.3f} to {high:.3f} bits per byte only; "
                f"{x[~self.supported(x)][0]:.3f} is too far from there to be mapped"
            )
        value = _sigmoid(self.p, x, self.chance)
        steps = 1e-5 * np.eye(3)
        jacobian = np.stack([(_sigmoid(self.p + h, x, self.chance) - value) / 1e-5 for h in steps])
        own = np.einsum("an,ab,bn->n", jacobian, self.covariance, jacobian)
        return value, np.sqrt(np.maximum(own, 0.0) + self.residual**2)


def _sigmoid(p: Array, x: Array, chance: float) -> Array:
    top = chance + (1.0 - chance) / (1.0 + np.exp(-p[2]))
    scaled = np.clip(np.exp(np.clip(p[0], -8.0, 8.0)) * (x - p[1]), -50.0, 50.0)
    return np.asarray(chance + (top - chance) / (1.0 + np.exp(scaled)), dtype=np.float64)


def fit_map(bits: Array, accuracy: Array, stderr: Array, chance: float) -> BenchmarkMap:
    """Fit the map to runs.

    Args:
        bits: (N,) bits per byte of a task's gold answers.
        accuracy: (N,) of the same runs.
        stderr: (N,) its sampling error.
        chance: accuracy of guessing.

    Raises:
        EvidenceError: too few runs, accuracy within the noise of chance, or accuracy that does not
            fall with the loss.
    """
    x, y = np.asarray(bits, dtype=np.float64), np.asarray(accuracy, dtype=np.float64)
    error = np.asarray(stderr, dtype=np.float64)
    if not (np.isfinite(x).all() and np.isfinite(y).all() and np.isfinite(error).all()):
        raise EvidenceError("losses, accuracies and their errors must be finite")
    if len(x) < LEAST:
        raise EvidenceError(f"a map to accuracy needs at least {LEAST} runs; got {len(x)}")
    above = int(np.sum(y > chance + SURE * error))
    if above < ABOVE * len(x):
        raise EvidenceError(
            f"accuracy is within the noise of chance ({chance:.3f}): {above} of {len(x)} runs are "
            "above it; use larger proxies or more items, or stay with bits per byte"
        )
    falls = spearman(x, y)
    if falls > FALLS:
        raise EvidenceError(
            f"accuracy does not fall with bits per byte (rank correlation {falls:+.2f}): "
            "nothing can be mapped"
        )
    return _fitted(x, y, np.maximum(error, 1e-3), chance)


def _fitted(x: Array, y: Array, error: Array, chance: float) -> BenchmarkMap:
    def residuals(p: Array) -> Array:
        prior = np.array([(p[2] - 1.0) / 2.0, (p[0] - np.log(4.0 / width)) / 1.5])
        return np.concatenate([(_sigmoid(p, x, chance) - y) / error, prior])

    width = max(float(np.ptp(x)), 1e-6)
    starts = [
        np.array([np.log(k / width), middle, top])
        for k in (1.0, 4.0)
        for middle in (x.min(), float(np.median(x)))
        for top in (0.0, 2.0)
    ]
    found = min(
        (least_squares(residuals, start, loss="huber", f_scale=2.0) for start in starts),
        key=lambda result: float(result.cost),
    )
    inside = (_sigmoid(found.x, x, chance) - y) / error
    dispersion = max(1.0, float((inside**2).sum()) / max(len(x) - 3, 1))
    covariance = dispersion * np.linalg.pinv(found.jac.T @ found.jac)
    residual = float(np.sqrt(dispersion * np.mean(error**2)))
    return BenchmarkMap(chance, found.x, covariance, residual, (float(x.min()), float(x.max())))
