"""Warnings about weights that moved during training: what users of such methods report.

One-hot weights, collapsed entropy, rounds and seeds that do not agree, and weights that follow the
tokenizer: a domain whose text takes more tokens per byte has lower losses per token, and a rule
that reads losses per token then follows the compression instead of the text. The thresholds are a
convention of this project (assumption, not studied); they are named here and nowhere else.
"""

import numpy as np

from cuvee.mixtures import simplex
from cuvee.mixtures.domains import Array, DomainSet
from cuvee.mixtures.errors import RecipeError
from cuvee.mixtures.inference.diagnostics import spearman

ONE_HOT = 0.9  # share of one domain
FEW = 0.25  # of K: effective domains (exp of the entropy) below which the entropy has collapsed
APART = 0.2  # difference of a share between seeds
FOLLOWS = 0.9  # rank correlation of weights with bytes per token, over at least `ENOUGH` domains
ENOUGH = 5
SHIFT = 0.05  # difference of a share between units that a reader must know of


def convert_shares(domains: DomainSet, weights: Array, unit: str) -> Array:
    """Shares of tokens (K,) as shares of another unit, "bytes" or "documents".

    Raises:
        RecipeError: an unknown unit.
    """
    if unit not in ("bytes", "documents"):
        raise RecipeError(f"shares are converted to bytes or documents; got {unit!r}")
    per_token = np.array([getattr(d, unit) / d.tokens for d in domains], dtype=np.float64)
    return simplex.normalized(np.asarray(weights) * per_token)


def weight_warnings(
    domains: DomainSet, start: Array, samples: Array, last: Array
) -> tuple[str, ...]:
    """What is wrong with weights that moved, worst first.

    Args:
        domains: the K domains.
        start: weights (K,) that they moved from.
        samples: the answer of each seed (S, K).
        last: weights (S, K) at the end of each seed's run.
    """
    answer = samples.mean(axis=0)
    return (
        *_one_hot(domains, answer),
        *_collapse(domains, answer, last),
        *_disagreement(domains, samples),
        *_tokenizer(domains, answer, start),
    )


def unit_warnings(domains: DomainSet, weights: Array) -> tuple[str, ...]:
    """What the shares are in other units, where that is not nearly the same."""
    told = []
    for unit in ("bytes", "documents"):
        other = convert_shares(domains, weights, unit)
        if float(np.abs(other - weights).max()) > SHIFT:
            shares = ", ".join(f"{n} {w:.1%}" for n, w in domains.mapping(other).items())
            told.append(f"these shares of tokens are other shares of {unit}: {shares}")
    return tuple(told)


def _one_hot(domains: DomainSet, answer: Array) -> tuple[str, ...]:
    top = int(np.argmax(answer))
    if answer[top] < ONE_HOT:
        return ()
    return (
        f"one-hot weights: {domains.names[top]} has {answer[top]:.1%}; lower the rate, take more "
        "sequences per update, or start from a reference in proportion to size",
    )


def _collapse(domains: DomainSet, answer: Array, last: Array) -> tuple[str, ...]:
    size = len(domains)
    left = min(float(np.exp(simplex.entropy(w))) for w in (answer, *last))
    if left >= max(1.5, FEW * size):
        return ()
    return (f"entropy collapse: weights fell to the equivalent of {left:.1f} of {size} domains",)


def _disagreement(domains: DomainSet, samples: Array) -> tuple[str, ...]:
    spread = np.ptp(samples, axis=0)
    worst = int(np.argmax(spread))
    if spread[worst] <= APART:
        return ()
    return (
        f"seeds disagree: the share of {domains.names[worst]} is between "
        f"{samples[:, worst].min():.1%} and {samples[:, worst].max():.1%}",
    )


def _tokenizer(domains: DomainSet, answer: Array, start: Array) -> tuple[str, ...]:
    per_token = np.array([d.bytes / d.tokens for d in domains])
    moved = np.abs(answer - start).max() > SHIFT
    if len(domains) < ENOUGH or np.any(start <= 0) or not moved:
        return ()
    rank = spearman(answer / start, per_token)
    if abs(rank) < FOLLOWS:
        return ()
    return (
        f"weights follow the tokenizer: their change has a rank correlation of {rank:+.2f} with "
        "bytes per token; another tokenizer would give other weights",
    )
