"""The JSON schema of a recipe says what the loader takes and refuses, and stands in recipes/."""

import copy
import functools
import json
import re
from typing import Annotated, Any

import command
import jsonschema
import pytest
import shipped
import yaml
from pydantic import BaseModel, create_model

from cuvee.flows.recipe import json_schema
from cuvee.flows.recipe.load import build_recipe
from cuvee.flows.recipe.parts import Part
from cuvee.flows.recipe.schema import Recipe
from cuvee.mixtures.errors import CuveeError, RecipeError
from cuvee.tasks import strict_yaml
from cuvee.tasks.tracking import fields

FILE = shipped.PATHS[0].with_name("recipe.schema.json")
LINE = "# yaml-language-server: $schema=recipe.schema.json\n"
TEXT = """
name: x
seed: 1
corpus:
  domains: {a: {path: p, field: f, separator: s}, b: {path: [p, q]}}
  vocabulary: 4k
  on_error: skip
proxy: {size: 1M, tokens: 20M, schedule: wsd, average: 0.1, match_repetition: true, pack: 4}
evaluation: {curve: 3, suite: quickstart, tasks: [piqa_offline], limit: 100, custom: {qa: qa.jsonl}}
objective:
  name: floors
  weights: {domain/a: 1}
  floors: {domain/b: 0.1}
  families: {f: [domain/a]}
constraints:
  bounds: {a: [0.1, 0.9]}
  groups: [{domains: [a], at_least: 0.1, at_most: 0.95}]
  required: {b: 0.05}
  epochs: 4
  most_domains: 2
  most_kl: 3
  ratios: []
full_scale: {tokens: 300B, parameters: 7B}
method:
  name: anneal
  runs: 20
  design: {name: dirichlet, temperature: 1.0}
  laws: [kriging, {name: log_linear, huber: 0}]
  search: auto
  anchors: [natural, {a: 0.5, b: 0.5}]
  refits: 20
  switches: [0.8]
  tail_law: log_linear
confirm: {seeds: 3, sizes: [{size: 2M, tokens: 40M}], mixtures: {ours: {a: 0.5, b: 0.5}}}
limits: {failed_share: 0.5, least_signal: 2, drop_noisy: false}
budget: {flops: 1e18, minutes: 3, money: {per_hour: 3, most: 4}}
schedule: {cron: "0 3 * * 1", notify: slack-webhook/x, limit: 1, reuse: true}
export:
  tokens: 3B
  paths: {a: p, b: [p, q]}
  batch: 3
  formats: {mosaic: {samples: documents}, huggingface: {field: {a: text}}}
handoff: {format: mosaic, to: out, stage: 1, command: [/bin/true], timeout: 3}
"""
TABLES = """
name: t
tables:
  mixtures: m.csv
  scores: s.csv
  id: run
  sizes: {a: 1.5, b: 4B}
  token_counts: {a: 3M}
  families: {f: [x, y]}
  unmatched: leave out
  every: true
objective: {name: worst, members: [x, f]}
method:
  name: ladder
  laws: kriging
  rungs: [{size: 1M, tokens: 20M, runs: 4}]
  scaling: [additive, {name: nested, law: power}]
"""
VALUES = (
    None, True, False, -1, 0, 1, 0.5, 7.0, 1e12, "20M", " 1.5B", "1.5", "2", "-3", "many", "",
    "yes", [], ["a"], [0.2, 0.4], {}, {"a": 1}, {"a": "b"}, {"name": "kriging"}, "kriging",
    "mosaic", "1_000",
)  # fmt: skip
GONE, UNKNOWN = object(), object()  # the field is taken out; it holds a field that does not exist
REFUSES = (  # what the loader says of `json_schema.LOADER_ALONE`
    r"unknown (target|domain) '", r"do not sum|sum to|clash|needs 0 <=|within 0 and 1|not negative",
    r"tokens are \d+ steps|FLOPs|twice|each rung|asks for \d+ mixtures", r"at least 2 items",
    r"must be (less|greater) than .*; got '",
    r"a (method|mean|worst-case objective) needs",
    r"positive weight|needs a share|epoch cap|has no members|needs at least one in `floors`",
    r"(anneal|saturating_power|log_linear|dirichlet|nested) needs|intervals need|refits",
    r"counts from 0|must be int; got 7\.0|switches|already; choose another|either `webhook` or",
    r"kept ratios|must be positive|one domain|a rung is|could not convert",
    r"must be a whole number; got ('1\.5'|7\.0)|must be float; got|drop_noisy to false",
    r"is at least 0", r"comes from `path` or from `dataset`", r"an anchor is .*; got (\(\)|\{\})$",
)  # fmt: skip
LOOSE = re.compile(r"objective\.|method\.(anchors|rungs)")  # `json_schema.SCHEMA_ALONE`


