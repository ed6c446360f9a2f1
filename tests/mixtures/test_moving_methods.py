"""Methods that move weights: what they ask for, and what they answer."""

import dataclasses
import json

import numpy as np
import pytest

from cuvee.mixtures import recommendation, skill_graph, worlds
from cuvee.mixtures.errors import EvidenceError, RecipeError
from cuvee.mixtures.inference.diagnostics import paired_mean
from cuvee.mixtures.loop import generator, search
from cuvee.mixtures.methods import controlled as moving
from cuvee.mixtures.methods.doremi import DoReMi
from cuvee.mixtures.methods.skill_it import SkillIt
from cuvee.mixtures.objectives import WeightedMean
from cuvee.mixtures.runs.run_results import Failed, RunResult, Score
from cuvee.mixtures.skill_graph import SkillGraph
from cuvee.mixtures.worlds.training import training_losses

WORLD = worlds.Noisy(world=worlds.Learning(size=4), sd=0.003)
TASK = worlds.world_problem(WORLD)


def test_doremi_asks_for_a_reference_then_for_runs_that_name_it():
    """Catches a controlled run without a reference, or with another mixture's or start."""
    method = DoReMi(rounds=2, seeds=2, trials=2)
    first = method.ask(TASK, (), generator(0, 0))
    assert len(first) == 4  # the reference is the natural baseline's first seed
    history = tuple(WORLD(first))
    controlled = method.ask(TASK, history, generator(0, 1))
    natural = next(s for s in first if np.allclose(s.weights, TASK.domains.natural) and not s.seed)
    assert [s.seed for s in controlled] == [0, 1]
    for spec in controlled:
        config = json.loads(spec.controller)
        assert config["name"] == "group_dro" and spec.reference == natural.fingerprint
        assert config["reference"] == pytest.approx(TASK.domains.natural)
        assert np.allclose(spec.weights, TASK.domains.uniform)


def test_doremi_goes_on_from_its_answer_until_no_share_moves():
    """Round 2's reference is round 1's answer; a generous tolerance ends after one round."""
    method = DoReMi(rounds=3, seeds=2, trials=2, tolerance=1e-9)
    found, history = search(method, TASK, WORLD, 0)
    controlled = [run for run in history if run.spec.controller]
    assert len(controlled) == 6
    answer = np.mean([moving.mean_weights(run, 1)[0] for run in controlled[:2]], axis=0)
    reference = next(run for run in history if run.spec.fingerprint == controlled[2].spec.reference)
    assert reference.spec.weights == pytest.approx(answer) and reference.spec.seed == 0
    last = np.mean([moving.mean_weights(run, 1)[0] for run in controlled[4:]], axis=0)
    assert found.weights == pytest.approx(last)
    assert found.verdict.startswith("weak") and "no convergence" in found.warnings[0]
    _, short = search(dataclasses.replace(method, tolerance=1.0), TASK, WORLD, 0)
    assert sum(bool(run.spec.controller) for run in short) == 2


def test_doremi_lowers_the_worst_excess_over_the_reference():
    """What group DRO is for: one-sided over 8 worlds, catches weights of the wrong sign. Gentle
    steps; at the published rate of 1 the mean gain is as large and single worlds overshoot."""
    gains = []
    for seed in range(8):
        world = worlds.Learning(size=5, seed=seed)
        task = worlds.world_problem(world)
        found, _ = search(DoReMi(rounds=1, seeds=2, trials=2, rate=0.05), task, world, 0)
        mixtures = (task.domains.natural, task.domains.uniform, found.weights)
        natural, uniform, ours = (training_losses(world, task.domains, w, 1.0) for w in mixtures)
        gains.append(float((uniform - natural).max() - (ours - natural).max()))
    assert paired_mean(gains).p < 0.05, gains


def test_a_failed_reference_ends_the_method_and_a_failed_seed_does_not():
    method = DoReMi(rounds=1, seeds=3, trials=2)

    def without(bad):
        return lambda specs: [Failed(s, "diverged") if bad(s) else WORLD((s,))[0] for s in specs]

    natural = TASK.domains.natural

    def is_reference(spec):
        return spec.seed == 0 and not spec.controller and np.allclose(spec.weights, natural)

    with pytest.raises(EvidenceError, match="no reference run finished.*diverged"):
        search(method, TASK, without(is_reference), 0)
    one = without(lambda spec: bool(spec.controller) and spec.seed == 1)
    found, _ = search(method, TASK, one, 0)
    assert found.failed == 1 and any("1 runs failed" in text for text in found.warnings)


def test_the_skill_graph_finds_what_teaches_what():
    """Against the transfer of the world: catches rows and columns that are exchanged."""
    world = worlds.Learning(size=5, transfer=0.9, seed=2)
    task = worlds.world_problem(world)
    history = tuple(world(skill_graph.graph_runs(task, "single", 0)))
    graph = skill_graph.estimate_graph(task, history, "single", task.targets, 0)
    edges, related = np.array(graph.edges), world.related
    for j in range(5):  # column j: what helps skill j, in the order of row j of the transfer
        others = [i for i in range(5) if i != j]
        strongest = max(others, key=lambda i, j=j: related[j, i])
        if related[j, strongest] > 0.2:
            assert max(others, key=lambda i, j=j: edges[i, j]) == strongest
        assert edges[:, j].argmax() == j and edges[:, j].min() == 0
    dot = graph.dot()
    assert dot.startswith("digraph") and '"a0" [shape=box]' in dot
    assert set(graph.ordering) == set(task.domains.names)


