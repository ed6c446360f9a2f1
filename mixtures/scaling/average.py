"""Average: laws of scale, each by how well it predicted what back-tests held out.

No form is right, and which one is least wrong is known only as far as runs reach. So the laws are
not chosen among but weighted: by a softmax of the log densities that they gave to the sizes and
token counts held out from them (`discrepancy.py`), and what they disagree by widens the interval.
Averaging by predictive densities: Yao et al. 2018, "Using Stacking to Average Bayesian Predictive
Distributions" (arXiv 1704.02030), pseudo-BMA; ours leaves out sizes where theirs leaves out rows.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any, cast

import numpy as np

from cuvee.mixtures.domains import Array
from cuvee.mixtures.errors import EvidenceError, RecipeError
from cuvee.mixtures.laws import Prediction
from cuvee.mixtures.registry import Registered, build, register
from cuvee.mixtures.scaling import FittedScaling, Scaling, ScalingRuns, check_scaling_runs
from cuvee.mixtures.scaling.discrepancy import Discrepancy, attempts


@register("scaling")
@dataclass(frozen=True)
class AverageScaling(Scaling):
    """The laws without parameters.

    Take it for levels and intervals at a scale that nobody ran: it is as sure as its laws agree.

    Attributes:
        laws: scaling laws that are averaged; one that cannot be fitted or tested is left out.
    """

    name = "average"

    laws: Annotated[tuple[Any, ...], Registered("scaling", many=True)] = (
        "additive",
        "joint",
        "bimix",
    )

    def __post_init__(self) -> None:
        laws = self.laws if isinstance(self.laws, list | tuple) else (self.laws,)
        object.__setattr__(self, "laws", tuple(build("scaling", law) for law in laws))
        if not self.laws:
            raise RecipeError("scaling law average needs at least one law to average")

    def coarse(self) -> "AverageScaling":
        return replace(self, laws=tuple(law.coarse() for law in self.laws))

    @property
    def sizes(self) -> int:
        return min(int(law.sizes) for law in self.laws)

    def rows(self, domains: int) -> int:
        return min(cast(Scaling, law).rows(domains) for law in self.laws)

    def fit(self, runs: ScalingRuns, rng: np.random.Generator) -> "FittedAverage":
        check_scaling_runs("average", self, runs)
        calls = {i: partial(law.fit, runs) for i, law in enumerate(self.laws)}
        fits, refused = attempts(calls, rng)
        if not fits:
            raise EvidenceError(refused[0])
        return average_fits([(self.laws[i], fit) for i, fit in fits.items()])


def average_of(laws: Sequence[Scaling]) -> AverageScaling:
    """The average of some laws; itself where that is what was given."""
    only = laws[0] if len(laws) == 1 else None
    return only if isinstance(only, AverageScaling) else AverageScaling(tuple(laws))


def average_fits(found: Sequence[tuple[Scaling, FittedScaling]]) -> "FittedAverage":
    """The average of laws that were fitted to the same runs, those left out that nothing tested."""
    tested = [pair for pair in found if pair[1].discrepancy and pair[1].discrepancy.scores]
    laws, fits = zip(*(tested or found), strict=True)
    return FittedAverage(laws, fits, _weights(fits))


def _weights(fits: tuple[FittedScaling, ...]) -> Array:
    """(L,) shares of the laws, by the back-tests that all of them made; equal without any."""
    scores = [fit.discrepancy.scores if fit.discrepancy else {} for fit in fits]
    shared = [at for at in scores[0] if all(at in other for other in scores)]
    total = np.array([sum(own[at] for at in shared) for own in scores])
    weights = np.exp(total - total.max())
    return np.asarray(weights / weights.sum(), dtype=np.float64)


@dataclass(frozen=True, eq=False)
class FittedAverage(FittedScaling):
    """Laws with their parameters and shares.

    Attributes:
        laws: without parameters.
        fits: with them.
        weights: (L,) shares.
    """

    laws: tuple[Any, ...]
    fits: tuple[FittedScaling, ...]
    weights: Array

    @property
    def refused(self) -> str:
        """Why no law could be tested, so that there is no interval beyond the runs."""
        reasons = [fit.discrepancy.refused for fit in self.fits if fit.discrepancy]
        return reasons[0] if len(reasons) == len(self.fits) and all(reasons) else ""

    def predict(self, W: Array, parameters: Any, tokens: Any) -> Prediction:
        said = [fit.predict(W, parameters, tokens) for fit in self.fits]
        means, sds = np.array([p.mean for p in said]), np.array([p.sd for p in said])
        mean = np.einsum("l,lnm->nm", self.weights, means)
        variance = np.einsum("l,lnm->nm", self.weights, sds**2 + (means - mean) ** 2)
        return Prediction(mean, np.sqrt(variance))

    def errors(self, parameters: float, tokens: float) -> tuple[Array, Array]:
        """Deviations (M,) of level and order of a log score at a scale, beyond the runs."""
        own = [np.vstack(fit.discrepancy.errors(parameters, tokens)) if fit.discrepancy else 0.0
               for fit in self.fits]  # fmt: skip
        level, order = np.sqrt(
            sum(w * np.square(e) for w, e in zip(self.weights, own, strict=True))
        )
        return level, order

    def refits(
        self, runs: ScalingRuns, count: int, rng: np.random.Generator
    ) -> Iterator["PerturbedRefit"]:
        """Laws refitted to resampled runs, drawn by share and off by what back-tests say.

        What a law leaves over of the runs, and seeds do not explain, it errs by in gains too.
        """
        center = runs.W.mean(axis=0)
        apart = np.sqrt(((runs.W - center) ** 2).sum(axis=1).mean()) or 1.0
        seeds = np.square(runs.noise / runs.Y).mean(axis=0)
        for child in rng.spawn(count):
            which = int(child.choice(len(self.laws), p=self.weights))
            level = np.asarray(child.standard_normal(runs.Y.shape[1]))
            slope = child.standard_normal((runs.W.shape[1], runs.Y.shape[1])) / apart
            fitted, tested = (
                self.laws[which].coarse().fit(runs.resample(child), child),
                self.fits[which],
            )
            left = np.sqrt(np.maximum(np.square(tested.unexplained) - seeds, 0.0))
            yield PerturbedRefit(fitted, tested.discrepancy, level, slope, center, left)


@dataclass(frozen=True, eq=False)
class PerturbedRefit(FittedScaling):
    """A refit whose level and order are off at random, by what is known of its law's errors.

    The level is off alike for all mixtures of a scale, so that gains hardly feel it; the order by a
    slope over mixtures, so that near ones stay together and far ones part.

    Attributes:
        refit: to resampled runs.
        tested: what back-tests said of the law; None: none were made.
        level: (M,) standard normal.
        slope: (K, M) such that mixtures as the runs' err by a standard normal.
        center: (K,) the runs' mean mixture.
        left: (M,) deviation of what the law leaves over of the runs.
    """

    refit: FittedScaling
    tested: Discrepancy | None
    level: Array
    slope: Array
    center: Array
    left: Array

    def predict(self, W: Array, parameters: Any, tokens: Any) -> Prediction:
        said = self.refit.predict(W, parameters, tokens)
        level = order = np.zeros(1)
        if self.tested is not None and not self.tested.refused:
            level, order = self.tested.errors(parameters, tokens)
        shift = level * self.level + np.hypot(order, self.left) * (
            (np.asarray(W) - self.center) @ self.slope
        )
        return Prediction(said.mean * np.exp(shift), said.sd)
