"""What is frozen: fingerprints of runs, and what earlier commits left in a store and a home.

A run's fingerprint is what its result is found by. A change to one voids everything that people
have trained, so it is listed here with its reason, or it does not happen. The golden fingerprints
of version 1 are those of 2ad03ff without AVX-512. With it, 2ad03ff drew other designs for
quickstart, anneal and ladder: a last bit of numpy's powers decided which draws were kept. Now both
kinds draw the same.
"""

import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import old_study
import pytest
import shipped
from command import inside
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from cuvee.flows.handoff import handoff
from cuvee.flows.recipe.load import load_recipe
from cuvee.flows.study import confirm_larger
from cuvee.flows.study import prepare as preparing
from cuvee.flows.study.corpus_figures import find_document
from cuvee.flows.study.finished import finished_study, prepare_as_studied, present_state
from cuvee.flows.study.refit import refit
from cuvee.flows.study.study import RememberingMethod
from cuvee.flows.workspace import Workspace
from cuvee.mixtures import loop
from cuvee.mixtures.domains import Domain, DomainSet
from cuvee.mixtures.errors import ApprovalError
from cuvee.mixtures.runs.run_results import RunResult
from cuvee.mixtures.runs.run_spec import BY_CONTENT, BY_NAMES
from cuvee.tasks.store import provenance
from cuvee.tasks.store.results import Store
from cuvee.tasks.study import finished
from cuvee.tasks.study.finished import latest_complete, latest_of_name
from cuvee.tasks.study.validity import changes_since, validity
from cuvee.tasks.tracking.fields import cuvee_tags, study_key, study_params
from cuvee.tasks.tracking.mlflow import open_backend

pytestmark = pytest.mark.usefixtures("quick_pictures_everywhere")

GOLDEN = {  # by version
    BY_NAMES: Path(__file__).parent / "golden" / "fingerprints.json",
    BY_CONTENT: Path(__file__).parent / "golden" / "fingerprints-2.json",
}
TARGETS = ("mmlu", "openbookqa", "arc_easy", "arc_challenge", "piqa", "boolq", "humaneval")
CHANGED: dict[str, str] = {}  # recipe -> why its fingerprints are not those of 2ad03ff any more


def asked(name: str, version: int) -> list[str]:
    """Fingerprints of a recipe's first round over stand-ins of its domains, in float32."""
    recipe, _ = shipped.recipe(name)
    proxy = recipe.proxy.model_copy(update={"precision": "float32"})  # auto asks the processor
    recipe = recipe.model_copy(update={"proxy": proxy})
    names = recipe.corpus.quickstart
    domains = DomainSet(
        tuple(
            Domain(
                name,
                1_000_000 + 377_777 * i,
                3_900_000 + 1_400_000 * i,
                f"{i:064x}",
                900 + i,
                heldout=f"{i + 100:064x}" if version == BY_CONTENT else "",
            )
            for i, name in enumerate(names)
        )
    )
    tasks = {t for t in recipe.objective.get("weights", {}) if t.startswith("task/")}
    targets = [f"domain/{name}" for name in names] + sorted(tasks | {f"task/{t}" for t in TARGETS})
    start = SimpleNamespace(content="5" * 64, scores=dict.fromkeys(targets, 3.0))
    prepared = SimpleNamespace(
        domains=domains,
        targets=tuple(targets),
        scoring="5c0" * 16,
        version=version,
        start=start if recipe.proxy.start else None,
        corpus=SimpleNamespace(vocabulary=4096),
    )
    problem = preparing.pose_problem(recipe, prepared)
    specs = recipe.build_method().ask(problem, (), loop.generator(recipe.seed, 0))
    return [spec.fingerprint[:16] for spec in specs]


@pytest.mark.parametrize("version", [BY_NAMES, BY_CONTENT])
@pytest.mark.parametrize("name", [path.stem for path in shipped.PATHS])
def test_the_runs_of_shipped_recipes_keep_their_fingerprints(name, version):
    """Catches a refactoring that voids what people have trained: another draw of the design, a
    field that enters the hash at its default, another rounding of shares; and a version 1 that a
    change of version 2 moves."""
    golden = json.loads(GOLDEN[version].read_text(encoding="utf-8"))
    now, then = asked(name, version), golden[name]
    assert len(set(now)) == len(then) > 0
    if name in CHANGED:
        assert CHANGED[name] and now != then, "say why, or take it off the list"
    else:
        assert now == then


