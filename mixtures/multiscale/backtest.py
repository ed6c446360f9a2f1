"""Back-test: fit scaling laws to the smaller sizes, predict the largest, compare with ranking.

Single-scale ranking is hard to beat (Magnusson et al. 2025, "DataDecide", arXiv 2504.11393), so
that a scaling law is used only if it decides better here: the 90 % interval of its gain in decision
accuracy, over resampled mixtures, lies above zero. The rival is the better of two: a law of
mixtures fitted at one size, and the plain order of the mixtures' own scores at the next smaller
size. Where several laws beat it, their average is used, unless that does not.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from cuvee.mixtures import simplex, ties
from cuvee.mixtures.domains import Array
from cuvee.mixtures.inference import diagnostics
from cuvee.mixtures.objectives import Scalarized
from cuvee.mixtures.recommendation import LEVEL
from cuvee.mixtures.scale_evidence import AVERAGE, PLAIN, SINGLE, LawTrial
from cuvee.mixtures.scaling import Scaling, ScalingRuns
from cuvee.mixtures.scaling.average import average_fits
from cuvee.mixtures.scaling.discrepancy import attempts, hold_out

LEAST = 4  # mixtures at the largest size below which pairs say nothing
DRAWS = 400


@dataclass(frozen=True)
class BackTest:
    """What came of a back-test.

    Attributes:
        trials: one per law, single-scale ranking and plain order among them.
        chosen: the law that is to be used.
        beats: whether that is a law that beat single-scale ranking.
        verdict: why, in words.
    """

    trials: tuple[LawTrial, ...]
    chosen: str
    beats: bool
    verdict: str


def backtest(
    laws: Mapping[str, Scaling],
    single: Scaling,
    runs: ScalingRuns,
    scalar: Scalarized,
    rng: np.random.Generator,
) -> BackTest:
    """Compare laws by how they predict the largest size from the smaller ones.

    Args:
        laws: by name.
        single: single-scale ranking.
        runs: of several sizes, with the targets that the objective reads. Points of curves are
            fitted; what is held out, and what ranks, are ends of runs.
        scalar: the objective; taken without its floors.
        rng: the only source of chance.
    """
    fit_rng, boot_rng = rng.spawn(2)
    held, reason = largest_runs(runs.ends)
    if reason:
        trials = tuple(LawTrial(name, refused=reason) for name in (*laws, SINGLE))
        return BackTest(trials, SINGLE, False, f"no back-test: {reason}; single-scale ranking used")
    rest = runs.take(runs.parameters < runs.sizes[-1])
    observed, candidates = scalar.relaxed(held.Y), {**laws, SINGLE: single}
    calls = {name: partial(hold_out, law, rest, held) for name, law in candidates.items()}
    told, refused = attempts(calls, fit_rng)
    said = {name: prediction for name, (_, prediction) in told.items()}
    found = {name: scalar.relaxed(prediction.mean) for name, prediction in said.items()}
    plain = _plain(rest.ends, held, scalar)
    if plain is not None:
        found[PLAIN] = plain
    draws = [boot_rng.integers(len(observed), size=len(observed)) for _ in range(DRAWS)]
    trials = _trials(found, observed, draws)
    better = [trial.law for trial in laws_that_beat(trials)]
    if len(better) > 1 and AVERAGE not in laws:
        average = average_fits([(laws[name], told[name][0]) for name in better])
        said[AVERAGE] = average.predict(held.W, held.parameters, held.tokens)
        trials = _trials({AVERAGE: scalar.relaxed(said[AVERAGE].mean), **found}, observed, draws)
    inside = {
        n: float((abs(held.Y - p.mean) <= diagnostics.Z * p.sd).mean()) for n, p in said.items()
    }
    trials = tuple(replace(t, coverage=inside.get(t.law, 0.0)) for t in trials)
    every = trials + tuple(LawTrial(name, refused=text) for name, text in refused.items())
    return choose_law(every)


def largest_runs(runs: ScalingRuns) -> tuple[ScalingRuns, str]:
    """The largest size's runs at its most tokens, averaged by mixture, or why they are no test."""
    top = runs.take(runs.parameters == runs.sizes[-1])
    top = top.take(top.tokens == top.tokens.max())
    membership = simplex.group_rows(top.W)
    count = int(membership.max()) + 1
    if len(runs.sizes) < 2:
        return top, "all runs are of one size"
    if count < LEAST:
        return top, f"{count} mixtures were trained at the largest size, {LEAST} are needed"
    first = np.unique(membership, return_index=True)[1]
    return replace(top.take(first), Y=simplex.group_means(top.Y, membership)), ""


