"""Exports: a recommendation in the syntax of the trainer that will consume it.

A format is one file here: a frozen dataclass under `@register("export", name)` whose fields are its
options and whose `files` is a pure function from a `Blend` to file contents. Shares of a
recommendation are shares of tokens. A format says in `unit` what its trainer takes a weight for,
and converts; what its trainer cannot express it refuses, with the way out.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol

from cuvee.mixtures import registry
from cuvee.mixtures.errors import ExportError
from cuvee.tasks.export import delivery
from cuvee.tasks.export.specification import Blend as Blend

KIND = "export"
TOKENS, DOCUMENTS, SEQUENCES = "tokens", "documents", "sequences of equal length"

registry.admit(KIND, __name__)


class Format(Protocol):
    """A trainer's syntax.

    Attributes:
        name: in recipes; set by `register`.
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

    def delivered(self, blend: Blend) -> dict[str, float]:
        """Tokens that the trainer delivers of each domain over the whole run, by its own rounding.

        Shares where the run's length is not known, as in `Blend.wanted`.
        """
        ...

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
        ExportError: the trainer cannot express it or would deliver something else, or something
            that it must know is missing.
    """
    if len(blend.stages) > 1 and not form.staged:
        raise ExportError(
            f"{form.name} has no stages, and the recommendation has {len(blend.stages)}: export "
            "one at a time with --stage N, or choose a format that has them"
        )
    for need in sorted(form.needs):
        _CHECKS[need](form, blend)
    if blend.tokens and blend.sequence and not blend.samples and form.unit == SEQUENCES:
        raise ExportError(
            f"{form.name} counts in sequences, and the run of {blend.tokens:,} tokens is shorter "
            f"than one of {blend.sequence:,}: raise export.tokens, or lower export.sequence_length"
        )
    held = terms(blend, form.unit, filled="filled" in form.needs)
    delivery.check(form.name, held, form.delivered(blend))
    return form.files(blend)


def terms(blend: Blend, unit: str, *, filled: bool = False) -> delivery.Terms:
    """What the delivery of a blend is held to by a trainer that counts in a unit.

    Rounding may cost one sequence; where its length is not known and documents are counted, half a
    document. Where each domain is packed alone (`filled`), what fills no sequence is not read.
    """
    slack, exist = dict.fromkeys(blend.shares, float(blend.sequence or 0)), {}
    for domain in blend.domains:
        exist[domain.name] = float(domain.tokens)
        if blend.sequence and filled:
            exist[domain.name] -= domain.tokens % blend.sequence
        if not blend.sequence and unit == DOCUMENTS and domain.name in slack:
            slack[domain.name] = domain.tokens / domain.documents / 2
    limits = {n: cap * exist[n] for n, cap in blend.caps.items()} if blend.counted else {}
    if not blend.tokens:
        return delivery.Terms(blend.wanted)
    return delivery.Terms(blend.wanted, slack, limits)


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


def _check_filled(form: Format, blend: Blend) -> None:
    if not (blend.sequence and blend.counted):
        return
    for domain in blend.domains:
        if domain.name in blend.shares and domain.tokens < blend.sequence:
            raise ExportError(
                f"{domain.name} has {domain.tokens:,} tokens, which fill no sequence of "
                f"{blend.sequence:,}, and {form.name} packs each domain alone: lower "
                "export.sequence_length, or merge the domain with another"
            )


_CHECKS = {
    "filled": _check_filled,
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
