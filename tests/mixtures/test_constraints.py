"""Constraints: limits, clashes named by their smallest set, projection, and points inside."""

import numpy as np
import pytest

from cuvee.mixtures import simplex
from cuvee.mixtures.constraints import Constraints, Group, Limit, constrain, feasible
from cuvee.mixtures.domains import Domain, DomainSet
from cuvee.mixtures.errors import ConstraintError, DataError

NAMES = ("code", "web", "books", "wiki")
DOMAINS = DomainSet(tuple(Domain(n, 100 * (i + 1), 400, n) for i, n in enumerate(NAMES)))


def test_epoch_caps_bound_the_share_at_full_scale():
    """2 passes over 100 tokens in a run of 1000 are a share of 0.2; catches caps at proxy scale."""
    found = constrain(DOMAINS, full_tokens=1000, epochs=2.0)
    _, high = found.bounds
    assert np.allclose(high, [0.2, 0.4, 0.6, 0.8])
    assert not found.satisfied(np.array([0.21, 0.29, 0.25, 0.25]))


def test_groups_bounds_and_active_limits():
    found = constrain(
        DOMAINS,
        full_tokens=1,
        bounds={"code": (0.1, 1.0)},
        groups=[Group(("web", "books"), at_most=0.7)],
    )
    w = np.array([0.1, 0.5, 0.2, 0.2])
    assert found.satisfied(w)
    assert found.active(w) == ("code at least 0.1", "web+books at most 0.7")
    assert not found.satisfied(np.array([0.05, 0.5, 0.2, 0.25]))


def test_a_clash_names_the_smallest_set_only():
    """web >= 0.6 and books >= 0.5 clash; the others are innocent. Catches listing every limit."""
    with pytest.raises(ConstraintError) as caught:
        constrain(
            DOMAINS,
            full_tokens=1000,
            bounds={"code": (0.01, 0.9), "web": (0.6, 1.0), "books": (0.5, 1.0)},
            epochs={"wiki": 1.0},
        )
    text = str(caught.value)
    assert "web at least 0.6" in text and "books at least 0.5" in text
    assert "code" not in text and "wiki" not in text


def test_a_clash_of_epoch_caps_needs_them_all():
    """Caps of 0.1, 0.2, 0.3, 0.39 sum to 0.99: all four are needed for the contradiction."""
    caps = {"code": 1.0, "web": 1.0, "books": 1.0, "wiki": 0.975}
    with pytest.raises(ConstraintError) as caught:
        constrain(DOMAINS, full_tokens=1000, epochs=caps)
    assert all(name in str(caught.value) for name in NAMES)


def test_sparsity_clashes_with_required_domains():
    """Three domains are required and two allowed; catches a check of linear limits alone."""
    with pytest.raises(ConstraintError) as caught:
        constrain(
            DOMAINS,
            full_tokens=1,
            bounds={"code": (0.1, 1), "web": (0.1, 1), "wiki": (0.1, 1), "books": (0, 0.5)},
            most_domains=2,
        )
    assert "at most 2 domains" in str(caught.value) and "books" not in str(caught.value)


def test_a_ball_around_the_prior_clashes_with_a_far_bound():
    """code's natural share is 0.1; at 0.9 the KL is at least 1.75 nats, so 0.5 cannot be."""
    with pytest.raises(ConstraintError, match=r"code at least 0\.9; KL to the prior at most 0\.5"):
        constrain(DOMAINS, full_tokens=1, bounds={"code": (0.9, 1)}, most_kl=0.5)
    assert constrain(DOMAINS, full_tokens=1, bounds={"code": (0.9, 1)}, most_kl=1.8).clash() == ()


def test_divergence_of_many_mixtures_is_kl_of_each():
    found = constrain(DOMAINS, full_tokens=1, most_kl=1.0)
    W = np.random.default_rng(0).dirichlet(np.full(4, 0.3), size=20)
    W[0] = [1, 0, 0, 0]
    assert np.allclose(found.divergence(W), [simplex.kl(w, DOMAINS.natural) for w in W])


def test_a_limit_of_a_group_is_no_bound_of_a_domain():
    """Catches a group's limit that is taken for one of its first domain."""
    found = constrain(DOMAINS, full_tokens=1, groups=[Group(("code", "web"), at_most=0.3)])
    assert [ends.tolist() for ends in found.bounds] == [[0.0] * 4, [1.0] * 4]


def test_what_holds_for_every_mixture_is_no_limit():
    """Catches `at least 0` and `at most 1` among the limits, which a report would call active."""
    found = constrain(DOMAINS, full_tokens=1, bounds={"code": (0.1, 1.0), "web": (0.0, 0.5)})
    assert [limit.name for limit in found.limits] == ["code at least 0.1", "web at most 0.5"]


