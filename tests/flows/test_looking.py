"""A scheduled sweep looks first: what changed, what stands, and what holding it saves."""

import dataclasses
import hashlib
import inspect
import json
import subprocess
from types import SimpleNamespace

import numpy as np
import pytest
import tiny_study
import yaml
from synthetic_study import synthetic_study

from cuvee.flows.execution.prefect_server import PrefectApi
from cuvee.flows.recipe.load import parse
from cuvee.flows.scheduling import schedule
from cuvee.flows.scheduling.deployment import (
    OLD_ENTRYPOINTS,
    _signing_in,
    parse_changes,
    replace_old_entrypoints,
    sweep_deployment,
)
from cuvee.flows.scheduling.schedule import hold_ratios, recipe_with_changes
from cuvee.flows.workspace import Workspace
from cuvee.mixtures.constraints import Constraints
from cuvee.mixtures.constraints.kept_ratios import keep_ratios
from cuvee.mixtures.designs.reuse import Reuse
from cuvee.mixtures.domains import Domain, DomainSet
from cuvee.mixtures.errors import ConstraintError, RecipeError, ServiceError
from cuvee.tasks.store.results import Store
from cuvee.tasks.study.finished import (
    SCORING,
    Snapshot,
    latest_complete,
    save_finished,
    to_finished_study,
)
from cuvee.tasks.study.validity import Present, changes_since, runs_over_groups, unchanged_ratios

TEXTS = {"a": "1", "b": "2", "c": "3", "d": "4"}
SEEN = Snapshot(recipe="r", confirm="c", texts=TEXTS, code="v", date="then")
DATA = {"a": "1t", "b": "2t", "c": "3t", "d": "4t", SCORING: "s"}
ANSWER = SimpleNamespace(domains=tuple("abcd"), weights=(0.1, 0.3, 0.4, 0.2))
STUDY = dataclasses.replace(
    to_finished_study(synthetic_study(), "digest"), data=DATA, snapshot=SEEN
)
BEFORE = dataclasses.replace(STUDY, answer=ANSWER)


def present(data=DATA, scoring="s", **changes) -> Present:
    seen = dataclasses.replace(SEEN, date="later", **changes)
    return Present("digest", {**data, SCORING: scoring}, "maths", snapshot=seen)


def moved(**changes) -> Present:
    return present({name: f"{mark}x" for name, mark in DATA.items()}, **changes)


def test_equal_snapshots_are_no_work():
    """Catches a look that always finds a change, such as the date."""
    assert changes_since(BEFORE, present()) == ()
    assert changes_since(None, present()) == ("no earlier study",)


@pytest.mark.parametrize(("lacking", "more"), [("confirm", {}), ("", {"novel": 1})])
def test_a_snapshot_of_another_version_ends_no_look(tmp_path, lacking, more):
    """Catches a field more or less that ends every look in a TypeError until a person comes.
    404a3ce kept what it saw under the hash of the study's name, with the data in it."""
    store = Store(str(tmp_path))
    save_finished(store, dataclasses.replace(STUDY, snapshot=None))
    values = {k: v for k, v in dataclasses.asdict(SEEN).items() if k != lacking} | more
    mark = hashlib.sha256(json.dumps(STUDY.name).encode()).hexdigest()
    store.remember("latest", mark, {**values, "data": {"a": "1t"}})
    found = latest_complete(store, STUDY.name)
    assert found == (None if lacking else STUDY)
    store.remember("latest", mark, {**values, "data": {"a": "of a text that changed since"}})
    assert latest_complete(store, STUDY.name) is None


@pytest.mark.parametrize("part", ["recipe", "confirm", "scoring", "code"])
def test_each_part_of_a_snapshot_is_looked_at(part):
    """Catches a part that is kept and never compared."""
    assert len(changes_since(BEFORE, present(**{part: "other"}))) == 1


def test_changed_new_and_removed_domains_are_named():
    """Catches one changed domain that hides another, and a removal that goes unseen."""
    now = moved(texts={"a": "1", "b": "2", "c": "9", "e": "5"})
    assert changes_since(BEFORE, now) == ("domain c", "domain e", "domain d (gone)")


def test_files_that_were_touched_are_no_change():
    """Catches texts compared by the times of their files where their tokens are the same."""
    assert changes_since(BEFORE, present(texts={"a": "other"})) == ()


def test_ratios_among_unchanged_domains_stand():
    """Catches ratios over all domains, which the changed one's share would enter."""
    kept = unchanged_ratios(BEFORE, moved(texts={**TEXTS, "c": "9"}))
    assert kept == pytest.approx({"a": 1 / 6, "b": 1 / 2, "d": 1 / 3})


@pytest.mark.parametrize(
    "now",
    [
        moved(texts={**TEXTS, "c": "9"}, recipe="other"),
        moved(texts={**TEXTS, "c": "9"}, code="other"),
        moved(texts={**TEXTS, "c": "9"}, scoring="other"),
        moved(texts={"a": "1", "b": "0", "c": "0", "d": "0"}),
        moved(),
        present(),
    ],
)
def test_nothing_stands_where_more_than_text_changed_or_too_little_is_left(now):
    """Catches ratios kept although they were found for another aim, and a group of one."""
    assert unchanged_ratios(BEFORE, now) == {}


