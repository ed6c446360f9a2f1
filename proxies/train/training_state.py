"""States of a training: saved and restored, kept as branch checkpoints, and gone on from.

A checkpoint holds a whole pack; the branch checkpoint holds one model, so that any pack can go on
from it whoever was beside it.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cuvee.proxies.train import branching, checkpoint
from cuvee.proxies.train.branching import BranchPlan

if TYPE_CHECKING:
    from cuvee.proxies.train.trainer import Training

FORMAT = "state 2"  # a checkpoint of another format is not used: its pack begins anew

log = logging.getLogger(__name__)


def checkpoint_identity(names: Sequence[str], domains: Sequence[Sequence[str]] = ()) -> list[str]:
    """Whose state it is, as `checkpoint.load_checkpoint` compares it.

    Args:
        names: fingerprints of runs, or names of shared prefixes, in order.
        domains: of each run, in the order that the shares of the state follow; none where it holds
            no shares, as that of a shared prefix.
    """
    return [FORMAT, *names, *(key for keys in domains for key in keys)]


def training_state(training: "Training") -> dict[str, Any]:
    """Everything that a resumed training needs, as tensors and plain values."""
    return {
        "identity": training.identity,
        "step": training.step,
        "seconds": training.seconds,
        "active": training.active,
        "averaged": training.average.count,
        "trunks": [[list(part) for part in parts] for parts in training.trunks],
        "points": [[list(point) for point in points] for points in training.points],
        "streams": [stream.state() for stream in training.streams],
        "conductor": training.controllers.state(),
        **training.tensors,
    }


def save_pack_checkpoint(training: "Training", folder: str | Path) -> None:
    """Keep the whole pack as it is.

    Raises:
        StorageError: the folder cannot be written.
    """
    checkpoint.save_checkpoint(folder, training.step, training_state(training))


def resume(training: "Training", folder: str | Path | None, branch: BranchPlan) -> None:
    """Go on from the pack's own checkpoint, else where its branch begins, else from nothing."""
    saved = None if folder is None else checkpoint.load_checkpoint(folder, training.identity)
    if saved is not None:
        restore_training(training, saved)
    elif branch.start:
        resume_branch(training, branch)


def restore_training(training: "Training", saved: Mapping[str, Any]) -> None:
    """Go on as the training that gave this state."""
    training.step = training.optimizer.steps = saved["step"]
    training.seconds, training.active = saved["seconds"], list(saved["active"])
    training.average.count = saved["averaged"]
    training.trunks = [[(name, part) for name, part in parts] for parts in saved["trunks"]]
    training.points = [_points(points) for points in saved.get("points", ())] or training.points
    training.controllers.restore(saved["conductor"])
    for name, mine in training.tensors.items():
        for own, other in zip(mine, saved[name], strict=True):
            own.copy_(other)
    for stream, segments in zip(training.streams, saved["streams"], strict=True):
        stream.restore(segments)


def save_branch_checkpoints(training: "Training", branch: BranchPlan) -> None:
    """Keep the state of each model under the name of its prefix.

    Raises:
        StorageError: the folder cannot be written.
    """
    for k, name in enumerate(branch.keep):
        before = sum(part for _, part in training.trunks[k])
        part = training.plan.flops * branch.until / training.plan.steps - before
        values = {
            "identity": checkpoint_identity([name]),
            "step": training.step,
            "seconds": training.seconds / len(training.specs),
            "alive": k in training.active,
            "averaged": training.average.count,
            "trunks": [*map(list, training.trunks[k]), [name, part]],
            "points": [list(point) for point in training.points[k]],
        }
        rows = {key: [t[k].clone() for t in own] for key, own in training.tensors.items()}
        checkpoint.save_checkpoint(
            branching.branch_folder(branch.folder, name), branch.until, values | rows
        )


def resume_branch(training: "Training", branch: BranchPlan) -> None:
    """Begin where the shared prefixes of a branch end; from the first step if one is lost."""
    loaded = {
        name: checkpoint.load_checkpoint(
            branching.branch_folder(branch.folder, name), checkpoint_identity([name])
        )
        for name in branch.needs
    }
    found = [one for one in map(loaded.get, branch.start) if one is not None]
    if len(found) < len(training.specs):
        log.warning(
            "the shared prefix of %d runs is lost; they are trained whole", len(training.specs)
        )
        return
    training.step = training.optimizer.steps = max(one["step"] for one in found)
    training.seconds = sum(one["seconds"] for one in found)
    training.active = [k for k, one in enumerate(found) if one["alive"]]
    training.average.count = max(one["averaged"] for one in found)
    training.trunks = [[(name, part) for name, part in one["trunks"]] for one in found]
    training.points = [_points(one.get("points", ())) for one in found]
    for k, one in enumerate(found):
        for name, mine in training.tensors.items():
            for own, other in zip(mine, one[name], strict=True):
                own[k].copy_(other)


def _points(saved: Sequence[Sequence[Any]]) -> list[tuple[int, dict[str, float]]]:
    return [(int(tokens), dict(scores)) for tokens, scores in saved]
