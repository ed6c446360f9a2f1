"""The front in a recommendation and in the report, and what tables and objectives add to it."""

import json
from dataclasses import replace

import numpy as np
import pytest
from synthetic_study import synthetic_study

from cuvee.flows.recipe import load
from cuvee.flows.study.table_problem import from_tables
from cuvee.mixtures import recommendation, worlds
from cuvee.mixtures.constraints import constrain
from cuvee.mixtures.errors import DataError, RecipeError
from cuvee.mixtures.inference import pareto
from cuvee.mixtures.inference.diagnostics import RunTable
from cuvee.mixtures.loop import generator, search
from cuvee.mixtures.objectives import Floors, Regret, WeightedMean, Worst
from cuvee.mixtures.recommendation import DISTANCE, Compromise, Front
from cuvee.mixtures.registry import build
from cuvee.tasks.report.page import write_report
from cuvee.tasks.study import tables

WORLD = worlds.Noisy(world=worlds.Additive(size=4, count=2), sd=0.002)
PROBLEM = worlds.world_problem(WORLD)
ONE, TWO = PROBLEM.targets
NAMED = (("natural", PROBLEM.domains.natural), ("uniform", PROBLEM.domains.uniform))


def sample(count=40):
    W = np.random.default_rng(1).dirichlet(np.ones(4), count)
    runs = WORLD([PROBLEM.spec(w, 0) for w in W])
    Y = np.array([[run.scores[t].value for t in PROBLEM.targets] for run in runs])
    return RunTable(W, Y, np.zeros(2))


def front(objective, law="log_linear", constraints=PROBLEM.constraints):
    problem = replace(PROBLEM, objective=objective, constraints=constraints)
    return pareto.report_front(
        build("law", law), problem, sample(), NAMED, np.random.default_rng(0)
    )


@pytest.mark.parametrize("law", ["log_linear", "power", "linear"])
@pytest.mark.parametrize(
    "objective",
    [WeightedMean(((ONE, 1.0), (TWO, 1.0))), WeightedMean(((ONE, 1.0),)), Worst((ONE,))],
    ids=["pair", "distance", "worst"],
)
def test_a_front_has_twenty_points_none_of_which_beats_another(objective, law):
    """Catches a front of draws that are not undominated, and one too thin to be read."""
    found = front(objective, law)
    values = np.array([(p.first, p.second) for p in found.points])
    assert len(values) >= 20
    assert np.all(np.diff(values[:, 0]) > 0) and np.all(np.diff(values[:, 1]) < 0)


def test_the_distance_is_that_from_natural_and_ends_there():
    """Catches KL the wrong way round, and a front that does not reach the natural mixture."""
    found = front(WeightedMean(((ONE, 1.0),)))
    natural = PROBLEM.domains.natural
    assert found.second == DISTANCE and found.distance
    for point in found.points:
        w = np.array(point.weights)
        kl = float(np.sum(np.where(w > 0, w * np.log(np.where(w > 0, w, 1) / natural), 0.0)))
        assert point.second == pytest.approx(kl, abs=1e-9)
    assert found.points[-1].second == pytest.approx(0.0, abs=1e-6)
    assert found.marks[0].second == 0.0 and found.marks[1].name == "uniform"


@pytest.mark.parametrize("law", ["log_linear", "power"])
def test_the_front_keeps_the_constraints(law):
    """Catches points that the recommendation itself would not be allowed."""
    capped = constrain(PROBLEM.domains, full_tokens=1, bounds={"a0": (0.1, 0.3)}, most_kl=0.5)
    for objective in (WeightedMean(((ONE, 1.0),)), WeightedMean(((ONE, 1.0), (TWO, 1.0)))):
        points = np.array([p.weights for p in front(objective, law, capped).points])
        assert capped.satisfied(points, slack=1e-4).all()


def test_the_first_two_parts_are_traded_families_among_them():
    """Catches a front over raw targets where the objective names families."""
    families = (("all", (ONE, TWO)),)
    found = front(Floors((("all", 1.0),), ((TWO, 0.1),), families))
    assert (found.first, found.second) == ("all", TWO)
    both = Regret(((TWO, 1.0), (ONE, 1.0)))
    assert (front(both).first, front(both).second) == (TWO, ONE)


