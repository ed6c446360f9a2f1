"""What every command has: options, exit codes, one JSON object, a log, help with an example."""

import json
import logging
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import recommended_study
import tiny_study
from command import inside
from typer.main import get_command
from typer.testing import CliRunner

from cuvee.evaluation.suites import SUITES
from cuvee.flows.cli import log_file
from cuvee.flows.cli import main as program
from cuvee.flows.cli.app import Session, print_answer
from cuvee.flows.console import Display
from cuvee.flows.recipe.load import apply_changes, load_recipe, parse, recipe_changes
from cuvee.flows.study.corpus_figures import find_document
from cuvee.flows.workspace import Workspace
from cuvee.mixtures import registry
from cuvee.mixtures.errors import CuveeError, RecipeError, TrainingError
from cuvee.proxies.data import objects
from cuvee.proxies.data.prepared_corpus import Corpus
from cuvee.proxies.ladder import LADDER
from cuvee.tasks.escape import without_secrets
from cuvee.tasks.export import format_names
from cuvee.tasks.store.results import Store
from cuvee.tasks.store.shared_inputs import publish_prepared_corpus

pytestmark = pytest.mark.usefixtures("quick_pictures_everywhere")
COMMANDS = get_command(program.app).commands


@pytest.fixture(scope="module")
def study(shared) -> tuple[Path, Path]:
    """A recommended study: its recipe and its home."""

    def fill(folder: Path) -> None:
        recommended_study.make(folder / "corpus", Workspace(folder / "home"))
        text = recommended_study.text(folder / "corpus")
        (folder / "study.yaml").write_text(text, encoding="utf-8")

    folder = shared("study-of-options", fill)
    return folder / "study.yaml", folder / "home"


def answer_of(*words: str, home: Path) -> dict:
    """The one object that a command prints with `--json`; nothing else may stand beside it."""
    done = inside(*words, "--json", home=home)
    answer = json.loads(done.stdout)
    assert answer["exit"] == done.returncode and answer["command"] == words[0]
    told = COMMANDS[words[0]].help.partition("With --json:")[2]
    if "error" not in answer:  # what a program may read is in the help, and nothing else
        assert set(answer) - {"command", "exit"} <= set(re.findall(r"`(\w+)`", told))
    return answer


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_an_example_that_can_be_typed_and_the_same_options(name):
    """Catches a command that is entered by hand, without the options of all, and an example with
    an option that the command does not have."""
    command = COMMANDS[name]
    example = command.epilog.removeprefix("Example: ")
    assert example.startswith(f"cuvee {name}"), command.epilog
    known = {option for param in command.params for option in param.opts}
    assert {"--home", "--json", "--quiet", "-q", "--verbose", "-v"} <= known
    used = re.findall(r"(?<=\s)--?[a-z][a-z-]*", re.sub(r'"[^"]*"', "", example))
    assert set(used) <= known
    assert ("--set" in known) == any(param.name == "recipe" for param in command.params)


def test_the_corpus_is_told_and_what_rests_on_a_document_is_named(study):
    """Catches runs that are named though they drew nothing of the domain, a recommendation that is
    forgotten where text must be deleted, and figures of another split."""
    recipe, home = study
    told = answer_of("corpus", str(recipe), home=home)
    sizes = {one["name"]: one["documents"] + one["heldout_documents"] for one in told["domains"]}
    assert sizes["tables"] == 150 and Path(told["corpus"]).parent == home / "corpora"
    words = "40 squared is 1600; 40 cubed is 64000.\n41 squared"
    found = answer_of("corpus", str(recipe), "--find", words, home=home)
    (place,) = found["documents"]
    assert place["domain"] == "tables" and len(found["recommendations"]) == 1
    outcomes = tuple(Store(str(home / "store")).outcomes())
    assert len(outcomes) > len(found["runs"]) or place["split"] == "train"
    drew = [
        run.spec.fingerprint
        for run in outcomes
        if any(dict(zip(run.spec.domains, stage.weights, strict=True)).get("tables", 0) > 0
               for stage in run.spec.stages)
    ]  # fmt: skip
    named = {"train": "runs", "valid": "scored"}[place["split"]]
    assert set(found[named]) == set(drew if named == "runs" else
                                    [run.spec.fingerprint for run in outcomes])  # fmt: skip
    (state,) = found["states"]
    assert state["study"] == "tiny" and state["tokenizers"] == [told["tokenizer"]]
    assert found["searched"] == [told["corpus"]]
    nothing = answer_of("corpus", str(recipe), "--find", "41 squared is 1682; 41", home=home)
    assert [nothing[key] for key in ("documents", "runs", "recommendations", "states")] == [[]] * 4


