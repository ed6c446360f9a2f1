"""Domains: the parts of a corpus whose shares are to be chosen."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from cuvee.mixtures.errors import DataError

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Domain:
    """One part of a corpus.

    Of a domain that is sampled, `tokens`, `bytes` and `documents` are those of the whole, which the
    run at full scale draws from, and `shard_tokens` those that proxies train on.

    Attributes:
        name: unique in its corpus.
        tokens: training tokens that exist, counted once.
        bytes: UTF-8 bytes of the text behind those tokens.
        identity: hash of tokenizer and shards. Evidence is tied to it, not to the name.
        documents: training documents that exist.
        heldout: hash of tokenizer and held-out shards, by which its scores are found; "" where the
            corpus is older than the field, or there is none (tables).
        shard_tokens: training tokens on disk; 0: all that exist.
        tokens_error: standard error of `tokens` where they are estimated from a sample; 0: exact,
            or declared.
        drawn_tokens: tokens that existed when the study's mixtures were drawn, which natural shares
            go by; 0: as many as exist now.
    """

    name: str
    tokens: int
    bytes: int
    identity: str
    documents: int = 1
    heldout: str = field(default="", repr=False)  # earlier fits are found by what repr gives
    shard_tokens: int = field(default=0, repr=False)
    tokens_error: float = field(default=0.0, repr=False)
    drawn_tokens: int = field(default=0, repr=False)

    def __post_init__(self) -> None:
        if not self.name or self.name != self.name.strip():
            raise DataError(f"a domain needs a name without outer blanks; got {self.name!r}")
        for unit in ("tokens", "bytes", "documents"):
            if getattr(self, unit) <= 0:
                raise DataError(
                    f"domain {self.name!r} has {getattr(self, unit)} {unit}; "
                    "a domain without text cannot be part of a mixture: remove it or add text"
                )
        if not 0 <= self.shard_tokens <= self.tokens or not self.tokens_error >= 0:
            raise DataError(
                f"domain {self.name!r} is said to have {self.tokens:,} tokens, and "
                f"{self.shard_tokens:,} lie in its shards: a domain is at least as large as what "
                "was read of it"
            )

    @property
    def stored(self) -> int:
        """Training tokens on disk, which proxies draw from."""
        return self.shard_tokens or self.tokens

    @property
    def natural_tokens(self) -> int:
        """Tokens that its natural share goes by."""
        return self.drawn_tokens or self.tokens

    def sized(self, tokens: int, error: float = 0.0) -> "Domain":
        """The same domain, of which so many tokens exist; bytes and documents grow with them."""
        factor = tokens / self.tokens
        return replace(
            self,
            tokens=tokens,
            bytes=max(1, round(self.bytes * factor)),
            documents=max(1, round(self.documents * factor)),
            shard_tokens=self.stored,
            tokens_error=error,
        )

    @property
    def sampled(self) -> bool:
        """Whether more exists than lies on disk."""
        return self.stored < self.tokens


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
    def heldout(self) -> tuple[str, ...]:
        """Hashes of the held-out text; empty where none is known."""
        found = tuple(domain.heldout for domain in self.domains)
        return found if any(found) else ()

    @property
    def tokens(self) -> Array:
        """Tokens that exist per domain, shape (K,): what a run at full scale draws from."""
        return np.array([domain.tokens for domain in self.domains], dtype=np.float64)

    @property
    def stored(self) -> Array:
        """Tokens on disk per domain, shape (K,): what proxies draw from."""
        return np.array([domain.stored for domain in self.domains], dtype=np.float64)

    @property
    def sampled(self) -> bool:
        """Whether more exists of some domain than lies on disk."""
        return any(domain.sampled for domain in self.domains)

    @property
    def natural(self) -> Array:
        """Shares of tokens as they lie in the corpus, shape (K,).

        In a study that goes on while its text grows by little, as they lay when it began.
        """
        tokens = np.array([domain.natural_tokens for domain in self.domains], dtype=np.float64)
        return np.asarray(tokens / tokens.sum(), dtype=np.float64)

    @property
    def natural_note(self) -> str:
        """A sentence where natural shares are those of earlier sizes; else empty."""
        moved = [d for d in self.domains if d.natural_tokens != d.tokens]
        if not moved:
            return ""
        most = max(moved, key=lambda d: abs(d.tokens - d.natural_tokens) / d.natural_tokens)
        now, i = self.tokens / self.tokens.sum(), self.index(most.name)
        return (
            "Natural shares are those that the study's mixtures were drawn at, so that its runs "
            f"stay evidence; since then {most.name} went from {most.natural_tokens:,} to "
            f"{most.tokens:,} tokens ({self.natural[i]:.4%} of all then, {now[i]:.4%} now)"
            + (f", and {len(moved) - 1} more domains moved by less" if len(moved) > 1 else "")
            + ". Caps and epochs are those of today's sizes"
        )

    @property
    def natural_errors(self) -> Array:
        """Standard errors of the natural shares (K,), to first order in those of the sizes."""
        errors = np.array([domain.tokens_error for domain in self.domains]) / self.tokens.sum()
        shares, variances = self.natural, errors**2
        others = variances.sum() - variances
        return np.asarray(np.sqrt((1 - shares) ** 2 * variances + shares**2 * others))

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
        """Passes over what exists of each domain when `tokens` are drawn at `weights`, (K,)."""
        return np.asarray(weights * tokens / self.tokens, dtype=np.float64)

    def stored_epochs(self, weights: Array, tokens: float) -> Array:
        """Passes over what lies on disk, as a proxy of so many tokens makes them, (K,)."""
        return np.asarray(weights * tokens / self.stored, dtype=np.float64)
