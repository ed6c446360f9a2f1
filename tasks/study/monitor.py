"""Follows a study while it runs: from what the steps and the trainings report, how far it is."""

import dataclasses
import math
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from cuvee.mixtures.runs.run_results import NO_COST, Failed, Outcome, RunResult, training_cost
from cuvee.proxies.interfaces import Progress
from cuvee.tasks.study.progress import (
    FAILED,
    LEFT_OFF,
    POINTS,
    RUNNING,
    TRAINED,
    TRAINING,
    RoundProgress,
    RunProgress,
    StudyProgress,
    thinned,
)

UNDER_WAY, ENDED = 12, 4  # proxies that are shown of those under way, and of those that ended
FAILURES = 5  # reasons that are kept
NOTHING_SHARED: Mapping[str, float] = MappingProxyType({})
FIRST_ESTIMATE = 0.02  # of the FLOPs must be done before the time left is guessed


@dataclasses.dataclass
class _Curve:
    """The losses of a proxy under way, and the tokens that it has seen."""

    tokens: int = 0
    losses: list[float] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class _Round:
    """A round as it is counted."""

    title: str
    asked: int
    counts: Counter[str] = dataclasses.field(default_factory=Counter)


@dataclasses.dataclass(frozen=True)
class Announced:
    """A proxy that is asked for.

    Attributes:
        label: how people call it.
        tokens: of its training.
        flops: of training it from its first step.
        shared: share of it, 0 to 1, that is trained for several proxies at once and is no cost of
            its own.
    """

    label: str
    tokens: int
    flops: float
    shared: float = 0.0

    @property
    def own(self) -> float:
        """FLOPs of what is trained for it alone."""
        return self.flops * (1 - self.shared)

    def done(self, tokens: int) -> float:
        """FLOPs of what is trained for it alone, after so many tokens."""
        part = (tokens / max(self.tokens, 1) - self.shared) / max(1 - self.shared, 1e-9)
        return self.own * min(max(part, 0.0), 1.0)


