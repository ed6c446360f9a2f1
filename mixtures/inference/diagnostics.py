"""Diagnostics: how far a law can be trusted, and how large the noise is. Pure functions of arrays.

Runs of one mixture with several seeds are one group: a group is held out, resampled or counted as a
whole, so that no law is judged by a repeat of what it was fitted to.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cuvee.mixtures import simplex, ties
from cuvee.mixtures.domains import Array
from cuvee.mixtures.errors import EvidenceError
from cuvee.mixtures.laws import FittedLaw, Law, Prediction
from cuvee.mixtures.laws.bounds import Bounds, declared
from cuvee.mixtures.objectives import Scalarized
from cuvee.mixtures.recommendation import LEVEL, LawEvidence, Noise

Rows = np.ndarray
Z = 1.6448536269514722  # half-width of an interval of LEVEL in standard deviations


def spearman(observed: Array, predicted: Array) -> float:
    """Rank correlation of two vectors (N,), ties sharing their mean rank; 0 if one is constant."""
    found = rank_correlations(ties.leveled(observed), ties.leveled(predicted))
    return round(float(found), 12)


def rank_correlations(first: Array, second: Array) -> Array:
    """Rank correlations (...) over the last axis, of leveled values; 0 where one is constant."""
    from scipy import stats  # here: see `simplex`

    a, b = (stats.rankdata(values, axis=-1) for values in (first, second))
    a, b = a - a.mean(axis=-1, keepdims=True), b - b.mean(axis=-1, keepdims=True)
    size = np.sqrt((a**2).sum(axis=-1) * (b**2).sum(axis=-1))
    return np.asarray((a * b).sum(axis=-1) / np.where(size > 0, size, 1.0), dtype=np.float64)


def decision_accuracy(observed: Array, predicted: Array) -> float:
    """Share of pairs (of different observed value) that are predicted in the right order.

    A predicted tie counts half. 0.5 if no pair differs.
    """
    observed, predicted = ties.leveled(observed), ties.leveled(predicted)
    first, second = np.triu_indices(len(observed), k=1)
    truth = np.sign(observed[first] - observed[second])
    guess = np.sign(predicted[first] - predicted[second])
    counts = truth != 0
    if not counts.any():
        return 0.5
    agree = np.where(guess == 0, 0.5, (truth == guess).astype(float))
    return float(agree[counts].mean())


def grouped_folds(membership: Rows, count: int, rng: np.random.Generator) -> list[Rows]:
    """Row numbers of each fold; a group lies in one fold, folds hold equally many groups.

    Raises:
        EvidenceError: fewer than 2 groups or folds.
    """
    total = int(membership.max()) + 1 if len(membership) else 0
    if total < 2 or count < 2:
        raise EvidenceError(
            f"cross-validation needs at least 2 mixtures and 2 folds; got {total} and {count}"
        )
    order = rng.permutation(total)
    parts = np.array_split(order, min(count, total))
    return [np.flatnonzero(np.isin(membership, part)) for part in parts]


@dataclass(frozen=True, eq=False)
class RunTable:
    """Runs as arrays.

    Attributes:
        W: (N, K) shares of tokens.
        Y: (N, M) scores.
        noise: (M,) or (N, M) standard deviation over seeds, 0 where unknown.
        limits: (M, 2) least and most that a score can be, where any is declared.
    """

    W: Array
    Y: Array
    noise: Array
    limits: Array | None = None

    def fit(self, law: Law, rows: Rows, rng: np.random.Generator) -> FittedLaw:
        """A law fitted to some of the rows."""
        noise = self.noise[rows] if self.noise.ndim == 2 else self.noise
        found = law.fit(self.W[rows], self.Y[rows], noise, rng)
        return declared(found, self.limits)

    @property
    def bounds(self) -> Bounds:
        """What the scores can be."""
        return Bounds.of(self.Y, limits=self.limits)

    def columns(self, columns: Sequence[int]) -> "RunTable":
        """The sample with some of its targets."""
        chosen = list(columns)
        limits = None if self.limits is None else self.limits[chosen]
        return RunTable(self.W, self.Y[:, chosen], self.noise[..., chosen], limits)


def cross_validate(
    law: Law, sample: RunTable, parts: list[Rows], rng: np.random.Generator
) -> Prediction:
    """Every row predicted by the law fitted to the folds that it is not in."""
    mean, sd = np.empty_like(sample.Y), np.empty_like(sample.Y)
    for part in parts:
        rest = np.setdiff1d(np.arange(len(sample.W)), part)
        prediction = sample.fit(law, rest, rng).predict(sample.W[part])
        mean[part], sd[part] = prediction.mean, prediction.sd
    return Prediction(mean, sd)


def law_evidence(name: str, sample: RunTable, found: Prediction, scalar: Scalarized) -> LawEvidence:
    """What held-out predictions say of a law, for an objective of a given shape.

    Floors do not enter: the objective is taken without them, so that it is always finite.
    """
    observed, predicted = scalar.relaxed(sample.Y), scalar.relaxed(found.mean)
    inside = np.abs(sample.Y - found.mean) <= Z * found.sd
    return LawEvidence(
        law=name,
        coverage=float(inside.mean()),
        spearman_targets=tuple(
            spearman(sample.Y[:, m], found.mean[:, m]) for m in range(sample.Y.shape[1])
        ),
        **order_evidence(observed, predicted),
    )


def order_evidence(observed: Array, predicted: Array) -> dict[str, Any]:
    """How predictions (N,) order and hit what was observed: fields of a law's evidence or trial."""
    return {
        "spearman": spearman(observed, predicted),
        "decision_accuracy": decision_accuracy(observed, predicted),
        "error": float(np.abs(observed - predicted).mean()),
        "held_out": tuple(zip(observed.tolist(), predicted.tolist(), strict=True)),
    }


