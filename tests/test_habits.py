"""What contributors are told: one set of checks everywhere, and examples that are what they say."""

import importlib
import pickle
import re
import subprocess
import sys
from pathlib import Path

import contract_parts
import pytest
import yaml
from export_readers import FIXED

from cuvee.mixtures import catalog, registry
from cuvee.mixtures.errors import EvidenceError
from cuvee.mixtures.inference.diagnostics import spearman
from cuvee.tasks import export

ROOT = Path(__file__).parent.parent
CI = (ROOT / ".ci" / "run").read_text()
WORKFLOW = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
JOB = WORKFLOW["jobs"]["make"]


MODULE = r"`(?:\w+/)+(\w+)\.py`:\n\n```python\n(.*?)```"  # its file name, and what stands in it
EXAMPLES = [
    found
    for page in ("add-a-law", "add-an-exporter")
    for found in re.findall(MODULE, (ROOT / f"docs/how-to/{page}.md").read_text(), re.DOTALL)
]


def commands_of(target: str) -> list[str]:
    """What a make target runs in the environment, once that is set up."""
    printed = subprocess.run(
        ["make", "--dry-run", "--always-make", target],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    ours = [line for line in printed.splitlines() if ".venv/bin/" in line]
    return [line for line in ours if " -m venv " not in line and " -m pip " not in line]


def test_the_workflow_makes_what_ci_makes():
    """Catches a target that only one of the two runs, or that the Makefile has no longer.

    The trainers' own libraries, which many places send, are read by the workflow alone.
    """
    local = re.findall(r"^make (\S+)$", CI, re.MULTILINE)
    assert [*local, "test-trainers"] == JOB["strategy"]["matrix"]["target"]
    assert JOB["steps"][-1]["run"] == "make ${{ matrix.target }}"
    for target in JOB["strategy"]["matrix"]["target"]:
        assert commands_of(target), f"make {target} runs nothing of ours"


def test_the_workflow_installs_what_ci_installs():
    """Catches a program that tests need and that only one of the two installs."""
    local = set(re.findall(r"--no-install-recommends ([\w -]+?) >", CI))
    step = next(step["run"] for step in JOB["steps"] if "apt-get" in step.get("run", ""))
    assert local and set(step.split("--no-install-recommends ")[1].split()) == local


def test_a_commit_is_linted_as_make_lint_does():
    """Catches a linter that runs in CI and not before a commit, or otherwise."""
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    assert [hook["entry"] for hook in hooks] == commands_of("lint")


@pytest.fixture
def examples(tmp_path, monkeypatch):
    """The files that the docs add, imported as a newcomer's would be, and forgotten again."""
    monkeypatch.syspath_prepend(tmp_path)
    for name, code in EXAMPLES:
        (tmp_path / f"{name}.py").write_text(code, encoding="utf-8")
        monkeypatch.setitem(sys.modules, name, None)
        monkeypatch.delitem(sys.modules, name)
        importlib.import_module(name)
    yield
    registry.forget("law", "root")
    registry.forget(export.KIND, "weights")


@pytest.mark.parametrize(("kind", "name"), [("law", "root"), (export.KIND, "weights")])
def test_the_examples_say_when_to_take_them_and_what_their_fields_mean(examples, kind, name):
    """Catches an example whose reader fails the contract of what is registered."""
    entry = catalog.catalog_entry(kind, name)
    assert entry.guidance and all(field.description for field in entry.fields)


def test_the_example_of_a_law_is_one(examples):
    """Catches an example that does not rank, cannot be pickled or takes too few runs."""
    W, Y = contract_parts.data()
    X, Z = contract_parts.data(seed=1)
    law = registry.build("law", "root")
    mean = pickle.loads(pickle.dumps(contract_parts.fitted(law, W, Y))).predict(X).mean
    assert all(spearman(Z[:, m], mean[:, m]) > 0.9 for m in range(2))
    with pytest.raises(EvidenceError, match="6"):
        contract_parts.fitted(law, W[:5], Y[:5])


def test_the_example_of_an_exporter_is_one(examples):
    """Catches an example whose files do not carry the shares."""
    (text,) = export.render_export(
        export.build_format("weights", {"separator": " = "}), FIXED
    ).values()
    lines = dict(line.rsplit(" = ", 1) for line in text.splitlines())
    assert {name: float(share) for name, share in lines.items()} == FIXED.shares
