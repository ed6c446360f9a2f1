"""Nested laws: a step law, then a size law, then a mixing law on the losses that they extrapolate.

For each mixture that was trained at several sizes, `L(D) = c + k D^-a` carries each size to the
wanted tokens, `L(N) = c + k N^-b` carries the mixture to the wanted size, and a mixing law is
fitted to the extrapolated losses of all mixtures.

Source: Ye et al. 2024, "Data Mixing Laws" (arXiv 2403.16952), section 4, and
`pipeline/run.sh` of yegcjs/mixinglaws: a tied over the mixtures of a size, b over all.

Departures: the mixing law is `saturating_power` unless the paper's own, `log_linear`, is named:
from a dozen mixtures it ranks unseen ones far better (0.99 against 0.65 on a world). Losses are
compared relative to their value, with Huber weights; c and k are not negative. Where each size was
trained on one number of tokens only, no step law can be had: then the wanted tokens must lie on the
ladder's own path from sizes to tokens, or the law refuses.
"""

from dataclasses import dataclass, field, replace
from typing import Annotated, Any, cast

import numpy as np
from scipy.optimize import minimize_scalar

from cuvee.mixtures import simplex, ties
from cuvee.mixtures.domains import Array
from cuvee.mixtures.errors import EvidenceError
from cuvee.mixtures.laws import FittedLaw, Law, Prediction, least_squares
from cuvee.mixtures.registry import Registered, build, register
from cuvee.mixtures.scaling import FittedScaling, Scaling, ScalingRuns, check_scaling_runs
from cuvee.mixtures.scaling.discrepancy import Discrepancy, learn_discrepancy

POINTS = 3  # of a series, to which an asymptote, an amplitude and a tied exponent are fitted
OFF_PATH = 2.0  # most by which wanted tokens may differ from the ladder's path without a step law
RATES = (0.01, 3.0)  # exponents tried
HUBER = 3.0


@register("scaling")
@dataclass(frozen=True)
class Nested(Scaling):
    """The laws without parameters.

    Take it where each size was scored at several numbers of tokens (`evaluation.curve`) and runs
    are stretched beyond them, as in Data Mixing Laws.

    Attributes:
        law: law of mixtures that is fitted to the extrapolated losses.
        draws: 0 leaves out the back-tests, for refits; any other number makes them.
    """

    name = "nested"

    law: Annotated[Any, Registered("law")] = "saturating_power"
    draws: int = 20

    def __post_init__(self) -> None:
        object.__setattr__(self, "law", build("law", self.law))

    def coarse(self) -> "Nested":
        """The same laws without back-tests."""
        return replace(self, draws=0)

    @property
    def sizes(self) -> int:
        return POINTS

    def rows(self, domains: int) -> int:
        return POINTS * cast(Law, self.law).rows(domains)

    def fit(self, runs: ScalingRuns, rng: np.random.Generator) -> "FittedNested":
        check_scaling_runs("nested", self, runs)
        runs = runs if runs.stable is None else runs.ends  # a step law knows no gap
        parts = _series(runs)
        needed = cast(Law, self.law).rows(runs.W.shape[1])
        if len(parts) < needed:
            raise EvidenceError(
                f"scaling law 'nested' needs at least {needed} mixtures trained at {POINTS} sizes "
                f"or more each; got {len(parts)}: train more mixtures on the larger rungs"
            )
        seed = int(rng.integers(2**31))
        tested = learn_discrepancy(self, runs, rng) if self.draws else None
        return FittedNested(self.law, tuple(parts), runs, seed, tested)


@dataclass(frozen=True, eq=False)
class Series:
    """One mixture at several sizes.

    Attributes:
        weights: (K,).
        points: size -> token counts (n,) and scores (n, M) there.
    """

    weights: Array
    points: dict[float, tuple[Array, Array]] = field(default_factory=dict)


def _series(runs: ScalingRuns) -> list[Series]:
    """The mixtures that were trained at enough sizes; repeats of a point are averaged."""
    membership, found = simplex.group_rows(runs.W), []
    for group in range(int(membership.max()) + 1):
        own = runs.take(membership == group)
        if len(own.sizes) < POINTS:
            continue
        points = {}
        for size in own.sizes:
            here = own.take(own.parameters == size)
            tokens = np.unique(here.tokens)
            scores = np.array([here.Y[here.tokens == d].mean(axis=0) for d in tokens])
            points[size] = (tokens, scores)
        found.append(Series(own.W[0], points))
    return found


