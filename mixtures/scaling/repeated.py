"""Repeated data: another scaling law, in effective instead of trained tokens.

A domain of U tokens that is drawn for D tokens is repeated R = D / U - 1 times; its repeats are
worth less and less: `D' = U + U r (1 - exp(-R / r))`. The wrapped law sees the sum of the D' in
place of the tokens, and the shares as they were trained on.

Source: Muennighoff et al. 2023, "Scaling Data-Constrained Language Models" (arXiv 2305.16264),
equation 5, with r = 15.39 (their R*_D). Departures: U and R are a domain's own, as a mixture
repeats its domains unequally (effective shares as well would let a law of mixtures take repetition
for diversity, and prefer it); excess parameters are not discounted (their N'); r may be chosen
among a few values by how well the wrapped law then fits, if runs repeat data at all.
"""

from dataclasses import dataclass, replace
from typing import Annotated, Any, cast

import numpy as np

from cuvee.mixtures import ties
from cuvee.mixtures.domains import Array
from cuvee.mixtures.errors import EvidenceError, RecipeError
from cuvee.mixtures.laws import Prediction
from cuvee.mixtures.registry import Registered, build, register
from cuvee.mixtures.scaling import FittedScaling, Scaling, ScalingRuns, check_scaling_runs
from cuvee.mixtures.scaling.discrepancy import Discrepancy

PUBLISHED = 15.39
TRIED = (1.0, 2.0, 4.0, 8.0, PUBLISHED, 30.0)


@register("scaling")
@dataclass(frozen=True)
class Repeated(Scaling):
    """The wrapped law without parameters.

    Take it where domains repeat more often at full scale than in the proxies: it wraps another law
    and discounts what is repeated.

    Attributes:
        law: scaling law that sees effective tokens in place of tokens.
        worth: r, the repeats after which more are worth little; 0 chooses it by the fit.
    """

    name = "repeated"

    law: Annotated[Any, Registered("scaling")] = "additive"
    worth: float = PUBLISHED

    def __post_init__(self) -> None:
        object.__setattr__(self, "law", build("scaling", self.law))
        if not self.worth >= 0:
            raise RecipeError(f"scaling law repeated needs worth of at least 0; got {self.worth}")

    @property
    def sizes(self) -> int:
        return int(self.law.sizes)

    def rows(self, domains: int) -> int:
        return cast(Scaling, self.law).rows(domains) + (0 if self.worth else 1)

    def coarse(self) -> "Repeated":
        """The same with the wrapped law's cheaper variant, for refits."""
        law = self.law.coarse()
        return replace(self, law=law)

    def fit(self, runs: ScalingRuns, rng: np.random.Generator) -> "FittedRepeated":
        check_scaling_runs("repeated", self, runs)
        if runs.available is None:
            raise EvidenceError(
                "scaling law 'repeated' needs the tokens that exist of each domain; they are not "
                "known here: use the law that it wraps"
            )
        repeats = bool((runs.W * runs.tokens[:, None] > runs.available).any())
        tried = (self.worth,) if self.worth else TRIED if repeats else (PUBLISHED,)
        seed = int(rng.integers(2**31))
        if len(tried) == 1:
            return self._fit(runs, tried[0], seed)
        fits = [self.coarse()._fit(runs, worth, seed) for worth in tried]
        best = ties.lowest(np.array([_error(f, runs.ends) for f in fits]))
        return self._fit(runs, tried[best], seed)

    def _fit(self, runs: ScalingRuns, worth: float, seed: int) -> "FittedRepeated":
        available = np.asarray(runs.available, dtype=np.float64)
        tokens = effective_tokens(runs.W, runs.tokens, available, worth)
        rng = np.random.default_rng(seed)
        fitted = cast(Scaling, self.law).fit(replace(runs, tokens=tokens), rng)
        return FittedRepeated(fitted, available, worth)


def effective_tokens(W: Array, tokens: Array, available: Array, worth: float) -> Array:
    """Tokens (n,) after the discount of repeats, of shares (n, K) of tokens (n,)."""
    drawn = W * np.asarray(tokens, dtype=np.float64)[:, None]
    unique = np.minimum(drawn, available)
    repeats = np.where(unique > 0, drawn / np.where(unique > 0, unique, 1.0) - 1.0, 0.0)
    return np.asarray((unique - unique * worth * np.expm1(-repeats / worth)).sum(axis=1))


def _error(fitted: "FittedRepeated", runs: ScalingRuns) -> float:
    found = fitted.predict(runs.W, runs.parameters, runs.tokens).mean
    return float(np.mean(np.abs(np.log(found / runs.Y))))


@dataclass(frozen=True, eq=False)
class FittedRepeated(FittedScaling):
    """A scaling law in effective tokens.

    Attributes:
        law: the wrapped law, fitted.
        available: (K,) tokens of each domain.
        worth: r.
    """

    law: FittedScaling
    available: Array
    worth: float

    @property
    def discrepancy(self) -> Discrepancy | None:  # type: ignore[override]
        return self.law.discrepancy

    @property
    def unexplained(self) -> Any:
        return self.law.unexplained

    def predict(self, W: Array, parameters: Any, tokens: Any) -> Prediction:
        w = np.asarray(W, dtype=np.float64)
        count = np.broadcast_to(np.asarray(tokens, dtype=np.float64), len(w))
        total = effective_tokens(w, count, self.available, self.worth)
        return self.law.predict(w, parameters, total)
