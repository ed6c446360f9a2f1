"""Exports: a recommendation in the syntax of the trainer that will consume it.

A format is one file here: a frozen dataclass under `@register("export", name)` whose fields are its
options and whose `files` is a pure function from a `Blend` to file contents. Shares of a
recommendation are shares of tokens. A format says in `unit` what its trainer takes a weight for,
and converts; what its trainer cannot express it refuses, with the way out.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from mixtures import registry
from mixtures.domains import DomainSet
from mixtures.errors import ExportError
from mixtures.history import Stage

KIND = "export"
DIGITS = 12  # significant ones of a weight: sums stay within 1e-11 of one
TOKENS, DOCUMENTS, SEQUENCES = "tokens", "documents", "sequences of equal length"

registry.admit(KIND, __name__)


@dataclass(frozen=True)
class Blend:
    """What a trainer is told: which domains, in which shares, from where, and for how long.

    Attributes:
        name: of the study.
        domains: with the tokens, bytes and documents that exist, once.
        stages: shares of tokens over time, in the order of `domains`.
        tokens: of the whole run; 0 where unknown.
        paths: domain -> where its data lies; a trainer may take one path or several.
        seed: of the trainer's sampling.
        sequence: tokens in a training sequence, or None.
        batch: sequences in a step, or None.
        counted: whether the domains' tokens are counts; else they are relative sizes only.
        documented: whether the domains' documents and bytes are counts.
    """

    name: str
    domains: DomainSet
    stages: tuple[Stage, ...]
    tokens: int
    paths: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    seed: int = 42
    sequence: int | None = None
    batch: int | None = None
    counted: bool = True
    documented: bool = True

    def __post_init__(self) -> None:
        for name in self.paths:
            self.domains.index(name)  # an unknown name is refused, with those that exist

    @property
    def shares(self) -> dict[str, float]:
        """Shares of tokens over the whole run, of the domains that are drawn from at all."""
        totals = {
            name: math.fsum(stage.weights[i] * stage.share for stage in self.stages)
            for i, name in enumerate(self.domains.names)
        }
        return _tidy({name: w for name, w in totals.items() if self._drawn(w)})

    @property
    def dropped(self) -> tuple[str, ...]:
        """Domains of which not one token is drawn: trainers refuse weights of zero."""
        kept = self.shares
        return tuple(name for name in self.domains.names if name not in kept)

    def _drawn(self, share: float) -> bool:
        return share > 0 and (not self.tokens or share * self.tokens >= 1)

    def stage_shares(self, index: int) -> dict[str, float]:
        """Shares of tokens in a stage (from 0), of the domains it draws from."""
        weights = dict(zip(self.domains.names, self.stages[index].weights, strict=True))
        return _tidy({n: w for n, w in weights.items() if w > 0 and n in self.shares})

    def document_shares(self, shares: Mapping[str, float]) -> dict[str, float]:
        """Shares of documents that give shares of tokens: each over its mean document's length."""
        lengths = {d.name: d.tokens / d.documents for d in self.domains}
        return _tidy({name: share / lengths[name] for name, share in shares.items()})

    @property
    def epochs(self) -> dict[str, float]:
        """Passes over each drawn domain; empty where tokens are not known."""
        if not (self.counted and self.tokens):
            return {}
        exist = {domain.name: domain.tokens for domain in self.domains}
        return {name: share * self.tokens / exist[name] for name, share in self.shares.items()}

    @property
    def documents(self) -> float:
        """Documents that are drawn in all, at each domain's mean length."""
        lengths = {d.name: d.tokens / d.documents for d in self.domains}
        return math.fsum(w * self.tokens / lengths[n] for n, w in self.shares.items())

    @property
    def starts(self) -> tuple[int, ...]:
        """Tokens seen before each stage begins."""
        before = [math.fsum(s.share for s in self.stages[:i]) for i in range(len(self.stages))]
        return tuple(round(part * self.tokens) for part in before)

    def steps(self) -> tuple[int, ...]:
        """Training steps before each stage begins.

        Raises:
            ExportError: a size that this needs is not given, or a stage is shorter than a step.
        """
        return self._begins({"sequence_length": self.sequence, "batch": self.batch}, 1)

    def sequences(self, multiple: int) -> tuple[int, ...]:
        """Sequences before each stage begins, to the nearest multiple of a number; as `steps`."""
        return self._begins({"sequence_length": self.sequence}, multiple)

    def _begins(self, sizes: Mapping[str, int | None], multiple: int) -> tuple[int, ...]:
        if len(self.stages) == 1:
            return (0,)
        missing = [name for name, n in {"tokens": self.tokens or None, **sizes}.items() if not n]
        if missing:
            raise ExportError(
                "where stages begin is not counted in tokens by this trainer: set "
                f"{' and '.join(f'export.{name}' for name in missing)}, or export one stage at a "
                "time with --stage N"
            )
        unit = math.prod(n for n in sizes.values() if n) * multiple
        begins = [multiple * round(tokens / unit) for tokens in self.starts]
        last = multiple * (self.tokens // unit)
        if any(b <= a for a, b in zip(begins, [*begins[1:], last], strict=True)):
            raise ExportError(
                f"a stage is shorter than {unit:,} tokens, the least after which this trainer can "
                "change the mixture: join stages, or lengthen the run"
            )
        return tuple(begins)

    def alone(self, number: int) -> "Blend":
        """One stage (from 1) as a run of its own.

        Raises:
            ExportError: there is no such stage.
        """
        if not 1 <= number <= len(self.stages):
            raise ExportError(
                f"there is no stage {number}: the recommendation has {len(self.stages)}, "
                "counted from 1"
            )
        stage = self.stages[number - 1]
        return dataclasses.replace(
            self,
            stages=(Stage(stage.weights),),
            tokens=round(stage.share * self.tokens),
        )

    def path(self, name: str) -> str:
        """The only path of a domain."""
        return self.paths[name][0]


class Format(Protocol):
    """A trainer's syntax.

    Attributes:
        name: in recipes; set by `register`.
        unit: what the trainer takes a weight for.
        staged: whether its syntax has stages.
        needs: of "paths" (one or more of every domain), "path" (exactly one), "tokens",
            "sequence", "counts" (tokens that exist), "documents".
    """

    name: ClassVar[str]
    staged: ClassVar[bool]

    @property
    def unit(self) -> str: ...

    @property
    def needs(self) -> frozenset[str]: ...

    def files(self, blend: Blend) -> dict[str, str]:
        """File name -> content."""
        ...


def names() -> tuple[str, ...]:
    """The formats that exist."""
    return registry.names(KIND)


def build(name: str, options: Mapping[str, Any] | None = None) -> Format:
    """A format with its options.

    Raises:
        UnknownName: unknown format or option, with a suggestion.
    """
    made: Format = registry.build(KIND, {**(options or {}), "name": name})
    return made


def render(form: Format, blend: Blend) -> dict[str, str]:
    """A blend in a format: file name -> content.

    Raises:
        ExportError: the trainer cannot express it, or something it must know is missing.
    """
    if len(blend.stages) > 1 and not form.staged:
        raise ExportError(
            f"{form.name} has no stages, and the recommendation has {len(blend.stages)}: export "
            "one at a time with --stage N, or choose a format that has them"
        )
    for need in sorted(form.needs):
        _CHECKS[need](form, blend)
    return form.files(blend)


def _tidy(shares: Mapping[str, float]) -> dict[str, float]:
    total = math.fsum(shares.values())
    if not total > 0:
        raise ExportError("nothing is drawn: every share is below one token of the target budget")
    return {name: float(f"{value / total:.{DIGITS}g}") for name, value in shares.items()}


def _check_paths(form: Format, blend: Blend) -> None:
    missing = [name for name in blend.shares if not blend.paths.get(name)]
    if missing:
        raise ExportError(
            f"{form.name} needs to know where the data lies, and export.paths names nothing for "
            f"{', '.join(missing)}: add `{missing[0]}: <path or URL>` there"
        )


def _check_path(form: Format, blend: Blend) -> None:
    _check_paths(form, blend)
    several = [name for name in blend.shares if len(blend.paths[name]) > 1]
    if several:
        raise ExportError(
            f"{form.name} takes one path for a weight, and export.paths gives several for "
            f"{', '.join(several)}: merge them, or make them domains of their own"
        )


def _check_tokens(form: Format, blend: Blend) -> None:
    if not blend.tokens:
        raise ExportError(
            f"{form.name} needs the tokens of the run: set export.tokens or full_scale.tokens"
        )


def _check_sequence(form: Format, blend: Blend) -> None:
    if not blend.sequence:
        raise ExportError(
            f"{form.name} counts in sequences here: set export.sequence_length to the trainer's, "
            "in tokens"
        )


def _check_counts(form: Format, blend: Blend) -> None:
    _check_tokens(form, blend)
    if not blend.counted:
        raise ExportError(
            f"{form.name} must know how often each domain repeats, and the tables give no tokens: "
            "set tables.token_counts"
        )


def _check_documents(form: Format, blend: Blend) -> None:
    if not blend.documented:
        raise ExportError(
            f"{form.name} weighs documents, and of domains that come from tables their length is "
            "not known: use a format that weighs tokens"
        )


_CHECKS = {
    "paths": _check_paths,
    "path": _check_path,
    "tokens": _check_tokens,
    "sequence": _check_sequence,
    "counts": _check_counts,
    "documents": _check_documents,
}


def choice(form: str, option: str, value: str, allowed: Sequence[str]) -> None:
    """Refuse an option that is none of those allowed.

    Raises:
        ExportError: says which are.
    """
    if value not in allowed:
        raise ExportError(f"{form}.{option} is {' or '.join(allowed)}; got {value!r}")
