"""Every controller's rule against steps worked out by hand; what they all keep is in contracts."""

import dataclasses
import math

import numpy as np
import pytest

from cuvee.mixtures.controllers import ControllerEvidence, ado, even_steps
from cuvee.mixtures.controllers.ado import AdoController
from cuvee.mixtures.controllers.aioli import AioliController, linear_dynamics
from cuvee.mixtures.controllers.doge import DogeController
from cuvee.mixtures.controllers.exp3 import Exp3, exploration_rate
from cuvee.mixtures.controllers.grape import Grape
from cuvee.mixtures.controllers.group_dro import GroupDRO
from cuvee.mixtures.controllers.mixmin import MixMinController
from cuvee.mixtures.controllers.skill_it import SkillItController
from cuvee.mixtures.errors import RecipeError

TWO, EVEN = ("a", "b"), (0.5, 0.5)


def evidence(step, **fields):
    plain = ControllerEvidence(step=step, counts=(1, 1), losses=(1.0, 1.0))
    return dataclasses.replace(plain, **fields)


def test_group_dro_by_hand():
    """eta 1, eps 0.1. Catches smoothing before the exponent, a forgotten eps / K, and an absent
    domain whose score becomes 0."""
    controller = GroupDRO(rate=1.0, smoothing=0.1)
    state = controller.start(TWO, EVEN, 100)
    assert state["due"] == 1
    # exp(ln 3) : exp(0) = 3 : 1 -> 0.75, 0.25; times 0.9, plus 0.1 / 2 -> 0.725, 0.275
    state = controller.update(state, evidence(1, excess=(math.log(3), 0.0)))
    assert state["weights"] == pytest.approx([0.725, 0.275])
    # a was not drawn and keeps ln 3: 2.175 : 0.275 -> 0.887755; times 0.9, plus 0.05 -> 0.848980
    state = controller.update(state, evidence(2, excess=(None, 0.0)))
    assert state["weights"] == pytest.approx([0.848980, 0.151020], abs=1e-6)
    assert state["due"] == 3


GRAPH = {
    "graph": ((1.0, 0.5), (0.0, 1.0)),
    "evaluated": ("domain/a", "domain/b"),
    "rate": math.log(2),
}


def skill_it_weights(held_out, **fields):
    controller = SkillItController(**GRAPH, **fields)
    state = controller.start(TWO, EVEN, 60)
    for losses in held_out:
        state = controller.update(state, evidence(state["due"], held_out=losses))
    return state


def test_skill_it_by_hand():
    """eta ln 2, so that a score of s counts 2^s. Catches A transposed, and weights that go on from
    the last ones instead of the prior."""
    start = skill_it_weights([])  # A 1 = (1.5, 1): 2^1.5 : 2^1 = sqrt(2) : 1
    assert start["weights"] == pytest.approx([0.585786, 0.414214], abs=1e-6)
    assert (start["times"], start["due"]) == ([10, 20, 30, 40, 50], 10)
    one = skill_it_weights([(1.0, 2.0)])  # A L = (2, 2)
    assert one["weights"] == pytest.approx([0.5, 0.5]) and one["due"] == 20
    two = skill_it_weights([(1.0, 2.0), (3.0, 0.0)])  # L = (4, 2), A L = (5, 2): 8 : 1
    assert two["weights"] == pytest.approx([8 / 9, 1 / 9])


def test_skill_it_windows_by_hand():
    """Catches a window that never drops, and one that is summed where it is averaged."""
    losses = [(1.0, 2.0), (3.0, 0.0)]
    short = skill_it_weights(losses, window=1)  # L = (3, 0), A L = (3, 0): 8 : 1
    assert short["weights"] == pytest.approx([8 / 9, 1 / 9])
    shorter = skill_it_weights([*losses, (0.0, 2.0)], window=1)  # A L = (1, 2): 1 : 2
    assert shorter["weights"] == pytest.approx([1 / 3, 2 / 3])
    mean = skill_it_weights(losses, averaged=True)  # L = (2, 1), A L = (2.5, 1): 2^1.5 : 1
    assert mean["weights"][0] == pytest.approx(2**1.5 / (1 + 2**1.5))


