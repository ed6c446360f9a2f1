"""What continual pretraining did to each domain: scores after it minus the checkpoint's own.

Forgetting of a domain is what its score is worse by (bits per byte, positive is worse) than that of
the checkpoint that every run went on from, on the same held-out text. With fresh runs under several
seeds the interval is Student's over seeds; the checkpoint itself is one and has no spread. Without
them it is the law's prediction.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from cuvee.mixtures.inference.diagnostics import paired_mean
from cuvee.mixtures.recommendation import Estimate, Recommendation
from cuvee.tasks.validation.paired import RECOMMENDED, Confirmation, Judgement, interval_text

MEAN = "mean of the old domains"


@dataclass(frozen=True)
class StartCheckpoint:
    """The checkpoint that runs go on from.

    Attributes:
        content: hash of its weights.
        source: where the recipe found it.
        scores: what it scores before any training, by name; bits per byte, and details.
    """

    content: str
    source: str
    scores: Mapping[str, float]


@dataclass(frozen=True)
class ContinualStart:
    """What a study knows of going on from a checkpoint.

    Attributes:
        start: the checkpoint.
        old: domains that it was trained on.
        replay: their least share together.
        forget: by how much an old domain may become worse, bits per byte; None: no floor.
    """

    start: StartCheckpoint
    old: tuple[str, ...]
    replay: float = 0.0
    forget: float | None = None


@dataclass(frozen=True)
class DomainChange:
    """What became of a domain under a mixture, bits per byte; positive is worse.

    Attributes:
        mixture: its name.
        domain: its name, or `MEAN`.
        before: score of the checkpoint.
        after: mean score of the runs, or the prediction.
        low, high: interval of the change.
        seeds: runs behind it; 0 where it is predicted.
    """

    mixture: str
    domain: str
    before: float
    after: float
    low: float
    high: float
    seeds: int

    @property
    def change(self) -> float:
        """Score after minus score before."""
        return self.after - self.before

    @property
    def judgment(self) -> str:
        """What the interval allows one to say."""
        found = Judgement.of(-self.high, -self.low)  # less is better here
        if found is Judgement.NOISE:
            return found
        if self.seeds:
            return "improved" if found is Judgement.BETTER else "forgotten"
        return f"predicted to {'improve' if found is Judgement.BETTER else 'be forgotten'}"

    @property
    def estimate(self) -> Estimate:
        """The change with its interval alone."""
        return Estimate(self.change, self.low, self.high)

    @property
    def text(self) -> str:
        """It in a sentence, such as `speeches +0.031 (+0.020 to +0.042)`."""
        return f"{self.domain} {interval_text(self.estimate, '+.3f')}"


def domain_changes(
    found: ContinualStart,
    answer: Recommendation,
    confirmation: Confirmation | None,
    domains: Sequence[str],
) -> tuple[DomainChange, ...]:
    """The change of domains under every mixture of a study, recommended first.

    Args:
        found: the checkpoint.
        answer: its candidates carry predicted scores.
        confirmation: fresh runs; a mixture with fewer than two is predicted.
        domains: names; `MEAN` stands for the mean of the old domains, of fresh runs alone.
    """
    candidates = {candidate.name: candidate for candidate in answer.candidates}
    fresh = confirmation.mixtures if confirmation else ()
    names = tuple(dict.fromkeys((RECOMMENDED, *candidates, *fresh)))
    result = []
    for name in names:
        for domain in domains:
            members = found.old if domain == MEAN else (domain,)
            targets = [f"domain/{member}" for member in members]
            before = float(np.mean([found.start.scores[target] for target in targets]))
            seeds = _seeds(confirmation, name, targets)
            if len(seeds) > 1:
                over = paired_mean([value - before for value in seeds])
                after, low, high = before + over.mean, over.low, over.high
            elif name in candidates and len(targets) == 1:
                estimate = candidates[name].targets[answer.targets.index(targets[0])]
                after, low, high = estimate.mean, estimate.low - before, estimate.high - before
                seeds = []
            else:
                continue
            result.append(DomainChange(name, domain, before, after, low, high, len(seeds)))
    return tuple(result)


def _seeds(confirmation: Confirmation | None, name: str, targets: Sequence[str]) -> list[float]:
    """Mean score over some targets by seed."""
    if confirmation is None:
        return []
    columns = [confirmation.values(name, target) for target in targets]
    return [float(np.mean([column[seed] for column in columns])) for seed in sorted(columns[0])]


def old_domain_changes(
    found: ContinualStart, every: Sequence[DomainChange]
) -> tuple[DomainChange, ...]:
    """What the recommended mixture made of the domains that the checkpoint was trained on."""
    return tuple(c for c in every if c.mixture == RECOMMENDED and c.domain in found.old)


def worst_change(found: ContinualStart, every: Sequence[DomainChange]) -> DomainChange | None:
    """The old domain that the recommended mixture made worse by most; None where none is known."""
    return max(old_domain_changes(found, every), key=lambda one: one.change, default=None)


def changes_above_floor(
    found: ContinualStart, every: Sequence[DomainChange]
) -> tuple[DomainChange, ...]:
    """Changes of the recommended mixture, in fresh runs, that are above the floor on forgetting."""
    limit = math.inf if found.forget is None else found.forget
    return tuple(c for c in old_domain_changes(found, every) if c.seeds and c.change > limit)


def forgetting_summary(found: ContinualStart, every: Sequence[DomainChange]) -> dict[str, Any]:
    """What programs read of forgetting: a part of `summary.json`."""
    mixtures: dict[str, dict[str, Any]] = {}
    for one in every:
        values = {n: v for n, v in asdict(one).items() if n not in ("mixture", "domain")}
        mixtures.setdefault(one.mixture, {})[one.domain] = {**values, "change": one.change}
    return {
        "start": found.start.content,
        "old": list(found.old),
        "replay": found.replay,
        "floor": found.forget,
        "mixtures": mixtures,
    }