def test_a_drawing_of_skills_shows_strong_edges_between_different_skills():
    """Catches a skill's own edge setting the scale, targets drawn apart from their domains, and
    names that break the language."""
    graph = SkillGraph(
        rows=("law", 'a "b"'),
        columns=("domain/law", "task/mmlu"),
        edges=((0.9, 0.4), (0.2, 0.05)),
    )
    assert graph.nodes == ("law", 'a "b"', "task/mmlu")
    # of 0.9 (its own), 0.4, 0.2 and 0.05: the strongest between skills is 0.4, a quarter of it 0.1
    assert graph.strong == (("law", "task/mmlu", 0.4), ('a "b"', "law", 0.2))
    assert '"a \\"b\\"" -> "law" [penwidth=2.00' in graph.dot()
    assert json.loads(graph.text())["ordering"] == ["law", 'a "b"']


def test_a_skill_graph_by_hand():
    """Losses of three skills alone and in pairs; the edges are parts of a loss."""
    task = worlds.world_problem(worlds.Learning(size=2))
    targets = ("target/0", "target/1")

    def result(spec, values):
        scores = {t: Score(v, 0.0, 1) for t, v in zip(targets, values, strict=True)}
        return RunResult(spec, scores)

    first, second, both = skill_graph.graph_runs(task, "pairwise", 0)
    alone = (result(first, (1.0, 4.0)), result(second, (2.0, 2.0)))
    single = skill_graph.estimate_graph(task, alone, "single", targets, 0)
    # the least help to skill 0 is 2.0, to skill 1 is 4.0: (2 - 1) / 2, 0; 0, (4 - 2) / 4
    assert single.edges == ((0.5, 0.0), (0.0, 0.5))
    history = (*alone, result(both, (0.9, 2.5)))
    # half of 1 with 0 takes 0's loss from 1.0 to 0.9; 1's own 2.0 is not reached: no edge
    pairs = skill_graph.estimate_graph(task, history, "pairwise", targets, 0)
    assert np.array(pairs.edges) == pytest.approx(np.array([[0.5, 0.0], [0.1, 0.5]]))
    with pytest.raises(EvidenceError, match="lacks 1 of 3 runs, the first on a0 and a1"):
        skill_graph.estimate_graph(task, alone, "pairwise", targets, 0)
    ordered = skill_graph.graph_runs(task, "continual", 0)
    assert [s.weights.tolist() for s in ordered[2:]] == [[0.5, 0.5], [0.5, 0.5]]
    assert [s.stages[0].weights for s in ordered[2:]] == [(1.0, 0.0), (0.0, 1.0)]


@pytest.mark.parametrize("kind", skill_graph.KINDS)
def test_skill_it_runs_with_every_kind_of_graph(kind):
    found, history = search(SkillIt(graph=kind, seeds=2, trials=2), TASK, WORLD, 0)
    runs = {"single": 4, "pairwise": 4 + 6, "continual": 4 + 12}[kind]
    assert len(history) == runs + 4 + 2 + 2
    config = json.loads(next(r.spec.controller for r in history if r.spec.controller))
    assert np.array(config["graph"]).shape == (4, 4) and not config["averaged"]
    graph = found.skills
    assert graph is not None and np.array(graph.edges).shape == (4, 4)
    assert not any("skills" in text for text in found.warnings)
    assert recommendation.revive_recommendation(json.loads(json.dumps(found.to_json()))) == found


def test_skill_it_follows_the_objective():
    """A target set: its columns alone, weighed as the objective weighs them, and averaged."""
    wanted = WeightedMean({"target/1": 3.0, "target/2": 1.0})
    task = dataclasses.replace(TASK, objective=wanted)
    method = SkillIt(seeds=2, trials=2)
    found, history = search(method, task, WORLD, 0)
    config = json.loads(next(r.spec.controller for r in history if r.spec.controller))
    graph = np.array(method.estimate(task, history).edges)
    assert config["evaluated"] == ["target/1", "target/2"] and config["averaged"]
    assert np.array(config["graph"]) == pytest.approx(graph * [1.5, 0.5])
    assert found.weights[1] > 0.25


def test_what_is_followed_while_training_is_held_out_text():
    names = ("domain/a", "domain/b", "task/x")
    task = dataclasses.replace(TASK, targets=names, objective=WeightedMean({"task/x": 1.0}))
    assert moving.followed_targets(task) == ("domain/a", "domain/b")
    both = WeightedMean({"task/x": 1.0, "domain/b": 1.0})
    assert moving.followed_targets(dataclasses.replace(task, objective=both)) == ("domain/b",)
    with pytest.raises(RecipeError, match="the study measures tasks only"):
        moving.followed_targets(dataclasses.replace(task, targets=("task/x",)))
