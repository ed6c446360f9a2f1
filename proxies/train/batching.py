"""Which runs can train together, and how many at once on a device."""

from collections.abc import Iterable, Sequence

from cuvee.mixtures.errors import RecipeError
from cuvee.mixtures.runs.run_spec import RunSpec
from cuvee.proxies import ladder

MOST_CPU = 1  # measured: batching a pack's products gains nothing on a core (docs/results)
# Measured on one H200 at 0.6M, 10M and 100M (docs/results/trainer.md), between them assumed.
MOST_CUDA = {
    "0.3M": 64, "0.6M": 64, "1M": 32, "2M": 32, "4M": 16, "10M": 16, "30M": 4, "100M": 2
}  # fmt: skip
# Beside its values, gradients and moments (16 bytes a parameter), a step holds two more gradients
# and a copy of the head. Assumption: a GPU has 16 GB to spare for a pack, activations apart.
PARAMETER_BYTES, PACK_BYTES = 26, 16 << 30


def pack_key(spec: RunSpec) -> tuple[str, int, str, str, float, float, tuple[str, ...]]:
    """What the models of one pack have in common: they take the same steps at the same rates."""
    return (
        spec.size,
        spec.tokens,
        spec.schedule,
        spec.precision,
        spec.rate,
        spec.average,
        tuple(sorted(spec.domains)),
    )


def pack_limit(size: str, device: str, vocabulary: int = ladder.VOCABULARY) -> int:
    """Models of a size that a device trains best at once, fewer where a vocabulary fills memory."""
    if not device.startswith("cuda"):
        return MOST_CPU
    each = PARAMETER_BYTES * ladder.model_size(size).parameters(vocabulary)
    return max(1, min(MOST_CUDA.get(size, 1), PACK_BYTES // each))


def group_into_packs(
    specs: Iterable[RunSpec],
    device: str = "cpu",
    limit: int | None = None,
    *,
    vocabulary: int = ladder.VOCABULARY,
) -> list[list[RunSpec]]:
    """Specs in packs, each of runs that can train together; order is kept within and between.

    Args:
        specs: what to train.
        device: "cpu" or "cuda...".
        limit: models of a pack; what suits device, size and vocabulary when None.
        vocabulary: tokens of the tokenizer.

    Raises:
        RecipeError: the limit is below 1.
    """
    if limit is not None and limit < 1:
        raise RecipeError(f"a pack holds at least 1 model; got a limit of {limit}")
    groups: dict[tuple[object, ...], list[RunSpec]] = {}
    for spec in specs:
        groups.setdefault(pack_key(spec), []).append(spec)
    result = []
    for members in groups.values():
        size = limit or pack_limit(members[0].size, device, vocabulary)
        result += [members[i : i + size] for i in range(0, len(members), size)]
    return result


def require_one_pack(specs: Sequence[RunSpec]) -> None:
    """Check that specs form a pack.

    Raises:
        RecipeError: there are none, or two differ in what a pack shares.
    """
    if not specs:
        raise RecipeError("a pack needs at least one run")
    for spec in specs[1:]:
        if pack_key(spec) != pack_key(specs[0]):
            raise RecipeError(
                "runs of one pack share size, tokens, schedule, precision, rate, average and "
                f"domains; got {pack_key(specs[0])[:6]} and {pack_key(spec)[:6]}: "
                "group them with batching.group_into_packs"
            )
