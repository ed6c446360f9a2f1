"""Average: laws of scale, each by how well it predicted what back-tests held out.

No form is right, and which one is least wrong is known only as far as runs reach. So the laws are
not chosen among but weighted: by a softmax of the log densities that they gave to the sizes and
token counts held out from them (`discrepancy.py`), and what they disagree by widens the interval.
Laws of far less support than the best are left out, since a hundredth of a law that is far off
widens an interval by more than it is worth (Occam's window: Madigan and Raftery 1994).
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

WINDOW = 0.2  # share of the best law's below which a law is left out


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
        return fit_average(self.laws, runs, rng)


def fit_average(
    laws: Sequence[Scaling], runs: ScalingRuns, rng: np.random.Generator
) -> "FittedAverage":
    """The average of those laws that can be fitted to some runs.

    Raises:
        EvidenceError: none can; says why the first cannot.
    """
    fits, refused = attempts({i: partial(law.fit, runs) for i, law in enumerate(laws)}, rng)
    if not fits:
        raise EvidenceError(refused[0])
    return average_fits([(laws[i], fit) for i, fit in fits.items()])


def average_fits(found: Sequence[tuple[Scaling, FittedScaling]]) -> "FittedAverage":
    """The average of laws that were fitted to the same runs, those left out that nothing tested.

    Shares are by the back-tests that all of them made; equal without any.
    """
    if len(found) == 1 and isinstance(found[0][1], FittedAverage):
        return found[0][1]
    found = [pair for pair in found if pair[1].discrepancy and pair[1].discrepancy.scores] or found
    own = [fit.discrepancy for _, fit in found if fit.discrepancy]
    own = own if len(own) == len(found) else []  # some were fitted without any
    shared = [at for at in own[0].scores if all(at in o.scores for o in own)] if own else []
    scores = np.array([[o.scores[at] for at in shared] for o in own]).reshape(len(found), -1)
    weights = np.exp(scores.sum(axis=1) - scores.sum(axis=1).max())
    near = np.flatnonzero(weights >= WINDOW).tolist()
    laws, fits = zip(*(found[i] for i in near), strict=True)
    weights, own = weights[near] / weights[near].sum(), [own[i] for i in near if own]
    if not own:
        return FittedAverage(laws, fits, weights)
    level, order = (np.sqrt(weights @ np.square(e)) for e in
                    ([o.level for o in own], [o.order for o in own]))  # fmt: skip
    both = dict(zip(shared, (weights @ scores[near]).tolist(), strict=True))
    return FittedAverage(
        laws, fits, weights, replace(own[0], level=level, order=order, scores=both)
    )


@dataclass(frozen=True, eq=False)
class FittedAverage(FittedScaling):
    """Laws with their parameters and shares.

    Attributes:
        laws: without parameters.
        fits: with them.
        weights: (L,) shares.
        discrepancy: what their back-tests say together; None: none were made.
    """

    laws: tuple[Any, ...]
    fits: tuple[FittedScaling, ...]
    weights: Array
    discrepancy: Discrepancy | None = None

    def predict(self, W: Array, parameters: Any, tokens: Any) -> Prediction:
        said = [fit.predict(W, parameters, tokens) for fit in self.fits]
        means, sds = np.array([p.mean for p in said]), np.array([p.sd for p in said])
        mean = np.einsum("l,lnm->nm", self.weights, means)
        variance = np.einsum("l,lnm->nm", self.weights, sds**2 + (means - mean) ** 2)
        return Prediction(mean, np.sqrt(variance))

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
