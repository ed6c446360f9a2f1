"""An approval holds for one study, recipe, data and purpose; it can be withdrawn."""

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import bound_study
import old_study
import pytest

from cuvee.flows.handoff import delivery, handoff
from cuvee.flows.recipe.load import load_recipe, parse
from cuvee.flows.study import finished
from cuvee.flows.study.finished import finished_study
from cuvee.flows.study.refit import refit
from cuvee.flows.workspace import Workspace
from cuvee.mixtures.errors import ApprovalError, EvidenceError, ExportError, RecipeError
from cuvee.tasks.approval import approve
from cuvee.tasks.store.results import Store
from cuvee.tasks.study import finished as handoff_card
from cuvee.tasks.study.study import recommendation_fingerprint
from cuvee.tasks.tracking.fields import approvable_tags
from cuvee.tasks.tracking.mlflow import open_backend

pytestmark = pytest.mark.usefixtures("quick_pictures_everywhere")

ROOT = Path(__file__).parent.parent.parent.parent
HOOK = "{format: json, to: /x, webhook: 'https://cluster/hook'}"


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    """A record that nothing was written to; a new one takes seconds."""
    home = Workspace(tmp_path_factory.mktemp("record"))
    open_backend(home.record).versions("none")
    return home.record


@pytest.fixture
def study(record, tmp_path):
    """Two tables and a home with an empty record: (folder, home)."""
    bound_study.write(tmp_path)
    shutil.copytree(record, tmp_path / "home" / record.name)
    (tmp_path / "home").chmod(0o700)  # as `open_workspace` makes it
    return tmp_path, Workspace(tmp_path / "home")


@pytest.fixture
def approved(study):
    """A study, approved for 1B tokens: (folder, home, recipe)."""
    folder, home = study
    recipe = bound_study.fit(folder, home)
    handoff.approve(recipe, home, by="ada")
    return folder, home, recipe


def export(recipe, home: Workspace, **changes):
    return handoff.export(recipe, home, form="json", to=str(home.root / "out"), **changes)[1]


@pytest.mark.parametrize(
    "changes",
    [
        {"full_scale": "{tokens: 9T}"},
        {"full_scale": "{tokens: 1B, parameters: 70B}"},
        {"name": "other-team"},
        {"seed": "43"},
    ],
)
def test_an_equal_answer_of_another_budget_study_or_recipe_is_not_approved(approved, changes):
    """Catches an approval that is known by the answer alone; a card that takes another's place."""
    folder, home, recipe = approved
    other = bound_study.fit(folder, home, **changes)
    mine, theirs = finished_study(recipe, home), finished_study(other, home)
    assert mine.fingerprint == theirs.fingerprint  # which is what made them one
    with pytest.raises(ApprovalError, match="is not approved for"):
        export(other, home)
    with pytest.raises(ApprovalError, match="is not approved for"):
        handoff.adopt_approval(other, home, theirs)
    content = export(recipe, home)
    assert content["study"] == "given" and content["approval"]["by"] == "ada"
    handoff.approve(other, home, by="bob")
    assert export(other, home)["approval"]["by"] == "bob"
    assert export(recipe, home)["approval"]["by"] == "ada"


def test_other_scores_with_the_same_answer_are_not_approved_and_block_nothing(approved):
    """Catches evidence from tables that is known by its mixtures, and a lost way back."""
    folder, home, recipe = approved
    before = finished_study(recipe, home)
    bound_study.write(folder, shift=0.5)
    bound_study.fit(folder, home)
    card = finished_study(recipe, home)
    assert card.fingerprint == before.fingerprint and card.data != before.data
    with pytest.raises(ApprovalError, match="is not approved"):
        export(recipe, home)
    bound_study.write(folder)  # the first tables again, and no other fit
    assert export(recipe, home)["approval"]["by"] == "ada"


def test_a_what_if_fit_is_kept_beside_the_study_of_the_same_name(approved):
    """Catches a fit of another recipe that takes the place of what the recipe recommended."""
    folder, home, recipe = approved
    what_if = bound_study.fit(folder, home, objective="{name: mean, weights: {math: 1}}")
    card, approval = handoff.approve(recipe, home, by="eve")
    assert (card.recipe, approval.by) == (recipe.digest, "ada")
    assert finished_study(what_if, home).recipe == what_if.digest
    changed = parse(bound_study.text(folder, objective="{name: mean, weights: {qa: 1}}"))
    with pytest.raises(ApprovalError, match="the recipe has changed"):
        handoff.approve(changed, home, by="ada")
    with pytest.raises(EvidenceError, match="no recommendation of the study 'never'"):
        handoff.approve(parse(bound_study.text(folder, name="never")), home, by="ada")


