"""Which program may train, and what tells one trainer from another."""

import json
import math
import sys
from pathlib import Path

import pytest

from cuvee.mixtures.errors import RecipeError
from cuvee.tasks.trainer import program
from cuvee.tasks.trainer.program import TrainerProgram


def test_a_recipe_alone_runs_nothing(monkeypatch):
    """Catches a program that runs because its beginning, its name or its folder is allowed."""
    monkeypatch.delenv(program.ALLOWED, raising=False)
    command = ["/opt/bin/python", "/opt/train.py", "--fast"]
    with pytest.raises(RecipeError, match="a recipe alone runs nothing.*CUVEE_TRAINER_COMMANDS"):
        program.check_allowed(command)
    for entry in ("/opt/bin", "python", "/opt/bin/python3", "/opt/bin/python /opt/other.py", "''"):
        monkeypatch.setenv(program.ALLOWED, f"/bin/true:{entry}")
        with pytest.raises(RecipeError, match="may not be run"):
            program.check_allowed(command)
    for entry in (
        "/opt/bin/python",
        "/opt/bin/python /opt/train.py",
        "/opt/bin/python '/opt/train.py'",
    ):
        monkeypatch.setenv(program.ALLOWED, f"/bin/true:{entry}")
        program.check_allowed(command)
    with pytest.raises(RecipeError, match="/opt/bin/python -c may"):
        program.check_allowed(["/opt/bin/python -c", "evil"])
    monkeypatch.setenv(program.ALLOWED, "/opt/ann's/python")
    with pytest.raises(RecipeError, match=r"cannot be read: .*ann's.*No closing quotation"):
        program.check_allowed(command)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["python3", "/t.py"], "begins with 'python3': name the program by its full path"),
        (["./train.sh"], "full path"),
        (["/bin/python3", "train.py"], "names 'train.py'.*the directory of its run.*Give the full"),
    ],
)
def test_a_command_that_would_find_nothing_is_refused(command, words):
    """Catches a relative path, which leads elsewhere in each run directory."""
    with pytest.raises(RecipeError, match=words):
        program.check_command(command)
    program.check_command(["/bin/python3", "-m", "train", "--config={folder}/c.json", "{run}"])
    program.check_command(["/bin/python3", "/t.py", "s3://bucket/c.yaml", "https://x/c.json"])


def test_a_trainer_is_known_by_what_its_files_hold(tmp_path):
    """Catches evidence of an edited trainer that passes for that of the old one, a trainer that is
    another because its folder moved, and one that nothing tells from its next version."""

    def identity(folder, text="a", settings=None, version="", more=()):
        folder.mkdir(exist_ok=True)
        (folder / "train.py").write_text(text)
        words = [sys.executable, str(folder / "train.py"), *more]
        return program.trainer_identity(words, "", version, settings or {}, {})[1]

    first = identity(tmp_path / "one")
    assert json.loads(first)["name"] == "train"
    assert identity(tmp_path / "two") == first
    assert identity(tmp_path / "one", text="b") != first
    assert identity(tmp_path / "one", settings={"lr": 2}) != first
    scored_by = [program.trainer_identity(["/t", "x"], "", "1", {}, of) for of in ({}, {"a": "b"})]
    assert "metrics" not in scored_by[0][1] and scored_by[0] != scored_by[1]
    assert identity(tmp_path / "one", more=["--fast"]) != first
    named = identity(tmp_path / "one", version="7")
    assert identity(tmp_path / "one", text="b", version="7") == named
    with pytest.raises(RecipeError, match="tells one version.*proxy.trainer.version"):
        program.trainer_identity([sys.executable, "-m", "train"], "", "", {}, {})
    with pytest.raises(RecipeError, match="proxy.trainer.version"):
        program.trainer_identity(["/nowhere/train"], "", "", {}, {})
    closed = tmp_path / "one" / "train.py"
    closed.unlink()
    closed.symlink_to("/proc/self/mem")  # which not even root can read from its beginning
    with pytest.raises(RecipeError, match=r"train.py.*cannot be read"):
        program.trainer_identity([sys.executable, str(closed)], "", "", {}, {})


@pytest.mark.parametrize(
    ("words", "versioned", "unversioned"),
    [
        (["@/python", "@/train.py"], "train", "train"),
        (["@/apptainer", "exec", "@/wine.sif", "@/python3", "/opt/train.py"], "wine", "wine"),
        (["@/docker", "run", "-v", "/data:/data", "image", "/opt/train.py"], "train", "docker"),
        (["@/train.sh", "@", "@/x.yaml"], "train", "train"),
        (["@/python", "@/own"], "python", "own"),
    ],
)
def test_a_trainer_with_a_version_is_the_same_on_every_machine(
    tmp_path, words, versioned, unversioned
):
    """Catches a fingerprint that follows from which files lie on this machine, though a version
    stands for them; and one without a version that is no longer what it was."""
    command = [word.replace("@", str(tmp_path / "x")) for word in words]
    elsewhere = program.trainer_identity(command, "", "7", {}, {})
    (tmp_path / "x").mkdir()
    for word in words:
        if word.startswith("@/"):
            (tmp_path / "x" / word[2:]).write_text("#!/bin/sh\n")
    assert program.trainer_identity(command, "", "7", {}, {}) == elsewhere
    assert elsewhere[0] == json.loads(elsewhere[1])["name"] == versioned
    assert program.trainer_identity(command, "", "", {}, {})[0] == unversioned


