"""Exports, read by the trainers' own libraries, over generated blends and real files.

`datasets` is always here; the others are no dependency of the project: `make test-trainers`
installs each into a folder of its own and runs its tests here (`trainers.py`).
"""

import dataclasses
import importlib
import importlib.util
import json
import math
import os
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from cuvee.mixtures.domains import Domain, DomainSet
from cuvee.mixtures.errors import ExportError
from cuvee.mixtures.runs.run_spec import Stage
from cuvee.proxies.data.sources.hub_datasets import dataset_files
from cuvee.proxies.data.sources.text_files import Files
from cuvee.tasks import export
from cuvee.tasks.export import ExportSpec
from cuvee.tasks.export.specification import StudiedText
from cuvee.tasks.trainer.achieved_shares import compare_drawn
from cuvee.tasks.trainer.drawn_tokens import read_drawn_tokens

SEEDS = range(6)
WANT = {"web": 0.5, "code": 0.3, "chat": 0.2}


def library(name: str, module: str):
    """A trainer's module; a failure where this run is meant for it, a skip elsewhere."""
    try:
        return importlib.import_module(module)
    except (ImportError, RuntimeError, ValueError) as error:
        if os.environ.get("CUVEE_TRAINER") == name:
            raise
        pytest.skip(f"{name} is not installed here ({error}): make test-trainers")


def blend(paths: dict[str, str], **changes: object) -> ExportSpec:
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
    return ExportSpec("s", domains, (Stage((0.5, 0.3, 0.0, 0.2)),), 40_000, given, **values)


