"""Single scale: rank mixtures at the largest size that has enough runs, and believe it.

The rival of every scaling law: Magnusson et al. 2025, "DataDecide" (arXiv 2504.11393) found none of
eight scaling-law baselines to decide better than ranking at one size. The law of mixtures is fitted
to the runs of that size at its largest number of tokens; size and tokens asked for are ignored,
so that levels are those of the size that was run and only the order is a forecast.
"""

from dataclasses import dataclass
from typing import Annotated, Any, cast

import numpy as np

from cuvee.mixtures import simplex
from cuvee.mixtures.domains import Array
from cuvee.mixtures.errors import EvidenceError
from cuvee.mixtures.laws import FittedLaw, Law, Prediction, default
from cuvee.mixtures.registry import Registered, build, register
from cuvee.mixtures.scaling import FittedScaling, Scaling, ScalingRuns, check_scaling_runs

MIXTURES = 2  # distinct mixtures per domain from which a size is ranked


@register("scaling")
@dataclass(frozen=True)
class SingleScale(Scaling):
    """The ranking without data.

    Take it where two sizes are all there is: it believes the order at the largest size and
    extrapolates nothing.

    Attributes:
        law: law of mixtures that ranks them; the default law unless named.
    """

    name = "single_scale"

    law: Annotated[Any, Registered("law")] = default.NAME

    def __post_init__(self) -> None:
        object.__setattr__(self, "law", build("law", self.law))

    @property
    def sizes(self) -> int:
        return 1

    def rows(self, domains: int) -> int:
        return max(cast(Law, self.law).rows(domains), MIXTURES * domains)

    def fit(self, runs: ScalingRuns, rng: np.random.Generator) -> "FittedSingleScale":
        check_scaling_runs("single_scale", self, runs)
        own = ranked_size(runs.ends, self.rows(runs.W.shape[1]))
        fitted = cast(Law, self.law).fit(own.W, own.Y, own.noise, rng)
        return FittedSingleScale(fitted, own.sizes[0], float(own.tokens[0]))


def ranked_size(runs: ScalingRuns, rows: int) -> ScalingRuns:
    """The runs of the largest size, and of its most tokens, that has enough distinct mixtures.

    Raises:
        EvidenceError: no size has.
    """
    scales = sorted(set(zip(runs.parameters.tolist(), runs.tokens.tolist(), strict=True)))
    most = 0
    for size, tokens in reversed(scales):
        own = runs.take((runs.parameters == size) & (runs.tokens == tokens))
        count = simplex.count_mixtures(own.W)
        if count >= rows:
            return own
        most = max(most, count)
    raise EvidenceError(
        f"ranking at one size needs {rows} mixtures of one size and number of tokens; the most "
        f"that any has is {most}: train {rows - most} more"
    )


@dataclass(frozen=True, eq=False)
class FittedSingleScale(FittedScaling):
    """A law of mixtures at the scale that was run.

    Attributes:
        law: fitted there.
        parameters: of the size.
        tokens: that it was trained on.
    """

    law: FittedLaw
    parameters: float
    tokens: float

    def predict(self, W: Array, parameters: Any, tokens: Any) -> Prediction:
        """The same at every scale; see the module's docstring."""
        return self.law.predict(np.asarray(W, dtype=np.float64))

    def at(self, parameters: float, tokens: float) -> FittedLaw:
        return self.law
