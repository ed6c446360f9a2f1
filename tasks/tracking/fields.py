"""What the record says of a study and of each of its proxies, as plain values.

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
from cuvee.mixtures.problem import Problem
from cuvee.mixtures.runs import Outcome, RunResult, RunSpec, canonical
from cuvee.tasks import strict_yaml
from cuvee.tasks.report.escape import escape_markdown, fenced_code
from cuvee.tasks.report.sections import headline
from cuvee.tasks.study.finished import Card as Approvable
from cuvee.tasks.study.finished import Purpose
from cuvee.tasks.study.study import Study
from cuvee.tasks.validation.preregistration import Card

PREFIX = "cuvee."
LOSS, OBJECTIVE = "curve/loss", "objective"  # the prefix puts the curve above all other charts
BUILT = "objective as built"  # stands in the key as `objective`, as in the records of 2ad03ff
LONGEST = 200  # characters of a metric's name; MLflow takes 250


@dataclass(frozen=True)
class Point:
    """A value of a metric at a step."""

    name: str
    value: float
    step: int = 0


@dataclass(frozen=True)
class Entry:
    """What is written to one run of the record at once."""

    params: Mapping[str, str] = field(default_factory=dict)
    metrics: tuple[Point, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Data:
    """A domain as the record's data set.

    Attributes:
        name: of the domain.
        digest: of its tokens.
        profile: its sizes.
    """

    name: str
    digest: str
    profile: Mapping[str, int]


def metric(name: str) -> str:
    """A name that every tracking server takes; a changed one ends in a hash, to stay unique."""
    allowed = re.sub(r"[^\w.\-/ ]", "_", name, flags=re.ASCII).strip("/. ")
    allowed = "/".join(part for part in allowed.split("/") if part.strip(". "))[:LONGEST]
    if name and allowed == name:
        return name
    return f"{allowed or 'metric'}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"


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
        "recipe": hashlib.sha256(recipe_text.encode()).hexdigest(),
        "data": hashlib.sha256(canonical(problem.domains.identities).encode()).hexdigest(),
    }


def _objective(recipe_text: str, problem: Problem) -> str:
    """The objective as the recipe has it, on one line."""
    values = strict_yaml.load(recipe_text)
    if not isinstance(values, Mapping) or "objective" not in values:  # a fit file of Olmix
        return repr(problem.objective)[:2000]
    text = yaml.safe_dump(
        values["objective"], default_flow_style=True, sort_keys=False, width=10**6
    )
    return text.strip()[:2000]


def key(name: str, params: Mapping[str, str]) -> str:
    """What a study is found again by, 32 hexadecimal digits."""
    known = dict(params)
    if BUILT in known:
        known["objective"] = known.pop(BUILT)
    return hashlib.sha256(canonical([name, known]).encode()).hexdigest()[:32]


def spec_entry(spec: RunSpec, tags: Mapping[str, str]) -> Entry:
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
    }
    weights = zip(spec.domains, spec.weights, strict=True)
    points = tuple(Point(metric(f"weight/{name}"), float(w)) for name, w in weights)
    return Entry(params, points, prefixed({**tags, "fingerprint": spec.fingerprint}))


def run_name(spec: RunSpec, tags: Mapping[str, str]) -> str:
    """What people see of a proxy first, such as `confirmation natural 0.6M seed 2 (3f9a1c)`."""
    role, mixture = tags.get("role", "proxy"), tags.get("mixture", "")
    size = spec.size if role == "confirmation" else ""
    words = ["" if mixture.startswith(role) else role, mixture, size, f"seed {spec.seed}"]
    return f"{' '.join(word for word in words if word)} ({spec.fingerprint[:6]})"


class Mixtures:
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
            *known, own = simplex.groups([*self._names, shares]).tolist()
            same = [
                name for name, one in zip(self._names.values(), known, strict=True) if one == own
            ]
            self._designs += not same
            self._names[shares] = same[0] if same else f"design {self._designs}"
        name = self._names[shares]
        return {"role": "design" if name.startswith("design") else "anchor", "mixture": name}


def _shares(weights: Iterable[float]) -> tuple[float, ...]:
    return tuple(float(weight) for weight in weights)


def prefixed(tags: Mapping[str, str]) -> dict[str, str]:
    """Tags under our own prefix, so that they meet no other program's."""
    return {f"{PREFIX}{name}": str(value) for name, value in tags.items() if value != ""}


