"""Points of loss curves: which count, that looking changes nothing, what a fit makes of them."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from synthetic_corpus import SyntheticCorpus

from cuvee.evaluation.suites import Limits
from cuvee.flows.plan import scoring_sentences as cost_of_looks
from cuvee.flows.recipe.load import parse
from cuvee.mixtures import worlds
from cuvee.mixtures.errors import RecipeError
from cuvee.mixtures.inference.diagnostics import paired_mean
from cuvee.mixtures.multiscale.backtest import backtest
from cuvee.mixtures.multiscale.steps import LadderStep, scaling_runs
from cuvee.mixtures.objectives import WeightedMean
from cuvee.mixtures.registry import build
from cuvee.mixtures.runs.run_records import outcome_from_json, outcome_to_json
from cuvee.mixtures.runs.run_results import RunResult, Score
from cuvee.mixtures.scaling import ScalingRuns, equations
from cuvee.mixtures.worlds.scaled import SIZES, Scaled
from cuvee.proxies import ladder
from cuvee.proxies.interfaces import IntermediateEvaluations
from cuvee.proxies.train.branching import BranchPlan
from cuvee.proxies.train.trainer import TrainedRun, train_pack

CORPUS = SyntheticCorpus(256, {"code": 30_000, "law": 20_000, "web": 60_000})
SPEC = CORPUS.spec({"web": 1.0})
STEP = 2048  # tokens
RECIPE = """
name: tiny
corpus: {domains: {a: {path: a.txt}, b: {path: b.txt}}}
proxy: {size: 0.3M, tokens: 409600, schedule: wsd}
evaluation: {suite: null, heldout_tokens: 1000, curve: 4}
objective: {name: mean, weights: {domain/a: 1}}
full_scale: {tokens: 20M}
method: {name: regmix, runs: 4}
"""


def test_only_steps_before_a_decay_are_looked_at():
    """200 steps: warm-up 10, decay 40. Four at equal factors from 20 to 160. Catches a point of the
    warm-up or of the decay, whose loss is of a rate that no shorter run would end with."""
    plan = ladder.training_plan("0.3M", 200 * STEP, 256)
    assert (plan.steps, plan.warmup, plan.decay) == (200, 10, 40)
    assert plan.comparable(4) == (20, 40, 80, 160)
    constant = dataclasses.replace(plan, schedule="constant")
    assert constant.comparable(2) == (20, 199)
    assert dataclasses.replace(plan, schedule="cosine").comparable(4) == ()
    assert plan.comparable(0) == () and plan.comparable(1) == (20,)
    assert len(ladder.training_plan("0.3M", 20 * STEP, 256).comparable(32)) <= 16  # none twice


def test_a_plan_says_what_looking_costs_and_a_cosine_is_refused():
    """4 looks of 2 domains of 1000 tokens: 8000 tokens forward, a third of a training step's work
    each, are 2667 of 409,600 tokens. Catches a cost that is forgotten."""
    recipe = parse(RECIPE)
    plan = ladder.training_plan("0.3M", 200 * STEP, 256)
    two = SimpleNamespace(corpus=SimpleNamespace(domains=(1, 2)), limits=Limits(), suite=None)
    (line,) = cost_of_looks(recipe, two, plan)
    assert "after 20, 40, 80, 160 steps" in line and "8,000 tokens" in line and "1% of" in line
    assert cost_of_looks(parse(RECIPE.replace(", curve: 4", "")), two, plan) == []
    with pytest.raises(RecipeError, match="rate of a cosine falls"):
        parse(RECIPE.replace("wsd", "cosine"))


def seen(likelihood):
    """A measure that knows the models: their sums of parameters."""
    sums = likelihood.model.parameters.matrices.double().sum(1).tolist()
    return [{"domain/web": abs(sums[k])} for k in likelihood.keep]


LOOKS = IntermediateEvaluations((5, 12), seen)


def test_looking_changes_nothing_and_sees_each_model_as_it_was():
    """To the bit. Catches a look that draws, that averages, or that sees the pack's first model."""
    pair = [SPEC, dataclasses.replace(SPEC, seed=9)]
    plain, looked = train_pack(pair, CORPUS), train_pack(pair, CORPUS, evaluations=LOOKS)
    ours = looked.likelihood.model.parameters.matrices
    assert torch.equal(plain.likelihood.model.parameters.matrices, ours)
    alone = train_pack([pair[1]], CORPUS, evaluations=LOOKS).runs[0]
    first, second = looked.runs
    assert isinstance(first, TrainedRun) and first.curve == plain.runs[0].curve
    assert [tokens for tokens, _ in second.points] == [5 * STEP, 12 * STEP]
    assert second.points == alone.points != first.points
    assert plain.runs[0].points == ()


