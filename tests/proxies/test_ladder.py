"""The ladder: shapes near their names, the cited laws, schedules that are functions of the step."""

import subprocess
import sys

import pytest

from cuvee.mixtures.errors import RecipeError, UnknownName
from cuvee.proxies import ladder


@pytest.mark.parametrize("size", ladder.LADDER)
def test_a_size_has_about_the_parameters_it_is_named_after(size: str) -> None:
    """Catches a width, depth or MLP that drifted from the name by a fifth."""
    named = float(size.removesuffix("M")) * 1e6
    assert ladder.model_size(size).parameters(4096) == pytest.approx(named, rel=0.2)


def test_parameters_are_counted_by_hand() -> None:
    """0.6M: 2 x 4096 x 64 + 2 x (4 x 64^2 + 3 x 64 x 192) + 5 x 64, MLP 8/3 x 64 rounded to 192."""
    assert ladder.model_size("0.6M").parameters(4096) == 524288 + 2 * (16384 + 36864) + 320


def test_step_law_at_a_published_point() -> None:
    """N = 1e9, D = 1e11: rate 1.79 x 10^(-6.417 + 3.377), batch 0.58 x 10^6.281."""
    assert ladder.rate_law(10**9, 10**11) == pytest.approx(1.79 * 10**-3.04, rel=1e-3)
    assert ladder.batch_law(10**11) == pytest.approx(0.58 * 10**6.281, rel=1e-3)


def test_the_batch_follows_the_law_above_its_floor() -> None:
    """Catches a batch counted in tokens: 0.58 (2e9)^0.571 = 118 k, nearest 128 x 1024."""
    assert ladder.training_plan("100M", 2 * 10**9, 4096).batch == 128
    assert ladder.training_plan("0.6M", 400_000, 4096).batch == ladder.LEAST_BATCH


def test_the_rate_is_the_law_for_large_bodies_and_the_measured_one_for_small() -> None:
    """At 400k tokens sweeps found 6e-3 to 8e-3 best for 0.6M: catches a law taken as it is."""
    plan = ladder.training_plan("100M", 2 * 10**9, 4096)
    assert plan.peak == pytest.approx(ladder.rate_law(ladder.model_size("100M").body, 2 * 10**9))
    small = ladder.training_plan("0.6M", 400_000, 4096)
    assert 6e-3 <= small.peak <= 8e-3
    assert ladder.training_plan("0.6M", 400_000, 4096, rate=0.5).peak == pytest.approx(
        small.peak / 2
    )


def test_steps_use_no_more_tokens_than_asked_for() -> None:
    plan = ladder.training_plan("0.6M", 400_000, 4096)
    assert plan.steps == 195  # 400,000 // 2048
    assert plan.tokens == 195 * 2048


@pytest.mark.parametrize("schedule", ladder.SCHEDULES)
def test_schedules_rise_to_the_peak_and_end_low(schedule: str) -> None:
    """Catches a first step at rate 0, a peak never reached, a decay that stops early."""
    plan = ladder.training_plan("0.6M", 400_000, 4096, schedule=schedule)
    rates = [plan.rate(step) for step in range(plan.steps)]
    assert min(rates) > 0
    assert max(rates) == pytest.approx(plan.peak)
    assert rates.index(max(rates)) == plan.warmup - 1
    assert rates[-1] <= 0.11 * plan.peak or schedule == "constant"
    assert schedule != "constant" or rates[-1] == rates[plan.warmup]
    tail = rates[plan.warmup :]
    assert tail == sorted(tail, reverse=True)


def test_wsd_is_stable_until_its_decay() -> None:
    plan = ladder.training_plan("0.6M", 400_000, 4096)
    assert plan.rate(plan.steps - plan.decay - 1) == plan.peak
    assert plan.rate(plan.steps - plan.decay // 2) < 0.5 * plan.peak


def test_flops_by_hand() -> None:
    """6 x (body + head) + 12 x 2 layers x width 64 x context 256 / 2 per token."""
    per_token = 6 * (106496 + 262144) + 12 * 2 * 64 * 128
    assert ladder.training_plan("0.6M", 400_000, 4096).flops == per_token * 195 * 2048


def test_mistakes_are_named() -> None:
    with pytest.raises(UnknownName, match=r"did you mean '0\.6M'"):
        ladder.model_size("0.6m")
    with pytest.raises(UnknownName, match="did you mean 'cosine'"):
        ladder.training_plan("0.6M", 400_000, 4096, schedule="cosin")
    with pytest.raises(RecipeError, match="at least 40,960 tokens"):
        ladder.training_plan("0.6M", 30_000, 4096)
    with pytest.raises(RecipeError, match="must be positive"):
        ladder.training_plan("0.6M", 400_000, 4096, rate=0.0)


def test_planning_needs_no_torch() -> None:
    """`cuvee plan` must stay quick: catches an import of torch on the way to a plan."""
    code = (
        "import sys, cuvee.proxies.ladder, cuvee.proxies.train.batching;"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_larger_vocabulary_changes_no_size_but_in_what_it_holds() -> None:
    """By hand: 2 x 131,072 x 64 + 106,816. Catches a law over sizes that sees embeddings grow, so
    that a body 75 times as large is a model five times as large; and a rate that follows them."""
    small, large = ladder.model_size("0.6M"), ladder.model_size("10M")
    assert small.parameters(131_072) == 16_777_216 + 106_496 + 320
    assert small.law_parameters(131_072) == small.parameters(4096)
    assert small.law_parameters(512) == small.parameters(512)  # as studies have it in their records
    assert large.law_parameters(262_144) / small.law_parameters(262_144) > 15
    assert ladder.training_plan("0.6M", 10**6, 131_072).peak == pytest.approx(
        ladder.training_plan("0.6M", 10**6, 4096).peak
    )
    words = small.describe(131_072)
    assert "106k in its body and 16.9M in all, with embeddings and head of 131,072 tokens" in words
