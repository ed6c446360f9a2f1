"""The params, metrics and tags of a study and of each of its proxies, as plain values.

Names follow one scheme, so that pages of the record can be set up once: `weight/<domain>`,
`epochs/<domain>`, the targets under their own names ("domain/legal", "task/piqa"), their sampling
errors under `uncertainty/`, the training loss under `curve/loss` with tokens seen as the step.
Weights and `objective` are metrics of every proxy, so that parallel coordinates of one against the
other work.
"""

import dataclasses
import hashlib
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import yaml

from cuvee.mixtures import simplex
from cuvee.mixtures.domains import DomainSet
from cuvee.mixtures.inference.crossed_intervals import ITEMS
from cuvee.mixtures.problem import Problem
from cuvee.mixtures.runs.run_results import Outcome, RunResult, TrainingCost
from cuvee.mixtures.runs.run_spec import RunSpec, canonical_json
from cuvee.tasks import strict_yaml
from cuvee.tasks.escape import escape_markdown, fenced_code
from cuvee.tasks.report.sections import headline
from cuvee.tasks.study.answers import (
    QUESTIONS,
    STEPS,
    known_gains,
    short_cost,
    short_gain,
    short_shares,
    study_answers,
    study_grade,
)
from cuvee.tasks.study.audits import held_out_gains, held_out_targets
from cuvee.tasks.study.finished import FinishedStudy, Purpose
from cuvee.tasks.study.study import Study
from cuvee.tasks.validation.hypothesis_tests import LargerSizeTests
from cuvee.tasks.validation.paired import BASELINES, Confirmation
from cuvee.tasks.validation.preregistration import Card

PREFIX = "cuvee."
DESCRIPTION = 7500  # most characters of one: servers hold 8,000 in a tag
LOSS, OBJECTIVE = "curve/loss", "objective"  # the prefix puts the curve above all other charts
BUILT = "objective as built"  # stands in the key as `objective`, as in the records of 2ad03ff
WHOLE = f"{PREFIX}whole"  # tag: which proxies a record has, all of them told in full
LONGEST = 200  # characters of a metric's name; MLflow takes 250
EDITOR = re.compile(
    r"\A# yaml-language-server:[^\n]*\n"
)  # a hint for editors: the same recipe without it


@dataclass(frozen=True)
class MetricPoint:
    """A value of a metric at a step."""

    name: str
    value: float
    step: int = 0


@dataclass(frozen=True)
class LoggedDataset:
    """A domain as the record's data set.

    Attributes:
        name: of the domain.
        digest: of its tokens.
        profile: its sizes.
    """

    name: str
    digest: str
    profile: Mapping[str, int]


