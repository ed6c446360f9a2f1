"""`cuvee clean` removes what can be made again, by age, and nothing that is in use or evidence."""

import json
import os
import subprocess
import sys
import time

import pytest
import tiny_study
from command import inside

from cuvee.flows.execution.inline_executor import InlineExecutor
from cuvee.flows.recipe.load import parse
from cuvee.flows.study import prepare as preparing
from cuvee.flows.upkeep.clean import KINDS, age_seconds, clean
from cuvee.flows.upkeep.doctor import examine
from cuvee.flows.upkeep.machine import examine_machine
from cuvee.flows.workspace import Workspace
from cuvee.mixtures.errors import RecipeError, ServiceError, StorageError, UnknownName
from cuvee.proxies.data import node_cache
from cuvee.proxies.data.node_cache import NodeCache
from cuvee.proxies.data.objects import ObjectFolder
from cuvee.proxies.data.prepared_corpus import Corpus
from cuvee.tasks.store.results import Store
from cuvee.tasks.store.shared_inputs import publish_prepared_corpus

DAY = 86_400
FILES = {
    "corpora/aa/train.bin": 40, "corpora/bb/train.bin": 1, "corpora/.cc.partial/x": 40,
    "corpora/.aa.lock": 40, "checkpoints/pack-1/state": 40, "checkpoints/starts/s/m": 1,
    "archives/a.whl": 40, "benchmarks/q.jsonl": 40, "prefect/prefect.db": 40,
    "ray/session_1/log": 40, "logs/cuvee.log": 40,
    "store/runs/f/result.json": 40, "store/runs/f/result.json.1.draft": 40, "store/sweeps/dead": 40,
    "store/approvals/a.json": 40, "mlflow/mlflow.db": 40, "studies/s/report.md": 40,
    "trainings/f/result.json": 40,
}  # fmt: skip
EVIDENCE = {
    "store/runs/f/result.json", "store/approvals/a.json", "mlflow/mlflow.db", "studies/s/report.md",
    "trainings/f/result.json",
}  # fmt: skip


@pytest.fixture
def home(tmp_path):
    for name, days in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x" * 5000)
        when = time.time() - days * DAY
        os.utime(path, (when, when))
    for folder in sorted((p for p in tmp_path.rglob("*") if p.is_dir()), reverse=True):
        newest = max(p.stat().st_mtime for p in folder.iterdir())
        os.utime(folder, (newest, newest))
    return Workspace(tmp_path)


def left(home):
    paths = (p for p in home.root.rglob("*") if p.is_file() and p.name != ".in-use")
    return {str(p.relative_to(home.root)) for p in paths}


def test_nothing_goes_unless_it_is_told_to(home):
    """Catches a first look that removes."""
    table, said, _ = clean(home, [], older="", remove=False)
    assert left(home) == set(FILES)
    assert said.startswith("12 items, ") and "nothing was removed" in said
    assert table.row_count == len(KINDS) - 3  # nothing from the Hub, no digests, no copies


def test_nothing_to_remove_is_not_removed(tmp_path):
    """Catches an empty home that was "removed", and advice to give the option that was given."""
    for words, kept in ((["--yes"], "empty"), ([], "empty"), (["--yes", "digests"], "full")):
        folder = tmp_path / kept
        if kept == "full":
            (folder / "corpora" / "aa").mkdir(parents=True)
        done = inside("clean", *words, "--json", home=folder)
        answer = json.loads(done.stdout)
        assert not answer["removed"] and answer["said"] == "nothing to remove"
    answer = json.loads(inside("clean", "--yes", "--json", home=folder).stdout)
    assert answer["removed"] and answer["said"].startswith("1 items, ")
    assert not (folder / "corpora" / "aa").exists()


def test_evidence_goes_by_name_alone(home):
    """Catches results, approvals or the record taken for what can be made again."""
    clean(home, [], older="", remove=True)
    assert left(home) == EVIDENCE | {"corpora/.aa.lock"}
    clean(home, ["record"], older="", remove=True)
    assert left(home) == EVIDENCE - {"mlflow/mlflow.db"} | {"corpora/.aa.lock"}


def test_only_what_is_older_goes(home):
    """Catches an age of a folder that is not that of what was used last in it."""
    clean(home, ["corpora", "checkpoints"], older="30d", remove=True)
    gone = {"corpora/aa/train.bin", "corpora/.cc.partial/x", "checkpoints/pack-1/state"}
    assert left(home) == set(FILES) - gone


@pytest.mark.parametrize(("age", "wanted"), [("12h", 43_200), ("30d", 30 * DAY), ("2w", 14 * DAY)])
def test_ages_are_read(age, wanted):
    """Catches days taken for hours."""
    assert age_seconds(age) == wanted


@pytest.mark.parametrize("age", ["30", "d", "-1d", "1.5d", "30 months"])
def test_what_is_no_age_is_refused(age, home):
    """Catches a limit that is silently not there."""
    with pytest.raises(RecipeError, match="--older"):
        clean(home, [], older=age, remove=True)
    with pytest.raises(UnknownName, match="did you mean 'corpora'"):
        clean(home, ["corpus"], older="", remove=True)
    assert left(home) == set(FILES)


USER = """
import sys, time
from pathlib import Path
from cuvee.flows.workspace import open_workspace
open_workspace(Path(sys.argv[1])); print("in use", flush=True); time.sleep(60)
"""


