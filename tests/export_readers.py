"""Readers of exports: a trainer's documented grammar each, no code shared with the writers."""

import ast
import csv
import dataclasses
import io
import json
import math
import re

import yaml

from mixtures.domains import Domain, DomainSet
from mixtures.history import Stage
from tasks.exports import Blend

TOKENS, SEQUENCE, BATCH = 40_960_000, 512, 16
DOMAINS = DomainSet(
    (
        Domain("web", 30_000_000, 120_000_000, "id-web", 60_000),  # 500 tokens a document
        Domain("code", 8_000_000, 24_000_000, "id-code", 2_000),  # 4,000
        Domain("unused", 5_000_000, 20_000_000, "id-unused", 100),
        Domain("chat: short", 4_096_000, 16_000_000, "id-chat", 81_920),  # 50
    )
)
LENGTH = {d.name: d.tokens / d.documents for d in DOMAINS}
PATHS = {
    "web": ("/data/web.jsonl",),
    "code": ("s3://bucket/code.jsonl.gz",),
    "chat: short": ("/data/chat.jsonl",),
}
FIXED = Blend(
    "study", DOMAINS, (Stage((0.5, 0.3, 0.0, 0.2)),), TOKENS, PATHS, 7, SEQUENCE, BATCH
)  # epochs 0.68, 1.54, 0, 2
STAGED = dataclasses.replace(
    FIXED,
    stages=(Stage((0.6, 0.3, 0.0, 0.1), 0.75), Stage((0.2, 0.3, 0.0, 0.5), 0.25)),
)
Counts = dict[str, float]


def by_path(path: str) -> str:
    return next(name for name, given in PATHS.items() if path in given)


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


def megatron(files: dict[str, str], tokens: int, suffix: str = "") -> Counts:
    words = files[f"blend{suffix}.txt"].split()
    weights, prefixes = [float(w) for w in words[::2]], words[1::2]
    assert all(w > 0 for w in weights), "Megatron-LM asserts that every weight is above zero"
    assert yaml.safe_load(files[f"nemo{suffix}.yaml"])["dataset"]["paths"] == words
    return {by_path(p): tokens * w / sum(weights) for p, w in zip(prefixes, weights, strict=True)}


def olmo_core(files: dict[str, str], tokens: int) -> Counts:
    sources = yaml.safe_load(files["sources.yaml"])["sources"]
    assert math.isclose(sum(s["target_ratio"] for s in sources), 1, abs_tol=1e-8)
    drawn = {}
    exist = {d.name: d.tokens for d in DOMAINS}
    for source in sources:
        name = source["source_name"]
        assert by_path(source["paths"][0]) == name and source["target_ratio"] > 0
        drawn[name] = int(tokens * source["target_ratio"])
        assert source["max_repetition_ratio"] >= 1
        assert drawn[name] <= int(exist[name] * source["max_repetition_ratio"]), "runs short"
    return drawn


def mosaic(files: dict[str, str], tokens: int) -> Counts:
    data = yaml.safe_load(files["streams.yaml"])["train_loader"]["dataset"]
    proportions = {name: stream["proportion"] for name, stream in data["streams"].items()}
    for name, stream in data["streams"].items():
        assert by_path(stream.get("remote") or stream["local"]) == name
    size, total = data["epoch_size"], sum(proportions.values())
    return {name: int(size * p / total) * SEQUENCE for name, p in proportions.items()}


def huggingface(files: dict[str, str], tokens: int) -> Counts:
    given = constants(files["mixture.py"])
    assert math.isclose(sum(given["PROBABILITIES"]), 1, abs_tol=1e-9)
    places = [by_path(source["data_files"][0]) for source in given["SOURCES"]]
    assert [source["path"] for source in given["SOURCES"]] == ["json"] * len(places)
    pairs = zip(places, given["PROBABILITIES"], strict=True)
    return {name: given["DOCUMENTS"] * p * LENGTH[name] for name, p in pairs}


def litdata(files: dict[str, str], tokens: int) -> Counts:
    given = constants(files["mixture.py"])
    exist = {d.name: d.tokens for d in DOMAINS}
    drawn: Counts = {}
    for path, weight in zip(given["PATHS"], given["WEIGHTS"], strict=True):
        part = tokens * weight / sum(given["WEIGHTS"])
        assert part <= exist[by_path(path)], "the stream would end before the run does"
        drawn[by_path(path)] = drawn.get(by_path(path), 0) + part
    return drawn