def test_snapshots_come_back_from_the_store_and_outlast_what_is_not_complete(tmp_path):
    """Catches a snapshot that is changed by being kept, which would be a change every week, and a
    sweep that its budget ended, or a fit, taken for one that trained all it asked for."""
    store = Store(str(tmp_path))
    assert latest_complete(store, STUDY.name) is None
    save_finished(store, STUDY)
    assert latest_complete(store, STUDY.name) == STUDY
    save_finished(store, dataclasses.replace(STUDY, recipe="another", snapshot=None))
    save_finished(store, dataclasses.replace(STUDY, snapshot=None), fit=True)
    assert latest_complete(store, STUDY.name) == STUDY


def test_a_design_shrinks_with_what_is_drawn():
    """Catches runs that do not shrink, grow, or shrink to nothing."""
    assert runs_over_groups(64, 8, 4) == 32 and runs_over_groups(64, 8, 8) == 64
    assert runs_over_groups(20, 10, 2) == 8 and runs_over_groups(6, 10, 2) == 6


def test_held_ratios_bind_candidates_and_projection():
    """Catches limits with a sign missing: half of the candidates would drift from the ratio."""
    domains = DomainSet(tuple(Domain(name, 10**6, 10**6, name) for name in "abcd"))
    kept = {"a": 0.1, "b": 0.3, "d": 0.2}
    constraints = keep_ratios(Constraints(domains=domains.names), kept)
    W = Reuse((kept,)).draw(domains, constraints, 12, np.random.default_rng(0))
    assert np.allclose(W[:, 1], 3 * W[:, 0]) and np.allclose(W[:, 3], 2 * W[:, 0])
    assert np.ptp(W[:, 2]) > 0.3
    near = constraints.project(np.array([0.0, 0.5, 0.0, 0.5]))
    assert near[1] == pytest.approx(3 * near[0], abs=1e-6)
    assert not constraints.satisfied(np.array([0.25, 0.25, 0.25, 0.25]))
    for wrong in ({"a": 1.0}, {"a": 1.0, "x": 1.0}, {"a": 1.0, "b": 0.0}):
        with pytest.raises(ConstraintError, match="kept ratios"):
            keep_ratios(Constraints(domains=domains.names), wrong)


def test_reuse_makes_a_recipe_that_holds_ratios_and_says_what_it_saves(tmp_path):
    """Catches a saving that is claimed and not made, and a recipe that cannot be run again."""
    text = tiny_study.recipe(tmp_path, method="{name: mixing_laws, runs: 24, seeds: 2}")
    changed, note = hold_ratios(parse(text), text, {"code": 0.25, "prose": 0.75}, "2026-01-05")
    recipe = parse(changed)
    assert recipe.method["runs"] == 16 and recipe.method["design"]["name"] == "reuse"
    assert recipe.constraints.ratios == [{"code": 0.25, "prose": 0.75}]
    assert "16 runs were drawn in place of 24" in note and "33%" in note and "FLOPs" in note
    assert "code, prose" in note and "2026-01-05" in note
    assert hold_ratios(recipe, changed, {"code": 0.5, "tables": 0.5}, "") == (changed, "")


def test_a_run_of_a_schedule_can_change_fields(tmp_path):
    """Catches changes that are dropped, and ones that make a recipe of nonsense."""
    text = tiny_study.recipe(tmp_path)
    recipe, changed = recipe_with_changes(
        text, {"seed": 7, "proxy.tokens": "90000", "method.runs": 9}
    )
    assert (recipe.seed, recipe.proxy.tokens, recipe.method["runs"]) == (7, 90000, 9)
    assert parse(changed) == recipe and yaml.safe_load(changed)["proxy"]["size"] == "0.3M"
    with pytest.raises(RecipeError, match="did you mean 'tokens'"):
        recipe_with_changes(text, {"proxy.token": 5})
    with pytest.raises(RecipeError, match="no mapping"):
        recipe_with_changes(text, {"seed.x": 5})


def test_a_deployment_names_the_flow_by_its_module_and_bounds_it(tmp_path):
    """Catches an entrypoint that is a file, and a schedule that piles up sweeps."""
    text = tiny_study.recipe(tmp_path, schedule="{cron: 0 5 * * 2, timezone: Europe/Paris}")
    recipe = parse(text)
    made = sweep_deployment(recipe, text, tmp_path, cron="", parameters='{"seed": 5}')
    assert (
        made.entrypoint == "cuvee.flows.scheduling.schedule.scheduled_sweep"
        and made.concurrency_limit == 1
    )
    assert made.schedules[0].schedule.cron == "0 5 * * 2"
    assert made.schedules[0].schedule.timezone == "Europe/Paris"
    assert made.parameters == {"recipe": text, "home": str(tmp_path), "changes": {"seed": 5}}
    other = sweep_deployment(recipe, text, tmp_path, cron="0 3 * * 1", parameters="{}")
    assert other.schedules[0].schedule.cron == "0 3 * * 1"
    for cron, parameters, said in (
        ("every day", "{}", r"'every day' in .* is none: give five fields[^:]*$"),
        ("", "{", "JSON"),
        ("", "[1]", "JSON object"),
    ):
        with pytest.raises(RecipeError, match=said):
            sweep_deployment(recipe, text, tmp_path, cron=cron, parameters=parameters)
    plain = tiny_study.recipe(tmp_path)
    with pytest.raises(RecipeError, match="no schedule"):
        sweep_deployment(parse(plain), plain, tmp_path, cron="", parameters="{}")
    assert parse_changes(json.dumps({"a": 1})) == {"a": 1}


