"""Reference models: what some controllers compare a run with, token by token.

Excess losses are clipped per token, so a reference run's mean losses do not suffice: its model must
score the very tokens that the run trains on. Parameters are not kept for every run of a study. A
reference's are made again from its spec, which determines them, when a run first asks for them on a
machine, and are kept in a folder from then on. So they are never a precious file: one that is lost
or damaged costs one training.
"""

from collections.abc import Callable
from pathlib import Path

from mixtures.errors import EvidenceError
from mixtures.history import RunSpec
from proxies import checkpoint, ladder
from proxies.model import Model
from proxies.train import Data, Progress, ignore, train


def model(
    spec: RunSpec,
    corpus: Data,
    folder: Path,
    *,
    device: str,
    report: Callable[[Progress], None] = ignore,
) -> Model:
    """The trained model of a run, a pack of one.

    Args:
        spec: of the run.
        corpus: what it trained on.
        folder: where reference models are kept, each in a folder of its own.
        device: where the model shall be.
        report: of the training, if one is needed.

    Raises:
        EvidenceError: the run diverges, or is itself compared with a reference.
        CuveeError: as `train`.
    """
    if spec.reference:
        raise EvidenceError(
            f"run {spec.fingerprint[:12]} cannot be a reference: it needs one itself"
        )
    place = folder / spec.fingerprint
    kept = checkpoint.load(place, [spec.fingerprint])
    if kept is None:
        trained = train([spec], corpus, device=device, report=report)
        if trained.likelihood is None:
            raise EvidenceError(
                f"the reference run {spec.fingerprint[:12]} diverges; lower proxy.rate"
            )
        found = trained.likelihood.model
        buffers = [values.cpu() for values in found.parameters.buffers]
        checkpoint.save(place, 0, {"identity": [spec.fingerprint], "buffers": buffers})
        return found
    plan = ladder.plan(spec.size, spec.tokens, corpus.vocabulary, schedule=spec.schedule)
    found = Model(
        plan.rung, corpus.vocabulary, [spec.seed], device=device, precision=spec.precision
    )
    for mine, theirs in zip(found.parameters.buffers, kept["buffers"], strict=True):
        mine.copy_(theirs)
    return found
