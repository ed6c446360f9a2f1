"""Branching: what several runs have in common is trained once.

A run begins with the same sequences as another if their tables of blocks begin alike and they
share everything else that training depends on. Such a beginning is a shared prefix. It has a name,
the hash of all that determines it and nothing that comes after; its state (parameters, moments,
losses) is kept under that name, the branch checkpoint, and every run that begins with it can go on
from there, to the bit as if it had been trained alone. A shared prefix may itself begin with a
shorter one. A checkpoint that is lost or damaged costs time and nothing else: the run is then
trained whole.

Runs under a controller have none, nor those of another trainer: what their stream holds is not
known beforehand.
"""

import dataclasses
import functools
import hashlib
import itertools
from collections import Counter
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cuvee.mixtures.runs.run_spec import BY_NAMES, RunSpec, canonical_json
from cuvee.proxies import ladder
from cuvee.proxies.data.objects import ObjectFolder, is_remote, remove_folder, within
from cuvee.proxies.data.sampling_table import SamplingTable
from cuvee.proxies.train import batching

SHORT = 32  # of the 64 digits of a prefix's name, as the name of its folder
LEAST = 16  # steps that a prefix must save in all; below that a pack of its own costs more


@dataclass(frozen=True)
class SharedPrefix:
    """The beginning of a run.

    Attributes:
        name: hash of everything that determines it, 64 hexadecimal digits.
        step: where it ends.
    """

    name: str
    step: int