def test_more_tokens_at_export_need_an_approval_of_their_own(approved):
    """Catches a budget that is raised outside of what the digest covers."""
    folder, home, recipe = approved
    more = parse(bound_study.text(folder, export="{tokens: 9T}"))
    assert more.digest == recipe.digest
    with pytest.raises(ApprovalError, match=r"for 9,000,.*ada approved it for 1,000,000,000 tok"):
        export(more, home)
    handoff.approve(more, home, by="bob")
    assert export(more, home)["approval"]["by"] == "bob"
    assert export(recipe, home)["approval"]["by"] == "ada"
    same = parse(bound_study.text(folder, export="{tokens: 1B, seed: 7}"))
    assert export(same, home)["approval"]["by"] == "ada"


@pytest.mark.parametrize(
    "hook",
    [
        HOOK.replace("cluster", "elsewhere"),
        HOOK.replace("/x", "/y"),
        HOOK.replace("to:", "stage: 1, to:"),
        HOOK.replace("json", "csv"),
        "{format: json, to: /x, command: [/bin/true]}",
        "{format: json, to: /x, webhook: $CUVEE_WEBHOOK_URL}",
    ],
)
def test_a_call_is_made_for_what_was_approved_with_its_target(approved, hook):
    """Catches a handoff that is edited after the approval: another receiver, place or stage."""
    folder, home, _ = approved
    recipe = parse(bound_study.text(folder, handoff=HOOK))
    card = finished_study(recipe, home)
    with pytest.raises(ApprovalError, match="another place or receiver"):
        handoff.adopt_approval(recipe, home, card, call=True)
    handoff.approve(recipe, home, by="bob")
    assert handoff.adopt_approval(recipe, home, card, call=True).by == "bob"
    edited = parse(bound_study.text(folder, handoff=hook))
    with pytest.raises(ApprovalError, match="another place or receiver"):
        handoff.adopt_approval(edited, home, card, call=True)
    assert export(edited, home)["status"] == "approved"  # which calls nobody
    keys = {
        delivery.handoff_key(card, card.whole(given.purpose), given.handoff)
        for given in (recipe, edited)
    }
    assert len(keys) == 2


def test_what_is_withdrawn_is_not_exported_and_its_exports_are_named(approved):
    """Catches a withdrawal that leaves the approval, or that cannot be taken back in turn."""
    _, home, recipe = approved
    export(recipe, home)
    handoff.verify(str(home.root / "out"), home)
    [taken] = handoff.withdraw(recipe, home, by="eve", note="a bug")
    assert taken.by == "ada" and taken.withdrawn.startswith("withdrawn by eve at ")
    with pytest.raises(ApprovalError, match=r"approval by ada was withdrawn by eve.*a bug"):
        export(recipe, home)
    with pytest.raises(ExportError, match="its approval was withdrawn by eve"):
        handoff.verify(str(home.root / "out"), home)
    with pytest.raises(ApprovalError, match="no approval of given stands"):
        handoff.withdraw(recipe, home)
    handoff.approve(recipe, home, by="bob")
    with pytest.raises(ExportError, match="its approval was withdrawn by eve"):
        handoff.verify(str(home.root / "out"), home)  # though another took its place
    assert export(recipe, home)["approval"]["by"] == "bob"
    [path] = Path(home.store, "approvals").glob(f"{finished_study(recipe, home).identity}*")
    [earlier] = json.loads(path.read_text())["content"]["earlier"]
    assert earlier["by"] == "ada" and "eve" in earlier["withdrawn"]


def test_an_approval_of_an_earlier_answer_is_withdrawn_too(approved):
    """Catches a withdrawal that looks at the latest answer alone: the earlier one comes back to
    life when it is reached again."""
    _, home, recipe = approved
    store, card = Store(home.store), finished_study(recipe, home)
    export(recipe, home)
    other = dataclasses.replace(card.answer, method="another")
    mark = recommendation_fingerprint(other)
    handoff_card.save_finished(store, dataclasses.replace(card, answer=other, fingerprint=mark))
    assert finished_study(recipe, home).identity != card.identity
    [taken] = handoff.withdraw(recipe, home, by="eve")
    assert taken.card == card.identity
    with pytest.raises(ExportError, match="its approval was withdrawn by eve"):
        handoff.verify(str(home.root / "out"), home)
    handoff_card.save_finished(store, card)
    with pytest.raises(ApprovalError, match="withdrawn by eve"):
        export(recipe, home)


