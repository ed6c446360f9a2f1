"""Fit one law to runs, look how far it can be trusted, and predict mixtures that nobody trained."""

import contextlib
import operator
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from cuvee.flows.api import frames, notebook
from cuvee.flows.api.frames import TableLike
from cuvee.flows.api.tables import LoadedTables, in_python_words, load_tables
from cuvee.mixtures import loop, registry, simplex
from cuvee.mixtures.domains import Array
from cuvee.mixtures.errors import RecipeError
from cuvee.mixtures.inference import diagnostics, held_out
from cuvee.mixtures.inference.diagnostics import RunTable
from cuvee.mixtures.inference.held_out import TargetQuality
from cuvee.mixtures.laws import FittedLaw, Law
from cuvee.mixtures.laws.bounds import score_limits

if TYPE_CHECKING:
    import pandas as pd

LawLike = str | Mapping[str, Any] | Law


@dataclass(frozen=True)
class PredictedScores:
    """What a law says of n mixtures and M targets, in the unit and sign of the scores it was given.

    Attributes:
        labels: of the mixtures.
        targets: names.
        mean: (n, M) predicted scores.
        sd: (n, M) standard error of one new run: the law's own uncertainty and the noise of seeds.

    Examples:
        >>> import cuvee
        >>> import numpy as np
        >>> cuvee.PredictedScores(("a",), ("math",), np.array([[2.5]]), np.array([[0.1]]))
        PredictedScores(1 mixtures, math)
    """

    labels: tuple[str, ...]
    targets: tuple[str, ...]
    mean: Array
    sd: Array

    def __repr__(self) -> str:
        return f"PredictedScores({len(self.labels)} mixtures, {', '.join(self.targets)})"

    def _repr_html_(self) -> str:
        rows = [
            (
                label,
                *(f"{y:.4f} ({sd:.4f})" for y, sd in zip(self.mean[i], self.sd[i], strict=True)),
            )
            for i, label in enumerate(self.labels)
        ]
        title = "Predicted scores, each with the standard error of one new run"
        return notebook.html_block(title, ("mixture", *self.targets), rows)

    def to_frame(self) -> "pd.DataFrame":
        """A row per mixture; a column per target, and one for its standard error. Needs pandas."""
        columns: dict[str, Array] = {}
        for m, target in enumerate(self.targets):
            columns |= {target: self.mean[:, m], f"{target} sd": self.sd[:, m]}
        return frames.data_frame(columns, self.labels, "mixture")


