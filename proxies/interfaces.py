"""What training asks of a corpus, what it reports on its way, and what comes of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from cuvee.mixtures.domains import Domain
from cuvee.mixtures.runs.run_results import Failed
from cuvee.mixtures.runs.run_spec import RunSpec
from cuvee.proxies.data.shards import TokenArray

if TYPE_CHECKING:
    from cuvee.proxies.model.likelihood import (
        PackLikelihood,  # torch, which readers of progress can do without
    )


class TokenSplit(Protocol):
    """One split of a domain."""

    @property
    def tokens(self) -> TokenArray: ...


class TrainingCorpus(Protocol):
    """What training asks of a corpus; `shards.Corpus` is one."""

    @property
    def vocabulary(self) -> int: ...
    @property
    def domains(self) -> tuple[Domain, ...]: ...
    def train(self, name: str) -> TokenSplit: ...
    def check(self) -> None:
        """Raise CorruptError if what was read may not be what was verified."""


@dataclass(frozen=True)
class Progress:
    """How far a pack is.

    Attributes:
        step, steps: taken, and in all.
        tokens: trained on, per model.
        losses: mean since the last report, nats per token, one per model; NaN for one that failed.
    """

    step: int
    steps: int
    tokens: int
    losses: tuple[float, ...]


@dataclass(frozen=True)
class IntermediateEvaluations:
    """Evaluations of the models of a pack on their way; they change nothing of a training.

    Attributes:
        steps: after which there is one.
        measure: scores by name, of each model of a likelihood in its order.
    """

    steps: tuple[int, ...] = ()
    measure: "Callable[[PackLikelihood], Sequence[Mapping[str, float]]]" = lambda _: ()


NO_EVALUATIONS = IntermediateEvaluations()


@dataclass(frozen=True)
class TrainedRun:
    """What came of one training; the fields are those of `runs.run_results.RunResult`."""

    spec: RunSpec
    curve: tuple[tuple[int, float], ...]
    trajectory: tuple[tuple[int, tuple[float, ...]], ...]
    tokens: tuple[int, ...]
    epochs: tuple[float, ...]
    flops: float
    seconds: float
    trunks: tuple[tuple[str, float], ...] = ()
    points: tuple[tuple[int, Mapping[str, float]], ...] = ()


@dataclass(frozen=True)
class Trained:
    """What came of a pack.

    Attributes:
        likelihood: of the models that were trained, in the order of their runs; None without any.
        runs: one per spec, in order.
    """

    likelihood: "PackLikelihood | None"
    runs: tuple[TrainedRun | Failed, ...]


def ignore_progress(progress: Progress) -> None:
    """Report to nobody."""
