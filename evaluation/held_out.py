"""Held-out bits per byte of a pack, for every domain in one pass.

A document is cut into windows of the proxies' context that do not overlap, so that every token is
scored exactly once. A window sees the one token before it (the end-of-text token, before the first
of a document), as lm-eval's rolling likelihood does. The end of text itself is not scored: it
has no bytes. The value is the ratio of summed bits to summed bytes and its standard error is that
of a ratio of means over documents (delta method): with units u of x_u bits and b_u bytes and R =
sum x / sum b,

    se(R) = sqrt(n / (n - 1) * sum (x_u - R b_u)^2) / sum b        (Cochran 1977, eq. 6.4)

Where a sample has fewer than `DOCUMENTS` documents, its windows are the units. They are correlated
within a document, so that error is then too small: it says how well the text at hand was measured,
not how well its kind was.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from cuvee.evaluation.likelihood import AnswerRow
from cuvee.evaluation.windows import document_windows, limited_windows
from cuvee.mixtures.errors import DataError
from cuvee.mixtures.runs.run_results import Score
from cuvee.mixtures.runs.unit_scores import Keys, UnitScores, unit_keys

DOCUMENTS = 30  # from here on documents are the sampling units; fewer give no usable variance
BYTE_TOKEN = re.compile(r"<0x[0-9A-F]{2}>")
SHOWN = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))  # bytes that are letters of
BYTE_LETTERS = {chr(byte): byte for byte in SHOWN} | {  # their own in byte-level tokenizers; the
    chr(0x100 + i): byte
    for i, byte in enumerate(sorted({*range(0x100)} - {*SHOWN}))  # others not
}
Floats = NDArray[np.float64]
Text = tuple[NDArray[np.integer], NDArray[np.integer], NDArray[np.integer]]


@dataclass(frozen=True)
class HeldOutSample:
    """The part of a domain's held-out text that is scored, the same for every proxy.

    Attributes:
        rows: what to score.
        documents: (R,) the document of each row.
        bytes: (R,) UTF-8 bytes of the scored tokens of each row.
        pieces: (R,) the part of a document that each row is of: the sampling unit where there are
            few documents.
        keys: (D,) what each document is known by, in their order: a hash of what is scored of it.
    """

    rows: tuple[AnswerRow, ...]
    documents: NDArray[np.int64]
    bytes: Floats
    pieces: NDArray[np.int64]
    keys: Keys

    def units(self, nats: Floats) -> UnitScores:
        """Bits and bytes by document, however few, from the log-likelihood of each row (R,)."""
        _, group = np.unique(self.documents, return_inverse=True)
        bits = np.bincount(group, -nats / np.log(2)).astype(np.float64)
        return UnitScores(self.keys, bits, np.bincount(group, self.bytes).astype(np.float64))

    def score(self, nats: Floats) -> Score:
        """Bits per byte, from the log-likelihood of each row (R,) in nats."""
        units = self.documents
        if len(np.unique(units)) < DOCUMENTS:
            units = self.pieces
        _, group = np.unique(units, return_inverse=True)
        sizes = np.bincount(group, self.bytes).astype(np.float64)
        return bits_per_byte(np.bincount(group, -nats / np.log(2)).astype(np.float64), sizes)


def bits_per_byte(bits: Floats, sizes: Floats) -> Score:
    """Bits per byte over sampling units, with its standard error by the delta method.

    Args:
        bits: (U,) bits of each unit.
        sizes: (U,) bytes of each unit.

    Raises:
        DataError: fewer than two units, from which no error can be told.
    """
    n = len(bits)
    if n < 2:
        raise DataError(f"a score and its error need at least 2 documents or items; found {n}")
    value = float(bits.sum() / sizes.sum())
    spread = float(np.square(bits - value * sizes).sum()) * n / (n - 1)
    return Score(value, float(np.sqrt(spread) / sizes.sum()), n)


def held_out_sample(
    name: str, text: Text, *, eot: int, context: int, widths: Floats, limit: int
) -> HeldOutSample:
    """Choose what to score of one domain: windows in a fixed pseudo-random order, up to a limit.

    Args:
        name: of the domain, for messages.
        text: tokens (n,), document starts (D+1,), UTF-8 bytes per document (D,).
        eot: id of the end-of-text token.
        context: longest input of the proxies, in tokens.
        widths: (V,) UTF-8 bytes of each token, from `token_widths`. They only divide a document's
            bytes among its windows.
        limit: tokens to score; 0 scores them all. A higher limit adds windows and keeps the others.

    Raises:
        DataError: less held-out text than two windows.
    """
    tokens, offsets, sizes = text
    windows = document_windows(tokens, offsets, eot=eot, context=context)
    if len(windows) < 2:
        raise DataError(
            f"domain {name!r} has {len(windows)} windows of held-out text; its bits per byte need "
            "at least 2: hold out more documents of it"
        )
    chosen = limited_windows(windows, limit)
    rows, shares, contents = [], [], dict[int, bytes]()
    for document, start, stop in chosen:
        begin, end = int(offsets[document]), int(offsets[document + 1])
        before = eot if start == begin else int(tokens[start - 1])
        rows.append(AnswerRow((before, *tokens[start:stop].tolist()), stop - start))
        scored = np.asarray([before, *tokens[start:stop]], "<u4").tobytes()
        contents[document] = contents.get(document, b"") + scored
        whole = float(widths[tokens[begin:end]].sum())
        part = float(widths[tokens[start:stop]].sum())
        shares.append(float(sizes[document]) * (part / whole if whole else 1.0))
    documents = np.array([d for d, _, _ in chosen])
    pieces, keys = np.arange(len(rows)), unit_keys(contents.values())
    return HeldOutSample(tuple(rows), documents, np.array(shares), pieces, keys)


@dataclass(frozen=True)
class Passage:
    """A part of a document of held-out text, for models that have a tokenizer of their own.

    Attributes:
        document: its number.
        text: what is scored.
    """

    document: int
    text: str


def passage_sample(
    name: str, passages: Sequence[Passage], windows: Callable[[str], Sequence[AnswerRow]]
) -> HeldOutSample:
    """What to score of one domain's passages, by the tokenizer of a model.

    Args:
        name: of the domain, for messages.
        passages: the same for every model, so that their bits per byte compare.
        windows: the rows of a text, each of its tokens in one of them.

    Raises:
        DataError: fewer than two passages.
    """
    if len(passages) < 2:
        raise DataError(
            f"domain {name!r} has {len(passages)} passages of held-out text; its bits per byte "
            "need at least 2: hold out more documents of it"
        )
    rows, owners, sizes = list[AnswerRow](), list[int](), list[int]()
    for i, passage in enumerate(passages):
        parts = windows(passage.text)
        rows += parts
        owners += [i] * len(parts)
        sizes += [len(passage.text.encode()), *[0] * len(parts)][: len(parts)]
    documents = np.array([passages[i].document for i in owners])
    contents = dict[int, bytes]()
    for i in sorted(set(owners), key=lambda i: (passages[i].document, i)):
        text = passages[i].text.encode()
        contents[passages[i].document] = contents.get(passages[i].document, b"") + b"\0" + text
    return HeldOutSample(
        tuple(rows),
        documents,
        np.array(sizes, np.float64),
        np.array(owners),
        unit_keys(contents.values()),
    )


def token_widths(tokenizer_path: Path) -> Floats:
    """UTF-8 bytes of each token, (V,); 0 for special tokens and for ids left out."""
    return np.array([len(token) for token in token_bytes(tokenizer_path)], dtype=float)


def token_bytes(tokenizer_path: Path) -> list[bytes]:
    """UTF-8 text of each token; none of special tokens and of ids left out.

    Exact for byte-level tokenizers and for those that fall back on bytes; a blank that a tokenizer
    puts before a text counts. Read off the decoder's definition: decoded alone, a token loses its
    leading blank, and a part of a character is none.
    """
    tokenizer = Tokenizer.from_file(str(tokenizer_path))
    decoder = json.loads(tokenizer.to_str())["decoder"] or {}
    steps = {step["type"]: step for step in decoder.get("decoders", [decoder]) if step}
    blank = steps.get("Metaspace", {}).get("replacement") or "\u2581"
    vocabulary = tokenizer.get_vocab()
    texts = [b""] * (max(vocabulary.values()) + 1)
    added = tokenizer.get_added_tokens_decoder()
    for token, id_ in vocabulary.items():
        if id_ in added:
            texts[id_] = b"" if added[id_].special else token.encode()
        elif "ByteLevel" in steps:
            letters = [BYTE_LETTERS[letter] for letter in token if letter in BYTE_LETTERS]
            texts[id_] = bytes(letters) if len(letters) == len(token) else token.encode()
        elif "ByteFallback" in steps and BYTE_TOKEN.fullmatch(token):
            texts[id_] = bytes([int(token[3:5], 16)])
        else:
            texts[id_] = token.replace(blank, " ").encode()
    return texts


def held_out_samples(
    valid: Mapping[str, Text], *, tokenizer_path: Path, eot: int, context: int, limit: int
) -> dict[str, HeldOutSample]:
    """The sample of every domain, by its name."""
    widths = token_widths(tokenizer_path)
    return {
        name: held_out_sample(name, text, eot=eot, context=context, widths=widths, limit=limit)
        for name, text in valid.items()
    }