@functools.cache
def validator() -> Any:
    return jsonschema.Draft202012Validator(json_schema.recipe_schema())


def test_the_shipped_schema_is_what_the_program_prints(tmp_path):
    """Catches a schema that was left behind when a field, a law or a format changed."""
    done = command.inside("schema", home=tmp_path)
    assert done.returncode == 0, done.stderr
    assert FILE.read_text(encoding="utf-8") == done.stdout, (
        "the fields of recipes have changed: `cuvee schema > recipes/recipe.schema.json`"
    )


def test_the_schema_is_one_of_its_draft():
    """Catches a keyword with a value that no validator can read."""
    jsonschema.Draft202012Validator.check_schema(json_schema.recipe_schema())


@pytest.mark.parametrize(
    "path", [*shipped.PATHS, *shipped.EXAMPLES], ids=lambda path: f"{path.parent.name}/{path.stem}"
)
def test_every_shipped_recipe_keeps_to_the_schema_that_it_names(path):
    """Catches a recipe that an editor marks though the loader takes it, or that names none."""
    text = path.read_text(encoding="utf-8")
    begin, _, named = text.partition("\n")[0].partition("=")
    assert f"{begin}=" == LINE.partition("recipe.")[0]
    assert (path.parent / named).resolve() == FILE
    values = strict_yaml.load_yaml(text)
    assert [error.message for error in validator().iter_errors(values)] == []


def places(value: Any, path: tuple = ()) -> Any:
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in inner:
        yield (*path, key)
        if isinstance(item, dict | list):
            yield from places(item, (*path, key))


def edited(base: Any, path: tuple, value: Any) -> Any:
    """A recipe with one value changed."""
    made = copy.deepcopy(base)
    *outer, last = path
    at = functools.reduce(lambda part, key: part[key], outer, made)
    if value is GONE:
        del at[last]
    elif value is UNKNOWN:
        at[last]["no_such"] = 1
    else:
        at[last] = copy.deepcopy(value)
    return made


def edits() -> Any:
    for base in (yaml.safe_load(TEXT), yaml.safe_load(TABLES)):
        for path in places(base):
            at = functools.reduce(lambda part, key: part[key], path, base)
            for value in (*VALUES, GONE, *([UNKNOWN] if isinstance(at, dict) else [])):
                yield base, path, value


def said_by_loader(values: Any) -> str:
    try:
        build_recipe(values, "r")
    except CuveeError as error:
        return str(error)
    return ""


def disagreement(base: Any, path: tuple, value: Any) -> str:
    """Where schema and loader differ though they need not; "" where they agree."""
    recipe, place = edited(base, path, value), ".".join(map(str, path))
    said, taken = said_by_loader(recipe), validator().is_valid(recipe)
    if taken and said and not any(re.search(words, said) for words in REFUSES):
        return f"{place} = {value!r}: the schema takes what the loader refuses: {said}"
    if not taken and not said and not LOOSE.match(place):
        return f"{place} = {value!r}: the schema refuses what the loader takes"
    return ""


@pytest.mark.parametrize("text", [TEXT, TABLES], ids=["corpus", "tables"])
def test_recipes_with_every_kind_of_field_are_taken_by_both(text):
    """Catches an edit below that agrees because both refuse what it was made from."""
    values = yaml.safe_load(text)
    assert not said_by_loader(values) and validator().is_valid(values)