def test_a_document_is_found_in_corpora_that_other_homes_have_in_the_store(
    study, s3, tmp_path, monkeypatch, capsys
):
    """Catches a search of this home alone, a copy in the store that is not named where the home
    has the corpus too, and a corpus that cannot be read and is passed over without a word."""
    monkeypatch.setenv("CUVEE_STORE", f"{s3}/team")
    monkeypatch.setenv("CUVEE_CACHE", str(tmp_path / "cache"))
    (root,) = (path.parent for path in (study[1] / "corpora").glob("*/manifest.json"))
    url = publish_prepared_corpus(Corpus.open(root, verify=False), f"{s3}/team")
    other, words = (
        Workspace(tmp_path / "home"),
        "40 squared is 1600; 40 cubed is 64000.\n41 squared",
    )
    found = find_document(other, Display(), words)
    assert [place["corpus"] for place in found["documents"]] == found["searched"] == [url]
    assert f"Searched: 0 corpora in {other.corpora} and 1 in {s3}/team" in capsys.readouterr().out
    found = find_document(Workspace(study[1]), Display(), words)
    assert [place["corpus"] for place in found["documents"]] == [str(root), url]
    objects.ObjectFolder(url).remove("manifest.json")
    found = find_document(other, Display(), words)
    assert not found["searched"] and "manifest.json is missing" in found["not_searched"][0]
    assert f"Could not be searched: {url}" in capsys.readouterr().out


