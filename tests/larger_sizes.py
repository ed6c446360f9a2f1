"""A confirmation at a larger size, trained in the world of the synthetic study."""

from dataclasses import replace

from synthetic_study import World

from cuvee.flows.recipe.aim_parts import ConfirmPart, SizePart
from cuvee.mixtures.runs.run_results import Failed

SEEDS = (101, 102, 103)
PART = ConfirmPart(sizes=[SizePart(size="1M", tokens=5_000_000)])


class Trainer:
    """Trains in the world of the synthetic study; gains shrink with the size by a known factor."""

    def __init__(self, problem, *, lost=()):
        self.world, self.lost, self.calls = World(problem), set(lost), []

    def __call__(self, specs, title="", role=""):
        self.calls.append(tuple(specs))
        return [self._one(spec) for spec in specs]

    def _one(self, spec):
        if (spec.size, spec.seed) in self.lost:
            return Failed(spec, "the loss became NaN")
        run = self.world.run(spec.weights, spec.seed)
        return replace(run, spec=spec, flops=1e12 * spec.tokens / 500_000)
