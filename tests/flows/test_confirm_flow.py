"""`cuvee confirm` through the real parts: a finished tiny study, a larger size, card and record.

The study is run once for the file; each test takes a copy of its home.
"""

import dataclasses
import json
import shutil
import sqlite3
from pathlib import Path

import pytest
import tiny_study
from tiny_study import confirm, run
from typer.testing import CliRunner

from cuvee.flows.cli.main import app
from cuvee.flows.plan import print_plan as plan
from cuvee.flows.recipe.load import parse
from cuvee.flows.study.confirm_larger import sizes
from cuvee.flows.study.finished import finished_study
from cuvee.flows.workspace import Workspace
from cuvee.mixtures.errors import CorruptError, EvidenceError, RecipeError
from cuvee.mixtures.runs.run_spec import Stage
from cuvee.tasks.store.results import Store
from cuvee.tasks.study import finished as handoff_card
from cuvee.tasks.study.study import recommendation_fingerprint

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_pictures")]
SIZES = (
    "{seeds: 2, sizes: [{size: 0.3M, tokens: 90000}], mixtures: "
    "{hand: {code: 0.2, prose: 0.6, tables: 0.2}}}"
)


@pytest.fixture(scope="module")
def study(tmp_path_factory, prefect_api, ray_cluster):
    """A finished study, confirmed at one larger size; and the time at which its runs were kept."""
    folder = tmp_path_factory.mktemp("confirm")
    tiny_study.write_corpus(folder / "corpus")
    home = Workspace(folder / "home")
    run(tiny_study.recipe(folder / "corpus"), home, prefect_api)
    shutil.copytree(home.root, folder / "before")
    text = tiny_study.recipe(folder / "corpus", confirm=SIZES)
    return folder, text, confirm(text, home, prefect_api)


@pytest.fixture
def before(study, tmp_path):
    """A home with the study finished and nothing confirmed."""
    shutil.copytree(study[0] / "before", tmp_path / "home")
    return Workspace(tmp_path / "home"), study[1]


@pytest.fixture
def after(study, tmp_path):
    """A home with the study confirmed."""
    shutil.copytree(study[0] / "home", tmp_path / "home")
    return Workspace(tmp_path / "home"), study[1]


def test_a_confirmation_trains_the_larger_size_and_says_what_held(study):
    """Catches a step that is skipped: runs, tests, trend, card, report each come from another."""
    folder, _, summary = study
    home = Workspace(folder / "home")
    assert summary["trained_now"] == 2 * 5 and summary["failed"] == 0
    assert summary["trained_now"] + summary["reused"] == summary["proxies"]  # those before it too
    cost, own = summary["cost"]["evidence"], summary["cost"]["call"]
    assert 0 < own["core_seconds"] < cost["core_seconds"] and own["tokens"] == 10 * 90_000
    (step,) = summary["larger_sizes"]
    assert (step["size"], step["tokens"]) == ("0.3M", 90_000)
    assert set(step["gains"]) == {"natural", "uniform", "best observed", "hand"}
    for pair in step["gains"].values():
        assert pair["low"] <= pair["gain"] <= pair["high"] and pair["p"] <= pair["corrected_p"]
    assert {t["sizes"] for t in summary["trends"].values()} == {2}
    assert summary["card"]["calibration"]["predictions"] == 3
    assert json.loads((home.study("tiny") / "summary.json").read_text()) == summary
    page = (home.study("tiny") / "report.html").read_text()
    assert "Larger sizes" in page and summary["card"]["sha256"] in page
    card = handoff_card.latest_of_name(Store(home.store), "tiny")  # what whoever approves it reads
    assert card.tests == 2 and card.verdict == summary["verdict"]
    before = folder / "before" / "studies" / "tiny" / "recommendation.json"
    assert before.read_text() == (home.study("tiny") / "recommendation.json").read_text()


