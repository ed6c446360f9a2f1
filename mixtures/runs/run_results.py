"""Runs that have ended: scores, results, failures, costs, and their history as tables."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from cuvee.mixtures import simplex
from cuvee.mixtures.domains import Array
from cuvee.mixtures.errors import EvidenceError
from cuvee.mixtures.runs.run_spec import BY_NAMES, HELD_OUT, RunSpec
from cuvee.mixtures.runs.unit_scores import UnitScores

Value = TypeVar("Value")


@dataclass(frozen=True)
class Score:
    """A measured value with its sampling error over what it was measured on.

    Attributes:
        value: bits per byte unless the target says otherwise.
        stderr: standard error over the measured documents or items, in the same unit.
        n: documents or items measured.
    """

    value: float
    stderr: float
    n: int

    def __post_init__(self) -> None:
        if not (math.isfinite(self.value) and math.isfinite(self.stderr) and self.stderr >= 0):
            raise EvidenceError(f"a score must be finite with an error of at least 0; got {self}")


@dataclass(frozen=True)
class RunResult:
    """What came of a training.

    Attributes:
        spec: the spec that was trained.
        scores: by target ("domain/legal", "task/piqa"), in bits per byte.
        details: what is shown but not optimised ("task/piqa/accuracy"), by name.
        curve: (tokens seen, training loss in nats per token) pairs.
        trajectory: (tokens seen, weights by domain) where a controller moved them.
        tokens: tokens drawn by domain, in the spec's order.
        epochs: passes over what exists of each domain, in the spec's order.
        flops: floating-point operations of the training, from its first step to its last.
        seconds: wall time of the training, a pack's divided by its models.
        scoring_seconds: the same of the scoring; 0 in records that are older than the field.
        trunks: what of `flops` was trained once for several runs: (name of the trunk, FLOPs) pairs.
        points: (tokens seen, scores by target) pairs on the way, where they can be compared with
            each other (`mixtures.scaling.ScalingRuns`); empty unless the recipe asks for them.
        units: scores and details by document or item, where they are known: not in the record, but
            in `units.npz` beside it (`Store.units_of`).
    """

    spec: RunSpec
    scores: Mapping[str, Score]
    details: Mapping[str, Score] = field(default_factory=dict)
    curve: tuple[tuple[int, float], ...] = ()
    trajectory: tuple[tuple[int, tuple[float, ...]], ...] = ()
    tokens: tuple[int, ...] = ()
    epochs: tuple[float, ...] = ()
    flops: float = 0.0
    seconds: float = 0.0
    scoring_seconds: float = 0.0
    trunks: tuple[tuple[str, float], ...] = ()
    points: tuple[tuple[int, Mapping[str, float]], ...] = ()
    units: Mapping[str, UnitScores] = field(default_factory=dict, compare=False, repr=False)

    @property
    def lacking(self) -> tuple[str, ...]:
        """Held-out texts of the spec's domains that have no score: domains that came later."""
        if self.spec.version == BY_NAMES:
            return ()
        wanted = zip(self.spec.domains, self.spec.heldout, strict=False)
        return tuple(
            HELD_OUT + name for name, held in wanted if held and HELD_OUT + name not in self.scores
        )

    def seen_as(self, spec: RunSpec) -> "RunResult":
        """The result as one of a spec with the same fingerprint: its names, order and domains.

        A score of held-out text is found by the content of that text; where it was never measured,
        there is none.

        Raises:
            EvidenceError: it is another run.
        """
        if spec == self.spec:
            return self
        if spec.fingerprint != self.spec.fingerprint:
            raise EvidenceError(
                f"run {self.spec.fingerprint[:12]} cannot stand for run {spec.fingerprint[:12]}"
            )
        if spec.version == BY_NAMES:
            return dataclasses.replace(self, spec=spec)
        names = _same_text(self.spec, spec)
        return dataclasses.replace(
            self,
            spec=spec,
            scores=_renamed(self.scores, names),
            details=_renamed(self.details, names),
            trajectory=tuple((t, _moved(w, self.spec, spec, 0.0)) for t, w in self.trajectory),
            tokens=_moved(self.tokens, self.spec, spec, 0),
            epochs=_moved(self.epochs, self.spec, spec, 0.0),
            points=tuple((t, _renamed(y, names)) for t, y in self.points),
            units=_renamed(self.units, names),
        )

    def merged(self, other: "RunResult") -> "RunResult":
        """The result with what another record of the same run was scored on besides."""
        spec = self.spec.joined(other.spec)
        ours, theirs = self.seen_as(spec), other.seen_as(spec)
        before, new = dict(theirs.points), {*ours.scores, *ours.details}
        return dataclasses.replace(
            ours,
            scores={**theirs.scores, **ours.scores},
            details={**theirs.details, **ours.details},
            points=tuple((t, {**before.get(t, {}), **y}) for t, y in ours.points),
            units={**{t: u for t, u in theirs.units.items() if t not in new}, **ours.units},
        )