class StudyMonitor:
    """Knows how far a study is. Safe to tell and to ask from several threads.

    Args:
        study: what is known of it before it begins.
        clock: seconds that only go forward.
    """

    def __init__(
        self, study: StudyProgress | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._study = study or StudyProgress("", host=socket.gethostname())
        self._clock, self._began, self._lock = clock, clock(), threading.Lock()
        self._rounds: list[_Round] = []
        self._round_of: dict[str, int] = {}
        self._announced: dict[str, Announced] = {}
        self._curves: dict[str, _Curve] = {}
        self._results: list[RunResult] = []
        self._fresh: list[RunResult] = []
        self._ended: deque[RunProgress] = deque(maxlen=ENDED)
        self._failures: deque[str] = deque(maxlen=FAILURES)
        self._later = self._planned = self._spent = 0.0
        self._shared: dict[str, float] = {}  # FLOPs of beginnings that are not trained yet
        self._open: set[str] = set()  # announced to be trained, and not ended
        self._trained_since, self._trained_for = 0.0, 0.0
        self.changed = threading.Event()  # more than a step that went on

    def follow_step(self, step: str, message: str, fraction: float) -> None:
        """A long step is so far."""
        with self._lock:
            fresh = step != self._study.step
            self._study = dataclasses.replace(
                self._study, step=step, message=message, fraction=fraction
            )
        if fresh:
            self.changed.set()

    def expect(self, flops: float) -> None:
        """What will be asked for after the first round, in FLOPs, as far as is known."""
        with self._lock:
            self._later = flops

    def begin_round(
        self,
        title: str,
        asked: Mapping[str, Announced],
        missing: Sequence[str],
        shared: Mapping[str, float] = NOTHING_SHARED,
    ) -> None:
        """Proxies are asked for, by fingerprint; the missing ones are to be trained.

        `shared` has by name the FLOPs of each beginning that is trained once for several of them.
        """
        with self._lock:
            if not asked:
                return
            self._rounds.append(_Round(title, len(asked)))
            self._round_of |= dict.fromkeys(asked, len(self._rounds) - 1)
            self._announced |= asked
            flops = math.fsum([*(asked[name].own for name in missing), *shared.values()])
            self._shared = dict(shared)
            if len(self._rounds) > 1:
                self._later = max(0.0, self._later - math.fsum(a.flops for a in asked.values()))
            self._planned += flops
            if missing and not self._open:
                self._trained_since = self._clock()
            self._open |= set(missing)

    def follow_training(self, fingerprints: Sequence[str], reports: Sequence[Progress]) -> None:
        """Proxies of a pack are so far; the reports in their order, a loss for each proxy."""
        with self._lock:
            for k, name in enumerate(fingerprints):
                curve = self._curves.setdefault(name, _Curve())
                curve.tokens = reports[-1].tokens
                curve.losses += [r.losses[k] for r in reports if math.isfinite(r.losses[k])]
                if len(curve.losses) > 4 * POINTS:
                    curve.losses = list(thinned(curve.losses, 2 * POINTS))

    def end_run(self, outcome: Outcome, *, here: bool) -> None:
        """What came of a proxy; `here` if this command has trained it."""
        name = outcome.spec.fingerprint
        with self._lock:
            if name not in self._round_of:
                return
            kind = "failed" if isinstance(outcome, Failed) else "trained" if here else "reused"
            self._rounds[self._round_of.pop(name)].counts[kind] += 1
            curve, told = self._curves.pop(name, _Curve()), self._announced[name]
            losses = thinned(curve.losses)
            if isinstance(outcome, Failed):
                self._failures.append(f"{told.label}: {outcome.reason}")
                self._ended.append(
                    RunProgress(told.label, name, FAILED, curve.tokens, told.tokens, losses)
                )
            else:
                self._results.append(outcome)
                if here:
                    self._fresh.append(outcome)
                    losses = thinned([loss for _, loss in outcome.curve if math.isfinite(loss)])
                    ended = RunProgress(told.label, name, TRAINED, told.tokens, told.tokens, losses)
                    self._ended.append(ended)
            self._close(name, told, trained=here)
        self.changed.set()

    def withdraw_run(self, fingerprint: str) -> None:
        """A proxy is not trained after all, for want of budget."""
        with self._lock:
            if fingerprint in self._open:
                self._planned -= self._announced[fingerprint].own
                self._open.discard(fingerprint)

    def end_shared(self, names: Sequence[str], *, trained: bool) -> None:
        """Beginnings that several proxies share are trained, or will not be."""
        with self._lock:
            flops = math.fsum(self._shared.pop(name, 0.0) for name in names)
            if trained:
                self._spent += flops
            else:
                self._planned -= flops

    def _close(self, name: str, told: Announced, *, trained: bool) -> None:
        if name not in self._open:
            return
        self._open.discard(name)
        if trained:
            self._spent += told.own
        else:
            self._planned -= told.own  # another sweep has trained it
        if not self._open:
            self._trained_for += self._clock() - self._trained_since

    def end(self, state: str, reason: str = "") -> None:
        """The command has ended, in a state and for a reason."""
        with self._lock:
            self._study = dataclasses.replace(self._study, state=state, reason=reason)
        self.changed.set()

    def snapshot(self) -> StudyProgress:
        """How far the study is now."""
        with self._lock:
            planned, spent = self._planned + self._later, self._spent + self._partial()
            now = self._clock()
            seconds = self._trained_for + (now - self._trained_since if self._open else 0.0)
            return dataclasses.replace(
                self._study,
                elapsed=now - self._began,
                rounds=tuple(RoundProgress(r.title, r.asked, **r.counts) for r in self._rounds),
                runs=(*self._under_way(), *reversed(self._ended)),
                failures=tuple(self._failures),
                planned=planned,
                spent=spent,
                cost=training_cost(self._fresh) or NO_COST,
                evidence=training_cost(self._results) if self._results else None,
                left=_left(planned, spent, seconds) if self._rounds else None,
            )

    def _partial(self) -> float:
        """FLOPs of what is done of the proxies under way."""
        told = self._announced
        return math.fsum(told[name].done(curve.tokens) for name, curve in self._curves.items())

    def _under_way(self) -> tuple[RunProgress, ...]:
        told, shown = self._announced, list(self._curves.items())[:UNDER_WAY]
        state = TRAINING if self._study.state == RUNNING else LEFT_OFF
        return tuple(
            RunProgress(
                told[name].label, name, state, c.tokens, told[name].tokens, thinned(c.losses)
            )
            for name, c in shown
        )


def _left(planned: float, spent: float, seconds: float) -> float | None:
    """Seconds of training that are left, at the speed so far."""
    if planned <= spent:
        return 0.0
    if seconds <= 0 or spent < FIRST_ESTIMATE * planned:
        return None
    return (planned - spent) * seconds / spent
