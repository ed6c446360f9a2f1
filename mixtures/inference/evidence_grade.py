"""Evidence grade: whether the evidence behind a recommendation is strong enough, in words.

The thresholds are a convention of this project (assumption, not studied); they are named here and
nowhere else.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from cuvee.mixtures import simplex, ties
from cuvee.mixtures.domains import Array
from cuvee.mixtures.inference import diagnostics
from cuvee.mixtures.problem import Problem
from cuvee.mixtures.recommendation import (
    BEYOND,
    REFERENCE,
    START,
    Noise,
    Recommendation,
    missed_lines,
)

RANK = 0.6  # held-out rank correlation of the objective below which a law is not believed
MIXTURES = 2  # distinct mixtures per domain below which there are too few
TOUCHING = 1e-6  # part by which an edge may be passed: by a run on it, after rounding
THIN = 3  # mixtures that must have drawn from a domain for its share to be called measured
SHOWN = 10  # domains named one by one
RATIO = 2.0  # spread over mixtures to spread over seeds below which a target is mostly noise


def grade_evidence(
    draft: Recommendation, problem: Problem, W: Array, foreign: int
) -> Recommendation:
    """The recommendation with its verdict and warnings.

    Args:
        draft: without a verdict.
        problem: what was asked.
        W: (N, K) mixtures of the runs that it rests on.
        foreign: finished runs that were left out because they belong to another problem.
    """
    weak = weak_points(draft, W)
    warnings = (*draft.warnings, *_warnings(draft, problem, W, foreign))
    if weak:
        verdict = "weak: do not use this yet; " + "; ".join(weak.values())
    elif not draft.noise:
        verdict = (
            "draft: no mixture was run with two seeds, so the noise is unknown; "
            "repeat the anchors with `seeds` of at least 2"
        )
    else:
        over = _baseline(draft)
        gain = dict(draft.gains)[over]
        verdict = (
            f"strong: ready to be confirmed; predicted gain over {over} {gain.mean:.4f} "
            f"[{gain.low:.4f}, {gain.high:.4f}] bits per byte"
        )
    return mark_unmeasured(replace(draft, verdict=verdict, warnings=warnings), problem, W)


def weak_points(draft: Recommendation, W: Array) -> dict[str, str]:
    """Why a recommendation that rests on a law is weak, by `law`, `mixtures`, `gain` and `beyond`.

    Args:
        draft: with or without its verdict.
        W: (N, K) mixtures of the runs that it rests on.
    """
    beyond = [BEYOND] if any(line.startswith(BEYOND) for line in draft.warnings) else []
    found = {"law": _law(draft), "mixtures": _rows(draft, W), "gain": _gain(draft)}
    return {kind: one[0] for kind, one in (found | {"beyond": tuple(beyond)}).items() if one}


def mark_unmeasured(answer: Recommendation, problem: Problem, W: Array) -> Recommendation:
    """The recommendation with what was not measured first: domains that hardly any run drew from.

    The interval of such a share is what the constraints allow: refits of a law to runs that do not
    draw from a domain agree on its share, and know nothing of it.
    """
    few, (low, high), w = rarely_drawn(problem, W), problem.constraints.bounds, answer.weights
    intervals = list(answer.intervals)
    for k in few:
        intervals[k] = (float(min(low[k], w[k])), float(max(high[k], w[k])))
    warnings = (*unmeasured_lines(few, answer, answer.epochs), *answer.warnings)
    return replace(answer, intervals=tuple(intervals), warnings=warnings)


def rarely_drawn(problem: Problem, W: Array) -> dict[int, tuple[int, int]]:
    """Domains whose share is free and that fewer than `THIN` of the mixtures W (N, K) drew from.

    Returns:
        By position: the mixtures that did, and their runs.
    """
    low, high = problem.constraints.bounds
    drawn, member = simplex.SAME < W, simplex.group_rows(W)
    counts = {k: len(set(member[drawn[:, k]].tolist())) for k in np.flatnonzero(high - low > 1e-6)}
    return {int(k): (count, int(drawn[:, k].sum())) for k, count in counts.items() if count < THIN}


def unmeasured_lines(
    few: Mapping[int, tuple[int, int]], answer: Recommendation, epochs: Sequence[float]
) -> tuple[str, ...]:
    """A sentence for each domain that hardly any run drew from (see `rarely_drawn`).

    Args:
        few: such domains.
        answer: whose shares are spoken of.
        epochs: passes over each domain at full scale (K,), or none where they are unknown.
    """
    lines = []
    for k, (mixtures, runs) in list(few.items())[:SHOWN]:
        share = f"its share of {answer.weights[k]:.1%}"
        them = "it" if mixtures == 1 else "them"
        who = f"{mixtures} mixture{'s' * (mixtures > 1)} in {runs} run{'s' * (runs > 1)}"
        text = (
            f"no run drew from it, so that {share} is the absence of evidence"
            if not mixtures
            else f"only {who} drew from it, and {share} rests on {them} alone"
        )
        if epochs and epochs[k] > 1:
            text += f"; at full scale it would be repeated {epochs[k]:.3g} times"
        lines.append(f"not measured: {answer.domains[k]!r}: {text}")
    if len(few) > SHOWN:
        lines.append(f"not measured: {len(few) - SHOWN} domains more, of which as few runs tell")
    return tuple(lines)


def _law(draft: Recommendation) -> tuple[str, ...]:
    law = next(law for law in draft.laws if law.chosen)
    if law.spearman >= RANK:
        return ()
    return (
        f"the law ranks unseen mixtures poorly (rank correlation {law.spearman:.2f} by "
        f"{law.law}, wanted {RANK}): train more mixtures or longer proxies",
    )


def _rows(draft: Recommendation, W: Array) -> tuple[str, ...]:
    distinct = simplex.count_mixtures(W)
    needed = MIXTURES * len(draft.domains)
    if distinct >= needed:
        return ()
    return (f"{distinct} distinct mixtures for {len(draft.domains)} domains, wanted {needed}",)


def _baseline(draft: Recommendation) -> str:
    """The mixture that a gain is asked over: the start of a step, the reference, else natural."""
    gains = dict(draft.gains)
    return next((n for n in (START, REFERENCE) if n in gains), "natural")


def _gain(draft: Recommendation) -> tuple[str, ...]:
    over = _baseline(draft)
    gain = dict(draft.gains)[over]
    noise = next((n for n in draft.noise if n.target == "objective"), None)
    if gain.low <= ties.ROUNDING:
        return (
            f"the predicted gain over {over} {gain.mean:.4f} [{gain.low:.4f}, {gain.high:.4f}] "
            "may be nothing",
        )
    if noise is not None and gain.mean <= diagnostics.Z * np.sqrt(2) * noise.seeds:
        return (
            f"the predicted gain over {over} {gain.mean:.4f} is within the noise of a pair of "
            f"runs (standard deviation over seeds {noise.seeds:.4f})",
        )
    return ()


def _warnings(draft: Recommendation, problem: Problem, W: Array, foreign: int) -> tuple[str, ...]:
    found = [*missed_lines(draft.demands), *_given_lines(draft, problem, W)]
    if foreign:
        found.append(
            f"{foreign} finished runs were left out: their data, proxy or scoring is another"
        )
    if draft.failed:
        found.append(f"{draft.failed} runs failed and are not part of the evidence")
    point = draft.weights[None]
    widest = float(diagnostics.leverage(W, W).max()) * (1 + TOUCHING)
    if float(diagnostics.leverage(W, point)[0]) > widest:
        found.append("the recommended mixture lies beyond the mixtures tried: the law extrapolates")
    found += noisy_targets(draft.noise, problem.objective.targets, RATIO)
    if not bool(problem.constraints.satisfied(problem.domains.natural)):
        found.append("the natural mixture itself breaks a constraint; it is shown for comparison")
    if draft.step is None and dict(draft.gains)["best observed"].mean < -ties.ROUNDING:
        found.append("the law predicts the best observed mixture to be better than this one")
    return tuple(found)


def _given_lines(draft: Recommendation, problem: Problem, W: Array) -> list[str]:
    """A sentence on each mixture that the recipe gives to compare with, where one is due."""
    found = []
    for one in draft.candidates:
        if one.name in (REFERENCE, START):
            shares = np.array(one.weights)
            if not bool(problem.constraints.satisfied(shares)):
                found.append(f"the {one.name} mixture itself breaks a constraint")
            if not (np.abs(W - shares).max(axis=1) <= 2 * simplex.SAME).any():
                found.append(
                    f"no run was trained at the {one.name} mixture, so that gains over it rest on "
                    "the law alone: put it among the anchors"
                )
    return found


def noisy_targets(noise: Sequence[Noise], targets: Sequence[str], ratio: float) -> tuple[str, ...]:
    """The warning that names the targets whose signal to noise is below a ratio, if any is."""
    noisy = [n.target for n in noise if n.target in targets and n.ratio < ratio]
    if not noisy:
        return ()
    stated = f"mostly noise (spread over mixtures below {ratio:g} times that over seeds): "
    return (stated + ", ".join(noisy),)
