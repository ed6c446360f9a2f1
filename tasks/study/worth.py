"""What domains are worth, of runs that left them out: a study's sentence, and its figures."""

from dataclasses import replace
from typing import Any

import numpy as np

from cuvee.mixtures.domain_worth import Attribution, LeaveOut
from cuvee.mixtures.recommendation import LEVEL
from cuvee.tasks.study.study import Study
from cuvee.tasks.validation.paired import interval_text

NAMED = 4  # domains that the sentence names of either sign, the largest worth first
WORDS = {1: "Worth having: ", -1: "Costs more than it gives: ", 0: "No effect shown: "}


def worth_sentence(found: Attribution) -> str:
    """What each domain is worth to the objective; left out of a whole run, where that was done."""
    one = found.measured[0]
    ranked = sorted(zip(one.domains, one.worths, strict=True), key=lambda d: -abs(d[1][0].mean))
    parts = []
    for sign, words in WORDS.items():
        names = [
            f"{name} {interval_text(row[0], '+.4f')}" if sign else name
            for name, row in ranked
            if row[0].sign == sign
        ]
        more = f", and {len(names) - NAMED} more" if len(names) > NAMED else ""
        parts += [f"{words}{', '.join(names[:NAMED])}{more}"] if names else []
    return (
        f"{'. '.join(parts)}. Each was left out {one.said}, under {one.seeds} seeds, its share "
        f"given to the others; bits per byte of the objective, with {LEVEL:.0%} intervals that "
        "hold for all together and for new seeds."
    )


def worth_figures(found: Attribution) -> list[dict[str, Any]]:
    """The same for programs: worths for the objective by domain, for each phase of the runs."""
    return [_figures(one) for one in found.measured]


def _figures(one: LeaveOut) -> dict[str, Any]:
    rows = zip(one.domains, one.worths, strict=True)
    return {
        "left_out_share": one.share,
        "seeds": one.seeds,
        "smallest_shown": one.detectable[0],
        "domains": {
            name: {"worth": w.mean, "low": w.low, "high": w.high, "corrected_p": w.p}
            for name, (w, *_) in rows
        },
    }


def worths_from_untrained(study: Study) -> Study:
    """A study whose Shapley values start from an untrained model's scores, where they are known."""
    scores, targets = study.untrained or {}, study.problem.targets
    found = study.recommendation.attribution
    if not (found and found.shapley and scores.keys() >= set(targets)):
        return study
    row = np.array([scores[target] for target in targets])
    whole = study.problem.objective.scalarize(targets, study.reference).relaxed(row)
    moved = found.shapley.from_empty((float(whole), *row.tolist()))
    answer = replace(study.recommendation, attribution=replace(found, shapley=moved))
    return replace(study, recommendation=answer)
