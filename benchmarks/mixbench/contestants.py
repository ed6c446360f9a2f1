"""Contestants: registered laws, laws with settings, and laws of one's own file; one cell of each.

A cell is a law on a table, a split and a number of rows; its draws are what intervals are over.
"""

import importlib.util
import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cuvee.mixtures import simplex
from cuvee.mixtures.errors import CuveeError, RecipeError
from cuvee.mixtures.inference.diagnostics import pooled_deviation
from cuvee.mixtures.laws import FittedLaw, Law, Prediction
from cuvee.mixtures.registry import build, lookup, names
from mixbench.judge import Judge
from mixbench.splits import Trial, trials
from mixbench.tables import Runs, Table

HELD = "held out"  # what a table without tests is judged on
FEWEST = 2  # draws, however long they take


def laws_of(path: Path) -> list[str]:
    """Names of the laws that a file registers.

    Raises:
        RecipeError: the file is not there, or registers none.
    """
    name = f"law_file_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise RecipeError(f"no Python file {path}")
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    own = [law for law in names("law") if lookup("law", law).__module__ == name]
    if not own:
        raise RecipeError(
            f"{path} registers no law: write the class under @register('law') with a name of its "
            "own, as docs/how-to/add-a-law.md shows"
        )
    return own


def law_of(text: str) -> Law:
    """A law by its name, or by a JSON mapping with `name` and settings."""
    law: Law = build("law", json.loads(text) if text.startswith("{") else text)
    return law


def fitted(law: Law, runs: Runs, seed: list[int]) -> tuple[FittedLaw, float]:
    """A law fitted to runs, with the noise that their repeats show, and its processor seconds."""
    deviation, degrees = pooled_deviation(runs.Y, simplex.group_rows(runs.W))
    noise = deviation if degrees else np.zeros(runs.Y.shape[1])
    return timed(lambda: law.fit(runs.W, runs.Y, noise, np.random.default_rng(seed)))


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """What a call gives, and its processor seconds."""
    begin = time.process_time()
    return work(), time.process_time() - begin


def checked(found: Prediction) -> Prediction:
    """A prediction, if all of it is finite.

    Raises:
        RecipeError: it is not.
    """
    if not (np.all(np.isfinite(found.mean)) and np.all(np.isfinite(found.sd))):
        raise RecipeError("it predicts a number that is not finite")
    return found


class Fits:
    """The last fit of a cell, kept in memory: draws of all rows differ in what is judged alone."""

    def __init__(self, law: Law) -> None:
        self.law, self._key, self._last = law, b"", None

    def of(self, table: Table, trial: Trial, seed: list[int]) -> tuple[FittedLaw, float]:
        runs = table.pool.take(trial.train)
        key = runs.W.tobytes() + runs.Y.tobytes()
        if self._last is None or key != self._key:
            self._key, self._last = key, fitted(self.law, runs, seed)
        return self._last


def one_draw(fits: Fits, judge: Judge, split: str, rows: int, draw: int) -> dict[str, Any]:
    """Figures of one draw by what was judged, with the processor's seconds of a fit."""
    table = judge.table
    judged: dict[str, dict[str, Any]] = {}
    held: list[tuple[np.ndarray, Prediction]] = []
    seconds, seen = [], table.pool.Y
    for trial in trials(table, split, rows, draw):
        model, spent = fits.of(table, trial, [draw, rows])
        seconds.append(spent)
        seen = table.pool.Y[trial.train]
        if trial.held_out is not None:
            held.append((trial.held_out, checked(model.predict(table.pool.W[trial.held_out]))))
        for name, index in trial.tests.items():
            runs = table.tests[name].take(index)
            judged[name] = judge.figures(name, runs, checked(model.predict(runs.W)), seen)
    if held:
        index = np.concatenate([rows for rows, _ in held])
        parts = [found for _, found in held]
        whole = Prediction(np.vstack([p.mean for p in parts]), np.vstack([p.sd for p in parts]))
        judged[HELD] = judge.figures(HELD, table.pool.take(index), whole, seen)
    return {"seconds": float(np.mean(seconds)), "judged": judged}


def cell_draws(
    law: str, judges: Callable[[int], Judge], split: str, rows: int, **limits: Any
) -> dict[str, Any]:
    """A cell of a law: the figures of every draw, or why there are none."""
    try:
        fits = Fits(law_of(law))
    except CuveeError as error:
        return {"refused": str(error)}
    return drawn_within(lambda draw: one_draw(fits, judges(draw), split, rows, draw), **limits)


def drawn_within(
    one: Callable[[int], Mapping[str, Any]], *, draws: int, limit: float
) -> dict[str, Any]:
    """The figures of draws, none begun after so many processor seconds but the first two; or why
    there are none."""
    found: list[Mapping[str, Any]] = []
    begin = time.process_time()
    try:
        for draw in range(draws):
            if draw >= FEWEST and time.process_time() - begin > limit:
                break
            found.append(one(draw))
    except (CuveeError, np.linalg.LinAlgError, FloatingPointError) as error:
        return {"refused": str(error)}
    return {"draws": found}
