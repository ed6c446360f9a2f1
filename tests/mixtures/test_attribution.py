"""What domains are worth: against worlds of known transfer, a copied domain, a noise domain."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest

from cuvee.mixtures import recommendation, worlds
from cuvee.mixtures.attribution import law_shapley as shapley
from cuvee.mixtures.attribution.attribute import rank_agreement, with_attribution
from cuvee.mixtures.attribution.leave_out import (
    leave_out_spec,
    leave_out_worths,
    left_out,
    simultaneous_quantile,
    without,
)
from cuvee.mixtures.domain_worth import KINDS, ShapleyWorth, Worth
from cuvee.mixtures.errors import DataError, RecipeError
from cuvee.mixtures.inference.dataset import gather_runs
from cuvee.mixtures.laws import Prediction
from cuvee.mixtures.loop import generator, search
from cuvee.mixtures.registry import build
from cuvee.mixtures.runs.run_results import Failed, Score

LEARNING = worlds.Learning(size=4, seed=1)


def left_out_runs(world, lefts, *, share=1.0, seeds=3):
    """Runs of the uniform mixture, whole and without some domains."""
    problem = worlds.world_problem(world)
    mixture = problem.domains.uniform
    specs = [
        leave_out_spec(problem, mixture, left, share=share, seed=seed)
        for left in ((), *lefts)
        for seed in range(seeds)
    ]
    return problem, mixture, tuple(world(specs))


def worths(world, lefts, **how):
    problem, mixture, runs = left_out_runs(world, lefts, **how)
    (found,) = leave_out_worths(problem, runs, mixture, gather_runs(problem, runs))
    return found


def means(found):
    return np.array([[one.mean for one in row] for row in found.worths])


def singles(size):
    return [(k,) for k in range(size)]


@pytest.mark.parametrize("share", [1.0, 0.2])
def test_leave_one_out_recovers_a_known_transfer_matrix(share):
    """Without noise the worths are the truth's differences: catches a share that goes evenly to the
    others, one that is lost, differences of the wrong sign, and an end of the wrong length."""
    world = worlds.Noisy(world=LEARNING, sd=1e-9, spread=0.0)
    found = worths(world, singles(4), share=share)
    w = np.full(4, 0.25)
    ends = [(1 - share) * w + share * without(w, {k}) for k in range(4)]
    truth = np.array([world.truth(e[None], e[None])[0] for e in ends])
    truth -= world.truth(w[None], w[None])
    assert found.share == share and found.degrees == 4 * 2
    assert np.allclose(means(found)[:, 1:], truth, atol=1e-7)
    assert np.allclose(means(found)[:, 0], truth.mean(axis=1), atol=1e-7)
    assert all(found.worths[k][1 + k].sign == 1 for k in range(4))  # its own text


def test_the_critical_value_is_dunnetts():
    """Two-sided 5 % table of Dunnett 1964 at 20 degrees of freedom; catches one of independent
    contrasts (2.72 for 4), Student's alone (2.09), and one that forgets the other targets."""
    for contrasts, known in ((1, 2.09), (2, 2.38), (4, 2.65)):
        assert simultaneous_quantile(contrasts, 1, 20, 0.95) == pytest.approx(known, abs=0.006)
    assert simultaneous_quantile(4, 5, 20, 0.95**5) == pytest.approx(2.65, abs=0.006)


def test_intervals_cover_all_together_and_what_is_detectable_is_shown():
    """120 studies: all 20 intervals hold in 90 % of them (82 to 97 %); each by itself at 90 % they
    would in under half. The worth that one study states as detectable is shown by others in 80 %
    (72 to 88 %): not in half, as a margin of error would be, nor in 65 %, as critical + t(0.8)."""
    problem, mixture, runs = left_out_runs(LEARNING, singles(4))
    W = np.array([run.spec.weights for run in runs])
    truth = LEARNING.truth(W, W)
    known = np.column_stack([truth.mean(axis=1), truth])[::3]
    known = known[1:] - known[0]
    sd, held, lows, stated = 0.02, 0, [], []
    for study in range(120):
        values = truth + sd * generator(5, study).standard_normal(truth.shape)
        drawn = tuple(
            replace(
                run,
                scores={t: Score(float(v), 0.0, 1) for t, v in zip(run.scores, row, strict=True)},
            )
            for run, row in zip(runs, values, strict=True)
        )
        (found,) = leave_out_worths(problem, drawn, mixture, gather_runs(problem, drawn))
        cells = [one for row in found.worths for one in row]
        held += all(one.low <= x <= one.high for one, x in zip(cells, known.ravel(), strict=True))
        lows.append(found.worths[0][1].low - known[0, 1])
        stated.append(found.detectable[1])
    shown = np.add.outer(stated, lows)[~np.eye(120, dtype=bool)] > 0
    assert 0.82 <= held / 120 <= 0.97
    assert 0.72 <= shown.mean() <= 0.88


