"""How far small proxies carry: rank transfer, scaling laws against ranking, regret at scale.

    python benchmarks/scale.py [--parts regmix worlds splits corpus anneal] [--data FOLDER]
        [--home FOLDER] [--recipe recipes/ladder.yaml] [--draws 3]

* regmix: the order of the same 256 mixtures at 1M and at 60M parameters, on the published tables;
  what laws fitted at 1M say of 60M is MixBench's (`make mixbench`).
* worlds: ladders on worlds whose best mixture moves with scale: parameters of the joint law
  recovered from runs, and regret at full scale against budget, beside the same FLOPs spent at the
  smallest size alone.
* splits: regret of the splits that `cuvee plan` shows, on the same worlds.
* corpus: the ladder of a recipe, trained; its largest rung only checks. Every run is kept in the
  home's store, so that a stopped run goes on.
* anneal: the search for a schedule against the best static mixture at equal tokens, paired
  (`benchmarks/anneal.py`, which compares learning rates besides).

The last line is JSON; parts that were not run are null.
"""

import argparse
import json
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from laws import DATA, one_core
from mixbench.tables import regmix as regmix_table

from cuvee.mixtures.domains import Array
from cuvee.mixtures.errors import CuveeError
from cuvee.mixtures.inference.diagnostics import decision_accuracy, spearman

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("regmix", "worlds", "splits", "corpus", "anneal")


def paired_order(observed: Array, predicted: Array) -> float:
    """Mean decision accuracy over targets (columns)."""
    columns = zip(observed.T, predicted.T, strict=True)
    return float(np.mean([decision_accuracy(a, b) for a, b in columns]))


def regmix(folder: Path) -> dict[str, float]:
    """How far the order of the 256 test mixtures at 1M is that at 60M, as observed."""
    tests = regmix_table(folder).tests
    small, large = tests["1m"], tests["60m"]
    if not np.array_equal(small.W, large.W):
        raise CuveeError(f"{folder}: the test mixtures differ between 1m and 60m")
    ranks = [spearman(a, b) for a, b in zip(large.Y.T, small.Y.T, strict=True)]
    found = {
        "spearman": 100 * float(np.mean(ranks)),
        "decision_accuracy": paired_order(large.Y, small.Y),
    }
    print("regmix 1m to 60m, as observed: " + ", ".join(f"{k} {v:.4f}" for k, v in found.items()))
    return found


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n\n", 1)[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the RegMix tables")
    parser.add_argument("--recipe", type=Path, default=ROOT / "recipes" / "ladder.yaml")
    parser.add_argument("--home", type=Path, default=Path(".cuvee"))
    parser.add_argument("--draws", type=int, default=3, help="worlds of each kind")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the figures and, on the last line, the same as JSON."""
    given = options(arguments)
    print(f"{platform.machine()}, one core, numpy {np.__version__}", flush=True)
    found: dict[str, Any] = {
        "rank_transfer": None,
        "decision_accuracy": None,
        "regret": None,
        "anneal_gain": None,
        "regmix_1m_to_60m": None,
        "worlds": None,
        "splits": None,
    }
    try:
        if "regmix" in given.parts:
            found["regmix_1m_to_60m"] = regmix(given.data)
        if "worlds" in given.parts:
            import scale_worlds

            found["worlds"] = scale_worlds.measured(given.draws)
        if "splits" in given.parts:
            import scale_worlds

            found["splits"] = scale_worlds.table(given.draws)
        if "corpus" in given.parts:
            import scale_corpus

            found |= scale_corpus.measured(given.recipe, given.home)
        if "anneal" in given.parts:
            import anneal

            found["anneal_gain"] = anneal.anneal_gain(ROOT / "recipes" / "anneal.yaml", given.home)
    except CuveeError as error:
        sys.exit(str(error))
    print(json.dumps(found))


if __name__ == "__main__":
    one_core()
    main()
