"""Designs: the published schemes, number by number, and what each does beyond its contract."""

import numpy as np
import pytest

from cuvee.mixtures import simplex
from cuvee.mixtures.constraints import constrain
from cuvee.mixtures.designs import distinct_rows
from cuvee.mixtures.designs.additions import Additions
from cuvee.mixtures.designs.anchors import Anchors
from cuvee.mixtures.designs.d_optimal import DOptimal
from cuvee.mixtures.designs.dirichlet import Dirichlet, round_shares
from cuvee.mixtures.designs.hierarchical import Hierarchical
from cuvee.mixtures.designs.lattice import Lattice, lattice_points
from cuvee.mixtures.designs.leave_one_out import LeaveOneOut
from cuvee.mixtures.designs.max_min import MaxMin
from cuvee.mixtures.designs.reuse import Reuse
from cuvee.mixtures.designs.sobol import Sobol
from cuvee.mixtures.designs.vertices import Vertices
from cuvee.mixtures.domains import Domain, DomainSet
from cuvee.mixtures.errors import ConstraintError, RecipeError

NAMES = ("a", "b", "c", "d", "e")
DOMAINS = DomainSet(
    tuple(Domain(n, t, 4 * t, n) for n, t in zip(NAMES, (50, 100, 200, 250, 400), strict=True))
)
FREE = constrain(DOMAINS, full_tokens=1)


def rng(seed=0):
    return np.random.default_rng(seed)


def test_dirichlet_centres_on_the_tempered_natural_shares():
    """E[w] = natural ** 0.5 / sum for every strength; catches a prior without its temperature."""
    prior = simplex.temper(DOMAINS.natural, 0.5)
    raw = Dirichlet().raw(prior, 6000, rng())
    assert np.abs(raw.mean(axis=0) - prior).max() < 0.02
    W = Dirichlet().draw(DOMAINS, FREE, 400, rng())
    assert np.abs(W.mean(axis=0) - prior).max() < 0.08
    assert np.abs(prior - DOMAINS.natural).max() > 0.05


def test_dirichlet_spreads_as_its_strengths_say():
    """Var w_i = p_i (1 - p_i) / (s + 1), averaged over 15 strengths log-spaced in [0.1, 5]."""
    prior = simplex.temper(DOMAINS.natural, 0.5)
    W = Dirichlet().raw(prior, 6000, rng())
    strengths = np.logspace(np.log10(0.1), np.log10(5.0), 15)
    expected = prior * (1 - prior) * np.mean(1 / (strengths + 1))
    assert np.allclose(W.var(axis=0), expected, rtol=0.08)


@pytest.mark.parametrize("minimum", [2e-4, 0.002])
def test_dirichlet_shares_are_multiples_of_the_minimum(minimum):
    """Both schemes round; catches shares that no trainer can realise and sums beside one."""
    W = Dirichlet(minimum=minimum).draw(DOMAINS, FREE, 50, rng())
    assert np.allclose(W / minimum, np.round(W / minimum), atol=1e-6)
    assert np.allclose(W.sum(axis=1), 1, atol=1e-12)


def test_rounding_by_hand():
    """0.004 is below 0.01 and goes; the rest, renormalized, is 0.3012 and 0.6988."""
    assert np.allclose(round_shares(np.array([[0.3, 0.696, 0.004]]), 0.01), [[0.3, 0.7, 0.0]])


def test_dirichlet_obeys_epoch_caps_after_rounding():
    caps = constrain(DOMAINS, full_tokens=10_000, epochs=15.0)
    W = Dirichlet().draw(DOMAINS, caps, 40, rng())
    assert np.all(np.minimum(15 * DOMAINS.tokens / 10_000, 1) + 1e-6 >= W)


def test_dirichlet_survives_caps_that_rejection_cannot():
    """Caps that leave one mixture in thousands; catches endless rejection."""
    tight = constrain(DOMAINS, full_tokens=1000, epochs=1.05)
    W = Dirichlet().draw(DOMAINS, tight, 30, rng())
    assert len(W) == 30 and np.all(tight.satisfied(W))


