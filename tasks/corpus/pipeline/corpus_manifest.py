"""What a prepared corpus says of itself: its manifest, and the state of the study after it."""

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from cuvee.evaluation.decontamination import NGramIndex
from cuvee.proxies.data import tokenizer as tokenizers
from cuvee.proxies.data.files import file_digest
from cuvee.proxies.data.prepared_corpus import HELD_KEYS, marked_name, write_manifest
from cuvee.proxies.data.shards import shard_identity
from cuvee.tasks.corpus.corpus_state import RankedDomain, next_state
from cuvee.tasks.corpus.pipeline.corpus_request import VERSION, CorpusRequest
from cuvee.tasks.corpus.pipeline.deduplicate_split import COUNTS, DomainText, unused_text


def domain_entry(
    domain: DomainText, splits: dict[str, dict[str, Any]], *, source: str, tokenizer: str
) -> dict[str, Any]:
    """A domain's part of the manifest."""
    return {
        "name": domain.name,
        "identity": shard_identity(tokenizer, splits["train"]["content"]),
        "heldout": shard_identity(tokenizer, splits["valid"]["content"]),
        "source": source,
        **splits,
        "counts": {count: domain.counts[count] for count in COUNTS},
        "contaminated_documents": dict(sorted(domain.hits.items())),
        "notices": unused_text(domain, marked_name),
        "distinct": domain.distinct,
        "shared": domain.shared,
    }


def write_corpus(
    folder: Path,
    asked: CorpusRequest,
    index: NGramIndex,
    tokenizer: Tokenizer,
    entries: list[dict[str, Any]],
    *,
    held: bytes,
    ranks: Mapping[str, int],
    drawn: Mapping[str, tuple[tuple[str, ...], int]],
) -> None:
    """Writes what else belongs to a corpus, the manifest last."""
    given = asked.tokenizer
    digest = file_digest(folder / "tokenizer.json")
    (folder / HELD_KEYS).write_bytes(held)
    heldout = hashlib.sha256(held).hexdigest()
    domains = [
        RankedDomain(
            e["name"], e["source"], e["identity"], e["heldout"], e["train"]["tokens"],
            *drawn.get(e["name"], ()),
        )
        for e in entries
    ]  # fmt: skip
    trained = (asked.settings.vocabulary, digest) if given is None else None
    state = next_state(asked.state, domains, ranks, heldout=heldout, tokenizer=trained)
    manifest = {
        "key": asked.key(state),
        "version": VERSION,
        "settings": dataclasses.asdict(asked.settings),
        "tokenizer": digest,
        "vocabulary": tokenizers.vocabulary_size(tokenizer),
        "eot": tokenizers.end_of_text(tokenizer, given.end_of_text if given else ""),
        "heldout_keys": heldout,
        "state": state.to_json(),
        "benchmarks": {
            name: {"texts": index.texts[name], "too_short": index.short[name]}
            for name in index.names
        },
        "domains": entries,
    }
    write_manifest(folder, manifest)