def curve_points(
    curve: Iterable[tuple[int, float]], known: set[int] | frozenset[int] = frozenset()
) -> tuple[Point, ...]:
    """A loss curve without the steps that are known, and without values that are no numbers."""
    return tuple(
        Point(LOSS, float(loss), int(tokens))
        for tokens, loss in curve
        if int(tokens) not in known and math.isfinite(loss)
    )


def result_entry(result: RunResult, objective: float | None) -> Entry:
    """What came of a proxy, its loss curve aside."""
    return Entry(metrics=tuple(_result_points(result, objective)))


def _result_points(result: RunResult, objective: float | None) -> Iterator[Point]:
    if objective is not None and math.isfinite(objective):
        yield Point(OBJECTIVE, objective)
    for name, score in (*result.scores.items(), *result.details.items()):
        yield Point(metric(name), score.value)
        yield Point(metric(f"uncertainty/{name}"), score.stderr)
    for tokens, scores in result.points:
        for name, value in scores.items():
            yield Point(metric(f"along/{name}"), value, tokens)
    for name, epochs in zip(result.spec.domains, result.epochs, strict=False):
        yield Point(metric(f"epochs/{name}"), epochs)
    for tokens, weights in result.trajectory:
        for name, weight in zip(result.spec.domains, weights, strict=True):
            yield Point(metric(f"trajectory/{name}"), weight, tokens)
    yield Point("flops", result.flops)
    yield Point("seconds", result.seconds)
    if result.seconds > 0:
        yield Point("tokens_per_second", result.spec.tokens / result.seconds)


def card_tags(card: Card) -> dict[str, str]:
    """Tags by which the latest prediction card of a study is known; the card is an artifact."""
    return prefixed(
        {"card": card.sha256, "card_written": card.written, "card_version": str(card.version)}
    )


def study_entry(study: Study) -> Entry:
    """The headline figures of a study; gains are bits per byte, positive is better."""
    ours, said = study.recommendation, headline.predicted_or_measured(study).lower()
    values: dict[str, float] = {}
    for name, pair in (study.confirmation.objective if study.confirmation else {}).items():
        values |= _gain(f"confirmed_gain/{name}", pair.gain, pair.low, pair.high)
    for claim in study.transfer.claims if study.transfer else ():
        where = f"confirmed_gain/{claim.size}/{claim.tokens}/{claim.baseline}"
        values |= _gain(where, claim.gain.gain, claim.gain.low, claim.gain.high)
        values[f"{where}/corrected_p"] = claim.corrected
    for trend in study.transfer.trends if study.transfer else ():
        change = trend.change
        values |= _gain(f"trend/{trend.baseline}", change.gain, change.low, change.high)
    over = study.card.calibration if study.card else None
    for name, value in (dataclasses.asdict(over) if over else {}).items():
        values[f"calibration/{name}"] = value
    for name, estimate in ours.gains:
        values |= _gain(f"{said}_gain/{name}", estimate.mean, estimate.low, estimate.high)
    for one in study.changes:
        where = f"{one.mixture}/{one.domain}"
        values |= _gain(f"forgetting/{where}", one.change, one.low, one.high)
    for name, score in (study.continual.start.scores if study.continual else {}).items():
        values[f"checkpoint/{name}"] = score
    if study.law:
        values["rank_correlation"] = study.law.spearman
        values["decision_accuracy"] = study.law.decision_accuracy
    values |= {
        "minutes": study.minutes,
        "proxies": study.proxies,
        "trained_now": study.trained_now,
        "reused": study.reused,
        "failed": len(study.failed),
        "tokens_per_second": study.tokens_per_second,
    }
    for candidate in ours.candidates:
        values[f"{said}/{candidate.name}"] = candidate.objective.mean
    for name, runs in _confirmed(study).items():
        values[f"confirmed/{name}"] = sum(runs) / len(runs)
    for name, weight in zip(ours.domains, ours.weights, strict=True):
        values[f"recommended/{name}"] = float(weight)
    points = tuple(Point(metric(n), float(v)) for n, v in values.items() if math.isfinite(v))
    law = study.law.law if study.law else "none"
    tags = {"recommendation": study.fingerprint, "law": law, "verdict": study.verdict[:2000]}
    promised = card_tags(study.card.card) if study.card else {}
    return Entry(metrics=points, tags=prefixed(tags) | promised)


