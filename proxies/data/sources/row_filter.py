"""Filters on the fields of rows: `language == "en"`, `score >= 3 and not toxic`, as data.

An expression in Python's own syntax, of which little is taken: fields with dots, literals,
comparisons, `in`, `and`, `or`, `not`. Nothing is called and nothing can be reached but the row.
Unlike things are not compared in silence: text is not below a number, null is not equal to "en", a
number is not true. A row for which that comes up is unusable, and the sentence says why.
"""

import ast
import datetime
import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from cuvee.mixtures.errors import RecipeError

DEEPEST, LONGEST = 40, 4_000  # levels and characters of an expression, assumed to be plenty
NULL = object()  # null as the filter writes it, with which anything may be compared
WORDS = {"true": True, "false": False, "null": NULL, "None": NULL}  # of JSON, YAML and Python
ROW = "row"  # row["a b"]: a field whose name Python cannot write
ORDERS: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge,
}  # fmt: skip
MEANS = (
    "a filter is made of fields (language, meta.score), literals, ==, !=, <, <=, >, >=, in, not "
    'in, and, or, not, such as: language == "en" and meta.score >= 3'
)
Evaluate = Callable[[Mapping[str, Any]], Any]


class Cell(str):
    """A value of a sheet, which is text until the filter takes it for something else."""


class FilterError(ValueError):
    """Why a filter says nothing about a row."""


