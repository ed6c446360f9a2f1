"""Data set: the runs of a study as arrays, and which law they speak for.

A law is chosen by cross-validation over mixtures: all runs of one mixture are held out together, so
that no law is judged by a repeat of what it saw.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from cuvee.mixtures import simplex, ties
from cuvee.mixtures.domains import Array
from cuvee.mixtures.errors import EvidenceError
from cuvee.mixtures.inference import diagnostics
from cuvee.mixtures.inference.diagnostics import RunTable
from cuvee.mixtures.inference.noise_model import fit_noise
from cuvee.mixtures.laws import Law
from cuvee.mixtures.objectives import Scalarized
from cuvee.mixtures.problem import Problem
from cuvee.mixtures.recommendation import LawEvidence
from cuvee.mixtures.runs.run_results import History, RunResult, finished_runs, score_table
from cuvee.mixtures.runs.run_spec import RunSpec

CURVE = 2  # sizes of the learning curve below that of the cross-validation


@dataclass(frozen=True, eq=False)
class Dataset:
    """A history as a law sees it.

    Attributes:
        sample: all targets.
        restricted: the objective's targets alone.
        problem: the problem with the objective's targets alone.
        scalar: the objective over all targets.
        restricted_scalar: the same over the objective's targets.
        runs: the runs themselves.
        foreign: finished runs that belong to another problem.
    """

    sample: RunTable
    restricted: RunTable
    problem: Problem
    scalar: Scalarized
    restricted_scalar: Scalarized
    runs: tuple[RunResult, ...]
    foreign: int

    @property
    def fingerprints(self) -> tuple[str, ...]:
        """Of the runs."""
        return tuple(run.spec.fingerprint for run in self.runs)


def is_evidence(problem: Problem, spec: RunSpec) -> bool:
    """Whether a run is evidence for a problem: the same data, proxy, scoring and way of training.

    Its mixture and seed are free; a run whose weights moved in stages or under a controller is not
    evidence for a law of fixed mixtures.
    """
    if len(spec.stages) != 1 or spec.controller or spec.domains != problem.domains.names:
        return False
    return spec == problem.spec(spec.stages[0].weights, spec.seed)


def tells_noise(problem: Problem, spec: RunSpec) -> bool:
    """Whether a run is evidence, but for a data order that has a seed of its own."""
    return is_evidence(problem, replace(spec, data_seed=None))


def evidence_runs(problem: Problem, history: History) -> tuple[tuple[RunResult, ...], int]:
    """Finished runs that belong to the problem, and how many finished ones do not.

    Runs whose data order has a seed of its own are neither (`tells_noise`).

    Raises:
        EvidenceError: none belongs.
    """
    runs = finished_runs(history)
    own = tuple(run for run in runs if is_evidence(problem, run.spec))
    if not own:
        raise EvidenceError(
            f"none of {len(runs)} finished runs is evidence for this problem: their domains, data, "
            "proxy or scoring differ from the recipe's; train anew or restore what was changed"
        )
    return own, sum(run.spec.data_seed is None for run in runs) - len(own)


def reference_rows(problem: Problem, W: Array) -> Sequence[int]:
    """Rows of runs of the objective's reference mixture (or the feasible one nearest to it)."""
    allowed = problem.constraints.project(problem.reference)
    near = np.abs(W - allowed).max(axis=1) <= 2 * simplex.SAME
    near |= np.abs(W - problem.reference).max(axis=1) <= 2 * simplex.SAME
    return [int(i) for i in np.flatnonzero(near)]


def gather_runs(problem: Problem, history: History) -> Dataset:
    """The runs that speak for a problem, as arrays."""
    runs, foreign = evidence_runs(problem, history)
    W, Y, _ = score_table(runs, problem.targets)
    rows = reference_rows(problem, W)
    reference = Y[rows].mean(axis=0) if rows else Y.mean(axis=0)
    scalar = problem.objective.scalarize(problem.targets, reference)
    sample = RunTable(W, Y, _noise(runs, problem.targets), problem.score_limits)
    names = problem.objective.targets
    columns = [problem.targets.index(name) for name in names]
    return Dataset(
        sample=sample,
        restricted=sample.columns(columns),
        problem=replace(problem, targets=names),
        scalar=scalar,
        restricted_scalar=problem.objective.scalarize(names, reference[columns]),
        runs=runs,
        foreign=foreign,
    )


