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
import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from cuvee.mixtures import simplex
from cuvee.mixtures.domains import Array, DomainSet
from cuvee.mixtures.errors import EvidenceError
from cuvee.mixtures.registry import lookup

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
            EvidenceError: the text of a domain that the run is made of is not among them; or a
                controller moved its shares.
        """
        if self.version == BY_NAMES:
            return self
        if self.controller:
            raise EvidenceError(
                f"the shares of run {self.fingerprint[:12]} were moved by a controller, which may "
                "give some to every domain: it is a run of its own domains, and of no others"
            )
        free, places = list(range(len(domains))), {}  # position there -> position here
        for i in self.order:
            there = [j for j in free if domains.identities[j] == self.identities[i]]
            if not there:
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


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no blanks: equal values give equal text; NaN is refused."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
