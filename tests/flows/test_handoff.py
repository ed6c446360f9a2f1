"""Approval and export: what may go out, what is told of it, and how a change is found."""

import csv
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import command
import fsspec
import pytest
import receiver
import recommended_study

from cuvee.flows.handoff import delivery, handoff
from cuvee.flows.handoff.achieved import achieved_shares
from cuvee.flows.recipe.corpus_parts import SourcePart
from cuvee.flows.recipe.load import parse
from cuvee.flows.study import finished as flows_finished
from cuvee.flows.study.finished import finished_study
from cuvee.flows.study.refit import refit
from cuvee.flows.workspace import Workspace
from cuvee.mixtures.errors import ApprovalError, CuveeError, EvidenceError, ExportError
from cuvee.tasks import export
from cuvee.tasks.approval import approve, manifest
from cuvee.tasks.export.documents import document_source
from cuvee.tasks.store.results import Store
from cuvee.tasks.study import finished
from cuvee.tasks.study.validity import validity
from cuvee.tasks.tracking.fields import approvable_tags
from cuvee.tasks.tracking.mlflow import open_backend

pytestmark = pytest.mark.usefixtures("quick_pictures_everywhere")

ROOT = Path(__file__).parent.parent.parent
SHORT = (  # 1,562 sequences are too few for them
    *("axolotl", "huggingface", "llama_factory", "maxtext", "megatron_bridge", "ms_swift"),
    "nanotron",
)


@pytest.fixture
def study(recommended, tmp_path):
    """A recommended study of this test's own: (recipe, home, corpus)."""
    shutil.copytree(recommended / "home", tmp_path / "home")
    recipe = parse(recommended_study.text(recommended / "corpus"))
    return recipe, Workspace(tmp_path / "home"), recommended / "corpus"


def changed(corpus: Path, **changes: str):
    return parse(recommended_study.text(corpus, **changes))


