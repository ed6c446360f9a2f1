"""How many proxies train together, what a pack asks of a device, and whether it can have that.

On a GPU packs are tried, once for each kind of GPU and size of proxy, and what was seen is kept in
the store under all that a speed depends on. A core trains one proxy, which was measured.
"""

import dataclasses
import hashlib
import sys
from collections.abc import Callable, Sequence

from cuvee.flows.execution.executor import Executor
from cuvee.mixtures.errors import RecipeError, ServiceError, TrainingError
from cuvee.mixtures.runs.run_spec import RunSpec, canonical_json
from cuvee.mixtures.units import bytes_text, count_text
from cuvee.proxies import ladder
from cuvee.proxies.train import batching
from cuvee.proxies.train.batching import PackMemory, PackRequest, PackTrial
from cuvee.proxies.train.device import DeviceKind
from cuvee.tasks.pack_job import PackJob
from cuvee.tasks.store.results import Store

PROBES, VERSION = "pack-probes", 1  # the version is raised where the trainer's speed changes
# What a process of torch holds of a GPU beside its tensors, and the share of the rest that packs
# may fill, since scoring takes more than a step does. Assumptions.
CONTEXT_BYTES, FILLED = 1 << 30, 0.8


class PackResources:
    """What the packs of a study ask of an executor's devices.

    Args:
        executor: has the devices.
        store: keeps what was tried on them.
        vocabulary: tokens of the tokenizer.
        pack: models of a pack, where a recipe says it.
        say: tells a person.
    """

    def __init__(
        self,
        executor: Executor,
        store: Store,
        vocabulary: int,
        pack: int | None,
        say: Callable[[str], None],
    ) -> None:
        self._executor, self._store, self._vocabulary = executor, store, vocabulary
        self._pack, self._say = pack, say
        self._trials: dict[str, tuple[PackTrial, ...]] = {}

    def limits(self, specs: Sequence[RunSpec], job: Callable[[RunSpec], PackJob]) -> dict[str, int]:
        """Models of a pack by size of the runs; `job` makes what a worker is told of one.

        Raises:
            RecipeError: no device has memory for one model of a size.
        """
        longest = {spec.size: spec for spec in sorted(specs, key=lambda spec: spec.tokens)}
        fitting = {size: self.fitting(spec) for size, spec in longest.items()}  # all, before one
        return {
            size: min(self._models(longest[size], kind, job) for kind in kinds)
            for size, kinds in fitting.items()
        }

    def request(self, specs: Sequence[RunSpec]) -> PackRequest:
        """What a pack of these runs asks for: on differing GPUs, what it needs of the smallest."""
        first, held = specs[0], float(self._memory(specs[0], len(specs)).total)
        kinds = self.fitting(first)
        if self._executor.device == "cpu":  # a node of unknown memory gives none to who asks for it
            return PackRequest(memory=int(held) if all(kind.memory for kind in kinds) else 0)
        least = min(kinds, key=lambda kind: kind.memory)
        room, trials = packing_memory(least), self._trials.get(self._key(first, least), ())
        planned = [self._memory(first, trial.models).total for trial in trials]
        held *= max([1.0, *(t.memory / plan for t, plan in zip(trials, planned, strict=True))])
        guess = self._pack or batching.pack_limit(first.size, "cuda", self._vocabulary, room)
        return PackRequest(
            gpus=batching.gpu_share(len(specs), held / (room or held), trials, guess),
            nodes=self._nodes(kinds),
        )

    def _nodes(self, kinds: Sequence[DeviceKind]) -> tuple[str, ...]:
        """The nodes of some kinds; none where these are all, so that any node will do."""
        everywhere = len(kinds) == len(self._executor.devices())
        return () if everywhere else tuple(name for kind in kinds for name in kind.nodes)

    def _models(self, spec: RunSpec, kind: DeviceKind, job: Callable[[RunSpec], PackJob]) -> int:
        """Models of a pack on a kind of device: as the recipe has it, or as was measured."""
        most = most_models(spec, self._vocabulary, kind)
        if wish := self._pack or (batching.MOST_CPU if kind.name == "cpu" else None):
            return min(wish, most)
        key = self._key(spec, kind)
        trials = self._trials.get(key) or read_trials(self._store.recall(PROBES, key))
        if not trials:
            trials = self._try(spec, kind, most, job)
        if not trials:
            guess = batching.pack_limit(spec.size, "cuda", self._vocabulary, packing_memory(kind))
            return min(most, guess)
        self._trials[key] = trials
        return batching.best_models(trials)

    def _try(
        self, spec: RunSpec, kind: DeviceKind, most: int, job: Callable[[RunSpec], PackJob]
    ) -> tuple[PackTrial, ...]:
        """Try packs on a whole GPU of a kind and keep what was seen; nothing where that fails."""
        self._say(f"How many proxies of {spec.size} train best together on {kind.name} is tried")
        plain = dataclasses.replace(spec, controller="", reference="", start="")
        alone = PackRequest(gpus=1.0, nodes=self._nodes([kind]))
        try:
            asked = dataclasses.replace(job(plain), request=alone)
            trials = self._executor.probe(asked, most)
        except (ServiceError, TrainingError) as error:
            self._say(f"It could not be tried, so that a guess is taken: {error}")
            return ()
        if trials:
            best = batching.best_models(trials)
            rate = {trial.models: count_text(trial.rate) for trial in trials}
            self._say(f"{best} together: {rate[best]} tokens a second; one alone: {rate[1]}")
            values = [dataclasses.astuple(trial) for trial in trials]
            self._store.remember(PROBES, self._key(spec, kind), values)
        return trials

    def fitting(self, spec: RunSpec) -> list[DeviceKind]:
        """The kinds of devices with memory for one model, or of unknown memory.

        Raises:
            RecipeError: there is none.
        """
        needed, kinds = self._memory(spec, 1), self._executor.devices()
        fit = [kind for kind in kinds if not kind.memory or needed.total <= usable_memory(kind)]
        if not fit:
            largest = max(kinds, key=lambda kind: kind.memory)
            raise RecipeError(refused_memory(spec.size, needed, largest, self._vocabulary))
        return fit

    def slots(self, job: PackJob) -> float:
        """Of the executor's slots, what a pack takes: a share of a GPU, or cores for its memory."""
        asked = job.request or PackRequest()
        if asked.gpus or not asked.memory:
            return asked.gpus or 1.0
        places = sum(kind.memory // asked.memory for kind in self._executor.devices())
        return max(1.0, self._executor.slots / max(1, places))

    def _memory(self, spec: RunSpec, models: int) -> PackMemory:
        return run_memory(spec, self._vocabulary, self._executor.device, models)

    def _key(self, spec: RunSpec, kind: DeviceKind) -> str:
        """Of all that the speed of a pack depends on."""
        plan = ladder.training_plan(spec.size, spec.tokens, self._vocabulary)
        pack = [repr(plan.model_size), plan.batch, self._vocabulary, spec.precision]
        parts = [VERSION, kind.name, kind.memory, kind.torch, *pack]
        return hashlib.sha256(canonical_json(parts).encode()).hexdigest()


def run_memory(spec: RunSpec, vocabulary: int, device: str, models: int = 1) -> PackMemory:
    """What a pack of runs like one takes of a device."""
    plan = ladder.training_plan(spec.size, spec.tokens, vocabulary)
    return batching.pack_memory(
        plan.model_size,
        vocabulary,
        models,
        batch=plan.batch,
        device=device,
        precision=spec.precision,
        averaged=spec.average > 0,
    )


def most_models(spec: RunSpec, vocabulary: int, kind: DeviceKind) -> int:
    """Models of a pack of runs like one that a device has memory for."""
    if not kind.memory:
        return sys.maxsize
    device = "cpu" if kind.name == "cpu" else "cuda"
    one, two = (run_memory(spec, vocabulary, device, models).total for models in (1, 2))
    return max(1, 1 + int((packing_memory(kind) - one) // (two - one)))


def usable_memory(kind: DeviceKind) -> float:
    """Bytes of a device that one model may take; 0 where its memory is not known."""
    return max(0.0, kind.memory - (0 if kind.name == "cpu" else CONTEXT_BYTES))


def packing_memory(kind: DeviceKind) -> float:
    """Bytes of a device that packs of several models may fill."""
    return usable_memory(kind) * (1 if kind.name == "cpu" else FILLED)


def refused_memory(size: str, needed: PackMemory, kind: DeviceKind, vocabulary: int) -> str:
    """Why proxies of a size cannot train on any device, of which one is the largest."""
    where = "node has" if kind.name == "cpu" else f"GPU, {kind.name}, has"
    return (
        f"a proxy of size {size} takes {bytes_text(needed.total)} while it trains, with a "
        f"vocabulary of {vocabulary:,} tokens, and the largest {where} "
        f"{bytes_text(usable_memory(kind))} for it: take a smaller proxy.size, a device with more "
        "memory, or your own trainer, which can spread a model over several GPUs (proxy.trainer, "
        "docs/how-to/own-trainer.md)"
    )


def read_trials(value: object) -> tuple[PackTrial, ...]:
    """Trials as the store has them; none where it has none that can be believed."""
    try:
        trials = tuple(PackTrial(int(k), float(rate), int(held)) for k, rate, held in value)  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        return ()
    return trials if all(t.models > 0 and t.rate > 0 for t in trials) else ()