@dataclass(frozen=True)
class RunFields:
    """What is written to one run of the record at once; an empty description changes none."""

    params: Mapping[str, str] = field(default_factory=dict)
    metrics: tuple[MetricPoint, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    datasets: tuple[LoggedDataset, ...] = ()
    description: str = ""  # Markdown


def metric_name(name: str) -> str:
    """A name that every tracking server takes; a changed one ends in a hash, to stay unique."""
    allowed = re.sub(r"[^\w.\-/ ]", "_", name, flags=re.ASCII).strip("/. ")
    allowed = "/".join(part for part in allowed.split("/") if part.strip(". "))[:LONGEST]
    if name and allowed == name:
        return name
    return f"{allowed or 'metric'}-{_sha256(name)[:6]}"


def study_params(recipe_text: str, problem: Problem, seed: int) -> dict[str, str]:
    """Parameters of a study, known before it begins; equal ones mean the same study."""
    return {
        "size": problem.proxy.size,
        "tokens": str(problem.proxy.tokens),
        "full_tokens": str(problem.full_tokens),
        "domains": str(len(problem.domains)),
        "objective": _objective(recipe_text, problem),
        BUILT: repr(problem.objective)[:2000],
        "seed": str(seed),
        **_input_digests(recipe_text, problem),
    }


def _input_digests(recipe_text: str, problem: Problem) -> dict[str, str]:
    data = canonical_json(problem.domains.identities)
    return {"recipe": _sha256(EDITOR.sub("", recipe_text)), "data": _sha256(data)}


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _objective(recipe_text: str, problem: Problem) -> str:
    """The objective as the recipe has it, on one line."""
    values = strict_yaml.load_yaml(recipe_text)
    if not isinstance(values, Mapping) or "objective" not in values:  # a fit file of Olmix
        return repr(problem.objective)[:2000]
    text = yaml.safe_dump(
        values["objective"], default_flow_style=True, sort_keys=False, width=10**6
    )
    return text.strip()[:2000]


def study_key(name: str, params: Mapping[str, str]) -> str:
    """What a study is found again by, 32 hexadecimal digits."""
    known = dict(params)
    if BUILT in known:
        known["objective"] = known.pop(BUILT)
    return _sha256(canonical_json([name, known]))[:32]


def spec_fields(spec: RunSpec, tags: Mapping[str, str]) -> RunFields:
    """What is known of a proxy before it is trained."""
    params = {
        "size": spec.size,
        "tokens": str(spec.tokens),
        "seed": str(spec.seed),
        "schedule": spec.schedule,
        "precision": spec.precision,
        "rate": f"{spec.rate:g}",
        "repetition": f"{spec.repetition:g}",
        "stages": str(len(spec.stages)),
        "controller": spec.controller[:2000] or "none",
        **({"trainer": spec.trainer[:2000]} if spec.trainer else {}),
    }
    weights = zip(spec.domains, spec.weights, strict=True)
    points = tuple(MetricPoint(metric_name(f"weight/{name}"), float(w)) for name, w in weights)
    return RunFields(params, points, cuvee_tags({**tags, "fingerprint": spec.fingerprint}))


def run_name(spec: RunSpec, tags: Mapping[str, str]) -> str:
    """What people see of a proxy first, such as `confirmation natural 0.6M seed 2 (3f9a1c)`."""
    role, mixture = tags.get("role", "proxy"), tags.get("mixture", "")
    size = spec.size if role == "confirmation" else ""
    words = ["" if mixture.startswith(role) else role, mixture, size, f"seed {spec.seed}"]
    return f"{' '.join(word for word in words if word)} ({spec.fingerprint[:6]})"


class MixtureNames:
    """Names of the mixtures of a study, as they come: natural, uniform, `design 1` and so on.

    Args:
        domains: of the study.
    """

    def __init__(self, domains: DomainSet) -> None:
        self._names = {_shares(domains.natural): "natural"}
        self._names.setdefault(_shares(domains.uniform), "uniform")
        self._designs = 0

    def tags(self, spec: RunSpec) -> dict[str, str]:
        """The role and the name of a run that is no confirmation."""
        shares = _shares(spec.weights)
        if shares not in self._names:
            *known, own = simplex.group_rows([*self._names, shares]).tolist()
            same = [
                name for name, one in zip(self._names.values(), known, strict=True) if one == own
            ]
            self._designs += not same
            self._names[shares] = same[0] if same else f"design {self._designs}"
        name = self._names[shares]
        return {"role": "design" if name.startswith("design") else "anchor", "mixture": name}


def _shares(weights: Iterable[float]) -> tuple[float, ...]:
    return tuple(float(weight) for weight in weights)


def cuvee_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Tags under our own prefix, so that they meet no other program's."""
    return {f"{PREFIX}{name}": str(value) for name, value in tags.items() if value != ""}


def curve_points(
    curve: Iterable[tuple[int, float]], known: set[int] | frozenset[int] = frozenset()
) -> tuple[MetricPoint, ...]:
    """A loss curve without the steps that are known, and without values that are no numbers."""
    return tuple(
        MetricPoint(LOSS, float(loss), int(tokens))
        for tokens, loss in curve
        if int(tokens) not in known and math.isfinite(loss)
    )


def result_points(result: RunResult, objective: float | None) -> Iterator[MetricPoint]:
    """What came of a proxy, its loss curve aside."""
    if objective is not None and math.isfinite(objective):
        yield MetricPoint(OBJECTIVE, objective)
    for name, score in (*result.scores.items(), *result.details.items()):
        yield MetricPoint(metric_name(name), score.value)
        yield MetricPoint(metric_name(f"uncertainty/{name}"), score.stderr)
    for tokens, scores in result.points:
        for name, value in scores.items():
            yield MetricPoint(metric_name(f"along/{name}"), value, tokens)
    for name, epochs in zip(result.spec.domains, result.epochs, strict=False):
        yield MetricPoint(metric_name(f"epochs/{name}"), epochs)
    for tokens, weights in result.trajectory:
        for name, weight in zip(result.spec.domains, weights, strict=True):
            yield MetricPoint(metric_name(f"trajectory/{name}"), weight, tokens)
    yield MetricPoint("flops", result.flops)
    yield MetricPoint("seconds", result.seconds)
    if result.seconds > 0:
        yield MetricPoint("tokens_per_second", result.spec.tokens / result.seconds)


def preregistration_tags(card: Card) -> dict[str, str]:
    """Tags by which the latest prediction card of a study is known; the card is an artifact."""
    return cuvee_tags(
        {"card": card.sha256, "card_written": card.written, "card_version": str(card.version)}
    )


def study_fields(study: Study) -> RunFields:
    """What the record says of a finished study itself; gains in bits per byte, positive better."""
    figures = dict(_headline_figures(study)).items()
    points = (MetricPoint(metric_name(n), float(v)) for n, v in figures if math.isfinite(v))
    promised = preregistration_tags(study.card.card) if study.card else {}
    return RunFields(
        metrics=tuple(points),
        tags={**cuvee_tags(_answer_tags(study)), **promised, WHOLE: _outcomes_digest(study)},
        datasets=tuple(_datasets(study)),
        description=study_description(study),
    )


def _headline_figures(study: Study) -> Iterator[tuple[str, float]]:
    ours, said = study.recommendation, headline.predicted_or_measured(study).lower()
    for name, estimate in known_gains(study)[1]:
        if name in BASELINES:
            yield from _gain(f"gain_over_{name}", estimate.mean, estimate.low, estimate.high)
    if study.confirmation:
        yield from _confirmed_figures(study.confirmation, held_out_targets(study))
    if study.transfer:
        yield from _larger_figures(study.transfer)
    over = study.card.calibration if study.card else None
    for name, value in (dataclasses.asdict(over) if over else {}).items():
        yield f"calibration/{name}", value
    for name, estimate in ours.gains:
        yield from _gain(f"{said}_gain/{name}", estimate.mean, estimate.low, estimate.high)
    for one in study.changes:
        where = f"forgetting/{one.mixture}/{one.domain}"
        yield from _gain(where, one.change, one.low, one.high)
    for name, score in (study.continual.start.scores if study.continual else {}).items():
        yield f"checkpoint/{name}", score
    if study.law:
        yield "rank_correlation", study.law.spearman
        yield "decision_accuracy", study.law.decision_accuracy
    yield "minutes", study.minutes
    yield "proxies", study.proxies
    yield "trained_now", study.trained_now
    yield "reused", study.reused
    yield "failed", len(study.failed)
    yield from _cost("evidence", study.cost)
    yield from _cost("call", study.call_cost)
    yield "tokens_per_second", study.tokens_per_second
    for candidate in ours.candidates:
        yield f"{said}/{candidate.name}", candidate.objective.mean
    for name, weight in zip(ours.domains, ours.weights, strict=True):
        yield f"recommended/{name}", float(weight)


def _larger_figures(found: LargerSizeTests) -> Iterator[tuple[str, float]]:
    for claim in found.claims:
        where = f"confirmed_gain/{claim.size}/{claim.tokens}/{claim.baseline}"
        yield from _gain(where, claim.gain.gain, claim.gain.low, claim.gain.high)
        yield f"{where}/corrected_p", claim.corrected
    for trend in found.trends:
        change = trend.change
        yield from _gain(f"trend/{trend.baseline}", change.gain, change.low, change.high)


def _confirmed_figures(
    confirmation: Confirmation, held_out: Sequence[str]
) -> Iterator[tuple[str, float]]:
    gains = {
        "confirmed": confirmation.objective,
        "held_out": held_out_gains(confirmation, held_out),
    }
    for kind, pairs in gains.items():
        for name, pair in pairs.items():
            yield from _gain(f"{kind}_gain/{name}", pair.gain, pair.low, pair.high)
            yield f"{kind}_gain/{name}/new_items", float(pair.covers == ITEMS)
    runs: dict[str, list[float]] = {}
    for run in confirmation.runs:
        runs.setdefault(run.mixture, []).append(run.objective)
    for name, values in runs.items():
        yield f"confirmed/{name}", sum(values) / len(values)


def _gain(name: str, mean: float, low: float, high: float) -> Iterator[tuple[str, float]]:
    yield name, mean
    yield f"{name}/low", low
    yield f"{name}/high", high


def _cost(of: str, cost: TrainingCost | None) -> Iterator[tuple[str, float]]:
    for name, value in (dataclasses.asdict(cost) if cost else {}).items():
        yield f"cost/{of}/{name}", value


def _answer_tags(study: Study) -> dict[str, str]:
    answers = study_answers(study)
    return {
        "recommendation": study.fingerprint,
        "law": study.law.law if study.law else "none",
        "verdict": answers["sure"][:2000],
        "grade": study_grade(study),
        "shares": short_shares(study)[:2000],
        "gain": short_gain(study),
        "cost": short_cost(study),
    }


def version_tags(study: Study, card: FinishedStudy) -> dict[str, str]:
    """Tags of a recommendation as a registered version: its study, and what it rests on.

    An approval of the version is one of this card, for the budget and target that it names.
    """
    evidence = study.recommendation.evidence
    tags = {
        "study": study.name,
        "evidence": _sha256(canonical_json(evidence)),
        "runs": str(len(evidence)),
        **_answer_tags(study),
        **_input_digests(study.recipe_text, study.problem),
    }
    return cuvee_tags(tags) | approvable_tags(card.identity, card.purpose)


def approvable_tags(card: str, purpose: Purpose) -> dict[str, str]:
    """Tags by which a version is known that an approval can be given to: a card, for a purpose."""
    budget = {"tokens": str(purpose.tokens), "parameters": str(purpose.parameters)}
    return cuvee_tags({"identity": card, **budget, "target": purpose.target or "none"})


def study_outcomes(study: Study) -> Iterator[tuple[Outcome, dict[str, str]]]:
    """Every outcome of a study with its tags: the role it played, and in which mixture."""
    mixtures = MixtureNames(study.problem.domains)
    for outcome in study.history:
        yield outcome, mixtures.tags(outcome.spec)
    for outcome in study.inconclusive:
        yield outcome, {"role": "confirmation"}
    for found in study.confirmations:
        for run in found.runs:
            yield run.result, {"role": "confirmation", "mixture": run.mixture}
        for failed in found.failed:
            yield failed, {"role": "confirmation"}


def _outcomes_digest(study: Study) -> str:
    """Hash of the outcomes that a record has when nothing is missing in it."""
    runs = [run for run, _ in study_outcomes(study)]
    names = sorted(f"{run.spec.fingerprint} {type(run).__name__}" for run in runs)
    return _sha256(" ".join(names))


def _datasets(study: Study) -> Iterator[LoggedDataset]:
    for one in study.problem.domains:
        sizes = {"num_rows": one.documents, "num_tokens": one.tokens, "num_bytes": one.bytes}
        sizes |= {"num_tokens_on_disk": one.stored} if one.sampled else {}
        yield LoggedDataset(one.name, one.identity, sizes)


def study_description(study: Study) -> str:
    """The record's page of a study, in Markdown: the four answers, warnings, shares."""
    lines = []
    for name, answer in study_answers(study).items():
        lines += [f"**{QUESTIONS[name]}.** {escape_markdown(answer)}", ""]
    if study.next_steps:
        lines += ["**Next.**", ""]
        lines += [f"- {escape_markdown(step)}" for step in study.next_steps[:STEPS]] + [""]
    lines += [f"- {escape_markdown(warning)}" for warning in headline.headline_warnings(study)]
    lines += ["", *_share_rows(study), "", f"Recommendation `{study.fingerprint[:16]}`."]
    lines += ["The whole account is `report.html` under Artifacts."]
    text = "\n".join(lines)
    recipe = "\n\n" + fenced_code(study.recipe_text, "yaml")
    return text + recipe if len(text + recipe) <= DESCRIPTION else text[:DESCRIPTION]


def _share_rows(study: Study) -> Sequence[str]:
    ours = study.recommendation
    natural = study.problem.domains.natural
    rows = ["| domain | recommended | interval | natural |", "| :-- | --: | --: | --: |"]
    parts = zip(ours.domains, ours.weights, ours.intervals, natural, strict=True)
    for name, share, (low, high), before in parts:
        rows.append(
            f"| {escape_markdown(name)} | {share:.1%} | {low:.1%} to {high:.1%} | {before:.1%} |"
        )
    return rows
