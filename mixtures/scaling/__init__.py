"""Scaling laws: how scores depend on the mixture, the parameters and the tokens; one file each.

A scaling law is fitted to runs of several sizes and gives, at any one scale, a law of mixtures:
`fitted.at(parameters, tokens)` is a `mixtures.laws.FittedLaw`, so that every search works on it.

Parameters are counted whole, embeddings and head included, as models are named and as Hoffmann et
al. 2022 (arXiv 2203.15556) count them. Without embeddings, as Kaplan et al. 2020 and Data Mixing
Laws count, the exponents found on models this small are biased (Pearce and Song 2024, arXiv
2406.12907): embeddings are most of a proxy of a million parameters.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol, Self

import numpy as np

from cuvee.mixtures import simplex
from cuvee.mixtures.domains import Array
from cuvee.mixtures.errors import EvidenceError
from cuvee.mixtures.laws import FittedLaw, Prediction
from cuvee.mixtures.scaling.discrepancy import Discrepancy


@dataclass(frozen=True, eq=False)
class ScalingRuns:
    """Runs of several sizes as arrays: N rows, K domains, M targets.

    Several rows may belong to one run: points of its loss curve. They then share a group, and are
    held out, resampled and counted together. Which points count:

    * Under a constant rate every point after the warm-up, as if the run had ended there.
    * Before the decay of a warm-up-stable-decay run, points count as `stable`: they can be compared
      with each other, and lie above what a decay at that point would have given, by a gap that the
      fit has to find (Haegele et al. 2024, arXiv 2405.18392, section 3 and figure 4; Tissue et al.
      2024, arXiv 2408.11029, write it as a term of its own in the area of the annealing). The same
      holds where the last weights are averaged and those before are not.
    * No point of a decay, and so none of a cosine, but the last: its loss is one of a rate on its
      way down, which no run that ended there would have had (Hoffmann et al. 2022, arXiv
      2203.15556, section 2).

    Attributes:
        W: (N, K) shares of tokens.
        parameters: (N,) of the model, embeddings included.
        tokens: (N,) trained on up to the row's score.
        Y: (N, M) scores, lower is better, positive.
        noise: (N, M) standard deviation of a score over seeds; 0 where unknown.
        groups: (N,) index of the run that a row belongs to.
        available: (K,) tokens that exist of each domain; None where repetition is not known.
        names: of the runs, by their index, for messages; may be empty.
        stable: (N,) whether a row is a point before the decay; None: all rows are ends of runs.
    """

    W: Array
    parameters: Array
    tokens: Array
    Y: Array
    noise: Array
    groups: Any
    available: Array | None = None
    names: tuple[str, ...] = ()
    stable: Any | None = None

    def __post_init__(self) -> None:
        n = len(self.W)
        shapes = {
            "parameters": (n,),
            "tokens": (n,),
            "groups": (n,),
            **({} if self.stable is None else {"stable": (n,)}),
            "noise": np.shape(self.Y),
            "Y": (n, *np.shape(self.Y)[1:]),
        }
        for name, shape in shapes.items():
            found = np.shape(getattr(self, name))
            if found != shape or np.ndim(self.Y) != 2 or np.ndim(self.W) != 2:
                raise EvidenceError(
                    f"runs need one row each in every table: {name} has shape {found}, "
                    f"shares have {np.shape(self.W)}, scores {np.shape(self.Y)}"
                )
        if self.available is not None and np.shape(self.available) != (self.W.shape[1],):
            raise EvidenceError(
                f"available tokens must be one number for each of {self.W.shape[1]} domains; "
                f"got shape {np.shape(self.available)}"
            )
        self._check()

    def _check(self) -> None:
        sums = self.W.sum(axis=1)
        bad = {
            "a score is missing or not positive": ~(
                np.isfinite(self.Y).all(axis=1) & (self.Y > 0).all(axis=1)
            ),
            "shares are negative, missing or do not sum to 1": ~(
                np.isfinite(sums) & (self.W >= 0).all(axis=1) & (abs(sums - 1) <= simplex.TOLERANCE)
            ),
            "parameters and tokens must be positive": ~(
                np.isfinite(self.parameters * self.tokens)
                & (self.parameters > 0)
                & (self.tokens > 0)
            ),
            "noise is negative or missing": ~(
                np.isfinite(self.noise).all(axis=1) & (self.noise >= 0).all(axis=1)
            ),
        }
        for reason, rows in bad.items():
            if rows.any():
                named = ", ".join(dict.fromkeys(self.label(int(i)) for i in np.flatnonzero(rows)))
                raise EvidenceError(
                    f"a scaling law cannot use {named}: {reason}; train it again or leave it out"
                )

    def __len__(self) -> int:
        return len(self.W)

    def label(self, row: int) -> str:
        """The name of the run that a row belongs to."""
        group = int(self.groups[row])
        return self.names[group] if group < len(self.names) else f"run {group}"

    def take(self, rows: Any) -> "ScalingRuns":
        """The runs with some of their rows (positions or a mask)."""
        parts = {n: getattr(self, n)[rows] for n in ("W", "parameters", "tokens", "Y", "noise")}
        stable = None if self.stable is None else np.asarray(self.stable)[rows]
        return replace(self, groups=np.asarray(self.groups)[rows], stable=stable, **parts)

    @property
    def ends(self) -> "ScalingRuns":
        """The runs by their ends alone: one row each, of the most tokens."""
        if self.count == len(self):
            return self
        last: dict[int, int] = {}
        for row, group in enumerate(np.asarray(self.groups).tolist()):
            if group not in last or self.tokens[row] > self.tokens[last[group]]:
                last[group] = row
        return replace(self.take(np.sort(list(last.values()))), stable=None)

    def columns(self, columns: Sequence[int]) -> "ScalingRuns":
        """The runs with some of their targets."""
        chosen = list(columns)
        return replace(self, Y=self.Y[:, chosen], noise=self.noise[:, chosen])

    @property
    def sizes(self) -> tuple[float, ...]:
        """Distinct parameter counts, ascending."""
        return tuple(float(n) for n in np.unique(self.parameters))

    @property
    def count(self) -> int:
        """Runs, each counted once however many rows it has."""
        return len(np.unique(self.groups))

    def resample(self, rng: np.random.Generator) -> "ScalingRuns":
        """A bootstrap sample of the runs, drawn within each size so that every size stays.

        A run that is drawn twice counts as two.
        """
        group_of = np.asarray(self.groups)
        rows: list[Any] = []
        for size in self.sizes:
            own = np.unique(group_of[self.parameters == size])
            drawn = rng.choice(own, size=len(own))
            rows += [np.flatnonzero((group_of == g) & (self.parameters == size)) for g in drawn]
        index = np.concatenate(rows)
        fresh = np.concatenate([np.full(len(part), i) for i, part in enumerate(rows)])
        names = tuple(self.label(int(part[0])) for part in rows)
        return replace(self.take(index), groups=fresh, names=names)


class FittedScaling(Protocol):
    """A scaling law with its parameters. Immutable and picklable.

    Attributes:
        discrepancy: what back-tests say of its errors beyond the runs; None: none were made.
    """

    discrepancy: Discrepancy | None = None

    @property
    def unexplained(self) -> Any:
        """Relative deviation (M,) of what it leaves over of the runs, as far as it knows."""
        return 0.0

    def predict(self, W: Array, parameters: Any, tokens: Any) -> Prediction:
        """Scores of models of a size, trained on so many tokens of a mixture.

        Args:
            W: (n, K) shares.
            parameters: of the models, one number or (n,).
            tokens: one number or (n,).

        Returns:
            Means and deviations (n, M); a deviation is that of a new run, infinite beyond the
            runs where no back-test could be made.
        """
        ...

    def at(self, parameters: float, tokens: float) -> FittedLaw:
        """The law of mixtures at one scale."""
        return Slice(self, parameters, tokens)


class Scaling(Protocol):
    """A scaling law without parameters: it cannot predict. Its fields are its hyper-parameters.

    Attributes:
        name: in recipes.
    """

    name: ClassVar[str]

    def coarse(self) -> Self:
        """A cheaper variant without back-tests, for refits; itself where there is none."""
        return self

    @property
    @abstractmethod
    def sizes(self) -> int:
        """Fewest distinct parameter counts from which it can be fitted."""

    @abstractmethod
    def rows(self, domains: int) -> int:
        """Fewest runs from which it can be fitted to K domains."""

    @abstractmethod
    def fit(self, runs: ScalingRuns, rng: np.random.Generator) -> FittedScaling:
        """Fit all targets.

        Raises:
            EvidenceError: fewer sizes than `sizes` or runs than `rows(K)`; says how many are
                needed.
        """


@dataclass(frozen=True, eq=False)
class Slice:
    """A scaling law at one scale: a law of mixtures.

    Attributes:
        whole: the fitted scaling law.
        parameters: of the model.
        tokens: that it is trained on.
    """

    whole: FittedScaling
    parameters: float
    tokens: float

    def predict(self, W: Array) -> Prediction:
        return self.whole.predict(np.asarray(W), self.parameters, self.tokens)


def check_scaling_runs(name: str, law: Scaling, runs: ScalingRuns) -> None:
    """Refuse evidence that a law cannot be fitted to.

    Raises:
        EvidenceError: too few sizes or runs; says how many are needed.
    """
    if len(runs.sizes) < law.sizes:
        shown = ", ".join(f"{n:,.0f}" for n in runs.sizes)
        raise EvidenceError(
            f"scaling law {name!r} needs runs of at least {law.sizes} sizes; got "
            f"{len(runs.sizes)} ({shown} parameters): add a rung to the ladder"
        )
    needed = law.rows(runs.W.shape[1])
    if runs.count < needed:
        raise EvidenceError(
            f"scaling law {name!r} needs at least {needed} runs for {runs.W.shape[1]} domains; "
            f"got {runs.count}: train {needed - runs.count} more"
        )
