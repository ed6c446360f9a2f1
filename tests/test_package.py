"""One package: what is imported is `cuvee`, and its rooms are found nowhere else."""

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("evaluation", "flows", "mixtures", "proxies", "tasks")
LINT = Path(sys.executable).parent / "lint-imports"


def test_importing_cuvee_imports_nothing():
    """Catches a package that loads numpy before the command line could set its threads."""
    program = (
        "import sys; before = set(sys.modules); import cuvee; "
        "print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["cuvee"], done.stderr


def test_a_recipe_is_known_without_what_computes():
    """Catches a schema that loads solvers, tables or trainers before anything is read."""
    heavy = "scipy", "pandas", "pyarrow", "lightgbm", "tokenizers", "torch", "prefect", "ray"
    program = (
        "import sys; from cuvee.flows.recipe import Recipe; "
        f"print(*sorted(set(sys.modules) & {{*{heavy}}}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []


def test_the_rooms_are_links_that_git_keeps():
    """Catches a copy of a room, which would drift from the one at the top level."""
    listed = subprocess.run(
        ["git", "ls-files", "--stage", "cuvee"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    links = {line.split("\t")[1]: line.split()[0] for line in listed}
    assert {name for name, mode in links.items() if mode == "120000"} == {
        f"cuvee/{room}" for room in ROOMS
    }
    for room in ROOMS:
        assert (ROOT / "cuvee" / room).resolve() == ROOT / room


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "line", "contract"),
    [
        ("mixtures/simplex.py", "import torch", "mixtures is pure"),
        ("proxies/ladder.py", "from cuvee.tasks import process", "the arrows of the design"),
        ("tasks/store/results.py", "import ray", "Ray lives in flows.execution"),
        ("flows/workspace.py", "import mlflow", "MLflow lives in tasks.tracking"),
        ("mixtures/runs/run_spec.py", "from cuvee.mixtures import loop", "no cycles inside a room"),
    ],
)
def test_lint_sees_a_forbidden_import(tmp_path, file, line, contract):
    """Catches contracts that name packages which no file belongs to: all of them are kept then."""
    for name in (*ROOMS, "cuvee", "pyproject.toml"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(
            ROOT / name, tmp_path / name, **({"symlinks": True} if copy is not shutil.copy else {})
        )
    with open(tmp_path / file, "a", encoding="utf-8") as source:
        source.write(f"\n{line}\n")
    done = subprocess.run(
        [LINT, "--no-cache"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    broken = re.search(rf"{contract}.* BROKEN", done.stdout)
    assert done.returncode == 1 and broken, done.stdout + done.stderr


def test_the_linter_bans_the_bare_names():
    """Catches an import that would load a room a second time, under another name."""
    content = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    banned = content["tool"]["ruff"]["lint"]["flake8-tidy-imports"]["banned-api"]
    assert set(banned) == set(ROOMS)
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--stdin-filename", "flows/x.py", "-"],
        input='"""A file."""\n\nfrom mixtures import simplex\n\nprint(simplex)\n',
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1 and "TID251" in done.stdout


@pytest.mark.slow
def test_a_wheel_holds_the_one_package_whole(tmp_path):
    """Catches sub-packages, templates and task files that stay behind, and a second top level."""
    source = tmp_path / "source"
    files = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    for name in files:
        if name.startswith((*ROOMS, "cuvee")) or "/" not in name:
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name, follow_symlinks=False)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir"]
    subprocess.run([*build, str(tmp_path), str(source)], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if ".dist-info/" not in name]
    wanted = {
        f"cuvee/{name}"
        for name in files
        if name.startswith(ROOMS) and name.endswith((".py", ".j2", ".js", ".css", ".yaml"))
    }
    assert wanted | {"cuvee/__init__.py", "cuvee/py.typed"} == set(names)
