"""From a name in a recipe to a frozen dataclass.

A law, scaling law, design, search, controller, method, objective or world registers its class with
one decorator:

    @register("law")
    @dataclass(frozen=True)
    class LogLinear(Law):
        name = "log_linear"

Its fields are its hyper-parameters, so a recipe's mapping `{name: log_linear, starts: 8}` builds
it, and an unknown field is refused with a suggestion. Modules of a kind's folder, and other
packages' entry points of the group `cuvee.<kind>`, are imported on the first look-up, so that
adding one is adding a file, or installing a package.
"""

import dataclasses
import functools
import importlib
import pkgutil
import types
import typing
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import Any, TypeVar

from cuvee.mixtures.errors import RecipeError, UnknownName
from cuvee.mixtures.threads import fit_on_one_thread

FOLDERS = {
    "design": "cuvee.mixtures.designs",
    "law": "cuvee.mixtures.laws",
    "scaling": "cuvee.mixtures.scaling",
    "search": "cuvee.mixtures.searches",
    "controller": "cuvee.mixtures.controllers",
    "method": "cuvee.mixtures.methods",
    "objective": "cuvee.mixtures.objectives",
    "world": "cuvee.mixtures.worlds",
}
PROTOCOLS = {kind: f"{folder}:{kind.capitalize()}" for kind, folder in FOLDERS.items()}
PROTOCOLS["world"] = "cuvee.mixtures.worlds.truth:World"
HELD = {"law": "cuvee.mixtures.laws.bounds:bound_fits"}  # what every class of a kind is held to
ByName = Mapping[str, float] | tuple[tuple[str, float], ...]  # numbers by name, in recipes
FIRST_CHOICE = {  # where many are listed
    "method": "take regmix with `laws: [kriging]` unless you have a reason",
    "law": "take kriging unless you have a reason",
}
LARGEST = 1e9  # that a number of a part may be, either way; counts lie in 0 to a thousandth of it
WORDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false",
         type(None): "null"}  # fmt: skip
_aliases: dict[tuple[str, str], str] = {}
_registered: dict[str, dict[str, type]] = {kind: {} for kind in FOLDERS}
C = TypeVar("C", bound=type)


@dataclasses.dataclass(frozen=True)
class Registered:
    """What a field of a registered class may hold: `design: Annotated[Any, Registered("design")]`.

    Other types beside a field's own say likewise how recipes write it, where that is narrower or
    wider: `Annotated[str, Literal["d", "i"]]`. The catalog and the schema read them.

    Attributes:
        kind: what is named there.
        many: several, in a list; one may stand without it.
        named: by its name alone, without fields.
    """

    kind: str
    many: bool = False
    named: bool = False


def admit(kind: str, folder: str, protocol: str) -> None:
    """A kind of its own for a room above this one: where its classes lie, and what they must be."""
    FOLDERS[kind], PROTOCOLS[kind] = folder, f"{folder}:{protocol}"
    _registered.setdefault(kind, {})


def register(kind: str) -> Callable[[C], C]:
    """Class decorator: makes a frozen dataclass available to recipes under its `name`.

    Raises:
        RecipeError: it lacks a member of its kind's protocol, or another has its name.
    """

    def enter(cls: C) -> C:
        protocol, lacking = _lacking(kind, cls)
        if lacking:
            raise RecipeError(
                f"{cls.__name__} is no {kind}, since it lacks {', '.join(lacking)}: define what "
                f"{protocol.__module__}.{protocol.__name__} asks for, or derive from it"
            )
        name: str = cls.name  # type: ignore[attr-defined]  # as every protocol asks
        if _registered[kind].get(name, cls).__qualname__ != cls.__qualname__:
            raise RecipeError(f"two classes claim the {kind} {name!r}")
        if kind in HELD:
            module, _, called = HELD[kind].partition(":")
            getattr(importlib.import_module(module), called)(cls)
        _registered[kind][name] = fit_on_one_thread(kind, cls)
        return cls

    return enter


def _lacking(kind: str, cls: type) -> tuple[type, list[str]]:
    """A kind's protocol, and which of its members a class has neither as a field nor otherwise."""
    module, _, called = PROTOCOLS[kind].partition(":")
    protocol: type = getattr(importlib.import_module(module), called)
    members = {name for name in (*protocol.__annotations__, *vars(protocol)) if name[0] != "_"}
    known = {*dir(cls), *getattr(cls, "__dataclass_fields__", ())}
    return protocol, sorted(members - known | getattr(cls, "__abstractmethods__", frozenset()))


def register_alias(kind: str, name: str, meant: str) -> None:
    """A second name by which recipes may call what is registered as `meant`."""
    _aliases[kind, name] = meant


def aliases(kind: str) -> dict[str, str]:
    """Second names of a kind, and what they mean."""
    _load(kind)
    return {name: meant for (known, name), meant in _aliases.items() if known == kind}


