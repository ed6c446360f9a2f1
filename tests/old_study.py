"""Studies as earlier commits left them: a store, a home and the recipes, for tests of what is old.

`golden/COMMIT.tar.xz` holds `home/` of two studies: store, studies and record; `corpus-1.tar.xz`
the corpus that all of them were trained on, of format 1, as no later version makes one.
`proxies` trained twenty proxies on four domains of text that `write_corpus` makes anew, byte by
byte, and confirmed its answer; `tables` was fitted from two CSV tables. Both were approved by ada,
and `tables` exported to `home/out`. Paths are relative, so that a test goes to the folder first.
404a3ce, the last commit whose versions were hashes of source text, also confirmed `proxies` by
`larger.yaml`; of its home, what the store holds as well was left out, pictures and children of the
record too.
"""

import json
import tarfile
from pathlib import Path

import numpy as np

COMMITS = ("2ad03ff", "404a3ce")
GOLDEN = Path(__file__).parent / "golden"
DOMAINS = ("facts", "sums", "verse", "list")
PROXIES = """\
name: proxies
seed: 3
corpus:
  vocabulary: 512
  heldout_bytes: 20000
  domains:
    facts: {path: corpus/facts.jsonl}
    sums: {path: corpus/sums.jsonl}
    verse: {path: corpus/verse.jsonl}
    list: {path: corpus/list.jsonl}
proxy: {size: 0.3M, tokens: 41k, precision: float32}
evaluation: {suite: null, heldout_tokens: 2048}
objective: {name: mean, weights: {domain/facts: 1, domain/verse: 1}}
full_scale: {tokens: 1M}
method: {name: mixing_laws, runs: 8, seeds: 2, folds: 2, refits: 10}
confirm: {seeds: 2}
"""
TABLES = """\
name: tables
tables:
  mixtures: mixtures.csv
  scores: scores.csv
  sizes: {web: 4000000000, code: 1000000000, books: 2000000000}
objective: {name: mean, weights: {bpb_web: 1, bpb_code: 2}}
full_scale: {tokens: 1B}
constraints: {epochs: 4}
method: {name: mixing_laws, runs: 8, folds: 2, refits: 10}
"""
TEXT = """the river old stone carries slow water under seven bridges and a cold wind moves grass
near each house where bread salt wool iron paper glass honey wood rope corn are sold at dawn"""
WORDS = TEXT.split()


def write(folder: Path) -> None:
    """The recipes, the corpus and the tables into a folder."""
    write_corpus(folder / "corpus")
    (folder / "proxies.yaml").write_text(PROXIES, encoding="utf-8")
    larger = PROXIES.replace("{seeds: 2}", "{seeds: 2, sizes: [{size: 0.3M, tokens: 62k}]}")
    (folder / "larger.yaml").write_text(larger, encoding="utf-8")
    (folder / "tables.yaml").write_text(TABLES, encoding="utf-8")
    rng = np.random.default_rng(12)
    W = np.round(rng.dirichlet(np.ones(3), 24), 4)
    W[:, 2] = np.round(1 - W[:, 0] - W[:, 1], 4)
    Y = np.column_stack([1 + np.exp(-3 * W[:, 0]), 0.8 + np.exp(-4 * W[:, 1])])
    Y = np.round(Y + rng.normal(0, 0.004, Y.shape), 5)
    rows = [f"r{i:02d},{a},{b},{c}" for i, (a, b, c) in enumerate(W.tolist())]
    (folder / "mixtures.csv").write_text("\n".join(["run,web,code,books", *rows]) + "\n")
    rows = [f"r{i:02d},{a},{b}" for i, (a, b) in enumerate(Y.tolist())]
    (folder / "scores.csv").write_text("\n".join(["run,bpb_web,bpb_code", *rows]) + "\n")


def write_corpus(folder: Path) -> None:
    """Four unlike domains of made text, the same bytes on every machine."""
    folder.mkdir(parents=True)
    for at, name in enumerate(DOMAINS):
        documents = [_document(name, 1000 * at + i) for i in range(220)]
        rows = "\n".join(json.dumps({"text": text}) for text in documents)
        (folder / f"{name}.jsonl").write_text(rows + "\n", encoding="utf-8")


def _document(domain: str, seed: int) -> str:
    state, lines = seed * 2654435761 % 2**32, []
    for line in range(24):
        words = []
        for _ in range(7):
            state = (1664525 * state + 1013904223) % 2**32
            words.append(WORDS[(state >> 16) % len(WORDS)])
        n = state % 997
        lines.append(
            {
                "facts": f"It is known that {' '.join(words)}; so says page {n} of {seed}.",
                "sums": f"{n} + {line} = {n + line}; {n} * {line} = {n * line}; {words[0]}.",
                "verse": f"O {' '.join(words[:4])},\n  and {' '.join(words[4:])}!",
                "list": f"- {words[0]}: {n}\n- {words[1]}/{words[2]}: {line}",
            }[domain]
        )
    return "\n".join(lines)


def unpack(folder: Path, commit: str) -> Path:
    """Inputs and the home of a commit in a folder; returns the home."""
    write(folder)
    for part in (commit, "corpus-1"):
        with tarfile.open(GOLDEN / f"{part}.tar.xz") as archive:
            archive.extractall(folder, filter="data")
    return folder / "home"
