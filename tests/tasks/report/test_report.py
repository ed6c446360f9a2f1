"""The report: nothing outside the page, nothing unescaped, nothing said beyond the intervals."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from synthetic_study import NAMES, synthetic_study

from cuvee.mixtures.errors import EvidenceError, StorageError
from cuvee.mixtures.recommendation import Estimate
from cuvee.mixtures.skill_graph import SkillGraph
from cuvee.tasks.escape import escape_markdown, fenced_code
from cuvee.tasks.report.page import report_sections, write_report
from cuvee.tasks.report.sections import headline, moving_weights
from cuvee.tasks.study.answers import study_answers
from cuvee.tasks.study.study import finite_or_none
from cuvee.tasks.study.summary import study_summary
from cuvee.tasks.tracking.fields import study_fields
from cuvee.tasks.validation.paired import Confirmation, PairedGain, paired_confirmation

HOSTILE = "<script>alert(1)</script>|$x_1$"


@pytest.fixture(scope="module")
def study():
    return synthetic_study()


@pytest.fixture(scope="module")
def written(study, tmp_path_factory):
    page, twin = write_report(study, tmp_path_factory.mktemp("report"))
    return page, twin


class _Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.links, self.ids, self.text = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "data", "action"):
                self.links.append(value)
            if name == "id":
                self.ids.append(value)

    def handle_data(self, data):
        self.text.append(data)


def _parse(path):
    page = _Page()
    page.feed(path.read_text(encoding="utf-8"))
    return page


def test_the_page_needs_nothing_outside_itself(written):
    """Catches pictures, styles or scripts that are linked, and so lost when the page is sent."""
    page = _parse(written[0])
    assert all(link.startswith("#") for link in page.links)
    assert page.tags.count("svg") == 6
    assert not {"script", "link", "iframe", "img"} & set(page.tags)
    assert "url(http" not in written[0].read_text() and "@import" not in written[0].read_text()


def test_no_identifier_occurs_twice_and_no_reference_is_broken(written):
    """Catches pictures in one page that share clip paths, so that one hides behind another."""
    page = _parse(written[0])
    assert len(page.ids) == len(set(page.ids))
    used = {link[1:] for link in page.links}
    used |= set(re.findall(r"url\(#([^)]+)\)", written[0].read_text()))
    assert used <= set(page.ids)


def test_page_and_twin_have_the_same_tables(written, study):
    """Catches a section that was added to one rendering only."""
    page, twin = _parse(written[0]), written[1].read_text()
    text = "".join(page.text)
    found = report_sections(study)
    blocks = [block for section in found for block in section.blocks]
    assert page.tags.count("table") == sum(block.kind == "table" for block in blocks) > 3
    for section in found:
        assert section.title in text
        assert f"## {section.title}" in twin
        for block in section.blocks:
            if block.kind == "table":
                for row in block.rows:
                    assert "| " + " | ".join(escape_markdown(cell) for cell in row) + " |" in twin
                    assert all(cell in text for cell in row)


def test_the_twin_names_pictures_that_exist(written):
    """Catches a broken path between the twin and its pictures."""
    names = re.findall(r"\]\((plots/[\w-]+\.png)\)", written[1].read_text())
    assert len(names) == 6
    for name in names:
        assert (written[1].parent / name).read_bytes().startswith(b"\x89PNG")


def test_the_same_study_gives_the_same_bytes(written, study, tmp_path):
    """Catches a clock, a random identifier or an unordered set in page, twin or pictures."""
    page, twin = write_report(study, tmp_path)
    assert page.read_bytes() == written[0].read_bytes()
    assert twin.read_bytes() == written[1].read_bytes()
    for picture in sorted(tmp_path.glob("plots/*.png")):
        assert picture.read_bytes() == (written[0].parent / "plots" / picture.name).read_bytes()


def test_names_and_recipe_cannot_inject(tmp_path):
    """Catches markup of a domain's name that runs in the page, in a picture or in the twin."""
    study = synthetic_study(names=(HOSTILE, *NAMES[1:]))
    page, twin = write_report(replace(study, name=HOSTILE), tmp_path)
    parsed = _parse(page)
    assert "script" not in parsed.tags and "b" not in _unstyled(page)
    assert HOSTILE in " ".join(parsed.text)
    rows = [r for r in twin.read_text().splitlines() if r.startswith("| ") and "alert" in r]
    assert rows and all("<" not in re.sub(r"\\<", "", row) for row in rows)
    assert study.recipe_text.rstrip() in twin.read_text()


