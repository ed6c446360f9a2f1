"""A record that may fail: failures cost no result, are told once, and are made good at the end."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

from cuvee.mixtures.runs import Outcome, RunSpec
from cuvee.tasks.study.study import Study
from cuvee.tasks.tracking.recorder import Tracker
from cuvee.tasks.validation.preregistration import Card


class Careful:
    """A tracker whose failures cost no result: they are told once, and the study goes on.

    After `patience` failures it stops asking, so that a dead server does not slow the study, and
    tries once more at the end, when the whole record can be made from the study.

    Args:
        tracker: does the work.
        warn: is given one sentence for people, once.
        patience: failures after which it stops asking.
    """

    def __init__(self, tracker: Tracker, warn: Callable[[str], None], *, patience: int = 3) -> None:
        self._tracker, self._warn, self._patience = tracker, warn, patience
        self._failures = 0
        self._begun: tuple[str, Mapping[str, str], Mapping[str, str]] | None = None

    def begin(self, name: str, params: Mapping[str, str], tags: Mapping[str, str]) -> str:
        self._begun = (name, dict(params), dict(tags))
        ids: list[str] = []
        self._try(lambda: ids.append(self._tracker.begin(name, params, tags)))
        return ids[0] if ids else ""

    def child(self, spec: RunSpec, tags: Mapping[str, str]) -> None:
        self._try(lambda: self._tracker.child(spec, tags))

    def curve(self, fingerprint: str, points: Iterable[tuple[int, float]]) -> None:
        self._try(lambda: self._tracker.curve(fingerprint, points))

    def finish(
        self,
        outcome: Outcome,
        objective: float | None = None,
        tags: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._try(lambda: self._tracker.finish(outcome, objective, tags))

    def promise(self, card: Card, copy: Path) -> None:
        self._try(lambda: self._tracker.promise(card, copy))

    def conclude(self, study: Study, folder: Path) -> None:
        if self._failures and self._begun:
            name, params, tags = self._begun
            self._try(lambda: self._tracker.begin(name, params, tags), last=True)
        self._try(lambda: self._tracker.conclude(study, folder), last=True)

    def abandon(self, reason: str) -> None:
        self._try(lambda: self._tracker.abandon(reason))

    def _try(self, call: Callable[[], object], *, last: bool = False) -> None:
        if self._failures >= self._patience and not last:
            return
        try:
            call()
        except Exception as error:  # whatever a record meets, the study must go on
            self._failures += 1
            if self._failures == 1:
                self._warn(
                    f"the record of this study has gaps: {error}. No result is lost: all are in "
                    "the store, and the record is filled in when the study ends or is run again"
                )
