"""Methods that move weights: what they ask for, what they answer, and what they warn of."""

import dataclasses
import json
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from flows.recipe import parse
from mixtures import recommendation, simplex, skills, worlds
from mixtures.constraints import constrain
from mixtures.diagnostics import paired
from mixtures.domains import Domain, DomainSet
from mixtures.errors import EvidenceError, RecipeError, UnknownName
from mixtures.history import Failed, RunResult, Score
from mixtures.loop import generator, search
from mixtures.methods import moving
from mixtures.methods.alarms import alarms, converted, units
from mixtures.methods.doremi import DoReMi
from mixtures.methods.odm import Odm
from mixtures.methods.skill_it import SkillIt
from mixtures.methods.static import Static, unimax
from mixtures.methods.trial import student
from mixtures.objectives import WeightedMean
from mixtures.registry import build
from mixtures.skills import SkillGraph
from mixtures.worlds.training import losses

WORLD = worlds.Noisy(world=worlds.Learning(size=4), sd=0.003)
TASK = worlds.problem(WORLD)


def domain_set(bytes_per_token=(4, 4, 4, 4, 4), documents=(1, 1, 1, 1, 1)):
    return DomainSet(
        tuple(
            Domain(f"d{i}", 1000, 1000 * b, f"id{i}", documents=n)
            for i, (b, n) in enumerate(zip(bytes_per_token, documents, strict=True))
        )
    )


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
    answer = np.mean([moving.stretches(run, 1)[0] for run in controlled[:2]], axis=0)
    reference = next(run for run in history if run.spec.fingerprint == controlled[2].spec.reference)
    assert reference.spec.weights == pytest.approx(answer) and reference.spec.seed == 0
    last = np.mean([moving.stretches(run, 1)[0] for run in controlled[4:]], axis=0)
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
        task = worlds.problem(world)
        found, _ = search(DoReMi(rounds=1, seeds=2, trials=2, rate=0.05), task, world, 0)
        mixtures = (task.domains.natural, task.domains.uniform, found.weights)
        natural, uniform, ours = (losses(world, task.domains, w, 1.0) for w in mixtures)
        gains.append(float((uniform - natural).max() - (ours - natural).max()))
    assert paired(gains).p < 0.05, gains


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
    task = worlds.problem(world)
    history = tuple(world(skills.specs(task, "single", 0)))
    graph = skills.estimate(task, history, "single", task.targets, 0)
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
    task = worlds.problem(worlds.Learning(size=2))
    targets = ("target/0", "target/1")

    def result(spec, values):
        scores = {t: Score(v, 0.0, 1) for t, v in zip(targets, values, strict=True)}
        return RunResult(spec, scores)

    first, second, both = skills.specs(task, "pairwise", 0)
    alone = (result(first, (1.0, 4.0)), result(second, (2.0, 2.0)))
    single = skills.estimate(task, alone, "single", targets, 0)
    # the least help to skill 0 is 2.0, to skill 1 is 4.0: (2 - 1) / 2, 0; 0, (4 - 2) / 4
    assert single.edges == ((0.5, 0.0), (0.0, 0.5))
    history = (*alone, result(both, (0.9, 2.5)))
    # half of 1 with 0 takes 0's loss from 1.0 to 0.9; 1's own 2.0 is not reached: no edge
    pairs = skills.estimate(task, history, "pairwise", targets, 0)
    assert np.array(pairs.edges) == pytest.approx(np.array([[0.5, 0.0], [0.1, 0.5]]))
    with pytest.raises(EvidenceError, match="lacks 1 of 3 runs, the first on a0 and a1"):
        skills.estimate(task, alone, "pairwise", targets, 0)
    ordered = skills.specs(task, "continual", 0)
    assert [s.weights.tolist() for s in ordered[2:]] == [[0.5, 0.5], [0.5, 0.5]]
    assert [s.stages[0].weights for s in ordered[2:]] == [(1.0, 0.0), (0.0, 1.0)]


