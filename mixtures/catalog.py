"""The catalog: what each registered class says of itself, for lists, references and the schema.

Nothing is written here. A class's summary is the first sentence of its module, or its own where a
module holds several; its guidance is its paragraph that begins with "Take it"; what a field means
is its entry under `Attributes:`, in the class or in the one that it inherits the field from.
"""

import dataclasses
import inspect
import re
import typing
from dataclasses import dataclass
from typing import Any

from cuvee.mixtures import registry

SECTION = re.compile(r"^Attributes:\n((?:(?: {4}.*)?(?:\n|\Z))*)", re.MULTILINE)
ENTRY = re.compile(r"^ {4}(\w+): +(.*(?:\n {8}.*)*)", re.MULTILINE)  # of that section
GUIDANCE = re.compile(r"^Take it\b.*?(?=\n\n|\Z)", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class FieldEntry:
    """A field of a registered class.

    Attributes:
        name: in recipes.
        type: as recipes write it; what the class makes of it may be richer.
        default: None where there is none, or where it is null.
        required: whether there is no default, or one that the class refuses.
        description: with its unit.
        unbounded: whether its numbers may be larger than `registry.LARGEST`, such as tokens.
    """

    name: str
    type: Any
    default: Any
    required: bool
    description: str
    unbounded: bool


@dataclass(frozen=True)
class CatalogEntry:
    """A registered class, in words.

    Attributes:
        kind: such as "law".
        name: in recipes.
        summary: one sentence.
        guidance: when to take it; "" where that does not depend.
        text: equation, source and departures, as its module has them.
        fields: its hyper-parameters.
        baseline: whether it is there for comparisons alone: its class says `baseline = True`.
    """

    kind: str
    name: str
    summary: str
    guidance: str
    text: str
    fields: tuple[FieldEntry, ...]
    baseline: bool = False


def catalog(kind: str) -> tuple[CatalogEntry, ...]:
    """Every class that is registered under a kind, by name.

    >>> [entry.name for entry in catalog("objective")]
    ['floors', 'mean', 'regret', 'worst']
    """
    return tuple(catalog_entry(kind, name) for name in registry.names(kind))


def catalog_entry(kind: str, name: str) -> CatalogEntry:
    """A registered class, in words.

    Raises:
        UnknownName: nothing is registered under the name.
    """
    cls = registry.lookup(kind, name)
    module, own = inspect.getmodule(cls), inspect.getdoc(cls) or ""
    beside = [registry.lookup(kind, other).__module__ for other in registry.names(kind)]
    about = own if beside.count(cls.__module__) > 1 else (inspect.getdoc(module) or own)
    found = GUIDANCE.search(own)
    first, _, rest = about.partition("\n\n")
    if about is own:
        rest = GUIDANCE.sub("", SECTION.sub("", rest))
    return CatalogEntry(
        kind=kind,
        name=name,
        summary=" ".join(first.split()),
        guidance=" ".join(found[0].split()) if found else "",
        text=rest.strip(),
        fields=class_fields(cls),
        baseline=getattr(cls, "baseline", False),
    )


def class_fields(cls: type) -> tuple[FieldEntry, ...]:
    """The fields of a dataclass that recipes may give."""
    hints, told = typing.get_type_hints(cls, include_extras=True), attribute_texts(cls)
    entries = []
    for field in dataclasses.fields(cls):
        if not field.init:
            continue
        factory = field.default_factory
        missing = field.default is dataclasses.MISSING
        default = None if missing else field.default
        if factory is not dataclasses.MISSING:
            default, missing = factory(), False
        entries.append(
            FieldEntry(
                name=field.name,
                type=written_type(hints[field.name]),
                default=default,
                required=missing or bool(field.metadata.get("needed")),
                description=told.get(field.name, ""),
                unbounded=bool(field.metadata.get("unbounded")),
            )
        )
    return tuple(entries)


def written_type(hint: Any) -> Any:
    """A field's type as recipes write it: what `Annotated` has beside its own, if anything."""
    if typing.get_origin(hint) is typing.Annotated:
        beside = hint.__metadata__[0]
        return hint if inspect.isfunction(beside) else beside
    return hint


def attribute_texts(cls: type) -> dict[str, str]:
    """What a class and those that it inherits from say of their attributes; the nearest wins."""
    told: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        section = SECTION.search(inspect.cleandoc(base.__doc__ or ""))
        for name, text in ENTRY.findall(section[1] if section else ""):
            told[name] = " ".join(text.split())
    return told
