"""Outside the mathematics nothing asks a registered thing what it is: its protocol says it."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from cuvee.mixtures import registry
from cuvee.tasks import export

ROOT = Path(__file__).parent.parent
ROOMS = ("flows", "tasks", "proxies", "evaluation")
KINDS = tuple(kind for kind in registry.FOLDERS if kind != export.KIND)
CLASSES = {registry.lookup(kind, name).__name__ for kind in KINDS for name in registry.names(kind)}
PROTOCOLS = {registry.PROTOCOLS[kind].partition(":")[2] for kind in KINDS}
PARTS = {part for kind in KINDS for part in (kind, f"{kind}s", f"build_{kind}")}


def words(node: ast.AST) -> set[str]:
    """Every name, attribute and quoted type in an expression."""
    found = set()
    for part in ast.walk(node):
        if isinstance(part, ast.Name):
            found.add(part.id)
        elif isinstance(part, ast.Attribute):
            found.add(part.attr)
        elif isinstance(part, ast.Constant) and isinstance(part.value, str):
            found.add(part.value)
    return found


def called(node: ast.Call) -> str:
    return node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")


def questions(tree: ast.AST) -> Iterator[str]:
    """What a module asks of registered things, as its source says it."""
    for node in ast.walk(tree):
        asked = set()
        if isinstance(node, ast.Call) and node.args:
            name, first, last = called(node), node.args[0], node.args[-1]
            if name in ("isinstance", "issubclass"):
                asked = words(last) & (CLASSES | PROTOCOLS)
            elif name == "cast":
                asked = words(first) & (CLASSES | PROTOCOLS)
            elif name == "hasattr" or (name == "getattr" and len(node.args) == 3):
                asked = words(first) & PARTS
        elif isinstance(node, ast.MatchClass):
            asked = words(node.cls) & CLASSES
        elif isinstance(node, ast.Compare) and "type" in words(node.left):
            asked = {word for other in node.comparators for word in words(other) & CLASSES}
        if asked:
            yield ast.unparse(node)


@pytest.mark.parametrize(
    "source",
    [
        "isinstance(recipe.build_method().method, Ladder)",
        "isinstance(objective, (int, objectives.Floors))",
        "isinstance(objective, Regret | Floors)",
        "issubclass(kind, Law)",
        "cast(Ladder, method)",
        "typing.cast('Objective', value)",
        "getattr(recipe.build_method().method, 'rungs', ())",
        "getattr(method, 'runs', 0)",
        "hasattr(study.problem.objective, 'turned')",
        "type(law) is Kriging",
        "match law:\n    case Kriging():\n        pass",
    ],
)
def test_the_search_sees_every_way_to_ask(source):
    """Catches a search that finds nothing because it looks for nothing."""
    assert list(questions(ast.parse(source)))


def test_the_search_leaves_other_questions_alone():
    source = "isinstance(x, Mapping)\nhasattr(os, 'fork')\ngetattr(error, 'at', None)\ncast(int, x)"
    assert not list(questions(ast.parse(source)))


@pytest.mark.parametrize("room", ROOMS)
def test_no_room_above_asks_a_registered_thing_what_it_is(room):
    """Catches a flow that knows one method by its class, and is wrong about the next one."""
    for path in sorted((ROOT / room).rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert not list(questions(tree)), path
