"""What points of loss curves add to the joint law: recovered parameters and forecasts on a world.

    python benchmarks/scale_curves.py [--draws 6] [--law joint]

Runs of four sizes in the world of the joint law, one number of tokens a size, are fitted twice: by
their ends alone, and with six points of each run before its decay, 4 % above what a decay there
would have given. Noise over seeds is 0.3 % of a score, of which a run's points share 80 % of the
variance. `uneven`: the gap grows by 30 % with each factor e in size and in tokens, against what
the fit assumes. Differences are paired by draw of the world. JSON on the last line; no figure is a
time.
"""

import argparse
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from cuvee.mixtures import worlds
from cuvee.mixtures.inference import diagnostics
from cuvee.mixtures.registry import build
from cuvee.mixtures.scaling import ScalingRuns
from cuvee.mixtures.worlds.scaled import SIZES

RUNGS = (("0.3M", 12_000_000, 30), ("0.6M", 16_000_000, 16), ("1M", 20_000_000, 12),
         ("2M", 24_000_000, 10))  # fmt: skip
FULL = (100_000_000, 4_000_000_000)
DOMAINS, TARGETS, MOVES = 4, 2, 0.7
SD, SHARED, GAP, POINTS = 0.003, 0.8, 0.04, 6
FIGURES = ("a", "b", "forecast", "order")


def made(draw: int, uneven: float = 0.0) -> tuple[Any, ScalingRuns]:
    """A world and its runs with points of their curves.

    Args:
        draw: of the world, the design and the noise.
        uneven: by how much of itself the gap grows with each factor e in size and in tokens.
    """
    world = worlds.Scaled(size=DOMAINS, count=TARGETS, moves=MOVES, seed=draw)
    rng = np.random.default_rng([draw, 5])
    design = rng.dirichlet(np.full(DOMAINS, 0.7), RUNGS[0][2])
    rows: list[tuple[Any, ...]] = []
    for size, tokens, count in RUNGS:
        parameters = dict(SIZES)[size]
        for w in design[:count]:
            group = rows[-1][4] + 1 if rows else 0
            shared = rng.standard_normal(TARGETS)
            for seen in (*tokens * np.geomspace(0.1, 0.8, POINTS), tokens):
                truth = world.at_scale(parameters, int(seen), size).truth(w[None], w[None])[0]
                far = np.log(seen / 2e7) + np.log(parameters / 1e6)
                before = seen < tokens
                own = rng.standard_normal(TARGETS)
                noise = np.sqrt(SHARED) * shared + np.sqrt(1 - SHARED) * own
                factor = 1 + GAP * (1 + uneven * far) * before
                rows.append((w, parameters, seen, truth * factor * (1 + SD * noise), group, before))
    W, n, d, Y, groups, stable = (np.array(column) for column in zip(*rows, strict=True))
    runs = ScalingRuns(W, n.astype(float), d, Y, np.zeros_like(Y), groups, stable=stable)
    return world, runs


def judged(world: Any, law: str, runs: ScalingRuns, seed: int) -> tuple[float, ...]:
    """Errors of the exponents (log), of forecasts at full scale (relative), 1 - their rank
    correlation; over both targets and 200 mixtures."""
    fitted = build("scaling", {"name": law, "draws": 0}).fit(runs, np.random.default_rng(seed))
    first = 2 + 2 * DOMAINS
    other = first + (DOMAINS + 3 if law == "joint" else 2)
    off = np.abs(np.log(np.exp(fitted.p[:, [first, other]]) / world.known.rates)).mean(axis=0)
    fresh = np.random.default_rng(99).dirichlet(np.full(DOMAINS, 0.7), 200)
    truth = world.at_scale(*FULL).truth(fresh, fresh)
    said = fitted.predict(fresh, *FULL).mean
    order = diagnostics.spearman(truth.mean(axis=1), said.mean(axis=1))
    return float(off[0]), float(off[1]), float(np.abs(said / truth - 1).mean()), 1 - order


def compared(law: str, draws: int, uneven: float) -> dict[str, Mapping[str, float]]:
    """Each figure by ends and with curves, and its paired improvement (90 % interval)."""
    table = []
    for draw in range(draws):
        world, runs = made(draw, uneven)
        table.append([judged(world, law, part, draw) for part in (runs.ends, runs)])
    values = np.array(table)
    found = {}
    for i, name in enumerate(FIGURES):
        gain = diagnostics.paired_mean((values[:, 0, i] - values[:, 1, i]).tolist())
        ends, curves = (float(x) for x in values[:, :, i].mean(axis=0))
        found[name] = {
            "ends": ends, "curves": curves, "gain": gain.mean, "low": gain.low, "high": gain.high
        }  # fmt: skip
        print(
            f"{law}, uneven {uneven:g}, {name}: {ends:.4f} by ends, {curves:.4f} with curves, "
            f"better by {gain.mean:+.4f} ({gain.low:+.4f} to {gain.high:+.4f})",
            flush=True,
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=6)
    parser.add_argument("--law", default="joint", choices=("joint", "additive"))
    given = parser.parse_args()
    found = {
        name: compared(given.law, given.draws, uneven)
        for name, uneven in (("even", 0.0), ("uneven", 0.3))
    }
    print(json.dumps({"law": given.law, "draws": given.draws, **found}))


if __name__ == "__main__":
    main()
