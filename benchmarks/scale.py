"""How far small proxies carry: rank transfer, scaling laws against ranking, regret at scale.

    python benchmarks/scale.py [--parts regmix worlds splits corpus anneal] [--data FOLDER]
        [--home FOLDER] [--recipe recipes/ladder.yaml] [--draws 3]

* regmix: the published tables at 1M and 60M parameters. Two sizes are fewer than any scaling law
  takes, so that single-scale ranking stands alone: the order of the same 256 mixtures at both
  sizes, and what a law fitted to other mixtures at 1M says of the order at 60M.
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
from laws import DATA, drawn, one_core, ranked, table

from cuvee.mixtures.domains import Array
from cuvee.mixtures.errors import CuveeError
from cuvee.mixtures.inference.diagnostics import decision_accuracy
from cuvee.mixtures.laws import default
from cuvee.mixtures.registry import build

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("regmix", "worlds", "splits", "corpus", "anneal")
ROWS, DRAWS = (64, 128), 3


def paired_order(observed: Array, predicted: Array) -> float:
    """Mean decision accuracy over targets (columns)."""
    columns = zip(observed.T, predicted.T, strict=True)
    return float(np.mean([decision_accuracy(a, b) for a, b in columns]))


def regmix(folder: Path, rows: Sequence[int] = ROWS, draws: int = DRAWS) -> dict[str, Any]:
    """Order of the 256 test mixtures at 60M, from what is known at 1M."""
    train = table(folder, "train", "1m")
    small, large = table(folder, "test", "1m"), table(folder, "test", "60m")
    if not np.array_equal(small.W, large.W):
        raise CuveeError(f"{folder}: the test mixtures differ between 1m and 60m")
    found: dict[str, Any] = {
        "observed": {
            "spearman": ranked(large.Y, small.Y),
            "decision_accuracy": paired_order(large.Y, small.Y),
        }
    }
    law = build("law", default.NAME)
    for count in rows:
        figures = []
        for seed in range(draws):
            index = drawn(len(train.W), count, seed)
            noise, rng = np.zeros(len(train.targets)), np.random.default_rng(seed)
            said = law.fit(train.W[index], train.Y[index], noise, rng).predict(small.W).mean
            picks = said.argmin(axis=0)
            best = large.Y.min(axis=0)
            lost = large.Y[picks, range(len(best))] - best
            figures.append((ranked(large.Y, said), paired_order(large.Y, said), lost.mean()))
        mean = np.mean(figures, axis=0)
        found[f"{default.NAME}, {count} rows"] = dict(
            zip(("spearman", "decision_accuracy", "regret"), map(float, mean), strict=True)
        )
    for name, row in found.items():
        print(f"regmix 1m to 60m, {name}: " + ", ".join(f"{k} {v:.4f}" for k, v in row.items()))
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