def test_a_home_in_use_is_left_alone(home):
    """Catches a corpus removed under a run that trains on it, here or on another machine."""
    command = [sys.executable, "-c", USER, str(home.root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as user:
        assert user.stdout.readline() == "in use\n"
        with pytest.raises(ServiceError, match="a command uses"):
            clean(home, [], older="", remove=True)
        user.kill()
    (home.root / "store/sweeps/alive").write_text("3")
    with pytest.raises(ServiceError, match="a sweep wrote to the store"):
        clean(home, [], older="", remove=True)
    assert left(home) == set(FILES) | {"store/sweeps/alive"}
    (home.root / "store/sweeps/alive").unlink()
    clean(home, [], older="", remove=True)
    assert left(home) == EVIDENCE | {"corpora/.aa.lock"}


def test_a_sweep_into_a_store_elsewhere_keeps_the_home(home, tmp_path_factory, monkeypatch):
    """Catches heartbeats looked for in the home alone, where CUVEE_STORE names another folder."""
    store = tmp_path_factory.mktemp("store")
    (store / "sweeps").mkdir()
    (store / "sweeps" / "alive").write_text("3")
    for url in (str(store), f"file://{store}"):
        monkeypatch.setenv("CUVEE_STORE", url)
        with pytest.raises(ServiceError, match="a sweep wrote to the store"):
            clean(home, [], older="", remove=True)
    assert left(home) == set(FILES)


def test_a_link_is_removed_and_not_what_it_leads_to(home, tmp_path_factory):
    """Catches text elsewhere removed because a home links to it."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "mine").write_text("x")
    (home.root / "corpora" / "linked").symlink_to(elsewhere, target_is_directory=True)
    clean(home, ["corpora"], older="", remove=True)
    assert (elsewhere / "mine").exists() and not (home.root / "corpora" / "linked").is_symlink()


@pytest.mark.parametrize("remote", [False, True])
def test_what_sweeps_left_in_a_store_elsewhere_goes_by_name(
    home, tmp_path_factory, monkeypatch, remote
):
    """Catches records of killed sweeps that stay in a shared store for ever, a store cleaned of
    what others left because a home was, and a result that goes with them."""
    folder = tmp_path_factory.mktemp("store")
    url = f"memory:/{folder}" if remote else str(folder)
    store = ObjectFolder(url)
    for name in ("sweeps/dead", "progress/dead", "runs/f/result.json"):
        store.replace(name, b"{}")
        if not remote:
            os.utime(folder / name, (0, time.time() - DAY))
    if remote:
        monkeypatch.setattr("cuvee.flows.upkeep.clean.BEATING", -1.0)  # whose times cannot be set
    monkeypatch.setenv("CUVEE_STORE", url)
    clean(home, [], older="", remove=True)
    assert len(store.all_names()) == 3
    _, said, _ = clean(home, ["sweeps"], older="", remove=False)
    assert said.startswith("2 items, ") and len(store.all_names()) == 3
    clean(home, ["sweeps"], older="", remove=True)
    assert store.all_names() == ["runs/f/result.json"]


def test_upkeep_knows_a_remote_store_and_what_a_node_keeps_of_it(
    recommended, s3, tmp_path, monkeypatch
):
    """Catches corpora that are taken for damaged records, that nothing ever removes, a look at a
    home that removes what other homes have in the store, and removal under a preparation there."""
    monkeypatch.setenv("CUVEE_STORE", f"{s3}/team")
    monkeypatch.setenv("CUVEE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(node_cache, "_in_use", {})
    home, corpora = Workspace(tmp_path / "home"), recommended / "home" / "corpora"
    home.root.mkdir()
    place = Store(home.store)
    place.remember("things", "one", 1)
    here = Corpus.open(next(path for path in corpora.iterdir() if path.is_dir()), verify=False)
    url = publish_prepared_corpus(here, home.shared)
    Corpus.open(url)
    assert examine(home, [])[0] == []
    assert "and 1 corpora of" in examine(home, [])[1]
    states = {one.subject: one for one in examine_machine(home)}
    assert states["cache"].said.startswith("1 copies of what lies in the store")
    assert [row["kind"] for row in clean(home, [], older="", remove=False)[2]] == ["cache"]
    with pytest.raises(StorageError, match="1 of 1 items.*could not be removed"):
        clean(home, ["cache"], older="", remove=True)  # this process uses it
    for lock in node_cache._in_use.values():
        lock.close()
    clean(home, [], older="", remove=True)
    assert not NodeCache.of_environment().copies() and place.objects.names("corpora")
    monkeypatch.setattr(preparing, "LITTLE_TEXT", 0)
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")  # of workers that are not asked for anything
    recipe = parse(tiny_study.recipe(tmp_path))
    with preparing.preparation_workers(recipe, home, {}, InlineExecutor("cpu")):
        with pytest.raises(ServiceError, match="less than 10 minutes ago"):
            clean(Workspace(tmp_path / "other"), ["corpora"], older="", remove=True)
        assert place.objects.names("corpora")
    ObjectFolder(url).remove("tokenizer.json")
    assert "1 of " in examine(home, [])[0][0] and "tokenizer.json" in examine(home, [])[0][0]
    clean(home, ["corpora"], older="", remove=True)
    assert not place.objects.names("corpora") and place.recall("things", "one") == 1