def test_a_copied_domain_is_covered_for_and_the_pair_shows_it():
    """J of the two copies is positive on what they teach; of two domains that teach other targets
    it is not called so there. Catches J with one of its signs turned."""
    world = worlds.Noisy(world=worlds.ExtraDomain(world=LEARNING, extra="copy"), sd=0.003, spread=0)
    found = worths(world, [*singles(5), (0, 4), (1, 2)])
    copies, others = found.pairs
    assert copies[0] == ("a0", "a4")
    own = copies[1][1]  # target/0 is the first domain's text
    assert KINDS[own.sign] == "substitutes"
    alone, both = means(found)[0, 1], own.mean + means(found)[0, 1] + means(found)[4, 1]
    assert both > 2.5 * alone  # each by itself is worth little
    assert others[1][1].mean < own.mean / 3


def test_a_noise_domain_is_worth_nothing_or_less():
    """It takes tokens from the rest; catches a sign, and a domain that is matched by position."""
    world = worlds.Noisy(world=worlds.ExtraDomain(world=LEARNING, extra="noise"), sd=0.003)
    found = worths(world, singles(5))
    assert found.domains[-1] == "a4" and all(one.sign == -1 for one in found.worths[-1])
    assert found.worths[1][2].sign == 1 and found.worths[1][2].p < 0.01


def test_seeds_that_not_all_finished_under_are_left_out():
    """Catches runs that are paired by position: seed 1 of one domain failed."""
    world = worlds.Noisy(world=LEARNING, sd=0.01)
    problem, mixture, runs = left_out_runs(world, singles(4), seeds=4)
    lost = tuple(Failed(r.spec, "diverged") if i == 5 else r for i, r in enumerate(runs))
    kept = tuple(run for run in runs if run.spec.seed != 1)
    one, two = (
        leave_out_worths(problem, [r for r in given if not isinstance(r, Failed)], mixture,
                         gather_runs(problem, kept))[0]
        for given in (lost, kept)
    )  # fmt: skip
    assert one == two and one.seeds == 3
    stray = world([problem.spec(without(mixture, {3}), 9)])  # one domain under a seed of its own
    fewer = (*(r for r in kept if r.spec.weights[3] > 0), *stray)
    (part,) = leave_out_worths(problem, fewer, mixture, gather_runs(problem, fewer))
    assert part.domains == problem.domains.names[:3] and part.seeds == 3
    single = problem.spec([1.0, 0.0, 0.0, 0.0], 0)  # a vertex leaves three domains out, once
    more = (*kept, *world([single]))
    assert leave_out_worths(problem, more, mixture, gather_runs(problem, more))[0] == one


class Truth:
    """A world as a fitted law."""

    def __init__(self, world):
        self.world = world

    def predict(self, W):
        mean = self.world.truth(W, W)
        return Prediction(mean, np.zeros_like(mean))

    def draws(self, count, rng):
        return [self] * count


def shapley_of(world, mixture):
    problem, _, runs = left_out_runs(world, singles(world.size))
    found = gather_runs(problem, runs)
    law = build("law", "log_linear")
    rng = np.random.default_rng(0)
    return shapley.law_shapley(found, law, Truth(world), np.asarray(mixture), rng)


