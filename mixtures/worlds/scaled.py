"""The world of the joint scaling law: what size and data are worth depends on the mixture.

Each target's score is

    y_m = E_m + 1 / sum_i C_mi h_i^g_mi + A_m(h) / N^a_m + B_m(h) / D^b_m

with `A_m(h) = (sum_i A_mi h_i)^q` and `B_m` alike, in units of the reference size and tokens
(arXiv 2507.09404, the joint law). Domains that teach a target fast at first need not be those that
teach it most in the end, so that the best mixture moves as N and D grow.
"""

import functools
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from cuvee.mixtures.domains import Array
from cuvee.mixtures.errors import RecipeError
from cuvee.mixtures.registry import register
from cuvee.mixtures.worlds.truth import RUN_TOKENS, Answers

REFERENCE = (1_000_000.0, 10_000_000.0)  # parameters and tokens at which amplitudes are given
SIZES = (
    ("world", 300_000), ("0.3M", 300_000), ("0.6M", 600_000), ("1M", 1_000_000),
    ("2M", 2_000_000), ("4M", 4_000_000), ("30M", 30_000_000),
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Truth:
    """Parameters of the world, as in the module's docstring.

    Attributes:
        floor: E (M,).
        use: C (M, K).
        bend: g (M, K).
        size: A (M, K).
        data: B (M, K).
        rates: a and b (M, 2).
    """

    floor: Array
    use: Array
    bend: Array
    size: Array
    data: Array
    rates: Array


@functools.lru_cache(maxsize=64)
def scaled_truth(size: int, count: int, moves: float, seed: int) -> Truth:
    """The truth of a world: each target is taught by a few domains."""
    rng = np.random.default_rng([seed, size, count, 9])
    use = rng.uniform(0.2, 1.0, (count, size))
    for m in range(count):
        use[m, rng.choice(size, min(2, size), replace=False)] += rng.uniform(1.0, 3.0)
    return Truth(
        floor=rng.uniform(0.6, 1.2, count),
        use=use * rng.uniform(1.0, 2.0, (count, 1)),
        bend=rng.uniform(0.3, 0.8, (count, size)),
        size=0.3 * np.exp(moves * rng.standard_normal((count, size))),
        data=0.3 * np.exp(moves * rng.standard_normal((count, size))),
        rates=np.column_stack([rng.uniform(0.25, 0.4, count), rng.uniform(0.22, 0.35, count)]),
    )


@register("world")
@dataclass(frozen=True)
class Scaled(Answers):
    """The joint law's truth, without noise.

    Attributes:
        size: K domains.
        count: M targets.
        moves: how far what size and data are worth differs between domains; 0 is the additive law.
        sizes: (name, parameters) pairs that specs may name.
        parameters: of the model that is trained; 0 is the first of `sizes`.
        tokens: of the run; 0 is the world's usual.
        seed: of the parameters.
    """

    name: ClassVar[str] = "scaled"

    size: int = 5
    count: int = 3
    moves: float = 0.7
    sizes: tuple[tuple[str, int], ...] = SIZES
    parameters: int = 0
    tokens: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.size < 2 or self.count < 1 or self.moves < 0 or not self.sizes:
            raise RecipeError(
                "a world needs size >= 2, count >= 1, moves >= 0 and some sizes; got "
                f"{self.size}, {self.count}, {self.moves} and {len(self.sizes)} sizes"
            )

    @property
    def known(self) -> Truth:
        """The parameters of the truth."""
        return scaled_truth(self.size, self.count, self.moves, self.seed)

    def at_scale(self, parameters: int, tokens: int, size: str = "") -> "Scaled":
        """The world at one scale; see `truth.at_scale`.

        Raises:
            RecipeError: a size that the world does not know.
        """
        if not parameters and size:
            if size not in dict(self.sizes):
                raise RecipeError(
                    f"this world has no size {size!r}; it has {', '.join(dict(self.sizes))}"
                )
            parameters = dict(self.sizes)[size]
        return replace(self, parameters=parameters or max(n for _, n in self.sizes), tokens=tokens)

    def truth(self, W: Array, epochs: Array) -> Array:
        known = self.known
        n = (self.parameters or self.sizes[0][1]) / REFERENCE[0]
        d = (self.tokens or RUN_TOKENS) / REFERENCE[1]
        taught = (known.use * np.power(W[:, None, :], known.bend)).sum(axis=2)
        a, b = known.rates.T
        by_size = (W @ known.size.T) * n**-a
        by_data = (W @ known.data.T) * d**-b
        return np.asarray(known.floor + 1.0 / taught + by_size + by_data, dtype=np.float64)
