"""The summary of a study: what programs read of it, the content of `summary.json`."""

import dataclasses
from typing import Any

from cuvee.mixtures.recommendation import Estimate
from cuvee.mixtures.runs.run_results import TrainingCost
from cuvee.tasks.study import forgetting
from cuvee.tasks.study.answers import study_answers, study_grade
from cuvee.tasks.study.audits import held_out_gains, held_out_targets
from cuvee.tasks.study.study import Study, finite_or_none
from cuvee.tasks.study.worth import worth_figures
from cuvee.tasks.validation.calibration import Calibration, ScoredPredictions
from cuvee.tasks.validation.hypothesis_tests import LargerSizeTests
from cuvee.tasks.validation.paired import Confirmation, PairedGain, alone_text


def study_summary(study: Study) -> dict[str, Any]:
    """What programs read of a study: the content of `summary.json`. Gains are bits per byte."""
    law, ours, tests = study.law, study.recommendation, study.transfer
    answers = study_answers(study)
    tested = study.confirmation
    confirmed = tested.objective if tested else {}
    return {
        "name": study.name,
        "minutes": round(study.minutes, 3),
        "proxies": study.proxies,
        "trained_now": study.trained_now,
        "reused": study.reused,
        "failed": len(study.failed),
        "cost": {
            "evidence": _plain(study.cost),
            "call": {**dataclasses.asdict(study.call_cost), "minutes": round(study.minutes, 3)},
        },
        "tokens_per_second": round(study.tokens_per_second, 1),
        "rank_correlation": finite_or_none(law.spearman) if law else None,
        "confirmation": {name: _gain(pair) for name, pair in confirmed.items()},
        "held_out": _held_out(study, tested),
        "worth": worth_figures(ours.attribution) if ours.attribution else [],
        "larger_sizes": [_larger(study, tests, step) for step in tests.steps] if tests else [],
        "trends": {
            trend.baseline: {**_gain(trend.change, "change"), "sizes": trend.sizes}
            for trend in (tests.trends if tests else ())
        },
        "card": _card(study.card) if study.card else None,
        "forgetting": forgetting.forgetting_summary(study.continual, study.changes)
        if study.continual
        else None,
        "weights": study.problem.domains.mapping(ours.weights),
        "method": ours.method,
        "law": law.law if law else None,
        "verdict": answers["sure"],
        "next_steps": list(study.next_steps),
        "grade": study_grade(study),
        "answers": answers,
        "recommendation": study.fingerprint,
        "seed": study.seed,
    }


def _gain(pair: PairedGain, word: str = "gain") -> dict[str, Any]:
    over = pair.over_seeds or pair.estimate
    return {
        word: pair.gain,
        "low": pair.low,
        "high": pair.high,
        "n": pair.n,
        "covers": pair.covers,
        "why_alone": alone_text([pair], len(pair.alone)).removeprefix(", as "),
        "over_new_seeds": [over.low, over.high],
    }


def _held_out(study: Study, found: Confirmation | None) -> dict[str, Any]:
    gains = held_out_gains(found, held_out_targets(study)) if found else {}
    return {name: _gain(pair) for name, pair in gains.items()}


def _larger(study: Study, found: LargerSizeTests, step: Confirmation) -> dict[str, Any]:
    claims = {
        claim.baseline: {
            **_gain(claim.gain),
            "p": claim.gain.p,
            "corrected_p": claim.corrected,
            "claim": claim.judgment,
        }
        for claim in found.claims_at(step)
    }
    held, said = found.held_at(step), found.statement(step)
    place = {"size": step.size, "tokens": step.tokens, "held": held, "said": said}
    return {**place, "gains": claims, "held_out": _held_out(study, step)}


def _plain(value: Estimate | Calibration | TrainingCost | None) -> dict[str, Any] | None:
    return dataclasses.asdict(value) if value else None


def _card(found: ScoredPredictions) -> dict[str, Any]:
    card = found.card
    return {
        "sha256": card.sha256,
        "version": card.version,
        "written": card.written,
        "predictions": [
            {
                "size": one.promise.size,
                "tokens": one.promise.tokens,
                "baseline": one.promise.baseline,
                "predicted": _plain(one.promise.predicted),
                "observed": one.observed.gain,
                "inside": one.inside,
                "sign": one.sign,
                "error": finite_or_none(one.error),
                "trained_before": one.promise.before,
            }
            for one in found.outcomes
        ],
        "calibration": _plain(found.calibration),
        "changed_cards": list(found.wrong),
    }
