"""How much text proxies are scored on; light, for processes that only plan what others score."""

import hashlib
import importlib.metadata
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from cuvee.mixtures.runs import canonical

VERSION = 1  # raised by hand whenever the same text would be scored otherwise


@dataclass(frozen=True)
class Limits:
    """How much held-out text is scored.

    Attributes:
        tokens: per domain; 0 scores all of it.
    """

    tokens: int = 16_384

    @property
    def identity(self) -> str:
        """Canonical JSON of the limits and of the way of scoring."""
        return canonical([VERSION, importlib.metadata.version("lm_eval"), asdict(self)])


def scoring_identity(contents: Sequence[Any], limits: str, points: int = 0) -> str:
    """Hash of everything that decides a score beside the proxy itself; part of fingerprints.

    Args:
        contents: of the suite; see `suites.Suite`.
        limits: identity of the limits.
        points: how often held-out text is scored on the way of a run.
    """
    suite = hashlib.sha256(canonical(contents).encode()).hexdigest()
    parts = [suite, limits, *([points] if points else [])]
    return hashlib.sha256(canonical(parts).encode()).hexdigest()
