"""Tokenizers: a small byte-level BPE trained on the text, or a team's own; and documents to tokens.

The one that is trained is byte-level, so that every text has a token sequence and bits per byte are
defined for all of them; and small (4096), because the embedding of a large vocabulary would dwarf a
proxy of a million weights. A given one must give every text back (`check_tokenizer`).

Encoding goes piece by piece through a table where that gives the tokens of the whole, and natural
text consists of few different pieces: half the time of encoding whole documents. It does where no
match of the pre-tokenizer's expression spans a cut. They match from left to right and never look
back, so that what stands before a cut changes nothing after it:

    words   no match joins a character that is not white space to white space that follows it
            (GPT-2, StarCoder): cuts before white space
    lines   as words, but marks take the line ends that follow them (GPT-4, Llama 3, Qwen): cuts
            before white space that is no line end, and after the last line end of white space

A normalizer may be NFC, which composes nothing with the characters around these cuts. Any other
tokenizer encodes whole documents. A piece that is new is itself put together of words, which are
what the expression matches in it: pieces are ten times fewer than those of a text, words again
three times. ASCII alone is matched here, where letters and digits are the same in every library.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from cuvee.mixtures.errors import CorruptError, DataError
from cuvee.proxies.data.files import file_digest
from cuvee.proxies.data.shards import token_type

EOT = "<|endoftext|>"
# Tokens that end a document in tokenizers whose configuration does not say.
KNOWN_ENDS = (
    EOT,
    "<|end_of_text|>",
    "</s>",
    "<eos>",
    "<|eos|>",
    "<\uff5cend\u2581of\u2581sentence\uff5c>",
)
# White space in the sense of Unicode (Python's \s also counts \x1c-\x1f), then what is not.
_BLANK, _MARK = r"[^\S\x1c-\x1f]", r"[\S\x1c-\x1f]"
_PIECES = {
    "words": re.compile(rf"{_BLANK}*{_MARK}+|{_BLANK}+"),
    "lines": re.compile(rf"{_BLANK}*{_MARK}+(?:[\r\n](?:{_BLANK}*[\r\n])?)?|{_BLANK}+"),
}
# Where long text may be cut: where pieces part, or between a word and an ASCII mark that follows.
_EDGES = {
    "words": rf"{_MARK}(?={_BLANK})",
    "lines": rf"{_MARK}(?=[^\S\x1c-\x1f\r\n])|[\r\n](?={_MARK})",
}
_AT_MARKS = r"[^\W_](?=[!-/:-@\[-^`{-~])"
_TAIL = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_EXPRESSIONS = {  # of pre-tokenizers, for which the above was proved
    _GPT2: "words",
    **{
        rf"{short}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{digits}|{_TAIL}": "lines"
        for short in ("(?i:'s|'t|'re|'ve|'m|'ll|'d)", "'(?i:[sdmt]|ll|ve|re)")
        for digits in (r"\p{N}{1,3}", r"\p{N}")
    },
}
STRETCH = 1_000_000  # characters of a long document that are encoded together, about
_TABLE_LIMIT = 1_000_000  # pieces remembered, some 150 MB
_PIECE_LIMIT = 256  # characters of a piece that is remembered
_HIDDEN = "\ufdd0"  # a character that is none, before the name of what no text may become
SAMPLES = {  # what a tokenizer must give back, by what it loses that does not
    "capital letters": "Letters And CAPITALS",
    "marks and digits": "marks, digits: f(x[0]) == {12.5} - 'it'; <b>",
    "repeated blanks": "two  blanks,    four",
    "tabs and line ends": "a tab\tand lines\n\n    indented\r\n",
    "accents": "na\u00efve fa\u00e7ade, \u00dcbung",
    "letters of other scripts": "\u0436\u0443\u043a \u4e2d\u6587 \u0939\u093f\u0928",
    "emoji": "\U0001f642\U0001f9ea",
}


@dataclass(frozen=True)
class TokenizerFile:
    """A tokenizer on disk, and which of its tokens ends a document.

    Attributes:
        path: its tokenizer.json.
        end_of_text: the token; the one known name that it has where this is empty.
    """

    path: Path
    end_of_text: str = ""

    @property
    def content(self) -> tuple[str, str]:
        """What it is, wherever it lies."""
        return file_digest(self.path), self.end_of_text


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


def load_tokenizer(
    path: Path | str, end: str = "", *, advice: str = "prepare the corpus again"
) -> Tokenizer:
    """A tokenizer from a `tokenizer.json`.

    Args:
        path: the file.
        end: the token that ends a document; "" for the one known name that it has.
        advice: what to do about a file that is none.

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
        raise CorruptError(f"{path} is not a tokenizer: {error}; {advice}") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    end_of_text(tokenizer, end)
    return tokenizer