def test_what_nobody_approved_goes_out_as_a_draft_only(study, tmp_path):
    """Catches an export that passes for approved, and a draft that does not say so."""
    recipe, home, _ = study
    with pytest.raises(ApprovalError, match=r"not approved.*cuvee approve.*--draft"):
        handoff.export(recipe, home, form="json", to=str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    place, content = handoff.export(recipe, home, form="json", to=str(tmp_path / "out"), draft=True)
    assert json.loads(Path(place).read_text()) == content
    assert content["status"] == "draft" and content["approval"] is None
    handoff.approve(recipe, home, by="ada")
    _, content = handoff.export(recipe, home, form="json", to=str(tmp_path / "out"), draft=True)
    assert content["status"] == "draft"  # asked for as a draft, it stays one


def test_an_approval_is_kept_with_its_grounds(study):
    """Catches an approval without who, when or what for, and a second one that hides it."""
    recipe, home, _ = study
    card, approval = handoff.approve(recipe, home, by="ada", note="as discussed")
    kept = approve.standing_approval(Store(home.store), card.identity)
    assert kept == approval
    assert (kept.by, kept.note, kept.via) == ("ada", "as discussed", "command line")
    assert kept.at.endswith("+00:00") and kept.data == card.data and len(kept.data) == 4
    assert set(kept.runs) == {o.spec.fingerprint for o in Store(home.store).outcomes()}
    assert handoff.approve(recipe, home, by="eve")[1] == approval


@pytest.mark.parametrize("form", export.format_names())
def test_every_format_is_exported_with_a_manifest_that_holds(study, tmp_path, form):
    """Catches a manifest of other files, tokens or epochs than those that were exported."""
    recipe, home, _ = study
    card, _ = handoff.approve(recipe, home, by="ada")
    target = str(tmp_path / form)
    if form in SHORT:
        with pytest.raises(ExportError, match=r"rounds too coarsely|draws at random"):
            handoff.export(recipe, home, form=form, to=target)
        assert not Path(target).exists()
        return
    place, content = handoff.export(recipe, home, form=form, to=target)
    assert place == f"{target}/manifest.json" and handoff.verify(target, home) == content
    assert set(content["files"]) == {p.name for p in Path(target).iterdir()} - {"manifest.json"}
    assert content["recommendation"] == card.fingerprint and content["approval"]["by"] == "ada"
    assert content["target_tokens"] == 400_000 and content["unit"]
    for domain, share in zip(content["domains"], card.answer.weights, strict=True):
        assert domain["weight"] == pytest.approx(share, abs=1e-9)
        assert domain["tokens"] == pytest.approx(share * 400_000, abs=1)
        exist = card.domains.domains[card.domains.index(domain["name"])]
        assert domain["epochs"] == pytest.approx(share * 400_000 / exist.tokens)
        assert domain["identity"] == exist.identity
        assert domain["delivered_tokens"] == pytest.approx(share * 400_000, rel=0.01, abs=256)
    before = {p.name: p.read_bytes() for p in Path(target).iterdir()}
    handoff.export(recipe, home, form=form, to=target)
    assert {p.name: p.read_bytes() for p in Path(target).iterdir()} == before


def test_validation_sets_stand_in_the_manifest_and_change_no_approval(study, tmp_path, monkeypatch):
    """Catches sets of the recipe that no trainer hears of, or that nobody is told of in a handoff,
    and a mixture approved anew for them.
    """
    recipe, home, corpus = study
    handoff.approve(recipe, home, by="ada")
    assert "validation" not in handoff.export(recipe, home, form="json", to=str(tmp_path))[1]
    held = f"{recommended_study.EXPORT}  validation: {{prose: /held, code: [/a, /b]}}\n"
    told = changed(corpus, export=held)
    assert told.digest == recipe.digest
    for form, placed in (("json", True), ("litdata", False)):
        said: list[str] = []
        monkeypatch.setattr(home.display, "say", said.append)
        _, content = handoff.export(told, home, form=form, to=str(tmp_path / form))
        assert placed is not any("litdata has no place for validation sets" in s for s in said)
        given = {"prose": ["/held"], "code": ["/a", "/b"]}
        assert content["validation"] == {"paths": given, "in_files": placed}


def test_a_run_is_held_to_what_was_recommended_and_exported(study, tmp_path):
    """Catches a run that differs and ends with 0, an export unread, and a mistake unnamed."""
    recipe, home, corpus = study
    card, _ = handoff.approve(recipe, home, by="ada")
    _, content = handoff.export(recipe, home, form="json", to=str(tmp_path / "out"))
    (tmp_path / "study.yaml").write_text(recommended_study.text(corpus))

    def held(counts, *more: str) -> tuple[int, dict, str]:
        rows = "".join(f"{name},{tokens}\n" for name, tokens in counts.items())
        (tmp_path / "counts.csv").write_text(f"domain,tokens\n{rows}")
        words = ("achieved", str(tmp_path / "study.yaml"), str(tmp_path / "counts.csv"), *more)
        plain = command.inside(*words, home=Path(home.root))
        done = command.inside(*words, "--json", home=Path(home.root))
        assert plain.returncode == done.returncode, plain.stdout
        return done.returncode, json.loads(done.stdout), plain.stdout

    right = {row["name"]: row["delivered_tokens"] for row in content["domains"]}
    code, found, said = held(right)
    assert code == 0 and found["agrees"] and found["recommendation"] == card.fingerprint
    assert "drew what was recommended" in said and [d["drawn"] for d in found["domains"]] == [
        *right.values()
    ]
    assert [d["exported"] for d in found["domains"]] == pytest.approx([*right.values()])
    sizes = {domain.name: domain.tokens for domain in card.domains}
    wrong = {name: round(400_000 * size / sum(sizes.values())) for name, size in sizes.items()}
    code, found, said = held(wrong)
    assert code == 1 and not found["agrees"] and "Likely: " in said
    assert any("by their size" in cause for cause in found["causes"])
    assert any("the mixture 'natural' was trained" in cause for cause in found["causes"])
    (tmp_path / "out" / "mixture.json").write_text("{}")
    _, found, _ = held(wrong, "--export", str(tmp_path / "out"))
    assert found["causes"][0].startswith("the export is not as it was written: mixture.json")


NONE = "is not the manifest of an export"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"domains": [{"weight": 1}]}, NONE),
        ({"domains": [{"name": "prose", "weight": None}]}, NONE),
        ({"domains": [{"name": "prose", "weight": -1}]}, NONE),
        ({"domains": ["prose"], "files": []}, NONE),
        ({"stage": "first"}, NONE),
        ({"target_tokens": "many"}, NONE),
        ({"domains": [{"name": "prosa", "weight": 1}]}, "no domain 'prosa'"),
    ],
)
def test_an_export_that_is_none_is_no_traceback(study, tmp_path, content, words):
    """Catches a stranger's manifest believed, and one that ends in a traceback."""
    recipe, home, _ = study
    (tmp_path / "manifest.json").write_text(json.dumps(content))
    (tmp_path / "counts.csv").write_text("domain,tokens\nprose,5\n")
    with pytest.raises(CuveeError, match=words):
        achieved_shares(recipe, home, [tmp_path / "counts.csv"], str(tmp_path))


