"""Seeds apart: initialization, data order and what noise is at other mixtures, against truth."""

import dataclasses
import itertools

import numpy as np
import pytest
from contract_parts import PROBLEM, WORLD

from cuvee.mixtures import simplex, worlds
from cuvee.mixtures.errors import RecipeError
from cuvee.mixtures.inference.dataset import gather_runs, tells_noise
from cuvee.mixtures.inference.diagnostics import pooled_deviation
from cuvee.mixtures.inference.noise_model import fit_noise
from cuvee.mixtures.inference.seed_parts import ADVICE, seed_parts
from cuvee.mixtures.loop import generator
from cuvee.mixtures.methods.mixing_laws import MixingLaws
from cuvee.mixtures.registry import describe
from cuvee.mixtures.runs.run_results import Score, score_table

METHOD = MixingLaws(runs=16, refits=10, folds=3)
TRUE = np.array([0.03, 0.01, 0.02])  # deviations: initialization, order, both


def crossed(seeds, rng, columns=1, true=TRUE):
    """Specs and scores of two mixtures whose seeds are all crossed; a column for each study."""
    specs, values = [], []
    for weights in (PROBLEM.domains.natural, PROBLEM.domains.uniform):
        init, order = true[:2, None, None] * rng.standard_normal((2, seeds, columns))
        for i, j in itertools.product(range(seeds), repeat=2):
            specs.append(dataclasses.replace(PROBLEM.spec(weights, i), data_seed=j))
            values.append(init[i] + order[j] + true[2] * rng.standard_normal(columns))
    return specs, np.array(values)


def test_parts_of_the_noise_are_those_that_were_planted():
    """3,200 runs: catches parts that are exchanged, a mean square that is taken for a variance
    (0.03 would read 0.17) and a rest that is counted twice."""
    specs, values = crossed(40, np.random.default_rng(0))
    parts = seed_parts(specs, values)
    assert parts.sd[:, 0] == pytest.approx(TRUE, rel=0.25) and list(parts.degrees) == [78, 78, 3042]
    assert parts.advice(0) == ADVICE[0]
    turned = [dataclasses.replace(s, seed=s.order_seed, data_seed=s.seed) for s in specs]
    assert seed_parts(turned, values).advice(0) == ADVICE[1]
    alike = seed_parts(*crossed(3, np.random.default_rng(0), true=np.full(3, 0.02)))
    assert alike.advice(0) == ADVICE[2]


def test_intervals_of_the_parts_cover_at_the_size_that_people_run():
    """Three seeds crossed, two anchors, 400 studies: 90 % intervals hold 84 to 99 % of the truth;
    catches chi-squared quantiles of the wrong degrees, and intervals around a mean square."""
    parts = seed_parts(*crossed(3, np.random.default_rng(1), 400))
    held = ((parts.low <= TRUE[:, None]) & (TRUE[:, None] <= parts.high)).mean(axis=1)
    assert np.all((held > 0.84) & (held < 0.99)), held


def test_a_layout_takes_whole_rows_and_needs_two_orders():
    """A failed run takes its seed out; catches cells that are filled in, and parts from seeds that
    never differed apart."""
    specs, values = crossed(3, np.random.default_rng(2))
    rows = [i for i, s in enumerate(specs) if (s.seed, s.order_seed) != (2, 0)]
    assert list(seed_parts([specs[i] for i in rows], values[rows]).degrees) == [2, 4, 4]
    tied = [i for i, s in enumerate(specs) if s.seed == s.order_seed]
    assert len(tied) == 6 and seed_parts([specs[i] for i in tied], values[tied]) is None


def test_crossed_seeds_are_asked_for_once_and_tell_the_noise_alone():
    """3 seeds of 2 anchors, 2 of them crossed: 4 runs more, whose order alone is another's. Catches
    a law that is fitted to them, a pooled noise that takes runs of one order for independent, a
    warning that they belong to another study, and parts that do not find them."""
    method = dataclasses.replace(METHOD, crossed=2)
    history = tuple(WORLD(METHOD.ask(PROBLEM, (), generator(0))))
    longer = tuple(WORLD(method.ask(PROBLEM, (), generator(0))))
    specs = {run.spec for run in longer} - {run.spec for run in history}
    assert sorted((s.seed, s.data_seed) for s in specs) == [(0, 1), (0, 1), (1, 0), (1, 0)]
    plain, found = gather_runs(PROBLEM, history), gather_runs(PROBLEM, longer)
    assert found.fingerprints == plain.fingerprints and found.foreign == 0
    assert np.array_equal(found.sample.noise, plain.sample.noise)
    runs = tuple(run for run in longer if tells_noise(PROBLEM, run.spec))
    Y = score_table(runs, PROBLEM.targets)[1]
    assert len(runs) == len(longer)
    assert list(seed_parts([run.spec for run in runs], Y).degrees) == [2, 2, 2]
    assert method.ask(PROBLEM, longer, generator(5)) == ()


