"""Where a document stands in prepared corpora: by its id, or by words that stand in it.

Words are looked for among the tokens, without decoding a corpus: what stands between the first and
the last blank of a text has the same tokens in every document that holds it. Where a
tokenizer does not part text there, all documents are decoded.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow.parquet as pq
from tokenizers import Tokenizer

from cuvee.proxies.data.prepared_corpus import Corpus
from cuvee.proxies.data.shards import SPLITS, Shard
from cuvee.proxies.data.tokenizer import DocumentEncoder

INNER = re.compile(r"\S( .*\S)(?= )", re.DOTALL)  # from the first blank to the last
STEP = 1 << 26  # tokens that are looked through together


@dataclass(frozen=True)
class DocumentPlace:
    """A document in a corpus.

    Attributes:
        corpus: its folder.
        domain: the name there.
        identity: of the domain's training text, or of its held-out text.
        split: "train" or "valid".
        number: of the document in its shard.
        id: that the source gave it, if the corpus keeps ids.
    """

    corpus: str
    domain: str
    identity: str
    split: str
    number: int
    id: str


def find_documents(corpus: Corpus, wanted: str) -> Iterator[DocumentPlace]:
    """Documents of a corpus whose id this is, or in which these words stand."""
    tokenizer = Tokenizer.from_file(str(corpus.tokenizer_path))
    encoder = DocumentEncoder(tokenizer)
    for domain in corpus.domains:
        for split in SPLITS:
            shard = corpus.train(domain.name) if split == "train" else corpus.valid(domain.name)
            path = corpus.root / corpus.folders[domain.name] / f"{split}.attributes.parquet"
            ids: list[str] = []
            if path.exists() and "id" in pq.read_schema(path).names:
                ids = [str(one) for one in pq.read_table(path, columns=["id"])["id"].to_pylist()]
            numbers = {number for number, one in enumerate(ids) if one == wanted}
            numbers |= set(_holding(shard, wanted, tokenizer, encoder))
            for number in sorted(numbers):
                held_out = domain.heldout or domain.identity  # format 1 has one for both splits
                identity = domain.identity if split == "train" else held_out
                known = ids[number] if ids else ""
                yield DocumentPlace(str(corpus.root), domain.name, identity, split, number, known)


def _holding(
    shard: Shard, wanted: str, tokenizer: Tokenizer, encoder: DocumentEncoder
) -> Iterator[int]:
    """Numbers of the documents in which a text stands."""
    inner = INNER.search(wanted)
    if encoder.separable and inner:
        (pattern,) = encoder.encode([inner[1]])
        places = _places(shard, np.frombuffer(pattern, dtype=encoder.type))
        maybe = sorted(set((np.searchsorted(shard.offsets, places, side="right") - 1).tolist()))
    else:  # an id, or a word or two: what is short is hardly looked for in a large corpus
        maybe = list(range(len(shard)))
    for number in maybe:
        ids = shard.document(number)[:-1].tolist()
        if wanted in tokenizer.decode(ids, skip_special_tokens=False):
            yield number


def _places(shard: Shard, pattern: np.ndarray) -> np.ndarray:
    """Where a run of tokens starts in a shard."""
    found = []
    tokens, length = shard.tokens, len(pattern)
    for start in range(0, max(1, len(tokens) - length + 1), STEP):
        block = np.asarray(tokens[start : start + STEP + length - 1])
        at = np.flatnonzero(block[: max(0, len(block) - length + 1)] == pattern[0])
        for shift, token in enumerate(pattern.tolist()):
            at = at[block[at + shift] == token]
        found.append(at + start)
    return np.concatenate(found)