def end_of_text(tokenizer: Tokenizer, end: str = "") -> int:
    """The id that ends each document.

    Raises:
        DataError: the tokenizer has no such token; or, where none is named, none or several of the
            known names.
    """
    if end and tokenizer.token_to_id(end) is None:
        raise DataError(f"the tokenizer has no token {end}, which is to end each document")
    named = [end] if end else [name for name in KNOWN_ENDS if name in tokenizer.get_vocab()]
    if len(named) != 1:
        has = f"several: {', '.join(named)}" if named else f"none of {', '.join(KNOWN_ENDS)}"
        raise DataError(
            f"the tokenizer has no token that is known to end each document (it has {has}): name "
            "it, corpus.end_of_text"
        )
    return int(tokenizer.get_vocab()[named[0]])


def vocabulary_size(tokenizer: Tokenizer) -> int:
    """One more than its highest id: the rows of an embedding, which ids left out count in."""
    return 1 + max(tokenizer.get_vocab().values())


def check_tokenizer(tokenizer: Tokenizer, name: str) -> None:
    """See that a tokenizer loses nothing of a text, so that its bits per byte mean something.

    Raises:
        DataError: what it loses, and an example.
    """
    model = json.loads(tokenizer.to_str())["model"]
    if model.get("dropout"):
        raise DataError(f"{name} encodes a text at random (dropout {model['dropout']}): remove it")
    plain = _characters_only(tokenizer)
    for what, text in SAMPLES.items():
        ids = plain.encode(text, add_special_tokens=False).ids
        back = tokenizer.decode(ids, skip_special_tokens=False)
        if back != text:
            raise DataError(
                f"{name} ({model['type']}) loses {what}: {text!r} comes back as {back!r}. Bits per "
                "byte count every byte of a text, so that a tokenizer must give each one back: "
                "take a byte-level BPE, or one with byte_fallback"
            )


def _characters_only(tokenizer: Tokenizer) -> Tokenizer:
    """A copy that encodes text which reads like a special token as the characters it is.

    A Unigram model, or a BPE that ignores its merges, would find such a token among its own pieces:
    there it gets a name that no text has, and no merge makes it.
    """
    body = json.loads(tokenizer.to_str())
    model = body["model"]
    pieces = model["vocab"]
    special = {token["content"] for token in body["added_tokens"] if token["special"]}
    inside = special & (
        set(pieces) if isinstance(pieces, dict) else {piece for piece, _ in pieces}
    ) - {model.get("unk_token")}
    if model["type"] == "BPE":
        model["vocab"] = {(_HIDDEN if n in inside else "") + n: i for n, i in pieces.items()}
        pairs = [pair if isinstance(pair, list) else pair.split(" ") for pair in model["merges"]]
        model["merges"] = [one for one in pairs if not inside & {*one, "".join(one)}]
    elif model["type"] == "Unigram":
        model["vocab"] = [[(_HIDDEN if n in inside else "") + n, score] for n, score in pieces]
    body["added_tokens"] = [one for one in body["added_tokens"] if one["content"] not in inside]
    body["post_processor"] = body["truncation"] = body["padding"] = None
    copy = Tokenizer.from_str(json.dumps(body))
    copy.encode_special_tokens = True
    return copy


