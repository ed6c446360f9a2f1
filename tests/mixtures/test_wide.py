"""What makes many domains and runs cheap: derivatives, posterior draws, large fits, schedules."""

import numpy as np
import pytest
from contract_parts import PROBLEM, data, fitted

from cuvee.mixtures import threads
from cuvee.mixtures.constraints import polytope
from cuvee.mixtures.errors import RecipeError
from cuvee.mixtures.laws import (
    curves,
    gaussian_field,
    least_squares,
    log_slopes,
    posterior_draws,
    predicted_means,
)
from cuvee.mixtures.laws.bounds import unbounded
from cuvee.mixtures.laws.saturating_power import saturating_form
from cuvee.mixtures.registry import build
from cuvee.mixtures.runs.run_results import RunResult, Score
from cuvee.mixtures.searches import auto, score
from cuvee.mixtures.two_phase import candidates, joint_law

W, Y = data()
SMOOTH = ("kriging", "gaussian_process", "log_linear")


@pytest.mark.parametrize("name", SMOOTH)
def test_derivatives_by_log_shares_are_those_of_the_means(name):
    """Against differences, for the law and a draw of it. Catches a chain rule that forgets the
    power of the shares, the logarithm of the scores, the trend, the waves or the bend at bounds."""
    law, points = fitted(build("law", name), W, Y), W[:3] * 0.9 + 0.025
    for one in (law, *(posterior_draws(law, 1, np.random.default_rng(0)) or [])):
        found = log_slopes(one, points)
        assert found is not None
        assert found[0] == pytest.approx(one.predict(points).mean, abs=1e-12)
        assert predicted_means(one, points) == pytest.approx(one.predict(points).mean, abs=1e-12)
        for k in range(W.shape[1]):
            step = np.exp(1e-5 * np.eye(W.shape[1])[k])
            moved = predicted_means(one, points * step) - predicted_means(one, points / step)
            assert found[1][:, :, k] == pytest.approx(moved / 2e-5, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("anchors", [False, True])
def test_draws_scatter_as_the_process_says_it_may(anchors, monkeypatch):
    """Mean and deviation of 300 draws against the law's own at runs and elsewhere, exactly solved
    and on anchors. Catches waves that draws share, noise of runs that is left out, a trend that is
    not drawn, and what anchors do not know of the process."""
    if anchors:
        monkeypatch.setattr(gaussian_field, "EXACT", 20)
        monkeypatch.setattr(gaussian_field, "ANCHORS", 15)
    law = unbounded(fitted(build("law", "gaussian_process"), W, Y))
    points = np.vstack([W[:3], np.random.default_rng(1).dirichlet(np.ones(W.shape[1]), 3)])
    said = np.array([predicted_means(one, points)
                     for one in posterior_draws(law, 300, np.random.default_rng(0))])  # fmt: skip
    member = law.members[0][0]
    X = points**member.power
    trend, even = member.mean.at(points, X)[1], np.zeros(len(points))
    variance = member.fields.predict(X, trend, even)[1] - np.exp(member.fields.theta[:, :1])
    own = (law.spread[:, None] * law.width.factor[:, None] * np.sqrt(variance)).T
    own = own * law.predict(points).mean if law.logs else own
    assert np.median(said.std(axis=0) / own) == pytest.approx(1.0, abs=0.2)
    assert np.abs(said.mean(axis=0) - law.predict(points).mean).max() < 0.35 * own.max()


def test_a_large_fit_ends_where_small_steps_end(monkeypatch):
    """Catches a large problem's step with a wrong sign, weight or prior, and targets that change
    places among threads."""
    y = ((Y - Y.mean(axis=0)) / Y.std(axis=0)).T
    form, ones = saturating_form(W.shape[1]), np.ones_like(y)
    start, strength = form.starts(W, y)[0], np.full(len(y), 0.1)
    fine = curves.held_form(form, W, y, ones, strength, start, 80)
    for name, value in (("LARGE", 1), ("MOST", 80), ("LOOSE", 1e-9)):
        monkeypatch.setattr(least_squares, name, value)
    monkeypatch.setattr(threads, "CORES", 2)
    large = curves.held_form(form, W, y, ones, strength, start, 80)
    assert large.objective == pytest.approx(fine.objective, rel=1e-4)
    assert large.left_out == pytest.approx(fine.left_out, abs=0.02)


def test_the_dual_finds_the_nearest_mixture():
    """Against SLSQP. Catches a multiplier of the wrong sign and a limit that is not met."""
    rng = np.random.default_rng(0)
    prior, rows = rng.dirichlet(np.ones(6)), rng.uniform(size=(3, 6))
    bounds = rows @ rng.dirichlet(np.ones(6))
    found = polytope.least_kl_dual(prior, rows, bounds)
    assert found == pytest.approx(polytope.least_kl(prior, rows, bounds), abs=1e-3)


def test_descent_by_derivatives_finds_what_differences_find():
    """Catches a descent that goes up, and starts that take each other's steps."""
    law, search = fitted(build("law", "kriging"), W, Y), build("search", "mirror")
    scalar = score.scalarize(PROBLEM, law.predict(PROBLEM.domains.natural[None]).mean[0])

    class Plain:
        def predict(self, points):
            return law.predict(points)

    ends = [
        search.choose(one, PROBLEM, np.zeros(Y.shape[1]), np.random.default_rng(0))
        for one in (law, Plain())
    ]
    ours, theirs = scalar.relaxed(predicted_means(law, np.array(ends)))
    assert ours <= theirs + 1e-3


def test_auto_takes_the_search_that_a_recipe_names_over_many_domains(monkeypatch):
    """Catches a descent in place of what was named, one that refits do not make coarse, and one
    of other fields than the recipe's."""
    monkeypatch.setattr(auto, "MANY", 2)
    law = fitted(build("law", "kriging"), W, Y)
    mirror = {"name": "mirror", "steps": 3, "starts": 1, "draws": 4}

    def chosen(search):
        rng = np.random.default_rng(0)
        return build("search", search).choose(law, PROBLEM, np.zeros(Y.shape[1]), rng)

    default = chosen({"name": "auto", "smooth": mirror})
    assert np.array_equal(default, chosen(mirror))
    assert np.array_equal(chosen({"name": "auto", "otherwise": mirror}), default)
    found = build("search", "auto")
    assert found.coarse().smooth == build("search", "mirror").coarse()
    with pytest.raises(RecipeError, match="name smallest_step itself"):
        build("search", {"name": "auto", "otherwise": {"name": "smallest_step", "gains": {"a": 1}}})


def test_a_schedule_is_chosen_by_the_default_law_with_its_interval():
    """A world in which a1 pays early, a2 late: the schedule says so, and gains about what the law
    and its draws say. Catches stages that change places, shares of the run taken for shares of a
    stage, and draws of other points than the schedule's."""
    problem, size, rng = PROBLEM, len(PROBLEM.domains), np.random.default_rng(3)
    early, late = np.zeros(size), np.zeros(size)
    early[1], late[2] = -2.0, -6.0

    def value(stages) -> float:
        (m, s), (t, rest) = ((np.asarray(x.weights), x.share) for x in stages)
        return 1.0 + float(np.exp(s * m @ early + rest * t @ late))

    runs = []
    for _ in range(60):
        m, t = rng.dirichlet(np.ones(size), 2)
        spec = problem.staged(candidates.two_stages(m, t, 0.8), 0)
        one = Score(value(spec.stages) + 0.002 * rng.standard_normal(), 0.0, 1)
        runs.append(RunResult(spec, dict.fromkeys(problem.targets, one)))
    stages, found = joint_law.choose_schedule(
        build("law", "default"),
        build("search", {"name": "mirror", "steps": 60, "starts": 2, "draws": 32}),
        problem,
        tuple(runs),
        refits=2,
        rng=rng,
    )
    assert np.argmax(stages[0].weights) == 1 and np.argmax(stages[1].weights) == 2
    natural = candidates.two_stages(problem.domains.natural, problem.domains.natural, 0.8)
    true = value(natural) - value(stages)
    assert true > 0.3 and found.levels[1] - found.levels[0] == pytest.approx(true, rel=0.2)
    gains = found.refit_levels[:, 1] - found.refit_levels[:, 0]
    assert 0.002 < gains.std() < 0.05 and gains.mean() == pytest.approx(true, rel=0.2)
    assert len(found.refit_weights) == 2 and len(found.refit_levels) == 100