@pytest.fixture
def home(request, tmp_path, monkeypatch):
    """The inputs and the home that a commit left, and the working directory there."""
    home = old_study.unpack(tmp_path, request.param)
    monkeypatch.chdir(tmp_path)
    return Workspace(home)


def as_studied(recipe, home):
    """What the old study of a recipe goes on with: its own corpus, runs of version 1."""
    prepared = prepare_as_studied(recipe, home, latest_of_name(Store(home.store), recipe.name))
    assert prepared.version == BY_NAMES
    return prepared


OLD = pytest.mark.parametrize("home", ["2ad03ff"], indirect=True)
NEWER = pytest.mark.parametrize("home", ["404a3ce"], indirect=True)
BOTH = pytest.mark.parametrize("home", old_study.COMMITS, indirect=True)


@NEWER
def test_a_document_that_version_1_held_out_is_found_with_all_that_was_scored_on_it(home):
    """Catches a deletion that is told of no run: format 1 has one identity for both splits."""
    recipe, _ = load_recipe(Path("proxies.yaml"))
    corpus = as_studied(recipe, home).corpus
    tokenizer = Tokenizer.from_file(str(corpus.tokenizer_path))
    text = tokenizer.decode(corpus.valid("facts").document(0)[:-1].tolist())
    found = find_document(home, home.display, text.strip()[:60])
    assert ("facts", "valid", 0) in {
        (one["domain"], one["split"], one["number"]) for one in found["documents"]
    }
    assert found["scored"] and found["recommendations"]


@NEWER
@pytest.mark.parametrize("change", ["another vocabulary", "a domain less", "another name"])
def test_an_old_study_does_not_answer_for_another_text(home, change):
    """Catches an answer over a domain that the recipe has not, or has under another name."""
    recipe, _ = load_recipe(Path("proxies.yaml"))
    part, names = recipe.corpus, list(recipe.corpus.domains)
    domains = dict(part.domains)
    if change != "another vocabulary":
        gone = domains.pop(names[-1])
        domains |= {"renamed": gone} if change == "another name" else {}
    vocabulary = 1024 if change == "another vocabulary" else part.vocabulary
    asked = part.model_copy(update={"domains": domains, "vocabulary": vocabulary})
    other = recipe.model_copy(update={"corpus": asked}).located(recipe.folder)
    study = latest_of_name(Store(home.store), recipe.name)
    prepared = prepare_as_studied(other, home, study)
    assert prepared.version == BY_CONTENT
    assert set(prepared.domains.names) == set(domains)


@BOTH
def test_trained_results_are_found_again(home, request):
    """Catches another identity of the same text, another hash of what is scored, and a record that
    can no longer be read: each would train everything anew without a word."""
    recipe, text = load_recipe(Path("proxies.yaml"))
    prepared = as_studied(recipe, home)
    problem, store = preparing.pose_problem(recipe, prepared), Store(home.store)
    specs = recipe.build_method().ask(problem, (), loop.generator(recipe.seed, 0))
    assert len(specs) == 12
    assert all(isinstance(store.get(spec.fingerprint), RunResult) for spec in specs)
    trained = {"2ad03ff": 20, "404a3ce": 28}[request.node.callspec.params["home"]]
    assert store.damaged == [] and len(tuple(store.outcomes())) == trained
    before = json.loads(Path("home/studies/proxies/recommendation.json").read_text())
    folder = refit(recipe, text, home)
    after = json.loads((folder / "recommendation.json").read_text())
    assert after["evidence"] == before["evidence"]
    shares = after["stages"][0]["weights"]  # by better laws, but of the same runs
    for share, (low, high) in zip(shares, before["intervals"], strict=True):
        assert low <= share <= high


