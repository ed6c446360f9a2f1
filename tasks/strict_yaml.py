"""YAML read strictly: plain values of bounded size, and no field twice.

Keys are names, so they are read as they are written (`no`, `2024`), and so are dates; numbers are
written as in YAML 1.2 (1e-3, not 1:30). What aliases share counts as often as it is used, since
whoever prints or hashes the values meets it as often.
"""

import re
from collections.abc import Callable
from typing import Any

import yaml

from cuvee.tasks.escape import CONTROL

LARGEST = 2_000_000  # characters of a file, and of what its aliases stand for
NODE = 16  # characters that a value counts beside its text
DEEPEST = 32  # mappings and lists within one another
DIGITS = 40  # of a whole number
TAG = "tag:yaml.org,2002:"
MERGE = f"{TAG}merge"
SCALARS = {f"{TAG}{kind}" for kind in ("null", "bool", "int", "float", "str")}
WHOLE = re.compile(r"[-+]?[0-9][0-9_]*$|0x[0-9a-fA-F]+$")
REAL = re.compile(
    r"[-+]?(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?$"
    r"|[-+]?\.(?:inf|Inf|INF)$|\.(?:nan|NaN|NAN)$"
)


class Loader(yaml.SafeLoader):
    """PyYAML's safe loader, which knows no values but JSON's."""


def _refuse(why: str, node: Any) -> yaml.YAMLError:
    return yaml.constructor.ConstructorError(None, None, why, node.start_mark)


def _scalar(kind: str, read: Callable[[Loader, Any], Any]) -> Callable[[Loader, Any], Any]:
    """A constructor that refuses what is not of its kind, as an explicit tag may claim."""

    def construct(loader: Loader, node: yaml.Node) -> Any:
        try:
            return read(loader, node)
        except (ValueError, LookupError, AttributeError, OverflowError):
            raise _refuse(f"{str(node.value)[:DIGITS]!r} is no {kind}", node) from None

    return construct


def _whole(_loader: Loader, node: Any) -> int:
    text = node.value.replace("_", "")
    if len(text) > DIGITS:
        raise _refuse(f"a number of {len(text):,} digits; {DIGITS} are enough", node)
    return int(text, 16 if text.startswith("0x") else 10)


Loader.yaml_constructors = {
    name: Loader.yaml_constructors[name] for name in (f"{TAG}null", f"{TAG}seq", f"{TAG}map", None)
} | {
    f"{TAG}str": _scalar("text", yaml.SafeLoader.construct_yaml_str),
    f"{TAG}bool": _scalar("yes or no", yaml.SafeLoader.construct_yaml_bool),
    f"{TAG}int": _scalar("whole number", _whole),
    f"{TAG}float": _scalar("number", yaml.SafeLoader.construct_yaml_float),
}
Loader.yaml_implicit_resolvers = {
    first: [(tag, found) for tag, found in rules if tag in (f"{TAG}null", f"{TAG}bool", MERGE)]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
Loader.add_implicit_resolver(f"{TAG}int", WHOLE, list("-+0123456789"))
Loader.add_implicit_resolver(f"{TAG}float", REAL, list("-+0123456789."))


def load_yaml(text: str) -> Any:
    """The plain values of a YAML text.

    Raises:
        yaml.YAMLError: it is not YAML, holds other than plain values or a field twice, or is larger
            or deeper than any recipe.
    """
    _measure(text)
    loader = Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _name(node, set())
        return loader.construct_document(node)
    finally:
        loader.dispose()


class Dumper(yaml.SafeDumper):
    """PyYAML's safe dumper, which quotes texts that `load` would read as numbers."""


Dumper.add_implicit_resolver(f"{TAG}int", WHOLE, list("-+0123456789"))
Dumper.add_implicit_resolver(f"{TAG}float", REAL, list("-+0123456789."))


def dump_yaml(values: Any) -> str:
    """A YAML text that `load` reads as these values."""
    return str(yaml.dump(values, Dumper=Dumper, sort_keys=False))


def yaml_error(error: yaml.YAMLError) -> str:
    """What is wrong with a text and where, in one line."""
    mark = getattr(error, "problem_mark", None)
    place = f", in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
    why = " ".join(str(getattr(error, "problem", None) or error).split())
    return why.replace(' in "<unicode string>"', "") + place


def _measure(text: str) -> None:
    """Refuse what is too large or too deep, before anything is built of it."""
    if len(text) > LARGEST:
        raise yaml.YAMLError(f"it has more than {LARGEST:,} characters, which no recipe needs")
    total = 0
    within: list[tuple[str | None, int]] = []  # anchors of what is open, and where it began
    sizes: dict[str, int] = {}
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        begin = total
        if isinstance(event, yaml.AliasEvent):
            if any(anchor == event.anchor for anchor, _ in within):
                raise _refuse(f"*{event.anchor} holds itself", event)
            total += sizes.get(str(event.anchor), 0)
        elif isinstance(event, yaml.ScalarEvent):
            total += NODE + len(event.value)
            sizes[str(event.anchor)] = total - begin
        elif isinstance(event, yaml.CollectionStartEvent):
            total += NODE
            within.append((event.anchor, begin))
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, begin = within.pop()
            sizes[str(anchor)] = total - begin
        if len(within) > DEEPEST:
            raise _refuse(f"values nested more than {DEEPEST} deep", event)
        if total > LARGEST:
            raise _refuse(f"aliases that stand for more than {LARGEST:,} characters", event)


def _name(node: yaml.Node, known: set[int]) -> None:
    """Read keys as the names that they are, each of which stands in a mapping once."""
    if id(node) in known or isinstance(node, yaml.ScalarNode):
        return
    known.add(id(node))
    seen: set[str] = set()
    for item in node.value:
        for inner in item if isinstance(item, tuple) else (item,):
            _name(inner, known)
        key = item[0] if isinstance(item, tuple) else None
        if not isinstance(key, yaml.ScalarNode) or key.tag == MERGE:
            continue
        if key.value in seen:
            raise _refuse(f"field {key.value!r} stands twice in one mapping", key)
        if CONTROL.search(key.value):
            raise _refuse(f"field {key.value!r} holds a control character", key)
        seen.add(key.value)
        key.tag = f"{TAG}str" if key.tag in SCALARS else key.tag
