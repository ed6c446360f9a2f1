"""What a trainer is told: domains, shares of tokens, places, and sizes of the run.

Shares of a recommendation are shares of tokens; here they become documents, sequences and steps.
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from cuvee.mixtures.domains import DomainSet
from cuvee.mixtures.errors import ExportError
from cuvee.mixtures.runs.run_spec import Stage
from cuvee.proxies.data.sources.text_files import Files
from cuvee.tasks.export.delivery import OFF, whole_units

TOKENS, DOCUMENTS, SEQUENCES = "tokens", "documents", "sequences of equal length"
DIGITS = 12  # significant ones of a weight: sums stay within 1e-11 of one


@dataclass(frozen=True)
class Units:
    """A specification in what a trainer draws: in documents, or in sequences of one length.

    Attributes:
        size: tokens of one unit by domain; of documents, of the mean one.
        shares: of units over the whole run.
        wanted: recommended units by domain.
        count: units of the whole run; 0 where that is not known.
        exist: units that a domain has.
    """

    size: Mapping[str, float]
    shares: Mapping[str, float]
    wanted: Mapping[str, float]
    count: int
    exist: Mapping[str, int]

    def tokens(self, counts: Mapping[str, float]) -> dict[str, float]:
        """Units by domain as tokens."""
        return {name: count * self.size[name] for name, count in counts.items()}

    def delivered(self) -> dict[str, float]:
        """Tokens by domain where a trainer rounds a share of all units down or up."""
        return self.tokens(whole_units(self.shares, self.count, self.wanted))

    def rounded(self) -> dict[str, int]:
        """Units of each domain to the nearest number; zero where that leaves none."""
        return {name: round(count) for name, count in self.wanted.items()}

    def readings(self) -> dict[str, list[int]]:
        """Units of each reading of a domain: all of it as often as that goes, then what is left."""
        found = {}
        for name, count in self.rounded().items():
            passes, rest = divmod(count, self.exist[name])
            found[name] = [self.exist[name]] * passes + [rest] * (rest > 0)
        return found

    def epochs(self) -> dict[str, float]:
        """How often each domain is read, so that whole units come of it."""
        return {name: count / self.exist[name] for name, count in self.rounded().items()}


@dataclass(frozen=True)
class StudiedText:
    """How the study read a domain, for trainers that may read it again.

    Attributes:
        files: its text; `export.paths` may name these files, or copies elsewhere.
        own: whether it names these files, and no copies.
        dataset: keywords by which `load_dataset` finds them; empty where they are no data set.
        tokens: the format of token files; "" for text.
        sample: whether they are a sample of what the recipe says that the domain has.
    """

    files: Files = field(default_factory=lambda: Files(()))
    own: bool = False
    dataset: Mapping[str, Any] = field(default_factory=dict)
    tokens: str = ""
    sample: bool = False


@dataclass(frozen=True)
class ExportSpec:
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
        sources: domain -> how the study read it.
        caps: domain -> most passes over it.
        validation: domain -> its held-out data, which is not trained on.
        place: the field of a recipe that names `paths`.
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
    sources: Mapping[str, StudiedText] = field(default_factory=dict)
    caps: Mapping[str, float] = field(default_factory=dict)
    validation: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    place: str = "export.paths"

    def __post_init__(self) -> None:
        for name in (*self.paths, *self.validation):
            self.domains.index(name)  # an unknown name is refused, with those that exist
        if empty := [name for name, paths in self.validation.items() if not (paths and all(paths))]:
            raise ExportError(
                f"export.validation names nothing for {', '.join(empty)}: add `{empty[0]}: <path "
                "or URL>` there, or leave it out"
            )

    @cached_property
    def shares(self) -> dict[str, float]:
        """Shares of tokens over the whole run, of the domains that are drawn from at all.

        Trainers refuse weights of zero, so that a domain of which no token is drawn is left out.
        """
        totals = {
            name: math.fsum(stage.weights[i] * stage.share for stage in self.stages)
            for i, name in enumerate(self.domains.names)
        }
        return _tidy({name: w for name, w in totals.items() if self._drawn(w)})

    def _drawn(self, share: float) -> bool:
        return share > 0 and (not self.tokens or share * self.tokens >= 1)

    def stage_shares(self, index: int) -> dict[str, float]:
        """Shares of tokens in a stage (from 0), of the domains it draws from."""
        weights = dict(zip(self.domains.names, self.stages[index].weights, strict=True))
        return _tidy({n: w for n, w in weights.items() if w > 0 and n in self.shares})

    def document_shares(self, shares: Mapping[str, float]) -> dict[str, float]:
        """Shares of documents that give shares of tokens: each over its mean document's length."""
        lengths = self._document_lengths
        return _tidy({name: share / lengths[name] for name, share in shares.items()})

    @property
    def _document_lengths(self) -> dict[str, float]:
        return {d.name: d.tokens / d.documents for d in self.domains}

    @cached_property
    def documents(self) -> Units:
        """The whole run in documents."""
        size, exist = self._document_lengths, {d.name: d.documents for d in self.domains}
        wanted = {name: tokens / size[name] for name, tokens in self.wanted.items()}
        count = sum(map(round, wanted.values()))
        return Units(size, self.document_shares(self.shares), wanted, count, exist)

    @cached_property
    def sequences(self) -> Units:
        """The whole run in sequences of one length; of a token where it is not known."""
        length = self.sequence or 1
        exist = {d.name: d.tokens // length for d in self.domains}
        wanted = {name: tokens / length for name, tokens in self.wanted.items()}
        return Units(dict.fromkeys(exist, length), self.shares, wanted, self.samples, exist)

    @property
    def epochs(self) -> dict[str, float]:
        """Passes over each drawn domain; empty where tokens are not known."""
        if not (self.counted and self.tokens):
            return {}
        exist = {domain.name: domain.tokens for domain in self.domains}
        return {name: share * self.tokens / exist[name] for name, share in self.shares.items()}

    @property
    def wanted(self) -> dict[str, float]:
        """Recommended tokens by domain; shares where the run's length is not known."""
        return {name: share * (self.tokens or 1) for name, share in self.shares.items()}

    @property
    def samples(self) -> int:
        """Sequences of the whole run; 0 where that is not known."""
        return self.tokens // self.sequence if self.sequence else 0

    @property
    def batch_tokens(self) -> int:
        """Tokens of a step; of one sequence or token where sizes are not known."""
        return (self.sequence or 1) * (self.batch or 1)

    @property
    def whole_steps(self) -> int:
        """Steps of a run that a trainer does in whole steps: rounded down, so that caps hold.

        To the nearest number where rounding down would lose much of what a delivery may be off.
        """
        least = self.tokens // self.batch_tokens
        near = self.tokens - least * self.batch_tokens <= OFF / 2 * self.tokens
        return least if near else max(1, round(self.tokens / self.batch_tokens))

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
        if len(self.stages) == 1:
            return (0,)
        sizes = {"tokens": self.tokens, "sequence_length": self.sequence, "batch": self.batch}
        missing = [name for name, size in sizes.items() if not size]
        if missing:
            raise ExportError(
                "where stages begin is not counted in tokens by this trainer: set "
                f"{' and '.join(f'export.{name}' for name in missing)}, or export one stage at a "
                "time with --stage N"
            )
        unit = self.batch_tokens
        begins = [round(tokens / unit) for tokens in self.starts]
        last = self.tokens // unit
        if any(b <= a for a, b in zip(begins, [*begins[1:], last], strict=True)):
            raise ExportError(
                f"a stage is shorter than {unit:,} tokens, the least after which this trainer can "
                "change the mixture: join stages, or lengthen the run"
            )
        return tuple(begins)

    @property
    def held_out(self) -> "ExportSpec":
        """The validation sets in place of what is trained on, read as the study read it."""
        apart: dict[str, Any] = {"own": False, "dataset": {}, "sample": False}
        read = {name: dataclasses.replace(one, **apart) for name, one in self.sources.items()}
        held = dataclasses.replace(self, paths=self.validation, sources=read, validation={})
        return dataclasses.replace(held, place="export.validation")

    def in_units(self, unit: str) -> Units:
        """The whole run in documents, or in sequences."""
        return self.documents if unit == DOCUMENTS else self.sequences

    def stage_samples(self) -> list[tuple[dict[str, float], int]]:
        """Shares and sequences of each stage, in whole steps.

        Raises:
            ExportError: as `steps`.
        """
        begins = [step * (self.batch or 1) for step in self.steps()]
        ends = [*begins[1:], self.samples // (self.batch or 1) * (self.batch or 1)]
        parts = enumerate(zip(begins, ends, strict=True))
        return [(self.stage_shares(i), end - begin) for i, (begin, end) in parts]

    def alone(self, number: int) -> "ExportSpec":
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


def _tidy(shares: Mapping[str, float]) -> dict[str, float]:
    total = math.fsum(shares.values())
    if not total > 0:
        raise ExportError("nothing is drawn: every share is below one token of the target budget")
    return {name: float(f"{value / total:.{DIGITS}g}") for name, value in shares.items()}
