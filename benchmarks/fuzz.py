"""Inputs that nobody thought of: drawn from the product's own schema, or damaged byte by byte.

Where `inputs.py` draws from what its author thought of, here the grammar is what the product itself
declares (`fuzz_grammar.py`), and files of every kind that it reads are damaged (`fuzz_files.py`).
An input may be read or refused in one sentence, within `PATIENCE` seconds; anything else counts.

Usage: python benchmarks/fuzz.py [--count 30000] [--seed 0]. The last line is JSON.
"""

import argparse
import json
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import yaml
from fuzz_files import FIT, Target, corpora, models, papers, read_fit
from fuzz_grammar import document, model
from hypothesis import strategies as st
from input_recipes import read_file
from inputs import Hang, Tally

from cuvee.flows.recipe import load, olmix_fields
from cuvee.flows.recipe import schema as recipes
from cuvee.flows.study.table_problem import pose_table_problem, read_tables

DRAWN = 0.5  # of the inputs come from the schema, the others are damaged files
RECIPE = {
    "name": "x", "objective": {"name": "mean", "weights": {"domain/a": 1}},
    "method": {"name": "regmix", "runs": 8}, "full_scale": {"tokens": 10**9},
    "corpus": {"domains": {"a": {"path": "a"}, "b": {"path": "b"}}},
}  # fmt: skip
FIT_FILE = yaml.safe_load(FIT)
OUTCOMES = ("inputs_tried", "accepted", "refused", "tracebacks", "hangs", "long_messages")


def drawn(tally: Tally, count: int, seed: int, folder: Path) -> None:
    """Recipes and fit files drawn from the schema, half of each kind reading tables that exist."""
    path = folder / "drawn.yaml"

    def tried(values: dict[str, Any], kind: str, read: Callable[[], object]) -> None:
        text = document(values)
        path.write_text(text, encoding="utf-8", errors="surrogatepass")
        tally.tried(kind, lambda: bool(read()) or True, text, valid=None)

    def sound(values: dict[str, Any], base: dict[str, Any], bits: int) -> dict[str, Any]:
        """What was drawn, some fields of which are as they should be, so that others are met."""
        whole = {name: value for i, (name, value) in enumerate(base.items()) if bits >> i & 1}
        return {**values, **whole}

    def recipe(values: dict[str, Any], bits: int) -> None:
        values = sound(values, RECIPE, bits)
        tables = values.get("tables")
        if isinstance(tables, dict):
            tables |= {name: str(folder / f"{name}.csv") for name in ("mixtures", "scores")}
            values.pop("corpus", None)
            if values.get("objective") is RECIPE["objective"]:
                values["objective"] = {"name": "mean", "weights": {"t0": 1}}
        elif "corpus" not in values:
            values["corpus"] = {"domains": {"a": {"path": "a"}, "b": {"path": "b"}}}
        if not values.get("full_scale"):
            values["full_scale"] = RECIPE["full_scale"]
        tried(values, "drawn recipe", read_drawn)

    def read_drawn() -> object:
        read_file(path)
        given = load.load_recipe(path)[0]
        return pose_table_problem(given, read_tables(given)) if given.tables else given

    def fit(values: dict[str, Any], bits: int) -> None:
        values = sound(values, FIT_FILE, bits)
        if isinstance(values.get("swarm"), dict):
            values["swarm"] |= {"ratios": "mixtures.csv", "metrics": "scores.csv"}
        tried(values, "drawn fit file", lambda: read_fit(path))

    quiet = {"database": None, "deadline": None, "phases": [hypothesis.Phase.generate],
             "suppress_health_check": list(hypothesis.HealthCheck)}  # fmt: skip
    for schema, act, share in ((recipes.Recipe, recipe, 0.75), (olmix_fields.FitFile, fit, 0.25)):
        run = hypothesis.given(model(schema), st.integers(0, 2**16 - 1))(act)
        run = hypothesis.settings(max_examples=max(1, round(count * share)), **quiet)(run)
        hypothesis.seed(seed)(run)()


def damaged(tally: Tally, count: int, seed: int, folder: Path) -> None:
    """Files of every kind in turn, damaged."""
    targets = [*papers(folder), *corpora(folder), *models(folder)]
    by_kind: dict[str, list[Target]] = {}
    for target in targets:
        by_kind.setdefault(target.kind, []).append(target)
    kinds = list(by_kind.values())
    for i in range(count):
        rng = np.random.default_rng([seed, i])
        same = kinds[i % len(kinds)]
        target = same[int(rng.integers(len(same)))]
        raw = target.damage(rng)
        target.path.write_bytes(raw)
        tally.tried(target.kind, lambda t=target: bool(t.read()) or True, repr(raw), valid=None)
        target.path.write_bytes(target.whole)


def campaign(count: int, seed: int) -> Tally:
    """Try `count` inputs, half of them drawn and half damaged."""
    tally = Tally()

    def late(_number: int, _frame: Any) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, late)
    try:
        with tempfile.TemporaryDirectory(prefix="cuvee-fuzz-") as name:
            folder = Path(name)
            list(papers(folder))  # the tables that drawn recipes read
            drawn(tally, round(count * DRAWN), seed, folder)
            damaged(tally, count - tally.count["inputs_tried"], seed, folder)
    finally:
        signal.signal(signal.SIGALRM, before)
    return tally


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=30_000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    began = time.perf_counter()
    tally = campaign(given.count, given.seed)
    for example in tally.examples:
        print(example, end="\n\n")
    print(f"{'':24}{'tried':>8}{'read':>8}{'refused':>9}{'defects':>9}")
    for kind, found in sorted(tally.kinds.items()):
        bad = sum(found[what] for what in OUTCOMES[3:])
        print(f"{kind:24}{found['inputs_tried']:8}{found['accepted']:8}{found['refused']:9}{bad:9}")
    print(f"{time.perf_counter() - began:.0f} s")
    print(json.dumps({key: tally.count[key] for key in OUTCOMES}))


if __name__ == "__main__":
    main()