@dataclass(frozen=True)
class Failed:
    """A training that gave no result. It is counted and shown, and never turned into a number."""

    spec: RunSpec
    reason: str

    def seen_as(self, spec: RunSpec) -> "Failed":
        """The failure as that of a spec with the same fingerprint; see `RunResult.seen_as`."""
        return dataclasses.replace(self, spec=spec)


def _same_text(before: RunSpec, after: RunSpec) -> dict[str, list[str]]:
    """By name of a domain, those that have its held-out text under another spec of the run."""
    found: dict[str, list[str]] = {}
    first = {content: i for i, content in reversed(list(enumerate(before.contents)))}
    for name, content in zip(after.domains, after.contents, strict=True):
        if content in first:
            found.setdefault(before.domains[first[content]], []).append(name)
    return found


def _renamed(values: Mapping[str, Value], names: Mapping[str, Sequence[str]]) -> dict[str, Value]:
    """Values by target under other names of domains; those of no domain stay as they are."""
    found: dict[str, Value] = {}
    for target, value in values.items():
        whose = names.get(target.removeprefix(HELD_OUT), ())
        own = (HELD_OUT + name for name in whose)
        found |= dict.fromkeys(own if target.startswith(HELD_OUT) else (target,), value)
    return found


def _moved(
    values: Sequence[Value], before: RunSpec, after: RunSpec, none: Value
) -> tuple[Value, ...]:
    """One value per domain, under another spec of the run; `none` for domains without a share."""
    if not values:
        return ()
    found = [none] * len(after.domains)
    for i, j in zip(before.order, after.order, strict=True):
        found[j] = values[i]
    return tuple(found)


Outcome = RunResult | Failed
History = tuple[Outcome, ...]


def finished_runs(history: History) -> tuple[RunResult, ...]:
    """The runs of a history that gave a result, in their order."""
    return tuple(run for run in history if isinstance(run, RunResult))


@dataclass(frozen=True)
class TrainingCost:
    """What trainings cost together, whichever process trained them, and whenever.

    Attributes:
        flops: floating-point operations.
        tokens: that were trained on.
        core_seconds: of training and scoring, each on one core, or on one device of a pack's.
    """

    flops: float = 0.0
    tokens: float = 0.0
    core_seconds: float = 0.0


NO_COST = TrainingCost()


def training_cost(runs: Sequence[RunResult]) -> TrainingCost | None:
    """The cost of runs: each one's own, and every beginning that they share once.

    None where it is not known: a run came in a table, which says nothing of its cost.
    """
    if not all(run.flops for run in runs):
        return None
    shared = {name: (part / run.flops, run) for run in runs for name, part in run.trunks}
    parts = [(1 - sum(part for _, part in run.trunks) / run.flops, run) for run in runs]
    parts += shared.values()
    return TrainingCost(
        flops=math.fsum(part * run.flops for part, run in parts),
        tokens=math.fsum(part * run.spec.tokens for part, run in parts),
        core_seconds=math.fsum(part * run.seconds for part, run in parts)
        + math.fsum(run.scoring_seconds for run in runs),
    )


def score_table(history: History, targets: Sequence[str]) -> tuple[Array, Array, Array]:
    """A history as arrays.

    Returns:
        W (N, K) shares of tokens, equal in all runs of one mixture (see `simplex.canonical_rows`),
        Y (N, M) values, E (N, M) sampling errors; one row per finished run.

    Raises:
        EvidenceError: no run finished, or a run lacks a target, which is named.
    """
    runs = finished_runs(history)
    if not runs:
        raise EvidenceError("no run has finished, so there is nothing to fit")
    for run in runs:
        missing = [t for t in targets if t not in run.scores]
        if missing:
            raise EvidenceError(
                f"run {run.spec.fingerprint[:12]} has no score for {', '.join(missing)}; "
                f"it has {', '.join(sorted(run.scores))}"
            )
    w = simplex.canonical_rows([run.spec.weights for run in runs])
    y = np.array([[run.scores[t].value for t in targets] for run in runs], dtype=np.float64)
    e = np.array([[run.scores[t].stderr for t in targets] for run in runs], dtype=np.float64)
    return w, y, e