def levanter(files: dict[str, str], tokens: int) -> Counts:
    data = yaml.safe_load(files["data.yaml"])["data"]
    weights, block = data["train_weights"], data["mixture_block_size"]
    stages = [[0, weights]] if isinstance(weights, dict) else weights
    assert stages[0][0] == 0 and block < 2**16 and data["stop_strategy"] == "restart"
    ends = [start for start, _ in stages[1:]] + [tokens // SEQUENCE]
    drawn: Counts = {}
    for (start, shares), end in zip(stages, ends, strict=True):
        assert start % block == 0 and start < end
        total = sum(shares.values())
        parts = {name: int(block * share / total) for name, share in shares.items()}
        parts[max(parts, key=parts.__getitem__)] += block - sum(parts.values())
        for name, count in parts.items():
            assert name in data["components"] and count > 0
            drawn[name] = drawn.get(name, 0) + count / block * (end - start) * SEQUENCE
    return drawn


def nanotron(files: dict[str, str], tokens: int) -> Counts:
    stages = yaml.safe_load(files["data_stages.yaml"])["data_stages"]
    starts = [stage["start_training_step"] for stage in stages]
    assert starts[0] == 1 and starts == sorted(set(starts))
    ends = [*starts[1:], tokens // (SEQUENCE * BATCH) + 1]
    drawn: Counts = {}
    for stage, end in zip(stages, ends, strict=True):
        data = stage["data"]["dataset"]
        total = sum(data["dataset_weights"])
        seen = (end - stage["start_training_step"]) * SEQUENCE * BATCH
        for folder, weight in zip(data["dataset_folder"], data["dataset_weights"], strict=True):
            name = by_path(folder)
            drawn[name] = drawn.get(name, 0) + seen * weight / total
    return drawn


def torchtitan(files: dict[str, str], tokens: int) -> Counts:
    given = constants(files["data_config.py"])
    weights, sources = given["WEIGHTS"], given["SOURCES"]
    assert list(weights) == list(sources) and all(name == name.lower() for name in weights)
    assert all(weight > 0 for weight in weights.values())
    total = sum(weights.values())
    return {by_path(sources[n]["data_files"][0]): tokens * w / total for n, w in weights.items()}


def axolotl(files: dict[str, str], tokens: int) -> Counts:
    given = yaml.safe_load(files["datasets.yaml"])
    assert given["num_epochs"] == 1
    documents = {d.name: d.documents for d in DOMAINS}
    drawn: Counts = {}
    for entry in given["datasets"]:
        name = by_path(entry["path"])
        part = re.fullmatch(r"train(?:\[:(\d+)\])?", entry["split"])
        count = int(part[1]) if part[1] else documents[name]
        assert count <= documents[name]
        drawn[name] = drawn.get(name, 0) + count * LENGTH[name]
    return drawn


def mixtera(files: dict[str, str], tokens: int) -> Counts:
    given = constants(files["mixture.py"])
    chunk = given["CHUNK_SIZE"]
    steps = [step for step, _ in given["STAGES"]]
    ends = [*steps[1:], tokens // (SEQUENCE * BATCH)]
    drawn: Counts = {}
    for (step, pairs), end in zip(given["STAGES"], ends, strict=True):
        assert math.isclose(sum(share for _, share in pairs), 1, rel_tol=1e-7)
        ideal = {by_path(values[0]): chunk * share for values, share in pairs}
        parts = {name: int(count) for name, count in ideal.items()}
        for name in sorted(ideal, key=lambda n: parts[n] - ideal[n])[: chunk - sum(parts.values())]:
            parts[name] += 1
        length = sum(parts[name] * LENGTH[name] for name in parts)
        for name, count in parts.items():
            seen = (end - step) * SEQUENCE * BATCH * count * LENGTH[name] / length
            drawn[name] = drawn.get(name, 0) + seen
    return drawn


def portable(content: dict) -> Counts:
    drawn: Counts = {}
    for stage in content["stages"]:
        assert math.isclose(sum(d["weight"] for d in stage["domains"]), 1, abs_tol=1e-9)
        for domain in stage["domains"]:
            drawn[domain["name"]] = (
                drawn.get(domain["name"], 0) + domain["weight"] * stage["tokens"]
            )
            assert not domain["paths"] or by_path(domain["paths"][0]) == domain["name"]
    return {name: tokens for name, tokens in drawn.items() if tokens}


def table(files: dict[str, str], tokens: int) -> Counts:
    drawn: Counts = {}
    for row in csv.DictReader(io.StringIO(files["mixture.csv"])):
        tokens_here = float(row["weight"]) * int(row["stage_tokens"])
        assert abs(tokens_here - int(row["tokens"])) <= 0.5
        drawn[row["domain"]] = drawn.get(row["domain"], 0) + tokens_here
    return {name: count for name, count in drawn.items() if count}


READERS = {
    "axolotl": axolotl,
    "csv": table,
    "huggingface": huggingface,
    "json": lambda files, tokens: portable(json.loads(files["mixture.json"])),
    "levanter": levanter,
    "litdata": litdata,
    "megatron": megatron,
    "mixtera": mixtera,
    "mosaic": mosaic,
    "nanotron": nanotron,
    "olmo_core": olmo_core,
    "torchtitan": torchtitan,
    "yaml": lambda files, tokens: portable(yaml.safe_load(files["mixture.yaml"])),
}
