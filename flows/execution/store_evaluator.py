"""The store as the `evaluate` of a flow that trains nothing."""

from collections.abc import Sequence

from cuvee.mixtures.runs import Failed, Outcome, RunSpec
from cuvee.tasks.store.results import Store


class StoreEvaluator:
    """An `evaluate` that only looks into the store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.found = 0

    def __call__(
        self, specs: Sequence[RunSpec], _title: str = "", _confirmed: object = None
    ) -> tuple[Outcome, ...]:
        outcomes = []
        for spec in specs:
            known = self._store.get(spec.fingerprint)
            self.found += known is not None
            outcomes.append(known or Failed(spec, "not in the store: `cuvee run` trains it"))
        return tuple(outcomes)
