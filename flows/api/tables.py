"""Runs that were trained elsewhere, loaded from files, data frames or arrays."""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import ValidationError

from cuvee.flows.api import frames, notebook
from cuvee.flows.api.frames import TableLike
from cuvee.flows.recipe.evidence_parts import TablesPart
from cuvee.flows.recipe.refusals import explain
from cuvee.flows.study import table_problem
from cuvee.mixtures.domains import Array
from cuvee.mixtures.errors import CuveeError
from cuvee.tasks.study import tables
from cuvee.tasks.study.tables import JoinedTables

if TYPE_CHECKING:
    import pandas as pd

WORDS = {  # of Python, by what recipes call the same
    "tables.sizes or tables.token_counts": "`sizes`",
    "tables.token_counts": "`sizes`",
    "tables.sizes": "`sizes`",
    "tables.targets": "`targets`",
    "tables.only": "`domains`",
    "tables.id": "`id_column`",
    "the recipe has": "the call has",
    "full_scale.tokens": "`full_tokens`",
}


@dataclass(frozen=True)
class LoadedTables:
    """Runs with their mixtures and scores: what laws are fitted to and mixtures chosen from.

    Made by `load_tables`, or from the store by a study's `tables`.

    Attributes:
        joined: the runs as they were read, scores of which more is better with their sign turned.
        part: what was asked for, in a recipe's words.

    Examples:
        >>> import cuvee
        >>> tables = cuvee.load_tables(
        ...     {"run": ["a", "b"], "web": [0.5, 0.75], "code": [0.5, 0.25]},
        ...     {"run": ["b", "a"], "math": [2.5, 2.0]},
        ... )
        >>> tables.domains, tables.targets, tables.runs
        (('web', 'code'), ('math',), ('a', 'b'))
        >>> tables.scores  # paired by `run`, not by position
        array([[2. ],
               [2.5]])
    """

    joined: JoinedTables
    part: TablesPart

    @property
    def runs(self) -> tuple[str, ...]:
        """Ids of the N runs."""
        return self.joined.ids

    @property
    def domains(self) -> tuple[str, ...]:
        """Names of the K domains."""
        return self.joined.domains

    @property
    def targets(self) -> tuple[str, ...]:
        """Names of the M targets."""
        return self.joined.targets

    @property
    def weights(self) -> Array:
        """Shares of tokens (N, K)."""
        return self.joined.W

    @property
    def scores(self) -> Array:
        """Scores (N, M) as they were given, in their own unit."""
        return self.as_given(self.joined.Y)

    def as_given(self, scores: Array) -> Array:
        """Scores (..., M) of which less is better, with the sign that they were given with."""
        turned = [name in self.part.higher_is_better for name in self.targets]
        return scores * [-1.0 if one else 1.0 for one in turned] + 0.0

    @property
    def sizes(self) -> Mapping[str, float]:
        """Tokens by domain, or relative sizes; empty where nobody gave any."""
        return self.part.sizes

    def to_frame(self) -> "pd.DataFrame":
        """Shares and scores side by side, a row per run; needs pandas."""
        values = [*self.weights.T, *self.scores.T]
        columns = dict(zip((*self.domains, *self.targets), values, strict=True))
        return frames.data_frame(columns, self.runs, "run")

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know of how they were read: columns left out, rows rescaled."""
        notes = table_problem.reading_notes(self.joined, self.part.mixtures)
        return tuple(python_words(line) for line in notes)

    def __repr__(self) -> str:
        return (
            f"LoadedTables({len(self.runs)} runs, {len(self.domains)} domains, "
            f"{len(self.targets)} targets)"
        )

    def _repr_html_(self) -> str:
        rows = (
            ("runs", str(len(self.runs))),
            ("domains", ", ".join(self.domains)),
            ("targets", ", ".join(self.targets)),
        )
        return notebook.html_block(
            "Runs with their mixtures and scores", ("", ""), rows, self.notes
        )


def load_tables(
    mixtures: TableLike,
    scores: TableLike,
    *,
    id_column: str | None = None,
    sizes: Mapping[str, float | str] | None = None,
    domains: str | Sequence[str] = (),
    targets: str | Sequence[str] = (),
    higher_is_better: str | Sequence[str] = (),
    unmatched: Literal["refuse", "leave out"] = "refuse",
) -> LoadedTables:
    """Load runs that were trained elsewhere: their mixtures and their scores.

    Each table is a CSV file's path, a data frame (pandas, polars, pyarrow), a mapping of columns or
    an array. Runs are paired by a column that both have (`run`, `run_id`, `index` or `id`), without
    one by the frames' index, and only without that by the order of rows.

    Args:
        mixtures: a row per run, a column of shares of tokens per domain: fractions that sum to 1.
        scores: a row per run, a column per target; lower is better, in bits per byte or whatever
            unit all targets of an objective share.
        id_column: the column that says which run a row is of.
        sizes: tokens that exist of every domain ("20M" is understood), or relative sizes; they
            make the natural mixture, and counts let `epochs` be constrained.
        domains: columns of shares to read; of an array, the names of its columns.
        targets: columns of scores to read; of an array, the names of its columns. Of these three,
            one name may be given as it is.
        higher_is_better: targets of which more is better, such as an accuracy.
        unmatched: "leave out" runs that stand in one table only, instead of refusing them.

    Raises:
        DataError: what is no table; a cell without a number; shares below 0 or that do not sum
            to 1, in percent for example.
        EvidenceError: an id that stands twice or in one table only.

    Examples:
        >>> import cuvee
        >>> folder = "examples/fit_from_csv"
        >>> cuvee.load_tables(f"{folder}/mixtures.csv", f"{folder}/scores.csv")
        LoadedTables(30 runs, 8 domains, 14 targets)
        >>> cuvee.load_tables([[0.5, 0.5], [1, 0]], [2.25, 2.5], domains=["web", "code"])
        LoadedTables(2 runs, 2 domains, 1 targets)
        >>> try:
        ...     cuvee.load_tables([[50, 50], [100, 0]], [2.25, 2.5], domains=["web", "code"])
        ... except cuvee.DataError as error:
        ...     print(str(error).rpartition("; ")[2])
        are these percent? Divide by 100
    """
    values = {
        "mixtures": frames.place_of(mixtures, "mixtures"),
        "scores": frames.place_of(scores, "scores"),
        "id": id_column,
        "sizes": plain_values(sizes or {}),
        "targets": _names(targets),
        "higher_is_better": _names(higher_is_better),
        "only": _names(domains),
        "unmatched": unmatched,
    }
    return _joined(mixtures, scores, values)


def _names(given: str | Sequence[str]) -> list[str]:
    return [given] if isinstance(given, str) else list(given)


def _joined(mixtures: TableLike, scores: TableLike, values: dict[str, Any]) -> LoadedTables:
    """Two tables, joined as the `tables` of a recipe say; errors as `load_tables`."""
    with in_python_words():
        try:
            part = TablesPart.model_validate(values)
        except ValidationError as error:
            raise explain(error, "load_tables", TablesPart) from None
        left, right, key = frames.paired_tables(
            mixtures, scores, key=part.id, domains=part.only, targets=part.targets
        )
        reading = dataclasses.replace(part.reading, key=key)
        loaded = LoadedTables(tables.join_tables(left, right, reading), part)
        table_problem.domains_of_tables(loaded.domains, part.sizes, "sizes")  # which checks them
    return loaded


def plain_values(value: Any) -> Any:
    """A value of a recipe's field as YAML has it: numpy's numbers as Python's, tuples as lists."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, Mapping):
        return {str(key): plain_values(one) for key, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain_values(one) for one in value]
    return value


@contextlib.contextmanager
def in_python_words() -> Iterator[None]:
    """Errors name the arguments of a call and not the fields of the recipe that it becomes."""
    try:
        yield
    except CuveeError as error:
        error.args = (python_words(str(error)),)
        raise


def python_words(text: str) -> str:
    """A sentence on a recipe as one on a call."""
    for field, argument in WORDS.items():
        text = text.replace(field, argument)
    return text