def test_a_withdrawal_stands_against_an_alias_that_the_record_still_has(study):
    """Catches an approval that is adopted again from a record that was not told."""
    folder, home = study
    recipe = bound_study.fit(folder, home)
    backend = registered(home, finished_study(recipe, home))
    backend.tag_version("given", "1", {}, "approved")
    assert export(recipe, home)["approval"]["via"] == "MLflow"
    handoff.withdraw(recipe, home, by="eve")
    assert not backend.versions("given")[0].aliases
    backend.tag_version("given", "1", {}, "approved")
    with pytest.raises(ApprovalError, match="withdrawn by eve"):
        export(recipe, home)


def test_an_alias_that_is_removed_withdraws_what_it_gave(study):
    """Catches an approval that outlives its withdrawal where it was given, and one that does not
    outlive the approval of another version of the same name."""
    folder, home = study
    recipe = bound_study.fit(folder, home)
    other = bound_study.fit(folder, home, full_scale="{tokens: 2B}")
    backend = registered(home, finished_study(recipe, home))
    registered(home, finished_study(other, home))
    backend.tag_version("given", "1", {}, "approved")
    assert export(recipe, home)["status"] == "approved"
    backend.tag_version("given", "2", {}, "approved")  # an alias stands for one version
    assert export(other, home)["status"] == export(recipe, home)["status"] == "approved"
    backend.tag_version("given", "1", {"approved": "no"})
    with pytest.raises(ApprovalError, match="withdrawn by the record"):
        export(recipe, home)
    backend.delete_alias("given", "approved")
    with pytest.raises(ApprovalError, match="withdrawn by the record"):
        export(other, home)
    backend.tag_version("given", "2", {}, "approved")
    assert export(other, home)["status"] == "approved"  # given anew where it was taken


def registered(home: Workspace, card: handoff_card.FinishedStudy):
    backend = open_backend(home.record)
    backend.register_version(
        card.name, backend.create_run("x", {}), approvable_tags(card.identity, card.purpose), ""
    )
    return backend


def test_a_version_is_approved_for_what_it_is_registered_for(study):
    """Catches an alias taken for another budget or receiver than the reviewer could see."""
    folder, home = study
    recipe = bound_study.fit(folder, home)
    card = finished_study(recipe, home)
    registered(home, card).tag_version("given", "1", {}, "approved")
    for changes in ({"export": "{tokens: 9T}"}, {"handoff": HOOK}):
        edited = parse(bound_study.text(folder, **changes))
        with pytest.raises(ApprovalError, match="is not approved"):
            handoff.adopt_approval(edited, home, card, call=True)
    edited = parse(bound_study.text(folder, handoff=HOOK))
    assert handoff.adopt_approval(edited, home, card).purpose.target == ""
    with pytest.raises(ApprovalError, match="another place or receiver"):
        handoff.adopt_approval(edited, home, card, call=True)


def test_what_2ad03ff_approved_is_not_taken_over(tmp_path, monkeypatch):
    """Catches an approval that is bound to nothing but an answer, believed by a later version."""
    home = Workspace(old_study.unpack(tmp_path, "2ad03ff"))
    monkeypatch.chdir(tmp_path)
    recipe, _ = load_recipe(Path("tables.yaml"))
    with pytest.raises(ApprovalError, match=r"ada did with an older version.*`cuvee approve` it"):
        handoff.export(recipe, home, form="json", to="again")
    with pytest.raises(ExportError, match=r"older version.*`cuvee approve` and export it anew"):
        handoff.verify("home/out", home)
    with pytest.raises(ApprovalError, match=r"the code .* has changed.*again with `cuvee fit`"):
        handoff.approve(recipe, home, by="bob")
    refit(recipe, Path("tables.yaml").read_text(), home)
    with pytest.raises(ApprovalError, match="is not approved"):
        handoff.export(recipe, home, form="json", to="again")
    handoff.approve(recipe, home, by="bob")
    assert handoff.export(recipe, home, form="json", to="again")[1]["approval"]["by"] == "bob"


