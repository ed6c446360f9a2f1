"""How a corpus is prepared: what decides its bytes beside its sources and the study's state."""

from dataclasses import dataclass

from cuvee.mixtures.errors import DataError


@dataclass(frozen=True)
class CorpusSettings:
    """How a corpus is prepared.

    Attributes:
        vocabulary: token ids at most, the end-of-text token included.
        valid_share: share of each domain's bytes that is held out, about.
        valid_bytes: bytes held out per domain at most, about.
        min_tokens: training tokens below which a domain is refused.
        deduplicate: "exact", or "near" to drop near-duplicates, too.
        tokenizer_bytes: bytes per domain that the tokenizer is trained on at most, about.
        seed: of the split.
        tolerance: share by which a domain of the study may grow and keep its earlier shards.
    """

    vocabulary: int = 4096
    valid_share: float = 0.05
    valid_bytes: int = 400_000
    min_tokens: int = 16_384
    tokenizer_bytes: int = 1_000_000
    seed: int = 0
    deduplicate: str = "exact"
    tolerance: float = 0.0

    def __post_init__(self) -> None:
        if not 257 <= self.vocabulary <= 1 << 20:
            raise DataError(f"vocabulary lies in 257 ... 1048576; got {self.vocabulary}")
        if not 0 < self.valid_share <= 0.5:
            raise DataError(f"valid_share lies in (0, 0.5]; got {self.valid_share}")
        for name in ("valid_bytes", "min_tokens", "tokenizer_bytes"):
            if getattr(self, name) < 1:
                raise DataError(f"{name} is at least 1; got {getattr(self, name)}")


DEFAULT = CorpusSettings()
