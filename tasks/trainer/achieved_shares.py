"""What the full run drew against what was recommended and exported, and why they differ.

Counts are held to what exports are held to: 1 % of a domain, or one sequence where that is more.
Where they are off, each mistake that people make is applied to the recommendation, and those that
give what was drawn are told as its likely causes.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np

from cuvee.mixtures.domains import Array
from cuvee.mixtures.errors import DataError
from cuvee.tasks.export import ExportSpec
from cuvee.tasks.export.delivery import MORE, OFF
from cuvee.tasks.trainer.drawn_tokens import DrawnTokens

LOOSE = 2.0  # how much farther than OFF a likely cause may be: documents differ in length
RANDOM = 4.0  # standard deviations of what is drawn at random
TOLD, STAGES = 3, 5  # causes, the likeliest first; stages up to which every order is tried
Schedule = Sequence[tuple[float, Array]]  # share of the run, shares of tokens (K,)


@dataclass(frozen=True)
class AchievedDomain:
    """A domain over the run or a stage: tokens, passes over it, and whether it is off."""

    name: str
    recommended: float
    exported: float | None
    drawn: float
    epochs: float | None
    off: bool


@dataclass(frozen=True)
class AchievedShares:
    """The comparison.

    Attributes:
        tokens: drawn in all.
        target: of the recommendation; 0 where unknown.
        domains: over the whole run, as far as it went.
        stages: the same by stage; none where there is one, or counts have no steps.
        differences: beyond rounding, in sentences.
        causes: that would give what was drawn, the likeliest first.
    """

    tokens: float
    target: int
    domains: tuple[AchievedDomain, ...]
    stages: tuple[tuple[AchievedDomain, ...], ...]
    differences: tuple[str, ...]
    causes: tuple[str, ...]


@dataclass(frozen=True)
class _Span:
    """A part of the run: its place, what was drawn there (K,), and how coarse counts are."""

    label: str
    begin: float
    end: float
    drawn: Array
    slack: float

    def planned(self, plan: Schedule, budget: float) -> Array:
        """Tokens (K,) that a schedule draws in this part; its last stage does not end."""
        found, begin = np.zeros(len(self.drawn)), 0.0
        for i, (part, shares) in enumerate(plan):
            end = np.inf if i == len(plan) - 1 else begin + part * budget
            found += shares * max(0.0, min(end, self.end) - max(begin, self.begin))
            begin = end
        return found

    def off(self, wanted: Array, loose: float = 1.0) -> Array:
        """How far each domain is off, in what is allowed (K,); more than 1 is too much."""
        lost = (self.drawn == 0) & (wanted > self.slack)
        allowed = np.maximum(loose * OFF * wanted, self.slack) * (1 + 1e-9)
        return np.where(lost, np.inf, abs(self.drawn - wanted) / allowed)


def compare_drawn(
    spec: ExportSpec,
    drawn: DrawnTokens,
    exported: Mapping[str, float] | None = None,
    others: Mapping[str, Mapping[str, float]] | None = None,
) -> AchievedShares:
    """Hold what was drawn to a recommendation.

    Args:
        spec: the recommendation as it was exported.
        drawn: by the trainer.
        exported: tokens or shares that the export delivers, by domain.
        others: mixtures that may have been trained by mistake, by what they are called.

    Raises:
        DataError: nothing was drawn.
    """
    names = [domain.name for domain in spec.domains]
    plan = [(s.share, _shares(spec.stage_shares(i), names)) for i, s in enumerate(spec.stages)]
    total = float(sum(drawn.points[-1].values())) if drawn.points else 0.0
    if not total > 0:
        raise DataError(f"nothing was drawn at all: {drawn.said}")
    spans, budget = _spans(spec, drawn, names), float(spec.tokens or total)
    short = total < (1 - OFF) * budget  # an export says what all its stages deliver together
    given = _shares(exported, names) if exported and not (short and len(plan) > 1) else None
    tables = [_domains(spec, one, one.planned(plan, budget), given) for one in spans]
    found = []
    if abs(total - budget) > max(OFF * budget, spec.batch_tokens):
        how = "ended early" if short else "went on for longer"
        found.append(f"the run {how}: {total:,.0f} of {spec.tokens:,} tokens were drawn")
    for span, table in zip(spans, tables, strict=True):
        part = span.end - span.begin
        found += [
            f"{span.label}{one.name}: {one.drawn / part:.2%} drawn ({one.drawn:,.0f} tokens), "
            f"{one.recommended / part:.2%} recommended"
            + (f", {one.exported / part:.2%} exported" if one.exported is not None else "")
            for one in table
            if one.off
        ]
    found += [
        f"{one.name}: {one.epochs:.2f} passes, more often than constraints.epochs allows"
        for one, domain in zip(tables[0], spec.domains, strict=True)
        if one.epochs is not None
        and one.name in spec.caps
        and one.drawn > MORE * spec.caps[one.name] * domain.tokens + spans[0].slack
    ]
    search = _Search(spec, plan, budget, spans, others or {})
    causes = search.causes() if found else ()
    return AchievedShares(total, spec.tokens, tables[0], tuple(tables[1:]), tuple(found), causes)


def _shares(given: Mapping[str, float], names: Sequence[str]) -> Array:
    return _normal(np.array([float(given.get(name) or 0.0) for name in names]))


def _normal(weights: Array) -> Array:
    return np.asarray(weights / max(weights.sum(), 1e-300))


def _spans(spec: ExportSpec, drawn: DrawnTokens, names: Sequence[str]) -> list[_Span]:
    """The whole run, and each stage that it reached where counts have steps."""
    so_far = np.array([[0.0] * len(names), *([p.get(n, 0.0) for n in names] for p in drawn.points)])
    at, least = so_far.sum(axis=1), max(float(spec.sequence or 1), drawn.coarse)
    total = float(at[-1])

    def until(place: float) -> tuple[Array, float]:
        """Tokens by domain up to a place, and how coarse the counts are there."""
        after = min(int(np.searchsorted(at, place)), len(at) - 1)
        coarse = float(at[after] - at[after - 1]) if at[after] > place else 0.0
        return np.array([np.interp(place, at, column) for column in so_far.T]), coarse

    spans = [_Span("", 0.0, total, so_far[-1], least)]
    if len(spec.stages) > 1 and len(drawn.points) > 1 and spec.tokens:
        for i, begin in enumerate(spec.starts):
            end = min(total, spec.starts[i + 1]) if i + 1 < len(spec.starts) else total
            (before, a), (after, b) = until(begin), until(end)
            if end > begin:
                spans.append(_Span(f"stage {i + 1}, ", begin, end, after - before, least + a + b))
    return spans


def _domains(
    spec: ExportSpec, span: _Span, wanted: Array, given: Array | None
) -> tuple[AchievedDomain, ...]:
    exported = None if given is None or span.label else given * span.drawn.sum()
    off = span.off(wanted) > 1
    if exported is not None:
        off |= span.off(exported) > 1
    rows = zip(spec.domains, wanted, span.drawn, off, strict=True)
    return tuple(
        AchievedDomain(
            domain.name, float(want), float(exported[i]) if exported is not None else None,
            float(drawn), float(drawn) / domain.tokens if spec.counted else None, bool(differs),
        ) for i, (domain, want, drawn, differs) in enumerate(rows)
    )  # fmt: skip


@dataclass(frozen=True)
class _Search:
    """The search for what would give what was drawn."""

    spec: ExportSpec
    plan: Schedule
    budget: float
    spans: Sequence[_Span]
    others: Mapping[str, Mapping[str, float]]

    def distance(self, plan: Schedule) -> float:
        """How far off a schedule is, at the worst domain of the worst part."""
        return max(float(s.off(s.planned(plan, self.budget), LOOSE).max()) for s in self.spans)

    def causes(self) -> tuple[str, ...]:
        whole, planned = self.spans[0], self.distance(self.plan)
        wanted = whole.planned(self.plan, self.budget)
        tried = sorted((self.distance(made), said) for said, made in self.mistakes(whole, wanted))
        found = [said for off, said in tried if off <= 1 and off < planned]
        pairs = zip(self.spec.domains, wanted, strict=True)
        ran = [d.name for d, drawn in pairs if abs(drawn - d.tokens) <= OFF * d.tokens]
        if ran and self.spec.counted and planned <= 1 and whole.end < (1 - OFF) * self.budget:
            found.append(f"the stream ended as {', '.join(ran)} ran out, which was not repeated")
        spread = np.sqrt(wanted * (1 - wanted / whole.end) * whole.slack)
        if not found and planned > 1 and (abs(whole.drawn - wanted) <= RANDOM * spread).all():
            found.append("the trainer draws at random, and a run as short as this strays as far")
        return tuple(dict.fromkeys(found))[:TOLD]

    def mistakes(self, whole: _Span, wanted: Array) -> Iterator[tuple[str, Schedule]]:
        """Mistakes, and what each makes of the plan."""

        def each(change: Callable[[Array], Any]) -> Schedule:
            return [(part, _normal(np.asarray(change(w), float))) for part, w in self.plan]

        domains = self.spec.domains
        names = [domain.name for domain in domains]
        tokens = np.array([float(domain.tokens) for domain in domains])
        if self.spec.documented:
            length = tokens / np.array([domain.documents for domain in domains])
            density = np.array([domain.bytes for domain in domains]) / tokens
            yield "shares of tokens were taken for shares of documents", each(lambda w: w * length)
            yield "shares of documents were taken for shares of tokens", each(lambda w: w / length)
            yield "shares of tokens were taken for shares of bytes", each(lambda w: w / density)
            yield "no weight had effect: documents came in turn", each(lambda w: (w > 0) * length)
        yield "no weight had effect: domains came in turn", each(lambda w: 1.0 * (w > 0))
        yield "no weight had effect: domains came by their size", each(lambda w: (w > 0) * tokens)
        yield "all domains of the study were drawn by their size", each(lambda w: tokens)
        yield "shares were taken for passes over each domain", each(lambda w: w * tokens)
        lost = [n for n, w, d in zip(names, wanted, whole.drawn, strict=True) if w and not d]
        if lost:
            said = f"{', '.join(lost)} was not drawn at all, and others took its place: the trainer"
            said += " was not told of it, or its path leads to nothing"
            yield said, each(lambda w: w * (whole.drawn > 0))
        if self.spec.counted:
            yield from _ran_out(names, tokens, wanted)
        drawn, place = np.flatnonzero(wanted), np.arange(len(names))
        place[sorted(drawn, key=lambda i: names[i])] = drawn
        yield "weights went by place to domains in order of their names", each(lambda w: w[place])
        pair, swap = np.flatnonzero(whole.off(wanted) > 1), np.arange(len(names))
        if len(pair) == 2:
            swap[pair] = pair[::-1]
            said = " and ".join(names[i] for i in pair)
            yield f"{said} were taken for each other", each(lambda w: w[swap])
        for called, shares in self.others.items():
            yield f"{called} was trained", [(1.0, _shares(shares, names))]
        if len(self.plan) > 1:
            yield "the mixture of the first stage was kept to the end", self.plan[:1]
            mean = np.sum([part * shares for part, shares in self.plan], axis=0)
            yield "the mean of all stages was drawn throughout", [(1.0, mean)]
        for order in permutations(range(len(self.plan))) if len(self.plan) <= STAGES else ():
            said = ", ".join(str(one + 1) for one in order)
            yield f"the stages came in the order {said}", [self.plan[one] for one in order]


def _ran_out(names: Sequence[str], tokens: Array, wanted: Array) -> Iterator[tuple[str, Schedule]]:
    """Domains that are read once, while the others take their place."""
    drawn, ended = wanted, np.zeros(len(names), dtype=bool)
    while (over := ~ended & (drawn > tokens)).any() and not (ended | over).all():
        ended |= over
        rest = _normal(np.where(ended, 0.0, wanted)) * (wanted.sum() - tokens[ended].sum())
        drawn = np.where(ended, tokens, rest)
    if ended.any():
        said = ", ".join(name for name, one in zip(names, ended, strict=True) if one)
        yield f"{said} ran out: read once, and others took its place", [(1.0, _normal(drawn))]