def version_tags(study: Study, card: Approvable) -> dict[str, str]:
    """Tags of a recommendation as a registered version: its study, and what it rests on.

    An approval of the version is one of this card, for the budget and target that it names.
    """
    law = study.law.law if study.law else "none"
    identities = study.problem.domains.identities
    tags = {
        "study": study.name,
        "recommendation": study.fingerprint,
        "evidence": hashlib.sha256(canonical(study.recommendation.evidence).encode()).hexdigest(),
        "runs": str(len(study.recommendation.evidence)),
        "data": hashlib.sha256(canonical(identities).encode()).hexdigest(),
        "recipe": hashlib.sha256(study.recipe_text.encode()).hexdigest(),
        "law": law,
        "verdict": study.verdict[:2000],
    }
    return prefixed(tags) | bound_tags(card.identity, card.purpose)


def bound_tags(card: str, purpose: Purpose) -> dict[str, str]:
    """Tags by which a version is known that an approval can be given to: a card, for a purpose."""
    budget = {"tokens": str(purpose.tokens), "parameters": str(purpose.parameters)}
    return prefixed({"identity": card, **budget, "target": purpose.target or "none"})


def _gain(name: str, mean: float, low: float, high: float) -> dict[str, float]:
    return {name: mean, f"{name}/low": low, f"{name}/high": high}


def outcomes(study: Study) -> Iterator[tuple[Outcome, dict[str, str]]]:
    """Every outcome of a study with its tags: the role it played, and in which mixture."""
    mixtures = Mixtures(study.problem.domains)
    for outcome in study.history:
        yield outcome, mixtures.tags(outcome.spec)
    for found in study.confirmations:
        for run in found.runs:
            yield run.result, {"role": "confirmation", "mixture": run.mixture}
        for failed in found.failed:
            yield failed, {"role": "confirmation"}


def whole(study: Study) -> str:
    """Hash of the outcomes that a record has when nothing is missing in it."""
    names = sorted(f"{run.spec.fingerprint} {type(run).__name__}" for run, _ in outcomes(study))
    return hashlib.sha256(" ".join(names).encode()).hexdigest()


def _confirmed(study: Study) -> dict[str, list[float]]:
    runs = study.confirmation.runs if study.confirmation else ()
    values: dict[str, list[float]] = {}
    for run in runs:
        values.setdefault(run.mixture, []).append(run.objective)
    return values


def datasets(study: Study) -> tuple[Data, ...]:
    """The domains of a study."""
    return tuple(
        Data(
            domain.name,
            domain.identity,
            {
                "num_rows": domain.documents,
                "num_tokens": domain.tokens,
                "num_bytes": domain.bytes,
            },
        )
        for domain in study.problem.domains
    )


def description(study: Study) -> str:
    """The record's page of a study, in Markdown: verdict, warnings, the four answers, shares."""
    lines = [f"**Verdict: {escape_markdown(study.verdict)}**", ""]
    lines += [f"- {escape_markdown(warning)}" for warning in headline.headline_warnings(study)]
    for question, answer in headline.headline_answers(study):
        lines += ["", f"**{question}.** {escape_markdown(answer)}"]
    lines += ["", *_share_rows(study), "", f"Recommendation `{study.fingerprint[:16]}`."]
    lines += ["The whole account is `report.html` under Artifacts."]
    text = "\n".join(lines)
    recipe = "\n\n" + fenced_code(study.recipe_text, "yaml")
    return text + recipe if len(text + recipe) <= 7500 else text[:7500]


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
