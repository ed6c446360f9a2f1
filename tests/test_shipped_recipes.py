"""Shipped recipes: each is sound, every method has one and goes through a whole study."""

import sqlite3
from pathlib import Path

import pytest

from cuvee.flows.recipe.schema import parse

FLOWS = {
    "static": "{name: static, trials: 2}",
    "doremi": "{name: doremi, rounds: 1, seeds: 2, trials: 2}",
    "skill_it": "{name: skill_it, seeds: 2, trials: 2, updates: 3}",
    "odm": "{name: odm, seeds: 2, trials: 2}",
    "ado": "{name: ado, seeds: 2, trials: 2, interval: 1}",
    "doge": "{name: doge, rule: grape, seeds: 2, trials: 2, interval: 5}",
    "mixmin": "{name: mixmin, seeds: 2, trials: 2}",
    "aioli": "{name: aioli, rounds: 2, seeds: 2, trials: 2, stages: 2}",
}
RECIPES = sorted((Path(__file__).parent.parent / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_shipped_recipes_are_sound(path):
    """Catches a field that was renamed under a recipe, and a study that is named like another."""
    found = parse(path.read_text(encoding="utf-8"), path.name)
    assert found.name == path.stem and found.build_method()


@pytest.mark.parametrize("name", FLOWS)
def test_every_method_has_a_recipe(name):
    found = parse((RECIPES[0].parent / f"{name}.yaml").read_text(encoding="utf-8"))
    assert found.method["name"] == name


@pytest.mark.slow
def test_every_method_goes_through_a_study(tmp_path):
    """Real text, real proxies, Ray, Prefect and MLflow: catches a method that lives on worlds
    only, baselines that are trained again for each, and trajectories that no record holds."""
    import ray
    import tiny_study

    from cuvee.flows.execution.prefect_session import PrefectApi
    from cuvee.flows.study import run
    from cuvee.flows.workspace import Workspace

    tiny_study.write_corpus(tmp_path / "corpus")
    home = Workspace(tmp_path / "home")
    trained = {}
    try:
        with PrefectApi(tmp_path / "prefect") as api:
            for name, method in FLOWS.items():
                changes = {"name": name, "method": method, "confirm": "{seeds: 2}"}
                text = tiny_study.recipe(tmp_path / "corpus", **changes)
                trained[name] = run(text, home, api)
            again = run(text, home, api)
    finally:
        ray.shutdown()
    assert again["trained_now"] == 0 and again["weights"] == trained["aioli"]["weights"]
    for name, summary in trained.items():
        assert summary["failed"] == 0 and sum(summary["weights"].values()) == pytest.approx(1)
        report = (home.study(name) / "report.md").read_text()
        assert "no law was fitted" in report and "What the trial measured" in report
        assert "The law predict" not in report and "redicted gain" not in report
        assert (home.study(name) / "skills.json").exists() == (name == "skill_it")
    assert trained["odm"]["trained_now"] == 2 + 2 + 2  # controlled, trial, confirmation
    with sqlite3.connect(home.record / "mlflow.db") as base:
        keys = {key for (key,) in base.execute("select distinct key from metrics")}
    assert {f"trajectory/{name}" for name in ("code", "prose", "tables")} <= keys
