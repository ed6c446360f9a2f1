"""Searches: what the mixture that each finds is truly worth, given the same fitted law.

On worlds, whose optimum is known: a law is fitted once a draw, and every registered search that
takes it looks for the lowest predicted mean of the targets. `best run` is the best of the runs that
the law was fitted to. Regret is how much worse the mixture truly is than the world's optimum;
seconds are those of the search alone.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from cuvee.mixtures import worlds
from cuvee.mixtures.catalog import catalog
from cuvee.mixtures.errors import CuveeError
from cuvee.mixtures.registry import build
from cuvee.mixtures.searches import score
from mixbench.contestants import drawn_within, fitted, law_of, timed
from mixbench.truths import TOKENS, WorldTable, world_of

BEST_RUN = "best run"


def optimizers() -> tuple[str, ...]:
    """Searches for the lowest objective: those that a recipe need not tell what to reach."""
    asked = {one.name: any(field.required for field in one.fields) for one in catalog("search")}
    return tuple(name for name, needed in asked.items() if not needed)


def one_draw(law: str, table: WorldTable, rows: int, draw: int) -> Mapping[str, Any]:
    """Regret and seconds of every search on one world."""
    world = world_of(table.truth, draw)
    problem = worlds.world_problem(world, full_tokens=TOKENS)
    runs = table.at(draw).pool.take(range(rows))
    model, seconds = fitted(law_of(law), runs, [draw, rows])
    reference = model.predict(problem.domains.natural[None]).mean[0]
    best = runs.W[int(np.argmin(runs.Y.mean(axis=1)))]
    judged = {BEST_RUN: {"regret": world.regret(problem, best), "seconds": 0.0}}
    for name in optimizers():
        search = build("search", name)
        if search.convex_only and score.exponential(model) is None:
            continue
        rng = np.random.default_rng([draw, 51])
        weights, spent = timed(lambda s=search, r=rng: s.choose(model, problem, reference, r))
        judged[name] = {"regret": world.regret(problem, weights), "seconds": spent}
    return {"seconds": seconds, "judged": judged}


def cell_draws(law: str, table: WorldTable, rows: int, **limits: Any) -> Any:
    """A cell of searches under one law, or why there is none."""
    try:
        law_of(law)
    except CuveeError as error:
        return {"refused": str(error)}
    return drawn_within(lambda draw: one_draw(law, table, rows, draw), **limits)