@pytest.mark.parametrize("kind", skills.KINDS)
def test_skill_it_runs_with_every_kind_of_graph(kind):
    found, history = search(SkillIt(graph=kind, seeds=2, trials=2), TASK, WORLD, 0)
    runs = {"single": 4, "pairwise": 4 + 6, "continual": 4 + 12}[kind]
    assert len(history) == runs + 4 + 2 + 2
    config = json.loads(next(r.spec.controller for r in history if r.spec.controller))
    assert np.array(config["graph"]).shape == (4, 4) and not config["averaged"]
    graph = found.skills
    assert graph is not None and np.array(graph.edges).shape == (4, 4)
    assert not any("skills" in text for text in found.warnings)
    assert recommendation.from_json(json.loads(json.dumps(found.to_json()))) == found


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
    assert moving.measurable(task) == ("domain/a", "domain/b")
    both = WeightedMean({"task/x": 1.0, "domain/b": 1.0})
    assert moving.measurable(dataclasses.replace(task, objective=both)) == ("domain/b",)
    with pytest.raises(RecipeError, match="the study measures tasks only"):
        moving.measurable(dataclasses.replace(task, targets=("task/x",)))


def controlled_run(trajectory, tokens=100):
    spec = moving.controlled(TASK, build("controller", "exp3"), TASK.domains.uniform, 0)
    return RunResult(spec, {}, trajectory=trajectory, tokens=(tokens, 0, 0, 0))


def test_a_trajectory_is_averaged_over_tokens():
    """Not over its points: 10 tokens at one corner, 90 at another; in two stages 10 + 40 and 50."""
    run = controlled_run(((0, (1.0, 0.0, 0.0, 0.0)), (10, (0.0, 1.0, 0.0, 0.0))))
    assert moving.stretches(run, 1)[0] == pytest.approx([0.1, 0.9, 0, 0])
    assert moving.stretches(run, 2) == pytest.approx(np.array([[0.2, 0.8, 0, 0], [0, 1, 0, 0]]))
    with pytest.raises(EvidenceError, match="no trajectory"):
        moving.stretches(controlled_run(()), 1)


def test_an_answer_in_stages_is_tried_in_stages():
    """A schedule: its mean is what a fixed mixture would be, and its trial trains the stages."""
    found, history = search(Odm(seeds=2, trials=2, stages=3), TASK, WORLD, 0)
    fixed, _ = search(Odm(seeds=2, trials=2), TASK, WORLD, 0)
    assert len(found.stages) == 3 and found.weights == pytest.approx(fixed.weights)
    tried = [run.spec for run in history if len(run.spec.stages) == 3]
    assert [spec.stages for spec in tried] == [found.stages] * 2
    assert found.trajectory and len(fixed.trajectory) == len(found.trajectory)


def test_an_answer_keeps_the_constraints_and_says_so():
    capped = constrain(TASK.domains, full_tokens=1, bounds={"a3": (0.6, 1.0)})
    task = dataclasses.replace(TASK, constraints=capped)
    found, _ = search(Odm(seeds=2, trials=2), task, WORLD, 0)
    assert capped.satisfied(found.weights) and found.active
    assert any("break a constraint" in text for text in found.warnings)


def test_gains_are_paired_by_seed():
    """A shift that seeds share must not widen the interval; catches differences of means."""

    def evaluate(specs):
        runs = WORLD(specs)
        shifted = []
        for run in runs:
            scores = {
                t: Score(s.value + 10.0 * run.spec.seed, 0.0, 1) for t, s in run.scores.items()
            }
            shifted.append(dataclasses.replace(run, scores=scores))
        return shifted

    found, history = search(Odm(seeds=2, trials=3), TASK, evaluate, 0)
    gain = dict(found.gains)["uniform"]
    levels = {}
    for run in history:
        if not run.spec.controller:
            level = np.mean([s.value for s in run.scores.values()])
            levels[tuple(np.round(run.spec.weights, 6)), run.spec.seed] = level
    ours, uniform = (tuple(np.round(w, 6)) for w in (found.weights, TASK.domains.uniform))
    pairs = [levels[uniform, s] - levels[ours, s] for s in range(3)]
    assert gain.mean == pytest.approx(np.mean(pairs)) and gain.high - gain.low < 0.1
    own = found.candidate("recommended").objective
    assert own.high - own.low > 10  # over seeds it is wide, and says so


def test_students_interval_by_hand():
    """t(0.95, 2) = 2.919986; the mean of 1, 2, 3 has a standard error of 1 / sqrt(3)."""
    found = student(np.array([1.0, 2.0, 3.0]))
    assert found.mean == 2.0 and found.high == pytest.approx(2 + 2.919986 / 3**0.5)
    assert student(np.array([4.0])).low == 4.0