def _plain(rest: ScalingRuns, held: ScalingRuns, scalar: Scalarized) -> Array | None:
    """Objective of the held-out mixtures at the next smaller size; None where one is missing."""
    near = rest.take(rest.parameters == rest.sizes[-1])
    scores = []
    for w in held.W:
        own = np.abs(near.W - w).max(axis=1) <= 2 * simplex.SAME
        if not own.any():
            return None
        scores.append(near.Y[own].mean(axis=0))
    return scalar.relaxed(np.array(scores))


def _trials(
    found: Mapping[str, Array], observed: Array, draws: Sequence[Any]
) -> tuple[LawTrial, ...]:
    accuracy = {n: diagnostics.decision_accuracy(observed, x) for n, x in found.items()}
    rivals = [name for name in (SINGLE, PLAIN) if name in found]
    rival = max(rivals, key=lambda name: accuracy[name]) if rivals else None
    trials = []
    for name, predicted in found.items():
        low = high = gain = 0.0
        if rival is not None and name != rival:
            other = found[rival]
            gain = accuracy[name] - accuracy[rival]
            differences = [
                diagnostics.decision_accuracy(observed[r], predicted[r])
                - diagnostics.decision_accuracy(observed[r], other[r])
                for r in draws
            ]
            low, high = np.quantile(differences, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        fields = diagnostics.order_evidence(observed, predicted)
        trials.append(LawTrial(name, gain=float(gain), low=float(low), high=float(high), **fields))
    return tuple(trials)


def laws_that_beat(trials: tuple[LawTrial, ...]) -> list[LawTrial]:
    """The laws that beat single-scale ranking beyond the noise, their average among them."""
    laws = [t for t in trials if t.law not in (SINGLE, PLAIN) and not t.refused]
    ranked = any(t.law in (SINGLE, PLAIN) and not t.refused for t in trials)
    return [t for t in laws if t.low > ties.ROUNDING] if ranked else laws


def choose_law(trials: tuple[LawTrial, ...]) -> BackTest:
    """The law to use: the average of those that beat ranking, or the best if that does not."""
    laws = [t for t in trials if t.law not in (SINGLE, PLAIN) and not t.refused]
    rivals = [t for t in trials if t.law in (SINGLE, PLAIN) and not t.refused]
    if not laws:
        reasons = "; ".join(dict.fromkeys(t.refused for t in trials if t.refused))
        text = f"no scaling law could be tested on the largest size ({reasons})"
        return BackTest(trials, SINGLE, False, f"{text}; single-scale ranking is used")
    best = _best(laws)
    better = laws_that_beat(trials)
    if better:
        used = next((t for t in better if t.law == AVERAGE), _best(better))
        text = (
            f"{used.law} ordered {used.decision_accuracy:.0%} of the pairs at the largest size "
            f"rightly, {used.gain:+.0%} [{used.low:+.0%}, {used.high:+.0%}] over single-scale "
            "ranking: it is used"
        )
        return BackTest(trials, used.law, True, text)
    rival = max(rivals, key=lambda t: t.decision_accuracy)
    text = (
        f"no scaling law beat single-scale ranking at the largest size: the best, {best.law}, "
        f"ordered {best.decision_accuracy:.0%} of the pairs rightly against "
        f"{rival.decision_accuracy:.0%} ({best.gain:+.0%} [{best.low:+.0%}, {best.high:+.0%}]); "
        "single-scale ranking is used"
    )
    return BackTest(trials, SINGLE, False, text)


def _best(trials: list[LawTrial]) -> LawTrial:
    """The most accurate; of equal ones the one that ranks best, then the first."""
    return max(trials, key=lambda t: (round(t.decision_accuracy, 9), t.spearman))
