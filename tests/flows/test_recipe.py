"""A recipe is refused in one sentence that says where and how to fix it."""

import json
from pathlib import Path

import pytest

from cuvee.flows.recipe import load
from cuvee.flows.scheduling.schedule import recipe_with_changes
from cuvee.mixtures.domains import Domain, DomainSet
from cuvee.mixtures.errors import ConstraintError, CuveeError, RecipeError, UnknownName

GOOD = """
name: tiny
corpus: {domains: {a: {path: a.txt}, b: {path: b.txt}}}
objective: {name: mean, weights: {domain/a: 1}}
full_scale: {tokens: 20M}
method: {name: regmix, runs: 4}
"""
RECIPES = sorted(Path(__file__).parent.parent.parent.glob("recipes/*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_shipped_recipe_is_accepted(path):
    """Catches a recipe that was left behind when a field changed."""
    given, text = load.load_recipe(path)
    assert given.name == path.stem and text == path.read_text()


def test_counts_may_carry_a_suffix():
    """Catches 20M read as text, and 1.5B read as 1."""
    assert load.parse(GOOD).full_scale.tokens == 20_000_000
    assert load.parse(GOOD.replace("20M", "1.5B")).full_scale.tokens == 1_500_000_000
    assert load.parse(GOOD.replace("20M", "2e7")).full_scale.tokens == 20_000_000


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("full_scale", "fullscale", "'fullscale'.*did you mean 'full_scale'"),
        ("tokens: 20M", "token: 20M", "full_scale.token'.*did you mean 'tokens'"),
        ("path: a.txt", "pth: a.txt", "did you mean 'path'"),
        (
            "path: a.txt",
            "path: a.jsonl, id: url, attributes: [id, lang]",
            "a.attributes: 'id' is the column that id: url fills",
        ),
        (
            "domains: {a: {path: a.txt}",
            "deduplicate: near, domains: {a: {path: a.jsonl, attributes: [cluster_size]}",
            "'cluster_size' is the column that corpus.deduplicate: near fills",
        ),
        ("name: regmix", "name: regmx", "did you mean 'regmix'"),
        ("runs: 4", "rums: 4", "did you mean 'runs'"),
        ("name: mean", "name: maen", "did you mean 'mean'"),
        ("tokens: 20M", "tokens: -5", "full_scale.tokens.*greater than 0"),
        ("tokens: 20M", "tokens: many", "full_scale.tokens.*'many'"),
        ("runs: 4", "runs: four", "runs must be a whole number; got 'four'"),
        ("name: tiny\n", "", "'name' is missing"),
        ("name: tiny", "name: ../../etc", "name"),
        ("domain/a: 1", "domain/a: -1", "positive weight"),
        ("{domains: {a", "{quickstart: [legal], domains: {a", "either `quickstart` or `domains`"),
        ("weights: {", "weights: {{", "not YAML"),
        ("name: tiny", "- tiny", "YAML|mapping"),
        ("name: tiny", "name: tiny\nname: small", "'name' stands twice"),
        ("name: tiny", "name: tiny\nseed: true", "'seed' is neither true nor false"),
        ("domain/a: 1", "domain/a: much", "numbers as a mapping.*'much'"),
        ("name: tiny", "name: !!python/name:os.system", "not YAML"),
        ("name: tiny", "name: tiny\nproxy: {size: 0.6m}", "proxy size '0.6m'.*'0.6M'"),
        (
            "name: tiny",
            "name: tiny\nproxy: {size: {width: 64, layers: 2}}",
            "proxy.size: a shape needs width, layers, heads, context; heads and context missing",
        ),
        ("name: tiny", "name: tiny\nproxy: {size: 6}", "proxy.size: must be text"),
        ("name: tiny", "name: tiny\nexport: {validation: {a: []}}", "validation.a: .*not be empty"),
        ("name: tiny", "name: tiny\nexport: {validation: {a: [/x, '']}}", "a.1: may not be empty"),
    ],
)
def test_a_mistake_is_named_with_a_way_out(old, new, words):
    """Catches a field that is ignored, a type that is coerced, a pydantic page as a message."""
    assert old in GOOD
    with pytest.raises(RecipeError, match=f"(?s){words}") as caught:
        load.parse(GOOD.replace(old, new))
    assert "\n" not in str(caught.value) and "pydantic" not in str(caught.value)


def test_yaml_cannot_build_objects():
    """Catches an unsafe loader: a tag must be refused, not executed."""
    with pytest.raises(RecipeError, match="not YAML"):
        load.parse("!!python/object/apply:os.system ['true']")


