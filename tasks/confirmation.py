"""From the runs of a confirmation to its paired gains: the claim, with its interval."""

from collections.abc import Sequence

from mixtures.diagnostics import paired
from mixtures.history import Failed
from mixtures.recommendation import LEVEL
from tasks.study import BASELINES, Confirmation, ConfirmedRun, Paired, differences


def confirmation(
    runs: Sequence[ConfirmedRun],
    targets: Sequence[str],
    *,
    failed: Sequence[Failed] = (),
    baselines: Sequence[str] = BASELINES,
    level: float = LEVEL,
) -> Confirmation:
    """Gains of the recommended mixture over each baseline, paired by seed.

    Args:
        runs: recommended and baselines, at the same seeds.
        targets: names of the problem's targets, in their order.
        failed: runs that gave no result; their seeds are left out of the pairs they miss.
        baselines: names of the mixtures compared with.
        level: coverage of the intervals.

    Raises:
        EvidenceError: a baseline shares fewer than two seeds with the recommended mixture.
    """

    def gain(baseline: str, target: str | None) -> Paired:
        found = paired(differences(runs, baseline, target), level)
        return Paired(target or "objective", found.mean, found.low, found.high, found.p, found.n)

    return Confirmation(
        runs=tuple(runs),
        objective={b: gain(b, None) for b in baselines},
        targets={b: tuple(gain(b, target) for target in targets) for b in baselines},
        failed=tuple(failed),
        level=level,
    )
