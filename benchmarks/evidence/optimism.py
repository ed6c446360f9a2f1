"""What a law promises of the mixture that it chose, and what the second law says, against truth.

A study is a design of `regmix` (Dirichlet, two anchors under three seeds) in a world of one of six
forms, the same for every law. Each law is fitted and searched; what it predicts that its choice
gains over the natural mixture stands beside the true gain, and so does what the default law
predicts, fitted to the same runs, with its 90 % interval (`mixtures.inference.optimism`). The
default law's own gain is not corrected. LightGBM, which takes most of the time, has three of ten
rounds of forms. `FRESH` studies of the default law alone, whose worlds nothing was chosen by, say
whether what the others show of it holds. `WHOLE` studies more, in worlds that no other has, go
through `draft_answer` as a user's do, with three laws; the best in cross-validation chooses.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from cuvee.mixtures import loop, worlds
from cuvee.mixtures.domains import Array
from cuvee.mixtures.inference.dataset import gather_runs
from cuvee.mixtures.inference.optimum import draw_interval, objective_levels, search_law
from cuvee.mixtures.inference.recommend import draft_answer
from cuvee.mixtures.laws import Law, posterior_draws
from cuvee.mixtures.registry import build
from evidence.csv_rows import append_rows, lacking, read_rows

MINUTES = 60.0
STUDIES, DRAWS = 400, 60
FORMS = ("additive", "interacting", "learning", "repeating", "noisy", "scaled")
SIZES = ((4, 16), (4, 32), (4, 64), (6, 24), (6, 32), (6, 64), (8, 24), (8, 32), (8, 64),
         (12, 32), (12, 48), (12, 64))  # fmt: skip  # domains and runs
SEARCHES = {"kriging": "simulate", "log_linear": "auto", "lightgbm": "simulate"}
REPEATS = 6  # runs of the two anchors
FRESH, FIRST_FRESH = 240, 10_000  # studies of the default law alone, and the number of the first
WHOLE, FIRST_WHOLE = 60, 20_000  # studies through `draft_answer`


def world_of(form: str, size: int, seed: int) -> Any:
    """A world of a form, with noise over seeds of 0.01 bits per byte, twice that at a vertex;
    `noisy` has three times as much, and twelve times at a vertex."""
    truth: Any = worlds.Additive(size=size, count=4, seed=seed)
    if form == "noisy":
        return worlds.Noisy(truth, sd=0.03, spread=3.0)
    made = {
        "additive": lambda: truth,
        "interacting": lambda: worlds.Interacting(truth, seed=seed),
        "learning": lambda: worlds.Learning(size=size, seed=seed),
        "repeating": lambda: worlds.Repeating(truth, price=0.2, free=0.1),
        "scaled": lambda: worlds.Scaled(size=size, count=4, seed=seed),
    }
    return worlds.Noisy(made[form](), sd=0.01)


def laws_of(study: int) -> tuple[str, ...]:
    """Names of the laws that a study is asked of."""
    trees = (study // len(FORMS)) % 10 in (2, 4, 7)
    return ("kriging", "log_linear", *(("lightgbm",) if trees else ()))


def world_runs(study: int) -> tuple[dict[str, Any], Any, Any, tuple[Any, ...]]:
    """What a study is, its world, its problem and the runs that every law sees."""
    form = FORMS[study % len(FORMS)]
    size, runs = SIZES[np.random.default_rng([17, study]).integers(len(SIZES))]
    world = world_of(form, size, 1000 + study)
    problem = worlds.world_problem(world)
    design = build("method", {"name": "regmix", "laws": ["kriging"], "runs": runs - REPEATS})
    history = tuple(world(design.ask(problem, (), loop.generator(study, 0))))
    named = {"study": study, "form": form, "domains": size, "runs": len(history)}
    return named, world, problem, history


def study_row(study: int, law: str) -> dict[str, Any]:
    """The true gain over natural of what a law chose, the law's own, and the second law's."""
    named, world, problem, history = world_runs(study)
    found = gather_runs(problem, history)
    posed, every = (found.problem, found.restricted.bounds), np.arange(len(history))

    def fitted(asked: Law) -> Any:
        return found.restricted.fit(asked, every, np.random.default_rng([study, 5]))

    second = fitted(build("law", "default"))
    drawn = posterior_draws(second, DRAWS, np.random.default_rng([study, 8])) or []
    folds = {"folds": 2} if law == "lightgbm" else {}  # of deviations, which none reads here
    chooser = second if law == "kriging" else fitted(build("law", {"name": law, **folds}))
    chosen, _ = search_law(chooser, build("search", SEARCHES[law]), found.problem, 3)
    points = np.vstack([chosen, problem.domains.natural])
    own = objective_levels(chooser, points, posed)[0]
    levels = np.array([objective_levels(one, points, posed)[0] for one in (second, *drawn)])
    gains = levels[:, 1] - levels[:, 0]
    gain = draw_interval(gains[0], gains[1:])
    return (
        named
        | {"law": law, "true": true_gain(world, problem, points), "own": float(own[1] - own[0])}
        | {"second": gain.mean, "low": gain.low, "high": gain.high}
    )


def whole_row(study: int) -> dict[str, Any]:
    """The same of a recommendation as a user gets it, from the best of three laws."""
    named, world, problem, history = world_runs(study)
    method = build("method", {"name": "regmix", "laws": list(SEARCHES), "refits": 10})
    answer = draft_answer(method, problem, history, loop.generator(study, 1))
    gain = dict(answer.gains)["natural"]
    own = dict(answer.optimism.own)["natural"] if answer.optimism else gain
    points = np.array([answer.weights, problem.domains.natural])
    law = next(one.law for one in answer.laws if one.chosen)
    return (
        named
        | {"law": law, "true": true_gain(world, problem, points), "own": own.mean}
        | {"second": gain.mean, "low": gain.low, "high": gain.high}
    )


def true_gain(world: Any, problem: Any, points: Array) -> float:
    """Of the first mixture over the second, without noise, at the size and tokens of the runs: a
    world's regret is that at full scale, of which a law of mixtures says nothing."""
    epochs = problem.domains.epochs(points, problem.full_tokens)
    first, second = world.truth(points, epochs).mean(axis=1)  # worlds' objective is the plain mean
    return float(second - first)


