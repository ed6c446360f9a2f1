"""What a reader must know first, in words: the four answers, and the warnings before them.

The report and the record open with the same sentences, so they are made here. Wording follows the
intervals: a gain whose interval includes zero is "within the noise", whatever its mean.
"""

from cuvee.mixtures.recommendation import Estimate
from cuvee.mixtures.runs import TrainingCost
from cuvee.mixtures.units import count_text, duration_text
from cuvee.tasks.study.forgetting import changes_above_floor, worst_change
from cuvee.tasks.study.study import Study
from cuvee.tasks.validation.paired import RECOMMENDED, Judgement, PairedGain

UNIT = "bits per byte"
NONE = "-"  # in a table, where there is no value


def headline_answers(study: Study) -> tuple[tuple[str, str], ...]:
    """(question, answer) pairs: what, how sure, against what, at what cost."""
    return (
        ("What is recommended", _what(study)),
        ("How sure", _sure(study)),
        ("Against what", _against(study)),
        ("At what cost", _cost(study)),
    )


def headline_tone(study: Study) -> str:
    """`good` if confirmed beyond the noise against all that it claims to beat, `bad` if worse than
    any mixture beyond the noise, else `caution`; at every size that was trained."""
    pairs = [pair for found in study.confirmations for pair in found.objective.values()]
    if any(pair.judgment is Judgement.WORSE for pair in pairs):
        return "bad"
    held = [] if study.confirmed is None else [study.confirmed]
    if study.transfer:
        held += [study.transfer.held_at(step) for step in study.transfer.steps]
    return "good" if held and all(held) else "caution"


def predicted_or_measured(study: Study) -> str:
    """Where the figures of mixtures come from, before any is confirmed: a law, or a trial."""
    return "Measured" if study.measured else "Predicted"


def headline_figures(study: Study) -> tuple[tuple[str, str, str], ...]:
    """(label, value, note) of the numbers that sum the study up."""
    said = predicted_or_measured(study)
    found = [
        _figure(f"Confirmed gain over {name}", pair.estimate, pair.judgment)
        for name, pair in (study.confirmation.objective if study.confirmation else {}).items()
    ]
    if not study.confirmation:
        found += [
            _figure(f"{said} gain over {name}", estimate, "not confirmed")
            for name, estimate in study.recommendation.gains
        ]
    found += [
        _figure(f"Gain over {claim.baseline} at {claim.size}", claim.gain.estimate, claim.judgment)
        for claim in (study.transfer.claims if study.transfer else ())
    ]
    most = worst_change(study.continual, study.changes) if study.continual else None
    if most:
        label = "Worst change of an old domain"
        found.append(_figure(label, most.estimate, most.judgment, f"{most.domain}, "))
    if study.law:
        note = f"of the objective, held out, by {study.law.law}"
        found.append(("Rank correlation", f"{study.law.spearman:.2f}", note))
    if study.cost:
        now = f"the last command trained {study.trained_now} of them in {study.minutes:.1f} minutes"
        value, note = duration_text(study.cost.core_seconds), f"one core, {study.proxies} proxies"
        found.append(("Training and scoring", value, f"of {note}; {now}"))
    return tuple(found)


def _figure(label: str, value: Estimate, words: str, of: str = "") -> tuple[str, str, str]:
    note = f"{UNIT}, {of}{value.low:+.3f} to {value.high:+.3f}: {words}"
    return label, f"{value.mean:+.3f}", note


def _trained(study: Study) -> str:
    """Who trained the proxies; the parts add up to all of them."""
    now = min(study.trained_now, study.proxies)
    before, untried = study.proxies - now - study.untried, study.untried
    left = f", {untried} not trained" if untried else ""
    return f"{now} trained by the last command, {before} before it{left}"


def cost_text(cost: TrainingCost) -> str:
    """What trainings cost, in words."""
    return (
        f"{duration_text(cost.core_seconds)} of one core, {count_text(cost.tokens)} tokens, "
        f"{cost.flops:.2e} FLOPs"
    )