@pytest.mark.parametrize("named", ["megatron", None])
def test_a_study_of_token_files_is_exported(study, tmp_path, named):
    """Catches token files listed as text, which refused the export of their study."""
    recipe, home, _ = study
    golden = Path(__file__).parents[1] / "golden" / "token_files" / "megatron.bin"
    first = next(iter(recipe.corpus.domains))
    part = SourcePart(path=str(golden), format=named)
    domains = recipe.corpus.domains | {first: part}
    corpus = recipe.corpus.model_copy(update={"domains": domains})
    made = recipe.model_copy(update={"corpus": corpus})
    spec = handoff.export_spec(made, finished_study(recipe, home))
    assert spec.sources[first].tokens == "megatron"
    spec = dataclasses.replace(spec, paths={**spec.paths, first: (str(golden),)})
    read = dataclasses.replace(spec.sources[first], own=True)
    spec = dataclasses.replace(spec, sources={**spec.sources, first: read})
    with pytest.raises(ExportError, match=f"domain '{first}' lies in token files .megatron."):
        document_source(spec, first)


def test_an_export_knows_how_the_recipe_reads_each_domain(study):
    """Catches exports for which `glob`, `format`, `filter`, `tokens` and data sets are nothing, and
    a filter that is forgotten where `export.paths` writes the same files in another way."""
    recipe, home, corpus = study
    first, second, *_ = recipe.corpus.domains
    parts = {
        first: SourcePart(path=f"{corpus}/*.out", format="jsonl", field="a.b", filter="n > 3"),
        second: SourcePart(
            dataset={"name": "owner/name", "config": "en", "split": "held"}, tokens=10**9
        ),
    }
    made = recipe.model_copy(
        update={
            "corpus": recipe.corpus.model_copy(update={"domains": recipe.corpus.domains | parts}),
            "export": recipe.export.model_copy(
                update={"paths": {first: f"{corpus}/", second: "owner/name"}}
            ),
        }
    )
    sources = handoff.export_spec(made, finished_study(recipe, home)).sources
    files = sources[first].files
    assert (files.format, files.field, files.filter) == ("jsonl", "a.b", "n > 3")
    assert sources[first].own and not sources[first].sample
    assert sources[second].own and sources[second].sample
    assert sources[second].dataset == {"path": "owner/name", "name": "en", "split": "held"}


def test_a_change_to_any_exported_byte_is_found(study, tmp_path):
    """Catches a check that reads the hashes from the file that was changed."""
    recipe, home, _ = study
    handoff.approve(recipe, home, by="ada")
    target = tmp_path / "out"
    handoff.export(recipe, home, form="olmo_core", to=str(target))
    for file in sorted(target.iterdir()):
        raw = file.read_bytes()
        file.write_bytes(raw[:-3] + bytes([raw[-3] ^ 1]) + raw[-2:])
        with pytest.raises(ExportError):
            handoff.verify(str(target), home)
        file.unlink()
        with pytest.raises(ExportError):
            handoff.verify(str(target), home)
        file.write_bytes(raw)
    handoff.verify(str(target), home)


def test_a_manifest_that_was_forged_whole_is_not_known_to_the_store(study, tmp_path):
    """Catches a draft that is made an approved export by writing all hashes anew."""
    recipe, home, _ = study
    target = tmp_path / "out"
    _, content = handoff.export(recipe, home, form="json", to=str(target), draft=True)
    plain = {name: value for name, value in content.items() if name != "sha256"}
    plain |= {"status": "approved", "approval": {"by": "eve", "at": "", "note": "", "via": ""}}
    text = manifest.canonical_json(plain)
    forged = plain | {"sha256": manifest._sha256(text.encode())}
    (target / "manifest.json").write_text(json.dumps(forged))
    assert manifest.verify_export(str(target))[1] == []  # without the store it cannot be told
    with pytest.raises(ExportError, match="no such export was written from this store"):
        handoff.verify(str(target), home)


