"""Runs: what is trained and what came of it (RunSpec, RunResult, Failed), and their history.

A spec holds everything that determines one proxy training. Its fingerprint is the sha256 of its
canonical JSON, so that a run is found again whoever asks for it and whatever its study is called.
"""

import dataclasses
import functools
import hashlib
import json
import math
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import numpy as np

from cuvee.mixtures import simplex
from cuvee.mixtures.domains import Array
from cuvee.mixtures.errors import EvidenceError

Value = TypeVar("Value")
VERSION = 1  # raised by hand whenever the same spec would train a different proxy
LATER = {"average": 0.0, "start": ""}  # later fields: at these values a fingerprint is the old one


@dataclass(frozen=True)
class Stage:
    """A stretch of training at fixed shares.

    Attributes:
        weights: shares of tokens by domain, in the order of the spec's domains; they sum to 1.
        share: the stage's part of the run's tokens, in (0, 1].
    """

    weights: tuple[float, ...]
    share: float = 1.0

    def __post_init__(self) -> None:
        simplex.check_mixture(self.weights)
        if not 0 < self.share <= 1:
            raise EvidenceError(f"a stage's share of the tokens lies in (0, 1]; got {self.share}")


def mean_shares(stages: Sequence[Stage]) -> Array:
    """Shares of tokens over a whole run of these stages, shape (K,)."""
    parts = [np.asarray(s.weights, dtype=np.float64) * s.share for s in stages]
    return np.asarray(np.sum(parts, axis=0), dtype=np.float64)


@dataclass(frozen=True)
class RunSpec:
    """Everything that determines one proxy training.

    Attributes:
        domains: names, in the order of every weight vector.
        identities: content hashes of the domains' tokens (tokenizer included), in the same order.
        stages: the mixture over time; under a controller, its starting weights.
        size: a step of the ladder, such as "0.6M".
        tokens: training tokens in all.
        seed: of initialisation and data order. Runs with equal seeds are paired.
        scoring: hash of what the proxy is scored on (validation tokens, benchmarks, limits).
        schedule: learning-rate schedule, "wsd", "cosine" or "constant".
        precision: "float32" or "bfloat16" arithmetic (master weights are float32 in both).
        rate: multiplier on the ladder's learning rate.
        controller: canonical JSON of the controller that moves the weights, or "".
        reference: fingerprint of the run whose losses the controller needs, or "".
        repetition: 1/s trains on a subsample of each domain, so that it repeats as at full scale; 1
            is off.
        average: share of the last steps whose weights are averaged uniformly; 0 is off.
        start: content hash of the checkpoint that the run starts from, or "" for random values.
    """

    domains: tuple[str, ...]
    identities: tuple[str, ...]
    stages: tuple[Stage, ...]
    size: str
    tokens: int
    seed: int
    scoring: str = ""
    schedule: str = "wsd"
    precision: str = "float32"
    rate: float = 1.0
    controller: str = ""
    reference: str = ""
    repetition: float = 1.0
    version: int = VERSION
    average: float = 0.0
    start: str = ""

    def __post_init__(self) -> None:
        if len(self.identities) != len(self.domains):
            raise EvidenceError(
                f"{len(self.domains)} domains but {len(self.identities)} identities in a run's spec"
            )
        if (
            not self.stages
            or abs(math.fsum(s.share for s in self.stages) - 1.0) > simplex.TOLERANCE
        ):
            raise EvidenceError("the stages' shares of the tokens must sum to 1")
        for stage in self.stages:
            simplex.check_mixture(stage.weights, self.domains)
        if self.tokens <= 0:
            raise EvidenceError(f"a run needs a positive number of tokens; got {self.tokens}")
        if self.precision not in ("float32", "bfloat16"):
            raise EvidenceError(f"precision is float32 or bfloat16; got {self.precision!r}")
        if not 0 < self.repetition <= 1:
            raise EvidenceError(f"repetition lies in (0, 1]; got {self.repetition}")
        if not 0 <= self.average < 1:
            raise EvidenceError(f"average lies in [0, 1); got {self.average}")

    @property
    def weights(self) -> Array:
        """Shares of tokens over the whole run, shape (K,)."""
        return mean_shares(self.stages)

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of the canonical JSON, 64 hexadecimal digits."""
        values = dataclasses.asdict(self)
        kept = {k: v for k, v in values.items() if k not in LATER or v != LATER[k]}
        return hashlib.sha256(canonical_json(kept).encode()).hexdigest()


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


@dataclass(frozen=True)
class Failed:
    """A training that gave no result. It is counted and shown, and never turned into a number."""

    spec: RunSpec
    reason: str


Outcome = RunResult | Failed
History = tuple[Outcome, ...]


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no blanks: equal values give equal text; NaN is refused."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


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


def outcome_to_json(outcome: Outcome) -> dict[str, Any]:
    """An outcome as plain JSON values; `outcome_from_json` gives it back."""
    return {"kind": type(outcome).__name__, **dataclasses.asdict(outcome)}


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
