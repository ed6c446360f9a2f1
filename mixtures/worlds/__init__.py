"""Worlds: synthetic trainers with a known optimum, for tests and for trying methods at no cost.

A world answers specs as a trainer does, so that the loop that is tested is the loop that runs:

    world = Noisy(world=Additive())
    recommendation, history = search(method, world_problem(world), world, seed=0)
    world.regret(world_problem(world), recommendation.weights)

`Additive` is the truth of the log-linear law, `Learning` one of skills that teach each other;
`Scaled` is the truth of the joint scaling law, with a best mixture that moves with scale;
`Interacting`, `Noisy` and `Repeating` wrap a world and add what real corpora do: synergies, noise
that differs over the simplex, and the price of repetition; `Itemized` measures a world on items,
`ExtraDomain` adds a copied domain, or one of noise. In `Recency` the order of training matters.
Optima are found by brute force and a local solver on the truth itself, without the searches that
they are to judge.
"""

from cuvee.mixtures.worlds.additive import Additive
from cuvee.mixtures.worlds.extra_domain import ExtraDomain
from cuvee.mixtures.worlds.itemized import Itemized
from cuvee.mixtures.worlds.learning import Learning
from cuvee.mixtures.worlds.recency import Recency
from cuvee.mixtures.worlds.scaled import Scaled
from cuvee.mixtures.worlds.truth import World, world_domains, world_problem, world_targets
from cuvee.mixtures.worlds.wrappers import Interacting, Noisy, Repeating

__all__ = [
    "Additive",
    "ExtraDomain",
    "Interacting",
    "Itemized",
    "Learning",
    "Noisy",
    "Recency",
    "Repeating",
    "Scaled",
    "World",
    "world_domains",
    "world_problem",
    "world_targets",
]
