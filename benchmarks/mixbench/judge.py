"""What a prediction is worth: order, decisions on close pairs, regret, error and coverage.

Order and decisions are judged per target and averaged over targets; `objective` is the mean of the
targets' scores, and `main` the table's main target.
"""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from cuvee.mixtures.domains import Array
from cuvee.mixtures.inference.diagnostics import Z, spearman
from cuvee.mixtures.laws import Prediction
from mixbench.tables import Runs, Table

CLOSE = (1.0, 3.0)  # noise floors between the scores of a close pair
LOWER = ("regret", "error", "error_mean", "seconds")  # of which less is better


def close_accuracy(observed: Array, predicted: Array, floor: float) -> float | None:
    """Share of close pairs that are predicted in the right order; a predicted tie counts half.

    A pair is close where its scores are 1 to 3 noise floors apart. None where there is none.
    """
    first, second = np.triu_indices(len(observed), k=1)
    gap = observed[first] - observed[second]
    close = (np.abs(gap) >= CLOSE[0] * floor) & (np.abs(gap) <= CLOSE[1] * floor) & (gap != 0)
    if floor <= 0 or not close.any():
        return None
    guess = np.sign(predicted[first] - predicted[second])[close]
    return float(np.where(guess == 0, 0.5, guess == np.sign(gap[close])).mean())


def level_figures(runs: Runs, found: Prediction, seen: Array) -> dict[str, float]:
    """Coverage of 90 % intervals, relative errors, and predictions beyond one observed range, %."""
    relative = np.abs(found.mean - runs.Y) / np.maximum(np.abs(runs.Y), 1e-12)
    low, high = seen.min(axis=0), seen.max(axis=0)
    beyond = (found.mean < low - (high - low)) | (found.mean > high + (high - low))
    return {
        "coverage": 100 * float((np.abs(found.mean - runs.Y) <= Z * found.sd).mean()),
        "error": 100 * float(np.median(relative)),
        "error_mean": 100 * float(relative.mean()),
        "beyond": 100 * float(beyond.mean()),
    }


@dataclass(frozen=True, eq=False)
class Judge:
    """Judges predictions of a table.

    Attributes:
        table: whose scores.
        floor: (M,) noise floor of each target.
    """

    table: Table
    floor: Array

    def figures(self, name: str, runs: Runs, found: Prediction, seen: Array) -> dict[str, Any]:
        """Figures of predictions of a test's runs, by a law fitted to scores `seen` (N, M)."""
        by_target = [
            self.column(runs.truth[:, m], found.mean[:, m], float(self.floor[m]))
            for m in range(runs.Y.shape[1])
        ]
        rows: dict[str, Any] = {
            "objective": self.column(
                runs.truth.mean(axis=1), found.mean.mean(axis=1), self.objective_floor
            ),
            "targets": dict(zip(self.table.targets, by_target, strict=True)),
        }
        if name not in self.table.elsewhere:
            rows |= level_figures(runs, found, seen)
        for key in ("rank", "close", "regret", "missed"):
            values = [column[key] for column in by_target if column[key] is not None]
            rows[key] = float(np.mean(values)) if values else None
        if self.table.main:
            rows["main"] = rows["targets"][self.table.main]
        return rows

    @property
    def objective_floor(self) -> float:
        """Noise floor of the mean of the targets, were their noise independent."""
        return float(np.sqrt((self.floor**2).sum()) / len(self.floor))

    def column(self, truth: Array, mean: Array, floor: float) -> dict[str, float | None]:
        """Figures of one score: rank x 100, close pairs in %, regret, share of the gain missed."""
        regret = float(truth[int(np.argmin(mean))] - truth.min())
        gain = float(truth.mean() - truth.min())
        close = close_accuracy(truth, mean, floor)
        return {
            "rank": 100 * spearman(truth, mean),
            "close": None if close is None else 100 * close,
            "regret": regret,
            "missed": 100 * regret / gain if gain > 0 else 0.0,
        }


def residual_floor(runs: Runs, most: int = 192) -> Array:
    """Noise floor (M,) from left-out residuals, for tables without a repeat.

    Of a Gaussian process of its own (isotropic, on square roots of the shares) that no contestant
    is, so that no contestant sets what it is judged by: 1.48 times the median residual, of at
    most so many rows. It holds noise and what the process cannot explain.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

    X = np.sqrt(runs.W[:most])
    floor = []
    for y in runs.Y[:most].T:
        scale = float(y.std()) or 1.0
        kernel = ConstantKernel(1.0, (1e-2, 1e4)) * Matern(1.0, (0.05, 50.0), nu=2.5) + (
            WhiteKernel(1e-2, (1e-6, 1.0))
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # a floor needs no last digit
            process = GaussianProcessRegressor(kernel).fit(X, (y - y.mean()) / scale)
        inverse = np.linalg.inv(process.kernel_(X))
        residual = inverse @ ((y - y.mean()) / scale) / np.diag(inverse)
        floor.append(scale * 1.4826 * float(np.median(np.abs(residual))))
    return np.array(floor)