@dataclass(frozen=True, eq=False)
class FittedNested(FittedScaling):
    """Series of losses that can be carried to any scale, where a mixing law is fitted to them."""

    law: Any
    series: tuple[Series, ...]
    runs: ScalingRuns
    seed: int
    discrepancy: Discrepancy | None = None

    def predict(self, W: Array, parameters: Any, tokens: Any) -> Prediction:
        w = np.asarray(W, dtype=np.float64)
        n, d = (np.broadcast_to(np.asarray(x, float), len(w)) for x in (parameters, tokens))
        mean = np.empty((len(w), self.runs.Y.shape[1]))
        sd = np.empty_like(mean)
        for size, count in sorted(set(zip(n.tolist(), d.tolist(), strict=True))):
            rows = (n == size) & (d == count)
            found = self.at(size, count).predict(w[rows])
            mean[rows], sd[rows] = found.mean, found.sd
        return Prediction(mean, sd)

    def at(self, parameters: float, tokens: float) -> "FittedAt":
        """The mixing law at one scale.

        Raises:
            EvidenceError: the tokens cannot be reached without a step law.
        """
        W = np.array([s.weights for s in self.series])
        losses, rng = self._extrapolated(parameters, tokens), np.random.default_rng(self.seed)
        fitted = cast(Law, self.law).fit(W, losses, np.zeros(losses.shape[1]), rng)
        if self.discrepancy is None:
            return FittedAt(fitted, np.zeros(losses.shape[1]))
        beyond = np.square(self.discrepancy.errors(parameters, tokens)).sum(axis=(0, 1))
        return FittedAt(fitted, np.sqrt(beyond))

    def _extrapolated(self, parameters: float, tokens: float) -> Array:
        """Losses (n, M) of every series at a scale."""
        sizes, y = self._at_tokens(parameters, tokens)
        there = np.isfinite(sizes)
        ratio = parameters / np.where(there, sizes, 1.0)
        return np.array(
            [carry_series(ratio, column, there)[0] for column in y.transpose(2, 0, 1)]
        ).T

    def _at_tokens(self, parameters: float, tokens: float) -> tuple[Array, Array]:
        """Sizes (n, S), NaN where a series lacks one, and losses there (n, S, M) at the tokens."""
        every = self.runs.sizes
        sizes = np.full((len(self.series), len(every)), np.nan)
        y = np.ones((*sizes.shape, self.runs.Y.shape[1]))
        for j, size in enumerate(every):
            own = [i for i, s in enumerate(self.series) if size in s.points]
            sizes[own, j] = size
            stepped = [i for i in own if len(self.series[i].points[size][0]) >= POINTS]
            if own and len(stepped) == len(own):
                y[own, j] = _stepped([self.series[i].points[size] for i in own], tokens)
                continue
            self._on_path(parameters, tokens)
            for i in own:
                y[i, j] = self.series[i].points[size][1][-1]
        return sizes, y

    def _on_path(self, parameters: float, tokens: float) -> None:
        n, d = np.log(self.runs.parameters), np.log(self.runs.tokens)
        slope, level = np.polyfit(n, d, 1)
        expected = float(np.exp(level + slope * np.log(parameters)))
        if not 1 / OFF_PATH <= tokens / expected <= OFF_PATH:
            raise EvidenceError(
                f"scaling law 'nested' has one number of tokens per size, so that it reaches "
                f"{expected:,.0f} tokens at {parameters:,.0f} parameters, not {tokens:,.0f}: give "
                f"each size at least {POINTS} numbers of tokens"
            )


@dataclass(frozen=True, eq=False)
class FittedAt:
    """A mixing law at one scale, and how far it may be off there (M,), relative."""

    law: FittedLaw
    spread: Array

    def predict(self, W: Array) -> Prediction:
        found = self.law.predict(W)
        return Prediction(found.mean, np.hypot(found.sd, found.mean * self.spread))


def _stepped(points: list[tuple[Array, Array]], tokens: float) -> Array:
    """Losses (n, M) of the mixtures of one size at the wanted tokens, by the step law."""
    most = max(len(d) for d, _ in points)
    found = np.empty((len(points), points[0][1].shape[1]))
    ratio, there = np.ones((len(points), most)), np.zeros((len(points), most), dtype=bool)
    y = np.ones((len(points), most, found.shape[1]))
    for i, (d, scores) in enumerate(points):
        ratio[i, : len(d)], there[i, : len(d)], y[i, : len(d)] = tokens / d, True, scores
    for m in range(found.shape[1]):
        found[:, m], _ = carry_series(ratio, y[:, :, m], there)
    return found


def carry_series(ratio: Array, y: Array, there: Array) -> tuple[Array, float]:
    """Series `c + k x^-a` with one a, carried to the wanted x; x given as wanted / x.

    Args:
        ratio: (n, S) wanted x over the points' x.
        y: (n, S) losses.
        there: (n, S) which points exist.

    Returns:
        The losses (n,) at the wanted x, and a.
    """
    v = there.astype(np.float64)
    rate = 0.3
    for _ in range(3):

        def cost(log_rate: float, v: Array = v) -> float:
            return float((v * series_ends(ratio, y, v, float(np.exp(log_rate)))[1] ** 2).sum())

        grid = np.linspace(np.log(RATES[0]), np.log(RATES[1]), 25)
        best = ties.lowest(np.array([cost(x) for x in grid]))
        near = (grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)])
        rate = float(np.exp(minimize_scalar(cost, bounds=near, method="bounded").x))
        residuals = series_ends(ratio, y, v, rate)[1][there]
        v[there] = least_squares.huber_weights(residuals[None], HUBER)[0]
    return series_ends(ratio, y, v, rate)[0], rate


def series_ends(ratio: Array, y: Array, v: Array, rate: float) -> tuple[Array, Array]:
    """Losses (n,) at ratio 1 and relative residuals (n, S) of the best c, k >= 0 at a rate."""
    basis, v = ratio**rate, v / y**2
    total, one, two = v.sum(axis=1), (v * basis).sum(axis=1), (v * basis**2).sum(axis=1)
    by, by_basis = (v * y).sum(axis=1), (v * basis * y).sum(axis=1)
    determinant = np.maximum(total * two - one**2, 1e-300)
    c = (two * by - one * by_basis) / determinant
    k = (total * by_basis - one * by) / determinant
    c, k = np.where(c < 0, 0.0, c), np.where(c < 0, by_basis / two, k)
    c, k = np.where(k < 0, by / total, c), np.maximum(k, 0.0)
    return c + k, (c[:, None] + k[:, None] * basis - y) / y
