"""Worlds of several truths as tables: each draw is a world of its own, with its design and noise.

`additive` is the log-linear law's own form and `learning` near the power laws'; the others are the
form of no law: synergies of pairs, the joint law of scale with a power of each share, prices of
repetition with a kink, and all of it at once. Order and regret are judged by the truth, errors and
coverage by noisy scores; the noise floor is known.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from cuvee.mixtures import worlds
from cuvee.mixtures.domains import Array
from mixbench.tables import Runs, Table

SIZE, TARGETS, SD = 6, 4, 0.01
POOL, TEST = 128, 256
TRUTH = "truth"  # what a world is judged on: mixtures that none is fitted to
TOKENS = 8_000_000  # of a run where repetition has its price; the smallest domain has a million

TRUTHS: dict[str, Callable[[int], Any]] = {
    "additive": lambda seed: worlds.Additive(size=SIZE, count=TARGETS, seed=seed),
    "learning": lambda seed: worlds.Learning(size=SIZE, seed=seed),
    "interacting": lambda seed: worlds.Interacting(
        worlds.Additive(size=SIZE, count=TARGETS, seed=seed), seed=seed
    ),
    "scaled": lambda seed: worlds.Scaled(size=SIZE, count=TARGETS, seed=seed),
    "repeating": lambda seed: worlds.Repeating(
        worlds.Interacting(worlds.Learning(size=SIZE, seed=seed), seed=seed), free=1.0
    ),
}


@dataclass(frozen=True)
class WorldTable:
    """A truth whose every draw is another world.

    Attributes:
        truth: key of `TRUTHS`.
    """

    truth: str

    def at(self, draw: int) -> Table:
        """The table of a draw."""
        world = world_of(self.truth, draw)
        rng = np.random.default_rng([draw, 11])
        floor = world.noise(np.full((1, SIZE), 1 / SIZE))[0]
        return Table(
            name=f"world-{self.truth}",
            source="worlds",
            targets=worlds.world_targets(world),
            pool=runs_of(world, POOL, rng),
            tests={TRUTH: runs_of(world, TEST, rng)},
            floor=floor,
        )


def world_of(truth: str, seed: int) -> Any:
    """A noisy world of a truth."""
    return worlds.Noisy(TRUTHS[truth](seed), sd=SD)


def runs_of(world: Any, count: int, rng: np.random.Generator) -> Runs:
    """Runs of mixtures drawn at several concentrations."""
    spread = rng.choice([0.5, 1.0, 2.0], size=count)
    W = np.array([rng.dirichlet(np.full(SIZE, a)) for a in spread])
    truth = world.truth(W, worlds.world_domains(world).epochs(W, TOKENS))
    Y = truth + world.noise(W) * rng.standard_normal(truth.shape)
    return Runs(tuple(map(str, range(count))), W, Y, truth)


def world_tables() -> dict[str, WorldTable]:
    """Tables of all truths by name."""
    return {f"world-{truth}": WorldTable(truth) for truth in TRUTHS}


def epochs_of(world: Any, W: Array) -> Array:
    """Passes (n, K) of the mixtures that runs of these tables have."""
    return np.asarray(worlds.world_domains(world).epochs(W, TOKENS))