@dataclass(frozen=True)
class RowFilter:
    """A filter, checked when it is made.

    >>> RowFilter('language == "en" and meta.score >= 3').keeps(
    ...     {"language": "en", "meta": {"score": 4}}
    ... )
    True

    Attributes:
        text: the expression.

    Raises:
        RecipeError: it is no expression, or holds what a filter has no use for.
    """

    text: str

    def __post_init__(self) -> None:
        if not self.names:
            raise RecipeError(f"filter {self.text!r} asks for no field of a row; {MEANS}")
        _ = self._evaluate

    def __reduce__(self) -> tuple[type["RowFilter"], tuple[str]]:
        return RowFilter, (self.text,)  # without what was compiled

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The fields that it asks for, with dots, sorted."""
        return tuple(sorted({".".join(path) for path in _paths(self._tree)}))

    @property
    def canonical(self) -> str:
        """One text for every way to space and quote the same expression."""
        return ast.unparse(self._tree)

    def keeps(self, row: Mapping[str, Any]) -> bool:
        """Whether a row stays.

        Raises:
            FilterError: the row lacks a field, or two values cannot be compared.
        """
        return _flag(self._evaluate(row), self.text)

    @cached_property
    def _tree(self) -> ast.expr:
        try:
            if len(self.text) > LONGEST:
                raise ValueError(f"more than {LONGEST:,} characters")
            tree = ast.parse(self.text.strip(), mode="eval").body
            if _depth(tree) > DEEPEST:
                raise ValueError(f"nested more than {DEEPEST} levels deep")
            return tree
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            why = error.msg if isinstance(error, SyntaxError) else error
            raise RecipeError(f"filter {self.text!r} cannot be read: {why}; {MEANS}") from None

    @cached_property
    def _evaluate(self) -> Evaluate:
        try:
            return _compiled(self._tree)
        except ValueError as error:
            raise RecipeError(f"filter {self.text!r}: {error}; {MEANS}") from None


def _depth(tree: ast.AST) -> int:
    """Levels of a tree, which may be deeper than Python recurses."""
    level, depth = [tree], 0
    while level and depth <= DEEPEST:
        level, depth = [inner for node in level for inner in ast.iter_child_nodes(node)], depth + 1
    return depth


def _path(node: ast.AST) -> tuple[str, ...]:
    """The field that a node names, outermost first; () if it names none."""
    if isinstance(node, ast.Name):
        return () if node.id in WORDS else (node.id,)
    if not isinstance(node, ast.Attribute | ast.Subscript):
        return ()
    key = node.attr if isinstance(node, ast.Attribute) else getattr(node.slice, "value", None)
    outer = _path(node.value)
    if not outer or not isinstance(key, str):
        return ()
    return (key,) if isinstance(node, ast.Subscript) and outer == (ROW,) else (*outer, key)


def _paths(node: ast.AST) -> Iterator[tuple[str, ...]]:
    if path := _path(node):
        yield path
        return
    for child in ast.iter_child_nodes(node):
        yield from _paths(child)


def _compiled(node: ast.expr) -> Evaluate:
    """What an expression says of a row, as functions, so that no tree is walked for a row."""
    text = ast.unparse(node)
    if path := _path(node):
        return lambda row: _value(row, path)
    if isinstance(node, ast.BoolOp):
        terms = [(_compiled(value), ast.unparse(value)) for value in node.values]
        stop = isinstance(node.op, ast.Or)
        return lambda row: stop is any(_flag(term(row), said) is stop for term, said in terms)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        inner, said = _compiled(node.operand), ast.unparse(node.operand)
        return lambda row: not _flag(inner(row), said)
    if isinstance(node, ast.Compare):
        sides = [_compiled(side) for side in (node.left, *node.comparators)]
        pairs = [*zip(node.ops, sides[:-1], sides[1:], strict=True)]
        return lambda row: all(_holds(kind, a(row), b(row), text) for kind, a, b in pairs)
    literal = _literal(node)
    return lambda row: literal


def _literal(node: ast.expr) -> Any:
    if isinstance(node, ast.Name) and node.id in WORDS:
        return WORDS[node.id]
    if isinstance(node, ast.List | ast.Tuple | ast.Set):
        return [_literal(element) for element in node.elts]
    try:
        value = ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError):
        value = b""
    if value is not None and not isinstance(value, str | int | float):
        raise ValueError(f"{ast.unparse(node)} has no place in it")
    return NULL if value is None else value


def _holds(kind: ast.cmpop, left: Any, right: Any, text: str) -> bool:
    """Whether one comparison of two values is true."""
    left, right = _as_meant(left, right), _as_meant(right, left)
    if isinstance(kind, ast.In | ast.NotIn):
        return _member(left, right, text) is isinstance(kind, ast.In)
    if order := ORDERS.get(type(kind)):
        if _alike(left, right, text) not in ("a number", "text"):
            raise FilterError(f"{text}: {_kind(left)} is neither more nor less than another")
        return bool(order(left, right))
    if left is NULL or right is NULL:
        same = all(value is None or value is NULL for value in (left, right))
    else:
        _alike(left, right, text)
        same = bool(left == right)
    return same is isinstance(kind, ast.Eq | ast.Is)


def _member(left: Any, right: Any, text: str) -> bool:
    if isinstance(left, str) and isinstance(right, str):
        return left in right
    if not isinstance(right, list | tuple):
        raise FilterError(f"{text}: nothing is in {_kind(right)}")
    if left is None and NULL in right:
        return True
    there = [one for one in right if one is not NULL]
    kinds = [(_as_meant(left, one), one) for one in there]
    for ours, one in kinds:
        _alike(ours, one, text)
    return any(ours == one for ours, one in kinds)


def _as_meant(value: Any, other: Any) -> Any:
    """A cell of a sheet as what it is compared with: a number, true or false, null if empty."""
    if not isinstance(value, Cell):
        return value
    if other is NULL and not value:
        return None
    if isinstance(other, bool):
        return WORDS.get(value.lower(), value)
    try:
        return float(value) if isinstance(other, int | float) else value
    except ValueError:
        return value


def _alike(left: Any, right: Any, text: str) -> str:
    """The kind that two values have in common."""
    ours, theirs = _kind(left), _kind(right)
    if ours != theirs or ours == "null":
        raise FilterError(f"{text}: {ours} cannot be compared with {theirs}")
    return ours


def _kind(value: Any) -> str:
    if value is None or value is NULL:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "text"
    return "a list" if isinstance(value, list | tuple) else type(value).__name__


def _flag(value: Any, text: str) -> bool:
    value = _as_meant(value, True)
    if not isinstance(value, bool):
        raise FilterError(f"{text} is {_kind(value)}, neither true nor false")
    return value


def _value(row: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    """A field of a row; one whose own name has dots goes before a nested one."""
    whole = ".".join(path)
    value: Any = row
    for name in (whole,) if whole in row else path:
        if not isinstance(value, Mapping) or name not in value:
            has = ", ".join(map(str, row))[:300] or "nothing"
            raise FilterError(f"the filter asks for {whole!r}, and the row has: {has}")
        value = value[name]
    return value.isoformat() if isinstance(value, datetime.date) else value