def test_the_card_was_kept_before_the_first_run(study):
    """Catches a card that is written with the outcome at hand: by the clock of the files."""
    folder, _, summary = study
    store = folder / "home" / "store"
    (card,) = (store / "predictions").glob("*.json")
    old = {path.name for path in (folder / "before" / "store" / "runs").iterdir()}
    fresh = [p for p in (store / "runs").iterdir() if p.name not in old]
    assert len(fresh) == 10
    assert all((p / "result.json").stat().st_mtime > card.stat().st_mtime for p in fresh)
    assert all(p["trained_before"] == 0 for p in summary["card"]["predictions"])
    kept = json.loads(card.read_text())
    assert kept["sha256"] == summary["card"]["sha256"]
    with sqlite3.connect(folder / "home" / "mlflow" / "mlflow.db") as base:
        rows = dict(base.execute("select key, value from tags where key like 'cuvee.card%'"))
        parents = base.execute(
            "select count(*) from tags where key = 'cuvee.kind' and value = 'study'"
        ).fetchone()
    assert rows["cuvee.card"] == kept["sha256"] and parents == (1,)  # the study's own record
    copies = list((folder / "home" / "mlflow").rglob(f"predictions/{card.name}"))
    assert copies and json.loads(copies[0].read_text())["content"] == kept["content"]


def test_confirming_again_trains_nothing_and_keeps_the_card(after, prefect_api):
    """Catches a card that is dated anew, and trainings that are done twice."""
    home, text = after
    first = json.loads((home.study("tiny") / "summary.json").read_text())
    again = confirm(text, home, prefect_api)
    assert again["trained_now"] == 0
    assert again["card"] == first["card"] and again["larger_sizes"] == first["larger_sizes"]
    rerun = run(text, home, prefect_api)  # and the study itself does not forget what was confirmed
    assert rerun["trained_now"] == 2  # the recipe now names a mixture: its two seeds at own size
    assert rerun["card"] == first["card"]


def test_a_lost_run_is_trained_again_and_nothing_else(after, prefect_api):
    """Catches a confirmation that begins anew when it was interrupted: runs are found by name."""
    home, text = after
    first = json.loads((home.study("tiny") / "summary.json").read_text())
    (card,) = Path(home.store, "predictions").glob("*.json")
    lost = json.loads(card.read_text())["content"]["promises"][0]["runs"][0]
    shutil.rmtree(Path(home.store, "runs", lost))
    again = confirm(text, home, prefect_api)
    assert again["trained_now"] == 1 and again["larger_sizes"] == first["larger_sizes"]
    assert again["card"]["sha256"] == first["card"]["sha256"]


def test_another_size_is_another_card_and_both_stay(after, prefect_api):
    """Catches a second card that replaces the first, and known gains that count as predicted."""
    home, text = after
    more = text.replace("[{size: 0.3M", "[{size: 0.3M, tokens: 120000}, {size: 0.3M")
    found = confirm(more, home, prefect_api)
    assert found["trained_now"] == 10 and found["card"]["version"] == 2
    assert len(list(Path(home.store, "predictions").glob("*.json"))) == 2
    late = {p["tokens"]: p["trained_before"] for p in found["card"]["predictions"]}
    assert late == {120_000: 0, 90_000: 4}
    assert found["card"]["calibration"]["predictions"] == 6  # each once, by its first card


def test_a_changed_card_stops_the_confirmation_and_is_said(after, prefect_api):
    """Catches a prediction that can be moved to what was observed."""
    home, text = after
    (card,) = Path(home.store, "predictions").glob("*.json")
    card.write_text(card.read_text().replace('"mean":', '"mean": 1', 1))
    with pytest.raises(CorruptError, match="not what was written.*Restore it"):
        confirm(text, home, prefect_api)


def test_evidence_that_is_void_is_refused(before, prefect_api):
    """Catches a claim that is tested although the study it came from no longer stands."""
    home, text = before
    for changed, word in (
        (text.replace("tokens: 60000", "tokens: 70000", 1), "proxy.tokens: 60000 before, 70000"),
        (text.replace("domain/prose: 1", "domain/code: 1"), "objective"),
        (text.replace("name: tiny", "name: other"), "no finished study 'other'"),
    ):
        with pytest.raises(EvidenceError, match=word):
            finished_study(parse(changed), home)
    free = text.replace("proxy: {", "proxy: {pack: 2, ").replace(
        "seeds: 2, sizes", "seeds: 4, sizes"
    )
    assert finished_study(parse(free), home).answer.domains  # no recommendation depends on these
    with pytest.raises(RecipeError, match="names no sizes"):
        sizes(parse(text.replace("sizes: [{size: 0.3M, tokens: 90000}], ", "")))
    store, past = Store(home.store), finished_study(parse(text), home)
    values = past.to_json()
    values["answer"]["stages"][0]["weights"] = [0.2, 0.3, 0.5]
    store.remember("cards", past.identity, values)  # sealed anew, as by somebody who knows how
    with pytest.raises(EvidenceError, match="no finished study 'tiny'"):
        finished_study(parse(text), home)
    store.remember("cards", past.identity, past.to_json())
    shutil.rmtree(Path(home.store, "runs", past.answer.evidence[0]))
    with pytest.raises(EvidenceError, match=r"1 of the \d+ runs .*missing in the store"):
        confirm(text, home, prefect_api)