@BOTH
def test_the_record_is_gone_on_with(home):
    """Catches a parameter that is worded anew and makes the study another one: its next run would
    write all of it into the record a second time, thousands of children on a server."""
    recipe, text = load_recipe(Path("proxies.yaml"))
    prepared = as_studied(recipe, home)
    params = study_params(text, preparing.pose_problem(recipe, prepared), recipe.seed)
    found = open_backend(home.record).find_runs(
        cuvee_tags({"study": study_key(recipe.name, params)})
    )
    assert len(found) == 1 and params["objective"].startswith("{name: mean")


@BOTH
def test_tables_give_the_same_answer(home):
    """Catches a reader of tables, or a law, that answers otherwise than before."""
    recipe, text = load_recipe(Path("tables.yaml"))
    before = json.loads(Path("home/studies/tables/fit/summary.json").read_text())
    folder = refit(recipe, text, home)
    after = json.loads((folder / "summary.json").read_text())
    assert after["weights"] == pytest.approx(before["weights"], abs=0.01)
    assert after["rank_correlation"] == pytest.approx(before["rank_correlation"], abs=0.02)


@OLD
def test_approvals_of_2ad03ff_are_refused_with_the_way_to_approve_anew(home):
    """Catches an approval that was bound to nothing and lets another recommendation out, and a code
    that nobody knows, taken for ours. Of tables, `test_approvals` says the same."""
    recipe, text = load_recipe(Path("proxies.yaml"))
    with pytest.raises(ApprovalError, match="ada did with an older version.*`cuvee approve` it"):
        handoff.export(recipe, home, form="json")
    with pytest.raises(ApprovalError, match="the code .* has changed.*again with `cuvee run`"):
        handoff.approve(recipe, home, by="grace")
    refit(recipe, text, home)
    handoff.approve(recipe, home, by="grace")
    assert handoff.export(recipe, home, form="json")[1]["status"] == "approved"


@pytest.fixture
def first_maths(monkeypatch):
    """The version of the mathematics that 404a3ce had, whose answers its studies rest on."""
    monkeypatch.setattr(provenance, "MATHS_VERSION", 1)


@NEWER
@pytest.mark.parametrize("name", ["proxies", "tables"])
def test_approvals_of_404a3ce_stand(home, name, request):
    """Catches another identity of a card, a purpose that is read otherwise, and code that counts as
    changed since: each would void what people approved, for a refactoring. What is approved anew
    must be of today's mathematics."""
    recipe, _ = load_recipe(Path(f"{name}.yaml"))
    _, manifest = handoff.export(recipe, home, form="json", to="again")
    assert (manifest["status"], manifest["approval"]["by"]) == ("approved", "ada")
    with pytest.raises(ApprovalError, match="the code that fits and recommends has changed"):
        handoff.approve(recipe, home, by="grace")
    request.getfixturevalue("first_maths")
    card, approval = handoff.approve(recipe, home, by="grace")
    assert approval.by == "ada" and card.code == provenance.code_version()
    assert handoff.verify("home/out", home)["approval"]["by"] == "ada"


@NEWER
def test_a_study_of_404a3ce_is_gone_on_with(home, first_maths):
    """Catches a change of code where there is none, which would sweep anew every week, a finished
    study that cannot be read, and a fit that is not found in the store and is done again."""
    recipe, _ = load_recipe(Path("larger.yaml"))
    past = finished_study(recipe, home)
    prepared = as_studied(recipe, home)
    store = Store(home.store)
    now = present_state(load_recipe(Path("proxies.yaml"))[0], home, prepared)
    assert changes_since(latest_complete(store, "proxies"), now) == () == validity(past, now, store)
    problem = preparing.pose_problem(recipe, prepared)
    study = confirm_larger.read_back(recipe, past, prepared, store)
    assert study.confirmation is not None and study.recommendation == past.answer
    method = RememberingMethod(recipe.build_method(), store, None, home)
    rng = loop.generator(recipe.seed, len(study.history))
    assert method.recommend(problem, study.history, rng) == past.answer
    assert store.damaged == []


