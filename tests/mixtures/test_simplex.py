"""The simplex: counts, projection, tilting and the divergences, by property and by hand."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cuvee.mixtures import simplex
from cuvee.mixtures.errors import ConstraintError

finite = st.floats(-5, 5, allow_nan=False)
vectors = hnp.arrays(np.float64, st.integers(2, 12), elements=finite)
mixtures = hnp.arrays(np.float64, st.integers(2, 12), elements=st.floats(0.01, 1)).map(
    lambda v: v / v.sum()
)


@given(mixtures, st.integers(0, 10**9))
@settings(max_examples=80, deadline=None)
def test_counts_sum_exactly_and_stay_within_one(w, total):
    """Catches rounding each share by itself, which loses or gains tokens."""
    counts = simplex.whole_counts(w, total)
    assert counts.sum() == total
    assert np.all(np.abs(counts - w * total) < 1 + 1e-6 * total)


def test_counts_give_ties_to_the_earlier_domain():
    """Catches an unstable sort: the same shares must always give the same tokens."""
    assert simplex.whole_counts([1 / 3, 1 / 3, 1 / 3], 4).tolist() == [2, 1, 1]


@given(vectors)
@settings(max_examples=80, deadline=None)
def test_projection_is_nearest(v):
    """Catches clip-and-renormalize: no mixture may be nearer than the projection."""
    p = simplex.project_simplex(v)
    assert p.min() >= 0 and abs(p.sum() - 1) < 1e-9
    others = np.random.default_rng(0).dirichlet(np.full(v.size, 0.5), size=200)
    assert np.all(((others - v) ** 2).sum(axis=1) >= ((p - v) ** 2).sum() - 1e-9)


@given(mixtures)
@settings(max_examples=40, deadline=None)
def test_projection_keeps_a_mixture(w):
    """Catches a threshold off by one in the sorted cumulative sum."""
    assert np.allclose(simplex.project_simplex(w), w, atol=1e-12)


def test_projection_by_hand():
    """(1, 0.5, 0): subtract t from the two largest until they sum to 1: t = 0.25."""
    assert np.allclose(simplex.project_simplex([1.0, 0.5, 0.0]), [0.75, 0.25, 0.0])


@given(mixtures, st.floats(-500, 500))
@settings(max_examples=40, deadline=None)
def test_tilt_ignores_a_common_score(w, shift):
    """Catches an exponential without the largest score taken off: it overflows."""
    scores = np.linspace(0, 1, w.size)
    assert np.allclose(simplex.tilt(w, scores), simplex.tilt(w, scores + shift), atol=1e-9)


def test_tilt_by_hand_and_for_huge_scores():
    assert np.allclose(simplex.tilt(np.array([0.5, 0.5]), [np.log(3), 0]), [0.75, 0.25])
    assert simplex.tilt(np.array([0.5, 0.5]), [1e6, 0]).tolist() == [1.0, 0.0]


def test_tempering_by_hand():
    """(0.8, 0.2) ** 0.5 = (2, 1) / 3; a share of zero stays zero even at temperature 0."""
    assert np.allclose(simplex.temper([0.8, 0.2], 0.5), [2 / 3, 1 / 3])
    assert np.allclose(simplex.temper([0.5, 0.5, 0.0], 0.0), [0.5, 0.5, 0.0])


def test_kl_and_entropy_by_hand():
    """KL((1, 0) || (1/2, 1/2)) = log 2; mass where the other has none is infinite."""
    assert simplex.kl([1.0, 0.0], [0.5, 0.5]) == pytest.approx(np.log(2))
    assert simplex.kl([0.5, 0.5], [1.0, 0.0]) == np.inf
    assert simplex.entropy([0.25] * 4) == pytest.approx(np.log(4))


def test_check_names_the_sum_and_the_domains():
    with pytest.raises(ConstraintError, match=r"sum to 0\.9 .*code=0\.4"):
        simplex.check_mixture([0.4, 0.5], ["code", "web"])
    for bad in ([0.5, np.nan], [1.5, -0.5], [[1.0]]):
        with pytest.raises(ConstraintError):
            simplex.check_mixture(bad)


def test_groups_of_many_rows_and_many_domains_need_no_look_at_every_pair():
    """Catches a neighbor search that is brute force in many dimensions, or that lists every pair
    of near repeats: 20,000 rows would take 35 s, 8,000 repeats gigabytes."""
    rng = np.random.default_rng(3)
    wide = rng.dirichlet(np.ones(200), 6000)
    twice = np.vstack([wide, wide + rng.uniform(-1e-8, 1e-8, wide.shape)])
    tracemalloc.start()
    numbers = simplex.group_rows(twice)
    near = simplex.group_rows(wide[:1].repeat(6000, axis=0) + rng.uniform(-1e-9, 1e-9, (6000, 200)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert numbers.tolist() == 2 * list(range(6000)) and set(near.tolist()) == {0}
    assert peak < 4 * twice.nbytes  # every pair of 6,000 repeats: 288 MB and more


def test_groups_are_chains_whatever_the_order_of_rows():
    """Catches a parting by gaps that stops too early or cuts a chain: against all pairs."""
    rng = np.random.default_rng(4)
    for _ in range(40):
        base = rng.dirichlet(np.ones(3), 4)[rng.integers(0, 4, 12)]
        rows = base + rng.choice([0.0, 1.5e-6, 3e-6, 6e-6], (12, 3)) * rng.choice([-1, 1], (12, 3))
        links = np.abs(rows[:, None] - rows[None]).max(axis=2) <= 2 * simplex.SAME * (1 + 1e-9)
        for _ in range(4):
            links = links @ links
        truth = np.argmax(links, axis=1)
        numbers = simplex.group_rows(rows)
        assert ((numbers[:, None] == numbers) == (truth[:, None] == truth)).all()


def test_tilt_leaves_a_share_of_zero_at_zero():
    """Catches a logarithm of 0 that counts as one of 1: a domain comes back that was taken out."""
    found = simplex.tilt(np.array([0.0, 0.25, 0.75]), [1e3, 0.0, 0.0])
    assert found[0] == 0.0 and np.allclose(found, [0.0, 0.25, 0.75])


@pytest.mark.parametrize("values", [[2.0, -0.5], [[0.5, 0.5], [0.0, 0.0]]])
def test_what_has_no_shares_is_not_made_into_some(values):
    """Catches a look at the sum alone, and one that a good row excuses."""
    with pytest.raises(ConstraintError, match="positive sum and no negatives"):
        simplex.normalized(values)


def test_a_sum_may_miss_one_by_the_tolerance_and_no_more():
    """Catches a tolerance of twice as much: shares would be tokens that no trainer draws."""
    assert simplex.check_mixture([0.5, 0.5 + 0.9e-6])[1] > 0.5
    with pytest.raises(ConstraintError, match="must sum to 1"):
        simplex.check_mixture([0.5, 0.5 + 1.5e-6])


def test_rows_that_are_chained_in_each_coordinate_alone_are_apart():
    """Catches chains that are followed in one coordinate at a time: (0, 0, 0), (1, -2, 1) and
    (2, -1, -1) leave no gap in any, and each pair is two steps apart in one."""
    steps = np.array([[0, 0, 0, 0], [1, -2, 1, 0], [2, -1, -1, 0]])
    rows = np.array([0.4, 0.3, 0.2, 0.1]) + 0.95 * simplex.STEP * steps
    assert simplex.group_rows(rows).tolist() == [0, 1, 2]


def test_groups_are_counted_and_averaged_by_hand():
    """Catches a group too many, and a mean over all rows."""
    W = [[0.5, 0.5], [0.2, 0.8], [0.5, 0.5]]
    assert simplex.count_mixtures(W) == 2
    means = simplex.group_means(np.array([1.0, 5.0, 3.0]), simplex.group_rows(W))
    assert means.tolist() == [2.0, 5.0]