def test_text_that_changed_under_a_study_is_named(before, study, prefect_api):
    """Catches evidence that is tied to the names of domains."""
    home, text = before
    prose = study[0] / "corpus" / "prose.jsonl"
    whole = prose.read_text()
    prose.write_text("".join(whole.splitlines(keepends=True)[:-3]))
    try:
        with pytest.raises(EvidenceError, match="cannot be confirmed.*data has changed.*prose"):
            confirm(text, home, prefect_api)
    finally:
        prose.write_text(whole)
    assert not Path(home.store, "predictions").exists()


def test_the_command_says_a_mistake_in_one_sentence(tmp_path, study):
    """Catches a traceback for an unfinished study, and servers that are started for nothing."""
    path = tmp_path / "recipe.yaml"
    path.write_text(study[1])
    done = CliRunner().invoke(app, ["confirm", str(path), "--home", str(tmp_path / "home")])
    assert done.exit_code == 2
    assert "cuvee: error: there is no finished study 'tiny'" in done.stderr
    assert done.stderr.count("\n") == 1 and not (tmp_path / "home" / "prefect-api").exists()


def test_a_colleague_confirms_from_a_home_of_their_own(before, study, prefect_api, tmp_path):
    """Catches a finished study that is looked for in the home of whoever ran it, a study of another
    recipe that is written over there, and a fit that takes the place of what was confirmed."""
    home, text = before
    other = Workspace(tmp_path / "colleague")
    taken = other.study("tiny")
    taken.mkdir(parents=True)
    (taken / "recipe.yaml").write_text(text.replace("domain/prose: 1", "domain/code: 1"))
    (other.root / "store").symlink_to(home.store)
    found = confirm(text, other, prefect_api)
    assert found["trained_now"] == 10 and (taken / "earlier").is_dir()
    assert list(taken.glob("predictions/*.json")) and (taken / "card.json").is_file()
    confirmed = finished_study(parse(text), home)
    assert confirmed.tests == 2 and confirmed.verdict == found["verdict"]
    answer = dataclasses.replace(confirmed.answer, verdict="another one", failed=1)
    weights = tuple(Stage((0.2, 0.3, 0.5), stage.share) for stage in answer.stages)
    answer = dataclasses.replace(answer, stages=weights)
    what_if = dataclasses.replace(
        confirmed, answer=answer, fingerprint=recommendation_fingerprint(answer), tests=0
    )
    store = Store(home.store)
    assert not handoff_card.save_finished(store, what_if, fit=True)
    assert finished_study(parse(text), home) == confirmed
    assert handoff_card.finished_by_identity(store, what_if.identity) == what_if
    assert (
        handoff_card.save_finished(store, what_if) and finished_study(parse(text), home) == what_if
    )


def test_the_plan_counts_the_confirmation_of_each_size(after, study, capsys):
    """Ten runs of 22 steps of 16 x 256 tokens: 0.1M each. Catches a plan that leaves out what
    `cuvee confirm` will cost."""
    from cuvee.flows.console import Display

    home, text = after
    plan(parse(text), home, Display())
    out = capsys.readouterr().out
    assert "10 for the confirmation" in out
    assert "`cuvee confirm` at 0.3M: 10 runs of 0.1M tokens" in out
    assert "measured on earlier runs of this size" in out
    runs = [o for o in Store(home.store).outcomes() if o.spec.tokens == 90_000]
    assert f"{sum(run.flops for run in runs):.2e} FLOPs" in out
