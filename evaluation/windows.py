"""Which windows of a domain's held-out text are scored, and how many documents they reach."""

import hashlib
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Window = tuple[int, int, int]  # document, first token, past the last token


def document_windows(
    tokens: NDArray[np.integer], offsets: NDArray[np.integer], *, eot: int, context: int
) -> list[Window]:
    """Every window of every document, in their order.

    Args:
        tokens: (n,) of the text.
        offsets: (D+1,) document starts.
        eot: id of the end-of-text token, which is in no window where it ends a document.
        context: tokens of a window, but for a document's last.
    """
    windows: list[Window] = []
    for document, (begin, end) in enumerate(pairwise(offsets.tolist())):
        if end > begin and tokens[end - 1] == eot:
            end -= 1
        starts = range(begin, end, context)
        windows.extend((document, start, min(start + context, end)) for start in starts)
    return windows


def limited_windows(windows: Sequence[Window], limit: int) -> list[Window]:
    """The first windows in hash order that hold `limit` tokens, and at least two; 0 for all."""
    if limit <= 0:
        return list(windows)
    ordered = _in_hash_order(windows)
    return sorted(ordered[: max(2, int(np.searchsorted(_held(ordered), limit)) + 1)])


def tokens_to_reach(windows: Sequence[Window], documents: int) -> int | None:
    """The limit, to one window, whose sample has so many documents; None if there are fewer."""
    ordered = _in_hash_order(windows)
    _, first = np.unique([document for document, _, _ in ordered], return_index=True)
    return int(_held(ordered)[np.sort(first)[documents - 1]]) if len(first) >= documents else None


def _in_hash_order(windows: Sequence[Window]) -> list[Window]:
    return sorted(windows, key=lambda w: hashlib.sha256(f"{w[0]}/{w[1]}".encode()).digest())


def _held(windows: Sequence[Window]) -> NDArray[np.int64]:
    """(W,) tokens of the windows up to each."""
    return np.cumsum([stop - start for _, start, stop in windows])