def test_nothing_of_an_earlier_export_stays_beside_a_later_one(study, tmp_path):
    """Catches files of stages that are gone, and of others taken for ours by a manifest."""
    recipe, home, _ = study
    card, store, target = finished_study(recipe, home), Store(home.store), tmp_path / "out"
    form, blend = export.build_format("json"), handoff.export_spec(recipe, card)

    def written(*names: str, known: Store = store) -> set[str]:
        files = dict.fromkeys(names, "x")
        content = manifest.export_manifest(card, form, blend, files, approval=None)
        manifest.write_export(str(target), files, content, known)
        return {path.name for path in target.iterdir()}

    assert written("a", "b") == {"a", "b", "manifest.json"}
    (target / "mine").write_text("x")
    assert written("a", "c") == {"a", "c", "mine", "manifest.json"}
    written("c", "mine", known=Store(str(tmp_path / "a stranger's")))
    assert written("d") == {"a", "c", "mine", "d", "manifest.json"}


def test_a_strangers_manifest_reaches_nothing_outside_of_the_store(study, tmp_path):
    """Catches a hash of the manifest that names a file of the user, which is then moved aside."""
    recipe, home, _ = study
    target = tmp_path / "out"
    _, content = handoff.export(recipe, home, form="json", to=str(target), draft=True)
    victim = home.root / "victim.json"
    victim.write_text('{"precious": 1}')
    forged = {**content, "sha256": os.path.relpath(victim, Path(home.store, "manifests"))[:-5]}
    (target / "manifest.json").write_text(json.dumps(forged))
    with pytest.raises(ExportError, match="no such export was written from this store"):
        handoff.verify(str(target), home)
    assert victim.read_text() == '{"precious": 1}'


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ('{"files": {"..": "x"}, "sha256": "x"}', ".. is missing"),
        ('{"files": {"a.txt": "x"}, "status": NaN}', "is not the manifest"),
        ("[" * 100_000, "is not the manifest"),
    ],
    ids=["folder", "nan", "deep"],
)
def test_a_damaged_manifest_is_a_sentence_and_stops_no_export(study, raw, words):
    """Catches IsADirectoryError, ValueError and RecursionError, in `--verify` and in `export`."""
    recipe, home, _ = study
    where, content = handoff.export(recipe, home, form="json", draft=True)
    Path(where).write_text(raw)
    with pytest.raises(ExportError, match=words):
        handoff.verify(where, home)
    again, made = handoff.export(recipe, home, form="json", draft=True)
    assert made == content
    assert handoff.verify(again, home) == content