def test_skill_it_options_by_hand():
    """Both need the losses before training. Catches a schedule that slows down instead."""
    losses = [(4.0, 4.0), (2.0, 2.0)]  # A L = (3, 2) at the update
    scheduled = skill_it_weights(losses, scheduled=True)  # eta doubles: 2^(2 x 3) : 2^(2 x 2)
    assert scheduled["weights"] == pytest.approx([0.8, 0.2]) and scheduled["round"] == 1
    normalized = skill_it_weights(losses, normalized=True)  # L = (0.5, 0.5), A L = (0.75, 0.5)
    assert normalized["weights"][0] == pytest.approx(2**0.25 / (1 + 2**0.25))
    halved = skill_it_weights([(2.0, 2.0)], halved=True)  # A = (1, 0.25; 0, 1): A L = (2.5, 2)
    assert halved["weights"][0] == pytest.approx(2**0.5 / (1 + 2**0.5))


def test_skill_it_halves_rectangular_graphs():
    """One target of two domains: catches `halved` without effect there, and a diagonal taken by
    position: domain/b is the second domain's own, so the first one's edge 1 is halved, not its 2.
    A L = (0.5 x 2, 2 x 2) = (1, 4) at the first update: 2^1 : 2^4."""
    given = {"graph": ((1.0,), (2.0,)), "evaluated": ("domain/b",), "rate": GRAPH["rate"]}
    controller = SkillItController(**given, halved=True)
    state = controller.start(TWO, EVEN, 60)
    state = controller.update(state, evidence(state["due"], held_out=(2.0,)))
    assert state["weights"][0] == pytest.approx(1 / 9)


def test_a_skill_it_run_of_an_earlier_version_goes_on_as_it_began():
    """Its states lack which entries are halved: by position in a square graph (domain/b, domain/a
    here, so that A L = (1 + 0.5, 2) x 2), and none in others. Catches the prior as a mask."""
    for evaluated, graph, wanted in (
        (("domain/b", "domain/a"), ((1.0, 1.0), (0.0, 2.0)), 2.0**3 / (2.0**3 + 2.0**4)),
        (("domain/b",), ((1.0,), (2.0,)), 2.0**2 / (2.0**2 + 2.0**4)),
    ):
        given = {"graph": graph, "evaluated": evaluated, "rate": GRAPH["rate"], "halved": True}
        controller = SkillItController(**given)
        state = controller.start(TWO, EVEN, 60)
        del state["own"]
        held_out = (2.0,) * len(evaluated)
        state = controller.update(state, evidence(state["due"], held_out=held_out))
        assert state["weights"][0] == pytest.approx(wanted)


def test_exp3_by_hand():
    """Catches eps of the same update in the exponent (eps_2 instead of eps_1: 0.51873)."""
    assert exploration_rate(2, 1) == 0.5  # sqrt(ln 2 / 2) = 0.589 is above 1 / 2
    controller = Exp3(warmup=0.1)
    state = controller.start(TWO, EVEN, 100)
    assert state["due"] == 10
    seen = {"counts": (3, 1), "losses": (4.0, 2.0)}
    # R = (0.4 x 0.75 / 0.5, 0.2 x 0.25 / 0.5) = (0.6, 0.1); 1 - K eps = 0: even
    state = controller.update(state, evidence(10, **seen))
    assert state["rewards"] == pytest.approx([0.6, 0.1])
    assert state["weights"] == pytest.approx([0.5, 0.5])
    # R = (1.2, 0.2), eps_1 = 0.5: exp(0.6) : exp(0.1) -> 0.622459
    # eps_2 = sqrt(ln 2 / 4) = 0.416277
    # (1 - 0.832555) x 0.622459 + 0.416277 = 0.520505
    state = controller.update(state, evidence(11, **seen))
    assert state["weights"][0] == pytest.approx(0.520505, abs=1e-6)


def test_exp3_of_one_sequence_is_the_published_rule():
    """R_d += reward / p_d for the one domain drawn; catches a reward of what was not drawn."""
    controller = Exp3()
    state = controller.start(TWO, (0.2, 0.8), 100)
    state = controller.update(state, evidence(2, counts=(1, 0), losses=(5.0, None)))
    assert state["rewards"] == pytest.approx([0.5 / 0.2, 0.0])