class DocumentEncoder:
    """Encodes documents in batches to token ids as bytes, ready to be written to a shard.

    Text that happens to read like a special token is encoded as the characters it is.

    Attributes:
        separable: whether text may be cut, so that a long document need not be held whole.
        type: of the integers on disk.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = _characters_only(tokenizer)
        self.type = token_type(vocabulary_size(tokenizer))
        self._table: dict[str, bytes] = {}
        self._words: dict[str, bytes] = {}
        self._pieces, self._edge, self._word = _cuts(tokenizer)
        self.separable = self._pieces is not None

    def encode(self, texts: Sequence[str]) -> list[bytes]:
        """Token ids of each text, as the bytes of little-endian integers of `token_type`."""
        if self._pieces is None or not self.separable:
            return self._whole(texts)
        if len(self._table) > _TABLE_LIMIT:
            self._table.clear()
            self._words.clear()
        table = self._table
        pieces = [self._pieces.findall(text) for text in texts]
        fresh = list(set().union(*pieces).difference(table))
        table.update(zip(fresh, self._spelled(fresh), strict=True))
        encoded = [b"".join(map(table.__getitem__, row)) for row in pieces]
        for piece in fresh:
            if len(piece) > _PIECE_LIMIT:
                del table[piece]
        return encoded

    def stretches(self, text: str, size: int = STRETCH) -> list[str]:
        """A text cut where no token spans, so that the tokens of the parts are those of the text.

        A part is a little longer than `size`, and much longer where nothing may be cut; the text
        itself where the tokenizer is not separable.
        """
        parts = []
        start = 0
        edge = self._edge
        while edge and len(text) - start > size and (at := edge.search(text, start + size - 1)):
            parts.append(text[start : at.end()])
            start = at.end()
        return [*parts, text[start:]]

    def _spelled(self, pieces: Sequence[str]) -> list[bytes]:
        """Token ids of pieces, each put together of its words."""
        if self._word is None:
            return self._whole(pieces)
        split = self._word.findall
        rows = [split(piece) if piece.isascii() else [piece] for piece in pieces]
        # In order, because the library remembers its last words, and neighbors are alike.
        fresh = sorted(set().union(*rows).difference(self._words))
        words = self._words
        words.update(zip(fresh, self._whole(fresh), strict=True))
        spelled = [b"".join(map(words.__getitem__, row)) for row in rows]
        for word in fresh:
            if len(word) > _PIECE_LIMIT or not word.isascii():
                del words[word]
        return spelled

    def _whole(self, texts: Sequence[str]) -> list[bytes]:
        encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        lengths = [len(encoding) for encoding in encodings]
        ids = [token for encoding in encodings for token in encoding.ids]
        data = np.array(ids, dtype=self.type).tobytes()
        ends = np.cumsum([0, *lengths]) * self.type.itemsize
        return [data[a:b] for a, b in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True)]


_Expression = re.Pattern[str] | None


def _cuts(tokenizer: Tokenizer) -> tuple[_Expression, _Expression, _Expression]:
    """The pieces that encode as they do in their text, where it may be cut, words of a piece."""
    body = json.loads(tokenizer.to_str())
    split = body["pre_tokenizer"] or {}
    family = _family(split)
    matched = [token for token in body["added_tokens"] if not token["special"]]
    wide = any(token["lstrip"] or token["rstrip"] or token["single_word"] for token in matched)
    if family is None or wide or (body["normalizer"] or {"type": "NFC"})["type"] != "NFC":
        return None, None, None
    names = [token["content"] for token in matched]
    if any(len(_PIECES[family].findall(name)) > 1 for name in names):
        return None, None, None
    at_marks = not any(re.search(_AT_MARKS, name) for name in names)
    edge = f"{_EDGES[family]}|{_AT_MARKS}" if at_marks else _EDGES[family]
    return _PIECES[family], re.compile(edge), None if matched else _word(split)


def _family(split: Mapping[str, Any]) -> str | None:
    """Which cuts leave a pre-tokenizer's pieces as they are: "words", "lines", or None."""
    *first, last = split.get("pretokenizers") or [split]
    if last.get("type") != "ByteLevel" or last.get("add_prefix_space") is not False:
        return None
    if last.get("use_regex") is True:
        alone = all(one.get("type") == "Digits" for one in first)
        return "words" if alone else None
    if len(first) != 1 or first[0].get("type") != "Split" or first[0].get("invert"):
        return None
    known = _EXPRESSIONS.get(first[0]["pattern"].get("Regex", ""))
    return known if first[0]["behavior"] == "Isolated" else None


def _word(split: Mapping[str, Any]) -> re.Pattern[str] | None:
    """What a pre-tokenizer of a known family matches in ASCII; None if it cuts by more."""
    *first, _ = split.get("pretokenizers") or [split]
    if any(one["type"] != "Split" for one in first):
        return None
    expression = first[0]["pattern"]["Regex"] if first else _GPT2
    sets = re.sub(r"\[[^\]]+\]", lambda one: _ascii(one[0], "A-Za-z", "0-9"), expression)
    return re.compile(_ascii(sets, "[A-Za-z]", "[0-9]"), re.ASCII)


def _ascii(expression: str, letters: str, digits: str) -> str:
    return expression.replace(r"\p{L}", letters).replace(r"\p{N}", digits)
