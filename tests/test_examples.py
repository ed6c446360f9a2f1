"""What lies in `examples/` to be copied does what it says."""

import json
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

import cuvee
from cuvee.flows.recipe.load import load_recipe
from cuvee.flows.study import table_problem

EXAMPLES = Path(__file__).parents[1] / "examples"
NOTEBOOKS = sorted(path.name for path in EXAMPLES.glob("*.ipynb"))


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebooks_are_committed_without_outputs(name):
    """Catches an output that the code no longer gives, and the path of somebody's machine."""
    notebook = nbformat.read(EXAMPLES / name, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert cells and all(not c.outputs and c.execution_count is None for c in cells)


def execute_notebook(notebook):
    where = {"metadata": {"path": str(EXAMPLES)}}
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources=where).execute()


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebooks_run(name):
    """Catches a cell that fails today, an answer that shows nothing, and a picture that is none."""
    notebook = nbformat.read(EXAMPLES / name, as_version=4)
    execute_notebook(notebook)
    outputs = [out for cell in notebook.cells for out in cell.get("outputs", [])]
    shown = [out["data"] for out in outputs if "data" in out]
    assert any("image/png" in data for data in shown)
    assert any("Verdict" in data.get("text/html", "") for data in shown)
    assert not [out for out in outputs if out.get("name") == "stderr"]


@pytest.mark.slow
def test_recipe_and_notebook_give_the_same_numbers(tmp_path):
    """Catches a method, a size, a weight or a bound that one of them has otherwise."""
    notebook = nbformat.read(EXAMPLES / "from_data_frames.ipynb", as_version=4)
    told = nbformat.v4.new_code_cell(
        "import json\nprint(json.dumps([best.to_json(), best.verdict]))"
    )
    asked = next(i for i, cell in enumerate(notebook.cells) if "cuvee.recommend(" in cell.source)
    notebook.cells[asked + 1 :] = [told]
    execute_notebook(notebook)
    best, verdict = json.loads(notebook.cells[-1].outputs[-1]["text"])
    recipe = EXAMPLES / "fit_from_csv" / "recipe.yaml"
    study = cuvee.run(recipe, home=tmp_path, quiet=True)
    assert json.loads(json.dumps(study.recommendation.to_json())) == best
    assert study.verdict == verdict


def test_the_tables_and_their_recipe_belong_together(monkeypatch, tmp_path):
    """Catches sizes of other domains, weights of targets that no column has, and a recipe that is
    only found from the repository's root."""
    monkeypatch.chdir(tmp_path)
    recipe, _ = load_recipe(EXAMPLES / "fit_from_csv" / "recipe.yaml")
    problem, history = table_problem.from_tables(recipe)
    assert len(history) == 30 and len(problem.domains) == 8
    assert {run.spec.seed for run in history} == {0, 1, 2}  # two anchors with three seeds each
    recipe.build_method()


@pytest.mark.slow
def test_the_program_writes_tables_that_are_read_back(tmp_path, monkeypatch):
    """Catches rounding after which shares no longer sum to 1, and another order of runs."""
    home = tmp_path / "home"
    fitted = {
        "name": "quickstart",
        "tables": {
            "mixtures": str(EXAMPLES / "fit_from_csv" / "mixtures.csv"),
            "scores": str(EXAMPLES / "fit_from_csv" / "scores.csv"),
            "targets": ["domain/legal", "task/mmlu"],
        },
        "objective": {"name": "mean", "weights": {"domain/legal": 1}},
        "method": {"name": "mixing_laws", "refits": 10},
    }
    cuvee.run(fitted, home=home, quiet=True)
    program = EXAMPLES / "fit_from_csv" / "make_tables.py"
    command = [sys.executable, program, "--home", home, "--to", tmp_path]
    subprocess.run(command, check=True, capture_output=True, cwd=tmp_path)
    again = cuvee.load_tables(tmp_path / "mixtures.csv", tmp_path / "scores.csv")
    before = cuvee.open_study("quickstart", home=home).tables
    assert again.joined.rescaled == 0 and again.targets == before.targets
    assert abs(again.weights - before.weights).max() <= 1e-6
    assert (again.scores == before.scores).all()
