"""Trunks: what several runs have in common is trained once.

A run begins with the same sequences as another if their tables of blocks begin alike and they
share everything else that training depends on. Such a beginning is a trunk. It has a name, the hash
of all that determines it and nothing that comes after; its state (parameters, moments, losses) is
kept under that name, and every run that begins with it can go on from there, to the bit as if it
had been trained alone. A trunk may itself begin with a shorter one. A kept state that is lost or
damaged costs time and nothing else: the run is then trained whole.

Runs under a controller have no trunks: what their stream holds is not known beforehand.
"""

import dataclasses
import functools
import hashlib
import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cuvee.mixtures.runs import RunSpec, canonical
from cuvee.proxies import ladder
from cuvee.proxies.data import files
from cuvee.proxies.data.sampling_table import Table
from cuvee.proxies.train import batching

LEAST = 16  # steps that a trunk must save in all; below that a pack of its own costs more


@dataclass(frozen=True)
class Trunk:
    """The beginning of a run.

    Attributes:
        name: hash of everything that determines it, 64 hexadecimal digits.
        step: where it ends.
    """

    name: str
    step: int


@dataclass(frozen=True)
class Route:
    """Where a pack begins, and where it ends if that is not the end of its runs.

    Attributes:
        start: names of the trunks that the runs begin with, one each; none: from the first step.
        keep: names under which the states are kept at `until`, one each; none: the runs are ended.
        until: step at which to stop, where `keep` is given.
        folder: of the kept states.
        starts: folder of the checkpoints that specs name as their start (`start.adopt`).
    """

    start: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    until: int = 0
    folder: str = ""
    starts: str = ""

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the trunks that must be there before, each once."""
        return tuple(dict.fromkeys(self.start))


WHOLE = Route()  # from the first step to the last


@dataclass(frozen=True)
class Batch:
    """Runs that are trained as one pack, along a route."""

    specs: tuple[RunSpec, ...]
    route: Route = WHOLE


@functools.lru_cache(maxsize=4096)
def beginnings(spec: RunSpec) -> tuple[Trunk, ...]:
    """Every beginning of a run that others could share, the shortest first; one per block."""
    if spec.controller:
        return ()
    plan = ladder.plan(spec.size, spec.tokens, 1, schedule=spec.schedule, rate=spec.rate)
    values = dataclasses.asdict(spec)
    for field in ("stages", "scoring"):  # what comes later, and what is done afterwards
        del values[field]
    total = hashlib.sha256(canonical([values, sorted(spec.domains)]).encode())
    found = []
    for block in Table(spec, batch=plan.batch, steps=plan.steps).every():
        total.update(canonical([block.stop, block.counts.tolist()]).encode())
        found.append(Trunk(total.copy().hexdigest(), block.stop))
    return tuple(found)


def place(folder: str | Path, name: str) -> Path:
    """Where the state of a trunk is kept."""
    return Path(folder) / name[:32]


def kept(folder: str | Path, name: str) -> bool:
    """Whether the state of a trunk is there; whether it is sound shows when it is read."""
    return any(place(folder, name).glob("step-*.pt"))


def batches(
    specs: Sequence[RunSpec], folder: str | Path, device: str = "cpu", limit: int | None = None
) -> list[Batch]:
    """How to train runs with what they share trained once.

    Args:
        specs: what to train, each once.
        folder: of the kept states; what is there already is used.
        device: "cpu" or "cuda...".
        limit: models of a pack; what suits device and size when None.

    Returns:
        Packs: first those that begin with a trunk, then those that train one, then the rest. One
        can be trained when the trunks that its route needs are there.

    Raises:
        RecipeError: the limit is below 1.
    """
    shared = _shared(specs)
    chains = {spec.fingerprint: _chain(folder, beginnings(spec), shared(spec)) for spec in specs}
    ends: dict[int, list[tuple[RunSpec, Route]]] = {}
    trunks: dict[str, tuple[RunSpec, Route, int]] = {}
    for spec in specs:
        chain = chains[spec.fingerprint]
        for i, trunk in enumerate(chain):
            if not kept(folder, trunk.name):
                before = chain[i - 1] if i else None
                start = (before.name,) if before else ()
                route = Route(start, (trunk.name,), trunk.step, str(folder))
                trunks.setdefault(trunk.name, (spec, route, before.step if before else 0))
        start = (chain[-1].name,) if chain else ()
        group = ends.setdefault(chain[-1].step if chain else 0, [])
        group.append((spec, Route(start, folder=str(folder))))
    inner: dict[tuple[int, int], list[tuple[RunSpec, Route]]] = {}
    for spec, route, begin in trunks.values():
        inner.setdefault((route.until, begin), []).append((spec, route))
    plain = ends.pop(0, [])
    groups = [*(ends[k] for k in sorted(ends)), *(inner[k] for k in sorted(inner)), plain]
    return [batch for group in groups for batch in _packed(group, device, limit)]


def _shared(specs: Sequence[RunSpec]) -> Callable[[RunSpec], list[Trunk]]:
    """For a run, the beginnings at which it parts from others that came with it so far."""
    count = Counter(trunk.name for spec in specs for trunk in beginnings(spec))

    def trunks(spec: RunSpec) -> list[Trunk]:
        found: list[Trunk] = []
        own = beginnings(spec)
        for trunk, after in itertools.zip_longest(own, own[1:]):
            parts = after is None or count[after.name] < count[trunk.name]
            saved = (trunk.step - (found[-1].step if found else 0)) * (count[trunk.name] - 1)
            if parts and saved >= LEAST:
                found.append(trunk)
        return found

    return trunks


def _chain(folder: str | Path, possible: Sequence[Trunk], shared: Sequence[Trunk]) -> list[Trunk]:
    """The trunks that a run goes through; before the last one that is kept, none is needed."""
    chain = [trunk for trunk in possible if trunk in shared or kept(folder, trunk.name)]
    there = [i for i, trunk in enumerate(chain) if kept(folder, trunk.name)]
    return chain[there[-1] :] if there else chain


def _packed(
    members: Sequence[tuple[RunSpec, Route]], device: str, limit: int | None
) -> list[Batch]:
    """Runs that begin at one step, in packs."""
    routes = {spec.fingerprint: route for spec, route in members}
    result = []
    for group in batching.packs([spec for spec, _ in members], device, limit):
        own = [routes[spec.fingerprint] for spec in group]
        result.append(
            Batch(
                tuple(group),
                dataclasses.replace(
                    own[0],
                    start=tuple(name for route in own for name in route.start),
                    keep=tuple(name for route in own for name in route.keep),
                ),
            )
        )
    return result


def remove(folder: str | Path, name: str) -> None:
    """Remove the state of a trunk, once everything that begins with it is stored."""
    files.remove(place(folder, name))
