"""Every error that a user of Cuvée can cause or meet.

CuveeError
├── RecipeError           a recipe that cannot be read or does not make sense
│   └── UnknownName       a name that nothing is registered under; carries a suggestion
├── ConstraintError       constraints that no mixture satisfies
├── DataError             a corpus, table or benchmark that cannot be used as it is
│   ├── CorruptError      bytes that are not what they were when they were written
│   └── NewerError        a record that a newer version wrote, in a format of its own
├── EvidenceError         too few runs, or runs that do not belong together
│   └── ApprovalError     a recommendation that may not be handed on as it is
├── ExportError           a recommendation that a trainer's syntax cannot express
├── HandoffError          a call of a handoff that failed, or whose outcome is not known
├── StorageError          a disk that is full, or a place that cannot be written
├── TrainingError         trainings that failed too often to go on
├── BudgetError           a sweep that costs more than it may
├── MissingExtra          an optional part of the installation that is not there
└── ServiceError          a server (Prefect, MLflow, Ray) that does not answer

A message says what was wrong, what was found, and how to fix it. The command line prints the
message alone; a traceback is for our own mistakes.
"""

import difflib
import math
from collections.abc import Iterable

from cuvee.mixtures.units import whole_number

LONGEST_NAME = 80  # characters of an unknown name that are shown


class CuveeError(Exception):
    """The root: catching it catches every mistake that a user can make."""


class RecipeError(CuveeError):
    """A recipe that cannot be read or does not make sense."""


class UnknownName(RecipeError):
    """A name that nothing is registered under.

    Args:
        kind: what was looked for, such as "law".
        name: the name that was given.
        known: the names that exist.
        advice: which to take, said where all of them are.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str], *, advice: str = "") -> None:
        name, names = name[:LONGEST_NAME], sorted(known, key=_order)
        close = closest_name(name, names)
        size = _order(name)[0]
        sizes = names and size > 0 and all(_order(other)[0] > 0 for other in names)
        if sizes:  # 300k is no misspelt 30M
            close = min(names, key=lambda other: abs(math.log(size / _order(other)[0])))
        hint = f"did you mean {close!r}?" if close else ""
        if sizes or not close:
            hint = f"{hint} known: {', '.join(names) or 'none'}".strip()
            hint += f"; {advice}" if advice else ""
        super().__init__(f"unknown {kind} {name!r}; {hint}")


def closest_name(name: str, known: Iterable[str], cutoff: float = 0.5) -> str:
    """The known name that was perhaps meant, at least as similar as the cutoff; else empty."""
    return next(iter(difflib.get_close_matches(name, list(known), n=1, cutoff=cutoff)), "")


def _order(name: str) -> tuple[float, str]:
    """Sizes by their size (0.3M, 2M, 10M), other names by their letters."""
    value = whole_number(name)
    return (0.0 if isinstance(value, str) or not math.isfinite(value) else float(value), name)


class ConstraintError(CuveeError):
    """Constraints that no mixture satisfies."""


class DataError(CuveeError):
    """A corpus, table or benchmark that cannot be used as it is."""


class CorruptError(DataError):
    """Bytes that are not what they were when they were written."""


class NewerError(DataError):
    """A record that a newer version wrote, in a format of its own."""


class EvidenceError(CuveeError):
    """Too few runs, or runs that do not belong together."""


class ExportError(CuveeError):
    """A recommendation that a trainer's syntax cannot express, or that lacks what it must know."""


class ApprovalError(EvidenceError):
    """A recommendation that may not be handed on as it is."""


class HandoffError(CuveeError):
    """A call of a handoff that failed, or whose outcome is not known."""


class StorageError(CuveeError):
    """A disk that is full, or a place that cannot be written."""


class TrainingError(CuveeError):
    """Trainings that failed too often to go on."""


class BudgetError(CuveeError):
    """A sweep that costs more than it may."""


class MissingExtra(CuveeError):
    """An optional part of the installation that is not there."""


class ServiceError(CuveeError):
    """A server (Prefect, MLflow, Ray) that does not answer."""
