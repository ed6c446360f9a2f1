"""Tokenizers of others: which are taken, what ends a document, what is cut, what a token weighs."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)

from cuvee.evaluation import held_out
from cuvee.mixtures.errors import DataError
from cuvee.proxies.data import tokenizer as tokenizers

LLAMA = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
GPT4_O = LLAMA.replace(r"[\r\n]*|", r"[\r\n/]*|")
TEXT = (
    "It's the 1st of many lines; they're long!\n\n    def f(x):\n\treturn x != 10 ** 2\r\n"
    " </s> ends, <tool_call> calls\n \n\u4e2d\u6587 \u00e9e\u0301 \U0001f642  ..\n.\n  (1)\n"
)
CHARACTERS = (
    " \n\r\t\x1c\x85\u00a0\u2003\u2028\u200b'.,!/-(<>_aZ90"
    "\u00e9\u4e2d\u00b2\u0301sdtrevml\U0001f600"
)
PIECES = st.sampled_from(
    [*CHARACTERS, "'s", "!\n", "\n \n", "<tool_call>", "    ", "</s>", "e\u0301"]
)


def single_digits():
    """A byte-level BPE that parts digits first, as StarCoder's."""
    made = byte_level()
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), made.pre_tokenizer]
    )
    return made


def byte_level(expression: str = "", *, extra: tuple[str, ...] = (), nfc: bool = False):
    """A byte-level BPE as teams have them: by GPT-2's expression, or by another."""
    made = Tokenizer(models.BPE())
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not expression)
    split = pre_tokenizers.Split(Regex(expression or "x"), "isolated")
    made.pre_tokenizer = pre_tokenizers.Sequence([split, level]) if expression else level
    made.decoder = decoders.ByteLevel()
    made.normalizer = normalizers.NFC() if nfc else None
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=["</s>", "<s>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    made.train_from_iterator([TEXT] * 3, trainer)
    made.add_tokens([AddedToken(content, normalized=False) for content in extra])
    return made


def fallback(kind: str):
    """A tokenizer like SentencePiece's, with bytes to fall back on: "BPE" or "Unigram"."""
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    if kind == "BPE":
        made = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
        trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=special, show_progress=False)
    else:
        made = Tokenizer(models.Unigram())
        trainer = trainers.UnigramTrainer(
            vocab_size=400, special_tokens=special, unk_token="<unk>", show_progress=False
        )
    made.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    made.train_from_iterator(["the cat sat on the mat, and it ate, Letters And"] * 30, trainer)
    body = json.loads(made.to_str())
    body["model"]["byte_fallback"] = True
    body["added_tokens"] = [one for one in body["added_tokens"] if "0x" not in one["content"]]
    made = Tokenizer.from_str(json.dumps(body))
    made.decoder = decoders.Sequence(
        [
            decoders.Replace("\u2581", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return made


SEPARABLE = {
    "gpt-2": byte_level(),
    "starcoder": single_digits(),
    "gpt-neox": byte_level(extra=("  ", "    ", "      "), nfc=True),
    "llama-3": byte_level(LLAMA),
    "qwen": byte_level(LLAMA.replace("{1,3}", ""), extra=("<tool_call>",), nfc=True),
}


@pytest.mark.parametrize("name", SEPARABLE)
@settings(max_examples=150, deadline=None, database=None, derandomize=True)
@given(pieces=st.lists(PIECES, max_size=40), size=st.integers(1, 9))
def test_cut_text_has_the_tokens_of_the_whole(name, pieces, size):
    """Catches a cut between a mark and the line end that its token takes (Llama 3), inside an added
    token, before an accent that composes, or within a run of blanks and line ends; and words of a
    piece that are not those of the tokenizer's own expression (digits one by one or by threes)."""
    encoder, plain = (tokenizers.DocumentEncoder(SEPARABLE[name]) for _ in range(2))
    plain.separable = False
    text = "".join(pieces)
    assert encoder.separable
    assert encoder.encode([text, TEXT]) == plain.encode([text, TEXT])
    parts = encoder.stretches(text, size)
    assert "".join(parts) == text
    assert b"".join(plain.encode(parts)) == plain.encode([text])[0]


@pytest.mark.parametrize(
    "other",
    [
        byte_level(GPT4_O),
        byte_level(extra=("a b",)),
        fallback("BPE"),
    ],
    ids=["marks that take slashes of the next line", "a token over a blank", "no pieces at all"],
)
def test_what_is_not_proved_is_encoded_whole(other):
    """Catches cutting on the strength of the pre-tokenizer's type alone."""
    encoder = tokenizers.DocumentEncoder(other)
    assert not encoder.separable and encoder.stretches(TEXT * 9, 5) == [TEXT * 9]


@pytest.mark.parametrize(
    "made",
    [byte_level(LLAMA), fallback("BPE"), fallback("Unigram")],
    ids=["byte-level", "fallback", "unigram"],
)
def test_what_reads_like_a_special_token_is_text(made):
    """Catches a document ended early: a Unigram model finds `</s>` among its own pieces."""
    tokenizers.check_tokenizer(made, "it")
    end = tokenizers.end_of_text(made)
    (data,) = tokenizers.DocumentEncoder(made).encode([TEXT])
    ids = np.frombuffer(data, dtype="<u2").tolist()
    assert end == made.token_to_id("</s>") and not {end, made.token_to_id("<s>")} & set(ids)
    assert made.decode(ids, skip_special_tokens=False) == TEXT


@pytest.mark.parametrize(
    "made",
    [byte_level(LLAMA, extra=("\u4e2d\u6587",)), fallback("BPE"), fallback("Unigram")],
    ids=["byte-level", "fallback", "unigram"],
)
def test_the_bytes_of_tokens_are_those_of_the_text(made, tmp_path):
    """Catches a byte token counted as its six letters, an added token counted in the alphabet of
    bytes, the blank before a word that a decoder strips from a lone token, and the letters by which
    a byte-level tokenizer writes bytes read as text."""
    made.save(str(tmp_path / "tokenizer.json"))
    widths = held_out.token_widths(tmp_path / "tokenizer.json")
    texts = held_out.token_bytes(tmp_path / "tokenizer.json")
    (data,) = tokenizers.DocumentEncoder(made).encode([TEXT])
    ids = np.frombuffer(data, dtype="<u2")
    prepended = made.normalizer is not None  # a blank that the text does not begin with
    assert widths[ids].sum() == len(TEXT.encode()) + prepended
    assert b"".join(texts[i] for i in ids.tolist()) == b" " * prepended + TEXT.encode()
    assert widths[tokenizers.end_of_text(made)] == 0 and len(widths) == made.get_vocab_size()


def test_a_tokenizer_that_loses_text_is_refused_and_says_what_it_loses():
    """Catches bits per byte of text that the proxies never saw: lower case, unknowns."""
    pieces = {"[UNK]": 0, "[SEP]": 1, "letters": 2, "and": 3, "capitals": 4}
    bert = Tokenizer(models.WordPiece(pieces, unk_token="[UNK]"))
    bert.normalizer = normalizers.BertNormalizer()
    bert.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    bert.decoder = decoders.WordPiece()
    with pytest.raises(DataError, match=r"\(WordPiece\) loses capital letters: 'Letters And CAP"):
        tokenizers.check_tokenizer(bert, "bert")
    plain = json.loads(fallback("Unigram").to_str())
    plain["model"]["byte_fallback"] = False
    with pytest.raises(DataError, match=r"\(Unigram\) loses"):
        tokenizers.check_tokenizer(Tokenizer.from_str(json.dumps(plain)), "t5")


def test_the_end_of_text_is_named_where_it_is_not_known():
    """Catches taking the first of several, and a token of another use."""
    made = byte_level()
    made.add_special_tokens(["<|end_of_text|>", "<done>"])
    with pytest.raises(DataError, match=r"several: <\|end_of_text\|>, </s>.*corpus.end_of_text"):
        tokenizers.end_of_text(made)
    assert tokenizers.end_of_text(made, "<done>") == made.token_to_id("<done>")
    with pytest.raises(DataError, match="no token <fin>"):
        tokenizers.end_of_text(made, "<fin>")


def test_ids_that_are_left_out_count_in_the_vocabulary():
    """Catches an embedding with fewer rows than the highest id, and ids that wrap in a shard."""
    body = json.loads(byte_level().to_str())
    last = max(body["model"]["vocab"], key=body["model"]["vocab"].get)
    body["model"]["vocab"][last] = 70_000
    body["model"]["merges"] = []
    made = Tokenizer.from_str(json.dumps(body))
    assert tokenizers.vocabulary_size(made) == 70_001
    (data,) = tokenizers.DocumentEncoder(made).encode(["a"])
    assert len(data) == 4