def test_alarms_by_hand():
    """Each alarm alone; catches a threshold read the wrong way round."""
    domains = domain_set()
    even = np.full(5, 0.2)
    calm = np.array([even, even])
    assert alarms(domains, even, calm, calm) == ()
    hot = np.array([[0.92, 0.02, 0.02, 0.02, 0.02]] * 2)
    assert [text.split(":")[0] for text in alarms(domains, even, hot, calm)] == [
        "one-hot weights",
        "entropy collapse",
    ]
    fallen = np.array([even, [0.96, 0.01, 0.01, 0.01, 0.01]])
    (collapse,) = alarms(domains, even, calm, fallen)
    # 0.96 ln 0.96 + 4 x 0.01 ln 0.01 = -0.2234, of which exp is 1.2503
    assert collapse.startswith("entropy collapse") and "1.3 of 5" in collapse
    apart = np.array([[0.4, 0.15, 0.15, 0.15, 0.15], [0.1, 0.225, 0.225, 0.225, 0.225]])
    (text,) = alarms(domains, even, apart, calm)
    assert text == "seeds disagree: the share of d0 is between 10.0% and 40.0%"


def test_weights_that_follow_the_tokenizer_alarm():
    """Shares that fall with bytes per token alarm; the same shares over even text do not."""
    falling = np.array([[0.4, 0.25, 0.15, 0.12, 0.08]] * 2)
    even = np.full(5, 0.2)
    (text,) = alarms(domain_set((2, 3, 4, 5, 6)), even, falling, falling)
    assert text.startswith("weights follow the tokenizer") and "-1.00" in text
    assert alarms(domain_set(), even, falling, falling) == ()


def test_shares_are_converted_by_hand():
    """Half of the tokens at 4 and half at 12 bytes per token are a quarter and three quarters."""
    domains = DomainSet(
        (
            Domain("a", 1000, 4000, "x", documents=10),
            Domain("b", 1000, 12000, "y", documents=10),
        )
    )
    assert converted(domains, np.array([0.5, 0.5]), "bytes") == pytest.approx([0.25, 0.75])
    assert units(domains, np.array([0.5, 0.5])) == (
        "these shares of tokens are other shares of bytes: a 25.0%, b 75.0%",
    )
    with pytest.raises(RecipeError, match="bytes or documents"):
        converted(domains, np.array([0.5, 0.5]), "words")


def test_unimax_by_hand():
    """Caps 4 x (10, 100, 1000) = 40, 400, 4000 and a budget of 1000: 40, then 480 each way is
    above 400, so 400 and the rest, 560. Catches caps that are ignored or a budget that is lost."""
    sizes = (1000, 10, 100)
    domains = DomainSet(tuple(Domain(f"d{n}", n, n, f"i{n}") for n in sizes))
    assert unimax(domains, 1000, 4.0) == pytest.approx(np.array([560, 40, 400]) / 1000)
    assert unimax(domains, 10_000, 4.0) == pytest.approx(np.array(sizes) / 1110)
    assert unimax(domains, 15, 4.0) == pytest.approx(np.full(3, 1 / 3))


def test_static_runs_every_baseline_and_recommends_the_best_measured():
    found, history = search(Static(trials=3), TASK, WORLD, 0)
    assert len(history) == 3 * 3  # here unimax is uniform, to the last digit: not a run more
    values = {c.name: c.objective.mean for c in found.candidates}
    assert set(values) == {"recommended", "natural", "uniform", "temperature", "unimax"}
    assert values["recommended"] == min(values.values())
    named, _ = search(Static(choose="temperature", trials=2), TASK, WORLD, 0)
    assert named.weights == pytest.approx(simplex.temper(TASK.domains.natural, 0.5))
    with pytest.raises(UnknownName, match="temperature"):
        Static(choose="temprature")


def test_the_natural_mixture_is_no_gain_over_itself():
    found, _ = search(Static(choose="natural", trials=2), TASK, WORLD, 0)
    assert dict(found.gains)["natural"].mean == 0.0
    assert found.verdict == (
        "weak: the answer is the natural mixture itself; nothing is gained by it"
    )


def test_one_seed_gives_no_interval_and_is_refused():
    for make in (lambda: DoReMi(seeds=1), lambda: Odm(trials=1), lambda: Static(trials=1)):
        with pytest.raises(RecipeError, match="seeds >= 2 and trials >= 2"):
            make()


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

    from flows.home import Home
    from flows.search import run
    from flows.server import PrefectApi

    tiny_study.write_corpus(tmp_path / "corpus")
    home = Home(tmp_path / "home")
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
