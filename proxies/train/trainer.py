"""The pack trainer: K proxies of one shape, each on its own mixture and seed.

A model's result does not depend on its neighbours: products, norms and clipping act per model, its
stream and its initial values depend on its own spec, and one that diverges is set aside while the
others go on unchanged. On a GPU nothing in a step makes the host wait for the device; losses are
read at reports only.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cuvee.mixtures.errors import DataError
from cuvee.mixtures.runs.run_results import Failed
from cuvee.mixtures.runs.run_spec import RunSpec
from cuvee.proxies import ladder
from cuvee.proxies.data.stream import Stream
from cuvee.proxies.interfaces import (
    NO_EVALUATIONS,
    IntermediateEvaluations,
    Progress,
    Trained,
    TrainedRun,
    TrainingCorpus,
    ignore_progress,
)
from cuvee.proxies.model.likelihood import PackLikelihood
from cuvee.proxies.model.transformer import PackModel
from cuvee.proxies.train import batching, training_state, warm_start
from cuvee.proxies.train.branching import WHOLE_RUN, BranchPlan
from cuvee.proxies.train.controller_runtime import ControllerRuntime
from cuvee.proxies.train.device import keep_memory
from cuvee.proxies.train.optimizer import AdamW, Average
from cuvee.proxies.train.recorded_step import RecordedStep
from cuvee.proxies.train.sequences import PackSequences

SAVE_SECONDS = 15.0  # between checkpoints: what a kill may cost
UNRECORDED = 3  # steps of a GPU before one is recorded: libraries choose kernels, take memory
REPORTS = 64  # per run, which is also the number of points of its curve


def train_pack(
    specs: Sequence[RunSpec],
    corpus: TrainingCorpus,
    *,
    device: str = "cpu",
    checkpoints: str | Path | None = None,
    report: Callable[[Progress], None] = ignore_progress,
    references: Mapping[str, PackModel] | None = None,
    branch: BranchPlan = WHOLE_RUN,
    evaluations: IntermediateEvaluations = NO_EVALUATIONS,
) -> Trained:
    """Train one proxy per spec, each under its controller if it names one.

    Args:
        specs: runs that can train together (`group_into_packs` groups them).
        corpus: what they train on.
        device: "cpu" or "cuda".
        checkpoints: folder of this pack's checkpoints. A run that finds one goes on from there; the
            caller removes the folder (`remove_folder`) once the results are stored.
        report: called every one or two percent of the steps.
        references: trained models (packs of one) that controllers compare with, by the fingerprint
            of their run.
        branch: the shared prefixes that the runs begin with, and whether one is to be kept.
        evaluations: at the models on their way; what was seen becomes the points of their runs.

    Returns:
        What came of the runs; nothing where the branch ends with a shared prefix.

    Raises:
        CuveeError: a size, schedule, mixture or corpus that cannot be trained on (`training_plan`,
            `require_one_pack`, `Stream`, `ControllerRuntime`), or a disk that cannot hold a
            checkpoint.
    """
    if device == "cpu":
        keep_memory()
        torch.set_num_threads(1)  # one process per core; a shared thread pool waits for itself
    training = Training(specs, corpus, device=device, references=references or {}, branch=branch)
    training_state.resume(training, checkpoints, branch)
    end = branch.until or training.plan.steps
    saved = time.monotonic()
    every = max(1, training.plan.steps // REPORTS)
    while training.step < end and training.alive:
        training.advance()
        if training.step in evaluations.steps:
            training.evaluate(evaluations)
        if training.step % every and training.step < end:
            continue
        report(training.progress(every))
        if checkpoints is not None and time.monotonic() - saved >= SAVE_SECONDS:
            corpus.check()  # before what it taught is kept, or goes on to another training
            training_state.save_pack_checkpoint(training, checkpoints)
            saved = time.monotonic()
    corpus.check()
    if branch.keep:
        training_state.save_branch_checkpoints(training, branch)
        return Trained(None, ())
    return training.result(every)


class Training:
    """A pack in training: everything that changes from step to step, and one step of it."""

    def __init__(
        self,
        specs: Sequence[RunSpec],
        corpus: TrainingCorpus,
        *,
        device: str,
        references: Mapping[str, PackModel],
        branch: BranchPlan = WHOLE_RUN,
    ) -> None:
        batching.require_one_pack(specs)
        first = specs[0]
        self.specs, self.device = tuple(specs), device
        self.plan = ladder.training_plan(
            first.size,
            first.tokens,
            corpus.vocabulary,
            schedule=first.schedule,
            rate=first.rate,
        )
        self.identity = training_state.checkpoint_identity(
            branch.keep or [spec.fingerprint for spec in specs], [spec.keys for spec in specs]
        )
        self.streams = pack_streams(specs, corpus, self.plan)
        self.sequences = PackSequences(self.streams, device)
        self.model = PackModel(
            self.plan.model_size,
            corpus.vocabulary,
            [spec.seed for spec in specs],
            device=device,
            precision=first.precision,
        )
        for k, spec in enumerate(specs):
            if spec.start:
                warm_start.fill_from_start(self.model, k, branch.starts, spec.start)
        self.optimizer = AdamW(self.model.parameters)
        averaged = round(first.average * self.plan.steps)
        self.average = Average(
            self.model.parameters, self.plan.steps - averaged if averaged else None
        )
        self.trunks: list[list[tuple[str, float]]] = [[] for _ in specs]
        self.points: list[list[tuple[int, dict[str, float]]]] = [[] for _ in specs]
        self.step = self._unrecorded = 0
        self.seconds = 0.0
        self._recorded: RecordedStep | None = None
        self.losses = torch.full((self.plan.steps, len(specs)), math.nan, device=device)
        self.norms = torch.full_like(self.losses, math.nan)
        self.active = list(range(len(specs)))
        self.controllers = ControllerRuntime(
            self.specs,
            self.streams,
            corpus,
            steps=self.plan.steps,
            device=device,
            references=references,
        )

    @property
    def alive(self) -> bool:
        """Whether any model is still finite, as far as the host knows."""
        return bool(self.active)

    def advance(self) -> None:
        """Take one step with every model."""
        began = time.perf_counter()
        if not self.controllers.idle:
            rate = self.plan.rate(self.step)
            self.controllers.before_step(self.step, self.model, self.active, rate)
        tokens_KBT, domains_KB = self.sequences.batch(self.step)
        if self.device != "cpu" and self.controllers.idle and self._unrecorded >= UNRECORDED:
            self._replay(tokens_KBT)
        else:
            self._train(tokens_KBT, domains_KB)
        self.average.add(self.step)
        self.step += 1
        self.seconds += time.perf_counter() - began

    def _train(self, tokens_KBT: torch.Tensor, domains_KB: NDArray[np.int64]) -> None:
        """Forward, backward and update, an operation after the other."""
        self._unrecorded += 1
        self.model.parameters.clear()
        factors_KB = self.controllers.factors(domains_KB)
        mean_K, losses_KBT = self.model.loss(tokens_KBT[..., :-1], tokens_KBT[..., 1:], factors_KB)
        self.model.backward(mean_K)
        norms_K = self.optimizer.norms()
        plain_K = mean_K.detach() if factors_KB is None else losses_KBT.mean((1, 2))
        self.losses[self.step], self.norms[self.step] = plain_K, norms_K
        if self.device == "cpu":
            self._drop(self.step, self.step + 1)
        self.optimizer.step(self.plan.rate(self.step), norms_K, self.active)
        if not self.controllers.idle:
            self.controllers.after_step(tokens_KBT, losses_KBT, domains_KB)

    def _replay(self, tokens_KBT: torch.Tensor) -> None:
        """The same on a GPU where nothing steers, as it was recorded."""
        if self._recorded is None:
            self._recorded = RecordedStep(self.model, self.optimizer, tokens_KBT)
        self.optimizer.steps += 1
        rate = self.plan.rate(self.step)
        self._recorded.replay(tokens_KBT, rate, self.optimizer.steps)
        self.losses[self.step] = self._recorded.mean_K
        self.norms[self.step] = self._recorded.norms_K

    def evaluate(self, evaluations: IntermediateEvaluations) -> None:
        """Measure the models as they are; what is no finite number is left out."""
        self._drop(0, self.step)
        tokens = self.step * self.plan.batch * self.plan.model_size.context
        seen = evaluations.measure(PackLikelihood(self.model, self.active)) if self.active else ()
        for k, scores in zip(self.active, seen, strict=True):
            if scores and all(map(math.isfinite, scores.values())):
                self.points[k].append((tokens, dict(scores)))

    def progress(self, every: int) -> Progress:
        """Where the pack is; the only place where a GPU is waited for."""
        began = time.perf_counter()
        self._drop(max(0, self.step - every), self.step)
        self.seconds += time.perf_counter() - began  # which a GPU took for the steps before
        losses = self._mean((self.step - 1) // every * every, self.step)  # as in the run's curve
        tokens = self.step * self.plan.batch * self.plan.model_size.context
        shown = tuple(
            loss if k in self.active else math.nan for k, loss in enumerate(losses.tolist())
        )
        return Progress(self.step, self.plan.steps, tokens, shown)

    @property
    def tensors(self) -> dict[str, list[torch.Tensor]]:
        """What changes from step to step on the device; the model axis comes first."""
        return {
            "buffers": self.model.parameters.buffers,
            "first": self.optimizer.first,
            "second": self.optimizer.second,
            "means": self.average.means,
            "losses": [self.losses.T],
            "norms": [self.norms.T],
        }

    def result(self, every: int) -> Trained:
        """Runs and likelihood of a training that has ended."""
        self._drop(0, self.step)
        self._recorded = None  # its memory is free for scoring
        self.average.apply()
        runs = tuple(self._run(k, every) for k in range(len(self.specs)))
        keep = self.active
        return Trained(PackLikelihood(self.model, keep) if keep else None, runs)

    def _run(self, k: int, every: int) -> TrainedRun | Failed:
        spec, stream = self.specs[k], self.streams[k]
        if k not in self.active:
            return Failed(spec, self._reason(k))
        ends = sorted({*range(every, self.plan.steps, every), self.plan.steps})
        size = self.plan.batch * self.plan.model_size.context
        curve = [
            (stop * size, float(self._mean(start, stop)[k]))
            for start, stop in zip([0, *ends[:-1]], ends, strict=True)
        ]
        trajectory = self.controllers.trajectory(k, size)
        if not trajectory and len(spec.stages) > 1:
            trajectory = tuple((start * size, weights) for start, weights in stream.state())
        return TrainedRun(
            spec=spec,
            curve=tuple(curve),
            trajectory=trajectory,
            tokens=stream.drawn(),
            epochs=stream.epochs(),
            flops=self.plan.flops,
            seconds=self.seconds / len(self.specs),
            trunks=tuple(self.trunks[k]),
            points=tuple(self.points[k]),
        )

    def _reason(self, k: int) -> str:
        bad = ~(torch.isfinite(self.losses[:, k]) & torch.isfinite(self.norms[:, k]))
        step = int(bad.nonzero()[0, 0])
        loss, norm = float(self.losses[step, k]), float(self.norms[step, k])
        return (
            f"diverged at step {step} of {self.plan.steps}: loss is {loss:.4g}, gradient norm is "
            f"{norm:.4g}; a lower rate may help"
        )

    def _drop(self, start: int, stop: int) -> None:
        """Set aside, for good, the models with a loss or gradient that was not finite in a step."""
        values = torch.stack([self.losses[start:stop], self.norms[start:stop]])
        finite = torch.isfinite(values).all(1).all(0).tolist()
        self.active = [k for k in self.active if finite[k]]

    def _mean(self, start: int, stop: int) -> torch.Tensor:
        return self.losses[max(0, start) : stop].cpu().mean(0)


def pack_streams(
    specs: Sequence[RunSpec], corpus: TrainingCorpus, plan: ladder.TrainingPlan
) -> list[Stream]:
    """One stream per spec.

    Raises:
        DataError: the corpus lacks a domain, or holds other text than the spec was written for.
    """
    have = {domain.name: domain for domain in corpus.domains}
    for spec in specs:
        held = spec.heldout or ("",) * len(spec.domains)
        for name, identity, valid in zip(spec.domains, spec.identities, held, strict=True):
            if name not in have:
                raise DataError(f"the corpus has no domain {name!r}; it has: {', '.join(have)}")
            for found, wanted in ((have[name].identity, identity), (have[name].heldout, valid)):
                if wanted and found != wanted:
                    raise DataError(
                        f"domain {name!r} of the corpus is not the one that the run was planned on "
                        f"({found[:12]} against {wanted[:12]}); plan the study again"
                    )
    tokens = {name: corpus.train(name).tokens for name in specs[0].domains}
    return [
        Stream(spec, tokens, context=plan.model_size.context, batch=plan.batch, steps=plan.steps)
        for spec in specs
    ]