@dataclass(frozen=True)
class BranchPlan:
    """Where a pack begins, and where it ends if that is not the end of its runs.

    Attributes:
        start: names of the prefixes that the runs begin with, one each; none: from the first step.
        keep: names under which the states are kept at `until`, one each; none: the runs are ended.
        until: step at which to stop, where `keep` is given.
        folder: of the kept states.
        starts: folder of the checkpoints that specs name as their start (`warm_start`).
    """

    start: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    until: int = 0
    folder: str = ""
    starts: str = ""

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the prefixes that must be there before, each once."""
        return tuple(dict.fromkeys(self.start))


WHOLE_RUN = BranchPlan()  # from the first step to the last


@dataclass(frozen=True)
class PlannedPack:
    """Runs that are trained as one pack, along a branch plan."""

    specs: tuple[RunSpec, ...]
    branch: BranchPlan = WHOLE_RUN


@functools.lru_cache(maxsize=4096)
def shared_prefixes(spec: RunSpec) -> tuple[SharedPrefix, ...]:
    """Every beginning of a run that others could share, the shortest first; one per block."""
    if spec.controller or spec.trainer:
        return ()
    plan = ladder.training_plan(spec.size, spec.tokens, 1, schedule=spec.schedule, rate=spec.rate)
    values = spec.canonical()
    for field in ("stages", "scoring"):  # what comes later, and what is done afterwards
        del values[field]
    if spec.version != BY_NAMES:
        del values["identities"]  # which of them it begins with, its blocks say
    total = hashlib.sha256(canonical_json(values).encode())
    found = []
    for block in SamplingTable(spec, batch=plan.batch, steps=plan.steps).every():
        drawn = [[spec.keys[i], n] for i, n in zip(spec.order, block.counts.tolist(), strict=True)]
        filled = [part for part in drawn if part[1]]
        total.update(canonical_json([block.stop, filled]).encode())
        found.append(SharedPrefix(total.copy().hexdigest(), block.stop))
    return tuple(found)


def branch_folder(folder: str | Path, name: str) -> str | Path:
    """Where the state of a prefix is kept."""
    return within(folder, name[:SHORT])


def kept_branches(folder: str | Path) -> set[str]:
    """Beginnings of the names of prefixes whose states are there; whether they are sound shows
    when they are read."""
    if is_remote(folder):
        paths = ObjectFolder(str(folder)).sizes()
    else:
        paths = {f"{path.parent.name}/{path.name}": 0 for path in Path(folder).glob("*/step-*.pt")}
    return {path.split("/")[0] for path in paths if path.endswith(".pt")}


def plan_packs(
    specs: Sequence[RunSpec],
    folder: str | Path,
    device: str = "cpu",
    limit: int | Mapping[str, int] | None = None,
    *,
    vocabulary: int = ladder.VOCABULARY,
) -> list[PlannedPack]:
    """How to train runs with what they share trained once.

    Args:
        specs: what to train, each once.
        folder: of the kept states; what is there already is used.
        device: "cpu" or "cuda...".
        limit: models of a pack, or these by size; a guess for device and vocabulary when None.
        vocabulary: tokens of the tokenizer.

    Returns:
        Packs: first those that begin with a prefix, then those that train one, then the rest. One
        can be trained when the prefixes that its plan needs are there.

    Raises:
        RecipeError: the limit is below 1.
    """
    shared, there = _shared(specs), kept_branches(folder)
    chains = {
        spec.fingerprint: _chain(there, shared_prefixes(spec), shared(spec)) for spec in specs
    }
    ends: dict[int, list[tuple[RunSpec, BranchPlan]]] = {}
    prefixes: dict[str, tuple[RunSpec, BranchPlan, int]] = {}
    for spec in specs:
        chain = chains[spec.fingerprint]
        for i, prefix in enumerate(chain):
            if prefix.name[:SHORT] not in there:
                before = chain[i - 1] if i else None
                start = (before.name,) if before else ()
                plan = BranchPlan(start, (prefix.name,), prefix.step, str(folder))
                prefixes.setdefault(prefix.name, (spec, plan, before.step if before else 0))
        start = (chain[-1].name,) if chain else ()
        group = ends.setdefault(chain[-1].step if chain else 0, [])
        group.append((spec, BranchPlan(start, folder=str(folder))))
    inner: dict[tuple[int, int], list[tuple[RunSpec, BranchPlan]]] = {}
    for spec, plan, begin in prefixes.values():
        inner.setdefault((plan.until, begin), []).append((spec, plan))
    plain = ends.pop(0, [])
    groups = [*(ends[k] for k in sorted(ends)), *(inner[k] for k in sorted(inner)), plain]
    most = functools.partial(
        batching.group_into_packs, device=device, limit=limit, vocabulary=vocabulary
    )
    return [batch for group in groups for batch in _packed(group, most)]


def trained_shares(packs: Sequence[PlannedPack]) -> dict[str, tuple[RunSpec, float]]:
    """By name of a prefix, or fingerprint of a run: of which run, and what share of its steps, a
    pack trains for it; the shares of a run and of what it begins with sum to 1."""
    found = {}
    for pack in packs:
        plan = pack.branch
        for spec, start, keep in itertools.zip_longest(pack.specs, plan.start, plan.keep):
            steps = ladder.training_plan(
                spec.size, spec.tokens, 1, schedule=spec.schedule, rate=spec.rate
            ).steps
            begin = next((p.step for p in shared_prefixes(spec) if p.name == start), 0)
            share = ((plan.until if keep else steps) - begin) / steps
            found[keep or spec.fingerprint] = spec, share
    return found


def _shared(specs: Sequence[RunSpec]) -> Callable[[RunSpec], list[SharedPrefix]]:
    """For a run, the beginnings at which it parts from others that came with it so far."""
    count = Counter(prefix.name for spec in specs for prefix in shared_prefixes(spec))

    def prefixes(spec: RunSpec) -> list[SharedPrefix]:
        found: list[SharedPrefix] = []
        own = shared_prefixes(spec)
        for prefix, after in itertools.zip_longest(own, own[1:]):
            parts = after is None or count[after.name] < count[prefix.name]
            saved = (prefix.step - (found[-1].step if found else 0)) * (count[prefix.name] - 1)
            if parts and saved >= LEAST:
                found.append(prefix)
        return found

    return prefixes


def _chain(
    kept: Container[str], possible: Sequence[SharedPrefix], shared: Sequence[SharedPrefix]
) -> list[SharedPrefix]:
    """The prefixes that a run goes through; before the last one that is kept, none is needed."""
    chain = [prefix for prefix in possible if prefix in shared or prefix.name[:SHORT] in kept]
    there = [i for i, prefix in enumerate(chain) if prefix.name[:SHORT] in kept]
    return chain[there[-1] :] if there else chain


def _packed(
    members: Sequence[tuple[RunSpec, BranchPlan]],
    grouped: Callable[[list[RunSpec]], list[list[RunSpec]]],
) -> list[PlannedPack]:
    """Runs that begin at one step, in packs."""
    plans = {spec.fingerprint: plan for spec, plan in members}
    result = []
    for group in grouped([spec for spec, _ in members]):
        own = [plans[spec.fingerprint] for spec in group]
        result.append(
            PlannedPack(
                tuple(group),
                dataclasses.replace(
                    own[0],
                    start=tuple(name for plan in own for name in plan.start),
                    keep=tuple(name for plan in own for name in plan.keep),
                ),
            )
        )
    return result


def remove_branch_checkpoint(folder: str | Path, name: str) -> None:
    """Remove the state of a prefix, once everything that begins with it is stored."""
    remove_folder(branch_folder(folder, name))
