"""What methods answer on worlds and on tables, as JSON; `test_portable.py` runs this program under
two instruction sets and compares.

It prints, per study: the runs of the first round, the chosen law, shares, kind of verdict, warnings
without their numbers, and the predicted gain over natural.
"""

import dataclasses
import json
import re
import sys

import numpy as np

from cuvee.mixtures import registry, worlds
from cuvee.mixtures.loop import generator, search
from cuvee.mixtures.runs.run_results import Score
from cuvee.mixtures.worlds import Additive, Interacting, Noisy

QUICK = {"runs": 18, "folds": 3, "refits": 10}
TREES = {"laws": ["lightgbm"], "search": {"name": "simulate", "draws": 4000}}
STUDIES = {
    "laws": {"name": "regmix", "laws": ["log_linear", "power", "linear"], "search": "auto"},
    "flat": {"name": "regmix", "laws": ["mixing_law_m3", "linear"], "search": "auto"},
    "kriging": {"name": "regmix", "laws": ["kriging"], "search": "simulate"},
    "field": {"name": "regmix", "laws": ["gaussian_process"], "search": "mirror"},
    "trees": {"name": "regmix", **TREES},
    "spread": {"name": "regmix", "design": "max_min", "laws": ["saturating_power"]},
    "even": {"name": "regmix", "design": "sobol", "laws": ["linear"], "search": "auto"},
    "optimal": {"name": "mixing_laws", "design": "d_optimal"},
    "olmix": {"name": "olmix"},
    "anneal": {"name": "anneal", "laws": ["log_linear"]},
    "table of ties": {"name": "regmix", "laws": ["log_linear", "linear"], "search": "auto"},
    "table of equals": {"name": "regmix", "laws": ["log_linear", "linear"], "search": "auto"},
}
DIGITS = {"table of ties": 1, "table of equals": -1}  # to which the scores of a table are rounded


def answer(name: str) -> dict[str, object]:
    """One study, from its first round to its verdict."""
    world = Noisy(world=Interacting(world=Additive(size=4, count=2)), sd=0.01)
    problem = worlds.world_problem(world)
    method = registry.build("method", STUDIES[name] | QUICK)
    first = method.ask(problem, (), generator(1, 0))
    if name in DIGITS:
        history = tuple(_rounded(run, DIGITS[name]) for run in world(first))
        found = method.recommend(problem, history, generator(1, len(history)))
    else:
        found, history = search(method, problem, world, 1)
    gain = dict(found.gains)["natural"]
    return {
        "runs": sorted([spec.seed, *np.round(spec.stages[0].weights, 9)] for spec in first),
        "asked": len(history),
        "law": next(law.law for law in found.laws if law.chosen),
        "shares": [float(w) for stage in found.stages for w in stage.weights],
        "verdict": re.sub(r"[-+0-9.e]+", "#", found.verdict),
        "warnings": [re.sub(r"[-+0-9.e]+", "#", line) for line in found.warnings],
        "gain": [gain.mean, gain.low, gain.high],
    }


def _rounded(run, digits):
    scores = {name: Score(round(s.value, digits), 0.0, 1) for name, s in run.scores.items()}
    return dataclasses.replace(run, scores=scores)


if __name__ == "__main__":
    json.dump({name: answer(name) for name in sys.argv[1:] or STUDIES}, sys.stdout)
