"""Recommend: from the runs of a swarm to a recommendation with its uncertainty.

The law is chosen by cross-validation, fitted to all runs, and searched. It is then fitted again to
bootstrap samples of the mixtures, and each refit is searched again: the spread of what they find
is the interval on each share, and the spread of what they predict, taken in pairs, the interval on
each gain. Gains of a choice by any law but the default one are corrected for having been chosen:
`mixtures.inference.optimism`. Intervals on the targets are for one new run: the law's own standard
deviation.
"""

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from cuvee.mixtures import simplex, surface
from cuvee.mixtures.domains import Array
from cuvee.mixtures.inference import diagnostics, outliers, pareto
from cuvee.mixtures.inference.dataset import (
    Dataset,
    best_observed,
    check_folds,
    compare_laws,
    gather_runs,
)
from cuvee.mixtures.inference.evidence_grade import grade_evidence
from cuvee.mixtures.inference.optimism import corrected_gains
from cuvee.mixtures.inference.optimum import (
    Optimum,
    answer_of,
    compared_mixtures,
    search_law,
    search_refits,
)
from cuvee.mixtures.laws import Law, posterior_draws
from cuvee.mixtures.problem import Problem
from cuvee.mixtures.recommendation import Recommendation
from cuvee.mixtures.registry import describe
from cuvee.mixtures.runs.run_results import Failed, History
from cuvee.mixtures.runs.run_spec import canonical_json
from cuvee.mixtures.searches import Search, score

FAST_REFITS, SLOW_REFITS = 50, 10
DRAWS = 100  # of a posterior, behind the intervals of gains; some are searched, as refits are


class LawSettings(Protocol):
    """What a recommendation takes from a method, such as `mixtures.methods.swarm.Swarm`."""

    @property
    def laws(self) -> tuple[Law, ...]: ...

    @property
    def search(self) -> Search: ...

    @property
    def folds(self) -> int: ...

    @property
    def refits(self) -> int | None: ...


def choose_mixture(
    law: Law,
    search: Search,
    found: Dataset,
    baselines: Mapping[str, Array],
    *,
    refits: int | None,
    rng: np.random.Generator,
) -> Optimum:
    """Fit, search, and do both again with the law's posterior draws, or on bootstrap samples.

    The search's generator is the same for every refit, so that what they find differs by the data
    alone. Laws and searches that have a cheaper variant (`coarse()`) use it for the refits, and fit
    everything anew: intervals from refits that keep hyper-parameters are too narrow. A law that can
    be drawn from its own posterior needs no refits, and of more draws than are searched it is asked
    what they predict.
    """
    fit_rng, boot_rng, search_rng = rng.spawn(3)
    fitted = found.restricted.fit(law, np.arange(len(found.restricted.W)), fit_rng)
    fast = score.exponential(fitted) is not None
    count = refits or (FAST_REFITS if fast else SLOW_REFITS)
    drawn = posterior_draws(fitted, max(count, DRAWS), boot_rng)
    if drawn is None:
        drawn = diagnostics.bootstrap_fits(law.coarse(), found.restricted, count, boot_rng)
    again, more = drawn[:count], drawn[count:]
    posed = (found.problem, found.restricted.bounds)
    return search_refits((fitted, again), search, posed, baselines, rng=search_rng, more=more)


def recommend_mixture(
    method: LawSettings,
    problem: Problem,
    history: History,
    rng: np.random.Generator,
) -> Recommendation:
    """The mixture that the runs speak for, judged; arguments and errors as `draft_answer`."""
    found = gather_runs(problem, history)
    unjudged = draft_answer(method, problem, history, rng)
    return grade_evidence(unjudged, problem, found.sample.W, found.foreign)


def draft_answer(
    method: LawSettings,
    problem: Problem,
    history: History,
    rng: np.random.Generator,
) -> Recommendation:
    """The mixture that the runs speak for, without a verdict; see the module's docstring.

    Args:
        method: says which laws and which search.
        problem: what is to be chosen.
        history: outcomes of its runs.
        rng: the only source of chance.

    Raises:
        EvidenceError: too few runs, or none that belongs to the problem.
        ConstraintError: no feasible mixture keeps the floors.
        RecipeError: the search cannot use the chosen law.
    """
    laws, search = method.laws, method.search
    compare_rng, choose_rng, fit_rng, front_rng, surface_rng, second_rng = rng.spawn(6)
    found = gather_runs(problem, history)
    best, tried, refused = compare_laws(laws, found, method.folds, compare_rng)
    baselines = compared_mixtures(problem, search, best_observed(problem, found))
    chosen = choose_mixture(
        laws[best], search, found, baselines, refits=method.refits, rng=choose_rng
    )
    fitted = found.sample.fit(laws[best], np.arange(len(found.sample.W)), fit_rng)
    noise = diagnostics.noise_floor(found.sample.W, found.sample.Y, problem.targets, found.scalar)
    failed = sum(isinstance(run, Failed) for run in history)
    answer = answer_of(problem, chosen, fitted, found.sample.bounds)
    gains, uncorrected = corrected_gains(laws[best], chosen, found, second_rng)
    strayed = outliers.outlier_warnings(found.runs, problem.targets)
    return Recommendation(
        domains=problem.domains.names,
        targets=problem.targets,
        **answer,
        **gains,
        laws=tried,
        noise=noise,
        evidence=found.fingerprints,
        failed=failed,
        warnings=(*chosen.cut, *refused, *uncorrected, *strayed),
        method=canonical_json(describe(method)),
        front=pareto.report_front(
            laws[best],
            problem,
            found.sample,
            tuple(zip(chosen.names, chosen.points, strict=True)),
            front_rng,
        ),
        surface=surface.law_surface(fitted, problem.constraints, chosen.points, surface_rng),
    )


def pick_shares(
    method: LawSettings, problem: Problem, history: History, rng: np.random.Generator
) -> Array:
    """The shares (K,) of `recommend_mixture`, to the bit, without what it says of them.

    For studies of many recommendations, where refits would be most of the work: they give
    intervals and have no part in the choice, unless the search is `certain`.

    Raises:
        EvidenceError, ConstraintError, RecipeError: as `recommend_mixture`.
    """
    if method.search.certain:
        return draft_answer(method, problem, history, rng).weights
    laws, search = method.laws, method.search
    compare_rng, choose_rng, *_ = rng.spawn(5)
    found = gather_runs(problem, history)
    best = 0
    if len(laws) > 1:
        best, _, _ = compare_laws(laws, found, method.folds, compare_rng)
    else:
        check_folds(laws[0], found, method.folds, compare_rng)
    fit_rng, _, search_rng = choose_rng.spawn(3)
    fitted = found.restricted.fit(laws[best], np.arange(len(found.restricted.W)), fit_rng)
    weights, _ = search_law(fitted, search, found.problem, int(search_rng.integers(2**31)))
    return simplex.without_rounding(weights)
