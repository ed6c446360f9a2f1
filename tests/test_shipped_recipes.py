"""Shipped recipes: each is sound, every method has one and goes through a whole study."""

import dataclasses
import json
import sqlite3

import pytest
import shipped

from cuvee.mixtures.registry import lookup, names

FIELDS = {"trials": 2, "seeds": 2, "rounds": 2, "updates": 3, "interval": 1}  # what makes one small
MORE = {"doge": {"rule": "grape", "interval": 5}, "aioli": {"stages": 2}}  # ways of their own


def fields(name):
    return {field.name for field in dataclasses.fields(lookup("method", name))}


TRIALS = [name for name in names("method") if "laws" not in fields(name)]


@pytest.mark.parametrize("path", shipped.PATHS, ids=lambda path: path.stem)
def test_shipped_recipes_are_sound(path):
    """Catches a field that was renamed under a recipe, and a study that is named like another."""
    found, _ = shipped.recipe(path.stem)
    assert found.name == path.stem and found.build_method()


@pytest.mark.parametrize("name", TRIALS)
def test_every_method_without_a_law_has_a_recipe(name):
    """Catches a method that is registered and shown to nobody."""
    found, _ = shipped.recipe(name)
    assert found.method["name"] == name


@pytest.mark.slow
def test_every_method_without_a_law_goes_through_a_study(tmp_path, prefect_api, ray_cluster):
    """Real text, real proxies, Ray, Prefect and MLflow: catches a method that lives on worlds
    only, baselines that are trained again for each, and trajectories that no record holds."""
    import tiny_study
    from tiny_study import run

    from cuvee.flows.workspace import Workspace

    tiny_study.write_corpus(tmp_path / "corpus")
    home = Workspace(tmp_path / "home")
    trained = {}
    for name in TRIALS:
        small = {field: value for field, value in FIELDS.items() if field in fields(name)}
        method = json.dumps({"name": name, **small, **MORE.get(name, {})})
        changes = {"name": name, "method": method, "confirm": "{seeds: 2}"}
        text = tiny_study.recipe(tmp_path / "corpus", **changes)
        trained[name] = run(text, home, prefect_api)
    again = run(text, home, prefect_api)
    assert again["trained_now"] == 0 and again["weights"] == trained[TRIALS[-1]]["weights"]
    for name, summary in trained.items():
        assert summary["failed"] == 0 and sum(summary["weights"].values()) == pytest.approx(1)
        report = (home.study(name) / "report.md").read_text()
        assert "No law was fitted" in report and "What the trial measured" in report
        assert "The law predict" not in report and "redicted gain" not in report
        assert (home.study(name) / "skills.json").exists() == (name == "skill_it")
    assert trained["odm"]["trained_now"] == 2 + 2 + 2  # controlled, trial, confirmation
    with sqlite3.connect(home.record / "mlflow.db") as base:
        keys = {key for (key,) in base.execute("select distinct key from metrics")}
    assert {f"trajectory/{name}" for name in ("code", "prose", "tables")} <= keys
