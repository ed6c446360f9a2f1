"""What a plan says of a confirmation: the gain that it can show, and the seeds of a wanted one."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from cuvee.flows.recipe.aim_parts import ConfirmPart
from cuvee.flows.study.confirm import problem_at_size
from cuvee.mixtures import simplex
from cuvee.mixtures.inference.crossed_intervals import ITEMS, SEEDS
from cuvee.mixtures.inference.dataset import is_evidence, reference_rows
from cuvee.mixtures.inference.power import MOST, POWER, PairNoise, pair_noise
from cuvee.mixtures.problem import Problem
from cuvee.mixtures.runs.run_results import RunResult, score_table
from cuvee.mixtures.runs.unit_scores import UnitScores
from cuvee.tasks.store.results import Store
from cuvee.tasks.study.answers import UNIT
from cuvee.tasks.validation.paired import RECOMMENDED, Confirmation, ConfirmedRun, paired_gain

Units = Callable[[RunResult], Mapping[str, UnitScores]]


def power_figures(part: ConfirmPart | None, problem: Problem, store: Store) -> list[dict[str, Any]]:
    """What each size that is confirmed can show, the study's own first; none without a part.

    What follows from the noise is null before it is known.
    """
    if part is None:
        return []
    proxy = problem.proxy
    places = [(proxy.size, proxy.tokens), *((step.size, step.tokens) for step in part.sizes)]
    posed = [problem if i == 0 else problem_at_size(problem, *at) for i, at in enumerate(places)]
    return [_figures(part, one, earlier_noise(one, store)) for one in posed]


def _figures(part: ConfirmPart, problem: Problem, noise: PairNoise | None) -> dict[str, Any]:
    wanted = part.wanted_gain
    return {
        "size": problem.proxy.size,
        "tokens": problem.proxy.tokens,
        "seeds": part.seeds,
        "pair_noise": noise and asdict(noise),
        "smallest_gain": noise and noise.smallest_gain(part.seeds),
        "seeds_for_wanted_gain": noise.seeds_for(wanted) if noise and wanted else None,
    }


def power_sentences(part: ConfirmPart | None, figures: Sequence[dict[str, Any]]) -> list[str]:
    """A sentence for each size that is confirmed, of `power_figures`."""
    return [f"Confirmation at {at['size']}: {_shown(part, at)}" for at in figures if part]


def _shown(part: ConfirmPart, at: dict[str, Any]) -> str:
    """What can be shown at one size, by its noise."""
    noise = at["pair_noise"]
    if noise is None:
        return (
            "what gain it can show is not known before two mixtures were run under two seeds each "
            "at this size; plan again then"
        )
    covers, of_items = SEEDS, ""
    if noise["items"]:
        covers, of_items = ITEMS, f" and by {noise['items']:.4f} over items"
    said = (
        f"{part.seeds} seeds show a gain of {at['smallest_gain']:.4f} {UNIT} over another mixture "
        f"in {POWER:.0%} of such tests, for {covers}, if the recommended mixture is no noisier "
        f"than those of earlier runs (pairs of which differ by {noise['sd']:.4f} over seeds"
        f"{of_items}; {noise['degrees']} degrees of freedom)"
    )
    if part.wanted_gain is None:
        return said
    wanted = at["seeds_for_wanted_gain"]
    needed = f"confirm.seeds: {wanted}" if wanted else f"more than {MOST} seeds, or more items"
    return f"{said}; confirm.wanted_gain of {part.wanted_gain:g} needs {needed}"


def earlier_noise(problem: Problem, store: Store) -> PairNoise | None:
    """The noise of a pair of runs of a problem, by those in the store; None where they are too few.

    Anchors under their seeds, repeats of concentrated mixtures and earlier confirmations count
    alike: whatever is confirmed is taken to be as noisy as these are on average.
    """
    runs = tuple(
        run
        for run in store.outcomes()
        if isinstance(run, RunResult)
        and is_evidence(problem, run.spec)
        and run.scores.keys() >= set(problem.targets)
    )
    return noise_of_pairs(problem, runs, lambda run: store.units_of(run.spec)) if runs else None


def noise_of_pairs(problem: Problem, runs: tuple[RunResult, ...], units: Units) -> PairNoise | None:
    """The noise of a pair of runs; what other items bring, by the two mixtures with most runs."""
    W, Y, _ = score_table(runs, problem.targets)
    member, rows = simplex.group_rows(W), reference_rows(problem, W)
    reference = Y[rows or slice(None)].mean(axis=0)
    values = problem.objective.scalarize(problem.targets, reference).relaxed(Y)
    noise = pair_noise(values, member, [run.spec.seed for run in runs])
    if noise is None:
        return None
    most = [group for group, _ in Counter(member.tolist()).most_common(2)]
    pair = tuple(
        ConfirmedRun(name, 0.0, replace(runs[i], units=units(runs[i])))
        for name, group in zip((RECOMMENDED, "natural"), most, strict=True)
        for i in np.flatnonzero(member == group)
    )
    measured = Confirmation(pair, {})
    if len(measured.differences("natural")) < 2:
        return noise
    return replace(noise, items=paired_gain(measured, "natural", problem.objective).items)
