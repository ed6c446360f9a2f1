"""What a study keeps of its corpora, in the store, so that new text moves no old evidence.

The keys of what is held out, the trained tokenizer, and the order in which domains keep a document
that several hold. The large parts are blobs under their sha256; a corpus that is prepared from
nothing with the same state has the same bytes.
"""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cuvee.mixtures.errors import CorruptError, DataError
from cuvee.mixtures.runs.run_spec import canonical_json
from cuvee.proxies.data.files import file_digest
from cuvee.proxies.data.prepared_corpus import HELD_KEYS, TOKENIZER
from cuvee.tasks.corpus.corpus_settings import CorpusSettings
from cuvee.tasks.corpus.given_tokenizer import fetch_tokenizer, keep_tokenizer
from cuvee.tasks.store.results import Store

RECORDS, HELD = "corpus-states", "heldout"


@dataclass(frozen=True)
class RankedDomain:
    """A domain that the study has had; identities as in `mixtures.domains.Domain`.

    Attributes:
        source: identity of what it was read from.
        parts: keys of what was read of it, of a sample by parts.
        drawn_from: bytes that it had then.
    """

    name: str
    source: str
    identity: str
    heldout: str
    tokens: int
    parts: tuple[str, ...] = ()
    drawn_from: int = 0


@dataclass(frozen=True)
class CorpusState:
    """What decides the split, the vocabulary and the copies that stay, beside text and settings.

    Attributes:
        tokenizers: sha256 of the trained tokenizer, by the vocabulary that was asked for.
        heldout: sha256 of the keys of all documents that were held out; "" for none.
        ranks: domains in the order in which they keep what several hold.
    """

    tokenizers: Mapping[int, str] = field(default_factory=dict)
    heldout: str = ""
    ranks: tuple[RankedDomain, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        trained = [{"vocabulary": n, "sha256": one} for n, one in sorted(self.tokenizers.items())]
        return {**dataclasses.asdict(self), "tokenizers": trained}

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> "CorpusState":
        """What `to_json` gave; fields that a later version added are left out."""
        names = {one.name for one in dataclasses.fields(RankedDomain)}
        ranks = [{n: one[n] for n in names & set(one)} for one in body["ranks"]]
        drawn = [{**one, "parts": tuple(one.get("parts", ()))} for one in ranks]
        trained = {one["vocabulary"]: one["sha256"] for one in body["tokenizers"]}
        return cls(trained, body["heldout"], tuple(RankedDomain(**one) for one in drawn))

    def places(self, sources: Mapping[str, str]) -> dict[str, int]:
        """Where domains stand in `ranks`: by source and name, then by source, then by name.

        Args:
            sources: identity of each domain's source, by name.
        """
        found: dict[str, int] = {}
        free = dict(enumerate(self.ranks))
        for same in ("name source", "source", "name"):
            kinds = same.split()
            known = {tuple(getattr(one, kind) for kind in kinds): i for i, one in free.items()}
            for name, source in sources.items():
                place = known.get(tuple({"name": name, "source": source}[kind] for kind in kinds))
                if name not in found and place in free:
                    found[name] = place
                    del free[place]
        return found

    def ordered(self, sources: Mapping[str, str], sizes: Mapping[str, int]) -> dict[str, int]:
        """The rank of each domain: those of the study in its order, then new ones by size.

        A small, chosen source thus keeps what a crawl holds too.

        Args:
            sources: identity of each domain's source, by name.
            sizes: bytes of each domain's text.
        """
        places = self.places(sources)
        fresh = [name for name in sources if name not in places]
        fresh.sort(key=lambda name: (sizes[name], sources[name]))
        return places | {name: len(self.ranks) + i for i, name in enumerate(fresh)}


@dataclass(frozen=True)
class StateStore:
    """Keeps the states of one study, by what of the settings decides a split.

    Attributes:
        store: of the results.
        study: its name.
        cache: folder for tokenizers that are taken from the store.
        new_tokenizer: whether the trained tokenizer is to be forgotten.
        planned: whether the study is only planned, which leaves its state as it is.
    """

    store: Store
    study: str
    cache: Path
    new_tokenizer: bool = False
    planned: bool = False

    def load(self, settings: CorpusSettings) -> CorpusState:
        """The state; an empty one where there is none yet."""
        found = self.store.recall(f"{RECORDS}/{self.study}", _split_key(settings))
        state = CorpusState() if found is None else CorpusState.from_json(found)
        if self.new_tokenizer:
            state = dataclasses.replace(state, tokenizers={})
        return state

    def save(
        self,
        settings: CorpusSettings,
        state: CorpusState,
        tokenizer: Path,
        keys: bytes,
        *,
        before: CorpusState,
    ) -> None:
        """Keep a state, and the blobs that it names, those first; blobs that were lost, too.

        Raises:
            DataError: the state is no longer the one that there was before.
        """
        if self.planned:
            return
        now = self.load(settings)
        if now not in (before, state):
            raise DataError(
                f"another preparation of study {self.study} ended first, and this corpus does not "
                "know what that one holds out: run again"
            )
        if state.tokenizers:
            keep_tokenizer(self.store.url, tokenizer)
        self.store.objects.create(f"{HELD}/{state.heldout}", keys)
        if state == now and not self.new_tokenizer:
            return
        self.store.remember(f"{RECORDS}/{self.study}", _split_key(settings), state.to_json())

    def held_keys(self, state: CorpusState, corpora: Path | None = None) -> bytes:
        """Keys of what was held out, sorted, 16 bytes each; prepared corpora have them too.

        Raises:
            CorruptError: they are not there, or not what was kept.
        """
        raw = self.store.objects.read(f"{HELD}/{state.heldout}") if state.heldout else b""
        if raw is None and (copy := _in_corpora(corpora, HELD_KEYS, state.heldout)):
            raw = copy.read_bytes()
        if raw is None or (raw and hashlib.sha256(raw).hexdigest() != state.heldout):
            raise CorruptError(
                f"{self.store.objects.path(f'{HELD}/{state.heldout}')} is missing or not what was "
                f"kept: it says what study {self.study} holds out. Restore it, or give the study "
                "another name to begin anew"
            )
        return raw

    def trained_tokenizer(
        self, state: CorpusState, vocabulary: int, corpora: Path | None = None
    ) -> Path | None:
        """The tokenizer that was trained for a vocabulary; None where none was.

        Raises:
            DataError: the store has lost it, and no prepared corpus has it.
            CorruptError: it is not what was kept.
        """
        known = state.tokenizers.get(vocabulary)
        try:
            return fetch_tokenizer(self.store.url, known, self.cache) if known else None
        except DataError as error:
            lost = not isinstance(error, CorruptError)
            if lost and (copy := _in_corpora(corpora, TOKENIZER, str(known))):
                return copy
            raise type(error)(
                f"the tokenizer of study {self.study} cannot be had: {error}. Restore it, or train "
                "another, which voids the study's runs: `cuvee corpus RECIPE --new-tokenizer`"
            ) from None


def _in_corpora(corpora: Path | None, name: str, content: str) -> Path | None:
    """A file of a prepared corpus by its sha256, if one has it."""
    paths = sorted(corpora.glob(f"*/{name}")) if corpora else []
    return next((path for path in paths if file_digest(path) == content), None)


def _split_key(settings: CorpusSettings) -> str:
    body = [settings.seed, settings.valid_share, settings.valid_bytes]
    return hashlib.sha256(canonical_json(body).encode()).hexdigest()[:16]


def next_state(
    state: CorpusState,
    domains: Sequence[RankedDomain],
    ranks: Mapping[str, int],
    *,
    heldout: str,
    tokenizer: tuple[int, str] | None,
) -> CorpusState:
    """The state after a corpus was prepared.

    Args:
        state: before.
        domains: of the corpus.
        ranks: of each, by name.
        heldout: sha256 of the keys of all documents that were held out.
        tokenizer: vocabulary that was asked for and sha256 of what was trained; None: none was.
    """
    ordered = dict(enumerate(state.ranks)) | {ranks[one.name]: one for one in domains}
    trained = {tokenizer[0]: tokenizer[1]} if tokenizer else {}
    return CorpusState(
        {**state.tokenizers, **trained}, heldout, tuple(one for _, one in sorted(ordered.items()))
    )
