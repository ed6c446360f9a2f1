"""Domains: the parts of a corpus whose shares are to be chosen."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cuvee.mixtures.errors import DataError

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Domain:
    """One part of a corpus.

    Attributes:
        name: unique in its corpus.
        tokens: training tokens that exist, counted once.
        bytes: UTF-8 bytes of the text behind those tokens.
        identity: hash of tokenizer and shards. Evidence is tied to it, not to the name.
        documents: training documents that exist.
        heldout: hash of tokenizer and held-out shards, by which its scores are found; "" where the
            corpus is older than the field, or there is none (tables).
    """

    name: str
    tokens: int
    bytes: int
    identity: str
    documents: int = 1
    heldout: str = ""

    def __post_init__(self) -> None:
        if not self.name or self.name != self.name.strip():
            raise DataError(f"a domain needs a name without outer blanks; got {self.name!r}")
        for unit in ("tokens", "bytes", "documents"):
            if getattr(self, unit) <= 0:
                raise DataError(
                    f"domain {self.name!r} has {getattr(self, unit)} {unit}; "
                    "a domain without text cannot be part of a mixture: remove it or add text"
                )


@dataclass(frozen=True)
class DomainSet:
    """The domains of a study, in a fixed order that every weight vector follows."""

    domains: tuple[Domain, ...]

    def __post_init__(self) -> None:
        if len(self.domains) < 2:
            raise DataError(
                f"a mixture needs at least 2 domains; found {len(self.domains)}: "
                f"{', '.join(self.names) or 'none'}"
            )
        doubled = sorted({name for name in self.names if self.names.count(name) > 1})
        if doubled:
            raise DataError(f"domain names must be unique; doubled: {', '.join(doubled)}")

    def __iter__(self) -> Iterator[Domain]:
        return iter(self.domains)

    def __len__(self) -> int:
        return len(self.domains)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(domain.name for domain in self.domains)

    @property
    def identities(self) -> tuple[str, ...]:
        return tuple(domain.identity for domain in self.domains)

    @property
    def tokens(self) -> Array:
        """Tokens that exist per domain, shape (K,)."""
        return np.array([domain.tokens for domain in self.domains], dtype=np.float64)

    @property
    def natural(self) -> Array:
        """Shares of tokens as they lie in the corpus, shape (K,)."""
        return np.asarray(self.tokens / self.tokens.sum(), dtype=np.float64)

    @property
    def uniform(self) -> Array:
        """Equal shares, shape (K,)."""
        return np.full(len(self), 1.0 / len(self))

    def index(self, name: str) -> int:
        """Position of a domain.

        Raises:
            DataError: no domain has this name.
        """
        if name not in self.names:
            raise DataError(f"no domain {name!r}; the corpus has: {', '.join(self.names)}")
        return self.names.index(name)

    def vector(self, values: Mapping[str, float], default: float = 0.0) -> Array:
        """Values by domain name as a vector in this set's order, shape (K,)."""
        result = np.full(len(self), float(default))
        for name, value in values.items():
            result[self.index(name)] = float(value)
        return result

    def mapping(self, weights: Iterable[float]) -> dict[str, float]:
        """A vector in this set's order as values by domain name."""
        return {name: float(w) for name, w in zip(self.names, weights, strict=True)}

    def epochs(self, weights: Array, tokens: float) -> Array:
        """Passes over each domain when `tokens` are drawn at `weights`, shape (K,)."""
        return np.asarray(weights * tokens / self.tokens, dtype=np.float64)
