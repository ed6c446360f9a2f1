"""Readers of exports: a trainer's documented grammar each, no code shared with the writers.

Each gives the tokens of every domain that the trainer delivers over the whole budget, and fails
where the trainer would: at a sum, a name or a length that it refuses, or where its stream ends.
"""

import ast
import csv
import dataclasses
import functools
import io
import json
import math
import re

import numpy as np
import yaml

from cuvee.mixtures.domains import Domain, DomainSet
from cuvee.mixtures.runs.run_spec import Stage
from cuvee.tasks.export import ExportSpec

TOKENS, SEQUENCE, BATCH = 40_960_000, 512, 16
DOMAINS = DomainSet(
    (
        Domain("web", 30_000_000, 120_000_000, "id-web", 60_000),  # 500 tokens a document
        Domain("code", 8_000_000, 24_000_000, "id-code", 2_000),  # 4,000
        Domain("unused", 5_000_000, 20_000_000, "id-unused", 100),
        Domain("chat: short", 4_096_000, 16_000_000, "id-chat", 81_920),  # 50
    )
)
PATHS = {
    "web": ("/data/web.jsonl",),
    "code": ("/data/code.jsonl",),
    "chat: short": ("/data/chat.jsonl",),
}
FIXED = ExportSpec(
    "study", DOMAINS, (Stage((0.5, 0.3, 0.0, 0.2)),), TOKENS, PATHS, 7, SEQUENCE, BATCH
)  # epochs 0.68, 1.54, 0, 2
STAGED = dataclasses.replace(
    FIXED,
    stages=(Stage((0.6, 0.3, 0.0, 0.1), 0.75), Stage((0.2, 0.3, 0.0, 0.5), 0.25)),
)
Counts = dict[str, float]