def test_points_are_handed_on_with_a_trunk(tmp_path: Path):
    """Catches a branch whose curve begins where it left the trunk."""
    whole = train_pack([SPEC], CORPUS, evaluations=LOOKS).runs[0]
    keep = BranchPlan(keep=("trunk",), until=8, folder=str(tmp_path))
    train_pack([SPEC], CORPUS, branch=keep, evaluations=LOOKS)
    branch = train_pack(
        [SPEC], CORPUS, branch=BranchPlan(("trunk",), folder=str(tmp_path)), evaluations=LOOKS
    )
    assert branch.runs[0].points == whole.points and len(whole.points) == 2


def test_points_go_through_the_store_and_old_records_have_none():
    """Catches tokens that come back as text, and a record of before that can no longer be read."""
    result = RunResult(SPEC, {"t": Score(1.0, 0.0, 1)}, points=((2048, {"t": 1.5}),))
    assert outcome_from_json(outcome_to_json(result)) == result
    old = outcome_to_json(result)
    del old["points"]
    assert outcome_from_json(old).points == ()


def history(schedule="wsd", average=0.0):
    """A problem of two targets and three runs with points, of which one lacks a target."""
    problem = dataclasses.replace(worlds.world_problem(Scaled(size=3, count=2)), sizes=SIZES)
    proxy = dataclasses.replace(
        problem.proxy, size="0.3M", tokens=100, schedule=schedule, average=average
    )
    problem = dataclasses.replace(problem, proxy=proxy)
    whole = {"target/0": 3.0, "target/1": 4.0}
    points = [((10, whole), (50, whole)), ((10, {"target/0": 3.0}),), ()]
    runs = [
        RunResult(
            problem.spec((0.2, 0.3, 0.5), seed),
            {name: Score(2.0 + seed / 10, 0.0, 1) for name in problem.targets},
            points=points[seed],
        )
        for seed in range(3)
    ]
    return problem, tuple(runs)


def test_points_become_rows_of_their_run():
    """Catches points that count as runs, that stand for ends, or that lack a target."""
    problem, runs = history()
    found = scaling_runs(problem, runs, [LadderStep("0.3M", 100, 3)])
    assert found.groups.tolist() == [0, 1, 2, 0, 0] and found.count == 3
    assert found.tokens.tolist() == [100, 100, 100, 10, 50]
    assert found.stable.tolist() == [False, False, False, True, True]
    assert found.Y[3].tolist() == [3.0, 4.0] and found.noise[3, 1] > found.noise[0, 1] > 0
    ends = found.ends
    assert ends.tokens.tolist() == [100] * 3 and ends.stable is None
    assert ends.Y[:, 0].tolist() == pytest.approx([2.0, 2.1, 2.2])
    narrow = dataclasses.replace(
        problem, targets=("target/0",), objective=WeightedMean({"target/0": 1.0})
    )
    assert len(scaling_runs(narrow, runs, [LadderStep("0.3M", 100, 3)])) == 6


def test_points_under_a_constant_rate_are_ends_unless_weights_are_averaged():
    """Catches a gap that is fitted where there is none, and none where there is one."""
    rung = [LadderStep("0.3M", 100, 3)]
    assert scaling_runs(*history("constant"), rung).stable is None
    assert scaling_runs(*history("constant", 0.2), rung).stable is not None