def test_void_evidence_is_neither_approved_nor_handed_on(study, monkeypatch, tmp_path):
    """Catches an approval of a recommendation whose recipe, code or runs are not those it had."""
    recipe, home, corpus = study
    other = changed(corpus, objective="{name: mean, weights: {domain/prose: 1}}")
    with pytest.raises(ApprovalError, match="the recipe has changed"):
        handoff.approve(other, home, by="ada")
    with monkeypatch.context() as patch:
        patch.setattr(flows_finished, "code_version", lambda: "other")
        with pytest.raises(ApprovalError, match="the code that fits and recommends has changed"):
            handoff.approve(recipe, home, by="ada")
    runs = sorted(Path(home.store, "runs").iterdir())
    result = runs[0] / "result.json"
    raw = result.read_text()
    result.write_text(raw.replace('"value": 1', '"value": 2', 1))
    with pytest.raises(ApprovalError, match=r"1 of the \d+ runs.*missing.*or damaged"):
        handoff.approve(recipe, home, by="ada")
    result.write_text(raw)
    handoff.approve(recipe, home, by="ada")
    shutil.rmtree(runs[1])
    with pytest.raises(ApprovalError, match=f"missing.*{runs[1].name[:12]}"):
        handoff.export(recipe, home, form="json", to=str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_another_identity_of_a_domain_voids_an_approval(study):
    """Catches a comparison of names, which stay when data is exchanged under them."""
    recipe, home, _ = study
    card, now = finished_study(recipe, home), flows_finished.present_state(recipe, home)
    assert validity(card, now, Store(home.store)) == ()
    other = dataclasses.replace(now, data={**now.data, "prose": "0" * 64})
    [reason] = validity(card, other, Store(home.store))
    assert "the data has changed since the study: prose" in reason


@pytest.mark.slow
def test_data_that_changed_voids_an_approval(tmp_path):
    """Catches a check of names or paths in place of content."""
    corpus, home = tmp_path / "corpus", Workspace(tmp_path / "home")
    recipe = recommended_study.make(corpus, home)
    with (corpus / "code.jsonl").open("a") as file:
        file.write(json.dumps({"text": "def added():\n    return 'one more document'\n"}) + "\n")
    with pytest.raises(ApprovalError, match="the data has changed since the study: .*code"):
        handoff.approve(recipe, home, by="ada")


def test_later_parts_of_a_recipe_change_nothing_that_was_approved(study, monkeypatch):
    """Catches a digest of the whole text: a path for the trainer is no change of the study."""
    recipe, home, corpus = study
    other = changed(corpus, export="{tokens: 200k}")
    assert other.digest == recipe.digest
    handoff.approve(other, home, by="ada")
    monkeypatch.setattr(flows_finished, "code_version", lambda: "upgraded")
    handoff.export(other, home, form="csv")  # approved is approved, whichever code writes it
    assert changed(corpus, seed="4").digest != recipe.digest


def test_an_export_goes_to_any_fsspec_url(study):
    """Catches files that are written by `open`."""
    recipe, home, _ = study
    handoff.approve(recipe, home, by="ada")
    place, content = handoff.export(recipe, home, form="yaml", to="memory://bucket/tiny")
    assert place == "memory://bucket/tiny/manifest.json"
    assert fsspec.filesystem("memory").exists("/bucket/tiny/mixture.yaml")
    assert handoff.verify("memory://bucket/tiny", home) == content


def test_a_larger_budget_may_not_break_the_epoch_cap(study):
    """Catches an export for more tokens than the constraints were held at."""
    recipe, home, corpus = study
    card = finished_study(recipe, home)
    within = changed(corpus, constraints="{epochs: 4}", export="{tokens: 400k}")
    assert max(handoff.export_spec(within, card).epochs.values()) < 4
    for cap in ("4", "{code: 4, prose: 4, tables: 4}"):
        more = changed(corpus, constraints=f"{{epochs: {cap}}}", export="{tokens: 40M}")
        with pytest.raises(ExportError, match=r"more often than.*constraints.epochs.*code \d"):
            handoff.export_spec(more, card)


def test_runs_from_tables_are_approved_until_a_table_changes(tmp_path):
    """Catches evidence that is tied to the names of tables alone, and lengths made up for them."""
    rng = recommended_study.np.random.default_rng(0)
    shares = rng.dirichlet([1, 1], 24)
    for name, columns, rows in (
        ("m", ("web", "code"), shares),
        ("s", ("math", "qa"), 2 - shares**0.5),
    ):
        with (tmp_path / f"{name}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("run", *columns))
            writer.writerows([f"r{i}", *row] for i, row in enumerate(rows))
    text = f"""
name: given
tables: {{mixtures: {tmp_path}/m.csv, scores: {tmp_path}/s.csv, sizes: {{web: 0.7, code: 0.3}}}}
objective: {{name: mean, weights: {{math: 1, qa: 1}}}}
method: {{name: mixing_laws, runs: 8, folds: 2, refits: 10}}
export: {{paths: {{web: /d/web, code: /d/code}}, tokens: 1B}}
"""
    recipe, home = parse(text), Workspace(tmp_path / "home")
    with pytest.raises(EvidenceError, match="no recommendation of the study 'given'"):
        handoff.export(recipe, home, form="json")
    refit(recipe, text, home)
    handoff.approve(recipe, home, by="ada")
    _, content = handoff.export(recipe, home, form="megatron")
    assert [d["epochs"] for d in content["domains"]] == [None, None]  # sizes are no counts
    for form, words in (("huggingface", "token_counts"), ("mixtera", "weighs documents")):
        with pytest.raises(ExportError, match=words):
            handoff.export(recipe, home, form=form)
    scores = tmp_path / "s.csv"
    scores.write_text(scores.read_text().replace("r0,1", "r0,2"))
    with pytest.raises(ApprovalError, match="the data has changed since the study: tables"):
        handoff.approve(recipe, home, by="ada")


def test_a_damaged_card_is_no_card(study):
    """Catches a recommendation that is read from bytes that were changed."""
    recipe, home, _ = study
    [path] = Path(home.store, "cards").iterdir()
    path.write_text(path.read_text().replace('"counted": true', '"counted": false'))
    with pytest.raises(EvidenceError, match="holds no recommendation"):
        finished_study(recipe, home)


def test_every_study_has_its_latest_card(study):
    """Catches what a scheduled sweep keeps beside the pointers to cards taken for one."""
    recipe, home, _ = study
    store = Store(home.store)
    store.remember(finished.LATEST, "a" * 64, {"content": {"code": "b"}})
    assert finished.latest_studies(store) == (finished.latest_of_name(store, recipe.name),)


def test_a_card_goes_through_json_whole(study):
    """Catches a field that is lost on the way, such as stages or identities."""
    recipe, home, _ = study
    card = finished_study(recipe, home)
    again = finished.from_json(json.loads(json.dumps(card.to_json())))
    assert again == card and again.answer.stages == card.answer.stages
    later = card.to_json() | {"novel": 1}
    later["answer"] = {**later["answer"], "novel": 1}
    older = {k: v for k, v in card.to_json().items() if k not in ("tests", "purpose", "confirmed")}
    assert finished.from_json(later) == card and finished.from_json(older).name == "tiny"
    with pytest.raises(EvidenceError, match="not the card"):
        finished.from_json({"name": "x"})


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"handoff": "{format: megatrom, to: /x}"}, "did you mean 'megatron'"),
        ({"export": "{formats: {mosaic: {sample: packed}}}"}, "did you mean 'samples'"),
        ({"export": "{formats: {mosaic: {samples: rows}}}"}, "packed or documents"),
        ({"handoff": "{format: json, to: /x, webhook: 'ftp://h/x'}"}, "http or https"),
        ({"handoff": "{format: json, to: /x, webhook: 'https://me:pw@h/x'}"}, "CUVEE_WEBHOOK"),
        ({"handoff": "{format: json, to: /x, webhook: 'https://h', command: [ls]}"}, "not both"),
    ],
)
def test_a_mistake_in_export_or_handoff_is_found_with_the_recipe(tmp_path, fields, words):
    """Catches a mistake that is found only when an approval sets off the handoff."""
    with pytest.raises(CuveeError, match=words):
        parse(recommended_study.text(tmp_path, **fields))