@dataclass(frozen=True)
class LawFit:
    """A law fitted to runs, with what cross-validation says of it. Made by `cuvee.fit`.

    Attributes:
        tables: the runs.
        law: the law without parameters, whose fields are its hyper-parameters.
        quality: how well it predicts each target of runs that it has not seen.
        fitted: the law with its parameters.

    Examples:
        >>> import cuvee
        >>> folder = "examples/fit_from_csv"
        >>> law = cuvee.fit(f"{folder}/mixtures.csv", f"{folder}/scores.csv", law="log_linear")
        >>> legal = law["domain/legal"]
        >>> print(f"{legal.rank_correlation:.2f} ({legal.low:.2f} to {legal.high:.2f})")
        0.99 (0.98 to 1.00)
    """

    tables: LoadedTables
    law: Law
    quality: tuple[TargetQuality, ...]
    fitted: FittedLaw = field(repr=False)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What to know before it is used, a sentence each."""
        mixtures = simplex.count_mixtures(self.tables.weights)
        return (
            *self.tables.notes,
            *held_out.quality_warnings(self.quality, len(self.tables.runs), mixtures),
        )

    def __getitem__(self, target: str) -> TargetQuality:
        """How well one target is predicted."""
        for one in self.quality:
            if one.target == target:
                return one
        raise KeyError(f"no target {target!r}; it has {', '.join(self.tables.targets)}")

    def predict(self, mixtures: Any) -> PredictedScores:
        """Scores of mixtures that nobody need have trained.

        Args:
            mixtures: loaded tables, a frame or CSV file with a column of shares per domain, an
                array (n, K) or (K,) in the order of `tables.domains`, or mappings of shares: one
                mixture, or a list of them.

        Raises:
            ConstraintError: a row that is no mixture.
            DataError: a domain without a column, or a cell that is no number.

        Examples:
            >>> import cuvee
            >>> law = cuvee.fit(
            ...     {"web": [1, 0.75, 0.5, 0.25, 0.0, 0.9], "code": [0, 0.25, 0.5, 0.75, 1.0, 0.1]},
            ...     {"math": [3.0, 2.5, 2.25, 2.125, 2.0625, 2.8]},
            ...     law="log_linear", folds=3,
            ... )
            >>> said = law.predict({"web": 0.4, "code": 0.6})
            >>> print(f"{said.mean[0, 0]:.2f}")
            2.20
        """
        if isinstance(mixtures, LoadedTables):
            mixtures = dict(zip(mixtures.domains, mixtures.weights.T, strict=True))
        labels, W = frames.shares_of(mixtures, self.tables.domains)
        found = self.fitted.predict(W)
        mean = self.tables.as_given(found.mean)
        return PredictedScores(tuple(labels), self.tables.targets, mean, found.sd)

    def to_frame(self) -> "pd.DataFrame":
        """Quality, a row per target; needs pandas."""
        names = [name for name in TargetQuality.__dataclass_fields__ if name != "target"]
        columns = {name: [getattr(one, name) for one in self.quality] for name in names}
        return frames.data_frame(columns, self.tables.targets, "target")

    def __repr__(self) -> str:
        ranks = [one.rank_correlation for one in self.quality]
        return (
            f"LawFit({self.law.name}, {len(self.tables.runs)} runs, held-out rank correlation "
            f"{min(ranks):.2f} to {max(ranks):.2f} over {len(ranks)} targets)"
        )

    def _repr_html_(self) -> str:
        head = ("target", "rank correlation", "95 % interval", "error", "spread", "in 90 %")
        rows = [
            (
                one.target,
                f"{one.rank_correlation:.2f}",
                f"{one.low:.2f} to {one.high:.2f}",
                f"{one.error:.4f}",
                f"{one.spread:.4f}",
                f"{one.coverage:.0%}",
            )
            for one in self.quality
        ]
        title = f"{self.law.name}, fitted to {len(self.tables.runs)} runs; held out:"
        return notebook.html_block(title, head, rows, self.warnings)


def fit(
    mixtures: LoadedTables | TableLike,
    scores: TableLike | None = None,
    *,
    law: LawLike = "kriging",
    folds: int = 5,
    seed: int = 42,
) -> LawFit:
    """Fit one law to runs, and cross-validate it.

    Args:
        mixtures: from `load_tables`, or a table of shares as it takes them.
        scores: a table of scores, where `mixtures` is a table.
        law: a registered law's name, or a mapping with its fields: `{"name": "kriging", "folds":
            10}`. `kriging` predicted best on public tables; `log_linear` is fast, and needs few
            runs. `cuvee list laws` shows all.
        folds: of the cross-validation; all runs of one mixture are held out together.
        seed: of every random choice.

    Raises:
        EvidenceError: too few runs for the law; says how many it needs.
        UnknownName: no such law, or no such field of it.
        RecipeError: a seed or a number of folds that is none.
        DataError: what is wrong with a table, as `load_tables`.

    Examples:
        >>> import cuvee
        >>> tables = cuvee.load_tables(
        ...     "examples/fit_from_csv/mixtures.csv", "examples/fit_from_csv/scores.csv"
        ... )
        >>> law = cuvee.fit(tables, law="log_linear")
        >>> law
        LawFit(log_linear, 30 runs, held-out rank correlation 0.77 to 0.99 over 14 targets)
        >>> print(law.predict(tables).mean.shape)
        (30, 14)
    """
    tables = as_tables(mixtures, scores)
    with in_python_words():
        built: Law = registry.build("law", law)
        rng = loop.generator(_count("seed", seed, 0), len(tables.runs))
        fitted, held = held_out.fit_and_hold_out(
            built, _sample(tables), _count("folds", folds, 2), rng
        )
    return LawFit(
        tables=tables,
        law=built,
        quality=held_out.target_qualities(_sample(tables), held, tables.targets),
        fitted=fitted,
    )


def _count(name: str, given: Any, least: int) -> int:
    """An argument that counts.

    Raises:
        RecipeError: it is no whole number, or less than the least.
    """
    with contextlib.suppress(TypeError):
        if operator.index(given) >= least and not isinstance(given, bool):
            return operator.index(given)
    raise RecipeError(f"`{name}` takes a whole number of at least {least}; got {given!r:.60}")


def as_tables(mixtures: LoadedTables | TableLike, scores: TableLike | None) -> LoadedTables:
    """Tables that are loaded, or that are loaded now.

    Raises:
        TypeError: tables without scores, or with them twice.
    """
    if isinstance(mixtures, LoadedTables):
        if scores is not None:
            raise TypeError("loaded tables have scores already: leave `scores` out")
        return mixtures
    if scores is None:
        raise TypeError("a table of mixtures needs one of `scores` beside it")
    return load_tables(mixtures, scores)


def _sample(tables: LoadedTables) -> RunTable:
    """The runs as laws are fitted to them."""
    W, Y = simplex.canonical_rows(tables.joined.W), tables.joined.Y
    sd, degrees = diagnostics.pooled_deviation(Y, simplex.group_rows(W))
    limits = score_limits(tables.targets, tables.joined.limits)
    return RunTable(W, Y, sd if degrees else np.zeros(Y.shape[1]), limits)
