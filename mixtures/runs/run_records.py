"""Runs as JSON: what is written to a store, and how it is read back."""

import dataclasses
import functools
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from cuvee.mixtures.errors import EvidenceError
from cuvee.mixtures.runs.run_results import Failed, Outcome, RunResult, Score
from cuvee.mixtures.runs.run_spec import BY_NAMES, RESERVED, RunSpec, Stage

Value = TypeVar("Value")


def outcome_to_json(outcome: Outcome) -> dict[str, Any]:
    """An outcome as plain JSON values; `outcome_from_json` gives it back."""
    if isinstance(outcome, RunResult):
        outcome = dataclasses.replace(outcome, units={})
    found = {"kind": type(outcome).__name__, **dataclasses.asdict(outcome)}
    found.pop("units", None)
    if outcome.spec.version == BY_NAMES:
        found["spec"] = {k: v for k, v in found["spec"].items() if k not in (*RESERVED, "heldout")}
    if not outcome.spec.sampled:
        del found["spec"]["sampled"]
    return found


def revive(kind: type[Value], values: Mapping[str, Any]) -> Value:
    """A dataclass from its JSON values, with the dataclasses and tuples that it is made of.

    Fields that a later version added are left out.

    Raises:
        TypeError: a field is missing that has no default, or is not of its type's shape.
        ValueError: a tuple is too long or too short.
    """
    hints = _type_hints(typing.cast(typing.Hashable, kind))
    names = (part.name for part in dataclasses.fields(kind))  # type: ignore[arg-type]
    return kind(**{name: _as_typed(hints[name], values[name]) for name in names if name in values})


@functools.cache
def _type_hints(kind: Any) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _as_typed(hint: Any, value: Any) -> Any:
    """A JSON value as a field of this type holds it."""
    parts = typing.get_args(hint)
    if isinstance(hint, types.UnionType):
        return None if value is None else _as_typed(parts[0], value)
    if dataclasses.is_dataclass(hint):
        return value if isinstance(value, hint) else revive(hint, value)  # type: ignore[arg-type]
    if typing.get_origin(hint) is not tuple:
        return value
    if parts[-1] is Ellipsis:
        return tuple(_as_typed(parts[0], item) for item in value)
    return tuple(_as_typed(part, item) for part, item in zip(parts, value, strict=True))


def outcome_from_json(data: Mapping[str, Any]) -> Outcome:
    """An outcome from what `to_json` made of it, or a later version of the same format did.

    Raises:
        EvidenceError: the values are not those of an outcome.
    """
    try:
        spec = spec_from_json(data["spec"])
        if data["kind"] == "Failed":
            return Failed(spec, str(data["reason"]))
        return RunResult(
            spec=spec,
            scores={k: revive(Score, v) for k, v in data["scores"].items()},
            details={k: revive(Score, v) for k, v in data["details"].items()},
            curve=tuple((int(t), float(x)) for t, x in data["curve"]),
            trajectory=tuple((int(t), tuple(map(float, w))) for t, w in data["trajectory"]),
            tokens=tuple(map(int, data["tokens"])),
            epochs=tuple(map(float, data["epochs"])),
            flops=float(data["flops"]),
            seconds=float(data["seconds"]),
            scoring_seconds=float(data.get("scoring_seconds", 0.0)),
            trunks=tuple((str(name), float(x)) for name, x in data.get("trunks", ())),
            points=tuple(
                (int(t), {str(k): float(v) for k, v in y.items()})
                for t, y in data.get("points", ())
            ),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise EvidenceError(f"this is not the record of a run: {error!r}") from error


def spec_from_json(data: Mapping[str, Any]) -> RunSpec:
    """A spec from its `dataclasses.asdict` form, as read back from JSON.

    A field that a later version added is left out: the fingerprint tells whether it was at its
    default, where it changes nothing.
    """
    stages = [Stage(tuple(map(float, s["weights"])), float(s["share"])) for s in data["stages"]]
    return revive(RunSpec, {**data, "stages": stages})