def test_repeats_are_those_of_the_most_concentrated_mixtures():
    """Catches repeats of a new draw in each round, which would never be complete."""
    method = dataclasses.replace(METHOD, repeats=3)
    asked = method.ask(PROBLEM, (), generator(0))
    drawn = [s for s in asked if s.seed == 0][:16]
    alone = sorted((float(np.sum(s.weights**2)) for s in drawn), reverse=True)[:3]
    fresh = [
        s for s in asked if s.seed == 1 and any(np.array_equal(s.weights, d.weights) for d in drawn)
    ]
    assert sorted((float(np.sum(s.weights**2)) for s in fresh), reverse=True) == alone
    history = tuple(WORLD(asked))
    assert method.ask(PROBLEM, history, generator(9)) == ()
    half = tuple(run for run in history if run.spec.seed == 0)
    assert {s.fingerprint for s in method.ask(PROBLEM, half, generator(9))} == {
        s.fingerprint for s in asked if s.seed > 0
    }


def test_what_seeds_cannot_be_crossed_is_refused_and_defaults_say_nothing_new():
    """Catches a recipe of one crossed seed, or of no anchor whose seeds are crossed, and fields
    that move every earlier fingerprint."""
    for wrong in ({"crossed": 1}, {"crossed": 4}, {"repeats": 17}, {"crossed": 2, "anchors": ()}):
        with pytest.raises(RecipeError, match="method.crossed"):
            dataclasses.replace(METHOD, **wrong)
    assert {"crossed", "repeats"}.isdisjoint(describe(METHOD))
    assert describe(dataclasses.replace(METHOD, crossed=2))["crossed"] == 2


def noisy_runs(spread, rng, repeats=24):
    """Scores of a `Noisy` world at repeated mixtures from the center to the corners."""
    world = worlds.Noisy(world=worlds.Additive(size=6, count=3), sd=0.01, spread=spread)
    W = np.repeat(rng.dirichlet(np.full(6, 0.4), repeats), 2, axis=0)
    return world, W, world.noise(W) * rng.standard_normal((len(W), 3))


def test_noise_that_grows_towards_the_corners_is_found_and_elsewhere_it_is_not():
    """Catches a slope of the wrong sign (fits would trust the corners), one that is fitted to a
    level alone, and a test that finds a slope in even noise more often than one time in ten."""
    world, W, Y = noisy_runs(25.0, np.random.default_rng(3), repeats=60)
    model = fit_noise(W, Y)
    corner, center = np.eye(6)[:1], np.full(6, 1 / 6)
    truth = float((world.noise(corner) / world.noise(center[None]))[0, 0])  # 5.0
    ratio = (model.at(corner) / model.at(center[None]))[0, 0]
    ends = ratio * np.exp(1.645 * model.error * np.log(6) * np.array([-1.0, 1.0]))
    assert model.clear and ends[0] < truth < ends[1] < 3 * ends[0]
    off = [
        np.log(sd / world.noise(center[None])[0])
        for sd in (model.at(center[None])[0], model.pooled)
    ]
    assert np.all(np.abs(off[0]) < 0.6 * np.abs(off[1]))
    even = [fit_noise(*noisy_runs(0.0, np.random.default_rng(s))[1:]) for s in range(60)]
    assert np.mean([one.clear for one in even]) <= 0.1


def test_few_repeats_leave_the_pooled_noise():
    """Two anchors under three seeds: no slope is clear, and laws get what they got before."""
    history = tuple(WORLD(METHOD.ask(PROBLEM, (), generator(0))))
    found = gather_runs(PROBLEM, history)
    sd, _ = pooled_deviation(found.sample.Y, simplex.group_rows(found.sample.W))
    assert np.array_equal(found.sample.noise, sd)


def test_errors_enter_where_runs_were_asked_other_items():
    """Half of the runs were scored on fewer items: their error is theirs alone, and larger. Catches
    a common error that is made a weight, and one that is dropped where it is not common."""
    history = WORLD(METHOD.ask(PROBLEM, (), generator(0)))
    target = PROBLEM.targets[0]
    for i in range(0, len(history), 2):
        scores = history[i].scores | {target: Score(history[i].scores[target].value, 0.5, 10)}
        history[i] = dataclasses.replace(history[i], scores=scores)
    noise = gather_runs(PROBLEM, tuple(history)).sample.noise
    assert np.all(noise[::2, 0] >= 0.5) and np.all(noise[1::2, 0] < 0.2)
    assert np.ptp(noise[:, 1]) == 0  # asked the same everywhere


def test_one_run_of_other_items_has_its_error_to_itself():
    """One of 22 runs lost an item: catches the error of every other run of that target, which they
    share, made their noise (0.5 in place of 0.02)."""
    history = WORLD(METHOD.ask(PROBLEM, (), generator(0)))
    target = PROBLEM.targets[0]
    usual = gather_runs(PROBLEM, tuple(history)).sample.noise

    def asked(run, n):
        return dataclasses.replace(
            run, scores=run.scores | {target: Score(run.scores[target].value, 0.5, n)}
        )

    runs = [asked(run, 99 if i == 3 else 100) for i, run in enumerate(history)]
    noise = gather_runs(PROBLEM, tuple(runs)).sample.noise
    assert np.argmax(noise[:, 0]) == 3 and noise[3, 0] >= 0.5
    assert np.array_equal(np.delete(noise, 3, axis=0), np.tile(usual, (len(runs) - 1, 1)))
