"""The registry: names and fields from recipes, with suggestions for what is not there."""

import json
import sys
from dataclasses import dataclass

import pytest

from cuvee.mixtures import registry
from cuvee.mixtures.designs.dirichlet import Dirichlet
from cuvee.mixtures.errors import RecipeError, UnknownName
from cuvee.mixtures.laws import Law
from cuvee.mixtures.methods.regmix import RegMix
from cuvee.mixtures.registry import build, describe, names, register


def test_an_unknown_name_suggests_the_nearest():
    with pytest.raises(
        UnknownName, match=r"unknown design 'dirichelt'; did you mean 'dirichlet'\?"
    ):
        build("design", "dirichelt")
    with pytest.raises(UnknownName, match=r"known: .*dirichlet"):
        build("design", "zzz")


def test_a_number_among_no_names_is_unknown_like_any_name():
    """Catches the nearest of no sizes, which is no sentence: "min() iterable argument is empty"."""
    with pytest.raises(UnknownName, match="unknown field of design 'sobol' '5'; known: none"):
        build("design", {"name": "sobol", "5": 1})


def test_an_unknown_field_suggests_the_nearest():
    """Catches a recipe whose misspelt knob is ignored in silence."""
    with pytest.raises(UnknownName, match=r"field of design 'dirichlet' 'temprature'.*temperature"):
        build("design", {"name": "dirichlet", "temprature": 0.5})
    with pytest.raises(UnknownName, match="log_linear"):
        build("method", {"name": "regmix", "laws": ["log_liner"]})
    with pytest.raises(UnknownName, match="strengths"):
        build("method", {"name": "regmix", "design": {"name": "dirichlet", "strengts": 3}})


def test_values_are_held_to_their_type():
    assert build("design", {"name": "dirichlet", "temperature": 1}).temperature == 1.0
    for value in ("hot", True, None, [1]):
        with pytest.raises(RecipeError, match="temperature must be a number"):
            build("design", {"name": "dirichlet", "temperature": value})


@pytest.mark.parametrize("config", [{}, {"temperature": 1.0}, 3, None, ["dirichlet"]])
def test_a_part_without_a_name_is_refused(config):
    with pytest.raises(RecipeError, match="needs a `name`"):
        build("design", config)


def test_instances_pass_and_nested_parts_are_built():
    own = Dirichlet(temperature=1.0)
    assert build("design", own) is own
    method = build(
        "method",
        {"name": "regmix", "runs": 5, "design": own, "laws": ["lightgbm", {"name": "log_linear"}]},
    )
    assert method.design is own and [law.name for law in method.laws] == ["lightgbm", "log_linear"]
    assert hash(method) == hash(build("method", describe(method)))


@pytest.mark.parametrize("name", names("method"))
def test_describe_gives_what_build_takes(name):
    """Catches a description that loses a nested field: the record must rebuild the method."""
    method = build("method", name)
    plain = json.loads(json.dumps(describe(method)))
    assert build("method", plain) == method


def test_numbers_out_of_range_are_refused_with_their_value():
    for bad in ({"runs": 0}, {"seeds": -1}, {"folds": 1}, {"refits": 3}, {"laws": []}):
        with pytest.raises(RecipeError, match=r"needs|need"):
            RegMix(**bad)


def test_two_classes_cannot_claim_one_name(monkeypatch):
    monkeypatch.setitem(registry._registered, "design", dict(registry._registered["design"]))

    @dataclass(frozen=True)
    class Other(Dirichlet):
        pass

    with pytest.raises(RecipeError, match="two classes claim the design 'dirichlet'"):
        register("design")(Other)


def test_a_class_that_lacks_a_member_of_its_protocol_does_not_register():
    """Catches a law of another package that is found out by the run that first needs `coarse`, and
    a stub of the protocol that passes for the real thing."""

    class Alone:
        name = "alone"

        def rows(self, domains):
            return domains

        def fit(self, W, Y, noise, rng):
            return None

    with pytest.raises(RecipeError, match=r"Alone is no law, since it lacks coarse: .*Law"):
        register("law")(Alone)

    class Unfit(Law):
        def rows(self, domains):
            return domains

    with pytest.raises(RecipeError, match="Unfit is no law, since it lacks fit, name"):
        register("law")(Unfit)
    assert "alone" not in names("law")


@pytest.mark.parametrize("kind", registry.FOLDERS)
def test_every_registered_class_says_its_own_name(kind):
    """Catches a preset that goes by the name of what it is made from."""
    assert all(vars(registry.lookup(kind, name))["name"] == name for name in names(kind))


PLUGIN = """
from dataclasses import dataclass

from cuvee.mixtures.laws.baselines.linear import LinearLaw


@dataclass(frozen=True)
class Offered(LinearLaw):
    name = "offered"
    steepness: float = 2.0
"""


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Installs a package beside us, with entry points of a group, and forgets it."""

    def install(group, *points):
        (tmp_path / "their_laws.py").write_text(PLUGIN, encoding="utf-8")
        info = tmp_path / "their_laws-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-laws\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[{group}]\n" + "\n".join(points) + "\n")
        monkeypatch.syspath_prepend(tmp_path)
        forget()

    def forget():
        registry._offered.cache_clear()
        registry._load.cache_clear()

    yield install
    monkeypatch.undo()
    registry.forget("law", "offered")
    sys.modules.pop("their_laws", None)
    forget()


def test_another_package_registers_by_an_entry_point(installed):
    """Catches entry points that nobody reads, or that are read for one kind in the place of all."""
    installed("cuvee.law", "any_word = their_laws:Offered")
    assert "offered" in names("law") and "offered" not in names("search")
    method = build("method", {"name": "regmix", "laws": [{"name": "offered", "steepness": 3}]})
    assert method.laws[0].steepness == 3.0 and describe(method)["laws"][0]["name"] == "offered"
    with pytest.raises(UnknownName, match="field of law 'offered' 'steepnes'.*steepness"):
        build("law", {"name": "offered", "steepnes": 1})


def test_a_broken_package_is_named_and_not_a_traceback(installed):
    installed("cuvee.law", "broken = their_laws:Missing")
    with pytest.raises(RecipeError, match="the law 'broken' of their-laws cannot be loaded"):
        names("law")