def test_a_group_that_is_no_range_is_refused():
    """Catches ends in the wrong order that are told as a clash of two limits."""
    for ends in ({"at_least": 0.6, "at_most": 0.4}, {"at_least": -0.1}, {"at_most": 1.5}):
        with pytest.raises(ConstraintError, match=r"code\+web needs 0 <= at_least <= at_most"):
            constrain(DOMAINS, full_tokens=1, groups=[Group(("code", "web"), **ends)])


@pytest.mark.parametrize("bounds", [{"code": (0.5, 0.4)}, {"code": (0.1, 1.2)}, {"code": (0.1,)}])
def test_bounds_that_are_no_range_are_refused(bounds):
    with pytest.raises(ConstraintError, match="least, most"):
        constrain(DOMAINS, full_tokens=1, bounds=bounds)


def test_unknown_domains_and_bad_numbers_are_refused():
    with pytest.raises(DataError, match="no domain 'cod'"):
        constrain(DOMAINS, full_tokens=1, bounds={"cod": (0, 0.5)})
    with pytest.raises(ConstraintError, match="positive"):
        constrain(DOMAINS, full_tokens=1, epochs={"code": 0.0})
    with pytest.raises(ConstraintError, match="budget"):
        constrain(DOMAINS, full_tokens=0, epochs=1.0)
    with pytest.raises(ConstraintError, match="coefficients"):
        Constraints(("a", "b"), (Limit("x", (1.0,), 0.5),))
    with pytest.raises(ConstraintError, match="at least 1"):
        Constraints(("a", "b"), most_domains=0)


def test_projection_is_feasible_and_nearest():
    """Catches clipping to the box: a group limit needs the shares moved together."""
    found = constrain(DOMAINS, full_tokens=1, groups=[Group(("code", "web"), at_least=0.8)])
    p = found.project(np.array([0.1, 0.1, 0.4, 0.4]))
    assert np.allclose(p, [0.4, 0.4, 0.1, 0.1], atol=1e-6)


def test_projection_obeys_sparsity():
    found = constrain(DOMAINS, full_tokens=1, most_domains=2)
    p = found.project(np.array([0.1, 0.2, 0.3, 0.4]))
    assert (p > 1e-6).sum() == 2 and found.satisfied(p)


CASES = {
    "free": {},
    "caps": {"epochs": 3.0, "full_tokens": 1200},
    "tight": {"epochs": 1.02, "full_tokens": 1000},
    "frozen": {"bounds": {"code": (0.3, 0.3), "web": (0.0, 0.0)}},
    "group": {"groups": [Group(("code", "web"), at_least=0.95)]},
    "ball": {"most_kl": 0.05},
    "ball and bound": {"most_kl": 0.4, "bounds": {"code": (0.3, 1.0)}},
    "sparse": {"most_domains": 2},
    "sparse and bound": {"most_domains": 2, "bounds": {"code": (0.9, 0.95)}},
}


def test_required_domains_are_in_every_mixture_and_named_in_a_clash():
    found = constrain(DOMAINS, full_tokens=1, required={"code": 0.05, "wiki": 0.1})
    assert not found.satisfied(np.array([0.0, 0.5, 0.2, 0.3]))
    assert np.allclose(found.bounds[0], [0.05, 0, 0, 0.1])
    with pytest.raises(ConstraintError, match=r"code at most 0\.2; required code at least 0\.3"):
        constrain(DOMAINS, full_tokens=1, required={"code": 0.3}, bounds={"code": (0, 0.2)})
    with pytest.raises(ConstraintError, match="needs a share"):
        constrain(DOMAINS, full_tokens=1, required={"code": 0.0})


@pytest.mark.parametrize("case", CASES)
def test_samples_are_feasible_and_differ(case):
    """Catches a fallback that leaves the set, or collapses onto one point of it."""
    found = constrain(DOMAINS, **{"full_tokens": 1, **CASES[case]})
    rng = np.random.default_rng(0)
    points = feasible.draw_inside(lambda n: rng.dirichlet(np.full(4, 0.2), n), found, 200, rng)
    assert points.shape == (200, 4) and np.all(found.satisfied(points))
    assert len(np.unique(np.round(points, 6), axis=0)) > 50


def test_the_centre_of_a_thin_set_lies_in_it():
    """A frozen share leaves no interior; catches a centre found by positive slack alone."""
    found = constrain(DOMAINS, full_tokens=1, bounds={"code": (0.25, 0.25)})
    shape = feasible.region_of(found)
    assert found.satisfied(shape.center) and shape.basis.shape == (4, 2)
    assert np.all(shape.center > 0.05)