def test_shapley_values_are_the_mean_over_all_orders():
    """Against all 24 orders by hand; catches weights of |S| that are off by one, and a coalition
    whose shares are not in proportion. They sum to what the whole mixture gains on nobody."""
    w, empty = np.array([0.1, 0.2, 0.3, 0.4]), np.arange(5.0) + 3
    found = shapley_of(LEARNING, w).from_empty(tuple(empty))

    def score(left):
        row = empty if len(left) == 4 else LEARNING.truth(without(w, left)[None], w[None])[0]
        return row if len(left) == 4 else np.array([row.mean(), *row])

    total = np.zeros((4, 5))
    for order in itertools.permutations(range(4)):
        for place, k in enumerate(order):
            total[k] += score(set(order[place:])) - score(set(order[place + 1 :]))
    assert np.allclose(means(found), total / math.factorial(4))
    assert np.allclose(means(found).sum(axis=0), empty - score(set()))
    assert 0 < found.outside < 1  # single domains were never tried


def test_sampled_orders_come_near_the_exact_values(monkeypatch):
    """Catches orders that are read as places; copies are worth the same, noise the least."""
    world = worlds.ExtraDomain(
        world=worlds.ExtraDomain(world=LEARNING, extra="copy"), extra="noise"
    )
    exact = shapley_of(world, np.full(6, 1 / 6))
    monkeypatch.setattr(shapley, "MOST", 3)
    sampled = shapley_of(world, np.full(6, 1 / 6))
    assert exact.orders == 0 and sampled.orders == shapley.ORDERS
    assert np.abs(means(exact) - means(sampled)).max() < 0.15 * np.ptp(means(exact))
    assert np.allclose(means(exact)[0], means(exact)[4])
    assert means(exact)[:, 0].argmin() == 5
    rank = rank_agreement(exact, sampled)
    assert rank.mean > 0.9 and rank.low <= rank.mean <= rank.high


def ranked(rows):
    """Worths (K, T) as if of a law."""
    cells = tuple(tuple(Worth(x, x, x) for x in (0.0, *row)) for row in rows.tolist())
    return ShapleyWorth(tuple(map(str, range(len(rows)))), cells, (0.0,) * (rows.shape[1] + 1), 0.0)


def test_an_agreements_interval_holds_the_truth():
    """120 pairs of normal tables of 8 domains and 6 targets, alike in part: 90 % intervals hold the
    true rank correlation in 80 % or more. Catches a bootstrap over domains, whose ties lower every
    draw (29 to 68 %), and the error of one pair of vectors, twice too long."""
    rng, rho, held, width = np.random.default_rng(1), 0.87, 0, []
    truth = 6 / np.pi * np.arcsin(rho / 2)
    for _ in range(120):
        a, z = rng.standard_normal((2, 8, 6)) + 0.5 * rng.standard_normal((2, 8, 1))
        found = rank_agreement(ranked(a), ranked(rho * a + np.sqrt(1 - rho**2) * z))
        held += found.low <= truth <= found.high
        width.append(found.high - found.low)
    assert 0.80 <= held / 120 <= 0.97 and np.mean(width) < 0.4


def test_an_agreement_claims_nothing_of_few_domains_nor_of_perfection():
    """Catches "1.00 (1.00 to 1.00)" of five domains, and any interval of three."""
    rows = np.arange(10.0).reshape(5, 2)
    perfect, few = (rank_agreement(ranked(r), ranked(r)) for r in (rows, rows[:3]))
    assert perfect.mean == 1 and perfect.low < 0.9
    assert (few.mean, few.low, few.high) == (1.0, -1.0, 1.0)


NOISY = worlds.Noisy(world=LEARNING, sd=0.005, spread=0.0)


def method(**fields):
    small = {
        "runs": 16,
        "laws": ["linear"],
        "refits": 10,
        "trials": 2,
        "pairs": 2,
        "search": {"name": "simulate", "draws": 2000},
    }
    return build("method", {"name": "attribution", **small, **fields})


def test_the_method_asks_for_trunks_then_for_pairs_and_keeps_to_them():
    """Ends share the whole mixture's runs; pairs are chosen once, also where half are answered."""
    task, one = worlds.world_problem(NOISY), method(phase="both", around="uniform")
    found, history = search(one, task, NOISY, 3)
    told = found.attribution
    assert [part.share for part in told.measured] == [1.0, one.decay]
    assert all(part.domains == task.domains.names for part in told.measured)
    assert [part.seeds for part in told.measured] == [2, 2] and len(told.agreements) == 3
    assert [len(part.pairs) for part in told.measured] == [2, 2]
    later = [run for run in history if len(run.spec.stages) == 2]
    assert len(later) == (4 + 2) * 2 and all(run.spec.stages[1].share == 0.2 for run in later)
    half = history[:-5]
    rest = one.ask(task, half, generator(3, len(half)))
    missing = {run.spec.fingerprint for run in history[len(half) :]}
    assert {spec.fingerprint for spec in rest} == missing
    again = recommendation.revive_recommendation(found.to_json())
    assert again == found and again.attribution == told