def test_aioli_solves_for_the_dynamics():
    """A = (2, 0; 0, 1) probed at 0.75: falls are A p. Catches A of the transposed system."""
    falls = np.array([[1.5, 0.5], [0.25, 0.75]])  # rows: losses; columns: probes
    assert linear_dynamics(falls, 0.75, False) == pytest.approx(np.diag([2.0, 1.0]))
    assert linear_dynamics(falls, 0.75, True) == pytest.approx(np.diag([2.0, 1.0]) / 3)
    # A = (-1, 0; 0, 1) is shifted by 1 to (0, 1; 1, 2) and divided by 4
    falls = np.diag([-1.0, 1.0]) @ np.array([[0.75, 0.25], [0.25, 0.75]])
    assert linear_dynamics(falls, 0.75, True) == pytest.approx(np.array([[0, 1], [1, 2]]) / 4)


def rounds_of(controller, dynamics):
    """The states at the end of each round of a run whose losses obey known dynamics."""
    state, losses, ends = controller.start(TWO, EVEN, 80), np.array([9.0, 9.0]), []
    while state["due"] < 80:
        number = state["round"]
        state = controller.update(state, evidence(state["due"], held_out=tuple(losses)))
        losses = losses - dynamics[number] @ np.array(state["weights"])
        if state["round"] > number:
            ends.append(state)
    return ends


def test_aioli_by_hand():
    """Catches a moving average of weights, and one whose two parts are exchanged."""
    dynamics = [np.diag([2.0, 1.0]), np.diag([0.0, 3.0])]
    controller = AioliController(evaluated=("x", "y"), rounds=2, one_hot=0.75)
    first, second = rounds_of(controller, dynamics)
    # colsum (2/3, 1/3): 1 / (1 + exp(-1/3)) = 0.582570
    assert first["weights"][0] == pytest.approx(0.582570, abs=1e-6)
    # Abar = 0.9 (0, 1) + 0.1 (2/3, 1/3) = (0.066667, 0.933333): 1 / (1 + exp(0.866667)) = 0.295948
    assert second["weights"][0] == pytest.approx(0.295948, abs=1e-6)
    assert (first["due"], second["due"]) == (40, 80)
    on, last = rounds_of(dataclasses.replace(controller, ema=None), dynamics)
    # goes on from 0.582570 : 0.417430 by exp(0) : exp(1) = 1 : 2.718282 -> 0.339244
    assert on["weights"][0] == pytest.approx(0.582570, abs=1e-6)
    assert last["weights"][0] == pytest.approx(0.339244, abs=1e-6)


def test_aioli_probes_every_domain_within_its_part_of_the_run():
    """Catches a probe that is skipped, and probes that take more steps than they may."""
    controller = AioliController(rounds=2, sweeps=2, probe=0.4)
    state, probed = controller.start(TWO, EVEN, 100), []
    while state["due"] < 100:
        state = controller.update(state, evidence(state["due"], held_out=(1.0, 1.0)))
        if max(state["weights"]) == 0.75:
            probed.append((state["round"], state["weights"].index(0.75)))
    assert sorted(probed) == [(r, d) for r in (0, 1) for d in (0, 0, 1, 1)]
    assert state["length"] * len(probed) <= 40


def test_aioli_says_when_a_run_is_too_short():
    with pytest.raises(RecipeError, match="2 domains 4 times within 40% of 10 steps"):
        AioliController().start(TWO, EVEN, 10)
    with pytest.raises(RecipeError, match="even share of 2 domains"):
        AioliController(one_hot=0.5).start(TWO, EVEN, 100)


def test_ado_recovers_a_law():
    """L = 2 + 4.5 n^-0.4, exactly: catches a fit that stays at its grid."""
    n = np.arange(20, 400, 4.0)
    e, a, alpha = ado.fit_curve(np.column_stack([n, 2.0 + 4.5 * n**-0.4]))
    assert (math.exp(e), alpha) == (pytest.approx(2.0, rel=0.05), pytest.approx(0.4, rel=0.1))
    assert math.exp(e) + math.exp(a) * 100**-alpha == pytest.approx(2 + 4.5 * 100**-0.4, rel=1e-3)
    assert ado.fit_curve(np.ones((5, 2))) == []


