"""Exports: a recommendation in the syntax of the trainer that will consume it.

A format is one file here: a frozen dataclass under `@register("export")` whose fields are its
options and whose `files` is a pure function from an `ExportSpec` to file contents. Shares of a
recommendation are shares of tokens. A format says in `unit` what its trainer takes a weight for,
and converts; what its trainer cannot express it refuses, with the way out.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Protocol

from cuvee.mixtures import registry
from cuvee.mixtures.errors import ExportError
from cuvee.tasks.export import delivery
from cuvee.tasks.export.specification import DOCUMENTS, SEQUENCES, TOKENS, ExportSpec

__all__ = ["DOCUMENTS", "KIND", "SEQUENCES", "TOKENS", "ExportFormat", "ExportSpec"]
KIND = "export"
RUN = ("the run",)  # what lacks something that is no domain's

registry.admit(KIND, __name__, "ExportFormat")


class ExportFormat(Protocol):
    """A trainer's syntax.

    Attributes:
        name: in recipes.
        unit: what the trainer takes a weight for.
        staged: whether its syntax has stages.
        needs: of "paths" (one or more of every domain), "path" (exactly one), "tokens",
            "sequence", "counts" (tokens that exist), "documents", "filled" (a domain that fills
            no sequence has nothing to give).
    """

    name: ClassVar[str]
    staged: ClassVar[bool]

    @property
    def unit(self) -> str: ...

    @property
    def needs(self) -> frozenset[str]: ...

    def delivered(self, spec: ExportSpec) -> dict[str, float]:
        """Tokens that the trainer delivers of each domain over the whole run, by its own rounding.

        Shares where the run's length is not known, as in `ExportSpec.wanted`.
        """
        ...

    def files(self, spec: ExportSpec) -> dict[str, str]:
        """File name -> content."""
        ...


def format_names() -> tuple[str, ...]:
    """The formats that exist."""
    return registry.names(KIND)


def build_format(name: str, options: Mapping[str, Any] | None = None) -> ExportFormat:
    """A format with its options.

    Raises:
        UnknownName: unknown format or option, with a suggestion.
    """
    made: ExportFormat = registry.build(KIND, {**(options or {}), "name": name})
    return made


def render_export(form: ExportFormat, spec: ExportSpec) -> dict[str, str]:
    """A specification in a format: file name -> content.

    Raises:
        ExportError: the trainer cannot express it or would deliver something else, or something
            that it must know is missing.
    """
    if len(spec.stages) > 1 and not form.staged:
        raise ExportError(
            f"{form.name} has no stages, and the recommendation has {len(spec.stages)}: export "
            "one at a time with --stage N, or choose a format that has them"
        )
    for need in sorted(form.needs):
        for one in (*_IMPLIED.get(need, ()), need):
            _check_need(form.name, one, spec)
    if spec.tokens and spec.sequence and not spec.samples and form.unit == SEQUENCES:
        raise ExportError(
            f"{form.name} counts in sequences, and the run of {spec.tokens:,} tokens is shorter "
            f"than one of {spec.sequence:,}: raise export.tokens, or lower export.sequence_length"
        )
    held = delivery_terms(spec, form.unit, filled="filled" in form.needs)
    delivery.check_delivery(form.name, held, form.delivered(spec))
    return form.files(spec)


def delivery_terms(spec: ExportSpec, unit: str, *, filled: bool = False) -> delivery.DeliveryTerms:
    """What the delivery of a specification is held to by a trainer that counts in a unit.

    Rounding may cost one sequence; where its length is not known and documents are counted, half a
    document. Where each domain is packed alone (`filled`), what fills no sequence is not read.
    """
    slack, exist = dict.fromkeys(spec.shares, float(spec.sequence or 0)), {}
    for domain in spec.domains:
        exist[domain.name] = float(domain.tokens)
        if spec.sequence and filled:
            exist[domain.name] -= domain.tokens % spec.sequence
        if not spec.sequence and unit == DOCUMENTS and domain.name in slack:
            slack[domain.name] = domain.tokens / domain.documents / 2
    limits = {n: cap * exist[n] for n, cap in spec.caps.items()} if spec.counted else {}
    if not spec.tokens:
        return delivery.DeliveryTerms(spec.wanted)
    return delivery.DeliveryTerms(spec.wanted, slack, limits)


def _check_need(form: str, need: str, spec: ExportSpec) -> None:
    lacks, sentence = _NEEDS[need]
    lacking = lacks(spec)
    if lacking:
        raise ExportError(
            sentence.format(
                form=form,
                names=", ".join(lacking),
                first=lacking[0],
                exist={domain.name: domain.tokens for domain in spec.domains}.get(lacking[0], 0),
                sequence=spec.sequence or 0,
            )
        )


def _fill_no_sequence(spec: ExportSpec) -> list[str]:
    length = spec.sequence if spec.sequence and spec.counted else 0
    return [d.name for d in spec.domains if d.name in spec.shares and d.tokens < length]


_IMPLIED = {  # what is asked for before
    "path": ("paths", "whole"),
    "paths": ("whole",),
    "counts": ("tokens",),
}
_NEEDS: dict[str, tuple[Callable[[ExportSpec], Sequence[str]], str]] = {  # what lacks it, and why
    "paths": (
        lambda spec: [name for name in spec.shares if not spec.paths.get(name)],
        "{form} needs to know where the data lies, and export.paths names nothing for {names}: add "
        "`{first}: <path or URL>` there",
    ),
    "path": (
        lambda spec: [name for name in spec.shares if len(spec.paths[name]) > 1],
        "{form} takes one path for a weight, and export.paths gives several for {names}: merge "
        "them, or make them domains of their own",
    ),
    "whole": (
        lambda spec: [n for n, one in spec.sources.items() if one.own and one.sample],
        "{form} would read the sample of {first} that was studied, again and again, where the "
        "recipe's `tokens` says how much there is: name all of it in export.paths.{first}",
    ),
    "tokens": (
        lambda spec: () if spec.tokens else RUN,
        "{form} needs the tokens of the run: set export.tokens or full_scale.tokens",
    ),
    "sequence": (
        lambda spec: () if spec.sequence else RUN,
        "{form} counts in sequences here: set export.sequence_length to the trainer's, in tokens",
    ),
    "counts": (
        lambda spec: () if spec.counted else RUN,
        "{form} must know how often each domain repeats, and the tables give no tokens: set "
        "tables.token_counts",
    ),
    "documents": (
        lambda spec: () if spec.documented else RUN,
        "{form} weighs documents, and of domains that come from tables their length is not known: "
        "use a format that weighs tokens",
    ),
    "filled": (
        _fill_no_sequence,
        "{first} has {exist:,} tokens, which fill no sequence of {sequence:,}, and {form} packs "
        "each domain alone: lower export.sequence_length, or merge the domain with another",
    ),
}


SAMPLES = {"packed": SEQUENCES, "documents": DOCUMENTS}  # what shards may have been written as


@dataclass(frozen=True)
class SampleShards:
    """What formats of shards have in common, whose samples are sequences or documents.

    Attributes:
        samples: what a sample is: "packed" sequences, or "documents".
    """

    name: ClassVar[str]

    samples: Annotated[str, Literal[tuple(SAMPLES)]] = "packed"

    def __post_init__(self) -> None:
        if self.samples not in SAMPLES:
            allowed = " or ".join(SAMPLES)
            raise ExportError(f"{self.name}.samples is {allowed}; got {self.samples!r}")

    @property
    def unit(self) -> str:
        return SAMPLES[self.samples]
