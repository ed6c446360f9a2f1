"""Attribution of a study: runs that leave domains out, the law's Shapley values, how they agree."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cuvee.mixtures.attribution.law_shapley import law_shapley
from cuvee.mixtures.attribution.leave_out import leave_out_worths
from cuvee.mixtures.domain_worth import Attribution, LeaveOut, ShapleyWorth, Worth
from cuvee.mixtures.domains import Array
from cuvee.mixtures.inference.dataset import gather_runs
from cuvee.mixtures.inference.diagnostics import spearman
from cuvee.mixtures.laws import Law
from cuvee.mixtures.objectives import OBJECTIVE
from cuvee.mixtures.problem import Problem
from cuvee.mixtures.recommendation import Recommendation
from cuvee.mixtures.runs.run_results import History, finished_runs

RESAMPLES = 200  # of the domains, behind the interval of an agreement


def with_attribution(
    answer: Recommendation,
    laws: Sequence[Law],
    problem: Problem,
    history: History,
    rng: np.random.Generator,
    *,
    mixture: Array | None = None,
) -> Recommendation:
    """A recommendation that rests on one of the laws, with what each domain is worth, where runs of
    the history leave some out of a mixture (K,); of the natural one where none is given."""
    found = gather_runs(problem, history)
    shares = problem.domains.natural if mixture is None else mixture
    measured = leave_out_worths(problem, finished_runs(history), shares, found)
    if not measured:
        return answer
    fit_rng, shapley_rng, agree_rng = rng.spawn(3)
    chosen = next(one.law for one in answer.laws if one.chosen)
    law = next(law for law in laws if law.name == chosen)
    fitted = found.sample.fit(law, np.arange(len(found.sample.W)), fit_rng)
    shapley = law_shapley(found, law, fitted, shares, shapley_rng)
    sides: list[tuple[str, LeaveOut | ShapleyWorth]] = [
        *((f"left out {one.said}", one) for one in measured),
        ("Shapley values of the law", shapley),
    ]
    agreements = tuple(
        (f"{first} and {second}", rank_agreement(one, other, agree_rng))
        for i, (first, one) in enumerate(sides)
        for second, other in sides[i + 1 :]
    )
    columns = (OBJECTIVE, *problem.targets)
    told = Attribution(tuple(map(float, shares)), columns, measured, shapley, agreements)
    return replace(answer, attribution=told)


def rank_agreement(
    one: LeaveOut | ShapleyWorth, other: LeaveOut | ShapleyWorth, rng: np.random.Generator
) -> Worth:
    """Rank correlation over the domains of both, mean of the targets, with a 90 % interval of
    bootstrap samples of the domains; the objective is left out, which is made of the targets."""
    first, second = (dict(zip(side.domains, side.worths, strict=True)) for side in (one, other))
    names = [name for name in first if name in second]
    a, b = (np.array([[w.mean for w in side[n][1:]] for n in names]) for side in (first, second))

    def mean(rows: NDArray[np.int64]) -> float:
        return float(np.mean([spearman(x, y) for x, y in zip(a[rows].T, b[rows].T, strict=True)]))

    drawn = [mean(rng.integers(len(names), size=len(names))) for _ in range(RESAMPLES)]
    middle = mean(np.arange(len(names)))
    low, high = np.quantile([*drawn, middle], [0.05, 0.95]).tolist()
    return Worth(middle, min(low, middle), max(high, middle))