def generated(seed: int, place: Path, sequence: int = 64, times: int = 1) -> ExportSpec:
    """Two to twelve domains, some of a few sequences, repeated up to four times."""
    rng = np.random.default_rng(seed)
    number = int(rng.integers(2, 13))
    weights = 10 ** (-rng.choice([0, 1.5, 2.5]) * rng.random(number))
    weights /= weights.sum()
    tokens = sequence * int(rng.integers(200, 3000)) * times
    epochs = rng.choice([0.3, 1.0, 2.5, 4.0], number)
    sizes = [max(sequence, math.ceil(w * tokens / e)) for w, e in zip(weights, epochs, strict=True)]
    domains = DomainSet(
        tuple(
            Domain(f"d{i}", size, 4 * size, f"d{i}", max(1, size // int(rng.integers(20, 90))))
            for i, size in enumerate(sizes)
        )
    )
    paths = {d.name: (str(place / d.name),) for d in domains}
    stage = Stage(tuple(weights.tolist()))
    return ExportSpec(
        "s", domains, (stage,), tokens, paths, seed, sequence, int(rng.choice([1, 4, 16]))
    )


def exported(name: str, given: ExportSpec, **options: object) -> dict[str, str] | None:
    """The files, or None where the export is refused."""
    try:
        return export.render_export(export.build_format(name, options), given)
    except ExportError:
        return None


def hold(drawn: dict[str, float], given: ExportSpec) -> None:
    """Tokens by domain are within a hundredth of those recommended, or one sequence."""
    for name, want in given.wanted.items():
        allowed = max(0.01 * want, given.sequence or 0)
        assert drawn.get(name, 0) > 0, f"{name} is lost"
        assert abs(drawn[name] - want) <= allowed + 1, (name, drawn[name], want)


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
    """Catches probabilities of tokens, numbers drawn at random, and a stream that ends early."""
    files = export.render_export(export.build_format("huggingface"), blend(documents))
    stream = load(files["mixture.py"], tmp_path, "hf_mixture").build(buffer_size=10)
    rows = [row["text"] for row in stream]
    drawn = Counter(row.split()[0] for row in rows)
    assert drawn == {"web": 200, "code": 60, "chat": 400}  # 20,000, 12,000 and 8,000 tokens
    assert max(Counter(r for r in rows if "code" in r).values()) == 2
    assert len(set(rows[:200])) > 150 and {r.split()[0] for r in rows[:100]} == set(drawn)


def test_datasets_reads_documents_fields_and_folders_as_the_study_did(tmp_path):
    """Catches lines of text files for documents (2 % for 50 %), one column, and guessed splits."""
    (tmp_path / "docs" / "sub").mkdir(parents=True)
    for i in range(40):
        place = tmp_path / "docs" / ("sub" if i % 2 else "") / f"test-{i}.txt"
        place.write_text("".join(f"docs {i} line {j}\n" for j in range(30)))
    table = pa.table({"content": pa.array([f"code {i}" for i in range(50)], pa.large_string())})
    pq.write_table(table, tmp_path / "[code] & C++.parquet")
    (tmp_path / "docs" / "test-blank.txt").write_text(" \n")  # which no study counts
    (tmp_path / "fortunes.txt").write_text("\n%\n".join(f"chat {i}\n\nx" for i in range(400)))
    domains = DomainSet(
        (
            Domain("docs", 40_000, 160_000, "d", 40),
            Domain("code", 10_000, 40_000, "c", 50),
            Domain("chat", 8_000, 32_000, "h", 400),
        )
    )
    paths = {"docs": str(tmp_path / "docs"), "code": str(tmp_path / "[code] & C++.parquet")}
    given = ExportSpec(
        "s", domains, (Stage((0.5, 0.3, 0.2)),), 40_000,
        {n: (p,) for n, p in {**paths, "chat": str(tmp_path / "fortunes.txt")}.items()},
        sources={
            "code": StudiedText(Files((), "content")),
            "chat": StudiedText(Files((), separator="\n%\n")),
        },
    )  # fmt: skip
    files = export.render_export(export.build_format("huggingface"), given)
    rows = [row["text"] for row in load(files["mixture.py"], tmp_path, "hf_read").build(50)]
    assert Counter(row.split()[0] for row in rows) == {"docs": 20, "code": 60, "chat": 400}
    assert all(row.count("\n") == 30 for row in rows if row.startswith("docs"))
    assert {row.count("%") for row in rows} == {0}


def test_datasets_reads_what_the_study_read_whatever_files_are_called(tmp_path):
    """Catches an export that knows nothing of `a.b`, `glob`, `format` or a data set's config, and
    a file beside the study's own, which a pattern takes along."""
    code, logs = tmp_path / "code", tmp_path / "logs"
    for folder in (code / "deep", logs, tmp_path / "set"):
        folder.mkdir(parents=True)
    for i in range(30):
        (code / ("deep" if i % 2 else "") / f"{i}.rs").write_text(f"code {i}\nlet\n")
        rows = [{"meta": {"body": f"logs {i} {k}"}, "text": 5} for k in range(10)]
        (logs / f"{i}.out").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (code / "notes.txt").write_text("notes")
    (logs / "_SUCCESS").write_text("")
    (tmp_path / "set" / "README.md").write_text(
        "---\nconfigs:\n- config_name: en\n  data_files: [{split: held, path: en.jsonl}]\n"
        "- config_name: de\n  data_files: de.jsonl\n---\n"
    )
    for name in ("en", "de"):
        rows = [json.dumps({"text": f"{name} {i}"}) for i in range(200)]
        (tmp_path / "set" / f"{name}.jsonl").write_text("\n".join(rows))
    held = {"path": str(tmp_path / "set"), "name": "en", "split": "held"}
    studied = {
        "web": StudiedText(Files(str(logs), "meta.body", format="jsonl"), own=True),
        "code": StudiedText(Files(str(code), glob=("*.rs",)), own=True),
        "chat": StudiedText(Files(dataset_files(held["path"], "en", "held", None)), True, held),
    }
    given = blend({"web": str(logs), "code": str(code), "chat": held["path"]}, sources=studied)
    files = export.render_export(export.build_format("huggingface"), given)
    module = load(files["mixture.py"], tmp_path, "hf_named")
    for at, name in enumerate(module.DOMAINS):
        part = module._documents(module.SOURCES[at], module.FIELDS[at], module.SEPARATORS[at])
        read = sorted(document.text for document in studied[name].files.documents())
        assert sorted(row["text"] for row in part) == read and len(read) in (30, 200, 300)


@pytest.mark.trainers
@pytest.mark.parametrize("seed", SEEDS)
def test_megatron_core_builds_and_draws_the_blend(tmp_path, seed, monkeypatch):
    """Catches a list of paths alone, a split that breaks caps, and a blend that oversamples."""
    utils = library("megatron-core", "megatron.core.datasets.utils")
    indexed = importlib.import_module("megatron.core.datasets.indexed_dataset")
    gpt = importlib.import_module("megatron.core.datasets.gpt_dataset")
    builder = importlib.import_module("megatron.core.datasets.blended_megatron_dataset_builder")
    given = generated(seed, tmp_path)
    if not (files := exported("megatron", given)):
        pytest.skip("refused")
    for domain in given.domains:
        prefix = given.path(domain.name)
        made = indexed.IndexedDatasetBuilder(f"{prefix}.bin", dtype=np.uint16)
        parts = np.array_split(np.zeros(domain.tokens, np.uint16), domain.documents)
        for part in parts:
            made.add_document(part.tolist(), [len(part)])
        made.finalize(f"{prefix}.idx")
    words = files["arguments.txt"].split()
    flags = dict(zip(words[::2], words[1::2], strict=True))
    samples, prefixes = (
        int(flags["--train-samples"]),
        utils.get_blend_from_list(files["blend.txt"].split()),
    )
    common = {
        "random_seed": int(flags["--seed"]), "sequence_length": int(flags["--seq-length"]),
        "reset_position_ids": False, "reset_attention_mask": False, "eod_mask_loss": False,
        "mmap_bin_files": True, "path_to_cache": str(tmp_path / "cache"),
        "tokenizer": type("T", (), {"vocab_size": 512, "eod": 0, "unique_identifiers": {}})(),
    }  # fmt: skip
    config = gpt.GPTDatasetConfig(blend=prefixes, split=flags["--split"], **common)
    build = builder.BlendedMegatronDatasetBuilder
    monkeypatch.setattr("torch.distributed.get_rank", lambda *_: 0)  # who writes the cache
    train, *_ = build(gpt.GPTDataset, [samples, 0, 0], lambda: True, config).build()
    drawn = np.bincount(train.dataset_index[:samples], minlength=len(prefixes[0]))
    names = [Path(prefix).name for prefix in prefixes[0]]
    counts = {n: int(c) * given.sequence for n, c in zip(names, drawn, strict=True)}
    hold(counts, given)
    (tmp_path / "log").write_text(f" iteration 1/ 1 | consumed samples: {samples:12d} |\n")
    [index] = (tmp_path / "cache").glob("*-BlendedDataset-train-dataset_index.npy")
    read = read_drawn_tokens([index, tmp_path / "log"], given)
    assert read.points[-1] == counts
    first, second = list(given.shares)[:2]
    apart = {name: given.paths[name] for name in (first, second)}
    held = dataclasses.replace(given, validation=apart)
    splits = json.loads(exported("megatron", held)["blend.json"])
    both = [utils.get_blend_from_list(splits[name]) for name in ("train", "valid", "test")]
    config = gpt.GPTDatasetConfig(
        blend_per_split=both, multiple_validation_sets=True, full_validation=True, **common
    )
    again, sets, _ = build(gpt.GPTDataset, [samples, None, 0], lambda: True, config).build()
    assert (again.dataset_index == train.dataset_index).all()
    assert [one.dataset_path for one in sets] == [given.path(first), given.path(second)]


@pytest.mark.trainers
@pytest.mark.parametrize("seed", SEEDS)
def test_ai2_olmo_core_builds_the_mixture(tmp_path, seed):
    """Catches ratios and repeats that OLMo-core refuses, and what many small files lose."""
    source = library("ai2-olmo-core", "olmo_core.data.source_mixture")
    data = importlib.import_module("olmo_core.data.types")
    given, rng = generated(seed, tmp_path, times=20), np.random.default_rng(seed)
    for domain in given.domains:
        number = int(rng.integers(1, 6))
        (tmp_path / domain.name).mkdir()
        for i, part in enumerate(np.array_split(np.zeros(domain.tokens, np.uint16), number)):
            file = tmp_path / domain.name / f"{i}.npy"
            np.memmap(file, dtype=np.uint16, mode="w+", shape=part.shape).flush()
        given.paths[domain.name] = (f"{tmp_path}/{domain.name}/*.npy",)
    if not (files := exported("olmo_core", given)):
        pytest.skip("refused")
    (tmp_path / "sources.yaml").write_text(files["sources.yaml"])
    (tmp_path / "dataset.yaml").write_text(files["dataset.yaml"])
    alone = source.SourceMixtureList.from_yaml(str(tmp_path / "sources.yaml"))
    alone.validate()
    whole = source.SourceMixtureDatasetConfig.from_yaml(str(tmp_path / "dataset.yaml"))
    assert whole.source_list == alone
    whole.render_tables = False
    kind = data.NumpyDatasetDType.uint16.as_np_dtype()
    mixture = whole.build(npdtype=kind, sequence_length=given.sequence)
    hold({s.name: sum(p.tokens for p in s.path_tokens) for s in mixture.sources}, given)
    held = dataclasses.replace(given, validation=given.paths)
    asked = yaml.safe_load(exported("olmo_core", held)["validation.yaml"])
    tokenizer = importlib.import_module("olmo_core.data").TokenizerConfig.gpt2()
    numpy_dataset = importlib.import_module("olmo_core.data.numpy_dataset")
    sets = numpy_dataset.NumpyPaddedFSLDatasetConfig(
        **asked, sequence_length=given.sequence, tokenizer=tokenizer, work_dir=str(tmp_path)
    ).build()
    labels = [about["label"] for about in sets.metadata]
    assert labels == [Path(path).parent.name for path in map(str, sets.paths)]


@pytest.mark.trainers
@pytest.mark.parametrize("seed", SEEDS)
def test_mosaicml_streaming_apportions_the_samples(tmp_path, seed):
    """Catches streams of mixed kinds, an epoch that is not the run, samples lost by a seed."""
    streaming = library("mosaicml-streaming", "streaming.base.stream")
    given = generated(seed, tmp_path)
    if not (files := exported("mosaic", given, split="train")):
        pytest.skip("refused")
    data = yaml.safe_load(files["streams.yaml"])["train_loader"]["dataset"]
    streams = [streaming.Stream(**values) for values in data["streams"].values()]
    there = np.array([d.tokens // given.sequence for d in given.domains])
    total = streaming.Stream.apply_weights(streams, there, data["epoch_size"], data["shuffle_seed"])
    assert total == given.tokens // given.sequence
    chosen = zip(data["streams"], streams, strict=True)
    hold({name: int(stream.choose) * given.sequence for name, stream in chosen}, given)
    held = dataclasses.replace(given, validation=given.paths)
    for one in yaml.safe_load(exported("mosaic", held, split="train")["streams.yaml"])[
        "eval_loader"
    ]:
        [values] = one["dataset"]["streams"].values()
        assert Path(streaming.Stream(**values).local).name == one["label"]


@pytest.mark.trainers
@pytest.mark.parametrize("seed", SEEDS)
def test_litdata_streams_the_shares_to_the_end_of_the_run(tmp_path, seed):
    """Catches weights that LitData refuses, random draws, and a stream that ends early."""
    litdata = library("litdata", "litdata")
    given = generated(seed, tmp_path)
    if not (files := exported("litdata", given)):
        pytest.skip("refused")
    for domain in given.domains:
        writer = litdata.streaming.writer.BinaryWriter(given.path(domain.name), chunk_size=50)
        for i in range(domain.tokens // given.sequence):
            writer.add_item(i, [domain.name, i])
        writer.done()
        writer.merge()
    stream = load(files["mixture.py"], tmp_path, "lit_mixture").build()
    samples = [name for name, _ in islice(iter(stream), given.tokens // given.sequence)]
    assert len(samples) == given.tokens // given.sequence, "the stream ended early"
    hold({name: n * given.sequence for name, n in Counter(samples).items()}, given)


class Characters:
    """A tokenizer of torchtitan's interface: a token a character, and two around."""

    def encode(self, words, add_bos, add_eos):
        return [1, *(ord(letter) for letter in words), 2]


@pytest.mark.trainers
def test_torchtitan_interleaves_the_sources(tmp_path, caplog):
    """Catches names that torchtitan does not know, draws at random, and lines for documents."""
    library("torchtitan", "torchtitan.hf_datasets.text_datasets")
    (tmp_path / "docs").mkdir()
    for i in range(50):
        (tmp_path / "docs" / f"{i}.txt").write_text("ccc\nc" * 40)
    for name, letter in (("web", "w"), ("chat", "h")):
        rows = [json.dumps({"body": letter * 50}) for _ in range(200)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(rows) + "\n")
    paths = {"web": "web.jsonl", "code": "docs", "chat": "chat.jsonl"}
    given = blend(
        {name: str(tmp_path / path) for name, path in paths.items()},
        sources=dict.fromkeys(("web", "chat"), StudiedText(Files((), "body"))),
    )
    files = export.render_export(export.build_format("torchtitan"), given)
    code = files["data_config.py"].replace("EVERY = 1000", "EVERY = 100")
    config = load(code, tmp_path, "titan_mixture").DATALOADER
    caplog.set_level("INFO")
    assert [s.dataset for s in config.sources] == ["s/web", "s/code", "s/chat"]
    assert [s.weight for s in config.sources] == [0.5, 0.3, 0.2]
    loader = config.build(
        dp_world_size=1, dp_rank=0, tokenizer=Characters(), seq_len=16, local_batch_size=1
    )
    letters = {"w": "web", "c": "code", "h": "chat"}
    drawn: Counter[str] = Counter()
    for inputs, _ in islice(_samples(loader), 400):
        found = {letters[chr(i)] for i in inputs["input"].flatten().tolist() if chr(i) in letters}
        drawn[found.pop()] += 1
        assert not found, "sources are packed each alone"
    assert drawn == {"web": 200, "code": 120, "chat": 80}  # code's documents were begun anew
    (tmp_path / "log").write_text("".join(f"[titan] {line}\n" for line in caplog.messages))
    assert compare_drawn(given, read_drawn_tokens([tmp_path / "log"], given)).differences == ()
    held = dataclasses.replace(given, validation={"web": given.paths["web"]})
    asked = export.render_export(export.build_format("torchtitan"), held)["data_config.py"]
    validation = (
        load(asked, tmp_path, "titan_validation")
        .VALIDATION["s/web/validation"]
        .build(dp_world_size=1, dp_rank=0, tokenizer=Characters(), seq_len=16, local_batch_size=1)
    )
    assert len(list(validation)) == 200 * 51 // 16, "the set ends after one reading"


def _samples(loader) -> Iterator:
    yield from loader


@pytest.mark.trainers
def test_axolotl_takes_every_entry_and_its_slice(documents):
    """Catches fields that Axolotl's schema does not know and would drop in silence."""
    schemas = library("axolotl", "axolotl.utils.schemas.datasets")
    from datasets import load_dataset

    files = export.render_export(export.build_format("axolotl"), blend(documents))
    given = yaml.safe_load(files["datasets.yaml"])["datasets"]
    drawn: Counter[str] = Counter()
    for entry in given:
        checked = schemas.SFTDataset.model_validate(entry)
        kept = checked.model_dump(exclude_unset=True)
        assert {name: kept[name] for name in entry} == entry
        rows = load_dataset(checked.ds_type, data_files=checked.path, split=checked.split)
        drawn[Path(checked.path).stem] += len(rows)
    assert drawn == {"web": 200, "code": 60, "chat": 400}
    held = dataclasses.replace(blend(documents), validation={"web": (documents["web"],)})
    files = export.render_export(export.build_format("axolotl"), held)
    [entry] = yaml.safe_load(files["datasets.yaml"])["test_datasets"]
    kept = schemas.SFTDataset.model_validate(entry).model_dump(exclude_unset=True)
    assert {name: kept[name] for name in entry} == entry


@pytest.mark.trainers
def test_nanotron_s_own_dataclass_takes_the_lists():
    """Catches a mapping of folders to weights, which older documentation shows."""
    try:
        config = importlib.import_module("nanotron.config")
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"nanotron cannot be imported ({error}): held to its grammar alone")
    if not hasattr(config, "NanosetDatasetsArgs"):
        pytest.skip("the nanotron of the package index is older than Nanosets: its grammar alone")
    files = export.render_export(
        export.build_format("nanotron"),
        blend({n: f"/none/{n}" for n in WANT}, sequence=None, batch=None),
    )
    stage = yaml.safe_load(files["data_stages.yaml"])["data_stages"][0]
    made = config.NanosetDatasetsArgs(**stage["data"]["dataset"])
    assert made.dataset_weights == [0.5, 0.3, 0.2]


@pytest.mark.trainers
def test_llamafactory_loads_every_entry(documents, tmp_path):
    """Catches columns that LLaMA-Factory does not read, and rows drawn more often than passes."""
    loader = library("llamafactory", "llamafactory.data.loader")
    given = blend(documents, sources=dict.fromkeys(documents, StudiedText(Files((), "text"))))
    files = export.render_export(export.build_format("llama_factory"), given)
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    train = yaml.safe_load(files["train.yaml"])
    asked = {"streaming": False, "preprocessing_num_workers": None, "max_samples": None}
    data = SimpleNamespace(dataset_dir=str(tmp_path), overwrite_cache=True, **asked)
    model, training = SimpleNamespace(), SimpleNamespace(local_process_index=0)
    model.cache_dir, model.hf_hub_token = str(tmp_path / "cache"), None
    rows = [
        example["_prompt"][0]["content"]
        for one in loader.get_dataset_list(train["dataset"].split(","), data.dataset_dir)
        for example in loader._load_single_dataset(one, model, data, training)
    ]
    assert Counter(row.split()[0] for row in rows) == {"web": 200, "code": 60, "chat": 400}
    assert max(Counter(rows).values()) == 2 and len(set(rows)) == 650


@pytest.mark.trainers
def test_ms_swift_loads_the_numbers_of_rows(documents, tmp_path, monkeypatch):
    """Catches a syntax that ms-swift takes for a data set of a hub, and text it does not find."""
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "cache"))
    loader = library("ms-swift", "swift.dataset.loader")
    given = blend(documents, sources=dict.fromkeys(documents, StudiedText(Files((), "text"))))
    files = export.render_export(export.build_format("ms_swift"), given)
    arguments = yaml.safe_load(files["arguments.yaml"])
    train, held = loader.load_dataset(
        arguments["dataset"],
        columns=json.loads(arguments["columns"]),
        seed=arguments["data_seed"],
        split_dataset_ratio=arguments["split_dataset_ratio"],
        load_from_cache_file=False,
    )
    rows = [row["messages"][-1]["content"] for row in train]
    assert Counter(row.split()[0] for row in rows) == {"web": 200, "code": 60, "chat": 400}
    assert held is None and max(Counter(rows).values()) == 2
