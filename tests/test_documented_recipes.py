"""Every recipe that is shipped or printed in a README or docs is read, and asked for runs."""

import dataclasses
import re
from pathlib import Path

import pytest
import shipped
import yaml
from docs_blocks import PAGES, blocks_of

from cuvee.flows.recipe import load
from cuvee.flows.recipe.schema import Recipe
from cuvee.mixtures import registry
from cuvee.mixtures.domains import Domain, DomainSet
from cuvee.mixtures.errors import CuveeError, RecipeError
from cuvee.mixtures.loop import generator
from cuvee.mixtures.problem import Problem, Proxy

ROOT = Path(__file__).parent.parent
READMES = sorted(
    str(path.relative_to(ROOT))
    for path in ROOT.glob("**/README.md")  # not what tools keep in the folder
    if not re.search(r"(^|/)(\.|node_modules)", str(path.relative_to(ROOT)))
)


def printed() -> list[tuple[str, str]]:
    """Whole recipes of all READMEs and docs: blocks of YAML that have a name and a method."""
    blocks = [block for page in {*READMES, *PAGES} for block in blocks_of(page)]
    return sorted(
        (block.page, block.text)
        for block in blocks
        if block.language in ("", "yaml")
        if re.search(r"^name:", block.text, re.MULTILINE) and "method:" in block.text
    )


SHIPPED = [(path.stem, shipped.recipe(path.stem)[0]) for path in shipped.PATHS]


def test_readme_prints_a_recipe() -> None:
    """Catches a pattern that finds nothing, so that the test below holds whatever is printed."""
    assert any(name == "README.md" and "domains:" in text for name, text in printed())


@pytest.mark.parametrize(("name", "given"), printed() + SHIPPED)
def test_recipes_that_people_copy_are_read_and_planned(name: str, given: str | Recipe) -> None:
    """Catches a documented law, field or value that is refused, and a design that cannot be drawn
    within the recipe's own constraints; domains of equal size stand in for the data."""
    recipe = load.parse(given, name) if isinstance(given, str) else given
    part = recipe.corpus or recipe.tables
    names = [*getattr(part, "quickstart", []), *getattr(part, "domains", {})]
    names = names or [*getattr(part, "sizes", {})]
    assert len(names) >= 2
    tokens = max(recipe.full_scale.tokens, 10**9)
    domains = DomainSet(tuple(Domain(n, tokens, 4 * tokens, f"stand-in:{n}") for n in names))
    objective = recipe.build_objective()
    problem = Problem(
        domains=domains,
        targets=objective.targets,
        objective=objective,
        constraints=recipe.build_constraints(domains),
        proxy=Proxy(recipe.proxy.size, recipe.proxy.tokens),
        full_tokens=recipe.full_scale.tokens,
    )
    specs = recipe.build_method().ask(problem, (), generator(recipe.seed, 0))
    assert specs and all(spec.domains == tuple(names) for spec in specs)


def test_the_default_law_is_one_thing() -> None:
    """Catches `default` that is no law, and methods whose default is another."""
    meant = registry.build("law", "default")
    assert meant.name == "kriging" and "default" not in registry.names("law")
    for name in ("bayes", "ladder", "anneal"):
        assert registry.build("method", name).laws == (meant,)
    for name, law in (
        ("regmix", "lightgbm"),
        ("mixing_laws", "log_linear"),
        ("olmix", "log_linear"),
    ):
        assert [one.name for one in registry.build("method", name).laws] == [law]


BASE = {
    "name": "x",
    "corpus": {"domains": {"a": {"path": "x"}, "b": {"path": "y"}}},
    "objective": {"name": "mean", "weights": {"domain/a": 1}},
    "full_scale": {"tokens": 1000},
    "method": {"name": "regmix"},
}
FLOORS = {"name": "floors", "weights": {"domain/a": 1}}
NAN, INFINITE = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("method", {"name": "regmix", "runs": 10**9}, "runs"),
        ("method", {"name": "regmix", "seeds": 10**5}, "seeds"),
        ("method", {"name": "regmix", "laws": [{"name": "kriging", "sway": NAN}]}, "finite"),
        ("method", {"name": "regmix", "anchors": [{"a": NAN, "b": 1}]}, "finite"),
        ("method", {"name": "mixing_laws", "laws": ["kriging"]}, "the search 'exact' needs laws"),
        ("method", {"name": "olmix", "laws": ["log_linear", "lightgbm"]}, "'lightgbm' is none"),
        ("objective", FLOORS | {"floors": {"domain/b": NAN}}, "finite"),
        ("objective", FLOORS | {"floors": {"domain/b": INFINITE}}, "finite"),
        ("objective", {"name": "worst", "members": "domain/a"}, "a list"),
        ("objective", BASE["objective"] | {"families": {"f": "domain/a"}}, "a list"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused_when_the_recipe_is_read(field, value, said) -> None:
    """Catches a limit that is silently not there (NaN), a name that is read letter by letter, a
    billion runs that are drawn, and a law that its search refuses after all training."""
    with pytest.raises(RecipeError, match=said):
        load.build_recipe(BASE | {field: value}, "test")


@pytest.mark.parametrize("kind", ["method", "law", "search", "design", "controller", "objective"])
def test_no_number_of_a_registered_part_is_without_bounds(kind: str) -> None:
    """For every part that is registered now or later: catches NaN, infinities and counts that no
    study can have, in fields that a class does not check itself."""
    for name in registry.names(kind):
        for field in dataclasses.fields(registry.lookup(kind, name)):
            words = str(field.type)
            values = [NAN, INFINITE, -INFINITE] * ("float" in words) + [10**12, -1] * (
                words in ("int", "<class 'int'>")
            )
            for value in values:
                with pytest.raises(CuveeError):
                    registry.build(kind, {"name": name, field.name: value})


def test_yaml_infinities_are_told_in_a_sentence() -> None:
    """`epochs: .inf` is a usual way to say "no cap": catches a traceback and a cap that is gone."""
    for text in ("{epochs: .inf}", "{epochs: .nan}", "{most_kl: .inf}"):
        with pytest.raises(RecipeError, match="finite"):
            load.build_recipe(BASE | {"constraints": yaml.safe_load(text)}, "test")
