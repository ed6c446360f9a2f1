"""The core fits tables and recommends; whatever needs more names the extra that brings it."""

import ast
import functools
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import numpy as np
import pytest

from cuvee.mixtures.errors import MissingExtra
from cuvee.tasks import extras

ROOT = next(p for p in Path(__file__).parents if (p / "pyproject.toml").exists())
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OPTIONAL = PROJECT["optional-dependencies"]
ROOMS = ("flows", "tasks", "proxies", "evaluation", "mixtures")
BOUNDS = {"fastapi", "sqlalchemy"}  # of Prefect and MLflow, which take versions that they fail with
RECIPE = """\
name: core
tables: {mixtures: mixtures.csv, scores: scores.csv, sizes: {web: 3, code: 1, prose: 1}}
objective: {name: mean, weights: {legal: 1, facts: 1}}
full_scale: {tokens: 1B}
method: {name: regmix, runs: 24, laws: [log_linear], search: auto}
"""
REQUIRES = [f"{line}; extra == '{name}'" for name in OPTIONAL for line in OPTIONAL[name]]
# Runs command lines as if the modules and packages of the first argument were not installed.
WITHOUT = """
import importlib.metadata, json, sys
from typer.testing import CliRunner
modules, packages, requires, commands = json.loads(sys.argv[1])
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in modules:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
version = importlib.metadata.version
def installed(name):
    if name.lower().replace("_", "-") in packages:
        raise importlib.metadata.PackageNotFoundError(name)
    return version(name)
importlib.metadata.version = installed
importlib.metadata.requires = lambda name: requires
from cuvee.flows.cli.main import app
done = [CliRunner().invoke(app, words) for words in commands]
print(json.dumps([(one.exit_code, one.stdout, one.stderr, repr(one.exception)) for one in done]))
"""


owners_of_modules = functools.cache(importlib.metadata.packages_distributions)


def plain(package: str) -> str:
    return package.lower().replace("_", "-")


def packages(requirements: list[str]) -> set[str]:
    return {plain(re.match(r"[\w.-]+", line)[0]) for line in requirements} - {"cuvee"}


WHOLE = ("all", "dev", "docs")  # for everything, for contributors, for the pages
CORE = packages(PROJECT["dependencies"])
EXTRAS = {name: packages(lines) for name, lines in OPTIONAL.items() if name not in WHOLE}


def write_tables(folder: Path) -> None:
    rng = np.random.default_rng(0)
    W = rng.dirichlet(np.ones(3), 24).round(6)
    W[:, 2] = 1 - W[:, 0] - W[:, 1]
    Y = np.column_stack([2 + np.exp(-1.5 * W[:, 1]), 3 + np.exp(-W[:, 2] - 0.5 * W[:, 0])])
    for name, header, values in (
        ("mixtures.csv", "run,web,code,prose", W),
        ("scores.csv", "run,legal,facts", Y),
    ):
        rows = [f"{i}," + ",".join(f"{x:.6f}" for x in row) for i, row in enumerate(values)]
        (folder / name).write_text("\n".join([header, *rows]) + "\n")
    (folder / "recipe.yaml").write_text(RECIPE)


