"""Exports, read by the trainers' own libraries. Those that are not installed are skipped.

They are no dependency of the project: `pip install --no-deps megatron-core ai2-olmo-core
mosaicml-streaming litdata torchtitan axolotl`, and what they then ask for.
"""

import importlib.util
import json
import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml

from mixtures.domains import Domain, DomainSet
from mixtures.history import Stage
from tasks import exports
from tasks.exports import Blend

WANT = {"web": 0.5, "code": 0.3, "chat": 0.2}


def blend(paths: dict[str, str], **changes: object) -> Blend:
    """Three drawn domains of 200, 50 and 400 documents, one that is not; code repeats 1.2 times."""
    domains = DomainSet(
        (
            Domain("web", 20_000, 80_000, "w", 200),  # 100 tokens a document
            Domain("code", 10_000, 40_000, "c", 50),  # 200
            Domain("unused", 10_000, 40_000, "u", 50),
            Domain("chat", 8_000, 32_000, "h", 400),  # 20
        )
    )
    values = {"sequence": 100, "batch": 4, "seed": 3} | changes
    given = {name: (path,) for name, path in paths.items()}
    return Blend("s", domains, (Stage((0.5, 0.3, 0.0, 0.2)),), 40_000, given, **values)


def load(source: str, folder: Path, name: str):
    """A module from its text, as a trainer's configuration is loaded."""
    file = folder / f"{name}.py"
    file.write_text(source)
    spec = importlib.util.spec_from_file_location(name, file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def documents(tmp_path):
    """A file of documents per domain, each document with its domain's name."""
    paths = {}
    for name, count in (("web", 200), ("code", 50), ("chat", 400)):
        file = tmp_path / f"{name}.jsonl"
        rows = [json.dumps({"text": f"{name} {i}", "extra": i}) for i in range(count)]
        file.write_text("\n".join(rows) + "\n")
        paths[name] = str(file)
    return paths


def test_datasets_draws_the_shares_and_repeats_short_domains(documents, tmp_path):
    """Catches probabilities of tokens, and a stream that ends with its first exhausted source."""
    files = exports.render(exports.build("huggingface"), blend(documents))
    stream = load(files["mixture.py"], tmp_path, "hf_mixture").build(buffer_size=10)
    rows = [row["text"] for row in stream]
    assert len(rows) == 200 + 60 + 400  # 20,000, 12,000 and 8,000 tokens, 40,000 together
    drawn = Counter(row.split()[0] for row in rows)
    for name, count in {"web": 200, "code": 60, "chat": 400}.items():
        assert drawn[name] == pytest.approx(count, abs=4 * count**0.5)  # drawn at random
    assert drawn["code"] <= 50 or max(Counter(r for r in rows if "code" in r).values()) == 2


def test_megatron_core_reads_the_blend(documents):
    """Catches a list that Megatron would take for paths alone, without weights."""
    datasets = pytest.importorskip("megatron.core.datasets.utils")
    files = exports.render(exports.build("megatron"), blend(documents))
    prefixes, weights = datasets.get_blend_from_list(files["blend.txt"].split())
    found = dict(zip(prefixes, datasets.normalize(weights), strict=True))
    assert found == pytest.approx({documents[n]: share for n, share in WANT.items()})


def test_olmo_core_builds_the_mixture(tmp_path):
    """Catches ratios that OLMo-core refuses, and repeats that it would not allow."""
    source = pytest.importorskip("olmo_core.data.source_mixture")
    data = pytest.importorskip("olmo_core.data.types")
    import numpy as np

    paths = {}
    for name, tokens in (("web", 20_000), ("code", 10_000), ("chat", 8_000)):
        paths[name] = str(tmp_path / f"{name}.npy")
        np.memmap(paths[name], dtype=np.uint16, mode="w+", shape=(tokens,)).flush()
    files = exports.render(exports.build("olmo_core"), blend(paths))
    (tmp_path / "sources.yaml").write_text(files["sources.yaml"])
    (tmp_path / "dataset.yaml").write_text(files["dataset.yaml"])
    alone = source.SourceMixtureList.from_yaml(str(tmp_path / "sources.yaml"))
    alone.validate()
    whole = source.SourceMixtureDatasetConfig.from_yaml(str(tmp_path / "dataset.yaml"))
    assert whole.source_list == alone
    whole.render_tables = False
    mixture = whole.build(npdtype=data.NumpyDatasetDType.uint16.as_np_dtype(), sequence_length=100)
    drawn = {s.name: sum(p.tokens for p in s.path_tokens) for s in mixture.sources}
    assert drawn == pytest.approx({n: share * 40_000 for n, share in WANT.items()}, abs=200)


def test_streaming_apportions_the_samples(documents):
    """Catches streams of mixed kinds, and an epoch that is not the run."""
    streaming = pytest.importorskip("streaming.base.stream", exc_type=(ImportError, RuntimeError))
    import numpy as np

    files = exports.render(exports.build("mosaic", {"split": "train"}), blend(documents))
    data = yaml.safe_load(files["streams.yaml"])["train_loader"]["dataset"]
    streams = [streaming.Stream(**values) for values in data["streams"].values()]
    there = np.array([200, 100, 80])  # packed sequences of 100 tokens
    total = streaming.Stream.apply_weights(streams, there, data["epoch_size"], data["shuffle_seed"])
    assert total == 400
    chosen = dict(zip(data["streams"], (int(s.choose) for s in streams), strict=True))
    assert chosen == {"web": 200, "code": 120, "chat": 80}


def test_litdata_streams_the_shares_to_the_end_of_the_run(tmp_path):
    """Catches weights that LitData refuses, and a stream that ends before the run does."""
    litdata = pytest.importorskip("litdata")
    paths = {}
    for name, samples in (("web", 200), ("code", 100), ("chat", 80)):
        paths[name] = str(tmp_path / name)
        writer = litdata.streaming.writer.BinaryWriter(paths[name], chunk_size=20)
        for i in range(samples):
            writer.add_item(i, [name, i])
        writer.done()
        writer.merge()
    files = exports.render(exports.build("litdata"), blend(paths))
    stream = load(files["mixture.py"], tmp_path, "lit_mixture").build()
    drawn = Counter(item[0] for item in stream)
    assert sum(drawn.values()) > 0.7 * 400  # it ends with its first part, which is used up whole
    for name, share in WANT.items():
        assert drawn[name] == pytest.approx(share * sum(drawn.values()), abs=50)
    assert drawn["code"] > 100  # more than once round


def test_torchtitan_interleaves_the_sources(documents, tmp_path):
    """Catches names that torchtitan does not know, and weights that it refuses."""
    text = pytest.importorskip("torchtitan.hf_datasets.text_datasets")
    interleaved = pytest.importorskip("torchtitan.hf_datasets.interleaved")
    files = exports.render(exports.build("torchtitan"), blend(documents))
    config = load(files["data_config.py"], tmp_path, "titan_mixture").DATALOADER

    class Characters:
        def encode(self, words, add_bos, add_eos):
            return [1, *(ord(letter) for letter in words), 2]

    parts = [
        text.HuggingFaceTextDataset(s.dataset, None, Characters(), seq_len=16, infinite=s.infinite)
        for s in config.sources
    ]
    mixed = interleaved.InterleavedDataset(
        parts, [s.weight for s in config.sources], config.seed, config.stopping_strategy
    )
    assert [s.dataset for s in config.sources] == ["s/web", "s/code", "s/chat"]
    assert [s.weight for s in config.sources] == [0.5, 0.3, 0.2]
    drawn = [next(stream) for stream in [iter(mixed)] for _ in range(400)]
    assert len(drawn) == 400  # code's 50 documents were begun anew


def test_axolotl_takes_every_entry_and_its_slice(documents):
    """Catches fields that Axolotl's schema does not know and would drop in silence."""
    schemas = pytest.importorskip("axolotl.utils.schemas.datasets")
    from datasets import load_dataset

    files = exports.render(exports.build("axolotl"), blend(documents))
    given = yaml.safe_load(files["datasets.yaml"])["datasets"]
    drawn: Counter[str] = Counter()
    for entry in given:
        checked = schemas.SFTDataset.model_validate(entry)
        kept = checked.model_dump(exclude_unset=True)
        assert {name: kept[name] for name in entry} == entry
        rows = load_dataset(checked.ds_type, data_files=checked.path, split=checked.split)
        drawn[Path(checked.path).stem] += len(rows)
    assert drawn == {"web": 200, "code": 60, "chat": 400}


def test_nanotron_s_own_dataclass_takes_the_lists():
    """Catches a mapping of folders to weights, which older documentation shows."""
    config = pytest.importorskip("nanotron.config", exc_type=ImportError)
    if not hasattr(config, "NanosetDatasetsArgs"):
        pytest.skip("this nanotron is older than Nanosets with weights")
    files = exports.render(exports.build("nanotron"), blend({n: f"/none/{n}" for n in WANT}))
    stage = yaml.safe_load(files["data_stages.yaml"])["data_stages"][0]
    made = config.NanosetDatasetsArgs(**stage["data"]["dataset"])
    assert made.dataset_weights == [0.5, 0.3, 0.2]
    assert sys.modules["nanotron.config"] is config