def test_every_file_of_a_command_tells_its_trainer_from_others(tmp_path):
    """Catches files that are known by their place among those found: a configuration behind `=`
    or beside a missing interpreter, a wrapper script with a configuration, a folder that counts."""

    def identity(folder, edited="", *words):
        folder.mkdir(exist_ok=True)
        for name in ("train.sh", "train.py", "x.yaml"):
            start = f"#!{folder}/sh\n" if name == "train.sh" else ""
            (folder / name).write_text(start + ("new" if name == edited else "old"))
        command = [word.replace("@", str(folder)) for word in words]
        return program.trainer_identity(command, "", "", {}, {})[1]

    for words in (
        ("/nowhere/python", "@/train.py", "--config=@/x.yaml"),
        ("@/train.sh", "@/train.py", "config=@/x.yaml"),
        ("@/train.sh", "@/x.yaml"),
    ):
        first = identity(tmp_path / "one", "", *words)
        assert identity(tmp_path / "two", "", *words) == first and str(tmp_path) not in first
        assert json.loads(first)["name"] == "train"
        for name in {Path(word).name for word in words if "@" in word}:
            assert identity(tmp_path / "one", name, *words) != first, (name, words)


def test_variables_that_load_other_code_are_the_operators():
    """Catches a recipe that runs code of its own beside an allowed program, and one that takes
    the marks away by which leftovers are known."""
    refused = "PATH PYTHONPATH PYTHONSTARTUP LD_PRELOAD LD_LIBRARY_PATH DYLD_INSERT_LIBRARIES"
    refused += " GCONV_PATH BASH_ENV ENV SHELLOPTS BASH_FUNC_ls PERL5OPT RUBYOPT NODE_OPTIONS"
    refused += " GIT_SSH_COMMAND CUVEE_RUN_DIRECTORY CUVEE_NODE_RANK CUVEE_HOME_MARK"
    refused += " CUDA_INJECTION64_PATH NCCL_NET_PLUGIN"
    for name in refused.split():
        with pytest.raises(RecipeError, match=f"environment.{name} decides.*sets it where"):
            program.check_environment({name: "/tmp/evil"})
    for name in ("A=B", "BASH_FUNC_ls%%", "", "1A", "A B", "PATH\n"):
        with pytest.raises(RecipeError, match="is no variable"):
            program.check_environment({name: "x"})
    free = "PYTHONUNBUFFERED PYTHONHASHSEED HF_HOME NCCL_DEBUG TOKENIZERS_PARALLELISM MAX_TOKENS"
    free += " KEYBOARD AUTHOR CUDA_VISIBLE_DEVICES LDAP OMP_NUM_THREADS"
    program.check_environment(dict.fromkeys(free.split(), "1"))


def test_secrets_are_named_and_not_written(monkeypatch):
    """Catches a token in a recipe, or the token itself in what is said about it."""
    for name in ("WANDB_API_KEY", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "PGPASSWORD", "my_auth"):
        with pytest.raises(RecipeError, match=rf"{name} looks.*\${name}") as told:
            program.check_environment({name: "hunter2"})
        assert "hunter2" not in str(told.value)
    given = {"WANDB_API_KEY": "$MY_KEY", "NCCL_DEBUG": "INFO"}
    program.check_environment(given)
    monkeypatch.delenv("MY_KEY", raising=False)
    with pytest.raises(RecipeError, match="takes the value of MY_KEY, which is not set"):
        program.environment_of(given)
    monkeypatch.setenv("MY_KEY", "hunter2")
    values, secrets = program.environment_of(given)
    assert values == {"WANDB_API_KEY": "hunter2", "NCCL_DEBUG": "INFO"} and secrets == ("hunter2",)
    monkeypatch.setenv("RANKS", "1")  # which would stand as *** in every figure of a log
    monkeypatch.setenv("PLACE", "correct-horse")
    assert program.environment_of({"N": "$RANKS", "P": "$PLACE"})[1] == ("correct-horse",)
    made = TrainerProgram(("/x",), "x", "{}", environment=values, secrets=secrets)
    assert "hunter2" not in repr(made)


def test_words_are_filled_in_and_nothing_else(tmp_path):
    """Catches a brace of the user's own that ends a command, and a run that is told twice."""
    made = TrainerProgram(
        ("/x", "--n={nodes}", '{"a": {gpus}}', "{node_rank}"), "x", "{}", gpus=0.5, nodes=2
    )
    run = tmp_path / "run.json"
    words = made.words(run, {"node_rank": 1})
    assert words == ["/x", "--n=2", '{"a": 1}', "1", str(run)]
    named = TrainerProgram(("/x", "--config", "{run}"), "x", "{}")
    assert named.words(run, {}) == ["/x", "--config", str(run)]
    assert math.isinf(named.timeout)