def tagged(card, recipe=None) -> dict[str, str]:
    """The tags by which a version stands for a card, for what its recipe asks."""
    purpose = recipe.purpose if recipe else card.purpose
    return {"cuvee.recommendation": card.fingerprint, **approvable_tags(card.identity, purpose)}


def registered(home: Workspace, card, recipe=None):
    """The record as a study leaves it: one version, which nobody has approved."""
    backend = open_backend(home.record)
    backend.register_version(
        "tiny", backend.create_run("tiny", {}), tagged(card, recipe), "a recommendation"
    )
    return backend


def test_an_alias_in_the_record_approves_what_it_stands_for(study, tmp_path):
    """Catches an alias of another version taken for this one's, and an approval not kept."""
    recipe, home, _ = study
    card = finished_study(recipe, home)
    backend = registered(home, card)
    backend.register_version(
        "tiny", backend.create_run("tiny", {}), {"cuvee.recommendation": "other"}, ""
    )
    backend.tag_version("tiny", "2", {}, "approved")
    with pytest.raises(ApprovalError, match="not approved"):
        handoff.export(recipe, home, form="json", to=str(tmp_path / "out"))
    backend.tag_version("tiny", "1", {"approved_by": "ada", "approval_note": "go"}, "approved")
    _, content = handoff.export(recipe, home, form="json", to=str(tmp_path / "out"))
    kept = approve.standing_approval(Store(home.store), card.identity)
    assert (kept.by, kept.note, kept.via) == ("ada", "go", "MLflow")
    assert content["approval"] == {"by": "ada", "at": kept.at, "note": "go", "via": "MLflow"}
    shutil.rmtree(home.record)  # the record is lost, the approval is not
    handoff.export(recipe, home, form="json", to=str(tmp_path / "out"))


