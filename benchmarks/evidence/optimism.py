"""What a law promises of the mixture that it chose, and what the second law says, against truth.

A study is a design of `regmix` (Dirichlet, two anchors under three seeds) in a world of one of six
forms, the same for every law. Each law is fitted and searched; what it predicts that its choice
gains over the natural mixture stands beside the true gain, and so does what the default law
predicts, fitted to the same runs, with its 90 % interval (`mixtures.inference.optimism`). The
default law's own gain is not corrected. LightGBM, which takes most of the time, has every tenth
round of forms.
"""

import time
from pathlib import Path
from typing import Any

import numpy as np

from cuvee.mixtures import loop, worlds
from cuvee.mixtures.domains import Array
from cuvee.mixtures.inference.dataset import gather_runs
from cuvee.mixtures.inference.optimism import posterior_gains
from cuvee.mixtures.inference.optimum import objective_levels, search_law
from cuvee.mixtures.laws import Law, posterior_draws
from cuvee.mixtures.registry import build
from evidence.csv_rows import append_rows, lacking, read_rows

MINUTES = 40.0
STUDIES, DRAWS, NAMES = 400, 60, ("recommended", "natural")
FORMS = ("additive", "interacting", "learning", "repeating", "noisy", "scaled")
SIZES = ((4, 16), (4, 32), (4, 64), (6, 24), (6, 32), (6, 64), (8, 24), (8, 32), (8, 64),
         (12, 32), (12, 48), (12, 64))  # fmt: skip  # domains and runs
SEARCHES = {"kriging": "simulate", "log_linear": "auto", "lightgbm": "simulate"}
REPEATS = 6  # runs of the two anchors


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
    trees = (study // len(FORMS)) % 10 == 2
    return ("kriging", "log_linear", *(("lightgbm",) if trees else ()))


def study_rows(study: int) -> list[dict[str, Any]]:
    """A row for each law: the true gain over natural, the law's own, and the second law's."""
    form = FORMS[study % len(FORMS)]
    size, runs = SIZES[np.random.default_rng([17, study]).integers(len(SIZES))]
    world = world_of(form, size, 1000 + study)
    problem = worlds.world_problem(world)
    design = build("method", {"name": "regmix", "laws": ["kriging"], "runs": runs - REPEATS})
    history = tuple(world(design.ask(problem, (), loop.generator(study, 0))))
    found = gather_runs(problem, history)
    posed, every = (found.problem, found.restricted.bounds), np.arange(len(history))

    def fitted(law: Law) -> Any:
        return found.restricted.fit(law, every, np.random.default_rng([study, 5]))

    second = fitted(build("law", "default"))
    drawn = posterior_draws(second, DRAWS, np.random.default_rng([study, 8])) or []
    rows = []
    for name in laws_of(study):
        folds = {"folds": 2} if name == "lightgbm" else {}  # of deviations, which none reads here
        law = second if name == "kriging" else fitted(build("law", {"name": name, **folds}))
        chosen, _ = search_law(law, build("search", SEARCHES[name]), found.problem, 3)
        points = np.vstack([chosen, problem.domains.natural])
        own = objective_levels(law, points, posed)[0]
        levels = np.array([objective_levels(one, points, posed)[0] for one in (second, *drawn)])
        gain = posterior_gains(NAMES, levels[0], levels[1:])[0][1]
        rows.append(
            {"study": study, "form": form, "domains": size, "runs": len(history), "law": name}
            | {"true": true_gain(world, problem, points), "own": float(own[1] - own[0])}
            | {"second": gain.mean, "low": gain.low, "high": gain.high}
        )
    return rows


def true_gain(world: Any, problem: Any, points: Array) -> float:
    """Of the first mixture over the second, without noise."""
    return world.regret(problem, points[1]) - world.regret(problem, points[0])


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
    """`optimism_before` and `optimism_after`, over all studies and by law."""
    path, begin = out / "optimism.csv", time.monotonic()
    cells = [{"study": study} for study in range(STUDIES)]
    for cell in lacking(path, cells):
        if time.monotonic() - begin > 60 * minutes:
            break
        append_rows(path, study_rows(int(cell["study"])))
    rows = read_rows(path)
    groups = {"all": rows} | {
        law: [row for row in rows if row["law"] == law]
        for law in SEARCHES
        if sum(row["law"] == law for row in rows) > 1
    }
    whole = not lacking(path, cells)
    return {
        f"optimism_{when}": {"whole": whole}
        | {name: figures(own, column) for name, own in groups.items()}
        for when, column in (("before", "own"), ("after", "second"))
    }
