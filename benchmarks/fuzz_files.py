"""Files of every kind that the product reads, damaged by bytes or by values, for `fuzz.py`.

The files are the shipped recipes and small ones that the product or its libraries wrote themselves.
Bytes are flipped, cut, moved and doubled; in JSON a value anywhere is replaced by one of another
kind; packed files are also unpacked, damaged and packed again, so that damage reaches what is in
them. Nothing is known of what comes out: it may be read or refused, and nothing else.
"""

import bz2
import copy
import gzip
import hashlib
import json
import lzma
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import safetensors.torch
import torch
import zstandard
from input_recipes import mangled, pick, read_file
from input_tables import read_pair, write_tables

from cuvee.evaluation import benchmarks
from cuvee.flows.recipe import olmix
from cuvee.flows.study.table_problem import pose_table_problem, read_tables
from cuvee.mixtures.runs.run_spec import canonical_json
from cuvee.proxies.data import tokenizer
from cuvee.proxies.data.sources.text_files import Files
from cuvee.proxies.ladder import model_size
from cuvee.proxies.model.transformer import PackModel
from cuvee.proxies.train import checkpoint, warm_start
from cuvee.tasks.approval import manifest
from cuvee.tasks.store.results import Store

ROOT = Path(__file__).resolve().parent.parent
SIZE, VOCABULARY = "0.3M", 512
WORDS = ("the", "quick", "fox", "jumps", "over", "a", "lazy", "dog", "and", "runs", "home", "again")
HOSTILE = (
    None, True, False, 0, -1, 1.5, 10**30, "", "\ud800", "x" * 3000, [], {}, [[]], [None], {"a": 1},
    [1, 2, 3], {"": {}}, float("nan"), float("inf"), "LlamaForCausalLM", ["a", "b"], [[["a"]]],
)  # fmt: skip
PACKINGS: dict[str, tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]]] = {
    "": (bytes, bytes),
    ".gz": (gzip.compress, gzip.decompress),
    ".bz2": (bz2.compress, bz2.decompress),
    ".xz": (lzma.compress, lzma.decompress),
    ".zst": (zstandard.compress, zstandard.decompress),
}


def text(rng: np.random.Generator) -> str:
    """A few words."""
    return " ".join(map(str, rng.choice(WORDS, 12)))


def lines(rng: np.random.Generator) -> bytes:
    """Rows of JSON with text in them."""
    return b"".join(json.dumps({"text": text(rng), "id": i}).encode() + b"\n" for i in range(6))


def questions(rng: np.random.Generator) -> bytes:
    """A benchmark of one's own."""
    rows = [{"query": text(rng), "choices": [" yes", " no"], "gold": i % 2} for i in range(4)]
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


@dataclass(frozen=True)
class Target:
    """A file that can be damaged, and what the product does with it.

    Attributes:
        kind: of the file.
        path: where it lies.
        whole: its bytes as they were written.
        read: reads the file.
        form: what is in it beside bytes: "lines" or "json" of JSON, "tensors", or "digest", that of
            the rest before everything else.
        packing: one of `PACKINGS`.
    """

    kind: str
    path: Path
    whole: bytes
    read: Callable[[], object]
    form: str = ""
    packing: str = ""

    def damage(self, rng: np.random.Generator) -> bytes:
        """The file's bytes after some damage."""
        pack, unpack = PACKINGS[self.packing]
        if rng.random() < 0.3:
            place = int(rng.integers(len(self.whole)))
            return self.whole[:place] + bytes([rng.integers(256)]) + self.whole[place + 1 :]
        if self.packing and rng.random() < 0.3:
            return mangled(self.whole, rng)
        inner = unpack(self.whole)
        if self.form == "lines" and rng.random() < 0.6:
            rows = [json.loads(line) for line in inner.splitlines()]
            row = int(rng.integers(len(rows)))
            rows[row] = value_replaced(rows[row], rng)
            return pack(b"\n".join(json.dumps(row).encode() for row in rows))
        if self.form == "json" and rng.random() < 0.7:
            return pack(json.dumps(value_replaced(json.loads(inner), rng)).encode())
        if self.form == "tensors" and rng.random() < 0.6:
            return reshaped(inner, rng)
        if self.form == "digest" and rng.random() < 0.7:
            payload = mangled(inner[checkpoint.DIGEST :], rng)
            return hashlib.sha256(payload).digest() + payload
        return pack(mangled(inner, rng))


def reshaped(raw: bytes, rng: np.random.Generator) -> bytes:
    """A file of tensors in which one has another shape or type, another name, or is gone."""
    tensors = safetensors.torch.load(raw)
    name = pick(rng, sorted(tensors))
    value = tensors.pop(name)
    other = pick(rng, (value.flatten(), value[None], value[..., :1], value[0], value.char(),
                       value.bool(), value.half() * torch.nan, value[:0], None))  # fmt: skip
    if other is not None:
        tensors[name if rng.random() < 0.9 else f"{name}.x"] = other.contiguous()
    return safetensors.torch.save(tensors)


