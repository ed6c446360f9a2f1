"""A study whose proxies are shapes and not names: a ladder, its report and a checkpoint."""

import pytest
import tiny_study
from tiny_study import run_inline

from cuvee.flows.handoff.checkpoint import write_checkpoint
from cuvee.flows.recipe.load import parse
from cuvee.flows.study.finished import finished_study
from cuvee.flows.workspace import Workspace
from cuvee.proxies import ladder
from cuvee.tasks.store.results import Store

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_pictures")]
SIZES = ("w24_l1_h4_kv2_c128_tied", "w32_l2_h4_kv2_c128_tied", "w48_l2_h6_kv2_c128_tied")
METHOD = """{name: ladder, runs: 8, seeds: 2, folds: 2, refits: 10, laws: [log_linear],
  scaling: [additive], rungs: [
    {size: {width: 32, layers: 2, heads: 4, kv_heads: 2, context: 128, tied: true}, tokens: 40000,
     runs: 6},
    {size: {width: 48, layers: 2, heads: 6, kv_heads: 2, context: 128, tied: true}, tokens: 60000,
     runs: 5}]}"""


def test_a_study_of_shapes_climbs_and_leaves_a_checkpoint_of_its_shape(tmp_path):
    """Catches a size looked up among the names: in the problem, evidence of scale, the budget,
    the report or the checkpoint."""
    from transformers import AutoModelForCausalLM

    tiny_study.write_corpus(tmp_path / "corpus")
    size = "{width: 24, layers: 1, heads: 4, kv_heads: 2, context: 128, tied: true}"
    text = tiny_study.recipe(
        tmp_path / "corpus",
        proxy=f"{{size: {size}, tokens: 30000}}",
        method=METHOD,
        confirm="null",
        budget="{flops: 1e15}",
    )
    home, recipe = Workspace(tmp_path / "home"), parse(text)
    run_inline(text, home)
    counted = [o.spec.size for o in Store(home.store).outcomes()]
    assert [counted.count(size) for size in SIZES] == [12, 6, 5]
    scale = finished_study(recipe, home).answer.scale
    assert scale and scale.largest_parameters == ladder.model_size(SIZES[2]).parameters(512)
    page = (home.study("tiny") / "report.html").read_text(encoding="utf-8")
    assert all(f"a proxy of size {size} has" in page for size in SIZES)
    folder, spec = write_checkpoint(recipe, home, "natural", tmp_path / "proxy")
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert spec.size == SIZES[0] == ladder.size_name(str(folder), str)
    assert model.num_parameters() == ladder.model_size(SIZES[0]).parameters(512)