@pytest.mark.parametrize("part", range(2))
def test_schema_and_loader_agree_on_edits(part):
    """Catches a type, a limit or a name that only one of the two knows; a part of the edits."""
    some = list(edits())[part * 80 :: 163]
    assert [text for text in map(disagreement, *zip(*some, strict=True)) if text] == []


@pytest.mark.slow
def test_schema_and_loader_agree_on_every_edit():
    """As above, for every field and every value."""
    assert [text for text in map(disagreement, *zip(*edits(), strict=True)) if text] == []


def test_the_two_differ_where_they_say_so():
    """Catches a list of differences of which one is none, so that a true one could hide in it."""
    base, tables = yaml.safe_load(TEXT), yaml.safe_load(TABLES)
    alone = [
        (base, ("constraints", "required"), {"nowhere": 0.1}, "unknown domain"),
        (base, ("constraints", "bounds", "a"), [0.9, 0.1], "within 0 and 1"),
        (base, ("proxy", "schedule"), "cosine", "evaluation.curve"),
        (base, ("method", "folds"), 1, "folds of 2"),
        (base, ("proxy", "average"), "1.5", "less than 1"),
    ]
    for given, path, value, words in alone:
        assert words in said_by_loader(edited(given, path, value))
        assert validator().is_valid(edited(given, path, value))
    loose = edited(tables, ("objective", "members"), [1])
    assert not said_by_loader(loose) and not validator().is_valid(loose)


def models(model: type[BaseModel]) -> set[type[BaseModel]]:
    found = {model}
    for field in model.model_fields.values():
        kinds = [field.annotation]
        while kinds:
            kind = kinds.pop()
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                found |= models(kind)
            kinds += getattr(kind, "__args__", ())
    return found


EVERY = sorted(
    (f"{model.__name__}.{name}", name, field)
    for model in models(Recipe)
    for name, field in model.model_fields.items()
)


@pytest.mark.parametrize(("place", "name", "field"), EVERY, ids=[place for place, *_ in EVERY])
def test_every_field_says_what_it_is_and_shows_a_value_that_is_taken(place, name, field):
    """Catches a field that nobody explains, and an example that the loader would refuse."""
    assert field.description and field.description.endswith(".") and field.examples, place
    alone = create_model(
        "Alone", __base__=Part, **{name: (Annotated[field.annotation, field], ...)}
    )
    for example in field.examples:
        taken = alone.model_validate({name: example})
        assert getattr(taken, name) != field.default, (
            "an example shows something else than the default"
        )


def test_the_line_for_editors_changes_nothing_that_is_recorded():
    """Catches a study of an earlier text of the same recipe that its record is not found for."""
    found, text = shipped.recipe("quickstart")
    plain = text.removeprefix(LINE)
    digests = [fields._input_digests(one, _Known()) for one in (text, plain, f"# other\n{plain}")]
    assert digests[0] == digests[1] != digests[2]
    assert found.digest == build_recipe(strict_yaml.load_yaml(plain), "r").digest


class _Known:
    """A problem of which only the domains are asked."""

    class domains:
        identities = ("a", "b")


@pytest.mark.parametrize("value", ["1.5", "2", "-1"])
def test_a_quoted_number_out_of_range_is_refused_in_a_sentence(value):
    """Catches a comparison of a text with a number on the way to the sentence."""
    values = edited(yaml.safe_load(TEXT), ("proxy", "average"), value)
    with pytest.raises(RecipeError, match=f"proxy.average: must be .*; got '{value}'"):
        build_recipe(values, "r")


def test_printed_as_an_object_the_schema_is_a_value_of_it(tmp_path):
    """Catches a schema beside the one object that --json promises."""
    done = command.inside("schema", "--json", home=tmp_path / "home")
    assert json.loads(done.stdout)["schema"] == json.loads(FILE.read_text(encoding="utf-8"))
    assert not (tmp_path / "home").exists()