@pytest.mark.parametrize("words", [("--help",), ("plna",), ("plan", "--help"), ("--version",)])
def test_help_and_typos_are_answered_before_anything_heavy_is_imported(words):
    """Catches two seconds of imports before a typo is told."""
    code = (
        "import sys; from cuvee.flows.cli.main import app\n"
        f"try: app({list(words)!r})\n"
        "except SystemExit: pass\n"
        "print(*{'numpy', 'scipy', 'matplotlib', 'torch', 'mlflow', 'prefect'}"
        " & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == ""
    if words == ("plna",):
        assert "Did you mean 'plan'?" in done.stderr
    if words == ("--version",):
        assert re.fullmatch(r"cuvee \d+\.\d+\.\d+\S*\n", done.stdout)


def test_help_says_what_exit_codes_mean():
    """Catches a code that a script must guess."""
    for code in ("0 done.", "1 looked", "2 a mistake", "130 stopped", "`exit`"):
        assert code in program.app.info.epilog


def test_a_plan_for_programs_says_the_same_as_that_for_people(study):
    """Catches figures that are computed twice and differ, and text on stdout beside the object."""
    recipe = str(study[0])
    answer = answer_of("plan", recipe, home=study[1])
    said = inside("plan", recipe, home=study[1])
    assert said.returncode == 0 and answer["study"] == "tiny"
    runs = answer["runs"]
    assert f"Runs: {runs['design']} for the design" in said.stdout
    assert f"{answer['tokens'] / 1e6:.1f}M tokens, {answer['flops']:.2e} FLOPs" in said.stdout
    assert runs["stored"] == runs["design"] == 12 and runs["train"] == 0


@pytest.mark.slow
def test_fit_approve_and_export_say_their_results_to_programs(study, tmp_path):
    """Catches a program that must read tables for people, and paths that lead nowhere."""
    recipe, home = str(study[0]), study[1]
    fitted = answer_of("fit", recipe, home=home)
    summary = json.loads(Path(fitted["files"]["summary"]).read_text())
    assert fitted["weights"] == summary["weights"] == fitted["summary"]["weights"]
    assert all(Path(path).is_file() for path in fitted["files"].values())
    approved = answer_of("approve", recipe, "--by", "Alice", home=home)
    assert approved["by"] == "Alice" and approved["weights"] == fitted["weights"]
    assert any("no fresh run has confirmed" in one for one in approved["warnings"])
    written = answer_of("export", recipe, "--format", "json", "--to", str(tmp_path), home=home)
    assert written["manifest"]["status"] == "approved"
    assert Path(written["written"]).parent == tmp_path
    known = answer_of("export", "--verify", str(tmp_path), home=home)
    assert known["manifest"] == written["manifest"]
    taken = answer_of("approve", recipe, "--withdraw", home=home)
    assert taken["withdrawn"] == [approved["recommendation"]]
    kept = {one["kind"]: one for one in answer_of("clean", home=home)["kinds"]}
    assert kept["corpora"]["chosen"] and not kept["store"]["chosen"]
    assert kept["logs"]["bytes"] > 0


@pytest.mark.parametrize(
    ("words", "kind", "said"),
    [
        (("plan", "none.yaml"), "RecipeError", "none.yaml"),
        (("export",), "RecipeError", "RECIPE"),
        (("doctor", "--store"), "StorageError", "no store"),
        (("doctor", __file__), "StorageError", "is a file, and doctor takes stores"),
        (("review",), "ServiceError", "no record"),
        (("clean", "corpus"), "UnknownName", "did you mean 'corpora'"),
    ],
)
def test_an_error_is_an_object_too(tmp_path, words, kind, said):
    """Catches a program that asked for JSON and gets nothing, or a sentence on stdout."""
    answer = answer_of(*words, home=tmp_path / "home")
    assert (answer["kind"], answer["exit"]) == (kind, 2)
    assert said in answer["error"]


@pytest.mark.parametrize(
    ("words", "command", "said"),
    [
        (("plan", "--json"), "plan", "RECIPE"),
        (("--json",), "cuvee", "--json"),
        (("--version", "--json"), "cuvee", "--json"),
        (("plna", "--json"), "cuvee", "'plan'"),
    ],
)
def test_a_mistake_in_what_was_typed_is_an_object_too(words, command, said, monkeypatch, capsys):
    """Catches a parser's error, which comes before any command, as a box of text on stderr only,
    and an object that lacks a key which every object has."""
    monkeypatch.setattr(sys, "argv", ["cuvee", *words])
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    with pytest.raises(SystemExit) as ended:
        program.main()
    out, err = capsys.readouterr()
    answer = json.loads(out)
    assert ended.value.code == answer["exit"] == 2 and answer["kind"] == "UsageError"
    assert answer["command"] == command and said in answer["error"]
    assert err.startswith("cuvee: error: ")


STOPS = {  # where Ctrl-C falls, by the module that is imported then -> what is said
    "cuvee.flows.cli": "stopped before anything",
    "cuvee.flows.cli.study_commands": "stopped before anything",
    "cuvee.flows.console": "stopped before anything",
    "cuvee.flows.upkeep.status": "stopped. Finished proxies",
}
INTERRUPTED = """
import signal, sys
class Stop:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            sys.meta_path.remove(self)
            try:
                signal.raise_signal({number})
            except KeyboardInterrupt:
                if {swallowed}:
                    raise ImportError("as NumPy does") from None
                raise
sys.meta_path.insert(0, Stop())
sys.argv = ["cuvee", "status", "--json", "--home", {home!r}]
from cuvee.flows.__main__ import main
main()
"""


@pytest.mark.parametrize(("module", "said"), STOPS.items())
def test_an_early_stop_is_an_object_too(module, said, tmp_path):
    """Catches a Ctrl-C during imports that ends in a traceback, in a code that is not 130, or
    without a word; and one that an import takes for an error of its own."""
    number = signal.SIGTERM if module.endswith("cli") else signal.SIGINT
    code = INTERRUPTED.format(
        module=module,
        number=int(number),
        swallowed="before" in said,
        home=str(tmp_path / "home"),
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    answer = json.loads(done.stdout)
    assert done.returncode == answer["exit"] == 130, done.stderr
    assert (answer["command"], answer["kind"]) == ("status", "Interrupted")
    assert said in answer["error"] and said in done.stderr and "Traceback" not in done.stderr


def test_quiet_says_errors_alone(study, tmp_path):
    """Catches a quiet command that still prints, or that hides why it failed."""
    recipe, home = str(study[0]), study[1]
    done = inside("plan", recipe, "-q", home=home)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    failed = inside("plan", str(tmp_path / "none.yaml"), "-q", home=home)
    assert failed.returncode == 2 and "none.yaml" in failed.stderr and failed.stdout == ""


def test_the_log_holds_what_was_said_and_verbose_shows_lines_with_times(study):
    """Catches a log without times or command, and lines that a person reads twice."""
    recipe, home = str(study[0]), study[1]
    done = inside("plan", recipe, "-v", home=home)
    lines = (home / "logs" / "cuvee.log").read_text().splitlines()
    timed = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (\d+ )?[A-Z]+ ")
    assert all(timed.match(line) for line in lines)
    assert any("Study tiny: 3 domains" in line for line in lines)
    assert any(re.search(r"end with 0 after \d", line) for line in lines)
    assert re.search(r"INFO Corpus: begun", done.stderr) and timed.match(done.stderr)
    assert "Study tiny" in done.stdout and "Study tiny" not in done.stderr


def test_a_failure_that_puzzles_names_the_log_and_one_that_does_not_keeps_short(study, monkeypatch):
    """Catches a failed training of which nothing more is to be found than a sentence."""
    from cuvee.flows import plan

    def fail(*_: object) -> None:
        raise TrainingError("7 of 9 failed")

    monkeypatch.setattr(plan, "print_plan", fail)
    recipe, home = str(study[0]), study[1]
    done, log = inside("plan", recipe, home=home), home / "logs" / "cuvee.log"
    assert done.stderr == f"cuvee: error: 7 of 9 failed (log: {log})\n"
    assert "Traceback" in log.read_text() and "in fail" in log.read_text()


def test_a_fault_of_our_own_is_a_traceback_exit_1_and_an_object(study, monkeypatch):
    """Catches a bug that a script takes for success, or that leaves no trace in the log."""
    from cuvee.flows import plan

    monkeypatch.setattr(plan, "print_plan", lambda *_: 1 / 0)
    done = inside("plan", str(study[0]), "--json", home=study[1])
    assert done.returncode == 1 and json.loads(done.stdout)["kind"] == "ZeroDivisionError"
    assert "Traceback" in done.stderr and str(study[1] / "logs") in done.stderr


def test_no_secret_reaches_the_log(tmp_path, monkeypatch):
    """Catches passwords and queries of addresses, the link of `cuvee review`, and variables."""
    monkeypatch.setenv("CUVEE_WEBHOOK_URL", "https://hooks.example.org/T0/xyzzy-plugh")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush-hush-hush")
    with log_file.own_log(shown=False):
        path = log_file.write_log(tmp_path)
        log_file.LOG.info("postgres://me:word-of-mine@db:5432/x and s3://bucket/a?sig=abcdef")
        log_file.SAID.info("The record is at http://127.0.0.1:5000/?link=once-only#/runs")
        log_file.LOG.warning("called https://hooks.example.org/T0/xyzzy-plugh: hush-hush-hush")
    text = path.read_text()
    for secret in ("word-of-mine", "abcdef", "once-only", "xyzzy", "hush"):
        assert secret not in text
    assert "@db:5432/x" in text and "$CUVEE_WEBHOOK_URL" in text
    assert path.stat().st_mode & 0o077 == 0


STORES = ("s3://me:hush-hush@bucket/x", "http://me:hush-hush@host/x", "foo://me:hush/hush@h/x")


@pytest.mark.parametrize("url", STORES)
@pytest.mark.parametrize("words", [("status",), ("doctor", "--store")])
def test_no_secret_reaches_terminal_or_object(url, words, tmp_path, monkeypatch):
    """Catches a password of a store's address in an error, which only the log is cleaned of."""
    monkeypatch.setattr(objects.fsspec.core, "url_to_fs", lambda _: 1 / 0)  # asks no network
    monkeypatch.setenv("CUVEE_STORE", url)
    done = inside(*words, "--json", home=tmp_path / "home")
    answer = json.loads(done.stdout)
    assert answer["kind"] == "StorageError" and "://...@" in answer["error"]
    assert "hush" not in done.stdout + done.stderr


def test_no_secret_reaches_a_result(tmp_path, monkeypatch, capsys):
    """Catches addresses among the results, a variable's value, and a line for the person."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush-hush-hush")
    print_answer(
        {"store": STORES[0], "studies": [{"key": "hush-hush-hush", "n": 3, "p": tmp_path}]}
    )
    answer = json.loads(capsys.readouterr().out)
    assert answer["store"] == "s3://...@bucket/x"
    assert answer["studies"] == [{"key": "$AWS_SECRET_ACCESS_KEY", "n": 3, "p": str(tmp_path)}]
    Session("x", Display(), tmp_path).say(f"records of {STORES[1]}, {STORES[2]}")
    assert capsys.readouterr().out == "records of http://...@host/x, foo://...@h/x\n"
    for plain in ("http://host:80/a@b", "s3://bucket/a@b:c", "file:///tmp/a:b@c"):
        assert without_secrets(plain) == plain


def test_two_processes_share_a_log_that_is_put_aside_when_full(tmp_path, monkeypatch):
    """Catches lines that are lost or torn where two commands write and the file is turned over."""
    monkeypatch.setattr(log_file, "LARGEST", 4000)
    monkeypatch.setattr(log_file, "KEPT", 50)

    def write(mark: str) -> None:
        handler = log_file.HomeLog(tmp_path / "logs" / "cuvee.log")  # with a file of its own
        for i in range(300):
            handler.emit(logging.LogRecord("x", logging.INFO, "", 0, f"{mark}-{i:03}.", (), None))

    writers = [threading.Thread(target=write, args=(mark,)) for mark in "ab"]
    for one in writers:
        one.start()
    for one in writers:
        one.join()
    files = list((tmp_path / "logs").iterdir())
    lines = [line for path in files for line in path.read_text().splitlines()]
    wanted = sorted(f"{mark}-{i:03}." for mark in "ab" for i in range(300))
    assert sorted(line.split()[-1] for line in lines) == wanted
    assert len(files) > 5 and all(path.stat().st_size < 4200 for path in files)


def test_a_set_field_is_recorded_and_binds_what_follows(study, tmp_path):
    """Catches a change that the study forgets: handed on by a recipe that was never run."""
    recipe, home = str(study[0]), study[1]
    change = ("--set", "method.refits=12", "--set", "full_scale.tokens=2M")
    draft = ("export", recipe, "--draft", "--format", "json", "--to", str(tmp_path))
    before = answer_of(*draft, home=home)["manifest"]["recommendation"]
    fitted = answer_of("fit", recipe, *change, home=home)
    summary = json.loads(Path(fitted["files"]["summary"]).read_text())
    assert fitted["weights"] == summary["weights"] and fitted["summary"] == summary
    assert all(Path(path).is_file() for path in fitted["files"].values())
    kept = load_recipe(Path(fitted["files"]["summary"]).parent / "recipe.yaml")[0]
    assert kept.full_scale.tokens == 2_000_000 and kept.method["refits"] == 12
    same = answer_of(*draft, *change, home=home)["manifest"]
    assert same["recommendation"] == summary["recommendation"] != before
    assert same["recipe"] == kept.digest
    assert answer_of(*draft, home=home)["manifest"]["recommendation"] == before
    other = answer_of(*draft, "--set", "seed=99", home=home)
    assert other["kind"] == "ApprovalError" and "recipe has changed" in other["error"]


def test_a_set_field_takes_yaml_and_refuses_what_is_none(tmp_path):
    """Catches text where a list or a number is meant, and a misspelt field that changes nothing."""
    path = tmp_path / "r.yaml"
    path.write_text(tiny_study.recipe(tmp_path, confirm="null"), encoding="utf-8")
    given = ["proxy.tokens=1M", "constraints.bounds={code: [0.1, 0.5]}", "confirm.seeds=4"]
    changed, text = apply_changes(load_recipe(path)[1], recipe_changes(given))
    assert changed.proxy.tokens == 10**6 and changed.constraints.bounds == {"code": (0.1, 0.5)}
    assert changed.confirm and changed.confirm.seeds == 4  # where the recipe says null
    assert load_recipe(path)[0].digest != changed.digest
    path.write_text(text, encoding="utf-8")
    assert load_recipe(path)[0].digest == changed.digest
    for wrong, words in (
        ("proxy.tokenz=1M", "did you mean 'tokens'"),
        ("proxy.tokens", "--set takes a field and its value"),
        ("name.x=1", "no mapping"),
        ("proxy.tokens=[1", "not YAML"),
    ):
        with pytest.raises(RecipeError, match=re.escape(words)):
            apply_changes(text, recipe_changes([wrong]))


def test_the_object_stands_alone_whoever_prints(study, monkeypatch):
    """Catches JSON that cannot be read because a library said something on stdout."""
    from cuvee.flows import plan

    monkeypatch.setattr(plan, "print_plan", lambda *_: print("chatter") or {"study": "tiny"})
    done = inside("plan", str(study[0]), "--json", home=study[1])
    assert json.loads(done.stdout)["study"] == "tiny" and "chatter" in done.stderr


def test_nothing_but_the_object_is_colored_or_animated_off_a_terminal(study):
    """Catches escape codes in a log of CI, and `--json` that a bar has torn."""
    done = inside("plan", str(study[0]), home=study[1])
    assert "\x1b" not in done.stdout + done.stderr


def test_what_a_recipe_may_name_is_listed_with_when_to_take_it():
    """Catches a list by hand that a new member is missing from, and fourteen methods without a
    word on which to take."""
    done = CliRunner().invoke(program.app, ["list", "--json"])
    kinds = [one["name"] for one in json.loads(done.stdout)["members"]]
    asked = next(param for param in COMMANDS["list"].params if param.name == "kind").help
    assert all(kind in asked for kind in kinds)
    listed = {
        kind: json.loads(CliRunner().invoke(program.app, ["list", kind, "--json"]).stdout)
        for kind in kinds
    }
    for kind, word in (("method", "methods"), ("law", "laws"), ("search", "searches")):
        apart = [getattr(registry.lookup(kind, n), "baseline", False) for n in registry.names(kind)]
        ordered = sorted(zip(apart, registry.names(kind), strict=True))  # baselines come last
        assert [one["name"] for one in listed[word]["members"]] == [name for _, name in ordered]
        assert [one.get("baseline", False) for one in listed[word]["members"]] == sorted(apart)
    assert [one["name"] for one in listed["formats"]["members"]] == list(format_names())
    assert [one["name"] for one in listed["sizes"]["members"]] == list(LADDER)
    assert [one["name"] for one in listed["suites"]["members"]] == list(SUITES)
    assert all(one["summary"] for found in listed.values() for one in found["members"])
    assert all(one["when"] for one in listed["methods"]["members"])
    said = CliRunner().invoke(program.app, ["list", "methods"]).stdout
    assert "Take regmix with `laws: [kriging]` unless you have a reason." in said
    wrong = CliRunner().invoke(program.app, ["list", "lawz"])
    assert wrong.exit_code == 2 and "did you mean 'laws'?" in wrong.stderr


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"method": "{name: foo}"}, "take regmix with `laws: [kriging]`"),
        ({"method": "regmix"}, "such as {name: regmix}"),
        ({"method": "{name: regmix, runs: many}"}, "must be a whole number; got 'many'"),
        ({"objective": "{name: mean, weights: {domain/prose: 30%}}"}, "as a mapping, such as"),
        ({"objective": "{name: mean, weights: [1, 2]}"}, "as a mapping, such as"),
        ({"constraints": "{epochs: four}"}, "must be a number or a mapping"),
        ({"constraints": "{bounds: {code: 0.2}}"}, "two numbers, [least, most]"),
        ({"constraints": "{bounds: {code: ['10%', 1]}}"}, "a share of 30 % is 0.3"),
        ({"proxy": "{tokens: 50 thousand}"}, "such as 400k, 20M or 1.5B"),
        ({"proxy": "{size: 300k}"}, "did you mean '0.3M'? known: 0.3M, 0.6M, 1M, 2M"),
        ({"evaluation": "{suite: quick}"}, "suites: quickstart, offline"),
        ({"handoff": "{format: megaton, to: out}"}, "did you mean 'megatron'?"),
    ],
)
def test_a_recipe_is_refused_in_our_own_words(tmp_path, changes, words):
    """Catches a library's or Python's words: int, tuple, dictionary, could not convert."""
    with pytest.raises(CuveeError) as told:
        parse(tiny_study.recipe(tmp_path, **changes))
    assert words in str(told.value)
    for foreign in ("dict", "tuple", "instance", "convert", "unpack", "Input should", " int"):
        assert foreign not in str(told.value)


def test_paths_of_a_recipe_are_found_beside_it_and_else_from_here(study, tmp_path, monkeypatch):
    """Catches a recipe that works in one folder only, a file of the working directory that is taken
    in silence for the one beside the recipe, and a place that enters digests or fingerprints."""
    folder = study[0].parent
    text = study[0].read_text().replace(f"{folder}/", "")
    moved = folder / "relative.yaml"
    moved.write_text(text, encoding="utf-8")
    answer = answer_of("plan", str(moved), home=study[1])  # from the folder of the repository
    assert answer["runs"]["stored"] == answer["runs"]["design"] == 12
    recipe = load_recipe(moved)[0]
    assert recipe.digest == parse(text).digest
    assert recipe.source_path("corpus/code.jsonl") == f"{folder}/corpus/code.jsonl"
    assert recipe.source_path("corpus/*.jsonl") == f"{folder}/corpus/*.jsonl"
    assert parse(text).source_path("corpus/code.jsonl") == "corpus/code.jsonl"
    monkeypatch.chdir(tmp_path)
    assert recipe.source_path("none.jsonl") == "none.jsonl"  # as the message then names it
    (tmp_path / "here.jsonl").touch()
    assert recipe.source_path("here.jsonl") == "here.jsonl" and not recipe.doubled_paths
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "code.jsonl").touch()
    assert recipe.source_path("corpus/code.jsonl") == f"{folder}/corpus/code.jsonl"
    assert recipe.doubled_paths == ("corpus/code.jsonl",)
    monkeypatch.chdir(folder)  # where both are one file
    assert recipe.source_path("corpus/code.jsonl") == "corpus/code.jsonl"
    assert not recipe.doubled_paths
