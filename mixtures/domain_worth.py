"""What each domain is worth, as values: measured by leaving it out, and by a law's Shapley values.

The worth of a domain to a target is by how much the score rises when the domain's share goes to the
others in proportion: positive is worth having. It is relative to a mixture and holds beside its
other domains: of two copies of one text, each is worth nothing.
"""

from dataclasses import dataclass, replace

from cuvee.mixtures.errors import EvidenceError

KINDS = {1: "substitutes", 0: "no interaction shown", -1: "complements"}


@dataclass(frozen=True)
class Worth:
    """A worth with its interval, bits per byte.

    Attributes:
        mean, low, high: positive is worth having.
        p: two-sided, corrected after Holm for all that is measured with it; 1 where none is tested.
    """

    mean: float
    low: float
    high: float
    p: float = 1.0

    def __post_init__(self) -> None:
        if not self.low <= self.mean <= self.high:
            raise EvidenceError(f"a worth lies within its interval; got {self}")

    @property
    def sign(self) -> int:
        """1 or -1 where the interval lies on one side of zero, else 0."""
        return int(self.low > 0) - int(self.high < 0)


Worths = tuple[tuple[Worth, ...], ...]  # by domain, then by column: the objective, then the targets
PairWorth = tuple[
    tuple[str, str], tuple[Worth, ...]
]  # of two domains, `D_ij - D_i - D_j` by column


@dataclass(frozen=True)
class LeaveOut:
    """Domains left out, measured.

    Attributes:
        share: part of the run's tokens, its last, in which they are left out; 1 is from scratch.
        seeds, degrees: paired seeds, and degrees of freedom of the pooled standard deviation.
        domains, worths: that were left out, with intervals that hold for all together.
        detectable: by column, the smallest worth that such a study shows with 80 % probability.
        pairs: left out together; positive where each covers for the other.
    """

    share: float
    seeds: int
    degrees: int
    domains: tuple[str, ...]
    worths: Worths
    detectable: tuple[float, ...]
    pairs: tuple[PairWorth, ...] = ()

    @property
    def said(self) -> str:
        """When they were left out, in words."""
        return "from scratch" if self.share == 1 else f"in the last {self.share:.0%} of the tokens"


@dataclass(frozen=True)
class ShapleyWorth:
    """Shapley values of a fitted law: a domain's worth averaged over all orders of adding domains.

    Attributes:
        domains, worths: with a share in the mixture; intervals of the law's draws, or of refits.
        empty: by column, the score where no domain teaches, on which signs depend.
        outside: share of the coalitions that lie beyond the mixtures tried.
        orders: sampled orders of domains; 0 where all coalitions were weighed.
    """

    domains: tuple[str, ...]
    worths: Worths
    empty: tuple[float, ...]
    outside: float
    orders: int = 0

    def from_empty(self, empty: tuple[float, ...]) -> "ShapleyWorth":
        """The same from another score of the empty coalition, such as an untrained model's: each
        domain gets an equal part of the difference, so that their order stays."""
        more = [(a - b) / len(self.domains) for a, b in zip(empty, self.empty, strict=True)]
        worths = tuple(
            tuple(Worth(w.mean + x, w.low + x, w.high + x) for w, x in zip(row, more, strict=True))
            for row in self.worths
        )
        return replace(self, worths=worths, empty=empty)


@dataclass(frozen=True)
class Attribution:
    """What each domain of a mixture is worth.

    Attributes:
        mixture: shares (K,) that worth is relative to.
        columns: "objective", then the targets.
        measured, shapley: by leaving out, from scratch first; of the recommendation's law, fitted
            without these runs where the others suffice.
        agreements: (what is compared, rank correlation over domains, mean of the targets) pairs.
    """

    mixture: tuple[float, ...]
    columns: tuple[str, ...]
    measured: tuple[LeaveOut, ...]
    shapley: ShapleyWorth | None = None
    agreements: tuple[tuple[str, Worth], ...] = ()