@NEWER
def test_the_complete_study_of_404a3ce_outlives_one_that_was_stopped(home):
    """Catches a pointer that is replaced by a study which trained less than it asked for, after
    which a schedule finds nothing to go on from, or another answer beside the old data."""
    store = Store(home.store)
    before = latest_complete(store, "proxies")
    stopped = replace(before, snapshot=None, recipe="0" * 64, fingerprint="1" * 64)
    finished.save_finished(store, stopped)
    assert latest_complete(store, "proxies") == before


def kept(home: Workspace) -> dict[str, bytes]:
    """What is evidence of a home, byte by byte, and what was said of it."""
    names = ("store/runs", "store/approvals", "store/latest", "studies", "out")
    files = (file for name in names for file in (home.root / name).rglob("*.json"))
    return {str(file.relative_to(home.root)): file.read_bytes() for file in files}


@NEWER
def test_the_home_of_404a3ce_is_looked_through_and_cleaned(home):
    """Catches a doctor that takes records of an earlier commit for broken ones, and a cleaning that
    takes what it does not know by name for what can be made again."""
    before = kept(home)
    assert len(before) > 30
    done = inside("doctor", "--store", home=home.root, folder=home.root.parent)
    assert done.returncode == 0 and "45 records" in done.stdout
    assert "nothing speaks against it" in done.stdout
    done = inside("clean", "--yes", home=home.root, folder=home.root.parent)
    assert done.returncode == 0 and kept(home) == before


@NEWER
@pytest.mark.slow  # starts an API of Prefect
def test_what_404a3ce_approved_is_handed_off(home):
    """Catches an approval that is not found by the name of the recipe, once a handoff is added to
    it, and shares that are written otherwise than 404a3ce exported them."""
    given = "{format: json, to: handed}"
    Path("handed.yaml").write_text(f"{old_study.TABLES}handoff: {given}\n", encoding="utf-8")
    done = inside("handoff", "handed.yaml", home=home.root, folder=home.root.parent)
    assert done.returncode == 0, done.stderr
    manifest = json.loads(Path("handed/manifest.json").read_text(encoding="utf-8"))
    assert (manifest["status"], manifest["approval"]["by"]) == ("approved", "ada")
    assert Path("handed/mixture.json").read_bytes() == Path("home/out/mixture.json").read_bytes()


@NEWER
@pytest.mark.slow
def test_a_study_of_404a3ce_is_run_anew_beside_its_own_runs(home):
    """Catches a `cuvee run` that counts runs of version 1 as those of version 2, says nothing of
    them, or touches what they left in the store."""
    before = kept(home)
    done = inside("run", "proxies.yaml", home=home.root, folder=home.root.parent)
    assert done.returncode == 0, done.stderr
    after = kept(home)
    runs = {name for name in before if name.startswith("store/runs")}
    assert all(after[name] == before[name] for name in runs)
    fresh = {name for name in after if name.startswith("store/runs")} - runs
    summary = json.loads(after["studies/proxies/summary.json"])
    assert summary["trained_now"] == len(fresh) == 20
    assert summary["reused"] == 0
    said = " ".join((done.stdout + done.stderr).split())
    assert re.search(r"\d+ earlier runs do not count: they are of version 1", said), said


@NEWER
@pytest.mark.slow
def test_the_answer_of_404a3ce_is_trained_as_a_checkpoint(home):
    """Catches a recommendation of an earlier commit that `cuvee checkpoint` cannot find, and one
    that it trains on other shares: natural shares give other weights."""
    made = {}
    for mixture in ("recommended", "natural"):
        words = ("checkpoint", "proxies.yaml", "--mixture", mixture, "--to", mixture)
        done = inside(*words, home=home.root, folder=home.root.parent)
        assert done.returncode == 0, done.stderr
        assert f"41,000 tokens of the {mixture} mixture" in done.stdout
        made[mixture] = load_file(f"{mixture}/model.safetensors")
    one, other = made.values()
    assert one.keys() == other.keys()
    assert any((one[name] != other[name]).any() for name in one)


if __name__ == "__main__":  # how the golden file was made
    found = {path.stem: asked(path.stem) for path in shipped.PATHS}
    GOLDEN.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