def test_a_run_without_any_of_the_mixtures_domains_leaves_none_out():
    """Of a mixture of two domains, a vertex of the design has neither: catches a crash after all
    is trained. Around one domain, which cannot be left out, is refused."""
    one, task = method(around={"a0": 0.5, "a1": 0.5}), worlds.world_problem(NOISY)
    vertex = task.spec([0.0, 0.0, 1.0, 0.0], 0)
    assert left_out(task, np.array([0.5, 0.5, 0, 0]), vertex) == (0.0, frozenset())
    assert len(one._players(task)) == 2
    with pytest.raises(RecipeError, match="two domains with a share"):
        method(around={"a0": 1.0})
    with pytest.raises(DataError, match="a9"):  # before anything is trained
        method(around={"a0": 0.5, "a9": 0.5}).check_asked(task.objective, task.domains)


def test_pairs_are_chosen_by_a_law_that_the_runs_suffice_for():
    """Kriging needs 9 runs of 4 domains and has 8: the second law chooses. Catches a study that
    dies after two rounds were trained; with no such law, there are no pairs."""
    task, laws = worlds.world_problem(NOISY), ["kriging", "log_linear"]
    one, history = method(laws=laws, runs=6, anchors=[]), ()
    for _ in range(2):
        history += tuple(NOISY(one.ask(task, history, generator(3, len(history)))))
    assert len(history) == 6 + 2 * (1 + 4) and len(one.ask(task, history, generator(3))) == 2 * 2
    assert method(laws=["kriging"], runs=6, anchors=[]).ask(task, history, generator(3)) == ()


def test_an_agreement_is_not_of_a_law_with_the_runs_it_was_fitted_to(monkeypatch):
    """Catches Shapley values that agree with runs from scratch because the law has seen them."""
    seen, values = [], shapley.law_shapley
    task, one = worlds.world_problem(NOISY), method(phase="scratch", pairs=0)

    def spy(found, *given, **more):
        seen.extend(found.sample.W)
        return values(found, *given, **more)

    monkeypatch.setattr("cuvee.mixtures.attribution.attribute.law_shapley", spy)
    told = search(one, task, NOISY, 3)[0].attribution
    left = [without(task.domains.natural, {k}) for k in range(4)]
    assert len(seen) > 16 and not any(np.allclose(row, w) for row in seen for w in left)
    assert told.agreements[0][0].endswith("of the law")


def test_the_plan_of_ends_counts_a_trunk_once():
    """(1 - d) + (K + 1) d runs a seed: 2.6 for 8 domains at d = 0.2, against 9 from scratch."""
    task = worlds.world_problem(worlds.Learning(size=8))
    assert method(pairs=0, trials=2).remaining(task).runs == pytest.approx(2 * 2.6)
    assert method(pairs=0, trials=2, phase="scratch").remaining(task).runs == pytest.approx(18)
    with pytest.raises(RecipeError, match="one of decay, scratch, both"):
        method(phase="tail")


def test_any_swarm_that_leaves_domains_out_says_what_they_are_worth():
    """One seed of each, three of natural: the noise is that of the repeats. Catches a section that
    needs a method of its own, and an interval out of nothing."""
    task = worlds.world_problem(NOISY)
    given = {"name": "regmix", "runs": 5, "design": "leave_one_out", "laws": ["linear"]}
    swarm = build(
        "method",
        {**given, "folds": 6, "refits": 10, "search": {"name": "simulate", "draws": 2000}},
    )
    found, history = search(swarm, task, NOISY, 1)
    (part,) = found.attribution.measured
    assert "fitted to these runs" in found.attribution.agreements[0][0]  # there are no others
    assert part.seeds == 1 and part.degrees == 4 and part.domains == task.domains.names
    whole = tuple(run for run in history if min(run.spec.weights) > 0)
    plain = replace(found, attribution=None)
    assert with_attribution(plain, swarm.laws, task, whole, generator(1, 1)) == plain
