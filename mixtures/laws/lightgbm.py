"""Gradient-boosted trees, one ensemble per target.

Source: Liu et al. 2024, "RegMix" (arXiv 2407.01492), section 3.2 and its regression notebook: gbdt,
L2 loss, learning rate 0.01, 1000 rounds.

Departures:
* No early stopping. The notebook stops on its test set, which leaks; Olmix stops on its
  training set.
* The least rows per leaf follow the number of runs (`leaf` of them, at least 3). LightGBM's default
  of 20 leaves 64 runs almost no split.
* The standard deviation comes from cross-validation; trees have none of their own.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cuvee.mixtures.domains import Array
from cuvee.mixtures.errors import RecipeError
from cuvee.mixtures.laws import Law, Prediction, calibration
from cuvee.mixtures.laws.calibration import Rows
from cuvee.mixtures.laws.observations import Observations, observe
from cuvee.mixtures.registry import register

KEPT = 32  # domains up to which a booster stays as trained, with 16 kB of histograms for each leaf


@dataclass(frozen=True)
class FittedTrees:
    """Fitted ensembles.

    Attributes:
        models: one `lightgbm.Booster` per target, which holds no data and is trained no further;
            over few domains (`KEPT`) as it was trained, with the memory of its histograms.
        sd: (M,) calibrated standard deviation.
    """

    models: tuple[Any, ...]
    sd: Array

    def predict(self, W: Array) -> Prediction:
        W = np.asarray(W, dtype=np.float64)
        columns = [booster.predict(W, num_threads=1) for booster in self.models]
        mean = np.column_stack([np.asarray(column, dtype=np.float64) for column in columns])
        return Prediction(mean, np.broadcast_to(self.sd, mean.shape).copy())


@register("law")
@dataclass(frozen=True)
class LightGBM(Law):
    """Trees without parameters.

    Take it to repeat RegMix as published; from some 500 runs on it ranks as well as `kriging` does
    from 64, and it takes no gradient, so search with `simulate`.

    Attributes:
        trees: boosting rounds, trees of each target.
        rate: learning rate of the boosting.
        leaf: least runs in a leaf, as a part of all runs.
        folds: of the cross-validation that gives the standard deviation.
    """

    name = "lightgbm"

    trees: int = 1000
    rate: float = 0.01
    leaf: float = 0.02
    folds: int = 4

    def __post_init__(self) -> None:
        if self.trees < 1 or not 0 < self.rate <= 1 or not 0 < self.leaf < 0.5 or self.folds < 2:
            raise RecipeError(
                "lightgbm needs trees of at least 1, a rate in (0, 1], a leaf in (0, 0.5) and at "
                f"least 2 folds; got {self}"
            )

    def coarse(self) -> "LightGBM":
        """A quarter of the trees at four times the rate, and two folds: for refits."""
        return replace(self, trees=-(-self.trees // 4), rate=min(4 * self.rate, 1.0), folds=2)

    def rows(self, domains: int) -> int:
        return 12  # two leaves of 3 runs, in each of two halves of a cross-validation

    def fit(self, W: Array, Y: Array, noise: Array, rng: np.random.Generator) -> FittedTrees:
        data = observe(self, W, Y, noise)
        seed = int(rng.integers(2**31 - 1))
        held_out = np.empty_like(data.Y)
        for kept, fold in calibration.random_folds(len(data.W), self.folds, rng):
            part = FittedTrees(self._train(data, kept, seed), np.ones(data.Y.shape[1]))
            held_out[fold] = part.predict(data.W[fold]).mean
        residuals = data.Y - held_out
        sd = np.sqrt(np.mean(residuals**2, axis=0) + 1e-24)
        sd = sd * calibration.width_factor(residuals, np.broadcast_to(sd, residuals.shape))
        return FittedTrees(self._train(data, np.arange(len(data.W)), seed), sd)

    def _train(self, data: Observations, rows: Rows, seed: int) -> tuple[Any, ...]:
        import lightgbm

        params: dict[str, Any] = {
            "objective": "regression",
            "boosting": "gbdt",
            "learning_rate": self.rate,
            "min_data_in_leaf": max(3, round(self.leaf * len(rows))),
            "min_data_in_bin": 1,
            "num_threads": 1,
            "deterministic": True,
            "force_row_wise": True,
            "seed": seed,
            "verbosity": -1,
        }
        # The misfit of trees is near a tenth of the spread; noise below that changes no weight.
        variance = data.scaled_noise[rows] ** 2 + 0.01
        boosters = []
        for m in range(data.Y.shape[1]):
            table = lightgbm.Dataset(
                data.W[rows],
                label=data.Y[rows, m],
                weight=variance[:, m].min() / variance[:, m],
                params=params,
                free_raw_data=True,
            )
            # Unless it is kept as trained, `train` writes it as text and reads it again: of few
            # runs that takes as long as the training, and it frees 27 MB at 200 domains.
            kept = data.W.shape[1] <= KEPT
            booster = lightgbm.train(params, table, self.trees, keep_training_booster=kept)
            boosters.append(booster.free_dataset())
        return tuple(boosters)
