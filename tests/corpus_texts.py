"""Small corpora for tests: documents in memory, and what a prepared corpus holds of them."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from cuvee.proxies.data import tokenizer as tokenizers
from cuvee.proxies.data.sources.documents import ReadPart, TextDocument
from cuvee.tasks.corpus.corpus_settings import CorpusSettings

SMALL = CorpusSettings(
    vocabulary=300, valid_share=0.1, valid_bytes=20_000, min_tokens=50, tokenizer_bytes=20_000
)
WORDS = ["sun", "rain", "code", "tree", "moon", "lamp", "river", "stone", "bread", "wind", "salt"]


def document(seed, words=80):
    rng = np.random.default_rng(seed)
    return " ".join(rng.choice(WORDS, words)) + f" {seed}."


class OnePart:
    """What is read whole, as one part."""

    reading = "whole"

    def parts(self) -> tuple[ReadPart, ...]:
        """One part."""
        return (ReadPart("memory"),)

    def documents(self) -> Iterator[TextDocument]:
        """The documents of that part."""
        return self.read(self.parts()[0])


@dataclass(frozen=True)
class Texts(OnePart):
    """Documents given in memory."""

    texts: tuple[str, ...]

    @property
    def identity(self) -> str:
        """Hash of the documents."""
        return hashlib.sha256(json.dumps(self.texts).encode()).hexdigest()

    def read(self, part: ReadPart) -> Iterator[TextDocument]:
        """The documents, as given."""
        return map(TextDocument, self.texts)


def texts(corpus, name, split):
    """Every document of a split, decoded."""
    tokenizer = tokenizers.load_tokenizer(corpus.tokenizer_path)
    shard = getattr(corpus, split)(name)
    ids = [shard.document(i).tolist() for i in range(len(shard))]
    assert all(row[-1] == corpus.eot for row in ids)
    return [tokenizer.decode(row[:-1], skip_special_tokens=False) for row in ids]


def files(root):
    return {
        str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in root.rglob("*")
        if p.is_file()
    }
