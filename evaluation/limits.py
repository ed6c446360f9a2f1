"""How much text proxies are scored on; light, for processes that only plan what others score."""

import importlib.metadata
from dataclasses import asdict, dataclass

from mixtures.history import canonical

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