def test_ado_slopes_and_floor_by_hand():
    laws = [[math.log(2.0), 0.0, 0.4], [math.log(3.0), 0.0, 0.01], [math.log(5.0), 0.0, 0.5]]
    # 0.4 x (3 - 2) / 100; alpha of 0.01 counts as 0.05: 0.05 x (5 - 3) / 100; a floor above: 0
    assert ado.loss_slopes(laws, [3.0, 5.0, 4.0], 100) == pytest.approx([0.004, 0.001, 0.0])
    assert ado.loss_slopes([laws[0], [], laws[2]], [3.0, 5.0, 4.0], 100) is None
    # shares 0.8, 0.2, 0 -> at least 0.01 -> over 1.01
    assert ado.floor_shares(np.array([4.0, 1.0, 0.0])) == pytest.approx(np.array([80, 20, 1]) / 101)


def test_ado_updates_by_hand():
    """One update with laws that are given. Catches a history that is updated after its use, and
    a mean that holds the new rho already when the weights are made."""
    controller = AdoController(interval=1)
    state = controller.start(TWO, (0.8, 0.2), 1000)
    state |= {"laws": [[math.log(2.0), 0.0, 0.5], [math.log(2.0), 0.0, 0.5]], "fits": []}
    seen = evidence(10, counts=(1, 3), losses=(3.0, 6.0))
    after = controller.update(state, seen)
    # history = 0.9 (0.8, 0.2) + 0.1 (0.25, 0.75) = (0.745, 0.255)
    assert after["history"] == pytest.approx([0.745, 0.255])
    # slopes 1 : 4; times prior 0.8 : 0.8; times sqrt(history) 0.863134 : 0.504975
    rho = 0.863134 / (0.863134 + 0.504975)  # 0.630897
    assert after["average"] == pytest.approx([rho, 1 - rho], abs=1e-6)
    assert after["weights"][0] == pytest.approx(0.9 * 0.8 + 0.1 * rho, abs=1e-6)
    again = controller.update(after, dataclasses.replace(seen, step=11))
    history = 0.9 * 0.745 + 0.1 * 0.25
    left, right = math.sqrt(history), math.sqrt(1 - history)
    second = left / (left + right)
    assert again["weights"][0] == pytest.approx(0.9 * rho + 0.1 * second, abs=1e-6)
    assert again["average"][0] == pytest.approx((rho + second) / 2, abs=1e-6)


def test_ado_rests_until_its_first_laws():
    """Natural weights until every domain has a law: a fifth of the run by default."""
    controller, steps = AdoController(interval=2), 200
    state = controller.start(TWO, (0.7, 0.3), steps)
    while state["due"] < steps:
        n = state["due"]
        before = state["weights"]
        seen = evidence(n, losses=(2 + 4 * n**-0.5, 3 + 0.1 * n**-0.5))
        state = controller.update(state, seen)
        if n < 40:
            assert state["weights"] == before == [0.7, 0.3]
    assert state["weights"][0] > 0.8  # a still falls, b has nothing left to learn


def test_doge_by_hand():
    """Rate 0.01, mu 0.1. Agreement is the mean over targets: (4, -1); the mean length is 2.
    Scores 0.01 x 2 = 0.02 and 0, not below; over mu 0.2 and 0: 1 / (1 + exp(-0.2)) = 0.549834.
    Catches a score that may push a domain down, and the length of one domain for all."""
    controller = DogeController(evaluated=("x", "y"))
    state = controller.start(TWO, EVEN, 100)
    seen = {"products": ((3.0, 5.0), (-1.0, -1.0)), "norms": (1.0, 3.0), "rate": 0.01}
    state = controller.update(state, evidence(10, **seen))
    assert state["weights"][0] == pytest.approx(0.549834, abs=1e-6)
    # agreement 40: 0.01 x 20 is above 5 x 0.01, which over mu is 0.5; log p goes on
    seen["products"] = ((40.0, 40.0), (0.0, 0.0))
    state = controller.update(state, evidence(20, **seen))
    assert state["weights"][0] == pytest.approx(1 / (1 + math.exp(-0.7)), abs=1e-6)
    assert state["due"] == 40


