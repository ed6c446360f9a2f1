"""What a reader must know before anything else: how good the news is, and what to beware of.

The four answers are those of `study/answers.py`; a warning never says again what they say.
"""

from cuvee.tasks.study.answers import UNIT, Grade, called, study_grade
from cuvee.tasks.study.audits import least_held_out
from cuvee.tasks.study.forgetting import changes_above_floor
from cuvee.tasks.study.study import Study
from cuvee.tasks.validation.paired import RECOMMENDED, Judgement

NONE = "-"  # in a table, where there is no value
TONES = {Grade.CONFIRMED: "good", Grade.WORSE: "bad"}


def headline_tone(study: Study) -> str:
    """`good` if confirmed beyond the noise against all that it claims to beat, `bad` if worse than
    any mixture beyond the noise, else `caution`; at every size that was trained."""
    return TONES.get(study_grade(study), "caution")


def predicted_or_measured(study: Study) -> str:
    """Where the figures of mixtures come from, before any is confirmed: a law, or a trial."""
    return "Measured" if study.measured else "Predicted"


def headline_warnings(study: Study) -> tuple[str, ...]:
    """The recommendation's own warnings, then what confirmation, text and failures add."""
    found = [f"{line[:1].upper()}{line[1:]}" for line in study.recommendation.warnings]
    found += [f"Text: {notice}." for p in study.corpus.values() for notice in p.notices]
    found += [f"{sentence}." for sentence in study.problem.size_notes]
    found += _surprise(study)
    if (least := least_held_out(study)) and least[1].judgment is Judgement.WORSE:
        found.append(
            f"Where nothing was chosen by the score, on held-out targets, {called(least[0])} is "
            "better by more than the noise."
        )
    if study.transfer:
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