@pytest.mark.parametrize(
    ("tags", "by"),
    [
        ({"approved": "ada"}, "ada"),
        ({"approved": "yes"}, "somebody in MLflow"),
        ({"cuvee.approved": "True", "cuvee.approved_by": "ada"}, "ada"),
        ({"approved": "no"}, None),
        ({"approved_by": "ada"}, None),
    ],
)
def test_a_tag_in_the_record_approves_too(study, tags, by):
    """Catches a tag that says no, or names somebody alone, taken for an approval."""
    recipe, home, _ = study
    card = finished_study(recipe, home)
    registered(home, card).tag_version("tiny", "1", tags)
    if by is None:
        with pytest.raises(ApprovalError, match="not approved"):
            handoff.adopt_approval(recipe, home, card)
    else:
        assert handoff.adopt_approval(recipe, home, card).by == by


def test_void_evidence_is_refused_though_the_record_approves_it(study):
    """Catches an alias that goes round the check, and a reviewer who is not told."""
    recipe, home, _ = study
    card = finished_study(recipe, home)
    backend = registered(home, card)
    backend.tag_version("tiny", "1", {}, "approved")
    shutil.rmtree(min(Path(home.store, "runs").iterdir()))
    with pytest.raises(ApprovalError, match="void"):
        handoff.adopt_approval(recipe, home, card)
    assert approve.standing_approval(Store(home.store), card.identity) is None
    assert "void" in backend.versions("tiny")[0].tags["cuvee.refused"]


def test_an_approval_is_told_to_the_record_and_holds_without_it(study, monkeypatch):
    """Catches an approval that is lost with the record, or that the record does not show."""
    recipe, home, _ = study
    card = finished_study(recipe, home)
    backend = registered(home, card)
    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        patch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        handoff.approve(recipe, home, by="ada")
    assert approve.standing_approval(Store(home.store), card.identity).by == "ada"
    handoff.approve(recipe, home, by="eve")  # says it again, now that the record answers
    [version] = backend.versions("tiny")
    assert version.aliases == {"approved"} and version.tags["cuvee.approved_by"] == "ada"


def test_a_relative_place_is_told_whole(study, tmp_path, monkeypatch):
    """Catches `out/next`, which nobody but this process can find."""
    _, home, corpus = study
    monkeypatch.chdir(tmp_path)
    with receiver.receiving() as server:
        given = f"{{format: json, to: out/next, webhook: {server.url}/hook}}"
        recipe = changed(corpus, handoff=given)
        handoff.approve(recipe, home, by="ada")
        assert delivery.hand_off(recipe, home)["state"] == "done"
    [message] = server.messages
    assert message["place"] == f"{tmp_path}/out/next/manifest.json"
    assert Path(message["place"]).is_file()


@pytest.mark.slow
def test_a_watch_hands_off_what_is_approved_in_the_record_and_calls_once(study, tmp_path):
    """Catches a handoff before its approval, one that is made twice, and one that is not made."""
    _, home, corpus = study
    with receiver.receiving() as server:
        given = f"{{format: olmo_core, to: {tmp_path}/out, webhook: {server.url}/hook, every: 0.5}}"
        path = tmp_path / "recipe.yaml"
        path.write_text(recommended_study.text(corpus, handoff=given))
        recipe = parse(path.read_text())
        card = finished_study(recipe, home)
        backend = registered(home, card, recipe)
        words = [
            sys.executable,
            "-m",
            "cuvee.flows",
            "handoff",
            str(path),
            "--home",
            str(home.root),
        ]
        refused = subprocess.run(words, check=False, capture_output=True, text=True, cwd=ROOT)
        assert refused.returncode == 2 and "is not approved" in refused.stderr
        with subprocess.Popen([*words, "--watch"], cwd=ROOT) as watching:
            time.sleep(5)
            assert server.messages == [] and not (tmp_path / "out").exists()
            backend.tag_version("tiny", "1", {"approved_by": "ada"}, "approved")
            deadline = time.monotonic() + 200
            while not server.messages and time.monotonic() < deadline:
                time.sleep(0.2)
            time.sleep(5)
            watching.send_signal(signal.SIGINT)
            watching.wait(60)
        again = subprocess.run(words, check=False, capture_output=True, text=True, cwd=ROOT)
        assert again.returncode == 0, again.stderr
    [message] = server.messages
    assert message["manifest"] == handoff.verify(str(tmp_path / "out"), home)
    assert message["manifest"]["approval"]["by"] == "ada"
    assert message["place"] == f"{tmp_path}/out/manifest.json"
    assert backend.versions("tiny")[0].tags["cuvee.handoff"].startswith("done: ")
