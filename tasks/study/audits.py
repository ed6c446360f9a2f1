"""Audits of what a study's scores mean: gains on held-out targets, which score orders accuracy, and
how early the order of mixtures stands."""

from collections.abc import Mapping, Sequence

from cuvee.mixtures import loop
from cuvee.mixtures.inference.early_ranking import EarlyRanking, rank_early
from cuvee.mixtures.inference.metric_audit import MetricAudit, audit_metrics
from cuvee.tasks.study.study import Study
from cuvee.tasks.validation.paired import Confirmation, PairedGain, mean_gain

DRAWS = 71  # what the audits' draws derive from, beside the study's seed


def held_out_targets(study: Study) -> tuple[str, ...]:
    """Targets by which nothing was chosen: those that the recipe names, else all that the objective
    does not read."""
    read, named = study.problem.objective.targets, study.held_out
    known = study.problem.targets if named is None else named
    return tuple(t for t in study.problem.targets if t in known and t not in read)


def held_out_gains(found: Confirmation, targets: Sequence[str]) -> Mapping[str, PairedGain]:
    """Baseline -> paired gain in the plain mean of targets, bits per byte; none without targets."""
    weights = dict.fromkeys(targets, 1.0)
    known = found.targets if targets else ()
    return {name: mean_gain(found, name, weights, "held-out targets") for name in known}


def least_held_out(study: Study) -> tuple[str, PairedGain] | None:
    """Over which mixture the gain on held-out targets is least at the largest size, and that."""
    targets = held_out_targets(study)
    gains = held_out_gains(study.confirmations[-1], targets) if study.confirmations else {}
    return min(gains.items(), key=lambda pair: pair[1].gain, default=None)


def run_audits(study: Study) -> tuple[tuple[MetricAudit, ...], EarlyRanking | None]:
    """The metric audit and the early ranking of all finished runs, confirmations included."""
    fresh = [run.result for found in study.confirmations for run in found.runs]
    runs = tuple({run.spec.fingerprint: run for run in (*study.runs, *fresh)}.values())
    rng = loop.generator(study.seed, DRAWS)
    return audit_metrics(runs, rng), rank_early(runs, study.problem, rng)