def _unstyled(path):
    return re.findall(r"<(b)>not bold", path.read_text(encoding="utf-8"))


def test_what_domains_share_stands_in_percent_of_each_of_them(study, tmp_path, quick_pictures):
    """Catches a share of the other domain's documents, pairs in the order of the recipe, a table of
    pairs that share nothing, and a section where no text is shared."""
    shared = {NAMES[0]: {NAMES[1]: (3, 20)}, NAMES[1]: {NAMES[0]: (2, 10), NAMES[2]: (0, 0)}}
    counts = {NAMES[0]: 1000, NAMES[1]: 40}
    corpus = {
        name: replace(part, distinct=counts.get(name, 7), shared=shared.get(name, {}))
        for name, part in study.corpus.items()
    }
    _, twin = write_report(replace(study, corpus=corpus), tmp_path)
    text = twin.read_text().partition("## Text that domains share")[2].partition("\n## ")[0]
    rows = [line for line in text.splitlines() if line.startswith("| ")][2:]
    assert rows == [
        f"| {NAMES[1]} | {NAMES[0]} | 10 | 5.0% | 25.0% |",
        f"| {NAMES[0]} | {NAMES[1]} | 20 | 0.3% | 2.0% |",
    ]
    assert f"25.0% of its documents are also in {NAMES[0]}, 5.0% word for word" in text
    assert (tmp_path / "plots" / "shared-text.png").exists()
    assert "Text that domains share" not in {one.title for one in report_sections(study)}


def test_a_gain_whose_interval_holds_zero_is_called_noise():
    """Catches a report that calls a positive mean a gain whatever its interval."""
    assert PairedGain("objective", 0.05, -0.01, 0.11, 0.2, 3).judgment == "within the noise"
    assert PairedGain("objective", 0.05, 0.01, 0.09, 0.04, 3).judgment.startswith("better")
    assert PairedGain("objective", -0.05, -0.09, -0.01, 0.04, 3).judgment.startswith("worse")


def test_noise_is_the_first_thing_said(study, tmp_path, quick_pictures):
    """Catches a green verdict over a confirmation that shows nothing."""
    noisy = {"natural": PairedGain("objective", 0.01, -0.02, 0.04, 0.4, 3)}
    assert headline.headline_tone(study) == "good"
    assert study_answers(study)["sure"].startswith("Confirmed by training it anew: at 0.6M")
    study = replace(study, confirmation=replace(study.confirmation, objective=noisy, targets={}))
    assert headline.headline_tone(study) == "caution"
    page, _ = write_report(study, tmp_path)
    text = page.read_text()
    said = "better than the natural mixture by 0.010 (-0.020 to 0.040, within the noise)"
    assert text.index(said) < text.index("<h2")
    sure = "Not confirmed by training it anew: at 0.6M, over 3 seeds, it is within the noise of"
    assert study_answers(study)["sure"].startswith(sure)
    worse = {"natural": PairedGain("objective", -0.05, -0.09, -0.01, 0.04, 3)}
    bad = replace(study, confirmation=replace(study.confirmation, objective=worse, targets={}))
    assert headline.headline_tone(bad) == "bad"


def test_the_average_of_a_schedule_is_called_so(study):
    """Catches `the its average mixture`."""
    noisy = PairedGain("objective", 0.01, -0.02, 0.04, 0.4, 3)
    found = {"natural": noisy, "its average": noisy}
    study = replace(study, confirmation=replace(study.confirmation, objective=found, targets={}))
    sure, against = study_answers(study)["sure"], study_answers(study)["against"]
    assert "within the noise of the natural mixture and its average" in sure
    for mixture in ("the natural mixture", "its average"):
        assert f"better than {mixture} by 0.010" in against