def _noise(runs: tuple[RunResult, ...], targets: Sequence[str]) -> Array:
    """Standard deviations (M,), or (N, M) where they differ from run to run.

    They do with the mixture, where repeats show it clearly (`noise_model`), and with the sample
    that a run was scored on: an error on items that all runs share moves none against another, and
    is no weight of a law. A run with another number of items than most runs has its error to
    itself; the most frequent number is theirs, of equally frequent ones the largest.
    """
    W, Y, errors = score_table(runs, targets)
    model = fit_noise(W, Y)
    counts = np.array([[run.scores[t].n for t in targets] for run in runs])
    seen = [Counter(column) for column in counts.T.tolist()]
    usual = np.array([max((often, n) for n, often in column.items())[1] for column in seen])
    apart = counts != usual
    if not (model.clear or apart.any()):
        return model.pooled
    known = model.at(W) if model.clear else model.pooled
    return np.asarray(np.hypot(known, np.where(apart, errors, 0.0)), dtype=np.float64)


def compare_laws(
    laws: tuple[Law, ...], found: Dataset, count: int, rng: np.random.Generator
) -> tuple[int, tuple[LawEvidence, ...], tuple[str, ...]]:
    """Cross-validate laws on the same folds.

    Returns:
        The number of the chosen law (highest rank correlation of the objective, then lowest
        error, then the first), the evidence of each law that could be fitted, and warnings about
        the others.

    Raises:
        EvidenceError: no law can be fitted to so few runs.
    """
    split, *children = rng.spawn(1 + len(laws))
    parts = diagnostics.grouped_folds(simplex.group_rows(found.sample.W), count, split)
    results: dict[int, LawEvidence] = {}
    refused: list[str] = []
    for i, (law, child) in enumerate(zip(laws, children, strict=True)):
        try:
            held = diagnostics.cross_validate(law, found.sample, parts, child)
        except EvidenceError as error:
            refused.append(f"{law.name} was left out: {error}")
            continue
        results[i] = diagnostics.law_evidence(law.name, found.sample, held, found.scalar)
    if not results:
        raise EvidenceError("no law can be fitted. " + ". ".join(refused))
    top = max(round(result.spearman, 6) for result in results.values())
    first = [i for i, result in results.items() if round(result.spearman, 6) == top]
    best = first[ties.lowest(np.array([results[i].error for i in first]))]
    curve = diagnostics.learning_curve(
        laws[best].coarse(),
        found.restricted,
        found.restricted_scalar,
        parts,
        points=CURVE,
        rng=split,
    )
    most = len(found.sample.W) - max(len(part) for part in parts)
    curve += ((most, results[best].spearman),)
    results[best] = replace(results[best], chosen=True, learning_curve=curve)
    return best, tuple(results.values()), tuple(refused)


def check_folds(law: Law, found: Dataset, count: int, rng: np.random.Generator) -> None:
    """Check that a law can be cross-validated, as `compare_laws` would find.

    Raises:
        EvidenceError: a fold leaves too few runs for a fit.
    """
    parts = diagnostics.grouped_folds(simplex.group_rows(found.sample.W), count, rng.spawn(1)[0])
    left = len(found.sample.W) - max(len(part) for part in parts)
    least = law.rows(found.sample.W.shape[1])
    if left < least:
        raise EvidenceError(
            f"no law can be fitted. {law.name} needs at least {least} runs; "
            f"{count} folds leave it {left} of {len(found.sample.W)}"
        )


def best_observed(problem: Problem, found: Dataset) -> Array:
    """The feasible mixture (K,) with the lowest observed objective, averaged over its seeds."""
    membership = simplex.group_rows(found.sample.W)
    W = found.sample.W[np.unique(membership, return_index=True)[1]]
    Y = simplex.group_means(found.sample.Y, membership)
    value = np.where(problem.constraints.satisfied(W), found.scalar.value(Y), np.inf)
    best = ties.lowest(value if np.isfinite(value).any() else found.scalar.relaxed(Y))
    return np.asarray(W[best] / W[best].sum(), dtype=np.float64)
