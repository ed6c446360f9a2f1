"""Extrapolation: from the runs of a ladder to a recommendation for full scale, with its test.

Single-scale ranking drafts an answer at the largest step that has enough mixtures. The scaling laws
are fitted to all but the largest size and predict it (`backtest`). The average of the laws that
beat ranking is fitted to everything, searched at full scale, and searched again in laws that were
refitted to resampled runs and set off by what back-tests found, for the intervals; otherwise the
draft stands, and its predicted scores are those of the step that was ranked. What each law
forecasts at full scale is told in both cases, and what the distance costs in certainty.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, cast

import numpy as np

from cuvee.mixtures import simplex
from cuvee.mixtures.domains import Array
from cuvee.mixtures.inference import diagnostics, outliers
from cuvee.mixtures.inference.dataset import reference_rows
from cuvee.mixtures.inference.evidence_grade import grade_evidence
from cuvee.mixtures.inference.optimum import answer_of, gains_over, search_refits
from cuvee.mixtures.inference.recommend import draft_answer
from cuvee.mixtures.laws import Law
from cuvee.mixtures.laws.bounds import SIZES, Bounds
from cuvee.mixtures.multiscale import backtest
from cuvee.mixtures.multiscale.backtest import BackTest
from cuvee.mixtures.multiscale.steps import (
    LadderStep,
    at_step,
    in_step,
    scaling_runs,
    step_runs,
)
from cuvee.mixtures.objectives import Scalarized
from cuvee.mixtures.problem import Problem
from cuvee.mixtures.recommendation import LawEvidence, Noise, Recommendation
from cuvee.mixtures.runs.run_results import Failed, History, finished_runs, score_table
from cuvee.mixtures.scale_evidence import (
    AVERAGE,
    Forecast,
    ScaleCurve,
    ScaleEvidence,
    ScalePoint,
)
from cuvee.mixtures.scaling import FittedScaling, Scaling, ScalingRuns
from cuvee.mixtures.scaling.average import FittedAverage, average_fits, fit_average
from cuvee.mixtures.scaling.discrepancy import attempts, learn_discrepancy
from cuvee.mixtures.scaling.single_scale import MIXTURES, SingleScale
from cuvee.mixtures.searches import Search

REFITS = 20  # of a scaling law, behind the intervals on shares


@dataclass(frozen=True, eq=False)
class ScaleData:
    """A study's evidence at all its sizes.

    Attributes:
        runs: all targets.
        restricted: the objective's targets alone.
        problem: the problem with the objective's targets alone.
        scalar: the objective over those.
        full: (parameters, tokens) that the answer is for.
    """

    runs: ScalingRuns
    restricted: ScalingRuns
    problem: Problem
    scalar: Scalarized
    full: tuple[int, int]


def extrapolate(
    ladder: Any,
    problem: Problem,
    history: History,
    rng: np.random.Generator,
    *,
    steps: tuple[LadderStep, ...],
) -> Recommendation:
    """The mixture that a ladder's runs speak for at full scale; see the module's docstring.

    Args:
        ladder: the method.
        problem: what is to be chosen.
        history: outcomes of its runs.
        rng: the only source of chance.
        steps: its steps, the smallest first.

    Raises:
        EvidenceError: too few runs, or none that belongs to the problem.
        ConstraintError: no feasible mixture keeps the floors.
    """
    draft_rng, test_rng, law_rng, forecast_rng, single_rng = rng.spawn(5)
    ranked = _ranked(ladder, problem, history, steps)
    here, foreign = at_step(problem, ranked), _foreign(problem, history, steps)
    kept = tuple(
        run for run in history if isinstance(run, Failed) or in_step(problem, run.spec, ranked)
    )
    base = draft_answer(ladder, here, kept, draft_rng)
    base = replace(base, noise=base.noise or _noise(problem, history, steps[0]))
    own = tuple(run for step in steps for run in step_runs(problem, history, step))
    W = score_table(own, problem.targets)[0]
    if len(steps) == 1:
        return grade_evidence(base, problem, W, foreign)
    scales = scale_data(problem, history, steps)
    laws = {str(law.name): cast(Scaling, law) for law in ladder.scaling}
    name = next(law.law for law in base.laws if law.chosen)
    single = SingleScale(next(law for law in ladder.laws if law.name == name))
    tested = backtest.backtest(laws, single, scales.restricted, scales.scalar, test_rng)
    warnings = (*base.warnings, *outliers.outlier_warnings(own, problem.targets))
    trained = tuple(run.spec.fingerprint for run in own)
    answer = replace(base, evidence=trained, warnings=tuple(dict.fromkeys(warnings)))
    calls = {name: partial(law.fit, scales.restricted) for name, law in laws.items()}
    fits, refused = attempts(calls, forecast_rng)
    used: FittedAverage | None = None
    if tested.beats:
        better = [trial.law for trial in backtest.laws_that_beat(tested.trials)]
        names = [tested.chosen] if tested.chosen in laws else [n for n in better if n in laws]
        used = average_fits([(laws[name], fits[name]) for name in names])
        answer = _by_law(ladder, used, answer, tested, scales, rng=law_rng)
    untested = "" if fits else next(iter(refused.values()), "no scaling law is named")
    evidence = replace(_evidence(tested, scales, problem, ranked), untested=untested)
    evidence = replace(evidence, curves=_curves(answer, scales))
    if fits:
        average = used or average_fits([(laws[name], fit) for name, fit in fits.items()])
        evidence = _forecast(evidence, fits, average, answer, scales)
    if used is None:
        ranking = learn_discrepancy(single, scales.restricted.ends, single_rng)
        evidence = replace(evidence, order=_order_error(ranking.errors(*scales.full)[1]))
    answer = replace(answer, scale=evidence, warnings=(*answer.warnings, *_said(evidence)))
    return grade_evidence(answer, problem, W, foreign)


def _ranked(
    ladder: Any, problem: Problem, history: History, steps: tuple[LadderStep, ...]
) -> LadderStep:
    """The largest step with enough mixtures to be ranked by some law; the first if none has."""
    k = len(problem.domains)
    laws = cast(tuple[Law, ...], ladder.laws)
    rows = min(law.rows(k) for law in laws)
    needed = max(MIXTURES * k, rows + math.ceil(rows / (ladder.folds - 1)))  # a fold is held out
    for step in sorted(steps, key=lambda r: _order(problem, r), reverse=True):
        found = step_runs(problem, history, step)
        if found and simplex.count_mixtures([r.spec.weights for r in found]) >= needed:
            return step
    return steps[0]


def _order(problem: Problem, step: LadderStep) -> tuple[int, int]:
    return (problem.parameters(step.size) if problem.sizes else 0, step.tokens)


def _foreign(problem: Problem, history: History, steps: tuple[LadderStep, ...]) -> int:
    runs = [r for r in finished_runs(history) if r.spec.data_seed is None]
    return sum(not any(in_step(problem, r.spec, step) for step in steps) for r in runs)


def _noise(problem: Problem, history: History, first: LadderStep) -> tuple[Noise, ...]:
    """The noise floor at the first step, where the anchors are repeated."""
    runs = step_runs(problem, history, first)
    if not runs:
        return ()
    W, Y, _ = score_table(runs, problem.targets)
    scalar = problem.objective.scalarize(problem.targets, Y.mean(axis=0))
    return diagnostics.noise_floor(W, Y, problem.targets, scalar)


def scale_data(problem: Problem, history: History, steps: tuple[LadderStep, ...]) -> ScaleData:
    """A study's evidence at all its sizes.

    Raises:
        EvidenceError: a run lacks a target, or nothing has finished.
        RecipeError: the problem does not know the parameters of a size.
    """
    runs, names = scaling_runs(problem, history, steps), problem.objective.targets
    restricted = scaling_runs(replace(problem, targets=names), history, steps)
    top, ends = runs.sizes[-1], restricted.ends
    rows = [i for i in reference_rows(problem, ends.W) if ends.parameters[i] == top]
    reference = ends.Y[rows].mean(axis=0) if rows else ends.Y.mean(axis=0)
    largest = (int(top), int(runs.tokens[runs.parameters == top].max()))
    return ScaleData(
        runs=runs,
        restricted=restricted,
        problem=replace(problem, targets=names),
        scalar=problem.objective.scalarize(names, reference),
        full=(problem.full_parameters or largest[0], problem.full_tokens or largest[1]),
    )


def _by_law(
    ladder: Any,
    average: FittedAverage,
    base: Recommendation,
    tested: BackTest,
    scales: ScaleData,
    *,
    rng: np.random.Generator,
) -> Recommendation:
    """The answer of scaling laws at full scale, in place of the draft."""
    boot_rng, search_rng, whole_rng = rng.spawn(3)
    fitted = average.at(*scales.full)
    drawn = average.refits(scales.restricted, ladder.refits or REFITS, boot_rng)
    again = [refit.at(*scales.full) for refit in drawn]
    baselines = {c.name: np.array(c.weights) for c in base.candidates[1:]}
    search = cast(Search, ladder.search)
    posed = (scales.problem, Bounds.of(scales.restricted.Y, SIZES))
    chosen = search_refits((fitted, again), search, posed, baselines, rng=search_rng)
    whole = fit_average(average.laws, scales.runs, whole_rng).at(*scales.full)
    return replace(
        base,
        **answer_of(scales.problem, chosen, whole, Bounds.of(scales.runs.Y, SIZES)),
        gains=gains_over(chosen),
        laws=(_as_law(tested), *(replace(found, chosen=False) for found in base.laws)),
        front=None,
        surface=None,
        optimism=None,
    )


def _as_law(tested: BackTest) -> LawEvidence:
    """The back-test of the chosen law as the evidence of a law: held out is the largest size."""
    trial = next(t for t in tested.trials if t.law == tested.chosen)
    shared = {f.name for f in fields(LawEvidence)} & {f.name for f in fields(trial)}
    values = {name: getattr(trial, name) for name in shared}
    return LawEvidence(spearman_targets=(), chosen=True, **values)


def _evidence(
    tested: BackTest, scales: ScaleData, problem: Problem, ranked: LadderStep
) -> ScaleEvidence:
    top = int(scales.runs.sizes[-1])
    tokens = int(scales.runs.tokens[scales.runs.parameters == top].max())
    at = scales.full if tested.beats else (problem.parameters(ranked.size), ranked.tokens)
    return ScaleEvidence(
        parameters=scales.full[0],
        tokens=scales.full[1],
        largest_parameters=top,
        largest_tokens=tokens,
        predicted_parameters=at[0],
        predicted_tokens=at[1],
        **vars(tested),
    )


def _said(evidence: ScaleEvidence) -> tuple[str, ...]:
    lines = [line for line in (evidence.statement, evidence.certainty) if line]
    if not evidence.beats:
        lines.append(
            f"{evidence.verdict}; predicted scores are those of models of "
            f"{evidence.predicted_parameters:,} parameters at {evidence.predicted_tokens:,} tokens"
        )
    return tuple(lines)


def _curves(answer: Recommendation, scales: ScaleData) -> tuple[ScaleCurve, ...]:
    """Objective by scale of the mixtures that were trained at several scales."""
    runs, named = scales.restricted.ends, {c.name: np.array(c.weights) for c in answer.candidates}
    membership, found = simplex.group_rows(runs.W), []
    for group in range(int(membership.max()) + 1):
        own = runs.take(membership == group)
        scale_of = sorted(set(zip(own.parameters.tolist(), own.tokens.tolist(), strict=True)))
        if len(scale_of) < 2:
            continue
        points = []
        for size, tokens in scale_of:
            here = own.take((own.parameters == size) & (own.tokens == tokens))
            level = float(scales.scalar.relaxed(here.Y.mean(axis=0)[None])[0])
            points.append(ScalePoint(int(size), int(tokens), level, len(here)))
        weights = own.W[0]
        known = [n for n, w in named.items() if np.abs(w - weights).max() <= 2 * simplex.SAME]
        name = known[0] if known else f"mixture {group + 1}"
        found.append(ScaleCurve(name, tuple(map(float, weights)), tuple(points)))
    return tuple(found)


def _forecast(
    evidence: ScaleEvidence,
    fits: Mapping[str, FittedScaling],
    average: FittedAverage,
    answer: Recommendation,
    scales: ScaleData,
) -> ScaleEvidence:
    """With what each law, and their average, say of the candidates, and how sure that is."""
    points = np.array([candidate.weights for candidate in answer.candidates])
    forecasts = []
    for name, fit in {**fits, **({AVERAGE: average} if len(fits) > 1 else {})}.items():
        said = fit.predict(points, *scales.full)
        if not np.isfinite(said.sd).all():
            continue  # nothing tested it at this distance
        level, half = scales.scalar.relaxed(said.mean), _half(scales.scalar, said.mean, said.sd)
        forecasts += [
            Forecast(name, c.name, float(m), float(m - h), float(m + h))
            for c, m, h in zip(answer.candidates, level, half, strict=True)
        ]
    tested = average.discrepancy  # None: some law makes no back-tests
    if tested and tested.refused:
        return replace(evidence, forecasts=tuple(forecasts), untested=tested.refused)
    said = average.predict(points, *scales.full)
    shares = zip((str(law.name) for law in average.laws), average.weights, strict=True)
    return replace(
        evidence,
        forecasts=tuple(forecasts),
        weights=tuple((name, float(share)) for name, share in shares),
        level=float(diagnostics.Z * np.mean(said.sd / said.mean)),
        order=_order_error(tested.errors(*scales.full)[1]) if tested else 0.0,
    )


def _order_error(deviations: Array) -> float:
    """Half-width of the interval of a difference of two scores, relative, over targets."""
    wide = float(diagnostics.Z * np.sqrt(2.0 * np.mean(np.square(deviations))))
    return wide if np.isfinite(wide) else 0.0


def _half(scalar: Scalarized, mean: Array, sd: Array) -> Array:
    """Half-width (n,) of the objective's interval, targets erring together (the widest case)."""
    shift = diagnostics.Z * sd
    return np.asarray(
        (scalar.relaxed(mean + shift) - scalar.relaxed(mean - shift)) / 2, dtype=np.float64
    )
