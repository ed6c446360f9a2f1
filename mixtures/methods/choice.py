"""Choice: from the runs of a swarm to a recommendation with its uncertainty.

The law is chosen by cross-validation, fitted to all runs, and searched. It is then fitted again to
bootstrap samples of the mixtures, and each refit is searched again: the spread of what they find
is the interval on each share, and the spread of what they predict, taken in pairs, the interval on
each gain. Intervals on the targets are for one new run: the law's own standard deviation.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mixtures import diagnostics, outliers, simplex, surface
from mixtures.diagnostics import Sample
from mixtures.domains import Array
from mixtures.errors import EvidenceError
from mixtures.history import Failed, History, RunResult, Stage, canonical, table
from mixtures.laws import Law
from mixtures.methods import swarm as swarms
from mixtures.methods import tradeoff
from mixtures.methods.decision import Chosen, around, candidates_of, decided, gains_of
from mixtures.methods.swarm import Swarm
from mixtures.methods.verdict import judge
from mixtures.objectives import Shape
from mixtures.problem import Problem
from mixtures.recommendation import LawEvidence, Recommendation
from mixtures.registry import describe
from mixtures.searches import Search, score

FAST_REFITS, SLOW_REFITS = 50, 10
CURVE = 2  # sizes of the learning curve below that of the cross-validation


@dataclass(frozen=True, eq=False)
class Evidence:
    """A history as a law sees it.

    Attributes:
        sample: all targets.
        narrow: the objective's targets alone.
        problem: the problem with the objective's targets alone.
        form: the objective over all targets.
        narrow_form: the same over the objective's targets.
        runs: the runs themselves.
        foreign: finished runs that belong to another problem.
    """

    sample: Sample
    narrow: Sample
    problem: Problem
    form: Shape
    narrow_form: Shape
    runs: tuple[RunResult, ...]
    foreign: int

    @property
    def fingerprints(self) -> tuple[str, ...]:
        """Of the runs."""
        return tuple(run.spec.fingerprint for run in self.runs)


def gather(problem: Problem, history: History) -> Evidence:
    """The runs that speak for a problem, as arrays."""
    runs, foreign = swarms.evidence_of(problem, history)
    W, Y, _ = table(runs, problem.targets)
    rows = swarms.natural_row(problem, W)
    reference = Y[rows].mean(axis=0) if rows else Y.mean(axis=0)
    form = problem.objective.shape(problem.targets, reference)
    sd, degrees = diagnostics.pooled_deviation(Y, diagnostics.groups(W))
    sample = Sample(W, Y, sd if degrees else np.zeros(Y.shape[1]))
    names = problem.objective.targets
    columns = [problem.targets.index(name) for name in names]
    return Evidence(
        sample=sample,
        narrow=sample.columns(columns),
        problem=replace(problem, targets=names),
        form=form,
        narrow_form=problem.objective.shape(names, reference[columns]),
        runs=runs,
        foreign=foreign,
    )


def compare(
    laws: tuple[Law, ...], found: Evidence, count: int, rng: np.random.Generator
) -> tuple[int, tuple[LawEvidence, ...], tuple[str, ...]]:
    """Cross-validate laws on the same folds.

    Returns:
        The number of the chosen law (highest rank correlation of the objective, then lowest
        error), the evidence of each law that could be fitted, and warnings about the others.

    Raises:
        EvidenceError: no law can be fitted to so few runs.
    """
    split, *children = rng.spawn(1 + len(laws))
    parts = diagnostics.folds(diagnostics.groups(found.sample.W), count, split)
    results: dict[int, LawEvidence] = {}
    refused: list[str] = []
    for i, (law, child) in enumerate(zip(laws, children, strict=True)):
        try:
            held = diagnostics.held_out(law, found.sample, parts, child)
        except EvidenceError as error:
            refused.append(f"{_name(law)} was left out: {error}")
            continue
        results[i] = diagnostics.evidence(_name(law), found.sample, held, found.form)
    if not results:
        raise EvidenceError("no law can be fitted. " + ". ".join(refused))
    best = min(results, key=lambda i: (-round(results[i].spearman, 6), results[i].error, i))
    curve = diagnostics.learning_curve(
        score.coarser(laws[best]),
        found.narrow,
        found.narrow_form,
        parts,
        points=CURVE,
        rng=split,
    )
    most = len(found.sample.W) - max(len(part) for part in parts)
    curve += ((most, results[best].spearman),)
    results[best] = replace(results[best], chosen=True, learning_curve=curve)
    return best, tuple(results.values()), tuple(refused)


def _name(law: Any) -> str:
    return str(getattr(law, "name", type(law).__name__))


def choose(
    law: Law,
    search: Search,
    found: Evidence,
    baselines: Array,
    *,
    refits: int | None,
    rng: np.random.Generator,
) -> Chosen:
    """Fit, search, and do both again on bootstrap samples.

    The search's generator is the same for every refit, so that what they find differs by the data
    alone. Laws and searches that have a cheaper variant (`coarse()`) use it for the refits.
    """
    fit_rng, boot_rng, search_rng = rng.spawn(3)
    fitted = found.narrow.fit(law, np.arange(len(found.narrow.W)), fit_rng)
    fast = score.exponential(fitted) is not None
    count = refits or (FAST_REFITS if fast else SLOW_REFITS)
    again = diagnostics.refits(score.coarser(law), found.narrow, count, boot_rng)
    return decided((fitted, again), search, found.problem, baselines, rng=search_rng)


def best_observed(problem: Problem, found: Evidence) -> Array:
    """The feasible mixture (K,) with the lowest observed objective, averaged over its seeds."""
    membership = diagnostics.groups(found.sample.W)
    count = int(membership.max()) + 1
    W = np.array([found.sample.W[membership == g][0] for g in range(count)])
    Y = np.array([found.sample.Y[membership == g].mean(axis=0) for g in range(count)])
    value = np.where(problem.constraints.satisfied(W), found.form.value(Y), np.inf)
    best = int(np.argmin(value if np.isfinite(value).any() else found.form.level(Y)))
    return np.asarray(W[best] / W[best].sum(), dtype=np.float64)


def recommend(
    swarm: Swarm,
    problem: Problem,
    history: History,
    rng: np.random.Generator,
    *,
    instead: Search | None = None,
) -> Recommendation:
    """The mixture that the runs speak for, judged; arguments and errors as `draft`."""
    found = gather(problem, history)
    unjudged = draft(swarm, problem, history, rng, instead=instead)
    return judge(unjudged, problem, found.sample.W, found.foreign)


def draft(
    swarm: Swarm,
    problem: Problem,
    history: History,
    rng: np.random.Generator,
    *,
    instead: Search | None = None,
) -> Recommendation:
    """The mixture that the runs speak for, without a verdict; see the module's docstring.

    Args:
        swarm: the method.
        problem: what is to be chosen.
        history: outcomes of its runs.
        rng: the only source of chance.
        instead: takes the place of the method's own search.

    Raises:
        EvidenceError: too few runs, or none that belongs to the problem.
        ConstraintError: no feasible mixture keeps the floors.
        RecipeError: the search cannot use the chosen law.
    """
    _, laws, search = swarms.parts(swarm)
    search = instead or search
    compare_rng, choose_rng, fit_rng, front_rng, surface_rng = rng.spawn(5)
    found = gather(problem, history)
    best, tried, refused = compare(laws, found, swarm.folds, compare_rng)
    baselines = np.vstack(
        [problem.domains.natural, problem.domains.uniform, best_observed(problem, found)]
    )
    chosen = choose(laws[best], search, found, baselines, refits=swarm.refits, rng=choose_rng)
    fitted = found.sample.fit(laws[best], np.arange(len(found.sample.W)), fit_rng)
    names = ("recommended", "natural", "uniform", "best observed")
    noise = diagnostics.noise_floor(found.sample.W, found.sample.Y, problem.targets, found.form)
    weights = simplex.normalized(np.where(chosen.weights > 1e-9, chosen.weights, 0.0))
    failed = sum(isinstance(run, Failed) for run in history)
    return Recommendation(
        domains=problem.domains.names,
        targets=problem.targets,
        stages=(Stage(tuple(map(float, weights))),),
        intervals=tuple(
            (e.low, e.high)
            for e in (around(weights[k], chosen.refit_weights[:, k]) for k in range(len(weights)))
        ),
        candidates=candidates_of(names, chosen, fitted),
        gains=gains_of(names, chosen),
        laws=tried,
        noise=noise,
        active=problem.constraints.active(weights),
        epochs=tuple(map(float, problem.domains.epochs(weights, problem.full_tokens))),
        evidence=found.fingerprints,
        failed=failed,
        warnings=(*refused, *outliers.warnings(found.runs, problem.targets)),
        method=canonical(describe(swarm)),
        front=tradeoff.front(
            laws[best],
            problem,
            found.sample,
            tuple(zip(names, chosen.points, strict=True)),
            front_rng,
        ),
        surface=surface.interpolate(fitted, problem.constraints, chosen.points, surface_rng),
    )