def test_a_missing_file_names_its_neighbors(tmp_path):
    """Catches a bare FileNotFoundError."""
    (tmp_path / "quick.yaml").write_text(GOOD)
    with pytest.raises(RecipeError, match=r"quick\.yaml"):
        load.load_recipe(tmp_path / "quik.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"name: caf\xe9\n")
    with pytest.raises(RecipeError, match="UTF-8"):
        load.load_recipe(tmp_path / "latin.yaml")


def test_sizes_are_names_shapes_or_a_config_beside_the_recipe(tmp_path, monkeypatch):
    """Catches a path meant from the working directory, a shape under two names in one recipe, a
    record of a study that changes with a file, a scheduled one too, and a path that is a fault."""
    config = {
        "model_type": "llama", "hidden_size": 48, "intermediate_size": 128, "rms_norm_eps": 1e-5,
        "num_hidden_layers": 2, "num_attention_heads": 6, "num_key_value_heads": 2,
        "max_position_embeddings": 512, "tie_word_embeddings": True,
    }  # fmt: skip
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text(json.dumps(config))
    shape = "{width: 48, layers: 2, heads: 6, kv_heads: 2, context: 128, tied: true}"
    text = GOOD.replace(
        "name: regmix, runs: 4",
        f"""name: ladder, runs: 4, rungs: [
      {{size: {shape}, tokens: 1M, runs: 3}}, {{size: base/config.json, tokens: 4M, runs: 2}}]""",
    )
    text += """
proxy: {size: {width: 32, layers: 2, heads: 1, context: 256}}
confirm: {sizes: [{size: {config: base, context: 128}, tokens: 1M}]}
"""
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    monkeypatch.chdir("/")
    given, recorded = load.load_recipe(path)
    small, large = "w48_l2_h6_kv2_c128_tied", "w48_l2_h6_kv2_c512_tied"
    assert given.proxy.size == "0.3M"
    assert [size for size, _ in given.build_method().method.sizes] == [small, large]
    assert given.confirm and given.confirm.sizes[0].size == small
    assert given.digest != load.parse(recorded.replace(large, small)).digest
    changed, text = load.apply_changes(recorded, {"proxy.size": "base/config.json"}, tmp_path)
    assert changed.proxy.size == large
    for strange in ("~nosuch/config.json", "x" * 5000 + "/config.json", "a\0/b"):
        with pytest.raises(RecipeError, match=r"^proxy.size: the shape of") as caught:
            load.apply_changes(recorded, {"proxy.size": strange})
        assert len(str(caught.value)) < 3000
    place = str(tmp_path)
    for asked in ((path.read_text(), None, place), (str(path), None), (str(path), {"seed": 1})):
        scheduled, said = recipe_with_changes(*asked)
        assert scheduled.confirm == given.confirm and scheduled.folder == tmp_path
        assert "base" not in said and load.parse(said).digest == scheduled.digest
    scheduled, _ = recipe_with_changes(recorded, {"proxy.size": "base/config.json"}, place)
    assert scheduled.proxy.size == large
    (tmp_path / "base" / "config.json").unlink()
    assert load.parse(recorded).digest == given.digest
    assert load.parse(text).digest == changed.digest
    with pytest.raises(RecipeError, match=r"confirm.sizes.size: the shape of .* cannot be read"):
        load.load_recipe(path)


def domains() -> DomainSet:
    return DomainSet((Domain("a", 1_000_000, 4_000_000, "1"), Domain("b", 9_000_000, 3, "2")))


def test_clashing_constraints_are_named():
    """Catches a message that lists all constraints, or none: only two of them clash."""
    text = GOOD + "constraints: {epochs: 4, bounds: {a: [0.5, 1], b: [0.1, 1]}}\n"
    given = load.parse(text)
    with pytest.raises(ConstraintError, match="a at least 0.5.*a at most 4 epochs") as caught:
        given.build_constraints(domains())
    assert "b at least" not in str(caught.value)


def test_an_unknown_domain_in_a_constraint_is_named():
    """Catches a bound on a domain that does not exist being ignored."""
    with pytest.raises(CuveeError, match="'c'.*a, b"):
        load.parse(GOOD + "constraints: {bounds: {c: [0.5, 1]}}\n")


def test_unknown_names_carry_a_suggestion_as_an_error_of_their_own():
    """Catches an unknown name reported as a generic recipe error, which loses the suggestion."""
    with pytest.raises(UnknownName):
        load.parse(GOOD.replace("regmix", "regmixx"))
