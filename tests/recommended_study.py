"""A recommended study without training: a real corpus, results from known numbers, a real fit."""

from pathlib import Path

import numpy as np
import tiny_study

from cuvee.flows.recipe.load import parse
from cuvee.flows.recipe.schema import Recipe
from cuvee.flows.study import prepare as preparing
from cuvee.flows.study.refit import refit
from cuvee.flows.workspace import Workspace
from cuvee.mixtures import loop
from cuvee.mixtures.runs.run_results import RunResult, Score
from cuvee.tasks.store.results import Store

EXPORT = """
  paths: {code: /d/code.jsonl, prose: "s3://b/prose.jsonl", tables: [/d/t.jsonl]}
  tokens: 400k
  sequence_length: 256
  batch: 4
"""


def text(corpus: Path, **changes: str) -> str:
    """The recipe of the tiny study with an `export`, unconfirmed."""
    parts = {"confirm": "null", "export": EXPORT, "objective": OBJECTIVE} | changes
    return tiny_study.recipe(corpus, **parts)


OBJECTIVE = "{name: mean, weights: {domain/prose: 1, domain/code: 1, domain/tables: 1}}"


def make(corpus: Path, home: Workspace, **changes: str) -> Recipe:
    """Put results into the store as if they were trained, and recommend from them."""
    if not corpus.exists():
        tiny_study.write_corpus(corpus)
    recipe_text = text(corpus, **changes)
    recipe = parse(recipe_text)
    prepared = preparing.prepare(recipe, home)
    problem = preparing.pose_problem(recipe, prepared)
    store = Store(home.store)
    for spec in recipe.build_method().ask(problem, (), loop.generator(recipe.seed, 0)):
        noise = np.random.default_rng(spec.seed + int(1e6 * spec.weights[0])).normal(0, 0.01, 3)
        values = 2 - np.sqrt(spec.weights + 0.05) + noise
        scores = {f"domain/{name}": float(v) for name, v in zip(spec.domains, values, strict=True)}
        store.put(RunResult(spec, {name: Score(v, 0.0, 9) for name, v in scores.items()}))
    refit(recipe, recipe_text, home)
    return recipe