def test_an_unconfirmed_study_says_so(tmp_path, quick_pictures):
    """Catches a report that shows predictions as if they had been trained."""
    study = synthetic_study(confirmed=False)
    page, twin = write_report(study, tmp_path)
    for text in (page.read_text(), twin.read_text()):
        assert "No fresh run has confirmed it yet." in text
        assert "The law predicts it to be better than the natural mixture by" in text
    assert headline.headline_tone(study) == "caution"
    assert "onfirmed gain" not in page.read_text()
    assert study_summary(study)["confirmation"] == {}


GRAPH = SkillGraph(
    rows=("legal", "news"),
    columns=("domain/legal", "task/facts"),
    edges=((0.5, 0.3), (0.2, 0.0)),
)


def lawless(**changes):
    """The same study by a method that fitted no law, unconfirmed, with a skill graph."""
    study = synthetic_study(confirmed=False)
    even = tuple([1 / len(NAMES)] * len(NAMES))
    ours = replace(
        study.recommendation,
        laws=(),
        verdict="draft",
        skills=GRAPH,
        trajectory=((0, even), (250_000, tuple(study.recommendation.weights.tolist()))),
        **changes,
    )
    return replace(study, recommendation=ours)


def test_a_method_without_a_law_claims_no_prediction(tmp_path, quick_pictures):
    """Catches a trial's measured gains shown as the predictions of a law that was never fitted."""
    gains = (("natural", Estimate(-0.03, -0.04, -0.02)), ("uniform", Estimate(0.02, 0.01, 0.03)))
    study = lawless(gains=gains)
    said = " ".join([*study_answers(study).values(), *headline.headline_warnings(study)])
    assert "The trial measured it to be worse than the natural mixture by 0.030" in said
    assert "This is a draft." in said and "law" not in said
    page, twin = write_report(study, tmp_path)
    for text in (page.read_text(), twin.read_text()):
        assert "redicted" not in text and "predicts" not in text
        assert "What the trial measured" in text and "worse by more than the noise" in text
    points = {point.name for point in study_fields(study).metrics}
    assert {"measured_gain/natural", "measured/recommended"} <= points


def test_a_method_with_a_law_predicts():
    """Catches wording for methods without a law where one was fitted."""
    study = synthetic_study(confirmed=False)
    said = " ".join(study_answers(study).values())
    assert "The law predicts it to be better than" in said and "rial" not in said
    assert not any(section.title == "What the trial measured" for section in report_sections(study))


def test_a_skill_graph_is_drawn_and_kept_in_files(tmp_path):
    """Catches a graph in words only, and one that outlives the method that made it."""
    write_report(lawless(), tmp_path)
    assert SkillGraph(**_tuples(json.loads((tmp_path / "skills.json").read_text()))) == GRAPH
    assert (tmp_path / "skills.dot").read_text() == GRAPH.dot()
    drawn = (tmp_path / "skills.svg").read_text()
    assert drawn.startswith("<svg") and "task/facts" in drawn and "legal" in drawn
    for name in ("skills", "skill-table", "weights", "trial"):
        assert (tmp_path / "plots" / f"{name}.png").stat().st_size > 1000
    write_report(synthetic_study(), tmp_path)
    assert not any((tmp_path / name).exists() for name in moving_weights.SKILL_GRAPH_FILES)


def _tuples(content):
    names = ("rows", "columns")
    values = {name: tuple(content[name]) for name in names}
    return {**values, "edges": tuple(map(tuple, content["edges"]))}


def test_a_broken_prediction_is_told(study):
    """Catches a report that is silent when the confirmed score leaves the predicted interval."""
    ours = study.recommendation
    first = replace(ours.candidates[0], objective=Estimate(1.0, 0.9, 1.1))
    shifted = replace(ours, candidates=(first, *ours.candidates[1:]))
    assert any(
        "lies outside" in w
        for w in headline.headline_warnings(replace(study, recommendation=shifted))
    )
    assert not any("lies outside" in w for w in headline.headline_warnings(study))


