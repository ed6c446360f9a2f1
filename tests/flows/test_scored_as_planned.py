"""What a proxy is scored on is what its fingerprint says, and the doctor finds where it was not."""

import dataclasses
import hashlib
import json
import os
from pathlib import Path

import pytest
import tiny_study
from command import inside

from cuvee.evaluation import benchmarks, suites
from cuvee.evaluation.suites import scoring_identity
from cuvee.flows.recipe.load import parse
from cuvee.flows.study.prepare import pose_problem, prepare
from cuvee.flows.upkeep.doctor import examine
from cuvee.flows.workspace import Workspace
from cuvee.mixtures.errors import DataError, RecipeError
from cuvee.mixtures.runs.run_results import RunResult, Score
from cuvee.mixtures.runs.run_spec import RunSpec, Stage, canonical_json
from cuvee.tasks.pack_job import PackJob
from cuvee.tasks.store.doctor import SCORINGS
from cuvee.tasks.store.results import Store
from cuvee.tasks.train_pack import run_pack, untrained_scores


def questions(path: Path, words: str) -> Path:
    rows = [{"query": f"{words} {i}", "choices": [" a", " b"], "gold": i % 2} for i in range(6)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def studied(tmp_path_factory):
    """A home with a prepared corpus and a benchmark `qa`, and a pack that is scored on it."""
    folder = tmp_path_factory.mktemp("scored")
    tiny_study.write_corpus(folder / "corpus")
    path = questions(folder / "qa.jsonl", "one")
    text = tiny_study.recipe(
        folder / "corpus",
        proxy="{size: 0.3M, tokens: 41000}",
        evaluation=f"{{suite: null, heldout_tokens: 2048, custom: {{qa: {path}}}}}",
    )
    home = Workspace(folder / "home")
    prepared = prepare(parse(text), home)
    spec = pose_problem(parse(text), prepared).spec((0.2, 0.3, 0.5), 1)
    job = PackJob((spec,), str(prepared.corpus.root), prepared.suite, "", limits=prepared.limits)
    return home, prepared, job, text


def test_questions_that_change_while_a_pack_trains_are_refused(studied):
    """Catches a worker that scores whatever lies in its file now, under the plan's fingerprint."""
    _, prepared, job, _ = studied
    path = prepared.suite.file("qa")
    before = path.read_bytes()
    try:
        with pytest.raises(DataError, match="Nothing was kept"):
            run_pack(job, lambda _: questions(path, "two") and None)
        with pytest.raises(DataError, match="Nothing was kept"):
            untrained_scores(job)
    finally:
        path.write_bytes(before)
    assert isinstance(run_pack(job, lambda _: None)[0], RunResult)


def test_two_studies_may_call_different_questions_by_one_name(studied, tmp_path):
    """Catches a file named by the benchmark alone, which the study that is planned last replaces:
    the results of the one that trains then hold the other's questions."""
    home, prepared, job, text = studied
    path, before = prepared.suite.file("qa"), prepared.suite.file("qa").read_bytes()
    other = questions(tmp_path / "qa.jsonl", "other")
    again = prepare(parse(text.replace(str(path_of(text)), str(other))), home)
    assert again.scoring != prepared.scoring
    assert path.read_bytes() == before
    assert prepared.scoring == job.specs[0].scoring


def path_of(text: str) -> str:
    return text.split("custom: {qa: ")[1].split("}", maxsplit=1)[0]


def test_a_users_benchmark_shadows_no_task(tmp_path):
    """Catches a task that is found by the name of a file: another study's `arc_easy` would be
    asked in place of lm-eval's, and a path would be read wherever it leads."""
    mine = questions(tmp_path / "mine.jsonl", "mine")
    adopted = benchmarks.adopt_benchmark(mine, tmp_path / "b", "arc_easy")
    assert suites.suite(["arc_easy"], tmp_path / "b").file("arc_easy") is None
    assert suites.suite([], tmp_path / "b", own={"arc_easy": adopted}).file("arc_easy") == adopted
    with pytest.raises(RecipeError, match="give yours another name"):
        suites.suite(["arc_easy"], tmp_path / "b", own={"arc_easy": adopted})
    for name in ("../../data/qa", str(mine).removesuffix(".jsonl"), "..\\qa", ".qa"):
        with pytest.raises(RecipeError, match="is a path"):
            suites.suite([name], tmp_path / "b")
    for name in ("quickstart", "offline", "piqa_offline"):
        with pytest.raises(DataError, match="cannot name a benchmark"):
            benchmarks.adopt_benchmark(mine, tmp_path / "b", name)


SUITE = [1, None, {"qa": "questions"}]
OTHER = [1, None, {"qa": "other questions"}]


def run(suite: list, qa: float, code: float = 2.0, n: int = 6, seed: int = 1) -> RunResult:
    spec = RunSpec(
        ("code", "law"), ("c", "l"), (Stage((0.5, 0.5)),), "0.3M", 41000, seed,
        scoring_identity(suite, "limits"),
    )  # fmt: skip
    return RunResult(spec, {"task/qa": Score(qa, 0.1, n), "domain/code": Score(code, 0.1, 9)})


def store(folder: Path, *runs: RunResult, known=(SUITE, OTHER)) -> str:
    made = Store(str(folder))
    for suite in known:
        made.remember(SCORINGS, scoring_identity(suite, "limits"), [suite, "limits", 0])
    for one in runs:
        made.put(one)
    return made.url


def test_the_doctor_finds_nothing_in_a_sound_store(tmp_path):
    """Catches a doctor that accuses rounding, other seeds, or other questions' other answers."""
    ours = store(tmp_path / "a", run(SUITE, 4.0), run(OTHER, 6.0), run(SUITE, 4.1, seed=2))
    theirs = store(tmp_path / "b", run(SUITE, 4.001))
    problems, said = examine(Workspace(tmp_path / "home"), [ours, theirs])
    assert problems == []
    assert said.startswith("10 records")  # with the number of each store's format


def test_the_doctor_allows_equal_scores_of_what_may_be_the_same_questions(tmp_path):
    """Catches a doctor that takes another version of lm-eval, a limit above the questions that
    there are, or more held-out tokens than there are for other questions."""
    made = Store(str(tmp_path / "a"))
    for limit, version, text in ((None, "0.4.9", "x"), (1000, "0.4.9", "x"), (None, "0.4.10", "y")):
        content = [[1, limit, {"qa": "questions", "boolq": version}], text, 0]
        made.remember(SCORINGS, scoring_identity(*content), content)
        one = run(SUITE, 4.0)
        spec = dataclasses.replace(one.spec, scoring=scoring_identity(*content))
        made.put(RunResult(spec, {**one.scores, "task/boolq": Score(1.5, 0.1, 9)}))
    assert examine(Workspace(tmp_path / "home"), [made.url])[0] == []


def test_the_doctor_makes_nothing(studied, tmp_path):
    """Catches a home made for a typo, a folder closed to others, leftovers ended, and a user's
    benchmark copied into the home, all by a command that says that it changes nothing."""
    text = studied[3]
    home = tmp_path / "home"
    store(home / "store", run(SUITE, 4.0))
    (home / "studies" / "tiny").mkdir(parents=True)
    (home / "studies" / "tiny" / "recipe.yaml").write_text(text)
    home.chmod(0o755)
    before = sorted(tmp_path.rglob("*")), home.stat().st_mode
    for place, code in ((home, 0), (tmp_path / "typo", 2)):
        found = inside("doctor", "--store", home=place)
        assert found.returncode == code, found.stderr
    assert (sorted(tmp_path.rglob("*")), home.stat().st_mode) == before
    asked = RunResult(studied[2].specs[0], {"task/qa": Score(4.0, 0.1, 6)})
    assert examine(Workspace(home), [store(tmp_path / "b", asked, known=())])[0] == []


@pytest.mark.parametrize(
    ("runs", "beside", "known", "why"),
    [
        ([run(SUITE, 4.0)], [run(SUITE, 6.0)], (SUITE,), "both were asked the same"),
        ([run(SUITE, 4.0), run(OTHER, 4.0)], [], (SUITE, OTHER), "asked different things"),
        ([run(SUITE, 4.0), run(OTHER, 6.0, 3.0)], [], (SUITE, OTHER), "domain/code 3 in run"),
        ([run(SUITE, 4.0)], [], (), "no benchmark known here"),
        (
            [run(SUITE, 4.0), run(SUITE, 4.0, seed=2), run(SUITE, 4.0, n=5, seed=3)],
            [], (SUITE,), "1 of 3 runs",
        ),
    ],
    ids=["another store", "same answers", "held-out text", "unknown", "fewer questions"],
)  # fmt: skip
def test_the_doctor_names_runs_that_were_scored_otherwise(tmp_path, runs, beside, known, why):
    """Catches a doctor that checks seals alone: what an older version stored under a false
    fingerprint is sealed as well as anything."""
    urls = [store(tmp_path / "a", *runs, known=known)]
    urls += [store(tmp_path / "b", *beside, known=known)] if beside else []
    (problem_found,), _ = examine(Workspace(tmp_path / "home"), urls)
    assert why in problem_found


def test_the_doctor_names_damage_and_touches_nothing(tmp_path):
    """Catches a doctor that moves what it finds, as reading a store does, one that does not compute
    the fingerprint of a sealed record anew, and an exit code that says nothing."""
    home = tmp_path / "home"
    whole, moved, damaged = (run(SUITE, 4.0, seed=seed) for seed in (1, 2, 3))
    url = store(home / "store", whole, moved, damaged)
    folder = Path(url) / "runs"
    broken = folder / damaged.spec.fingerprint / "result.json"
    broken.write_bytes(broken.read_bytes().replace(b"4.0", b"3.0"))
    os.rename(folder / moved.spec.fingerprint, folder / ("0" * 64))
    kept = Path(url) / SCORINGS / f"{scoring_identity(OTHER, 'limits')}.json"
    false = dataclasses.asdict(whole.spec)["scoring"]
    os.rename(kept, kept.with_name(f"{false[::-1]}.json"))
    before = {p: p.read_bytes() for p in Path(url).rglob("*") if p.is_file()}
    found = inside("doctor", "--store", home=home)
    assert found.returncode == 1, found.stderr
    assert found.stdout.count("result.json: ") == 2
    assert "checksum does not match" in found.stdout
    assert "not what its name is the hash of" in found.stdout
    assert {p: p.read_bytes() for p in Path(url).rglob("*") if p.is_file()} == before


def test_the_hash_of_scoring_is_the_one_that_stores_hold(studied):
    """Catches a refactoring that changes it, which would leave every result unused."""
    _, prepared, _, _ = studied
    suite, limits, points = prepared.scored
    assert points == 0
    inner = hashlib.sha256(canonical_json(suite).encode()).hexdigest()
    assert prepared.scoring == hashlib.sha256(canonical_json([inner, limits]).encode()).hexdigest()
    assert list(suite[2]) == ["qa"]


def test_a_worker_reads_text_under_the_names_of_the_run(studied):
    """Catches a worker that takes a domain's text from a corpus by the name that it was prepared
    under, where the recipe has exchanged two names since: another mixture is trained and scored."""
    home, prepared, job, text = studied
    swap = {"code": "prose", "prose": "code"}
    lines = [line for line in text.splitlines() if ".jsonl, " in line or line.endswith(".jsonl}")]
    other = text
    for line in lines:
        name = line.split(":")[0].strip()
        other = other.replace(line, line.replace(f"{name}:", f"{swap.get(name, name)}:"))
    assert other != text
    again = prepare(parse(other), home)
    assert again.corpus.root == prepared.corpus.root
    before = dict(zip(prepared.domains.names, job.specs[0].weights, strict=True))
    shares = [before[swap.get(name, name)] for name in again.domains.names]
    spec = pose_problem(parse(other), again).spec(shares, 1)
    assert spec.fingerprint == job.specs[0].fingerprint and spec != job.specs[0]
    (first,) = run_pack(job, lambda _: None)
    (second,) = run_pack(dataclasses.replace(job, specs=(spec,)), lambda _: None)
    assert second.curve == first.curve and second.scores == first.seen_as(spec).scores
    assert second.scores["domain/code"] == first.scores["domain/prose"]
    assert second.tokens == first.seen_as(spec).tokens