def test_dirichlet_does_not_favour_a_column():
    """Reordering the domains reorders the distribution; catches stick-breaking by position."""
    order = np.array([3, 1, 4, 0, 2])
    turned = DomainSet(tuple(DOMAINS.domains[i] for i in order))
    free = constrain(turned, full_tokens=1)
    one = Dirichlet(oversample=2).draw(DOMAINS, FREE, 3000, rng())[:, order]
    two = Dirichlet(oversample=2).draw(turned, free, 3000, rng(1))
    assert np.abs(one.mean(axis=0) - two.mean(axis=0)).max() < 0.03
    assert np.abs((one > 0).mean(axis=0) - (two > 0).mean(axis=0)).max() < 0.04


@pytest.mark.parametrize(
    "fields",
    [{"least_strength": 0.0}, {"least_strength": 9.0}, {"minimum": 0.6}, {"oversample": 0}],
)
def test_dirichlet_refuses_fields_out_of_range(fields):
    with pytest.raises(RecipeError, match="got"):
        Dirichlet(**fields)


def test_vertices_are_the_corners_then_their_means():
    W = Vertices().draw(DOMAINS, FREE, 7, rng())
    assert np.allclose(W[:5], np.eye(5), atol=1e-6)
    assert np.allclose(W[5], [0.5, 0.5, 0, 0, 0], atol=1e-6)


def test_vertices_go_as_near_to_a_corner_as_allowed():
    """a is capped at 0.2: its vertex has 0.2 of a and the rest as in the corpus."""
    capped = constrain(DOMAINS, full_tokens=1, bounds={"a": (0.0, 0.2)})
    first = Vertices().draw(DOMAINS, capped, 5, rng())[0]
    rest = DOMAINS.natural[1:] / DOMAINS.natural[1:].sum()
    assert np.allclose(first, [0.2, *(0.8 * rest)], atol=1e-4)


def test_anchors_are_natural_and_uniform_or_written_out():
    W = Anchors().draw(DOMAINS, FREE, 2, rng())
    assert np.allclose(W, [DOMAINS.natural, DOMAINS.uniform])
    own = Anchors(({"a": 0.5, "e": 0.5},)).draw(DOMAINS, FREE, 1, rng())
    assert own.tolist() == [[0.5, 0, 0, 0, 0.5]]
    with pytest.raises(RecipeError, match="got 'middle'"):
        Anchors(("middle",))
    with pytest.raises(ConstraintError, match=r"sum to 0\.7"):
        Anchors(({"a": 0.7},)).draw(DOMAINS, FREE, 1, rng())


def test_distinct_keeps_the_first_of_copies():
    points = np.array([[0.5, 0.5], [0.5, 0.5], [0.505, 0.495], [0.9, 0.1]])
    assert distinct_rows(points).tolist() == points[[0, 2, 3]].tolist()


def gaps(W):
    far = np.linalg.norm(W[:, None] - W[None], axis=2)
    return far[np.triu_indices(len(W), k=1)]


def test_sobol_covers_the_simplex_more_evenly_than_chance():
    """Mean of w^2 over the uniform simplex is 2 / (K (K + 1)); the sequence's error is less."""
    truth = 2 / 30

    def error(draw):
        return np.mean([abs((draw(s) ** 2).mean() - truth) for s in range(10)])

    sobol = error(lambda s: Sobol().draw(DOMAINS, FREE, 128, rng(s)))
    chance = error(lambda s: rng(s).dirichlet(np.ones(5), 128))
    assert sobol < 0.6 * chance


def test_the_lattice_is_scheffes():
    """{3, 2}: C(4, 2) = 6 points: three corners and three midpoints."""
    points = {tuple(row) for row in lattice_points(3, 2).tolist()}
    assert points == {
        (1.0, 0.0, 0.0),
        (0.0, 1.0, 0.0),
        (0.0, 0.0, 1.0),
        (0.5, 0.5, 0.0),
        (0.5, 0.0, 0.5),
        (0.0, 0.5, 0.5),
    }
    W = Lattice().draw(DOMAINS, FREE, 15, rng())
    assert np.allclose(W * 2, np.round(W * 2))


def test_max_min_keeps_mixtures_farther_apart_than_chance():
    W = MaxMin().draw(DOMAINS, FREE, 20, rng())
    chance = np.median([gaps(rng(s).dirichlet(np.full(5, 0.6), 20)).min() for s in range(20)])
    assert gaps(W).min() > 3 * chance