def curves(world, noise=0.0, seed=0, gap=0.05, counts=(30, 16, 12, 10)):
    """Runs of four sizes, one number of tokens each, with points before their decay."""
    rng = np.random.default_rng(seed)
    design = rng.dirichlet(np.full(world.size, 0.7), counts[0])
    rows = []
    for parameters, count in zip((300_000, 600_000, 1_000_000, 2_000_000), counts, strict=True):
        tokens = 20 * parameters
        for w in design[:count]:
            group, shared = (rows[-1][4] + 1 if rows else 0), rng.standard_normal(world.count)
            for d in (*tokens * np.geomspace(0.1, 0.8, 6), tokens):
                truth = world.at_scale(parameters, int(d)).truth(w[None], w[None])[0]
                y = truth * (1 + gap * (d < tokens)) * (1 + noise * shared)
                rows.append((w, parameters, d, y, group, d < tokens))
    W, n, d, Y, groups, stable = (np.array(column) for column in zip(*rows, strict=True))
    return ScalingRuns(W, n.astype(float), d, Y, np.zeros_like(Y), groups, stable=stable)


def test_the_gap_of_a_decay_is_found_and_forgotten():
    """An additive world without noise, 5 % above before each decay. Far beyond the runs a forecast
    is of ends, to 0.1 %; with points taken for ends it is off by 8 %. Catches a gap that stays in
    the predictions, and points that are taken for what a decay would have given."""
    world, scale = Scaled(size=3, count=1, moves=0.0, seed=1), (100_000_000, 4_000_000_000)
    runs = curves(world)
    truth = world.at_scale(*scale).truth(runs.W, runs.W)
    law, rng = build("scaling", {"name": "additive", "draws": 0}), np.random.default_rng(0)
    taken = dataclasses.replace(runs, stable=None)
    off, wrong = (
        np.abs(law.fit(part, rng).predict(runs.W, *scale).mean / truth - 1).mean()
        for part in (runs, taken)
    )
    assert off < 0.001 and wrong > 0.05


def test_the_points_of_a_run_count_as_much_as_its_end():
    """Six points by 1/6 each. Catches a seed's luck that counts once for every point."""
    runs = curves(Scaled(size=3, count=1), counts=(3, 2, 2, 2))
    share = equations.row_weights(runs)
    assert share[:7].tolist() == pytest.approx([*[1 / 6] * 6, 1.0])
    assert equations.row_weights(runs.ends).tolist() == [1.0] * 9


def test_a_back_test_ranks_and_judges_ends_alone():
    """Catches held-out points, and rivals that are averaged over a curve."""
    runs = curves(Scaled(size=3, count=1, moves=0.0, seed=1), noise=0.002)
    scalar = WeightedMean({"t": 1.0}).scalarize(("t",), runs.Y.mean(axis=0))
    single = build("scaling", {"name": "single_scale", "law": "saturating_power"})
    with_points, without = (
        backtest({}, single, part, scalar, np.random.default_rng(0)) for part in (runs, runs.ends)
    )
    assert with_points.trials == without.trials and len(without.trials) == 2


@pytest.mark.slow
def test_the_joint_law_is_recovered_better_with_curves():
    """Five worlds of the joint law, the same runs twice. Catches points that mislead the fit: the
    90 % interval of the paired gain in the exponent of tokens must lie above zero."""
    gains = []
    for draw in range(5):
        world = Scaled(size=4, count=2, moves=0.7, seed=draw)
        runs = curves(world, noise=0.003, seed=draw)
        law = build("scaling", {"name": "joint", "draws": 0})
        off = []
        for part in (runs.ends, runs):
            fitted = law.fit(part, np.random.default_rng(0))
            rates = fitted.p[:, 1 + 2 * 4 + (4 + 3) + 1]
            off.append(np.abs(rates - np.log(world.known.rates[:, 1])).mean())
        gains.append(off[0] - off[1])
    assert paired_mean(gains).low > 0, gains