def learning_curve(
    law: Law,
    sample: RunTable,
    scalar: Scalarized,
    parts: list[Rows],
    *,
    points: int,
    rng: np.random.Generator,
) -> tuple[tuple[int, float], ...]:
    """Held-out rank correlation of the objective against the rows fitted.

    Each fold is predicted from a random part of the other folds; sizes run from what the law needs
    to nearly all rows of the other folds, where the cross-validation itself is the next point.

    Args:
        law: without parameters.
        sample: the runs, with the targets that the objective reads.
        scalar: the objective.
        parts: the folds of the cross-validation.
        points: sizes tried.
        rng: the only source of chance.
    """
    size = len(sample.W)
    least = law.rows(sample.W.shape[1])
    most = min(size - len(part) for part in parts)
    sizes = sorted({int(n) for n in np.round(np.geomspace(least, most, points + 1))[:-1]})
    orders = [rng.permutation(np.setdiff1d(np.arange(size), part)) for part in parts]
    curve = []
    for n in sizes if most > least else []:
        predicted = np.empty_like(sample.Y)
        for part, order in zip(parts, orders, strict=True):
            predicted[part] = sample.fit(law, np.sort(order[:n]), rng).predict(sample.W[part]).mean
        curve.append((n, spearman(scalar.relaxed(sample.Y), scalar.relaxed(predicted))))
    return tuple(curve)


def pooled_deviation(values: Array, membership: Rows) -> tuple[Array, int]:
    """Standard deviation (M,) within groups, pooled over them, and its degrees of freedom."""
    squares, degrees = np.zeros(values.shape[1]), 0
    for group in range(int(membership.max()) + 1):
        rows = values[membership == group]
        if len(rows) >= 2:
            squares += ((rows - rows.mean(axis=0)) ** 2).sum(axis=0)
            degrees += len(rows) - 1
    return np.sqrt(squares / max(degrees, 1)), degrees