def corpora(folder: Path) -> Iterator[Target]:
    """Text in every form and packing."""
    rng = np.random.default_rng(0)
    table = pa.table({"text": [text(rng) for _ in range(40)], "id": list(range(40))})
    pq.write_table(table, folder / "a.parquet")
    with pa.OSFile(str(folder / "a.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as f:
        f.write_table(table)
    forms = {".txt": (text(rng).encode() * 20, ""), ".jsonl": (lines(rng), "lines")}
    for ending, (content, form) in forms.items():
        for packing, (pack, _) in PACKINGS.items():
            path = folder / f"a{ending}{packing}"
            path.write_bytes(pack(content))
            yield Target(
                f"text {ending}{packing}", path, path.read_bytes(), documents(path), form, packing
            )
    (folder / "a.json").write_bytes(json.dumps([{"text": text(rng)} for _ in range(5)]).encode())
    for name, form in (("a.json", "json"), ("a.parquet", ""), ("a.arrow", "")):
        path = folder / name
        yield Target(f"text {path.suffix}", path, path.read_bytes(), documents(path), form)
    for packing in ("", ".gz"):
        path = folder / f"qa.jsonl{packing}"
        whole = PACKINGS[packing][0](questions(rng))
        yield Target(
            f"benchmark{packing}", path, whole, adopted(path, folder / "out"), "lines", packing
        )


def documents(path: Path) -> Callable[[], object]:
    """Reads a corpus to its end."""
    return lambda: sum(1 for _ in Files(str(path), skip=True).documents())


def adopted(path: Path, out: Path) -> Callable[[], object]:
    """Reads a benchmark of one's own."""
    return lambda: benchmarks.adopt_benchmark(path, out, "qa")


def models(folder: Path) -> Iterator[Target]:
    """A tokenizer, a checkpoint to start from, and one to go on from."""
    rng = np.random.default_rng(0)
    made = tokenizer.train_tokenizer([text(rng) for _ in range(200)], VOCABULARY)
    place = folder / "start"
    model = PackModel(model_size(SIZE), VOCABULARY, [0])
    checkpoint.export_huggingface(model, 0, place)
    words = folder / "tokenizer.json"
    made.save(str(words))

    def encode() -> object:
        return tokenizer.DocumentEncoder(tokenizer.load_tokenizer(words)).encode(
            ["the fox", "x" * 30]
        )

    def begin() -> object:
        return warm_start.read_start_checkpoint(place, SIZE, VOCABULARY)

    yield Target("tokenizer.json", words, words.read_bytes(), encode, "json")
    for name, form in (("config.json", "json"), (warm_start.FILE, "tensors")):
        yield Target(name, place / name, (place / name).read_bytes(), begin, form)
    kept = checkpoint.save_checkpoint(
        folder / "pack", 1, {"identity": ["x"], "values": {"a": torch.ones(3)}}
    )

    def go_on() -> object:
        return checkpoint.load_checkpoint(kept.parent, ["x"])

    yield Target("checkpoint of a pack", kept, kept.read_bytes(), go_on, "digest")


def papers(folder: Path) -> Iterator[Target]:
    """Recipes, a fit file of Olmix, and a pair of tables."""
    path = folder / "recipe.yaml"

    def recipe() -> object:
        return olmix.detect(path) or read_file(path)

    for shipped in sorted((ROOT / "recipes").glob("*.yaml")):
        yield Target("recipe", path, shipped.read_bytes(), recipe)
    rng = np.random.default_rng(1)
    W, Y = rng.dirichlet((1, 1), 12), rng.normal(3, 0.1, (12, 1))
    both = [[["run", "d0", "d1"]], [["run", "t0"]]]
    for rows, values in zip(both, (W, Y), strict=True):
        rows += [[f"r{i}", *(repr(float(v)) for v in row)] for i, row in enumerate(values)]
    given = write_tables((both[0], both[1]), folder, rng)
    for name in ("mixtures.csv", "scores.csv"):
        table = folder / name
        yield Target("table", table, table.read_bytes(), lambda: read_pair(given))
    fit = folder / "fit.yaml"
    fit.write_text(FIT)
    yield Target("fit file", fit, fit.read_bytes(), lambda: read_fit(fit))
    store, listed = Store(str(folder / "store")), {"a.txt": hashlib.sha256(b"x").hexdigest()}
    content = {"status": "approved", "approval": {"by": "x"}, "card": "c", "files": listed}
    content["sha256"] = hashlib.sha256(canonical_json(content).encode()).hexdigest()
    out = folder / "export"
    sent = Path(manifest.write_export(str(out), {"a.txt": "x"}, content, store))
    whole = sent.read_bytes()
    yield Target("manifest", sent, whole, lambda: manifest.verify_export(str(out), store), "json")


FIT = """swarm: {ratios: mixtures.csv, metrics: scores.csv}
priors: {relative_sizes: {d0: 0.5, d1: 1}, token_counts: {d0: 1B, d1: 2B}}
eval: {type: offline, tasks: {one: [t0]}}
regression: {type: log_linear, seed: 3, aggregate_task_families: true}
proposer: {type: exact, kl_reg: 0.05}
constraints: {enabled: true, target_tokens: 20_000, repetition_factor: 4.0}
filtering: {drop_metrics: [], obj_weights: {one: "1/2"}}
"""


def read_fit(path: Path) -> object:
    """What `cuvee fit` does with a fit file before it fits."""
    if not olmix.detect(path):
        return read_file(path)
    given = olmix.load_olmix(path)[0]
    return pose_table_problem(given, read_tables(given))


def value_replaced(values: Any, rng: np.random.Generator) -> Any:
    """The same JSON with one value, somewhere, of another kind, missing, or nested deeply."""
    values = copy.deepcopy(values)
    node, places = values, []
    while isinstance(node, dict | list) and node:
        key = pick(rng, list(node) if isinstance(node, dict) else range(len(node)))
        places.append((node, key))
        node = node[key]
    if not places:
        return pick(rng, HOSTILE)
    node, key = pick(rng, places)
    if isinstance(node, dict) and rng.random() < 0.2:
        del node[key]
    else:
        node[key] = pick(rng, HOSTILE)
    return values
