"""Controller runtime: what a pack's controllers see of the training, and what they do to it.

Controllers are pure (`mixtures.controllers`). Here their evidence is gathered: losses by domain, by
how much they exceed a reference model's on the same tokens, losses on held-out windows, products of
gradients. What they answer is applied: to the stream, at the start of a block that was marked for
it, or to the losses.

Held-out windows are the last of each domain's held-out split, while scores are taken from its
beginning: unless the split is short, no text steers a run that the run is scored on.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cuvee.mixtures.controllers import Controller, ControllerEvidence, State, load_controller
from cuvee.mixtures.errors import EvidenceError, RecipeError
from cuvee.mixtures.runs.run_spec import RunSpec
from cuvee.proxies.data.stream import Stream
from cuvee.proxies.model.transformer import PackModel
from cuvee.proxies.train import gradients
from cuvee.proxies.train.controller_evidence import (
    WINDOWS,
    held_out_windows,
    mean_losses,
    model_losses,
    thin_trajectory,
)

EXAMPLES = 32  # of a target, where they are read once


class ControllerRuntime:
    """The controllers of a pack, none or one per run.

    Args:
        specs: the runs.
        streams: their streams.
        corpus: has held-out text, if a controller asks for it.
        steps: of each run.
        device: where losses are.
        references: trained reference models (packs of one) by fingerprint of their run.

    Raises:
        EvidenceError: a controller needs a reference that is not there.
        RecipeError: a controller that does not fit the run, or asks for what is not measured.
        DataError: a held-out split is shorter than one window.
    """

    def __init__(
        self,
        specs: Sequence[RunSpec],
        streams: Sequence[Stream],
        corpus: Any,
        *,
        steps: int,
        device: str,
        references: Mapping[str, PackModel],
    ) -> None:
        self.models = references
        self.specs, self.streams, self.steps, self.device = specs, streams, steps, device
        self.controllers = [controller_of(spec) for spec in specs]
        self.references = [
            reference_model_of(spec, c, references)
            for spec, c in zip(specs, self.controllers, strict=True)
        ]
        size, context = len(specs[0].domains), streams[0].context
        self.sums = torch.zeros(3, len(specs), size, device=device)  # losses, excess, sequences
        self.states: list[State | None] = []
        self.moved: list[list[tuple[int, list[float]]]] = []
        self.windows: list[Tensor | None] = []
        self.probes: dict[int, gradients.Probe] = {}  # by the number of gradients
        for spec, stream, c in zip(specs, streams, self.controllers, strict=True):
            state = c.start(spec.keys, spec.stages[0].weights, steps) if c else None
            names = c.targets(spec.domains) if c else ()
            self.states.append(state)
            self.moved.append([])
            count = EXAMPLES if c is not None and c.mixes else WINDOWS
            self.windows.append(held_out_windows(corpus, names, context, count) if names else None)
            if state is not None:
                self._apply(len(self.moved) - 1, 0, stream)

    @property
    def idle(self) -> bool:
        """Whether no run has a controller."""
        return not any(self.controllers)

    def factors(self, domains_KB: NDArray[np.int64]) -> Tensor | None:
        """What each sequence's loss counts (K, B), 1 on average; None where nothing is weighed."""
        if not any(c is not None and c.moves == "loss" for c in self.controllers):
            return None
        rows = np.ones(domains_KB.shape)
        for k, (c, state) in enumerate(zip(self.controllers, self.states, strict=True)):
            if c is not None and state is not None and c.moves == "loss":
                drawn = np.asarray(self.specs[k].stages[0].weights)[domains_KB[k]]
                rows[k] = np.asarray(state["weights"])[domains_KB[k]] / drawn
                rows[k] /= max(float(rows[k].mean()), 1e-12)
        return torch.from_numpy(rows).to(self.device, torch.float32)

    def after_step(
        self, tokens_KBT: Tensor, losses_KBT: Tensor, domains_KB: NDArray[np.int64]
    ) -> None:
        """Add a step's losses to the sums by domain."""
        index = torch.from_numpy(domains_KB).to(self.device)
        values = losses_KBT.mean(2).to(self.sums.dtype)
        self.sums[0].scatter_add_(1, index, values)
        self.sums[2].scatter_add_(1, index, torch.ones_like(values))
        for k, model in enumerate(self.references):
            if model is not None:
                known = model_losses(model, 0, tokens_KBT[k], model.compute).to(self.device)
                excess = (losses_KBT[k] - known).clamp_min(0).mean(1)
                self.sums[1, k].scatter_add_(0, index[k], excess.to(self.sums.dtype))

    def before_step(self, step: int, model: PackModel, active: Sequence[int], rate: float) -> None:
        """Give evidence to the controllers that are due before a step, and do what they say."""
        due = [k for k in active if (s := self.states[k]) is not None and s["due"] == step]
        if not due:
            return
        total, over, count = self.sums.tolist()
        for k in due:
            state, c = self.states[k], self.controllers[k]
            if c is None or state is None:
                continue
            drawn = [int(n) for n in count[k]]
            compared = self._compared(model, k, step) if c.gradients else gradients.NOTHING
            likelihoods = self._mixed(k, c) if c.mixes else ()
            unmeasured = c.gradients or bool(likelihoods)
            found = ControllerEvidence(
                step=step,
                counts=tuple(drawn),
                losses=mean_losses(total[k], drawn),
                excess=mean_losses(over[k], drawn) if self.references[k] is not None else (),
                held_out=compared.losses if unmeasured else self._measured(model, k),
                products=compared.products,
                norms=compared.norms,
                rate=rate,
                likelihoods=likelihoods,
                lengths=(self.streams[k].context,) * len(likelihoods),
            )
            self.states[k] = c.update(state, found)
            self._apply(k, step, self.streams[k])
            self.sums[:, k] = 0

    def trajectory(self, k: int, tokens: int) -> tuple[tuple[int, tuple[float, ...]], ...]:
        """(tokens seen, weights until the next point) of a run with `tokens` per step."""
        return tuple((step * tokens, w) for step, w in thin_trajectory(self.moved[k], self.steps))

    def state(self) -> dict[str, Any]:
        """Everything that a resumed training needs, as tensors and plain values."""
        return {
            "states": self.states,
            "sums": self.sums,
            "moved": [[[step, list(w)] for step, w in moved] for moved in self.moved],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on as the runtime that gave this state."""
        self.states = list(state["states"])
        self.sums.copy_(state["sums"])
        self.moved = [[(int(s), list(w)) for s, w in moved] for moved in state["moved"]]

    def _apply(self, k: int, step: int, stream: Stream) -> None:
        state, c = self.states[k], self.controllers[k]
        if state is None or c is None:
            return
        if c.moves == "sampling":
            stream.reweight(step, state["weights"])
            if state["due"] < self.steps:
                stream.mark(state["due"])
        if not self.moved[k] or self.moved[k][-1][1] != state["weights"]:
            before = [point for point in self.moved[k] if point[0] < step]
            self.moved[k] = [*before, (step, list(state["weights"]))]

    def _compared(self, model: PackModel, k: int, step: int) -> gradients.Compared:
        """Gradients of domains and targets, compared; the targets' losses are of the same pass."""
        windows, stream = self.windows[k], self.streams[k]
        if windows is None:
            return gradients.NOTHING
        of_domains = [stream.windows[stream.order.index(i)] for i in range(len(stream.order))]
        texts = gradients.draw_windows(of_domains, seed=stream.seed, step=step)
        size = len(texts) + len(windows)
        if size not in self.probes:
            self.probes[size] = gradients.Probe(model, size)
        targets = windows[:, : gradients.WINDOWS]
        return self.probes[size].compare(model, k, texts, targets)

    def _mixed(self, k: int, c: Controller) -> tuple[tuple[float, ...], ...]:
        """Log-probability of every held-out window under every source model (n, K)."""
        windows = self.windows[k]
        if windows is None:
            return ()
        columns = []
        for name in c.sources:
            if name not in self.models:
                raise EvidenceError(
                    f"the model of source run {name[:12]} is not there: train one run on each "
                    "domain alone first"
                )
            own = [model_losses(self.models[name], 0, target).sum(1) for target in windows]
            columns.append(-torch.cat(own).cpu())
        table: list[list[float]] = torch.stack(columns, dim=1).tolist() if columns else []
        return tuple(tuple(row) for row in table)

    def _measured(self, model: PackModel, k: int) -> tuple[float, ...]:
        windows = self.windows[k]
        if windows is None:
            return ()
        return tuple(float(model_losses(model, k, target).mean()) for target in windows)


def controller_of(spec: RunSpec) -> Controller | None:
    """The controller of a run; None for one at fixed shares.

    Raises:
        RecipeError: it cannot move a run of several stages.
    """
    if not spec.controller:
        return None
    if len(spec.stages) > 1:
        raise RecipeError(
            f"a run under a controller starts from one mixture; got {len(spec.stages)} stages"
        )
    return load_controller(json.loads(spec.controller))


def reference_model_of(
    spec: RunSpec, c: Controller | None, references: Mapping[str, PackModel]
) -> PackModel | None:
    """The reference model of a run; None where none is needed.

    Raises:
        EvidenceError: one is needed and not there.
    """
    if c is None or not c.compares:
        return None
    if spec.reference not in references:
        raise EvidenceError(
            f"run {spec.fingerprint[:12]} is compared with a reference run "
            f"({spec.reference[:12] or 'none named'}) that is not there: name one in "
            "`RunSpec.reference` and train it first"
        )
    return references[spec.reference]