def noise_floor(
    W: Array, Y: Array, targets: Sequence[str], scalar: Scalarized
) -> tuple[Noise, ...]:
    """Noise of each target and, last, of the objective; empty if no mixture was run twice.

    The spread over mixtures is that of the groups' means.
    """
    membership = simplex.group_rows(W)
    values = np.column_stack([Y, scalar.relaxed(Y)])
    seeds, degrees = pooled_deviation(values, membership)
    if degrees == 0:
        return ()
    means = simplex.group_means(values, membership)
    spread = means.std(axis=0, ddof=1) if len(means) > 1 else np.zeros(values.shape[1])
    names = (*targets, "objective")
    return tuple(
        Noise(name, float(seeds[m]), float(spread[m]), degrees) for m, name in enumerate(names)
    )


def bootstrap_rows(membership: Rows, least: int, rng: np.random.Generator) -> Rows:
    """Rows of a bootstrap sample: groups drawn with replacement, at least `least` rows in all."""
    count = int(membership.max()) + 1
    members = [np.flatnonzero(membership == group) for group in range(count)]
    drawn = [members[g] for g in rng.integers(count, size=count)]
    while sum(len(rows) for rows in drawn) < least:
        drawn.append(members[int(rng.integers(count))])
    return np.sort(np.concatenate(drawn))


def bootstrap_fits(
    law: Law, sample: RunTable, count: int, rng: np.random.Generator
) -> list[FittedLaw]:
    """The law fitted to `count` bootstrap samples of the mixtures."""
    membership, least = simplex.group_rows(sample.W), law.rows(sample.W.shape[1])
    return [
        sample.fit(law, bootstrap_rows(membership, least, child), child)
        for child in rng.spawn(count)
    ]


@dataclass(frozen=True)
class PairedMean:
    """The mean of paired differences.

    Attributes:
        mean: of the differences.
        low: lower end of the interval at `LEVEL`.
        high: its upper end.
        p: one-sided probability of a mean this high if the true one were 0.
        n: pairs.
    """

    mean: float
    low: float
    high: float
    p: float
    n: int


def paired_mean(differences: Sequence[float], level: float = LEVEL) -> PairedMean:
    """Student's t interval and one-sided test of paired differences (positive is better).

    Raises:
        EvidenceError: fewer than 2 pairs, or a difference that is not finite.
    """
    from scipy import stats

    values = np.asarray(differences, dtype=np.float64)
    if values.size < 2 or not np.all(np.isfinite(values)):
        raise EvidenceError(
            f"an interval needs at least 2 finite paired differences; got {list(differences)}"
        )
    mean, error = float(values.mean()), float(values.std(ddof=1) / math.sqrt(values.size))
    half = float(stats.t.ppf(0.5 + level / 2, values.size - 1)) * error
    if error > 0:
        p = float(stats.t.sf(mean / error, values.size - 1))
    else:
        p = 0.0 if mean > 0 else 1.0
    return PairedMean(mean, mean - half, mean + half, p, int(values.size))


def holm(probabilities: Sequence[float]) -> tuple[float, ...]:
    """Probabilities of several tests, corrected so that all stand together, in their order.

    Holm 1979, "A simple sequentially rejective multiple test procedure": the smallest of m is
    multiplied by m, the next by m - 1, and so on; none falls below one that was smaller, none
    exceeds 1. Rejecting what lies below alpha keeps the chance of any false rejection below alpha,
    however the tests depend on each other.

    Raises:
        EvidenceError: a value outside [0, 1].
    """
    values = np.asarray(probabilities, dtype=np.float64)
    if not np.all((values >= 0) & (values <= 1)):
        raise EvidenceError(f"probabilities lie in [0, 1]; got {list(probabilities)}")
    order = np.argsort(values, kind="stable")
    scaled = np.minimum(1.0, values[order] * np.arange(values.size, 0, -1))
    corrected = np.empty_like(values)
    corrected[order] = np.maximum.accumulate(scaled)
    return tuple(map(float, corrected))


def leverage(W: Array, points: Array, ridge: float = 1e-6) -> Array:
    """How far points (n, K) lie from the rows' support: `x' (W'W + ridge I)^-1 x`, shape (n,).

    Above the rows' own largest value a law extrapolates.
    """
    gram = W.T @ W + ridge * np.eye(W.shape[1])
    return np.asarray(np.einsum("nk,nk->n", points, np.linalg.solve(gram, points.T).T))