def forget(kind: str, name: str) -> None:
    """Take a class out again, such as one that a test entered."""
    _registered[kind].pop(name, None)


@functools.cache
def _load(kind: str) -> None:
    folder = importlib.import_module(FOLDERS[kind])
    for module in pkgutil.walk_packages(getattr(folder, "__path__", []), f"{FOLDERS[kind]}."):
        importlib.import_module(module.name)
    for point in _offered().select(group=f"cuvee.{kind}"):
        try:
            register(kind)(point.load())
        except Exception as error:  # whatever a stranger's module does as it is imported
            raise RecipeError(
                f"the {kind} {point.name!r} of {point.dist.name if point.dist else point.value} "
                f"cannot be loaded ({error}): repair that package, or uninstall it"
            ) from error


@functools.cache
def _offered() -> Any:
    """The entry points of all packages, which are read once: that takes a look at each of them."""
    return entry_points()


def names(kind: str) -> tuple[str, ...]:
    """The names registered under a kind, sorted."""
    _load(kind)
    return tuple(sorted(_registered[kind]))


def lookup(kind: str, name: str) -> type:
    """The class registered under a name.

    Raises:
        UnknownName: there is none; the message suggests the nearest.
    """
    _load(kind)
    name = _aliases.get((kind, name), name)
    if name not in _registered[kind]:
        raise UnknownName(kind, name, _registered[kind], advice=FIRST_CHOICE.get(kind, ""))
    return _registered[kind][name]


def build(kind: str, config: Any) -> Any:
    """An instance from a recipe's value: a name, or a mapping with `name` and fields.

    A field whose type is itself a registered class's protocol is built from a nested value by the
    class's own `__post_init__`; here lists become tuples so that the instance stays hashable. What
    is already an instance of a registered class is returned as it is. Numbers are finite and within
    `LARGEST`, unless a field's metadata say `unbounded`; counts are not negative.

    Raises:
        UnknownName: unknown name or field.
        RecipeError: no name, a number without bounds, or a value that the class refuses.
    """
    if any(type(config) is cls for cls in _registered[kind].values()):
        return config
    if isinstance(config, str):
        config = {"name": config}
    if not isinstance(config, Mapping) or "name" not in config:
        first = f"; {FIRST_CHOICE[kind]}" if kind in FIRST_CHOICE else ""
        raise RecipeError(f"a {kind} needs a `name`; known: {', '.join(names(kind))}{first}")
    cls = lookup(kind, str(config["name"]))
    known = {f.name: f for f in dataclasses.fields(cls) if f.init}
    hints = typing.get_type_hints(cls)
    values: dict[str, Any] = {}
    for key, value in config.items():
        if key == "name":
            continue
        if key not in known:
            raise UnknownName(f"field of {kind} {config['name']!r}", key, known)
        if not known[key].metadata.get("unbounded"):
            _bounded(f"{kind} {config['name']}.{key}", value)
        values[key] = _coerce(f"{kind} {config['name']}.{key}", _frozen(value), hints[key])
    try:
        return cls(**values)
    except (TypeError, ValueError) as error:
        raise RecipeError(f"{kind} {config['name']!r}: {error}") from error


def describe(instance: Any) -> dict[str, Any]:
    """A registered instance as the recipe's mapping that builds it, nested instances included.

    A field whose metadata say `later` is left out at its default: what was there before it stays.
    """
    fields = {
        f.name: _plain(getattr(instance, f.name))
        for f in dataclasses.fields(instance)
        if not (f.metadata.get("later") and getattr(instance, f.name) == f.default)
    }
    return {"name": instance.name, **fields}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and hasattr(value, "name"):
        return describe(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _frozen(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return tuple(_frozen(v) for v in value)
    return value


def _bounded(where: str, value: Any) -> None:
    """Hold every number of a value, however nested, to what can be meant."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            _bounded(f"{where}.{key}", item)
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            _bounded(f"{where}.{i}", item)
    elif isinstance(value, int | float) and not abs(value) <= LARGEST:
        raise RecipeError(
            f"{where} must be a finite number of at most {LARGEST:.0e}; got {value:.6g}"
        )


def _coerce(where: str, value: Any, hint: Any) -> Any:
    """Hold numbers and strings to the field's type; anything richer is the class's business."""
    allowed = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if float in allowed and isinstance(value, int) and not isinstance(value, bool):
        return value if int in allowed else float(value)
    simple = tuple(t for t in allowed if t in (int, float, str, bool, type(None)))
    if not simple or len(simple) != len(allowed):
        return value
    if not isinstance(value, simple) or (isinstance(value, bool) and bool not in simple):
        wanted = " or ".join(WORDS[t] for t in simple)
        raise RecipeError(f"{where} must be {wanted}; got {value!r}")
    count = isinstance(value, int) and not isinstance(value, bool)
    if count and int in simple and not 0 <= value <= LARGEST / 1000:
        raise RecipeError(f"{where} counts from 0 to {LARGEST / 1000:,.0f}; got {value:,}")
    return value
