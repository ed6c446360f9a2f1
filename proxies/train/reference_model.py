"""Reference models: what some controllers compare a run with, token by token.

Excess losses are clipped per token, so a reference run's mean losses do not suffice: its model must
score the very tokens that the run trains on. Parameters are not kept for every run of a study. A
reference's are made again from its spec, which determines them, when a run first asks for them on a
machine, and are kept in a folder from then on. So they are never a precious file: one that is lost
or damaged costs one training. Models of single domains, which a method may mix, are kept at once.
"""

from collections.abc import Callable
from pathlib import Path

from cuvee.mixtures.errors import EvidenceError
from cuvee.mixtures.runs.run_spec import RunSpec
from cuvee.proxies import ladder
from cuvee.proxies.data.objects import within
from cuvee.proxies.interfaces import Progress, TrainingCorpus, ignore_progress
from cuvee.proxies.model.transformer import PackModel
from cuvee.proxies.train import checkpoint
from cuvee.proxies.train.branching import BranchPlan
from cuvee.proxies.train.trainer import train_pack


def train_reference_model(
    spec: RunSpec,
    corpus: TrainingCorpus,
    folder: str | Path,
    *,
    device: str,
    report: Callable[[Progress], None] = ignore_progress,
    starts: str = "",
) -> PackModel:
    """The trained model of a run, a pack of one.

    Args:
        spec: of the run.
        corpus: what it trained on.
        folder: where reference models are kept, each in a folder of its own.
        device: where the model shall be.
        report: of the training, if one is needed.
        starts: folder of the checkpoints that specs name as their start.

    Raises:
        EvidenceError: the run diverges, or is itself compared with a reference.
        CuveeError: as `train`.
    """
    if spec.reference:
        raise EvidenceError(
            f"run {spec.fingerprint[:12]} cannot be a reference: it needs one itself"
        )
    place = within(folder, spec.fingerprint)
    kept = checkpoint.load_checkpoint(place, [spec.fingerprint])
    if kept is None:
        branch = BranchPlan(starts=starts)
        trained = train_pack([spec], corpus, device=device, report=report, branch=branch)
        if trained.likelihood is None:
            raise EvidenceError(
                f"the reference run {spec.fingerprint[:12]} diverges; lower proxy.rate"
            )
        keep_source_model(spec, trained.likelihood.model, 0, folder)
        return trained.likelihood.model
    plan = ladder.training_plan(spec.size, spec.tokens, corpus.vocabulary, schedule=spec.schedule)
    found = PackModel(
        plan.model_size, corpus.vocabulary, [spec.seed], device=device, precision=spec.precision
    )
    for mine, theirs in zip(found.parameters.buffers, kept["buffers"], strict=True):
        mine.copy_(theirs)
    return found


def keep_source_model(spec: RunSpec, pack: PackModel, k: int, folder: str | Path) -> None:
    """Keep one model of a trained pack as the model of its run.

    Raises:
        StorageError: the folder cannot be written.
    """
    buffers = [values[k : k + 1].cpu().clone() for values in pack.parameters.buffers]
    state = {"identity": [spec.fingerprint], "buffers": buffers}
    checkpoint.save_checkpoint(within(folder, spec.fingerprint), 0, state)


def is_source(spec: RunSpec) -> bool:
    """Whether a run is one on a single domain, at fixed shares."""
    return not spec.controller and max(spec.weights) == 1.0