def test_a_fit_leaves_what_confirmations_said(approved):
    """Catches a fit without a test that takes the verdict of a tested recommendation away."""
    folder, home, recipe = approved
    store, card = Store(home.store), finished_study(recipe, home)
    tested = dataclasses.replace(card, confirmed=True, tests=2, verdict="confirmed twice")
    handoff_card.save_finished(store, tested)
    bound_study.fit(folder, home)
    after = finished_study(recipe, home)
    assert (after.confirmed, after.tests, after.verdict) == (True, 2, "confirmed twice")


def test_a_relative_place_is_sent_whole(approved, monkeypatch):
    """Catches a place that a receiver in another directory cannot find."""
    folder, home, recipe = approved
    monkeypatch.chdir(folder)
    where, _ = handoff.export(recipe, home, form="json", to="out/here")
    assert where == f"{folder}/out/here/manifest.json"


def test_a_study_of_another_recipe_is_kept_when_its_folder_is_taken(tmp_path):
    """Catches a report that another recipe of the same name overwrites without a word."""
    folder = tmp_path / "given"
    for name in ("report.html", "recipe.yaml", "fit/report.html", "exports/json/mixture.json"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(bound_study.text(tmp_path))
    own = parse(bound_study.text(tmp_path)).digest
    finished.set_aside(folder, own)
    assert not (folder / "earlier").exists()
    finished.set_aside(folder, "f" * 64)
    assert sorted(p.name for p in folder.iterdir()) == ["earlier", "exports", "fit"]
    assert (folder / "earlier" / own[:12] / "report.html").exists()
    (folder / "card.json").write_text(json.dumps({"recipe": "f" * 64}))
    finished.set_aside(folder, "f" * 64)
    assert (folder / "card.json").exists()


def test_an_export_goes_over_no_export_of_another_recipe(approved):
    """Catches an approved export that a what-if of the same name overwrites."""
    folder, home, recipe = approved
    other = bound_study.fit(folder, home, full_scale="{tokens: 2B}")
    first, _ = handoff.export(recipe, home, form="json")
    second, _ = handoff.export(other, home, form="json", draft=True)
    assert first != second and handoff.export(recipe, home, form="json")[0] == first
    assert handoff.verify(first, home)["target_tokens"] == 10**9


@pytest.mark.parametrize("name", ["n" * 201, "n" * 255])
def test_a_name_that_no_file_can_bear_is_refused_with_the_recipe(tmp_path, name):
    """Catches "File name too long" after all work is done."""
    with pytest.raises(RecipeError, match="name: must be made of at most 200 letters"):
        parse(bound_study.text(tmp_path, name=name))
    parse(bound_study.text(tmp_path, name="n" * 200))


@pytest.mark.slow
def test_the_command_line_says_what_is_approved(study):
    """Catches an approval in one line: no shares, no verdict, no budget, no word that it is
    unconfirmed; and a mistake in a format that is told after everything else."""
    folder, home = study
    path = folder / "given.yaml"
    path.write_text(bound_study.text(folder))
    bound_study.fit(folder, home)

    def cuvee(*words: str) -> tuple[int, str]:
        program = [sys.executable, "-m", "cuvee.flows", *words, "--home", str(home.root)]
        done = subprocess.run(program, check=False, capture_output=True, text=True, cwd=ROOT)
        return done.returncode, " ".join((done.stdout + done.stderr).split())

    code, said = cuvee("approve", str(path), "--by", "ada")
    assert code == 0
    for words in (
        "web",
        "code",
        "What is recommended? Draw",
        "How sure? ",
        "no fresh run has confirmed",
        "1,000,000,000 tokens",
    ):
        assert words in said
    code, said = cuvee("export", str(path))
    assert code == 2 and "--format" in said and "handoff.format" in said and "megatron" in said
    code, said = cuvee("approve", str(path), "--withdraw", "--by", "eve")
    assert code == 0 and "the approval by ada is withdrawn by eve" in said


def test_an_approval_of_a_later_version_with_fields_of_its_own_is_read(approved):
    """Catches a field more that ends in a TypeError, and one that a rewrite loses."""
    _, home, recipe = approved
    store, card = Store(home.store), finished_study(recipe, home)
    given = approve.standing_approval(store, card.identity)
    store.remember("approvals", given.key, {**dataclasses.asdict(given), "novel": 1})
    assert approve.standing_approval(store, card.identity) == given
    handoff.withdraw(recipe, home, by="eve")
    assert store.recall("approvals", given.key)["novel"] == 1
    for values in ({"by": "x"}, {"format": 2, "by": "x", "runs": []}, ["x"]):
        store.remember("approvals", "f" * 64, values)
        assert approve.standing_approval(store, "f" * 64) is None
