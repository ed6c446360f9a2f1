"""Audits of scores: which orders accuracy, and how early mixtures are ranked, on made-up truths."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from cuvee.mixtures.constraints import constrain
from cuvee.mixtures.domains import Domain, DomainSet
from cuvee.mixtures.inference.early_ranking import rank_early
from cuvee.mixtures.inference.held_out import rank_interval
from cuvee.mixtures.inference.metric_audit import audit_metrics, bootstrap_rank, trained_alike
from cuvee.mixtures.objectives import WeightedMean, Worst
from cuvee.mixtures.problem import Problem, Proxy
from cuvee.mixtures.runs.run_results import RunResult, Score

DOMAINS = DomainSet(tuple(Domain(name, 10**6, 4 * 10**6, name) for name in "abc"))
TARGETS = ("domain/a", "domain/b", "task/x")
TASK = Problem(
    DOMAINS,
    TARGETS,
    WeightedMean({"domain/a": 2.0, "domain/b": 1.0, "task/x": 1.0}),
    constrain(DOMAINS, full_tokens=10**6),
    Proxy("0.3M", 1000),
    10**6,
)
W = np.random.default_rng(1).dirichlet(np.ones(3), 24)
SPREAD = np.linspace(0.4, 0.8, 24)  # accuracy by mixture


def answered(accuracy, bits, margin, *, errors=0.02, seeds=1, size=None):
    """Runs of the mixtures: accuracy, bits per byte and margin by mixture."""
    return [
        RunResult(
            TASK.spec(W[i], seed, size),
            {"task/x": Score(bits[i], 0.0, 9)},
            {
                "task/x/accuracy": Score(accuracy[i], errors, 100),
                "task/x/chance": Score(0.25, 0.0, 100),
                "task/x/margin": Score(margin[i], 0.0, 100),
            },
        )
        for seed in range(seeds)
        for i in range(len(accuracy))
    ]


def audit(*given, **named):
    (found,) = audit_metrics(answered(*given, **named), np.random.default_rng(0))
    return found


def test_a_score_that_orders_accuracy_and_one_that_misleads_are_told_apart():
    """Catches bits per byte whose sign is not turned round, so that the better score is called the
    misleading one; and a correlation of values in place of ranks, which exp would bend."""
    found = audit(SPREAD, -np.exp(9 * SPREAD), -SPREAD)
    right, wrong = found.ranks["bits per byte"], found.ranks["margin"]
    assert right.mean == 1.0 and wrong.mean == -1.0 and wrong.high < -0.98
    assert 0.98 < right.low < 1.0  # an order without a mistake is no proof of one: catches 1 to 1
    assert right.low == rank_interval(1.0, 24, 0.9)[0]  # catches one at 95 % among those at 90 %
    assert "probability" not in found.ranks and found.mixtures == 24


def test_accuracy_at_chance_tells_nothing():
    """Catches an order that is read out of guesses: 11 of 24 mixtures above chance are not half;
    and one that counts runs as above which lie there within their own sampling error."""
    guess = np.where(np.arange(24) < 13, 0.25, SPREAD)
    assert audit(guess, -guess, guess).ranks == {} and audit(guess, -guess, guess).above == 11 / 24
    assert audit(SPREAD, -SPREAD, SPREAD, errors=0.3).ranks == {}
    low = np.full(24, 0.14)  # catches below chance that is called chance, and within an error below
    assert audit(low, -low, low, errors=0.05).below and not audit(low, -low, low, errors=0.06).below
    assert audit(SPREAD[:7], -SPREAD, SPREAD).ranks == {}


def test_repeats_of_a_mixture_count_once():
    """Catches intervals that narrow because every run is there four times over."""
    rng = np.random.default_rng(5)
    score = SPREAD + 0.1 * rng.standard_normal(24)
    once, often = audit(SPREAD, -score, score), audit(SPREAD, -score, score, seeds=4)
    assert often.ranks == once.ranks and 0 < once.ranks["margin"].low < once.ranks["margin"].mean


def test_sizes_are_not_mixed():
    """Catches a correlation made by size alone: within a size, the score orders nothing right."""
    small = answered(SPREAD, -SPREAD, SPREAD)
    large = answered(SPREAD[:9] + 9, -SPREAD, SPREAD, size="1M")
    assert trained_alike([*large, *small]) == tuple(small)


def test_the_interval_of_a_rank_correlation_covers_what_it_promises():
    """Catches a bootstrap that draws rows and columns apart, whose interval lies around 0, and one
    at another level: over 300 draws of 20 pairs with correlation 0.8, nominal 0.90."""
    rng, inside = np.random.default_rng(3), 0
    truth = 6 / np.pi * np.arcsin(0.4)  # Spearman's of a normal with Pearson's 0.8
    for _ in range(300):
        x = rng.standard_normal(20)
        y = 0.8 * x + 0.6 * rng.standard_normal(20)
        found = bootstrap_rank(x[None], y[None], rng)
        assert found.mean == pytest.approx(stats.spearmanr(x, y).statistic)
        inside += found.low <= truth <= found.high
    assert 0.86 <= inside / 300 <= 0.97


def on_the_way(rng, *, own=0.0, early=(0.0, 0.0), mixtures=24, seeds=3):
    """Runs scored at 200 and 500 tokens of 1000: noise of a run throughout, and at each point."""
    runs = []
    for i in range(mixtures):
        for seed in range(seeds):
            shift = own * rng.standard_normal()
            end = SPREAD[i] + shift
            points = [
                (n, end + sd * rng.standard_normal())
                for n, sd in zip((200, 500), early, strict=True)
            ]
            runs.append(
                RunResult(
                    TASK.spec(W[i], seed),
                    {t: Score(end, 0.0, 9) for t in TARGETS},
                    points=tuple((n, {"domain/a": y, "domain/b": y}) for n, y in points),
                )
            )
    return runs


def test_an_early_score_is_held_against_the_end_of_other_seeds():
    """Catches the own end as the judge: noise that a run keeps from its first point to its last
    would make every order perfect, though it says nothing of the mixture."""
    rng = np.random.default_rng(0)
    found = rank_early(on_the_way(rng, own=3.0), TASK, rng)
    assert [seen for seen, _ in found.ranks] == [200, 500, 1000]
    assert all(abs(rank.mean) < 0.4 for _, rank in found.ranks) and found.enough is None
    assert (found.mixtures, found.seeds) == (24, 3)


def test_shorter_proxies_are_advised_from_the_first_point_that_is_sure():
    """Catches advice by the mean in place of the lower end, and the end itself as advice."""
    rng = np.random.default_rng(0)
    runs = on_the_way(rng, own=0.002, early=(0.055, 0.0))
    found = rank_early(runs, TASK, rng)
    first, second = (rank for _, rank in found.ranks[:-1])
    assert first.low < 0.9 < first.mean and second.low > 0.9 and found.enough == 500
    late = rank_early(on_the_way(rng, own=0.002, early=(0.2, 0.2)), TASK, rng)
    assert late.ranks[-1][1].low > 0.9 and late.enough is None


def test_what_is_ranked_is_the_part_of_the_objective_that_was_scored_on_the_way():
    """Catches a KeyError of tasks, which are scored at the end alone, and plain weights in place of
    the objective's: a counts twice, so b cannot turn the order round."""
    rng = np.random.default_rng(0)
    runs = [
        RunResult(
            TASK.spec(W[i], seed),
            {t: Score(SPREAD[i], 0.0, 9) for t in TARGETS},
            points=((500, {"domain/a": SPREAD[i], "domain/b": -1.5 * SPREAD[i]}),),
        )
        for i in range(24)
        for seed in (0, 1)
    ]
    found = rank_early(runs, TASK, rng)
    assert found.targets == ("domain/a", "domain/b") and found.ranks[0][1].mean == 1.0
    plain = Problem(
        DOMAINS, TARGETS, Worst(("domain/a", "domain/b")), TASK.constraints, TASK.proxy, 1
    )
    assert rank_early(runs, plain, rng).ranks[0][1].mean == -1.0


def test_seeds_that_few_mixtures_share_are_left_out():
    """Catches a comparison of seven mixtures, and one that is lost because two more seeds exist for
    the anchors alone."""
    rng = np.random.default_rng(0)
    assert rank_early(on_the_way(rng, mixtures=7), TASK, rng).ranks == ()
    runs = [r for r in on_the_way(rng, seeds=5) if r.spec.seed < 2 or r.spec.weights[0] > W[3, 0]]
    found = rank_early(runs, TASK, rng)
    assert (found.mixtures, found.seeds) == (24, 2)
    assert rank_early([], TASK, rng) is None


def test_a_run_of_the_same_start_in_another_order_is_no_other_seed():
    """Catches crossed seeds that count as apart, though they share their initialization."""
    rng = np.random.default_rng(0)
    one, two = on_the_way(rng, seeds=1), on_the_way(rng, seeds=2)[24:]
    crossed = [replace(run, spec=replace(run.spec, seed=0, data_seed=7)) for run in two]
    assert rank_early([*one, *crossed], TASK, rng).ranks == ()