def headline_warnings(study: Study) -> tuple[str, ...]:
    """The recommendation's own warnings, then what the confirmation and the failures add."""
    found = list(study.recommendation.warnings)
    found += [f"Text: {notice}." for p in study.corpus.values() for notice in p.notices]
    for name, estimate in study.recommendation.gains:
        if estimate.high < 0:
            said = "The trial measured" if study.measured else "The law predicts"
            found.append(f"{said} that {_called(name)} is better than this one.")
    if not study.confirmations:
        found.append(
            "The recommendation was not confirmed under fresh seeds: its gains are those of the "
            "method's own trial."
            if study.measured
            else "The recommendation was not confirmed by training it: its gains are predicted."
        )
    elif study.confirmation:
        for name, pair in study.confirmation.objective.items():
            if pair.low <= 0:
                found.append(f"Against {_called(name)}, the confirmed gain is {gain_text(pair)}.")
        found += _surprise(study)
    if study.transfer:
        steps = study.transfer.steps
        found += [
            study.transfer.statement(step) for step in steps if not study.transfer.held_at(step)
        ]
        found += [f"Nothing can be said at {lost}" for lost in study.transfer.lost]
    found += study.card.wrong if study.card else ()
    if study.continual:
        found += [
            f"The floor on forgetting, {study.continual.forget:g} {UNIT}, is broken: {one.text}."
            for one in changes_above_floor(study.continual, study.changes)
        ]
    if study.failed:
        found.append(
            f"{len(study.failed)} of {study.proxies} proxies failed and are left out; "
            "they are listed below."
        )
    return tuple(found)


def _surprise(study: Study) -> list[str]:
    mean = study.confirmation.mean(RECOMMENDED) if study.confirmation else None
    expected = study.recommendation.candidate(RECOMMENDED).objective
    if mean is None or expected.low <= mean <= expected.high:
        return []
    told = "of the method's own trial" if study.measured else "that the law predicted"
    return [
        f"The confirmed objective of the recommended mixture, {mean:.4f}, lies outside the "
        f"interval {told}, {expected.low:.4f} to {expected.high:.4f}."
    ]


def gain_text(pair: PairedGain, level: float | None = None) -> str:
    """A paired gain in words, such as `+0.041 bits per byte (0.020 to 0.062): better ...`."""
    sure = f"{level:.0%} interval " if level else ""
    return (
        f"{pair.gain:+.4f} {UNIT} ({sure}{pair.low:+.4f} to {pair.high:+.4f}, "
        f"{pair.n} paired {'seed' if pair.n == 1 else 'seeds'}): {pair.judgment}"
    )


def _called(name: str) -> str:
    """A mixture in a sentence: `the natural mixture`, but `its average`, of a schedule."""
    return name if name.startswith("its ") else f"the {name} mixture"


def _what(study: Study) -> str:
    ours = study.recommendation
    order = sorted(range(len(ours.domains)), key=lambda i: -ours.weights[i])
    shares = ", ".join(f"{ours.domains[i]} {ours.weights[i]:.1%}" for i in order)
    stages = f" in {len(ours.stages)} stages, on average" if len(ours.stages) > 1 else ""
    return f"Shares of training tokens{stages}: {shares}."


def _sure(study: Study) -> str:
    parts = []
    if study.confirmation:
        level = study.confirmation.level
        for name, pair in study.confirmation.objective.items():
            parts.append(f"Confirmed against {name}: {gain_text(pair, level)}.")
    elif not study.transfer:
        where = " in the method's own trial" if study.measured else ""
        parts.append(f"{predicted_or_measured(study)}{where} only; no fresh run has confirmed it.")
    parts += study.larger
    if study.law:
        parts.append(
            f"The law {study.law.law} ordered runs that it had not seen with a rank correlation "
            f"of {study.law.spearman:.2f} in the objective."
        )
    return " ".join(parts)


def _against(study: Study) -> str:
    parts = [
        f"{name} {estimate.mean:+.4f} ({estimate.low:+.4f} to {estimate.high:+.4f})"
        for name, estimate in study.recommendation.gains
    ]
    if not parts:
        return "It is compared with no baseline."
    said = "Gain measured in the trial," if study.measured else "Predicted gain"
    return f"{said} in the objective, {UNIT}, positive is better: {'; '.join(parts)}."


def _cost(study: Study) -> str:
    proxy = study.problem.proxy
    specs = [run.spec for run in study.runs] + [run.spec for run in study.failed]
    trained = [(spec.size, spec.tokens) for spec in specs]
    sizes = [f"{proxy.size}, {proxy.tokens:,} tokens each"]
    sizes += [
        f"{trained.count(other)} of them {other[0]}, {other[1]:,} tokens"
        for other in dict.fromkeys(trained)
        if other != (proxy.size, proxy.tokens)
    ]
    sizes += [
        f"{len(step.runs) + len(step.failed)} of them {step.size}, {step.tokens:,} tokens"
        for step in (study.transfer.steps if study.transfer else ())
    ]
    counted = f"{_trained(study)}, {len(study.failed)} of them failed"
    cost = f"; together {cost_text(study.cost)}" if study.cost else ""
    speed = study.tokens_per_second
    return (
        f"{study.proxies} proxies of size {'; '.join(sizes)}: {counted}{cost}; "
        f"the last command took {study.minutes:.1f} minutes and trained for "
        f"{cost_text(study.call_cost)}"
        + (f"; {speed:,.0f} tokens per second and core." if speed else ".")
    )