def test_a_recommendation_carries_its_front_through_json():
    """Catches a front that is lost or flattened on the way to a file, and older files refused."""
    method = build("method", {"name": "olmix", "runs": 12, "seeds": 2, "refits": 10})
    found, _ = search(method, PROBLEM, WORLD, 7)
    assert found.front is not None and len(found.front.points) >= 20
    assert [m.name for m in found.front.marks] == [c.name for c in found.candidates]
    back = recommendation.revive_recommendation(json.loads(json.dumps(found.to_json())))
    assert back == found
    old = {k: v for k, v in found.to_json().items() if k != "front"}
    assert recommendation.revive_recommendation(old) == replace(found, front=None)


def shown(front_, folder, **changes):
    study = synthetic_study()
    study = replace(study, recommendation=replace(study.recommendation, front=front_, **changes))
    page, twin = write_report(study, folder)
    return page.read_text(), twin.read_text()


def test_the_report_shows_the_front_as_picture_and_table(tmp_path):
    """Catches a front in one rendering only, or a table that hides its points."""
    rng = np.random.default_rng(2)
    weights = [tuple(map(float, rng.dirichlet(np.ones(8)))) for _ in range(24)]
    points = tuple(Compromise(w, 1 + i / 100, 0.5 - i / 50) for i, w in enumerate(weights))
    mark = Compromise(weights[3], 1.31, 0.4, "natural")
    page, twin = shown(Front("math", DISTANCE, points, (mark,)), tmp_path)
    assert "plots/front.png" in twin and (tmp_path / "plots/front.png").stat().st_size > 9000
    assert "nats of KL" in twin and page.count("<svg") == 7
    for text in ("1.2300", "front 24", "1.3100"):
        assert text in page and text in twin


def test_a_front_of_one_point_is_said_in_a_sentence(tmp_path, quick_pictures):
    """Catches an empty picture where two aims do not compete."""
    point = Compromise((0.125,) * 8, 1.0, 1.0)
    page, twin = shown(Front("math", "code", (point,)), tmp_path)
    assert "do not compete" in page and "plots/front.png" not in twin


def test_unknown_epochs_are_not_zero(tmp_path, quick_pictures):
    """Catches a table of epochs that is filled with numbers nobody knows."""
    _, twin = shown(None, tmp_path, epochs=())
    assert "Epochs at full scale are unknown" in twin


TABLES = """
name: own
tables: {{mixtures: {folder}/m.csv, scores: {folder}/s.csv, {extra}}}
objective: {objective}
constraints: {constraints}
method: {{name: mixing_laws, laws: [log_linear], refits: 10}}
"""


def recipe(
    folder, extra="sizes: {a: 3, b: 1}", objective="{name: mean, weights: {acc: 1}}", **more
):
    rows = [(i / 10, 1 - i / 10) for i in range(11)]
    (folder / "m.csv").write_text(
        "run,a,b\n" + "".join(f"r{i},{a},{b}\n" for i, (a, b) in enumerate(rows))
    )
    (folder / "s.csv").write_text(
        ",run_id,acc,loss\n"
        + "".join(f"{i},r{i},{a / 2},{2 - b}\n" for i, (a, b) in enumerate(rows))
    )
    text = TABLES.format(
        folder=folder, extra=extra, objective=objective, constraints=more.get("constraints", "{}")
    )
    return load.parse(text)


def test_a_score_of_which_more_is_better_is_turned(tmp_path, quick_pictures):
    """Catches a search that minimizes accuracy: a gives all of it."""
    given = recipe(tmp_path, "sizes: {a: 3, b: 1}, higher_is_better: [acc]")
    problem, history = from_tables(given)
    assert history[10].scores["acc"].value == -0.5 and history[10].scores["loss"].value == 2.0
    found = given.build_method().recommend(problem, history, generator(1, 11))
    assert found.weights[0] > 0.95