def once(blend: ExportSpec) -> ExportSpec:
    """The blend at a budget at which no domain repeats."""
    return dataclasses.replace(blend, tokens=blend.tokens // 4)


def by_path(blend: ExportSpec, path: str) -> str:
    return next(name for name, given in blend.paths.items() if path in given)


def length(blend: ExportSpec) -> Counts:
    return {d.name: d.tokens / d.documents for d in blend.domains}


def exist(blend: ExportSpec) -> Counts:
    return {d.name: d.tokens for d in blend.domains}


def constants(source: str) -> dict:
    """Assigned literals of a module, without running it."""
    found = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            try:
                found[node.targets[0].id] = ast.literal_eval(node.value)
            except ValueError:
                continue  # an expression, not a constant
    return found


def dealt_greedily(weights: list[float], samples: int) -> np.ndarray:
    """How Megatron and nanotron deal out samples: each to the part that lags most."""
    return _dealt_greedily(tuple(weights), samples)


@functools.cache
def _dealt_greedily(weights: tuple[float, ...], samples: int) -> np.ndarray:
    shares, drawn = np.array(weights) / sum(weights), np.zeros(len(weights))
    for i in range(samples):
        drawn[np.argmax(shares * max(i, 1) - drawn)] += 1
    return drawn


def flags(text: str) -> dict[str, str]:
    return {name: value for name, _, value in (line.partition(" ") for line in text.splitlines())}


def megatron(files: dict[str, str], blend: ExportSpec) -> Counts:
    if len(blend.stages) == 1:
        given = flags(files["arguments.txt"])
        return megatron_phase(files, blend, "", int(given["--train-samples"]))
    drawn: Counts = {}
    given = flags(files["arguments-1.txt"])
    batch = int(given["--global-batch-size"])
    ends = [
        *map(int, given["--phase-transition-iterations"].split(",")),
        int(given["--train-samples"]) // batch,
    ]
    for number, (start, end) in enumerate(zip([0, *ends], ends, strict=False), start=1):
        part = megatron_phase(files, blend, f"-{number}", (end - start) * batch)
        drawn = {name: drawn.get(name, 0) + part.get(name, 0) for name in {**drawn, **part}}
    return drawn


def megatron_phase(files: dict[str, str], blend: ExportSpec, suffix: str, samples: int) -> Counts:
    given = flags(files[f"arguments{suffix}.txt"])
    nemo = yaml.safe_load(files[f"nemo{suffix}.yaml"])["dataset"]
    if blend.validation:
        splits = json.loads(files[given["--per-split-data-args-path"]])
        words, held = splits["train"], splits["valid"]
        assert held == [path for paths in blend.validation.values() for path in paths]
        assert ("--multiple-validation-sets" in given) == (len(held) > 1), "a list is expected"
        assert nemo["paths"] == {"train": words, "validation": held, "test": held}
        assert "--split" not in given and splits["test"] is None, "asserted to be incompatible"
    else:
        words = files[given["--data-args-path"]].split()
        assert nemo["paths"] == words
        for split in (given["--split"], nemo["split"]):
            parts = [float(x) > 0 for x in split.split(",")]
            assert parts == [True, False, False], "caps are broken"
    weights, prefixes = [float(w) for w in words[::2]], words[1::2]
    assert all(w > 0 for w in weights), "Megatron-LM asserts that every weight is above zero"
    planned = [math.ceil(samples * w / sum(weights)) for w in weights]
    drawn = np.array(weights) / sum(weights) * samples
    if samples <= 20_000:
        drawn = dealt_greedily(weights, samples)
        indexed = [math.ceil(count * 1.005) for count in planned]
        assert (dealt_greedily(weights, sum(planned)) <= indexed).all(), "the blend oversamples"
    pairs = zip(prefixes, drawn, strict=True)
    return {by_path(blend, prefix): count * (blend.sequence or 1) for prefix, count in pairs}


def olmo_core(files: dict[str, str], blend: ExportSpec) -> Counts:
    config = yaml.safe_load(files["dataset.yaml"])
    sources, requested = config["source_list"]["sources"], config["requested_tokens"]
    assert yaml.safe_load(files["sources.yaml"])["sources"] == sources
    assert math.isclose(sum(s["target_ratio"] for s in sources), 1, abs_tol=1e-8)
    entries, size = [], blend.sequence or 1
    for source in sources:
        name, ratio = source["source_name"], source["target_ratio"]
        assert by_path(blend, source["paths"][0]) == name and ratio > 0
        assert source["max_repetition_ratio"] >= 1
        there, paths = exist(blend)[name], len(source["paths"])
        needed = int(requested * ratio)
        assert needed <= int(there * source["max_repetition_ratio"]), "runs short"
        left, each = needed / there, there // paths
        while left > 0:
            tokens = math.ceil(each * min(1.0, left))
            left -= min(1.0, left)
            entry = (name, min(tokens, each) // size, each // size, tokens % size)
            entries += [list(entry) for _ in range(paths)]
    total = math.ceil(requested / config["global_batch_size"]) * config["global_batch_size"] // size
    short = total - sum(e[1] for e in entries)
    open_ones = [e for e in entries if e[1] < e[2]]
    if short > 0 and open_ones:
        for entry in open_ones:
            entry[1] += min(short // len(open_ones), entry[2] - entry[1])
        short = total - sum(e[1] for e in entries)
        for entry in sorted((e for e in open_ones if e[1] < e[2]), key=lambda e: -e[3])[:short]:
            entry[1] += 1
    drawn = dict.fromkeys(blend.shares, 0.0)
    for name, count, _, _ in entries:
        drawn[name] += count * size
    return drawn


def mosaic(files: dict[str, str], blend: ExportSpec, documents: bool = False) -> Counts:
    """Its train loader, and the mixtures that the curriculum puts in its place."""
    given = yaml.safe_load(files["streams.yaml"])
    loader = given["train_loader"]["dataset"]
    if "callbacks" not in given:
        return mosaic_epoch(loader, blend, documents)
    changes, drawn, whole = given["callbacks"]["curriculum_learning"], {}, 0
    for mix in ({**changes, "dataset": loader}, *changes["schedule"]):
        length = int(mix["duration"].removesuffix("tok"))
        data = {**loader, **mix["dataset"]}
        assert data["epoch_size"] * (blend.sequence or 1) == length > 0
        part, whole = mosaic_epoch(data, blend, documents), whole + length
        drawn = {name: drawn.get(name, 0) + part.get(name, 0) for name in {**drawn, **part}}
    assert given["max_duration"] == f"{whole}tok", "the callback refuses other sums"
    return drawn


def mosaic_epoch(data: dict, blend: ExportSpec, documents: bool) -> Counts:
    names = list(data["streams"])
    for name, stream in data["streams"].items():
        assert by_path(blend, stream.get("remote") or stream["local"]) == name
    proportions = np.array([data["streams"][name]["proportion"] for name in names])
    chosen = (data["epoch_size"] * proportions / proportions.sum()).astype(np.int64)
    short = data["epoch_size"] - chosen.sum()
    chosen[np.random.default_rng(data["shuffle_seed"]).choice(len(names), short, False)] += 1
    unit = length(blend) if documents else dict.fromkeys(names, blend.sequence or 1)
    return {name: int(count) * unit[name] for name, count in zip(names, chosen, strict=True)}


def huggingface(files: dict[str, str], blend: ExportSpec) -> Counts:
    given = constants(files["mixture.py"])
    assert math.isclose(sum(given["PROBABILITIES"]), 1, abs_tol=1e-9)
    assert sum(given["COUNTS"]) == given["DOCUMENTS"]
    places = [by_path(blend, source["data_files"][0]) for source in given["SOURCES"]]
    assert places == given["DOMAINS"]
    return {name: n * length(blend)[name] for name, n in zip(places, given["COUNTS"], strict=True)}


def litdata(files: dict[str, str], blend: ExportSpec) -> Counts:
    given, size = constants(files["mixture.py"]), blend.sequence or 1
    samples = blend.tokens // size
    drawn: Counts = {}
    for path, weight in zip(given["PATHS"], given["WEIGHTS"], strict=True):
        name = by_path(blend, path)
        drawn[name] = drawn.get(name, 0) + samples * weight / sum(given["WEIGHTS"])
    for name, count in drawn.items():
        copies = given["DOMAINS"].count(name)
        assert math.ceil(count - 1e-6) <= copies * (exist(blend)[name] // size), "it ends early"
    return {name: round(count) * size for name, count in drawn.items()}


def levanter(files: dict[str, str], blend: ExportSpec) -> Counts:
    data = yaml.safe_load(files["data.yaml"])["data"]
    weights, block = data["train_weights"], data["mixture_block_size"]
    assert block < 2**16 and data["stop_strategy"] == "restart"
    stages = [[0, weights]] if isinstance(weights, dict) else weights
    starts = [step * (blend.batch or 1) for step, _ in stages]  # the configuration counts steps
    ends = [*starts[1:], blend.tokens // (blend.sequence or 1)]
    drawn: Counts = {}
    for (_, shares), start, end in zip(stages, starts, ends, strict=True):
        assert start % block == 0 and start < end
        total = sum(shares.values())
        parts = {name: int(block * (share / total)) for name, share in shares.items()}
        parts[max(parts, key=parts.__getitem__)] += block - sum(parts.values())
        ids = np.repeat(np.arange(len(parts)), list(parts.values()))
        last = np.random.default_rng(blend.seed).permutation(ids)[: (end - start) % block]
        for i, (name, count) in enumerate(parts.items()):
            assert name in data["components"] and count > 0
            seen = (end - start) // block * count + int((last == i).sum())
            drawn[name] = drawn.get(name, 0) + seen * (blend.sequence or 1)
    return drawn


def nanotron(files: dict[str, str], blend: ExportSpec, seed: int | None = None) -> Counts:
    """Its own index where a seed is given; else what it draws on average."""
    stages = yaml.safe_load(files["data_stages.yaml"])["data_stages"]
    step = (blend.sequence or 1) * (blend.batch or 1)
    starts = [stage["start_training_step"] for stage in stages]
    assert starts[0] == 1 and starts == sorted(set(starts))
    ends = [*starts[1:], blend.tokens // step + 1]
    drawn: Counts = {}
    for stage, end in zip(stages, ends, strict=True):
        data = stage["data"]["dataset"]
        names = [by_path(blend, folder) for folder in data["dataset_folder"]]
        samples = (end - stage["start_training_step"]) * (blend.batch or 1)
        indexed = sum(exist(blend)[name] // (blend.sequence or 1) for name in names)
        weights = np.array(data["dataset_weights"]) / sum(data["dataset_weights"])
        counts = weights * samples
        if seed is not None:
            index = np.repeat(
                np.arange(len(names)), dealt_greedily(list(weights), indexed).astype(int)
            )
            np.random.RandomState(seed).shuffle(index)
            read = np.concatenate([index] * (samples // indexed + 1))[:samples]
            counts = np.bincount(read, minlength=len(names))
        for name, count in zip(names, counts, strict=True):
            drawn[name] = drawn.get(name, 0) + count * (blend.sequence or 1)
    return drawn


def torchtitan(files: dict[str, str], blend: ExportSpec) -> Counts:
    given = constants(files["data_config.py"])
    weights, sources = given["WEIGHTS"], given["SOURCES"]
    sources = {name: source for name, source in sources.items() if name not in given["HELD_OUT"]}
    assert list(weights) == list(sources) == list(given["FIELDS"])[: len(weights)]
    assert all(name == name.lower() for name in weights)
    assert all(weight > 0 for weight in weights.values())
    samples, size = blend.tokens // (blend.sequence or 1), blend.sequence or 1
    names = {label: by_path(blend, source["data_files"][0]) for label, source in sources.items()}
    total = sum(weights.values())
    return {names[n]: round(samples * w / total) * size for n, w in weights.items()}


def axolotl(files: dict[str, str], blend: ExportSpec) -> Counts:
    given = yaml.safe_load(files["datasets.yaml"])
    assert given["num_epochs"] == 1 and given["val_set_size"] == 0
    documents = {d.name: d.documents for d in blend.domains}
    drawn: Counts = {}
    for entry in given["datasets"]:
        name = by_path(blend, entry["path"])
        part = re.fullmatch(r"train\[:(\d+)\]", entry["split"])
        assert 0 < int(part[1]) <= documents[name] and entry["ds_type"] != "text"
        drawn[name] = drawn.get(name, 0) + int(part[1]) * length(blend)[name]
    return drawn


def megatron_bridge(files: dict[str, str], blend: ExportSpec) -> Counts:
    given = yaml.safe_load(files["dataset.yaml"])
    data, documents = given["dataset"], {d.name: d.documents for d in blend.domains}
    assert data["do_validation"] is data["do_test"] is False, "a blend has no split of its own"
    assert len(data["source"]) == len(data["source_weights"])
    drawn: Counts = {}
    for source, weight in zip(data["source"], data["source_weights"], strict=True):
        assert weight > 0 and not {"path", "name", "split"} & set(source["load_kwargs"])
        name = by_path(blend, source["load_kwargs"]["data_files"][0])
        assert source["path_or_dataset"] == "json" and source["split"] == "train"
        rows, passes = documents[name], int(weight)
        drawn[name] = rows * passes + round(rows * (weight - passes))
    assert given["train"]["train_samples"] == sum(drawn.values()), "the run is one pass"
    return {name: rows * length(blend)[name] for name, rows in drawn.items()}


def automodel(files: dict[str, str], blend: ExportSpec) -> Counts:
    given = yaml.safe_load(files["dataset.yaml"])["dataset"]
    words, samples = given["paths"], given["num_train_samples"]
    if isinstance(words, dict):
        assert set(words) == {"train", "validation", "test"} and "split" not in given
        assert not any(is_number(word) for word in words["validation"]), "no weights there"
        words = words["train"]
    else:
        assert given["splits_to_build"] == "train" and given["split"] == "100,0,0"
    assert samples % given["global_batch_size"] == 0
    weights = [float(word) for word in words[::2]]
    drawn = np.array(weights) / sum(weights) * samples
    if samples <= 20_000:
        drawn = dealt_greedily(weights, samples)
    names = [by_path(blend, prefix) for prefix in words[1::2]]
    return {name: n * given["seq_length"] for name, n in zip(names, drawn, strict=True)}


def is_number(word: str) -> bool:
    return word.replace(".", "", 1).isdigit()


def llama_factory(files: dict[str, str], blend: ExportSpec) -> Counts:
    described = json.loads(files["dataset_info.json"])
    given = yaml.safe_load(files["train.yaml"])
    assert (given["stage"], given["mix_strategy"]) == ("pt", "concat") and given["val_size"] == 0
    names = given["dataset"].split(",")
    assert sorted(names) == sorted(described) and given["num_train_epochs"] == 1
    drawn: Counts = {}
    for entry in (described[name] for name in names):
        name = by_path(blend, entry["file_name"])
        ending = entry["file_name"].split(".")[-1]
        assert ending in ("arrow", "csv", "json", "jsonl", "parquet") and entry["columns"]["prompt"]
        rows = next(d.documents for d in blend.domains if d.name == name)
        assert 0 < entry["num_samples"] <= rows, "the others would be drawn with replacement"
        drawn[name] = drawn.get(name, 0) + entry["num_samples"] * length(blend)[name]
    return drawn


def ms_swift(files: dict[str, str], blend: ExportSpec) -> Counts:
    given = yaml.safe_load(files["arguments.yaml"])
    assert given["split_dataset_ratio"] == 0 and given["num_train_epochs"] == 1
    assert set(json.loads(given["columns"]).values()) == {"response"}
    drawn: Counts = {}
    for entry in given["dataset"]:
        path, count = entry.rsplit("#", 1)
        assert "::" not in path and path.startswith("/"), "else it is a data set of the Hub"
        name = by_path(blend, path)
        drawn[name] = int(count) * length(blend)[name]
    assert len(drawn) == len(given["dataset"])
    return drawn


def energon(files: dict[str, str], blend: ExportSpec) -> Counts:
    given = yaml.safe_load(files["metadataset.yaml"])
    assert (given["__module__"], given["__class__"]) == ("megatron.energon", "MetadatasetV2")
    drawn, size = {}, blend.sequence or 1
    for entry in given["splits"]["train"]["blend_epochized"]:
        name = by_path(blend, entry["path"])
        drawn[name] = int(entry["repetitions"] * (exist(blend)[name] // size) + 1e-6) * size
    return drawn


def maxtext(files: dict[str, str], blend: ExportSpec) -> Counts:
    mixture, given = json.loads(files["mixture.json"]), yaml.safe_load(files["maxtext.yml"])
    assert given["grain_train_mixture_config_path"] == "mixture.json"
    total = sum(entry["weight"] for entry in mixture.values())
    parts = {by_path(blend, e["path"]): e["weight"] / total for e in mixture.values()}
    each = sum(share * length(blend)[name] for name, share in parts.items())
    rows = {name: share * blend.tokens / each for name, share in parts.items()}
    for name, count in rows.items():
        there = next(d.documents for d in blend.domains if d.name == name)
        assert count <= given["num_epoch"] * there, "the mixture ends with the first that ends"
    return {name: round(count) * length(blend)[name] for name, count in rows.items()}


def mixtera(files: dict[str, str], blend: ExportSpec) -> Counts:
    given = constants(files["mixture.py"])
    chunk, step = given["CHUNK_SIZE"], (blend.sequence or 1) * (blend.batch or 1)
    starts = [begin * step for begin, _ in given["STAGES"]]
    drawn: Counts = {}
    for (_, pairs), start, end in zip(
        given["STAGES"], starts, [*starts[1:], blend.tokens], strict=True
    ):
        assert math.isclose(sum(share for _, share in pairs), 1, rel_tol=1e-7)
        ideal = {by_path(blend, values[0]): chunk * share for values, share in pairs}
        parts = {name: int(count) for name, count in ideal.items()}
        for name in sorted(ideal, key=lambda n: parts[n] - ideal[n])[: chunk - sum(parts.values())]:
            parts[name] += 1
        total = sum(parts[name] * length(blend)[name] for name in parts)
        for name, count in parts.items():
            seen = (end - start) * count * length(blend)[name] / total
            drawn[name] = drawn.get(name, 0) + seen
    for name, tokens in drawn.items():
        slack = max(blend.sequence or 0, length(blend)[name] / 2)
        assert tokens <= 1.001 * exist(blend)[name] + slack, "the stream ends early"
    return drawn


def portable(content: dict, blend: ExportSpec) -> Counts:
    drawn: Counts = {}
    for stage in content["stages"]:
        assert math.isclose(sum(d["weight"] for d in stage["domains"]), 1, abs_tol=1e-9)
        for domain in stage["domains"]:
            drawn[domain["name"]] = (
                drawn.get(domain["name"], 0) + domain["weight"] * stage["tokens"]
            )
            assert not domain["paths"] or by_path(blend, domain["paths"][0]) == domain["name"]
    return {name: tokens for name, tokens in drawn.items() if tokens}


def table(files: dict[str, str], blend: ExportSpec) -> Counts:
    drawn: Counts = {}
    for row in csv.DictReader(io.StringIO(files["mixture.csv"], newline="")):
        tokens_here = float(row["weight"]) * int(row["stage_tokens"])
        assert abs(tokens_here - int(row["tokens"])) <= 0.5
        assert all(cell[:1] not in ("=", "+", "-", "@", "\t", "\r") for cell in row.values())
        name = row["domain"].removeprefix("'") if row["domain"][1:2] in "=+-@\t\r\n" else None
        name = name or row["domain"]
        drawn[name] = drawn.get(name, 0) + tokens_here
    return {name: count for name, count in drawn.items() if count}


READERS = {
    "automodel": automodel,
    "axolotl": axolotl,
    "csv": table,
    "energon": energon,
    "huggingface": huggingface,
    "json": lambda files, blend: portable(json.loads(files["mixture.json"]), blend),
    "levanter": levanter,
    "litdata": litdata,
    "llama_factory": llama_factory,
    "maxtext": maxtext,
    "megatron": megatron,
    "megatron_bridge": megatron_bridge,
    "mixtera": mixtera,
    "mosaic": mosaic,
    "ms_swift": ms_swift,
    "nanotron": nanotron,
    "olmo_core": olmo_core,
    "torchtitan": torchtitan,
    "yaml": lambda files, blend: portable(yaml.safe_load(files["mixture.yaml"]), blend),
}


def held_out(name: str, files: dict[str, str]) -> dict[str, list[str]]:
    """Validation sets as a trainer finds them: paths by the name under which it logs their loss."""
    if name == "megatron":
        return {"": json.loads(files["blend.json"])["valid"]}  # by place
    if name == "olmo_core":
        given = yaml.safe_load(files["validation.yaml"])
        found: dict[str, list[str]] = {}
        for path, about in zip(given["paths"], given["metadata"], strict=True):
            found.setdefault(about["label"], []).append(path)
        return found
    if name == "mosaic":
        loaders = yaml.safe_load(files["streams.yaml"])["eval_loader"]
        assert all(one["name"] == "text" and not one["dataset"]["shuffle"] for one in loaders)
        return {
            one["label"]: [stream["local"] for stream in one["dataset"]["streams"].values()]
            for one in loaders
        }
    if name == "levanter":
        data = yaml.safe_load(files["data.yaml"])["data"]
        only = {n: one for n, one in data["components"].items() if n not in data["train_weights"]}
        assert all("train_urls" not in one["source"] for one in only.values())
        return {n: one["source"]["validation_urls"] for n, one in only.items()}
    if name == "torchtitan":
        given = constants(files["data_config.py"])
        return {label: given["SOURCES"][label]["data_files"] for label in given["HELD_OUT"]}
    if name == "automodel":
        held = yaml.safe_load(files["dataset.yaml"])["dataset"]["paths"]
        assert held["test"] == held["validation"], "which it asks for"
        return {"": held["validation"]}
    if name == "axolotl":
        given = yaml.safe_load(files["datasets.yaml"])
        assert given["val_set_size"] == 0, "refused beside test_datasets"
        assert all(one["split"] == "train" for one in given["test_datasets"])
        return {"": [one["path"] for one in given["test_datasets"]]}
    [text] = files.values()
    return yaml.safe_load(text)["validation"]
