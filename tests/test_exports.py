"""Exports, read back as the trainer reads them: the tokens that each file makes a trainer draw.

The readers here follow the trainers' documented grammar and share no code with the writers.
`test_export_trainers.py` does the same with the trainers' own libraries, where they are installed.
"""

import ast
import csv
import dataclasses
import io
import json
import math
import re

import pytest
import yaml

from mixtures.domains import Domain, DomainSet
from mixtures.errors import CuveeError, DataError, ExportError, UnknownName
from mixtures.history import Stage
from tasks import exports
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
ROUGH = {"mixtera": 0.02, "levanter": 0.002}  # what dealing out in chunks and blocks costs


@pytest.mark.parametrize("name", exports.names())
def test_a_trainer_draws_the_recommended_tokens(name):
    """Catches weights in the wrong unit, lost domains, kept zeros, sums and repeats gone wrong."""
    drawn = READERS[name](exports.render(exports.build(name), FIXED), TOKENS)
    want = {"web": 0.5, "code": 0.3, "chat: short": 0.2}
    assert set(drawn) == set(want)
    for domain, share in want.items():
        assert drawn[domain] == pytest.approx(share * TOKENS, rel=ROUGH.get(name, 2e-4))


def test_staged_formats_change_the_mixture_where_the_stage_begins():
    """Catches stages averaged away, or begun at a token where a step or a sequence is meant."""
    want = {"web": 0.6 * 0.75 + 0.2 * 0.25, "code": 0.3, "chat: short": 0.1 * 0.75 + 0.5 * 0.25}
    seen = []
    for name in exports.names():
        if not exports.build(name).staged or name == "megatron":
            continue
        files = exports.render(exports.build(name), STAGED)
        drawn = READERS[name](files, TOKENS)
        for domain, share in want.items():
            assert drawn[domain] == pytest.approx(share * TOKENS, rel=0.04), (name, domain)
        seen.append(name)
    assert {"levanter", "nanotron", "mixtera", "json", "csv", "yaml"} == set(seen)


def test_megatron_has_a_blend_per_phase_and_the_iterations_between_them():
    """Catches phases at tokens, and an off-by-one in the iteration of the transition."""
    files = exports.render(exports.build("megatron"), STAGED)
    first, second = megatron(files, 1, "-1"), megatron(files, 1, "-2")
    assert first == pytest.approx({"web": 0.6, "code": 0.3, "chat: short": 0.1})
    assert second == pytest.approx({"web": 0.2, "code": 0.3, "chat: short": 0.5})
    words = files["arguments-2.txt"].split()
    flags = dict(zip(words[::2], words[1::2], strict=True))
    assert flags["--phase-transition-iterations"] == "3750"  # of 5,000 of 16 x 512 tokens
    assert flags["--train-iters"] == "5000" and flags["--data-args-path"] == "blend-2.txt"


