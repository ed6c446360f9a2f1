"""Runs: what is trained and what came of it (RunSpec, RunResult, Failed), and their history.

A spec holds everything that determines one proxy training. Its fingerprint is the sha256 of its
canonical JSON, so that a run is found again whoever asks for it and whatever its study is called.

Since version 2 it holds contents in a canonical order: domains stand by the hash of their text, not
by their names, and one without any share is left out. So a domain that is renamed, moved in the
recipe or added leaves every run what it was. A result is read under the names, in the order and
over the domains of whoever asks (`RunResult.seen_as`). Runs of version 1 go by names and order, and
keep their fingerprints.
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
from cuvee.mixtures.domains import Array, DomainSet
from cuvee.mixtures.errors import EvidenceError
from cuvee.mixtures.registry import lookup

Value = TypeVar("Value")
BY_NAMES, BY_CONTENT = 1, 2  # versions: what a fingerprint and the order of windows go by
VERSION = BY_CONTENT  # raised by hand whenever the same spec would train a different proxy
LATER = {"average": 0.0, "start": ""}  # later fields: at these values a fingerprint is the old one
RESERVED = {"data_seed": None, "trainer": "", "arithmetic": "", "document_order": "key"}
HELD_OUT = "domain/"  # how targets begin that are the held-out text of a domain


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
        seed: of initialisation, and of data order unless it has a seed of its own. Runs with equal
            seeds are paired.
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
        heldout: content hashes of the domains' held-out text, by which scores are found; empty
            where they are not known. No part of a run's identity, unless a controller follows them.
        data_seed: of the data order, where it is another one than that of initialisation.
        trainer: identity of the program that trains; "" for the built-in one.
        arithmetic: what the numbers of a run depend on beside `precision`; "" for what is usual.
        document_order: what orders the documents of a domain: "key", a hash of their text.
        sampled: under a repetition below 1, by identity the share of a domain's tokens that lies on
            disk where that is a sample; the part of it that is used is as much larger.
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
    heldout: tuple[str, ...] = ()
    data_seed: int | None = None
    trainer: str = ""
    arithmetic: str = ""
    document_order: str = "key"
    sampled: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        if len(self.identities) != len(self.domains):
            raise EvidenceError(
                f"{len(self.domains)} domains but {len(self.identities)} identities in a run's spec"
            )
        if len(self.heldout) not in (0, len(self.domains)):
            raise EvidenceError(
                f"{len(self.domains)} domains, {len(self.heldout)} held-out texts in a run's spec"
            )
        if self.version == BY_NAMES and any(
            getattr(self, name) != value for name, value in RESERVED.items()
        ):
            raise EvidenceError(f"a run of version 1 has no {', '.join(RESERVED)} of its own")
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

    def usable(self, index: int) -> float:
        """The part of what lies on disk of a domain that the run may use."""
        return min(1.0, self.repetition / dict(self.sampled).get(self.identities[index], 1.0))

    @property
    def order_seed(self) -> int:
        """Of the data order."""
        return self.seed if self.data_seed is None else self.data_seed

    @property
    def keys(self) -> tuple[str, ...]:
        """What the order of each domain's windows is drawn from, in the order of the domains."""
        return self.domains if self.version == BY_NAMES else self.identities

    @cached_property
    def order(self) -> tuple[int, ...]:
        """Positions of the domains that the run is made of, in canonical order.

        Under a controller all are, since each may get a share on the way. Domains of equal content
        stand by their shares.
        """
        every = range(len(self.domains))
        if self.version == BY_NAMES:
            return tuple(sorted(every, key=self.domains.__getitem__))
        shares = list(zip(*(stage.weights for stage in self.stages), strict=True))
        if self.controller:
            ends = self.heldout or self.domains
            return tuple(sorted(every, key=lambda i: (self.identities[i], ends[i], shares[i])))
        own = [i for i in every if any(shares[i])]
        return tuple(sorted(own, key=lambda i: (self.identities[i], shares[i])))

    @property
    def contents(self) -> tuple[str, ...]:
        """What the score of each domain's held-out text is found by, in the order of the domains.

        Text that is held out has a hash; where a corpus knows none, its domain's stands for it.
        """
        known = self.heldout or ("",) * len(self.domains)
        return tuple(held or f"of {own}" for held, own in zip(known, self.identities, strict=True))

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of the canonical JSON, 64 hexadecimal digits."""
        return hashlib.sha256(canonical_json(self.canonical()).encode()).hexdigest()

    def canonical(self) -> dict[str, Any]:
        """What the fingerprint is the hash of."""
        values = dataclasses.asdict(self)
        del values["heldout"], values["sampled"]
        if self.version == BY_NAMES:
            kept = {k: v for k, v in values.items() if k not in LATER or v != LATER[k]}
            return {k: v for k, v in kept.items() if k not in RESERVED}
        del values["domains"]
        values["identities"] = [self.identities[i] for i in self.order]
        used = {pair for pair in self.sampled if pair[0] in values["identities"]}
        if used:
            values["sampled"] = sorted(map(list, used))
        values["stages"] = [
            {"weights": [stage.weights[i] for i in self.order], "share": stage.share}
            for stage in self.stages
        ]
        values["data_seed"] = None if self.data_seed == self.seed else self.data_seed
        if self.controller:
            values["controller"] = self._canonical_controller()
            values["heldout"] = [self.contents[i] for i in self.order]
        return values

    def _canonical_controller(self) -> Any:
        """The controller with what it has by domain in canonical order, and targets by content."""
        values = json.loads(self.controller)
        contents = dict(zip(map(HELD_OUT.__add__, self.domains), self.contents, strict=True))
        if "evaluated" in values:
            values["evaluated"] = [contents.get(name, name) for name in values["evaluated"]]
        by_domain = lookup("controller", values["name"]).by_domain if "name" in values else ()  # type: ignore[attr-defined]
        for name in by_domain:
            if len(values.get(name, ())) == len(self.domains):
                values[name] = [values[name][i] for i in self.order]
        return values

    def over(self, domains: DomainSet) -> "RunSpec":
        """The same run at fixed shares over other domains, which have its text under any names.

        Raises:
            EvidenceError: the text of a domain that the run is made of is not among them.
        """
        if self.version == BY_NAMES:
            return self
        free, places = list(range(len(domains))), {}  # position there -> position here
        for i in self.order:
            there = [j for j in free if domains.identities[j] == self.identities[i]]
            if not there or self.controller:
                raise EvidenceError(
                    f"run {self.fingerprint[:12]} was trained on text of {self.domains[i]!r} that "
                    f"is in none of the domains {', '.join(domains.names)}"
                )
            places[there[0]] = i
            free.remove(there[0])
        stages = [
            [stage.weights[places[j]] if j in places else 0.0 for j in range(len(domains))]
            for stage in self.stages
        ]
        return dataclasses.replace(
            self,
            domains=domains.names,
            identities=domains.identities,
            heldout=domains.heldout,
            stages=tuple(
                Stage(tuple(weights), stage.share)
                for weights, stage in zip(stages, self.stages, strict=True)
            ),
        )

    def joined(self, other: "RunSpec") -> "RunSpec":
        """The run with the domains of another record of it that it lacks, which have no share."""
        if self.version == BY_NAMES or self.controller:
            return self
        have = set(zip(self.identities, self.contents, strict=True))
        more = [
            i
            for i, content in enumerate(zip(other.identities, other.contents, strict=True))
            if content not in have
        ]
        if not more:
            return self
        names = list(self.domains)
        for i in more:
            name = other.domains[i]
            names.append(f"{name} ({other.contents[i][-8:]})" if name in names else name)
        blank = ("",) * len(other.domains)
        return dataclasses.replace(
            self,
            domains=tuple(names),
            identities=self.identities + tuple(other.identities[i] for i in more),
            heldout=(self.heldout or ("",) * len(self.domains))
            + tuple((other.heldout or blank)[i] for i in more),
            stages=tuple(
                Stage((*stage.weights, *(0.0 for _ in more)), stage.share) for stage in self.stages
            ),
        )


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
        )

    def merged(self, other: "RunResult") -> "RunResult":
        """The result with what another record of the same run was scored on besides."""
        spec = self.spec.joined(other.spec)
        ours, theirs = self.seen_as(spec), other.seen_as(spec)
        before = dict(theirs.points)
        return dataclasses.replace(
            ours,
            scores={**theirs.scores, **ours.scores},
            details={**theirs.details, **ours.details},
            points=tuple((t, {**before.get(t, {}), **y}) for t, y in ours.points),
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
    found = {"kind": type(outcome).__name__, **dataclasses.asdict(outcome)}
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
