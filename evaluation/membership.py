"""Detectors of membership: whether a model was trained on a text, told by its likelihood alone.

Of a text x_1 ... x_T a model gives log p_t, the log-probability of token t after all before it, in
nats, and of all tokens that could have stood there the mean mu_t and the standard deviation s_t of
log p under p. More of a score says more of membership:

    loss          mean of log p_t                             (Yeom et al. 2018, arXiv 1709.01604)
    zlib          mean of log p_t / zlib bytes of the text (Carlini et al. 2021, arXiv 2012.07805)
    min_k         mean of the lowest 20 % of log p_t            (Shi et al. 2024, arXiv 2310.16789)
    min_k_plus    the same of (log p_t - mu_t) / s_t          (Zhang et al. 2025, arXiv 2404.02936)
    dc_pdd        mean over first occurrences of min(0.01, -p_t log f(x_t)), f the frequency in
                  reference text, plus-one smoothed           (Zhang et al. 2024, arXiv 2409.14781)
    ngram         share of 5 evenly spaced starts from which greedy decoding gives the text's next 5
                  tokens, as it does where each was the most probable one (Xu et al. 2024, arXiv
                  2404.18824)
    option_order  mean log p_t less the highest of it with the choices rotated; above 0 where the
                  published order is the likeliest (Ni et al. 2024, arXiv 2409.01790, of all orders)

None of these scores has a scale of its own: a text can be easy without having been seen. The null
is a text of the same kind that was surely not seen. Where items have choices, a benchmark brings
it along: the item with its choices rotated, which is published nowhere. If the model has not seen
the item, and its order means nothing (unlike numbers that rise, or "all of the above" at the end),
any rotation is as good as the published one, so that `order_excess` has mean 0. It sees leaks that
keep the choices and their order (`item_text`), and no others.
"""

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
LOWEST = 0.2  # of a text's tokens, for Min-K% and Min-K%++
CAP = 0.01  # a of DC-PDD, as in its authors' code
GRAM, STARTS = 5, 5


@dataclass(frozen=True, eq=False)
class ScoredText:
    """A text as a model saw it; the end-of-text token stood before it.

    Attributes:
        text: itself.
        tokens: (T,) ids, T at least 1.
        log_p: (T,) log-probability of each, nats.
        mean, deviation: (T,) of log p under p, nats.
        greedy: (T,) whether the token was the most probable one.
    """

    text: str
    tokens: NDArray[np.int64]
    log_p: Floats
    mean: Floats
    deviation: Floats
    greedy: NDArray[np.bool_]


Detector = Callable[[ScoredText, Floats], float]


def _lowest(values: Floats) -> float:
    return float(np.sort(values)[: max(1, round(LOWEST * len(values)))].mean())


def _against_frequency(seen: ScoredText, frequency: Floats) -> float:
    _, first = np.unique(seen.tokens, return_index=True)
    entropy = -np.exp(seen.log_p[first]) * np.log(frequency[seen.tokens[first]])
    return float(np.minimum(CAP, entropy).mean())


def _ngrams_recalled(seen: ScoredText, _: Floats) -> float:
    last = len(seen.tokens) - GRAM
    if last < 0:
        return 0.0
    starts = np.unique(np.linspace(0, last, STARTS).round().astype(int))
    return float(np.mean([seen.greedy[start : start + GRAM].all() for start in starts]))


TEXT_DETECTORS: Mapping[str, Detector] = MappingProxyType(
    {
        "loss": lambda seen, _: float(seen.log_p.mean()),
        "zlib": lambda seen, _: float(seen.log_p.mean()) / len(zlib.compress(seen.text.encode())),
        "min_k": lambda seen, _: _lowest(seen.log_p),
        "min_k_plus": lambda seen, _: _lowest(
            (seen.log_p - seen.mean) / np.maximum(seen.deviation, 1e-6)
        ),
        "dc_pdd": _against_frequency,
        "ngram": _ngrams_recalled,
    }
)
OPTION_ORDER = "option_order"
DETECTORS = (*TEXT_DETECTORS, OPTION_ORDER)
LEAK = "/leak_"  # between task and detector in the name of a run's detail


def token_frequency(tokens: NDArray[Any], vocabulary: int) -> Floats:
    """Frequency (V,) of each token id in reference text, plus-one smoothed: all are above 0."""
    counts = np.bincount(np.asarray(tokens, dtype=np.int64), minlength=vocabulary) + 1.0
    return np.asarray(counts / counts.sum(), dtype=np.float64)


def item_text(item: Mapping[str, Any], turn: int = 0) -> str:
    """An item as a page prints it, its choices rotated by `turn`; a text without choices as it is.

    >>> item_text({"query": "Predators eat", "choices": ["grass", "bunnies"], "gold": 1}, turn=1)
    'Predators eat\\nA. bunnies\\nB. grass'
    """
    if "text" in item:
        return str(item["text"])
    choices = [*item["choices"][turn:], *item["choices"][:turn]]
    lines = [f"{chr(ord('A') + i)}. {choice}" for i, choice in enumerate(choices)]
    return "\n".join([item["query"], *lines])


def detect(
    orders: Sequence[ScoredText], frequency: Floats, names: Sequence[str] = DETECTORS
) -> dict[str, Floats]:
    """What each detector says of an item in each order of its choices, the published one first.

    Args:
        orders: the item in its R orders; one where it has no choices.
        frequency: (V,) of tokens in reference text; see `token_frequency`.
        names: of the detectors that are asked.

    Returns:
        (R,) by detector; `option_order` is left out where there is but one order.
    """
    found = {
        name: np.array([detector(seen, frequency) for seen in orders])
        for name, detector in TEXT_DETECTORS.items()
        if name in names
    }
    if OPTION_ORDER in names and len(orders) > 1:
        loss = np.array([seen.log_p.mean() for seen in orders])
        others = [np.delete(loss, i).max() for i in range(len(loss))]
        found[OPTION_ORDER] = loss - np.array(others)
    return found


def order_excess(name: str, values: Floats) -> float:
    """How much more a detector says of the published order (first of R >= 2) than of the others.

    Its mean is 0 over items that were not seen. Of `option_order` it is whether the published order
    is the likeliest, less 1 / R.
    """
    if name == OPTION_ORDER:
        return float(values[0] > 0) - 1 / len(values)
    return float((values[0] - values[1:]).mean())  # exactly 0 where all are equal