def test_formats_without_stages_refuse_them_and_take_one_at_a_time():
    """Catches stages that are averaged or cut off without a word."""
    for name in exports.names():
        form = exports.build(name)
        if form.staged:
            continue
        with pytest.raises(ExportError, match=rf"{name} has no stages.*--stage N"):
            exports.render(form, STAGED)
        drawn = READERS[name](exports.render(form, STAGED.alone(2)), TOKENS // 4)
        assert drawn["chat: short"] == pytest.approx(0.5 * TOKENS / 4, rel=1e-3)
    with pytest.raises(ExportError, match="no stage 3"):
        STAGED.alone(3)


@pytest.mark.parametrize("name", ["mosaic", "litdata"])
def test_streams_of_documents_are_weighed_by_documents(name):
    """Catches shares of tokens given to a loader whose samples are documents."""
    files = exports.render(exports.build(name, {"samples": "documents"}), FIXED)
    drawn = {"web": 0.5 / 500, "code": 0.3 / 4000, "chat: short": 0.2 / 50}
    want = {domain: share / sum(drawn.values()) for domain, share in drawn.items()}
    if name == "mosaic":
        data = yaml.safe_load(files["streams.yaml"])["train_loader"]["dataset"]
        given = {n: s["proportion"] for n, s in data["streams"].items()}
        assert data["epoch_size"] == round(TOKENS * sum(drawn.values()))
    else:
        values = constants(files["mixture.py"])
        given = {}
        for path, weight in zip(values["PATHS"], values["WEIGHTS"], strict=True):
            given[by_path(path)] = given.get(by_path(path), 0) + weight
    assert given == pytest.approx(want)


def test_what_is_missing_is_named_with_the_field_that_gives_it():
    """Catches a guess in place of a path, a length or a count that nobody gave."""
    bare = dataclasses.replace(FIXED, paths={"web": ("/data/web",)})
    with pytest.raises(ExportError, match=r"export.paths names nothing for code, chat: short"):
        exports.render(exports.build("nanotron"), bare)
    with pytest.raises(ExportError, match=r"export.sequence_length"):
        exports.render(exports.build("mosaic"), dataclasses.replace(FIXED, sequence=None))
    with pytest.raises(ExportError, match=r"export.sequence_length and export.batch"):
        exports.render(
            exports.build("nanotron"), dataclasses.replace(STAGED, sequence=None, batch=None)
        )
    with pytest.raises(ExportError, match=r"tables.token_counts"):
        exports.render(exports.build("olmo_core"), dataclasses.replace(FIXED, counted=False))
    with pytest.raises(ExportError, match="weighs documents"):
        exports.render(exports.build("huggingface"), dataclasses.replace(FIXED, documented=False))
    with pytest.raises(ExportError, match="several for web"):
        two = {**PATHS, "web": ("/data/a", "/data/b")}
        exports.render(exports.build("megatron"), dataclasses.replace(FIXED, paths=two))
    with pytest.raises(ExportError, match="holds a blank"):
        blank = {**PATHS, "web": ("/data/my web",)}
        exports.render(exports.build("megatron"), dataclasses.replace(FIXED, paths=blank))
    with pytest.raises(DataError, match="no domain 'wbe'"):
        dataclasses.replace(FIXED, paths={"wbe": ("/x",)})
    with pytest.raises(UnknownName, match="did you mean 'megatron'"):
        exports.build("megatrom")
    with pytest.raises(UnknownName, match="did you mean 'tokenizer'"):
        exports.build("levanter", {"tokeniser": "x"})


def test_a_share_too_small_for_a_block_is_refused_not_dropped():
    """Catches a domain that Levanter or Mixtera would leave out with at most a warning."""
    thin = dataclasses.replace(FIXED, stages=(Stage((0.79999, 0.2, 0.0, 0.00001)),))
    with pytest.raises(ExportError, match=r"less than one sequence of Levanter's largest block"):
        exports.render(exports.build("levanter"), thin)
    code = dataclasses.replace(FIXED, stages=(Stage((0.5, 0.0005, 0.0, 0.4995)),))
    with pytest.raises(ExportError, match=r"chunk_size above"):
        exports.render(exports.build("mixtera"), code)


def test_levanter_s_block_grows_until_small_shares_are_met():
    """Catches the default block, in which 0.0014 of the sequences would be 0.00098."""
    small = dataclasses.replace(FIXED, stages=(Stage((0.5, 0.4986, 0.0, 0.0014)),))
    drawn = levanter(exports.render(exports.build("levanter"), small), TOKENS)
    assert drawn["chat: short"] == pytest.approx(0.0014 * TOKENS, rel=0.05)


def test_dust_is_dropped_and_named():
    """Catches weights of 1e-12 of an optimizer that trainers refuse or round in their own ways."""
    dust = dataclasses.replace(FIXED, stages=(Stage((0.5, 0.5 - 1e-9, 1e-9, 0.0)),))
    assert dust.dropped == ("unused", "chat: short")  # 1e-9 of 40,960,000 tokens is none
    assert sum(dust.shares.values()) == pytest.approx(1, abs=1e-11)


@pytest.mark.parametrize("path", ['/d/"; import os; "', "/d/{x}", "/d/\\n'''", "/d/☃"])
def test_paths_and_names_stay_data_in_python_files(path):
    """Catches a path that becomes code, or breaks the file, where a trainer is set up in Python."""
    odd = dataclasses.replace(FIXED, paths={**PATHS, "web": (path,)})
    for name in ("huggingface", "litdata", "torchtitan", "mixtera"):
        [source] = exports.render(exports.build(name), odd).values()
        assert path in json.dumps(constants(source), ensure_ascii=False).replace(
            "\\\\", "\\"
        ).replace('\\"', '"')
        tree = ast.parse(source)
        calls = [
            n
            for n in tree.body
            if isinstance(n, ast.Expr) and not isinstance(n.value, ast.Constant)
        ]
        assert calls == [], f"{name} runs something at import"


def test_every_format_has_a_reader_here():
    """Catches a format that was added without a check of what its trainer would draw."""
    assert set(READERS) == set(exports.names())
    for name in exports.names():
        assert exports.build(name).unit


def test_numbers_are_numbers_to_yaml():
    """Catches 1e-05, which YAML 1.1 reads as a word."""
    thin = dataclasses.replace(FIXED, stages=(Stage((0.5, 0.49998, 0.0, 0.00002)),))
    files = exports.render(exports.build("olmo_core"), thin)
    ratios = [s["target_ratio"] for s in yaml.safe_load(files["sources.yaml"])["sources"]]
    assert all(isinstance(ratio, float) for ratio in ratios)


def test_every_refusal_is_one_that_a_person_can_read():
    """Catches a KeyError or ZeroDivisionError from a blend with little in it."""
    poor = Blend("poor", DOMAINS, STAGED.stages, 0, {}, counted=False, documented=False)
    for name in exports.names():
        for blend in (poor, dataclasses.replace(poor, paths=PATHS)):
            try:
                assert exports.render(exports.build(name), blend)
            except CuveeError as error:
                assert len(str(error)) > 40
