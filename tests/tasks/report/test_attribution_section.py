"""The report's section on what domains are worth: what it says, and where it is silent."""

from dataclasses import replace

import numpy as np
from synthetic_study import synthetic_study

from cuvee.flows.console import answer_lines
from cuvee.mixtures.domain_worth import Attribution, LeaveOut, ShapleyWorth, Worth
from cuvee.tasks.report.blocks import Paragraph, Picture, ReportTable
from cuvee.tasks.report.sections.attribution import attribution_blocks
from cuvee.tasks.study.answers import study_answers
from cuvee.tasks.study.summary import study_summary
from cuvee.tasks.study.worth import worths_from_untrained


def worth(mean, width=0.01):
    return Worth(mean, mean - width, mean + width, 0.01)


def study():
    plain = synthetic_study(confirmed=False)
    ours = plain.recommendation
    names, columns = ours.domains, ("objective", *ours.targets)
    rows = np.zeros((len(names), len(columns)))
    rows[0, 0], rows[0, 2], rows[1, 0], rows[1, 3] = 0.03, 0.05, -0.02, -0.04
    rows[0, columns.index("domain/encyclopedia")] = 0.5  # its own text, which is no news
    worths = tuple(tuple(worth(x) for x in row) for row in rows.tolist())
    pair = ((names[0], names[1]), worths[0])
    given = LeaveOut(0.2, 5, 32, names, worths, (0.015,) * len(columns), (pair,))
    law = ShapleyWorth(names, worths, (2.0,) * len(columns), 0.4)
    told = Attribution(tuple(ours.weights), columns, (given,), law, (("a and b", worth(0.7)),))
    return replace(plain, recommendation=replace(ours, attribution=told))


def test_the_section_defines_worth_and_says_a_sentence_of_every_domain():
    """Catches effects without their definition, and what lies within the noise told as shown."""
    made = study()
    blocks = tuple(attribution_blocks(made))
    words = " ".join(b.text for b in blocks if isinstance(b, Paragraph))
    assert "share of the mixture goes to the others in proportion" in words
    assert "in the last 20% of the tokens, under 5 seeds" in words
    told = dict(next(b.rows for b in blocks if isinstance(b, ReportTable)))
    assert "worth having (+0.0300 (+0.0200 to +0.0400) of the objective)" in told["encyclopedia"]
    assert "helps legal most (+0.0500)" in told["encyclopedia"]
    assert "costs more than it gives" in told["legal"] and "from fiction" in told["legal"]
    assert "no effect shown" in told["dialogue"]
    assert "40% of the coalitions lie beyond the mixtures tried" in words
    pictures = [b for b in blocks if isinstance(b, Picture)]
    assert [p.name for p in pictures] == ["worth-decay", "transfer-decay"]
    assert all(p.plot().axes for p in pictures)
    cells = [c for b in blocks if isinstance(b, ReportTable) for row in b.rows for c in row]
    assert "+0.0300 (+0.0200 to +0.0400), p 0.01" in cells  # Holm's, where a worth is shown
    assert "+0.0000 (-0.0100 to +0.0100)" in cells
    for family in ("of this table together (Dunnett)", "(Bonferroni)", "each value's own"):
        assert family in words
    assert "Not told" not in words
    assert "substitutes" in cells and "0.0150" in cells and "0.70 (0.69 to 0.71)" in cells


def test_a_domain_that_has_no_worth_is_named():
    """Catches one whose runs failed, and of which the report says nothing."""
    made = study()
    told = made.recommendation.attribution
    one = told.measured[0]
    fewer = replace(one, domains=one.domains[:-1], worths=one.worths[:-1])
    told = replace(told, measured=(fewer,))
    made = replace(made, recommendation=replace(made.recommendation, attribution=told))
    words = [b.text for b in attribution_blocks(made) if isinstance(b, Paragraph)]
    assert any(w.startswith("Not told, for want") and one.domains[-1] in w for w in words)


def test_shapley_values_start_from_the_untrained_model():
    """8.1 in every target, for eight domains: each gets (8.1 - 2.0) / 8 more."""
    made = worths_from_untrained(study())  # as the record has it too, which is told with the study
    blocks = tuple(attribution_blocks(made))
    words = " ".join(b.text for b in blocks if isinstance(b, Paragraph))
    assert "from 8.100 bits per byte of the objective with none" in words
    table = [b for b in blocks if isinstance(b, ReportTable)][-2]
    assert table.rows[0][1].startswith(f"{0.03 + 6.1 / 8:+.4f}")


def test_a_study_that_leaves_nothing_out_has_no_section():
    assert tuple(attribution_blocks(synthetic_study(confirmed=False))) == ()


def test_the_answers_and_the_summary_say_what_each_domain_is_worth():
    """Catches a method whose question only one section of the report answers, a cost told as
    worth having, and a domain that is left unsaid."""
    made, plain = study(), synthetic_study(confirmed=False)
    said = study_answers(made)["worth"]
    assert said.startswith(
        "Worth having: encyclopedia +0.0300 (+0.0200 to +0.0400). Costs more than it gives: "
        "legal -0.0200 (-0.0300 to -0.0100). No effect shown: "
    )
    assert "and 2 more. Each was left out in the last 20% of the tokens, under 5 seeds" in said
    assert f"What is each domain worth? {said}" in answer_lines(study_answers(made))
    (kept,) = study_summary(made)["worth"]
    assert kept["left_out_share"] == 0.2 and kept["smallest_shown"] == 0.015
    assert [*kept["domains"]] == [*made.recommendation.domains]
    assert kept["domains"]["legal"] == {
        "worth": -0.02,
        "low": -0.03,
        "high": -0.01,
        "corrected_p": 0.01,
    }
    assert "worth" not in study_answers(plain) and study_summary(plain)["worth"] == []