def figures(rows: list[dict[str, Any]], column: str) -> dict[str, Any]:
    """Mean error of predicted gains, its standard error and part of the mean gain, and coverage."""
    true, said, low, high = (
        np.array([float(row[name]) for row in rows]) for name in ("true", column, "low", "high")
    )
    errors = said - true
    inside = (low <= true) & (true <= high)
    return {
        "studies": len(rows),
        "gain": round(float(true.mean()), 5),
        "error": round(float(errors.mean()), 5),
        "standard_error": round(float(errors.std(ddof=1) / len(rows) ** 0.5), 5),
        "part": round(float(errors.mean() / true.mean()), 4),
    } | ({"coverage": round(float(inside.mean()), 3)} if column == "second" else {})


def run(out: Path, minutes: float) -> dict[str, Any]:
    """`optimism_before` and `optimism_after`, over all studies, by law, and by law and form;
    `optimism_fresh` of the default law, and `optimism_whole` as a user gets recommendations."""
    end, found = time.monotonic() + 60 * minutes, {}
    cells = [{"study": study, "law": law} for study in range(STUDIES) for law in laws_of(study)]
    rows, whole = measured(out / "optimism.csv", cells, study_row, end)
    for when, column in (("before", "own"), ("after", "second")):
        found[f"optimism_{when}"] = {"whole": whole} | by_law(rows, column)
    cells = [{"study": FIRST_FRESH + study, "law": "kriging"} for study in range(FRESH)]
    rows, whole = measured(out / "optimism_fresh.csv", cells, study_row, end)
    found["optimism_fresh"] = {"whole": whole} | by_law(rows, "second")
    cells = [{"study": FIRST_WHOLE + study} for study in range(WHOLE)]
    rows, whole = measured(out / "optimism_whole.csv", cells, whole_row, end)
    return found | {"optimism_whole": {"whole": whole} | by_law(rows, "second")}


def measured(
    path: Path, cells: list[dict[str, Any]], row: Callable[..., dict[str, Any]], end: float
) -> tuple[list[dict[str, Any]], bool]:
    """The rows of cells, measured until a time where the file lacks them, and whether all are."""
    for cell in lacking(path, cells):
        if time.monotonic() > end:
            break
        append_rows(path, [row(**cell)])
    return read_rows(path), not lacking(path, cells)


def by_law(rows: list[dict[str, Any]], column: str) -> dict[str, Any]:
    """Figures over all rows, by law, and by law and form."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        for name in ("all", row["law"], f"{row['law']}/{row['form']}"):
            groups.setdefault(name, []).append(row)
    return {name: figures(own, column) for name, own in groups.items() if len(own) > 1}
