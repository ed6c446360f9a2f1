"""Token files of other trainers, read as documents; bad ones named.

`golden/token_files` was written by the libraries themselves: megatron.bin and .idx by megatron-core
0.16.1 (IndexedDatasetBuilder, the first document of two sequences), datatrove.ds and its index by
datatrove 0.10.1 (TokenizedFile); ids are those of `BYTES`. OLMo's have no writer but numpy.memmap.
"""

import pickle
import shutil
from pathlib import Path

import fsspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from cuvee.mixtures.errors import CorruptError, CuveeError, DataError
from cuvee.proxies.data.sources.documents import ReadPart, TextDocument, UnusableDocument
from cuvee.proxies.data.sources.source_files import TOKENS
from cuvee.proxies.data.sources.token_files import TokenFiles
from cuvee.proxies.data.sources.token_layouts import LAYOUTS, FlatTokens
from cuvee.proxies.data.tokenizer import TokenizerFile

WRITTEN = Path(__file__).parents[1] / "golden" / "token_files"
DOCUMENTS = ["Two lines,\nof one document.\n", "caf\u00e9 \u4e2d\u6587", "", "the last one"]
ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())
BYTES = Tokenizer(models.BPE({letter: i for i, letter in enumerate(ALPHABET)}, []))
BYTES.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
BYTES.decoder = decoders.ByteLevel()
BYTES.add_special_tokens(["</s>"])
END = 256


@pytest.fixture
def place(tmp_path):
    """A folder with a pair, a flat file and a file of datatrove's, and their tokenizer."""
    shutil.copytree(WRITTEN, tmp_path, dirs_exist_ok=True)
    BYTES.save(str(tmp_path / "tokenizer.json"))
    ids = [one for text in DOCUMENTS for one in [*BYTES.encode(text).ids, END]]
    flat = np.memmap(tmp_path / "olmo.npy", dtype=np.uint16, mode="w+", shape=(len(ids),))
    flat[:] = ids
    flat.flush()
    return tmp_path


def files(place, kind, **more):
    path = (str(place / f"{kind}{TOKENS[kind]}"),)
    return TokenFiles(path, kind, TokenizerFile(place / "tokenizer.json"), **more)


@pytest.mark.parametrize("part_bytes", [1, 20, 60, 1 << 20])
@pytest.mark.parametrize("kind", LAYOUTS)
def test_documents_are_those_that_were_written_in_parts_of_any_size(place, kind, part_bytes):
    """Catches a document lost, doubled or cut where two parts meet, the sequences of a document
    taken for documents, and an end-of-text token that becomes text."""
    source = files(place, kind, part_bytes=part_bytes)
    found = list(source.documents())
    assert [one.text for one in found] == DOCUMENTS
    assert len({one.id for one in found}) == 4 and found[3].id.startswith(f"{kind}{TOKENS[kind]}:")
    if part_bytes == 1:
        assert len(source.parts()) > 3
    again = pickle.loads(pickle.dumps(source))
    shutil.move(place / "tokenizer.json", place / "elsewhere")
    assert [one for part in source.parts() for one in again.read(part)] == found
    assert again.reading == source.reading


@settings(max_examples=60, deadline=None, database=None, derandomize=True)
@given(ids=st.lists(st.sampled_from([7, 8, END, END]), max_size=30), step=st.integers(1, 9))
def test_flat_ids_part_at_their_ends_wherever_they_are_cut(tmp_path_factory, ids, step):
    """Against a split of the whole list: catches empty documents, a last one without an end, and
    one that begins on the edge of a range."""
    path = tmp_path_factory.mktemp("flat") / "x.npy"
    path.write_bytes(np.array(ids, "<u2").tobytes())
    layout = FlatTokens(str(path), 257, END)
    wanted, rest = [], list(ids)
    while END in rest:
        at = rest.index(END) + 1
        wanted, rest = [*wanted, rest[:at]], rest[at:]
    wanted += [rest] if rest else []
    ranges = [(a, b) for a, b, _ in layout.ranges(2 * step)]
    assert [d.tolist() for a, b in ranges for *_, d in layout.documents(a, b)] == wanted
    assert [d.tolist() for *_, d in layout.documents(0, None)] == wanted


def test_flat_ids_may_have_numpys_header(place):
    """Catches a header read as ids, and an array of another byte order read as this one's."""
    ids = np.fromfile(place / "olmo.npy", "<u2")
    np.save(place / "olmo.npy", ids.astype("<u4"))
    assert [one.text for one in files(place, "olmo").documents()] == DOCUMENTS
    np.save(place / "olmo.npy", ids.astype(">u2"))
    with pytest.raises(CorruptError, match=r"olmo.npy is an array of >u2"):
        list(files(place, "olmo").documents())


@pytest.mark.parametrize("kind", ["<u4", "<i4"])
def test_ids_of_4_bytes_are_not_read_as_twice_as_many_of_2(place, kind):
    """Catches a token 0 after every id of a raw file, without an error."""
    ids = np.fromfile(place / "olmo.npy", "<u2")
    ids.astype(kind).tofile(place / "olmo.npy")
    with pytest.raises(CorruptError, match=r"olmo.npy seems to hold ids of 4 bytes"):
        list(files(place, "olmo").documents())