def test_a_best_score_is_turned_with_its_target(tmp_path):
    """Catches a regret of 0.5 - (-0.5): `best` is written as the scores are."""
    objective = "{name: regret, best: {acc: 0.5, loss: 1.0}}"
    given = recipe(tmp_path, "higher_is_better: [acc]", objective)
    assert dict(given.build_objective().best) == {"acc": -0.5, "loss": 1.0}
    objective = "{name: regret, best: {both: 0.5}, families: {both: [acc, loss]}}"
    with pytest.raises(RecipeError, match="'both' mixes"):
        recipe(tmp_path, "higher_is_better: [acc]", objective)


def test_an_unknown_column_is_named(tmp_path):
    with pytest.raises(DataError, match="'ac'; did you mean 'acc'"):
        from_tables(recipe(tmp_path, "higher_is_better: [ac]"))


@pytest.mark.parametrize(
    ("objective", "kind"),
    [
        ("{name: mean, weights: {both: 1}, families: {both: [acc, loss]}}", WeightedMean),
        ("{name: worst, members: [both, acc], families: {both: [acc, loss]}}", Worst),
        ("{name: floors, weights: {acc: 1}, floors: {loss: 0.1}}", Floors),
    ],
)
def test_every_objective_reaches_a_recipe(tmp_path, objective, kind):
    """Catches a field of an objective that YAML cannot say."""
    given = recipe(tmp_path, objective=objective)
    assert isinstance(given.build_objective(), kind)
    assert from_tables(given)[0].objective.targets == ("acc", "loss")


def test_required_domains_reach_the_feasible_set(tmp_path):
    """Catches a requirement that is parsed and dropped."""
    problem, _ = from_tables(recipe(tmp_path, constraints="{required: {b: 0.2}}"))
    assert problem.constraints.bounds[0].tolist() == [0.0, 0.2]


def test_epoch_caps_need_counts(tmp_path):
    """Catches caps computed from relative sizes, which have no unit."""
    with pytest.raises(RecipeError, match=r"tables\.token_counts"):
        from_tables(recipe(tmp_path, constraints="{epochs: 4}"))


def test_a_number_of_the_row_is_no_score(tmp_path):
    """Catches an unnamed index column that is fitted, and run against run_id refused."""
    recipe(tmp_path)
    read = tables.read_tables(tmp_path / "m.csv", tmp_path / "s.csv")
    assert read.targets == ("acc", "loss") and read.ids[3] == "r3"


def test_a_corpus_needs_its_full_scale():
    """Catches a study whose epochs would be divided by nothing."""
    with pytest.raises(RecipeError, match=r"'full_scale.tokens' is missing"):
        load.parse(
            "name: x\ncorpus: {quickstart: [legal]}\nobjective: {name: mean, weights: {a: 1}}\n"
            "method: {name: regmix}\n"
        )


def test_an_end_of_the_front_is_not_beaten_by_a_tie():
    """The second score hangs on a1 alone, capped at 0.4: all of the rest must go to a0.

    Catches an end that leaves to chance what the first aim would have decided.
    """
    W = sample().W
    Y = np.column_stack([1 + np.exp(-2 * W[:, 0]), 1 + np.exp(-3 * W[:, 1])])
    capped = constrain(PROBLEM.domains, full_tokens=1, bounds={"a1": (0.0, 0.4)})
    problem = replace(PROBLEM, objective=WeightedMean(((ONE, 1.0), (TWO, 1.0))), constraints=capped)
    law, rng = build("law", "log_linear"), np.random.default_rng(0)
    found = pareto.report_front(law, problem, RunTable(W, Y, np.zeros(2)), NAMED, rng)
    last = found.points[-1]
    assert last.second == pytest.approx(1 + np.exp(-1.2), abs=0.01)
    assert last.first == pytest.approx(1 + np.exp(-1.2), abs=0.01)


def test_trees_have_a_cheaper_variant():
    """Catches refits at the full price: ten of them dominate the time of a recommendation."""
    law = build("law", "lightgbm")
    cheap = law.coarse()
    assert (cheap.trees, cheap.rate, cheap.folds) == (250, 0.04, 2)
    assert cheap.trees * cheap.rate == law.trees * law.rate
