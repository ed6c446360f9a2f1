"""What a trainer delivers over the whole budget, and whether it is what was recommended.

Trainers round: to whole documents, sequences, blocks and batches. Each format computes what its
trainer will deliver, by the trainer's own rule; here it is held to the recommendation. No domain is
off by more than one in a hundred, or one sequence where that is more; none is lost; none repeats
more often than its cap allows.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from cuvee.mixtures.errors import ExportError

OFF = 0.01  # of a domain's tokens
MORE = 1.001  # passes over a cap that are rounding
SURE = 2.0  # standard deviations of what is drawn at random that must lie within OFF
SIMULATED = 20_000  # samples up to which a greedy trainer is followed step by step


@dataclass(frozen=True)
class DeliveryTerms:
    """What a delivery is held to.

    Attributes:
        wanted: domain -> recommended tokens of the run; shares where its length is unknown.
        slack: tokens of one sequence by domain: what rounding may cost beyond `OFF`.
        limits: domain -> most tokens, its cap times what can be read; none: no cap.
    """

    wanted: Mapping[str, float]
    slack: Mapping[str, float] = field(default_factory=dict)
    limits: Mapping[str, float] = field(default_factory=dict)

    def allowed(self, name: str) -> float:
        """By how many tokens a domain may be off."""
        return max(OFF * self.wanted[name], self.slack.get(name, 0.0))

    def off(self, name: str, delivered: float) -> float:
        """How far a delivery is off, in what is allowed; infinite where a domain is lost."""
        return abs(delivered - self.wanted[name]) / self.allowed(name) if delivered else math.inf


def check_delivery(form: str, terms: DeliveryTerms, delivered: Mapping[str, float]) -> None:
    """Refuse a delivery that is not what was recommended.

    Raises:
        ExportError: names the worst domain, what it would get, and ways out.
    """
    off = {name: terms.off(name, delivered.get(name, 0.0)) for name in terms.wanted}
    worst = max(off, key=lambda name: off[name])
    if off[worst] > 1 + 1e-9:
        want, whole_run = terms.wanted[worst], sum(terms.wanted.values())
        raise ExportError(
            f"{form} would deliver {_amount(delivered.get(worst, 0.0))} of {worst} over the whole "
            f"run, and {_amount(want)} are recommended (share {want / whole_run:.3g}): it rounds "
            f"too coarsely for that. {WAYS_OUT}"
        )
    for name, most in terms.limits.items():
        if delivered.get(name, 0.0) > MORE * most + terms.slack.get(name, 0.0):
            raise ExportError(
                f"{form} would repeat {name} more often than the recipe's constraints.epochs "
                f"allows: it would deliver {_amount(delivered[name])}, and {_amount(most)} are the "
                f"most. Lower export.tokens, or bound its share from above"
            )


def check_noise(form: str, terms: DeliveryTerms, noise: Mapping[str, float]) -> None:
    """Refuse what a trainer draws at random and may well miss.

    Args:
        form: name of the format.
        terms: what the delivery is held to.
        noise: standard deviations, in tokens by domain.

    Raises:
        ExportError: names the worst domain.
    """
    name = max(noise, key=lambda n: noise[n] / max(terms.allowed(n), 1e-300))
    if SURE * noise[name] > terms.allowed(name):
        raise ExportError(
            f"{form} draws at random, and what it would deliver of {name} varies by "
            f"{noise[name] / terms.wanted[name]:.1%} (one standard deviation), where "
            f"{OFF:.0%} is allowed in all: the run is too short for it. {WAYS_OUT}"
        )


WAYS_OUT = (
    "Raise export.tokens, lower export.sequence_length or export.batch, bound the share from below "
    "or to zero in the recipe's constraints, or choose another format"
)


def _amount(tokens: float) -> str:
    return f"{tokens:,.0f} tokens" if tokens >= 10 or tokens == 0 else f"{tokens:.3g} tokens"


def whole_units(
    shares: Mapping[str, float], count: int, wanted: Mapping[str, float]
) -> dict[str, float]:
    """Units of each domain where a trainer rounds a share of `count` units down or up.

    Which of the two is not known: what is farther from `wanted` is told, and what may be rounded to
    none counts as none, whatever the seed would make of it.
    """
    drawn = {}
    for name, share in shares.items():
        least = math.floor(share * count * (1 + 1e-9))
        most = least + (share * count > least * (1 + 1e-9))
        drawn[name] = float(max((least, most), key=lambda n: abs(n - wanted[name])) * (least > 0))
    return drawn


def dealt_greedily(shares: Mapping[str, float], count: int) -> dict[str, float]:
    """Units of each domain where every sample goes to the domain that lags most, as in Megatron."""
    if count > SIMULATED:
        return {name: share * count * (share * count >= 1) for name, share in shares.items()}
    weights = np.array(list(shares.values())) / sum(shares.values())
    drawn = np.zeros(len(weights))
    for number in range(count):
        drawn[np.argmax(weights * max(number, 1) - drawn)] += 1
    return dict(zip(shares, drawn.tolist(), strict=True))


def sampling_deviation(share: float, drawn: float, of: float) -> float:
    """Standard deviation of a share's units among `drawn` units that are picked from `of`."""
    left = max(of - drawn, 0.0) / max(of - 1, 1.0)
    return math.sqrt(max(drawn * share * (1 - share) * left, 0.0))