def imported(path: Path) -> set[str]:
    """Top-level names that a module imports, in its functions too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


def test_what_is_imported_is_declared_and_the_reverse():
    """Catches a package that is there by the grace of another, and one that nothing imports."""
    owners = owners_of_modules()
    named = {name for room in ROOMS for p in (ROOT / room).rglob("*.py") for name in imported(p)}
    foreign = named - set(sys.stdlib_module_names) - {"cuvee"}
    declared = CORE.union(*EXTRAS.values())
    providers = [{*map(plain, owners[name])} for name in foreign]  # mlflow is of two packages
    used = set().union(*(found & declared or found for found in providers))
    assert used - declared == set(), "imported and not declared"
    clouds = EXTRAS["s3"] | EXTRAS["gcs"] | EXTRAS["azure"]  # which fsspec imports
    theirs = clouds | EXTRAS["team"]  # which MLflow imports
    beside = BOUNDS | theirs
    assert declared - used == beside, "declared and not imported"


def test_extras_are_whole():
    """Catches an extra that `all` or `dev` forgets, and a package that is in the core as well."""
    assert set(OPTIONAL) == {*EXTRAS, *WHOLE}
    assert OPTIONAL["all"] == [f"cuvee[{','.join(sorted(EXTRAS))}]"]
    assert "cuvee[all,docs]" in OPTIONAL["dev"]
    assert CORE.isdisjoint(set().union(*EXTRAS.values()))


def test_a_sentence_names_all_that_is_missing(monkeypatch):
    """Catches one extra at a time, extras that are installed, and an endless list of packages."""
    there = EXTRAS["flow"] - {"ray"} | EXTRAS["record"]

    def version(name):
        if plain(name) not in there:
            raise importlib.metadata.PackageNotFoundError(name)
        return "1"

    monkeypatch.setattr(importlib.metadata, "requires", lambda _: ["numpy>=2.0", *REQUIRES])
    monkeypatch.setattr(importlib.metadata, "version", version)
    extras.require("this", "record")
    with pytest.raises(MissingExtra, match=r"^this needs ray, .*'cuvee\[flow\]'$"):
        extras.require("this", "flow", "record")
    more = len(EXTRAS["train"] | {"ray"}) - 4
    with pytest.raises(MissingExtra, match=rf"and {more} more, .*'cuvee\[flow,train\]'$"):
        extras.require("this", "train", "flow")


LACKING = {
    "run": "flow,train",
    "plan": "train",
    "confirm": "flow,train",
    "schedule": "flow,train",
    "handoff": "flow",
}
EXPORT = "export --format json --to out"
EARLY = "export --format json --to early"  # before anybody approved it
FIT = ["fit", EARLY, "approve", EXPORT]
TEXT = "init --corpus . --to text.yaml"
DRAFTED = ["init --from mixtures.csv scores.csv --to drafted.yaml", "doctor --home home", TEXT]


@pytest.fixture(scope="module")
def core(tmp_path_factory):
    """Commands as if no extra were installed: each with its exit code and what it said."""
    folder = tmp_path_factory.mktemp("core")
    write_tables(folder)
    lacking = set().union(*EXTRAS.values())
    owners = owners_of_modules()
    modules = [module for module, found in owners.items() if {*map(plain, found)} & lacking]
    lines = [f"{line} recipe.yaml --home {word}" for word in ("none", "home")
             for line in (LACKING if word == "none" else FIT)] + DRAFTED  # fmt: skip
    lines.append("schema --home none")
    absent = json.dumps([modules, sorted(lacking), REQUIRES, [line.split() for line in lines]])
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, absent],
        cwd=folder, capture_output=True, text=True, timeout=240, check=True,
    )  # fmt: skip
    said = json.loads(done.stdout.splitlines()[-1])
    return folder, dict(zip([*LACKING, *FIT, *DRAFTED, "schema"], said, strict=True))


def test_the_core_alone_fits_approves_and_exports(core):
    """Catches a module of an extra that is imported on the way from tables to an export."""
    folder, said = core
    assert [said[line][0] for line in FIT] == [0, 2, 0, 0], said
    assert "is not approved" in said[EARLY][2] and "cuvee[" not in said[EARLY][2]
    assert "not recorded: pip install 'cuvee[record]'" in said["fit"][1]
    assert (folder / "out" / "mixture.json").exists()


def test_the_core_alone_drafts_from_tables_and_looks_at_the_machine(core):
    """Catches readers of text, or torch, on the way to a recipe from tables or to the doctor."""
    folder, said = core
    draft, doctor, text = (said[line] for line in DRAFTED)
    assert draft[0] == 0 and (folder / "drafted.yaml").exists(), draft
    assert doctor[0] in (0, 1) and "Error" not in doctor[3], doctor
    assert "extra train is not installed" in doctor[1] and "problems, " in doctor[1]
    assert text[0] == 2 and "pip install 'cuvee[train]'" in text[2], text


def test_the_core_alone_prints_the_schema_of_a_recipe(core):
    """Catches a part of the recipe, or a registered class, that imports what trains or records."""
    code, printed, error, _ = core[1]["schema"]
    assert code == 0 and not error
    assert json.loads(printed)["title"] == "Recipe of a Cuvée study"


@pytest.mark.parametrize("command", LACKING)
def test_a_command_names_the_extra_that_it_lacks(core, command):
    """Catches a traceback of an import, and a start of anything before the sentence."""
    folder, said = core
    code, _, error, raised = said[command]
    assert code == 2 and raised.startswith("SystemExit")
    assert error.startswith("cuvee: error: ") and error.count("\n") == 1
    assert f"pip install 'cuvee[{LACKING[command]}]'" in error
    assert not (folder / "none").exists()


@pytest.mark.slow
def test_a_wheel_alone_fits_tables(tmp_path):
    """What `pip install cuvee` brings is enough for tables; catches a package, a template or a room
    that the wheel lacks, and one that is there only in our own environment."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in filter(None, listed.stdout.split("\0")):  # a build leaves its own folders behind
        (tmp_path / "sources" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / "sources" / name, follow_symlinks=False)
    subprocess.run([*pip, "wheel", "--no-deps", "-w", tmp_path, tmp_path / "sources"], check=True)
    venv.create(tmp_path / "venv", with_pip=True)
    there = [str(tmp_path / "venv" / "bin" / "python"), "-m"]
    limits = ["-c", str(ROOT / "infra" / "constraints.txt")]
    (wheel,) = tmp_path.glob("cuvee-*.whl")
    subprocess.run([*there, "pip", "install", "-q", *limits, str(wheel)], check=True)
    write_tables(tmp_path)

    def cuvee(*words: str) -> subprocess.CompletedProcess[str]:
        clean = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        command = [str(tmp_path / "venv" / "bin" / "cuvee"), *words]
        return subprocess.run(
            command, cwd=tmp_path, env=clean, capture_output=True, text=True, check=False
        )

    done = cuvee("fit", "recipe.yaml")
    assert done.returncode == 0, done.stderr
    assert "not recorded: pip install 'cuvee[record]'" in done.stdout
    assert (tmp_path / ".cuvee" / "studies" / "core" / "fit" / "report.html").exists()
    done = cuvee("run", "recipe.yaml")
    assert done.returncode == 2 and "pip install 'cuvee[flow,train]'" in done.stderr
    assert "Traceback" not in done.stderr
