"""A small study from tables, for tests of what an approval of it holds for."""

import functools
import tempfile
from pathlib import Path

import numpy as np

from cuvee.flows.recipe.load import parse
from cuvee.flows.recipe.schema import Recipe
from cuvee.flows.study.table_problem import from_tables
from cuvee.flows.workspace import Workspace
from cuvee.mixtures import loop
from cuvee.mixtures.recommendation import Recommendation
from cuvee.tasks.store.results import Store
from cuvee.tasks.study import finished
from cuvee.tasks.study.study import Study

FIELDS = {
    "name": "given",
    "objective": "{name: mean, weights: {math: 1, qa: 1}}",
    "full_scale": "{tokens: 1B}",
    "method": "{name: regmix, laws: [linear], search: simulate}",
}


def write(folder: Path, shift: float = 0.0) -> None:
    """Two tables; shifted scores give the same answer."""
    shares = np.random.default_rng(0).dirichlet([1, 1], 24)
    scores = 2 - shares**0.5 + shift
    for name, columns, rows in (("m", "web,code", shares), ("s", "math,qa", scores)):
        lines = [f"r{i},{a!r},{b!r}" for i, (a, b) in enumerate(rows.tolist())]
        (folder / f"{name}.csv").write_text("\n".join([f"run,{columns}", *lines]) + "\n")


def text(folder: Path, **changes: str) -> str:
    """The recipe; `changes` replaces whole fields, or adds some."""
    tables = f"{{mixtures: {folder}/m.csv, scores: {folder}/s.csv}}"
    fields = {**FIELDS, "tables": tables, **changes}
    return "".join(f"{name}: {value}\n" for name, value in fields.items())


@functools.cache
def answer(objective: str) -> Recommendation:
    """What is recommended; computed once, since neither name nor budget nor a shift moves it."""
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder))
        recipe = parse(text(Path(folder), objective=objective))
        problem, history = from_tables(recipe)
        rng = loop.generator(recipe.seed, len(history))
        return recipe.build_method().recommend(problem, history, rng)


def fit(folder: Path, home: Workspace, **changes: str) -> Recipe:
    """Keep the card of a fit, as `cuvee fit` does, without a report; returns the recipe."""
    written = text(folder, **changes)
    recipe = parse(written)
    problem, history = from_tables(recipe)
    study = Study(
        recipe.name,
        written,
        problem,
        answer(changes.get("objective", FIELDS["objective"])),
        history,
        available={},
    )
    card = finished.to_finished_study(study, recipe.digest, recipe.purpose)
    finished.save_finished(Store(home.store), card)
    return recipe
