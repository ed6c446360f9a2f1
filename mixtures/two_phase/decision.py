"""Decision: from a two-phase schedule that was tried to a recommendation of it, or against it."""

import dataclasses

import numpy as np

from cuvee.mixtures.domains import Array
from cuvee.mixtures.problem import Problem
from cuvee.mixtures.recommendation import (
    LEVEL,
    MISSED,
    Candidate,
    Demand,
    Estimate,
    Recommendation,
    missed_lines,
)
from cuvee.mixtures.runs.run_spec import Stage, mean_shares
from cuvee.mixtures.two_phase.candidates import TwoPhase

STATIC, SCHEDULE = "best static", "best schedule"


def conclude_schedule(
    problem: Problem,
    base: Recommendation,
    found: TwoPhase,
    *,
    measured: Estimate,
    targets: Array,
) -> Recommendation:
    """The recommendation of the schedule if its gain was measured to be one, else of no schedule.

    A floor that the stable mixture keeps is not given for the gain: such a schedule is none either.

    Args:
        problem: what was asked.
        base: the recommendation of the stable mixture.
        found: the schedule.
        measured: paired gain of the schedule over the best fixed mixture.
        targets: the same per target (M,).
    """
    told = f"{measured.mean:+.4f} [{measured.low:+.4f}, {measured.high:+.4f}] bits per byte"
    ours = _moved(base.candidates[0], found.stages, measured, targets)
    demands = tuple(_moved_demand(problem, one, targets) for one in base.demands)
    broken = [d for d, old in zip(demands, base.demands, strict=True) if old.kept and not d.kept]
    if measured.low <= 0 or broken:
        return _against(base, found, ours, told, broken if measured.low > 0 else [])
    weights = np.asarray(ours.weights)
    gains = ((STATIC, measured), *((name, _sum(gain, measured)) for name, gain in base.gains))
    return dataclasses.replace(
        base,
        stages=found.stages,
        intervals=_intervals(base, found, weights),
        candidates=(
            ours,
            *base.candidates[1:],
            dataclasses.replace(base.candidates[0], name=STATIC),
        ),
        gains=gains,
        demands=demands,
        active=problem.constraints.active(weights),
        epochs=tuple(map(float, problem.domains.epochs(weights, problem.full_tokens))),
        front=None,  # this and the surface are of fixed mixtures
        surface=None,
        warnings=(
            *missed_lines(demands),
            "scores of the schedule are those of its main mixture as predicted, less the gain "
            "that was measured on paired fresh seeds",
            *(line for line in base.warnings if not line.startswith(MISSED)),
        ),
        verdict=f"{base.verdict}; the schedule gained {told} over the best static mixture",
    )


def _against(
    base: Recommendation, found: TwoPhase, ours: Candidate, told: str, broken: list[Demand]
) -> Recommendation:
    """The recommendation of the stable mixture, with what was tried and why it is not taken."""
    before = f"after {_shares(base, found.stable)} " if len(found.refit_stables) else ""
    why = "a schedule does not beat the best static mixture here"
    if broken:
        lost = "; ".join(one.said for one in broken)
        why = f"a schedule gains, but breaks what the best static mixture keeps ({lost})"
    return dataclasses.replace(
        base,
        candidates=(*base.candidates, dataclasses.replace(ours, name=SCHEDULE)),
        warnings=(
            f"{why}: ending with {_shares(base, found.decay)} from {found.switch:.0%} of the run "
            f"on {before}gained {told} on paired fresh seeds",
            *base.warnings,
        ),
    )


def _moved(
    base: Candidate, schedule: tuple[Stage, ...], measured: Estimate, targets: Array
) -> Candidate:
    """What a schedule is expected to score: its stable mixture's scores less its measured gains."""
    return Candidate(
        name=base.name,
        weights=tuple(map(float, mean_shares(schedule))),
        objective=_difference(base.objective, measured),
        targets=tuple(
            _difference(own, Estimate(gain, gain, gain))
            for own, gain in zip(base.targets, map(float, targets), strict=True)
        ),
    )


def _moved_demand(problem: Problem, asked: Demand, targets: Array) -> Demand:
    """What was asked for, of the schedule: predicted for its stable mixture, then measured."""
    gained = float(problem.objective.row(asked.name, problem.targets) @ targets)
    margin = _sum(asked.margin, Estimate(gained, gained, gained))
    return dataclasses.replace(asked, margin=margin, certainty=None)


def _shares(base: Recommendation, weights: Array) -> str:
    pairs = zip(base.domains, weights, strict=True)
    return ", ".join(f"{name} {share:.0%}" for name, share in pairs if share >= 0.01)


def _sum(one: Estimate, other: Estimate) -> Estimate:
    """The sum of two estimates whose errors are independent."""
    low = np.hypot(one.mean - one.low, other.mean - other.low)
    high = np.hypot(one.high - one.mean, other.high - other.mean)
    mean = one.mean + other.mean
    return Estimate(mean, float(mean - low), float(mean + high))


def _difference(one: Estimate, other: Estimate) -> Estimate:
    return _sum(one, Estimate(-other.mean, -other.high, -other.low))


def _intervals(
    base: Recommendation, found: TwoPhase, weights: Array
) -> tuple[tuple[float, float], ...]:
    """Of the run's average shares, by the refits of the schedule.

    Where only the decay was chosen anew: the stable mixture's interval and the decay's, by parts.
    """
    edges = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    if len(found.refit_stables):
        parts = found.switch * found.refit_stables + (1 - found.switch) * found.refit_decays
        low, high = np.quantile(parts, edges, axis=0)
    else:
        low, high = (
            found.switch * mine + (1 - found.switch) * theirs
            for mine, theirs in zip(
                np.asarray(base.intervals).T,
                np.quantile(found.refit_decays, edges, axis=0),
                strict=True,
            )
        )
    return tuple(
        (min(a, w), max(b, w))
        for a, b, w in zip(low.tolist(), high.tolist(), weights.tolist(), strict=True)
    )
