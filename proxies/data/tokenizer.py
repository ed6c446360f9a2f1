"""The tokenizer: a small byte-level BPE trained on a sample of the training documents.

Byte-level, so that every text has a token sequence and bits per byte are defined for all of them;
small (4096), because the embedding of a large vocabulary would dwarf a proxy of a million weights.

Encoding goes word by word through a table. The pre-tokenizer never joins a character that is not
white space to white space that follows it, so text cut at those places has the tokens of the
pieces, and natural text consists of few different pieces: half the time of encoding whole
documents. `encode` checks that the tokenizer is one for which this holds, and otherwise encodes
whole documents.
"""

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from cuvee.mixtures.errors import CorruptError, DataError
from cuvee.proxies.data.shards import token_type

EOT = "<|endoftext|>"
# White space in the sense of Unicode (Python's \s also counts \x1c-\x1f), then what is not.
_PIECES = re.compile(r"[^\S\x1c-\x1f]*[\S\x1c-\x1f]+|[^\S\x1c-\x1f]+")
# Where long text may be cut: before white space, or between a word and an ASCII mark that follows.
_EDGE = re.compile(r"[\S\x1c-\x1f](?=[^\S\x1c-\x1f])|[^\W_](?=[!-/:-@\[-^`{-~])")
STRETCH = 1_000_000  # characters of a long document that are encoded together, about
_TABLE_LIMIT = 1_000_000  # pieces remembered, some 150 MB
_PIECE_LIMIT = 256  # characters of a piece that is remembered


def train_tokenizer(texts: Iterable[str], vocabulary: int = 4096) -> Tokenizer:
    """A byte-level BPE with the end-of-text token at id 0.

    Args:
        texts: the sample; nothing that a proxy is scored on belongs in it.
        vocabulary: number of ids at most. A small sample yields fewer.

    Raises:
        DataError: a vocabulary that cannot hold the 256 bytes and the end-of-text token.
    """
    if vocabulary < 257:
        raise DataError(
            f"a byte-level vocabulary needs 257 ids (256 bytes and {EOT}); got {vocabulary}"
        )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[EOT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def load_tokenizer(path: Path | str) -> Tokenizer:
    """A tokenizer from a `tokenizer.json`.

    Raises:
        DataError: no such file, or a tokenizer without the end-of-text token.
        CorruptError: the file is not a tokenizer.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"no tokenizer at {path}; prepare the corpus first")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise CorruptError(
            f"{path} is not a tokenizer: {error}; prepare the corpus again"
        ) from None
    end_of_text(tokenizer)
    return tokenizer


def end_of_text(tokenizer: Tokenizer) -> int:
    """The id that ends each document.

    Raises:
        DataError: the tokenizer has no end-of-text token.
    """
    token = tokenizer.token_to_id(EOT)
    if token is None:
        raise DataError(f"the tokenizer has no token {EOT}, which ends each document")
    return token


class DocumentEncoder:
    """Encodes documents in batches to token ids as bytes, ready to be written to a shard.

    Text that happens to read like the end-of-text token is encoded as the characters it is.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = Tokenizer.from_str(tokenizer.to_str())
        self._tokenizer.encode_special_tokens = True
        self._type = token_type(tokenizer.get_vocab_size())
        self._table: dict[str, bytes] = {}
        self.separable = _separable(tokenizer)

    def encode(self, texts: Sequence[str]) -> list[bytes]:
        """Token ids of each text, as the bytes of little-endian integers of `token_type`."""
        if not self.separable:
            return self._whole(texts)
        if len(self._table) > _TABLE_LIMIT:
            self._table.clear()
        table = self._table
        pieces = [_PIECES.findall(text) for text in texts]
        fresh = sorted(set().union(*pieces).difference(table))
        table.update(zip(fresh, self._whole(fresh), strict=True))
        encoded = [b"".join([table[piece] for piece in row]) for row in pieces]
        for piece in fresh:
            if len(piece) > _PIECE_LIMIT:
                del table[piece]
        return encoded

    def _whole(self, texts: Sequence[str]) -> list[bytes]:
        encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        lengths = [len(encoding) for encoding in encodings]
        ids = [token for encoding in encodings for token in encoding.ids]
        data = np.array(ids, dtype=self._type).tobytes()
        ends = np.cumsum([0, *lengths]) * self._type.itemsize
        return [data[a:b] for a, b in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True)]


def stretches(text: str, size: int = STRETCH) -> list[str]:
    """A text cut where no token spans, so that the tokens of the parts are those of the text.

    A part is a little longer than `size`, and much longer where nothing may be cut. Holds for a
    tokenizer whose `DocumentEncoder` is separable.
    """
    parts = []
    start = 0
    while len(text) - start > size and (edge := _EDGE.search(text, start + size - 1)):
        parts.append(text[start : edge.end()])
        start = edge.end()
    return [*parts, text[start:]]


def _separable(tokenizer: Tokenizer) -> bool:
    """Whether text may be cut before white space without changing its tokens."""
    body = json.loads(tokenizer.to_str())
    split = body["pre_tokenizer"] or {}
    return (
        body["normalizer"] is None
        and split.get("type") == "ByteLevel"
        and split.get("use_regex") is True
        and split.get("add_prefix_space") is False
        and [token["content"] for token in body["added_tokens"]] == [EOT]
    )
