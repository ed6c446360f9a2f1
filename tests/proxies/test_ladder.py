"""The ladder: shapes near their names, the cited laws, schedules that are functions of the step."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cuvee.mixtures.errors import RecipeError, UnknownName
from cuvee.mixtures.units import whole_number
from cuvee.proxies import ladder
from cuvee.proxies.model_size import shape_text


@pytest.mark.parametrize("size", ladder.LADDER)
def test_a_size_has_about_the_parameters_it_is_named_after(size: str) -> None:
    """Catches a width, depth or MLP that drifted from the name by a fifth."""
    named = whole_number(size)
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


SHAPE = {"width": 576, "layers": 30, "heads": 9, "kv_heads": 3, "context": 2048, "mlp": 1536}


def test_a_shape_is_its_own_name_and_one_of_the_ladder_has_the_ladders() -> None:
    """SmolLM-135M has 134,515,008 parameters at 49,152 tokens (its model card says 135M; by hand:
    49,152 x 576 + 30 x (2 x 576 x 768 + 3 x 576 x 1536) + 61 x 576).

    Catches keys and values counted whole, an embedding counted twice, a text that loses a field,
    and runs of one shape under two fingerprints.
    """
    text = ladder.size_name({**SHAPE, "tied": True}, str)
    assert text == "w576_l30_h9_kv3_c2048_tied"  # 8/3 of the width are 1536
    shape = ladder.model_size(text)
    assert shape.parameters(49_152) == 134_515_008
    assert shape.body == 30 * (2 * 576 * 768 + 3 * 576 * 1536)
    odd = {**SHAPE, "mlp": 1500, "kv_heads": 9, "rope": 12_345.5, "epsilon": 1e-6}
    again = ladder.model_size(ladder.size_name(odd, str))
    assert again.size == "w576_l30_h9_c2048_mlp1500_rope12345.5_eps1e-06"
    assert (again.mlp, again.rope, again.epsilon, again.tied) == (1500, 12_345.5, 1e-6, False)
    for name, one in ladder.LADDER.items():
        given = {field: getattr(one, field) for field in ("width", "layers", "heads", "context")}
        assert ladder.size_name(given, str) == name == ladder.size_name(name, str)
        assert ladder.model_size(one.size) == one
        assert ladder.size_name(shape_text(one), str) == name


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"heads": 7}, "a width of 576 has no 7 heads"),
        ({"kv_heads": 2}, "9 heads cannot share 2"),
        ({"width": "576"}, "width of a shape is a whole number from 1 to .*; got '576'"),
        ({"layers": 0}, "layers of a shape"),
        ({"layers": True}, "layers of a shape"),
        ({"context": None}, "context of a shape"),
        ({"tied": 1}, "tied of a shape is true or false; got 1"),
        ({"rope": float("nan")}, "rope of a shape"),
        ({"head": 64}, "unknown field of a shape 'head'.*'heads'"),
    ],
)
def test_a_shape_that_no_model_has_is_refused(change: dict[str, Any], words: str) -> None:
    """Catches a crash in torch an hour later, true for 1, and a field that has no effect."""
    with pytest.raises(RecipeError, match=words):
        ladder.size_name({**SHAPE, **change}, str)


CONFIG = {
    "model_type": "llama", "hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 2,
    "num_attention_heads": 2, "max_position_embeddings": 256, "rms_norm_eps": 1e-5,
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({}, "0.6M"),
        ({"num_key_value_heads": None, "rope_scaling": None, "head_dim": 32}, "0.6M"),
        ({"num_key_value_heads": 1}, "w64_l2_h2_kv1_c256"),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}},
         "w64_l2_h2_c256_rope500000"),
        ({"model_type": "gpt2"}, "model_type is 'gpt2', wanted 'llama'.*proxy.trainer"),
        ({"attention_bias": True}, "attention_bias is True"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ({"head_dim": 64}, "head_dim is 64"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 32.0}}, "rope_scaling asks .*'llama3'"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "positions of type 'yarn'"),
        ({"hidden_size": "x"}, "width of a shape"),
        ({"head_dim": {}}, "head_dim is {}"),
        ({"head_dim": "32", "num_attention_heads": 1}, "head_dim is '32'"),
        ({"intermediate_size": 0}, "intermediate_size is 0"),
        ({"num_key_value_heads": False}, "num_key_value_heads is False"),
        ({"rope_theta": 0}, "rope of a shape is a number above 0"),
        ({"rope_parameters": {"rope_theta": False}}, "rope of a shape is a number above 0"),
        ({"model_type": 9999 * "x"}, "^.{,300} .{,300}$"),
        ({"rope_scaling": {"type": 9999 * "x"}}, "^.{,300} .{,300}$"),
    ],
)  # fmt: skip
def test_a_config_gives_its_shape_or_says_what_is_not_built(
    change: dict[str, Any], found: str, tmp_path: Path
) -> None:
    """Catches a bias, a scaled position or an activation that is left out in silence, a 0 that is
    taken for the usual, and a megabyte that is said again."""
    place = tmp_path / "config.json"
    place.write_text(json.dumps(CONFIG | change))
    if " " not in found:
        assert ladder.size_name(str(place), str) == found
        assert ladder.size_name({"config": str(tmp_path), "context": 128}, str) != found
    else:
        with pytest.raises(RecipeError, match=found):
            ladder.size_name(str(place), str)


@pytest.mark.parametrize("text", ["{", "[]", "[" * 100_000, None])
def test_a_config_that_is_none_is_refused_in_a_sentence(text: str | None, tmp_path: Path) -> None:
    """Catches a traceback for a file that is missing, cut short, or no mapping."""
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(RecipeError, match="the shape of .* cannot be read"):
        ladder.size_name(str(tmp_path / "config.json"), str)


def test_a_problem_knows_what_its_study_uses_and_is_else_the_one_of_before() -> None:
    """Catches fits of earlier studies that are lost because the ladder grew."""
    first = ("0.3M", "0.6M", "1M", "2M", "4M", "10M", "30M", "100M")
    assert tuple(name for name, _ in ladder.problem_sizes(["0.6M", "2M"], 4096)) == first
    text = ladder.size_name(SHAPE, str)
    more = ladder.problem_sizes(["1B", text, "1M"], 4096)
    assert [name for name, _ in more[8:]] == [text, "1B"]
    assert dict(more)[text] == ladder.model_size(text).parameters(4096)


def test_flops_by_hand() -> None:
    """6 x (body + head) + 12 x 2 layers x width 64 x context 256 / 2 per token."""
    per_token = 6 * (106496 + 262144) + 12 * 2 * 64 * 128
    assert ladder.training_plan("0.6M", 400_000, 4096).flops == per_token * 195 * 2048


def test_mistakes_are_named() -> None:
    with pytest.raises(UnknownName, match=r"did you mean '0\.6M'"):
        ladder.model_size("0.6m")
    with pytest.raises(UnknownName, match="did you mean 'cosine'"):
        ladder.training_plan("0.6M", 400_000, 4096, schedule="cosin")
    for shape in ("w64_l2_h3_c64", "w" + "9" * 5000 + "_l2_h2_c64", "w64_l2_h2_c64_rope1e999"):
        with pytest.raises(RecipeError):
            ladder.model_size(shape)
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