def test_grape_by_hand():
    """mu_train 1, mu_target 1, eps 0. Losses (1, 2), so products count (1, 0.5).
    h . g: domain a (2, 0), domain b (0, 1); sum_d p_d g_d . h_n = (1, 0.5).
    z ~ exp(-1) : exp(-0.5) -> 0.377541; p ~ exp(2 x 0.377541) : exp(0.622459) -> 0.533118.
    Catches gradients of the loss for those of its logarithm, the old z, and the sign of z."""
    controller = Grape(evaluated=("x", "y"), train=1.0, target=1.0, smoothing=0.0)
    state = controller.start(TWO, EVEN, 100)
    seen = {"products": ((2.0, 0.0), (0.0, 2.0)), "held_out": (1.0, 2.0)}
    state = controller.update(state, evidence(10, **seen))
    assert state["importance"][0] == pytest.approx(0.377541, abs=1e-6)
    expected = 1 / (1 + math.exp(0.622459 - 2 * 0.377541))
    assert state["weights"][0] == pytest.approx(expected, abs=1e-6)
    assert expected == pytest.approx(0.533107, abs=1e-5)


def test_mixmin_by_hand():
    """One gradient step, rate 1, examples of length 1 with p = (0.8, 0.2) and (0.4, 0.6) from even
    weights: mixtures 0.5 and 0.5; mean p / mixture = (1.6 + 0.8) / 2 = 1.2 and (0.4 + 1.2) / 2 =
    0.8; 1 / (1 + exp(-0.4)) = 0.598688. Catches a gradient of the likelihood, not of its log."""
    controller = MixMinController(rounds=1)
    state = controller.start(TWO, (0.3, 0.7), 100)
    assert state["due"] == 0
    logs = tuple(tuple(map(math.log, row)) for row in ((0.8, 0.2), (0.4, 0.6)))
    seen = {"likelihoods": logs, "lengths": (1, 1)}
    after = controller.update(state, evidence(0, **seen))
    assert after["weights"][0] == pytest.approx(0.598688, abs=1e-6) and after["due"] == 100


def test_mixmin_finds_the_optimum():
    """Half of the examples have p = (0.9, 0.1), half (0.3, 0.7). In w: the mean log of
    0.1 + 0.8 w and 0.7 - 0.4 w, whose derivative 0.8 / (0.1 + 0.8 w) - 0.4 / (0.7 - 0.4 w) is 0
    at w = 0.8125. Catches a stop after the first step."""
    controller = MixMinController(tolerance=1e-12, rounds=2000)
    logs = tuple(tuple(map(math.log, row)) for row in ((0.9, 0.1), (0.3, 0.7)))
    found = controller.solve(np.array(logs), np.ones(2))
    assert found[0] == pytest.approx(0.8125, abs=1e-3)


def test_moments_lie_within_a_run():
    assert even_steps(60, 5) == [10, 20, 30, 40, 50]
    assert even_steps(3, 8) == [1, 2]


@pytest.mark.parametrize(
    "make",
    [
        lambda: GroupDRO(rate=0.0),
        lambda: SkillItController(window=0),
        lambda: SkillItController(graph=((1.0,),), evaluated=("x", "y")),
        lambda: Exp3(scale=0.0),
        lambda: DogeController(strength=0.0),
        lambda: Grape(smoothing=1.0),
        lambda: MixMinController(rounds=0),
        lambda: MixMinController(sources=("x",)).start(TWO, EVEN, 10),
        lambda: AdoController(ignored=0.95),
        lambda: AioliController(ema=1.0),
        lambda: AioliController(probe=0.0),
        lambda: SkillItController(graph=((1.0,),), evaluated=("x",)).start(TWO, EVEN, 10),
    ],
)
def test_numbers_out_of_range_are_refused(make):
    with pytest.raises(RecipeError, match="got|graph"):
        make()