def test_failures_are_counted_and_listed(written):
    """Catches failed runs that vanish from the account."""
    twin = written[1].read_text()
    assert "1 of 39 proxies failed." in twin
    assert "the loss became NaN at step 212 of 244" in twin


def test_differences_pair_by_seed_not_by_position(study):
    """Catches rows that are paired in the order they came."""
    runs = study.confirmation.runs

    def differences(runs):
        return Confirmation(tuple(runs), {}).differences("natural")

    expected = differences(runs)
    assert differences(reversed(runs)) == expected and list(expected) == [101, 102, 103]
    values = study.confirmation.values("natural"), study.confirmation.values("recommended")
    assert expected[101] == values[0][101] - values[1][101]
    dropped = [r for r in runs if (r.mixture, r.result.spec.seed) != ("natural", 101)]
    assert differences(dropped) == {seed: expected[seed] for seed in (102, 103)}
    alone = [r for r in runs if r.mixture == "recommended"]
    assert differences(alone) == {}
    with pytest.raises(EvidenceError, match="shared seeds: natural 0, uniform 0"):
        paired_confirmation(alone, study.problem.targets, objective=study.problem.objective)


def test_gains_are_baseline_minus_recommended_with_their_interval(study):
    """Catches a sign turned round, and intervals of another level than the one stated."""
    pair = study.confirmation.objective["natural"]
    gaps = np.array(list(study.confirmation.differences("natural").values()))
    assert pair.gain == pytest.approx(gaps.mean()) and pair.gain > 0
    half = 2.919986 * gaps.std(ddof=1) / np.sqrt(3)  # t(0.95, 2 degrees), from a printed table
    assert (pair.low, pair.high) == pytest.approx((pair.gain - half, pair.gain + half), abs=1e-6)
    legal = study.confirmation.targets["natural"][1]
    assert legal.name == "domain/legal" and legal.gain > 0


def test_summary_has_what_programs_read(study):
    """Catches a renamed key, a rank correlation of the wrong law, and numbers that JSON lacks."""
    made = study_summary(study)
    assert made["rank_correlation"] == study.recommendation.laws[1].spearman
    assert (made["proxies"], made["trained_now"], made["failed"]) == (39, 30, 1)
    assert made["confirmation"]["uniform"]["gain"] == study.confirmation.objective["uniform"].gain
    assert list(made["weights"]) == list(NAMES)
    assert sum(made["weights"].values()) == pytest.approx(1.0)
    assert finite_or_none(float("nan")) is None and finite_or_none(float("inf")) is None


def test_the_fingerprint_follows_weights_and_evidence(study):
    """Catches a fingerprint that stays when the recommendation or its evidence changes."""
    fewer = replace(study.recommendation, evidence=study.recommendation.evidence[1:])
    assert replace(study, recommendation=fewer).fingerprint != study.fingerprint
    assert replace(study, minutes=1.0).fingerprint == study.fingerprint


def test_a_folder_that_cannot_be_written_is_named(study, tmp_path, quick_pictures):
    """Catches a traceback where a sentence is due."""
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(StorageError, match="cannot write the report"):
        write_report(study, blocked)


def test_values_that_contradict_are_refused(study):
    """Catches a study whose recommendation belongs to another problem."""
    ours = study.recommendation
    other = replace(ours, targets=tuple(reversed(ours.targets)))
    with pytest.raises(EvidenceError, match="differ in domains or targets"):
        replace(study, recommendation=other)
    with pytest.raises(EvidenceError, match="low <= gain <= high"):
        PairedGain("objective", 0.5, 0.0, 0.1, 0.1, 3)
    with pytest.raises(EvidenceError, match="compared with natural, but the objective is not"):
        Confirmation((), {}, {"natural": ()})


def test_a_fence_is_longer_than_any_in_the_text():
    """Catches a recipe that ends its own code block."""
    assert fenced_code("a\n````\nb").startswith("`````\n")