@pytest.mark.slow
def test_deployments_of_earlier_versions_are_pointed_at_this_one(tmp_path, monkeypatch):
    """Catches schedules that fail for good after an upgrade, because the module of their flow has
    moved; and ones that lose their parameters by being renewed, or are not ours."""
    from prefect.client.orchestration import get_client

    from cuvee.flows.execution.prefect_session import prefect_session

    text = tiny_study.recipe(tmp_path, schedule="{cron: 0 5 * * 2}")
    with prefect_session(PrefectApi(tmp_path / "api")) as url:
        monkeypatch.setenv("PREFECT_API_URL", url)
        ids = {}
        for name, entrypoint, tags in (
            ("old", OLD_ENTRYPOINTS[0], ["cuvee"]),
            ("flat", OLD_ENTRYPOINTS[1], ["cuvee"]),
            ("new", None, ["cuvee"]),
            ("other", OLD_ENTRYPOINTS[0], ["theirs"]),
        ):
            made = sweep_deployment(parse(text), text, tmp_path, cron="", parameters='{"seed": 5}')
            made.name, made.tags = name, tags
            made.entrypoint = entrypoint or made.entrypoint
            ids[name] = made.apply()
        assert sorted(replace_old_entrypoints()) == ["scheduled-sweep/flat", "scheduled-sweep/old"]
        assert replace_old_entrypoints() == []
        with get_client(sync_client=True) as client:
            found = {name: client.read_deployment(ids[name]) for name in ids}
    new = "cuvee.flows.scheduling.schedule.scheduled_sweep"
    assert {found[name].entrypoint for name in ("old", "flat", "new")} == {new}
    assert found["other"].entrypoint == OLD_ENTRYPOINTS[0]
    assert found["old"].parameters["changes"] == {"seed": 5}
    assert found["old"].schedules[0].schedule.cron == "0 5 * * 2"


def test_wrong_input_is_not_tried_again_and_what_passes_is(monkeypatch):
    """Catches Prefect's own retries, which take a returned failure for one to be overcome, and a
    hook that Prefect cannot call: it gives its arguments by name."""
    assert list(inspect.signature(schedule.notify).parameters) == ["flow", "flow_run", "state"]
    assert not schedule.scheduled_sweep.retries
    waits, asked = [], []

    def sweep(error):
        def fail(*_):
            asked.append(error)
            raise error

        monkeypatch.setattr(schedule, "recipe_with_changes", fail)
        return schedule.scheduled_sweep.fn("recipe").message

    monkeypatch.setattr(schedule.time, "sleep", waits.append)
    assert sweep(RecipeError("no such field")) == "no such field" and not waits and len(asked) == 1
    assert sweep(ServiceError("away")) == "away"
    assert waits == [schedule.RETRY_SECONDS] * schedule.RETRIES and len(asked) == 4


def test_two_schedules_of_one_home_each_print_a_line_that_signs_in(tmp_path):
    """Catches a file of one name, which the second schedule takes from the first."""
    folder = tmp_path / "prefect-api"
    folder.mkdir()
    api = SimpleNamespace(secret="cuvee:one")  # all that is read of a server, which takes seconds
    with _signing_in(api, tmp_path, "http://127.0.0.1:4301/api") as first:
        with _signing_in(api, tmp_path, "http://127.0.0.1:4302/api"):
            pass
        done = subprocess.run(
            ["sh", "-c", f'{first} sh -c \'echo "$PREFECT_API_AUTH_STRING"\''],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert done.stdout == "cuvee:one\n"
    assert not [*folder.iterdir()]


@pytest.mark.parametrize("tasks", ["[]", "[hellaswag]"])
def test_a_scheduled_sweep_obeys_the_users_hub_as_a_run_does(tmp_path, monkeypatch, tasks):
    """Catches a recipe that runs by hand and is put off line by its schedule."""
    text = tiny_study.recipe(tmp_path, evaluation=f"{{suite: null, tasks: {tasks}}}")
    asked = []
    monkeypatch.setattr(
        schedule, "open_workspace", lambda home, hub=False: asked.append(hub) or Workspace(home)
    )
    monkeypatch.setattr(schedule, "_sweep", lambda *given: None)
    schedule.scheduled_sweep.fn(text, str(tmp_path))
    assert asked == [bool(tasks != "[]")]