BAD = {
    "a file that breaks off": ("megatron", "megatron.bin", lambda b: b[:-2], "index .*idx speaks"),
    "an index that breaks off": ("megatron", "megatron.idx", lambda b: b[:-8], "idx breaks off"),
    "no index": ("megatron", "megatron.idx", lambda b: b"x" * 40, "no index of Megatron's"),
    "another byte order": (
        "megatron", "megatron.idx", lambda b: b[:9] + b[9:17][::-1] + b[17:], "another byte order",
    ),
    "a type of fractions": (
        "megatron", "megatron.idx", lambda b: b[:17] + b"\x07" + b[18:], "ids of type 7",
    ),
    "marks beyond the sequences": (
        "megatron", "megatron.idx", lambda b: b[:-8] + b"\x09" + b[-7:], "in another way",
    ),
    "an index of another file": (
        "datatrove", "datatrove.ds.index", lambda b: b[:-8], r"index .* speaks of 43 tokens",
    ),
    "ids of another size": ("olmo", "olmo.npy", lambda b: b[:-1], "no whole number of 2-byte ids"),
    "an id above the vocabulary": (
        "olmo", "olmo.npy", lambda b: b[:60] + b"\x39\x30" + b[62:],
        r"document olmo.npy:\d+ has the id 12,345, and the ids of its tokenizer .* go to 256",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_bad_token_files_are_named(place, what):
    """Catches ids read from the wrong place, or wrapped into the vocabulary, without a word."""
    kind, name, damage, message = BAD[what]
    path = place / name
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises((CorruptError, DataError), match=message) as found:
        list(files(place, kind).documents())
    assert name in str(found.value)


@pytest.mark.parametrize(
    "name", ["megatron.idx", "megatron.bin", "datatrove.ds.index", "datatrove.ds", "olmo.npy"]
)
def test_whatever_byte_is_wrong_is_told_in_words(place, name):
    """Bytes of headers, indices and files at their extremes, and files cut short there: catches
    counts that are believed until memory ends, and errors of Python's or NumPy's own."""
    if name == "olmo.npy":
        np.save(place / name, np.fromfile(place / name, "<u2"))
    raw = (place / name).read_bytes()
    tokenizer = TokenizerFile(place / "tokenizer.json")
    kind = name.partition(".")[0]
    source = TokenFiles((str(place / f"{kind}{TOKENS[kind]}"),), kind, tokenizer, view=True)
    told = 0
    places = [*range(min(96, len(raw))), *range(96, len(raw), 7)]
    for at in places:
        wrong = [raw[:at] + bytes([one]) + raw[at + 1 :] for one in (0, 127, 128, 255)]
        for damaged in (raw[:at], *wrong[:: 1 if at < 96 else 3]):
            (place / name).write_bytes(damaged)
            try:
                list(source.documents())
            except CuveeError as error:
                assert f"/{kind}." in str(error)
                told += 1
    assert told > len(places)  # a cut at each, and more


def test_a_document_that_is_no_text_is_refused_or_skipped(place):
    """Catches a sign for lost bytes that becomes text; the sign itself, written, is text."""
    sign = BYTES.encode("a \ufffd sign").ids
    half = BYTES.encode("\u4e2d").ids[:2]
    np.array([*sign, END, *half, END], "<u2").tofile(place / "olmo.npy")
    with pytest.raises(DataError, match=r"olmo.npy:\d+ is no text.*on_error: skip"):
        list(files(place, "olmo").documents())
    first, second = files(place, "olmo", skip=True).documents()
    assert first == TextDocument("a \ufffd sign", "olmo.npy:0")
    assert isinstance(second, UnusableDocument)


def test_identity_follows_both_files_and_the_tokenizer(place):
    """Catches an index that is changed under tokens that are not, which parts them anew."""
    seen = {files(place, "megatron").identity}
    index = place / "megatron.idx"
    raw = bytearray(index.read_bytes())
    raw[-16] = 5  # the third document takes what the last one had
    index.write_bytes(raw)
    seen.add(files(place, "megatron").identity)
    other = Tokenizer.from_str(BYTES.to_str())
    other.add_special_tokens(["<pad>"])
    other.save(str(place / "tokenizer.json"))
    seen.add(files(place, "megatron").identity)
    assert len(seen) == 3
    part = files(place, "megatron").parts()[0]
    index.unlink()
    with pytest.raises(DataError, match=r"megatron.idx"):
        files(place, "megatron").parts()
    with pytest.raises(DataError, match=r"megatron.idx"):
        list(files(place, "megatron").read(ReadPart(part.url, 0, None)))


def test_token_files_in_object_storage_are_read_in_ranges(place, s3):
    """Catches an index that is looked for on this machine, and an identity by the path alone."""
    system, root = fsspec.core.url_to_fs(s3)
    for path in sorted(place.glob("[!t]*")):
        system.pipe_file(f"{root}/{path.name}", path.read_bytes())
    made = TokenizerFile(place / "tokenizer.json")
    for kind, ending in TOKENS.items():
        source = TokenFiles((f"{s3}/{kind}{ending}",), kind, made, part_bytes=60)
        assert [one.text for one in source.documents()] == DOCUMENTS
    before = TokenFiles((f"{s3}/megatron.bin",), "megatron", made).identity
    raw = bytearray((place / "megatron.idx").read_bytes())
    raw[-16] = 5
    system.pipe_file(f"{root}/megatron.idx", bytes(raw))
    assert TokenFiles((f"{s3}/megatron.bin",), "megatron", made).identity != before
