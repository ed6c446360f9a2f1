"""The catalog: every registered class says when to take it, and what each of its fields means."""

import typing
from dataclasses import dataclass
from typing import Any

import pytest

from cuvee.mixtures import catalog, registry
from cuvee.mixtures.errors import CuveeError, UnknownName
from cuvee.tasks import export

KINDS = [kind for kind in registry.FOLDERS if kind != "world"]  # worlds stand in no recipe
EVERY = [(kind, name) for kind in registry.FOLDERS for name in registry.names(kind)]
NEEDED = {  # without which a class of its kind is refused
    "mean": {"weights": {"t": 1}},
    "worst": {"members": ["t"]},
    "regret": {"best": {"t": 1}},
    "floors": {"weights": {"t": 1}, "floors": {"t": 0}},
    "hinge": {"weights": {"t": 1}, "floors": {"t": 0}},
    "smallest_step": {"gains": {"t": 0.01}},
}


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_every_field_of_every_class_is_described(kind, name):
    """Catches a hyper-parameter that a recipe takes and that no reference explains, and one of
    type Any whose form in a recipe nothing says."""
    entry = catalog.catalog_entry(kind, name)
    assert entry.summary.endswith((".", "`")) and len(entry.summary) < 200
    for field in entry.fields:
        assert field.description, f"{field.name}: describe it under `Attributes:`"
        assert field.type is not Any, f"{field.name}: say in Annotated what recipes write there"


@pytest.mark.parametrize("kind", KINDS)
def test_every_class_says_when_to_take_it(kind):
    """Catches a new law among sixteen of which a user cannot tell whether it is meant for them."""
    for entry in catalog.catalog(kind):
        assert entry.guidance.endswith("."), f"{kind} {entry.name}: add a paragraph 'Take it ...'"


def test_regmix_with_kriging_is_what_the_names_say_themselves():
    """Catches guidance that leaves a newcomer among fourteen methods."""
    assert "`laws: [kriging]`" in catalog.catalog_entry("method", "regmix").guidance
    assert "`regmix`" in catalog.catalog_entry("law", "kriging").guidance


def fields_of(kind_of_type):
    for kind, name in EVERY:
        for field in catalog.catalog_entry(kind, name).fields:
            if kind_of_type(field.type):
                yield pytest.param(kind, name, field, id=f"{kind}-{name}-{field.name}")


@pytest.mark.parametrize(
    ("kind", "name", "field"), fields_of(lambda t: isinstance(t, registry.Registered))
)
def test_a_field_takes_the_kind_that_it_names(kind, name, field):
    """Catches a type that says "law" of a field that builds a scaling law."""
    with pytest.raises(UnknownName, match=f"unknown {field.type.kind} 'no_such'"):
        registry.build(kind, {"name": name, field.name: "no_such"})
    several = list(registry.names(field.type.kind)[:1]) * 2
    if not field.type.many:
        with pytest.raises(CuveeError):
            registry.build(kind, {"name": name, field.name: several})


@pytest.mark.parametrize(
    ("kind", "name", "field"), fields_of(lambda t: typing.get_origin(t) is typing.Literal)
)
def test_a_field_of_few_words_takes_these_and_no_other(kind, name, field):
    """Catches a list of words beside the class's own that went its own way."""
    for value in typing.get_args(field.type):
        made = registry.build(kind, {"name": name, field.name: value})
        assert getattr(made, field.name) == value
    other = "no_such" if isinstance(value, str) else 987
    with pytest.raises(CuveeError, match=str(other)):
        registry.build(kind, {"name": name, field.name: other})


def test_a_description_comes_from_the_nearest_class():
    """Catches fields of a method that lose what the swarm says of them, or keep it over their own
    class's word; and continuation lines that are cut, or run into the next field."""
    told = {
        field.name: field.description for field in catalog.catalog_entry("method", "bayes").fields
    }
    assert told["runs"] == "mixtures of the first round."
    assert told["design"] == "which mixtures are tried; a registered design."
    floors = {field.name: field for field in catalog.catalog_entry("objective", "floors").fields}
    assert floors["most"].description.endswith("such as a checkpoint's scores.")
    assert "most" not in floors["families"].description


def test_a_class_of_another_package_without_words_is_seen_through():
    """Catches a contract that passes whatever a class says: one without a word fails it."""

    @registry.register("design")
    @dataclass(frozen=True)
    class Mute(registry.lookup("design", "sobol")):
        name = "mute"

        depth: int = 3

    try:
        entry = catalog.catalog_entry("design", "mute")
    finally:
        registry.forget("design", "mute")
    assert [field.description for field in entry.fields if field.name == "depth"] == [""]
    assert "Take it" not in entry.guidance


@pytest.mark.parametrize("kind", [*KINDS, "world"])
def test_defaults_are_those_that_a_class_is_built_with(kind):
    """Catches a default of the catalog that is not the class's own."""
    for entry in catalog.catalog(kind):
        needed = NEEDED.get(entry.name, {})
        made = registry.build(kind, {"name": entry.name, **needed})
        given = {f.name: f.default for f in entry.fields if f.name not in needed}
        assert registry.build(kind, {"name": entry.name, **needed, **given}) == made


def test_formats_of_exports_are_in_the_catalog():
    """Catches a kind that a room above admits and the catalog does not know."""
    assert {entry.name for entry in catalog.catalog(export.KIND)} == set(export.format_names())
