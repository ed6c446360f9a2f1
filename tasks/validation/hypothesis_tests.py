"""Transfer: whether the claim of a study holds at larger sizes, test by test, and how it changes.

A claim is "the recommended mixture is better than this baseline, at this size". Each has a
one-sided paired test; since several are made at once, their probabilities are corrected after Holm
(1979) before any is said to have held. Intervals are not corrected: they belong to one size and one
baseline each. Both are for new items too where the gains are; a trend is for new seeds alone.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cuvee.mixtures.errors import EvidenceError
from cuvee.mixtures.inference.diagnostics import holm
from cuvee.mixtures.recommendation import LEVEL
from cuvee.tasks.validation.paired import Confirmation, Judgement, PairedGain, covers_text


@dataclass(frozen=True)
class SizeClaim:
    """One claim at one size, and what its test said.

    Attributes:
        size: of the proxies.
        tokens: of each training.
        baseline: the mixture that the recommended one is compared with.
        gain: baseline minus recommended, bits per byte, paired by seed.
        corrected: one-sided probability after Holm's correction over its family.
        family: tests that were corrected together.
        level: coverage of the interval of the gain.
    """

    size: str
    tokens: int
    baseline: str
    gain: PairedGain
    corrected: float
    family: int
    level: float = LEVEL

    @property
    def held(self) -> bool:
        """Whether the gain is above zero beyond chance, corrected for the other claims."""
        return self.gain.gain > 0 and self.corrected <= self.alpha

    @property
    def alpha(self) -> float:
        """Chance of a false claim that is accepted: one tail of the interval."""
        return (1 - self.level) / 2

    @property
    def judgment(self) -> str:
        """What may be said of the gain."""
        if self.held:
            return Judgement.BETTER
        if self.gain.judgment is Judgement.BETTER:
            return f"better by itself, but not when corrected for {self.family} tests"
        return self.gain.judgment


@dataclass(frozen=True)
class GainTrend:
    """How a gain changes with size.

    Attributes:
        baseline: the mixture that the gain is over.
        change: of the gain for ten times the training FLOPs, bits per byte, one slope per seed.
        sizes: how many sizes it runs over.
    """

    baseline: str
    change: PairedGain
    sizes: int

    @property
    def judgment(self) -> str:
        """What may be said of the trend."""
        return {
            Judgement.BETTER: "grows with size",
            Judgement.WORSE: "shrinks with size",
            Judgement.NOISE: "no trend beyond the noise",
        }[self.change.judgment]


@dataclass(frozen=True)
class LargerSizeTests:
    """A confirmation at larger sizes.

    Attributes:
        steps: one confirmation per size, the cheapest first; the study's own is not among them.
        claims: every claim at every one of these sizes, sizes first.
        trends: of the gain over each baseline, the study's own size included where it is known.
        lost: a sentence for each size of which nothing can be said.
    """

    steps: tuple[Confirmation, ...]
    claims: tuple[SizeClaim, ...]
    trends: tuple[GainTrend, ...] = ()
    lost: tuple[str, ...] = ()

    def claims_at(self, step: Confirmation) -> tuple[SizeClaim, ...]:
        """The claims of one size."""
        place = step.size, step.tokens
        return tuple(claim for claim in self.claims if (claim.size, claim.tokens) == place)

    def held_at(self, step: Confirmation) -> bool:
        """Whether all that the recommended mixture claims to beat was beaten at one size."""
        own = {claim.baseline: claim.held for claim in self.claims_at(step)}
        return step.complete and all(own[name] for name in step.claimed)

    def statement(self, step: Confirmation) -> str:
        """What the runs of one size say of the claim, in words."""
        here = self.claims_at(step)
        parts = [
            f"against {c.baseline} {c.judgment} ({c.gain.gain:+.4f}, {c.gain.low:+.4f} to "
            f"{c.gain.high:+.4f}, corrected p {c.corrected:.2g})"
            for c in here
        ]
        parts += [f"against {name} nothing can be said, too few pairs" for name in step.unpaired]
        judged = "the claim held" if self.held_at(step) else "the claim was not shown"
        if any(c.gain.high < 0 for c in here if c.baseline in step.claimed):
            judged = "the claim failed"
        holds = f", for {covers_text(c.gain for c in here)}" if here else ""
        return f"At {step.size} and {step.tokens:,} tokens {judged}{holds}: {'; '.join(parts)}."


def larger_size_tests(
    steps: Sequence[Confirmation], own: Confirmation | None = None, lost: Sequence[str] = ()
) -> LargerSizeTests:
    """Test every claim at every size, and follow the gains over sizes.

    Args:
        steps: one confirmation per larger size.
        own: the confirmation at the study's own size, for the trends.
        lost: sizes of which nothing can be said, a sentence each.

    Raises:
        EvidenceError: no size, or one size twice.
    """
    places = [(step.size, step.tokens) for step in steps]
    if not places or len(set(places)) < len(places):
        raise EvidenceError(f"a confirmation needs sizes, each once; got {places or 'none'}")
    ordered = tuple(sorted(steps, key=lambda step: step.flops))
    pairs = [(step, name) for step in ordered for name in step.objective]
    claims: dict[tuple[str, int, str], SizeClaim] = {}
    for claimed in (True, False):  # what is claimed, and what only stands beside it
        family = [(s, name) for s, name in pairs if (name in s.claimed) is claimed]
        corrected = holm([s.objective[name].p for s, name in family])
        for (s, name), p in zip(family, corrected, strict=True):
            gain = s.objective[name]
            claims[s.size, s.tokens, name] = SizeClaim(
                s.size, s.tokens, name, gain, p, len(family), s.level
            )
    tested = tuple(claims[s.size, s.tokens, name] for s, name in pairs)
    every = ((own,) if own is not None else ()) + ordered
    names = dict.fromkeys(name for step in ordered for name in step.objective)
    found = (gain_trend([step for step in every if name in step.objective], name) for name in names)
    return LargerSizeTests(ordered, tested, tuple(t for t in found if t is not None), tuple(lost))


def gain_trend(steps: Sequence[Confirmation], baseline: str) -> GainTrend | None:
    """The change of a gain over sizes: a slope per seed, and their mean with its interval.

    Runs of one seed share their order of data at all sizes, so a seed is what is independent here:
    each gives one least-squares slope of its gain on log10 of the training FLOPs.

    Returns:
        None with fewer than two sizes, or fewer than two seeds that finished at all of them.
    """
    sizes = np.array([math.log10(step.flops) for step in steps if step.flops > 0])
    if len(sizes) < max(2, len(steps)) or np.ptp(sizes) == 0:
        return None
    gains = [step.differences(baseline) for step in steps]
    seeds = sorted(set.intersection(*(set(row) for row in gains)))
    if len(seeds) < 2:
        return None
    x = sizes - sizes.mean()
    slopes = [float(x @ np.array([row[s] for row in gains]) / (x @ x)) for s in seeds]
    change = PairedGain.of("change per tenfold FLOPs", slopes)
    return GainTrend(baseline, change, len(steps))
