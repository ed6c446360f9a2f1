"""Inputs that nobody thought of, drawn from the schema or damaged: read or refused, no more."""

import gzip
import hashlib
import json

import fuzz
import fuzz_files
import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file, save_file

from cuvee.evaluation import benchmarks
from cuvee.mixtures.errors import CorruptError, DataError
from cuvee.proxies.data.sources import text_files
from cuvee.proxies.ladder import model_size
from cuvee.proxies.model.transformer import PackModel
from cuvee.proxies.train import checkpoint, warm_start


@pytest.mark.parametrize("count", [200, pytest.param(2000, marks=pytest.mark.slow)])
def test_no_input_ends_in_a_traceback_or_hangs(count):
    """Catches whatever reader raises other than a sentence; the schema itself is the grammar."""
    tally = fuzz.campaign(count, seed=count)
    found = tally.count
    assert tally.examples == [] and found["inputs_tried"] == count
    assert found["refused"] + found["accepted"] == count
    drawn = tally.kinds["drawn recipe"]
    assert drawn["accepted"] > 0 and drawn["refused"] > 0  # neither all nonsense nor all harmless


def test_a_reader_that_raises_is_found_out(monkeypatch):
    """Catches a campaign whose damage or whose draws reach nothing."""

    def broken(_path):
        raise KeyError("x")

    monkeypatch.setattr(fuzz, "read_file", broken)
    monkeypatch.setattr(fuzz_files, "read_file", broken)
    kinds = fuzz.campaign(150, 0).kinds
    assert kinds["drawn recipe"]["tracebacks"] == kinds["drawn recipe"]["inputs_tried"] > 40
    assert kinds["recipe"]["tracebacks"] > 0 and kinds["text .txt"]["tracebacks"] == 0


def test_damage_changes_files_of_every_kind(tmp_path):
    """Catches a mutator that gives files back as they were."""
    targets = [*fuzz_files.papers(tmp_path), *fuzz_files.corpora(tmp_path)]
    for target in [*targets, *fuzz_files.models(tmp_path)]:
        target.path.write_bytes(target.whole)
        target.read()
        rng = np.random.default_rng(0)
        assert sum(target.damage(rng) != target.whole for _ in range(20)) > 15, target.kind


GOOD = json.dumps({"query": "1 + 1 =", "choices": [" 2", " 3"], "gold": 0}).encode()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("qa.jsonl.gz", gzip.compress(GOOD * 99, mtime=0)[:10] + b"\xff" * 30, "damaged"),
        ("qa.jsonl.gz", gzip.compress(GOOD, mtime=0)[:-9], "damaged"),
        ("qa.jsonl", b'{"text": "half \\ud800"}', "line 1: half of a surrogate"),
        ("qa.jsonl", b'{"query": "\\ud800", "choices": ["a", "b"], "gold": 0}', "surrogate"),
        ("qa.jsonl", b'{"text": ' + b"[" * 100_000 + b"}", "line 1: nested too deeply"),
        ("qa.jsonl", b'{"text": ' + b"9" * 5000 + b"}", "line 1"),
        ("qa.jsonl", json.dumps({"query": "x", "choices": ["y" * 10**6] * 3}).encode(), "choices"),
    ],
)
def test_a_damaged_benchmark_is_a_sentence(tmp_path, name, content, words):
    """Catches zlib.error, UnicodeEncodeError, RecursionError, and a message as long as the row."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=words) as caught:
        benchmarks.adopt_benchmark(tmp_path / name, tmp_path / "out", "qa")
    assert len(str(caught.value)) < 500


def test_a_byte_order_mark_is_no_part_of_a_benchmark(tmp_path):
    """Catches a first row that is refused as "not JSON"."""
    (tmp_path / "qa.jsonl").write_bytes(b"\xef\xbb\xbf" + GOOD + b"\n")
    assert len(benchmarks.read_benchmark(tmp_path / "qa.jsonl")) == 1


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    model = PackModel(model_size("0.3M"), 64, [0])
    return checkpoint.export_huggingface(model, 0, tmp_path_factory.mktemp("start"))


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("q_proj", lambda value: value.flatten(), "q_proj.weight' .* has 1 dimensions, wanted 2"),
        ("lm_head", lambda value: value[None], "lm_head.weight' .* has 3 dimensions, wanted 2"),
        ("k_proj", lambda value: value[:, :5], "does not fit together"),
        ("input_layernorm", lambda value: value[None], "2 dimensions, wanted 1"),
        ("up_proj", lambda value: value * torch.nan, "finite"),
    ],
)
def test_a_checkpoint_of_another_shape_is_a_sentence(exported, tmp_path, name, change, words):
    """Catches errors of torch about dimensions that nobody who reads them has given."""
    tensors = load_file(exported / warm_start.FILE)
    key = next(key for key in tensors if name in key)
    tensors[key] = change(tensors[key]).contiguous()
    save_file(tensors, tmp_path / warm_start.FILE)
    (tmp_path / "config.json").write_bytes((exported / "config.json").read_bytes())
    with pytest.raises(DataError, match=words):
        warm_start.read_start_checkpoint(tmp_path, "0.3M", 64)


@pytest.mark.parametrize("config", ["[]", "[" * 100_000, "3", '{"hidden_size": [[1]]}', "\ufeff{"])
def test_a_strange_configuration_is_a_sentence(exported, tmp_path, config):
    """Catches a list asked for its keys, and RecursionError."""
    (tmp_path / "config.json").write_text(config)
    (tmp_path / warm_start.FILE).write_bytes((exported / warm_start.FILE).read_bytes())
    with pytest.raises(DataError, match="checkpoint in"):
        warm_start.read_start_checkpoint(tmp_path, "0.3M", 64)


@pytest.mark.parametrize(
    "payload", [b"", b"\x80\x04.", b"PK\x03\x04", b"cos\nsystem\n(S'true'\ntR."]
)
def test_a_pack_goes_on_from_the_checkpoint_before_a_strange_one(tmp_path, payload):
    """Catches UnpicklingError from a file with the right digest that torch refuses."""
    checkpoint.save_checkpoint(tmp_path, 1, {"identity": ["x"]})
    strange = hashlib.sha256(payload).digest() + payload
    (tmp_path / "step-000000002.pt").write_bytes(strange)
    assert checkpoint.load_checkpoint(tmp_path, ["x"]) == {"identity": ["x"]}


def test_a_damaged_table_of_arrow_is_refused_and_not_read_beyond_its_end(tmp_path):
    """Catches offsets that are believed: Arrow reads wherever they point, and the process dies."""
    offsets = pa.py_buffer(np.array([0, 2**30, 3], np.int32).tobytes())
    column = pa.Array.from_buffers(pa.string(), 2, [None, offsets, pa.py_buffer(b"abc")])
    table = pa.record_batch([column], ["text"])
    with (
        pa.OSFile(str(tmp_path / "a.arrow"), "wb") as sink,
        pa.ipc.new_file(sink, table.schema) as f,
    ):
        f.write_batch(table)
    with pytest.raises(CorruptError, match="damaged"):
        list(text_files.Files(str(tmp_path / "a.arrow")).documents())
