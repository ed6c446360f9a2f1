"""The four answers of a study, in sentences: what is recommended, how sure, against what, at what
cost; and, where runs leave domains out, what each is worth.

Report, twin, console, record and approval all say these sentences, so they are made here and
nowhere else. Wording follows the intervals: a gain whose interval includes zero is "within the
noise", whatever its mean.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum

from cuvee.mixtures.recommendation import LEVEL, Estimate
from cuvee.mixtures.runs.run_results import TrainingCost
from cuvee.mixtures.units import count_text, duration_text
from cuvee.tasks.study.audits import least_held_out
from cuvee.tasks.study.forgetting import worst_change
from cuvee.tasks.study.study import Study
from cuvee.tasks.study.worth import worth_sentence
from cuvee.tasks.validation.paired import (
    Confirmation,
    Judgement,
    covers_text,
    interval_text,
)

UNIT = "bits per byte"
QUESTIONS = {  # in the order in which they are asked
    "recommended": "What is recommended",
    "sure": "How sure",
    "against": "Against what",
    "worth": "What is each domain worth",  # said where runs leave domains out
    "cost": "At what cost",
}
NOTHING = 0.0005  # a share below it would be shown as 0.0%
STEPS = 3  # things to do next that stand below the answers; `summary.json` has all
NAMED = 5  # domains that the first answer names; the table below it has all


class Grade(StrEnum):
    """How far the evidence of a study goes, in a word or two."""

    CONFIRMED = "confirmed"
    UNCONFIRMED = "not confirmed"
    WORSE = "worse than another"
    STRONG = "predicted only"
    DRAFT = "draft"
    WEAK = "do not use yet"


OPENINGS = {  # of the second answer
    Grade.CONFIRMED: "Confirmed by training it anew",
    Grade.UNCONFIRMED: "Not confirmed by training it anew",
    Grade.WORSE: "Trained anew, another mixture is better",
    Grade.STRONG: "No fresh run has confirmed it yet",
    Grade.DRAFT: "This is a draft",
    Grade.WEAK: "Do not use this yet",
}


def study_answers(study: Study) -> dict[str, str]:
    """The answers by the keys of `QUESTIONS`, a sentence or three each."""
    worth = study.recommendation.attribution
    return {
        "recommended": _recommended(study),
        "sure": _sure(study),
        "against": _against(study),
        **({"worth": worth_sentence(worth)} if worth else {}),
        "cost": _cost(study),
    }


def study_grade(study: Study) -> Grade:
    """Confirmed beyond the noise against all that it claims to beat at every size that was
    trained, worse than any mixture beyond the noise, or what the fit alone allows one to say."""
    pairs = [pair for found in study.confirmations for pair in found.objective.values()]
    if any(pair.judgment is Judgement.WORSE for pair in pairs):
        return Grade.WORSE
    if study.confirmations:
        return Grade.UNCONFIRMED if study.unconfirmed else Grade.CONFIRMED
    kind = study.recommendation.verdict.partition(":")[0]
    return {"weak": Grade.WEAK, "draft": Grade.DRAFT}.get(kind, Grade.STRONG)


def short_shares(study: Study) -> str:
    """The shares in a few words, such as `legal 36%, code 24%, 3 more 40%`."""
    parts, more, rest = _largest(study, NAMED - 1)
    named = [f"{name} {share:.0%}" for name, share in parts]
    return ", ".join(named + ([f"{more} more {rest:.0%}"] if rest >= NOTHING else []))


def short_gain(study: Study) -> str:
    """The gain over natural in a few words, such as `+0.144 (+0.116 to +0.171), confirmed at 1M`;
    "" where it is compared with nothing."""
    where, gains = known_gains(study)
    found = dict(gains).get("natural")
    return f"{interval_text(found, '+.3f')}, {where}" if found else ""


def short_cost(study: Study) -> str:
    """The cost in a few words, such as `39 proxies, 16 min 9 s of one core`."""
    spent = f", {duration_text(study.cost.core_seconds)} of one core" if study.cost else ""
    return f"{study.proxies} proxies{spent}"


def known_gains(study: Study) -> tuple[str, tuple[tuple[str, Estimate], ...]]:
    """The gains over each mixture that most is known of, and where they are from, in words:
    fresh runs of the largest size, else what the trial measured or the law predicts."""
    if study.confirmations:
        found = study.confirmations[-1]
        gains = tuple((name, pair.estimate) for name, pair in found.objective.items())
        return f"trained anew at {size_text(study, found)}", gains
    return "measured in the trial" if study.measured else "predicted", study.recommendation.gains


def gain_sentence(gains: Iterable[tuple[str, Estimate]]) -> str:
    """Gains over mixtures in words: `better than the natural mixture by 0.14 (0.12 to 0.17)`."""
    return _listed([_gain(name, gain) for name, gain in gains])


def called(name: str) -> str:
    """A mixture in a sentence: `the natural mixture`, but `its average`, of a schedule."""
    return name if name.startswith("its ") else f"the {name} mixture"


def size_text(study: Study, found: Confirmation) -> str:
    """Where fresh runs were trained: their size, and their tokens where that size has others."""
    sizes = [one.size for one in study.confirmations]
    same = sizes.count(found.size) > 1
    return f"{found.size} and {found.tokens:,} tokens" if same else found.size


def tested_sentences(study: Study) -> tuple[str, ...]:
    """What fresh runs showed at each size, the largest first."""
    places: dict[str, list[str]] = {}
    larger = study.transfer.steps[::-1] if study.transfer else ()
    own = (study.confirmation,) if study.confirmation else ()
    for found in (*larger, *own):
        places.setdefault(_showed(study, found), []).append(f"at {size_text(study, found)}")
    return tuple(f"{_listed(where)}, {showed}" for showed, where in places.items())


def _recommended(study: Study) -> str:
    parts, more, rest = _largest(study, NAMED)
    named = [f"{share:.1%} from {name}" for name, share in parts]
    if more:
        share = f"{rest:.1%}" if rest >= NOTHING else "nothing"
        named.append(f"{share} from {more} other {'domain' if more == 1 else 'domains'}")
    first, *others = named
    share, _, source = first.partition(" ")
    stages = len(study.recommendation.stages)
    often = f", on average over {stages} stages" if stages > 1 else ""
    return f"Draw {_listed([f'{share} of the training tokens {source}', *others])}{often}."


def _largest(study: Study, most: int) -> tuple[list[tuple[str, float]], int, float]:
    """The largest shares by name, how many domains are more, and what these have together."""
    ours = study.recommendation
    shares = sorted(zip(ours.domains, ours.weights, strict=True), key=lambda pair: -pair[1])
    drawn = sum(w >= NOTHING for _, w in shares)
    known = shares[: drawn if drawn <= most + 1 else most]
    rest = shares[len(known) :]
    return [(n, float(w)) for n, w in known], len(rest), float(sum(w for _, w in rest))


def _sure(study: Study) -> str:
    grade, (kind, reasons) = study_grade(study), _fit(study.recommendation.verdict)
    said = [f"{OPENINGS[grade]}: {'; '.join(tested_sentences(study))}."]
    if not study.confirmations:
        said = [f"{OPENINGS[grade]}.", *reasons]
    elif kind in ("weak", "draft"):
        lower = [f"{one[0].lower()}{one[1:].rstrip('.')}" for one in reasons]
        why = f": {'; '.join(lower)}." if lower else "."
        said.append(f"The fit alone was {kind}{why}")
    if study.law and not any("rank correlation" in reason for reason in said):
        said.append(
            f"The law {study.law.law} ordered runs that it had not seen with a rank correlation "
            f"of {study.law.spearman:.2f} in the objective."
        )
    return " ".join(said)


def _fit(verdict: str) -> tuple[str, list[str]]:
    """The kind of what a method says of its own evidence, and its reasons as sentences.

    What a strong fit predicts is no reason: it is the answer to another question.
    """
    kind, _, why = verdict.partition(": ")
    parts = [part for part in why.split("; ") if part and part != "do not use this yet"]
    reasons = [] if kind == "strong" else parts
    return kind, [f"{one[0].upper()}{one[1:]}{'' if one.endswith('.') else '.'}" for one in reasons]


def _showed(study: Study, found: Confirmation) -> str:
    """What the fresh runs of one size say: `over 3 seeds, it is better than ...`."""
    judged: Mapping[str, str] = {name: pair.judgment for name, pair in found.objective.items()}
    if study.transfer and found is not study.confirmation:  # corrected for the number of claims
        judged = {claim.baseline: claim.judgment for claim in study.transfer.claims_at(found)}
    parts = []
    for judgment in dict.fromkeys(judged.values()):
        names = _listed([called(name) for name in judged if judged[name] == judgment])
        parts.append(
            f"within the noise of {names}"
            if judgment == Judgement.NOISE
            else judgment.replace(" by ", f" than {names} by ", 1)
        )
    lost = _listed([called(name) for name in found.unpaired])
    untold = f", and of {lost} nothing can be said, with too few pairs of seeds" if lost else ""
    seeds = f"over {found.seeds} seed{'s' * (found.seeds != 1)}"
    covers = f" for {covers_text(found.objective.values())}"
    return f"{seeds}, it is {_listed(parts)}{covers}{untold}" if parts else f"{seeds}{untold}"


def _against(study: Study) -> str:
    _, gains = known_gains(study)
    if not gains:
        return f"It is compared with no baseline.{_forgotten(study)}"
    cover = f"; intervals cover {LEVEL:.0%}"
    if study.confirmations:
        found = study.confirmations[-1]
        said = f"At {size_text(study, found)} it is"
        cover = f" ({found.level:.0%} intervals, for {covers_text(found.objective.values())})"
    else:
        said = f"The {'trial measured' if study.measured else 'law predicts'} it to be"
    told = f"{said} {gain_sentence(gains)} {UNIT} of the objective{cover}."
    told = " ".join(filter(None, (told, _held_out(study))))
    return f"{told}{_forgotten(study)}"


def _held_out(study: Study) -> str:
    """The least gain over what it is compared with where nothing was chosen by the score."""
    least = least_held_out(study)
    if least is None:
        return ""
    name, gain = least
    cover = covers_text([gain])
    same = cover == covers_text(study.confirmations[-1].objective.values())
    holds = "" if same else f", for {cover}"
    said = _gain(name, gain.estimate).replace(called(name), name)
    return f"In held-out targets {said}{holds}."


def _forgotten(study: Study) -> str:
    """The old domain that changed for the worst, where training went on from a checkpoint."""
    most = worst_change(study.continual, study.changes) if study.continual else None
    if most is None:
        return ""
    change = interval_text(most.estimate, "+.3f")
    return (
        f" Of the checkpoint's domains {most.domain} changes for the worst, by {change}, "
        f"which is {most.judgment}."
    )


def _gain(name: str, gain: Estimate) -> str:
    low, high = (gain.low, gain.high) if gain.mean >= 0 else (-gain.high, -gain.low)
    digits = 3 if max(abs(gain.low), abs(gain.high)) >= 0.01 else 4
    word = "better" if gain.mean >= 0 else "worse"
    noise = f", {Judgement.NOISE}" if Judgement.of(low, high) is Judgement.NOISE else ""
    span = f"{low:.{digits}f} to {high:.{digits}f}"
    return f"{word} than {called(name)} by {abs(gain.mean):.{digits}f} ({span}{noise})"


def _cost(study: Study) -> str:
    specs = [run.spec for run in (*study.history, *study.inconclusive)]
    for found in study.confirmations:
        specs += [run.result.spec for run in found.runs] + [run.spec for run in found.failed]
    sizes = Counter((spec.size, spec.tokens) for spec in specs)
    trained = [f"{n} of {size} ({tokens:,} tokens each)" for (size, tokens), n in sizes.items()]
    which = f", {_listed(trained)}" if len(trained) != 1 else f" {trained[0].partition(' ')[2]}"
    failed = f", of which {len(study.failed)} failed," if study.failed else ""
    took = f"The last command took {duration_text(60 * study.minutes)}"
    if study.cost is None:
        return f"{study.proxies} runs{failed}; their tables do not say what they cost. {took}."
    now = min(study.trained_now, study.proxies)
    before, untried = study.proxies - now - study.untried, study.untried
    left = f" and {untried} {'was' if untried == 1 else 'were'} not trained" if untried else ""
    return (
        f"{study.proxies} proxies{which}{failed} cost {cost_text(study.cost)}. {took} and "
        f"trained {now} of them; {before} {'was' if before == 1 else 'were'} there before{left}."
    )


def cost_text(cost: TrainingCost) -> str:
    """What trainings cost, in words."""
    return (
        f"{duration_text(cost.core_seconds)} of one core, {count_text(cost.tokens)} tokens and "
        f"{cost.flops:.2e} FLOPs"
    )


def _listed(parts: Sequence[str]) -> str:
    """Parts as a sentence lists them: `a, b and c`."""
    *first, last = parts or [""]
    return f"{', '.join(first)} and {last}" if first else last