def test_leave_one_out_has_every_domain_missing_once():
    W = LeaveOneOut().draw(DOMAINS, FREE, 6, rng())
    assert np.allclose(W[0], DOMAINS.natural)
    assert [int(np.flatnonzero(row == 0)[0]) for row in W[1:]] == [0, 1, 2, 3, 4]
    assert np.allclose(W[1, 1:], DOMAINS.natural[1:] / DOMAINS.natural[1:].sum())
    held = constrain(DOMAINS, full_tokens=1, bounds={"a": (0.02, 1.0)})
    assert LeaveOneOut().draw(DOMAINS, held, 2, rng())[1, 0] == pytest.approx(0.02, abs=1e-6)


def information(W):
    return np.linalg.slogdet(W.T @ W)[1]


def test_a_d_optimal_design_of_a_linear_law_is_the_corners():
    """Known answer (Kiefer 1961): the D-optimal design of a linear mixture model."""
    W = DOptimal().draw(DOMAINS, FREE, 5, rng())
    assert np.allclose(np.sort(W.argmax(axis=1)), range(5)) and np.allclose(W.max(axis=1), 1)


@pytest.mark.parametrize("criterion", ["d", "i"])
def test_optimal_designs_tell_more_than_random_ones(criterion):
    caps = constrain(DOMAINS, full_tokens=10_000, epochs=15.0)
    W = DOptimal(criterion=criterion).draw(DOMAINS, caps, 12, rng())
    random = [Dirichlet().draw(DOMAINS, caps, 12, rng(s)) for s in range(5)]
    moments = np.cov(rng().dirichlet(np.ones(5), 500).T) + 0.04
    if criterion == "d":
        assert information(W) > max(map(information, random))
    else:
        variance = [np.trace(np.linalg.inv(R.T @ R) @ moments) for R in random]
        assert np.trace(np.linalg.inv(W.T @ W) @ moments) < np.median(variance)


TREE = DomainSet(
    tuple(
        Domain(n, 100, 400, n)
        for n in ("web:news:high", "web:news:low", "web:forum:high", "web:blogs", "code:py", "math")
    )
)


def test_a_hierarchical_design_moves_sources_as_much_as_topics():
    """web has 4 of 6 leaves; its total must spread as a Dirichlet over 3 sources does."""
    W = Hierarchical().raw(TREE, 6000, rng())
    web = W[:, :4].sum(axis=1)
    assert web.mean() == pytest.approx(4 / 6, abs=0.03)
    strengths = np.geomspace(0.1, 5.0, 15)
    assert web.var() == pytest.approx(np.mean(4 / 6 * 2 / 6 / (strengths + 1)), rel=0.2)
    assert W[:, :2].sum(axis=1).mean() == pytest.approx(2 / 6, abs=0.03)


def test_reused_mixtures_keep_their_ratios_and_the_limits():
    """a : b stay 3 : 1 in every mixture, also under a cap on b alone."""
    capped = constrain(DOMAINS, full_tokens=1, bounds={"b": (0.0, 0.05)})
    W = Reuse(({"a": 3.0, "b": 1.0},)).draw(DOMAINS, capped, 20, rng())
    assert np.allclose(W[:, 0], 3 * W[:, 1], atol=1e-9) and np.all(capped.satisfied(W))
    assert len(np.unique(W[:, 2])) > 5
    with pytest.raises(RecipeError, match="two frozen groups"):
        Reuse(({"a": 1, "b": 1}, {"b": 1, "c": 1}))
    with pytest.raises(RecipeError, match="positive"):
        Reuse(({"a": 0.0, "b": 1},))


def test_additions_keep_clear_of_the_earlier_sweep():
    earlier = Dirichlet(minimum=0.02).draw(DOMAINS, FREE, 60, rng())
    inner = {"name": "dirichlet", "minimum": 0.02}
    existing = tuple(map(tuple, earlier))
    W = Additions(existing=existing, distance=0.03, design=inner).draw(DOMAINS, FREE, 40, rng())
    gap = np.linalg.norm(W[:, None] - earlier[None], axis=2)
    assert len(W) == 40 and gap.min() > 0.03 and gaps(W).min() > 0.03
    with pytest.raises(RecipeError, match="needs 5 shares"):
        Additions(existing=((0.5, 0.5),)).draw(DOMAINS, FREE, 2, rng())
