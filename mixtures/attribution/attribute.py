"""Attribution of a study: runs that leave domains out, the law's Shapley values, how they agree."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from cuvee.mixtures import simplex
from cuvee.mixtures.attribution.law_shapley import law_shapley
from cuvee.mixtures.attribution.leave_out import leave_out_worths, left_out
from cuvee.mixtures.domain_worth import Attribution, LeaveOut, ShapleyWorth, Worth
from cuvee.mixtures.domains import Array
from cuvee.mixtures.inference.dataset import Dataset, gather_runs
from cuvee.mixtures.inference.diagnostics import spearman
from cuvee.mixtures.inference.held_out import rank_interval
from cuvee.mixtures.laws import Law
from cuvee.mixtures.objectives import OBJECTIVE
from cuvee.mixtures.problem import Problem
from cuvee.mixtures.recommendation import LEVEL, Recommendation
from cuvee.mixtures.runs.run_results import History, RunResult, finished_runs

LEAST = 5  # domains from which an agreement has an interval
MOST = 1 - 1e-6  # of a correlation whose z is finite


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
    fit_rng, shapley_rng = rng.spawn(2)
    chosen = next(one.law for one in answer.laws if one.chosen)
    law = next(law for law in laws if law.name == chosen)
    apart = _others(problem, found.runs, shares, law.rows(len(shares)))
    seen = apart or found
    fitted = seen.sample.fit(law, np.arange(len(seen.sample.W)), fit_rng)
    shapley = law_shapley(seen, law, fitted, shares, shapley_rng)
    told_law = "Shapley values of the law" + ("" if apart else ", which was fitted to these runs")
    sides: list[tuple[str, LeaveOut | ShapleyWorth]] = [
        *((f"left out {one.said}", one) for one in measured),
        (told_law, shapley),
    ]
    agreements = tuple(
        (f"{first} and {second}", rank_agreement(one, other))
        for i, (first, one) in enumerate(sides)
        for second, other in sides[i + 1 :]
        if set(one.domains) & set(other.domains)
    )
    columns = (OBJECTIVE, *problem.targets)
    told = Attribution(tuple(map(float, shares)), columns, measured, shapley, agreements)
    return replace(answer, attribution=told)


def _others(
    problem: Problem, runs: Sequence[RunResult], mixture: Array, least: int
) -> Dataset | None:
    """The runs that leave no domain or pair of a mixture (K,) out: what a law fitted to them says
    of these is no echo. None where they are of fewer than `least` mixtures."""
    rest = tuple(r for r in runs if len(left_out(problem, mixture, r.spec)[1]) not in (1, 2))
    count = len(set(simplex.group_rows([run.spec.weights for run in rest]))) if rest else 0
    return gather_runs(problem, rest) if count >= least else None


def rank_agreement(one: LeaveOut | ShapleyWorth, other: LeaveOut | ShapleyWorth) -> Worth:
    """Rank correlation over the domains of both, mean of the targets; the objective is left out,
    which is made of the targets. Below `LEAST` domains nothing is known of its error."""
    first, second = (dict(zip(side.domains, side.worths, strict=True)) for side in (one, other))
    names = [name for name in first if name in second]
    a, b = (np.array([[w.mean for w in side[n][1:]] for n in names]) for side in (first, second))

    def mean(rows: Sequence[int]) -> float:
        return float(np.mean([spearman(x, y) for x, y in zip(a[rows].T, b[rows].T, strict=True)]))

    every = range(len(names))
    whole = mean(every)
    if len(names) < LEAST:
        return Worth(whole, -1.0, 1.0)
    return jackknifed_rank(whole, [mean([i for i in every if i != k]) for k in every])


def jackknifed_rank(whole: float, without: Sequence[float]) -> Worth:
    """A rank correlation with its interval at `LEVEL`, from the same without each of n units.

    Student's t on the pseudo-values of Fisher's z, n z - (n - 1) z_i (Tukey 1958): of agreements
    that were simulated over 5 to 12 domains it held the truth in 85 to 94 %. Where no unit changes
    anything (an order without a mistake), that of Bonett and Wright for one pair of vectors.
    """
    from scipy import stats  # here: see `simplex`

    n = len(without)
    z, others = (np.arctanh(np.clip(r, -MOST, MOST)) for r in (whole, np.array(without)))
    values = n * z - (n - 1) * others
    half = stats.t.ppf((1 + LEVEL) / 2, n - 1) * values.std(ddof=1) / np.sqrt(n)
    low, high = np.tanh([values.mean() - half, values.mean() + half]).tolist()
    if half < 1e-9:
        low, high = rank_interval(whole, n)
    return Worth(whole, min(low, whole), max(high, whole))
