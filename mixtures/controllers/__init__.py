"""Controllers: weights that move during training. One file each, named as its paper names it.

A controller is a frozen dataclass and pure: it makes a state from starting weights, and a new state
from a state and evidence. The state is plain numbers, lists and dicts, so that it is checkpointed
as it is and a run that is killed and resumed has the same weights. `weights` and `due` of every
state say which weights hold and at which step evidence is wanted next.

What the weights act on is the controller's `moves`: "sampling", the shares of the sequences drawn;
or "loss", where sequences are drawn at the starting weights for good and each one's loss is
multiplied by its domain's weight over its starting weight.
"""

import json
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np

from cuvee.mixtures.domains import Array
from cuvee.mixtures.registry import build, describe
from cuvee.mixtures.runs.run_spec import RunSpec, canonical_json

State = dict[str, Any]
HUGE = 1e9  # beyond it a score decides alone anyway; keeps sums of huge losses finite


@dataclass(frozen=True)
class ControllerEvidence:
    """What a run has learned of itself since the last update. K domains, M held-out targets.

    Attributes:
        step: steps taken.
        counts: sequences drawn of each domain (K,).
        losses: mean training loss of each domain (K,), nats per token; None where none was drawn.
        excess: mean over tokens of max(loss - loss of the reference model, 0) by domain (K,), nats
            per token, None where none was drawn; empty without a reference.
        held_out: loss on each target now (M,), nats per token; empty unless asked for. Beside
            `products` it is that of the sequences whose gradients were taken.
        products: inner products of the domains' gradients with each target's (K, M); empty unless
            asked for.
        norms: lengths of the domains' gradients (K,); empty unless asked for.
        rate: the learning rate now.
        likelihoods: log-probability of held-out examples of the targets under each domain's source
            model (n, K), nats; empty unless asked for.
        lengths: tokens of each example (n,).
    """

    step: int
    counts: tuple[int, ...]
    losses: tuple[float | None, ...]
    excess: tuple[float | None, ...] = ()
    held_out: tuple[float, ...] = ()
    products: tuple[tuple[float, ...], ...] = ()
    norms: tuple[float, ...] = ()
    rate: float = 0.0
    likelihoods: tuple[tuple[float, ...], ...] = ()
    lengths: tuple[int, ...] = ()


class Controller(Protocol):
    """Moves weights. Its fields are its hyper-parameters.

    Attributes:
        name: in recipes and specs.
        moves: what the weights act on, "sampling" or "loss".
        compares: whether it needs excess losses, hence a reference run.
        gradients: whether it needs inner products of gradients.
        mixes: whether it needs the models of `sources`.
        sources: fingerprints of one run per domain, in their order.
        evaluates: whether it wants targets measured at updates.
        evaluated: these targets; empty for each domain's own held-out text.
        by_domain: names of the fields that hold one entry per domain, in their order; so a run is
            the same whatever the order of its domains.
    """

    name: ClassVar[str]
    moves: ClassVar[str] = "sampling"
    compares: ClassVar[bool] = False
    gradients: ClassVar[bool] = False
    mixes: ClassVar[bool] = False
    sources: tuple[str, ...] = ()
    evaluates: ClassVar[bool] = False
    evaluated: tuple[str, ...] = ()
    by_domain: ClassVar[tuple[str, ...]] = ()

    def targets(self, domains: Sequence[str]) -> tuple[str, ...]:
        """Names of what it wants measured at updates, such as "domain/legal"."""
        own = tuple(f"domain/{name}" for name in domains)
        return (self.evaluated or own) if self.evaluates else ()

    @abstractmethod
    def start(self, domains: Sequence[str], weights: Sequence[float], steps: int) -> State:
        """The state before training, of a run of so many steps at these weights (K,)."""

    @abstractmethod
    def update(self, state: State, evidence: ControllerEvidence) -> State:
        """The state after evidence; a new value. A `due` beyond the run's steps is no more."""


def required_runs(spec: RunSpec) -> tuple[str, ...]:
    """Fingerprints of the runs whose models a run needs while it trains."""
    names = [spec.reference] if spec.reference else []
    if spec.controller:
        names += load_controller(json.loads(spec.controller)).sources
    return tuple(dict.fromkeys(names))


def dump_controller(controller: Any) -> str:
    """A controller as the canonical JSON that a spec carries."""
    return canonical_json(describe(controller))


def load_controller(config: Any) -> Controller:
    """A controller from a recipe's mapping or from the decoded JSON of a spec.

    Raises:
        UnknownName: unknown name or field.
        RecipeError: a value that the controller refuses.
    """
    controller: Controller = build("controller", config)
    return controller


def clip_scores(values: Any) -> Array:
    """Numbers within +-`HUGE`; NaN becomes 0, since it says nothing of any domain."""
    return np.nan_to_num(
        np.clip(np.asarray(values, dtype=np.float64), -HUGE, HUGE), nan=0.0, posinf=HUGE
    )


def latest_losses(values: Sequence[float | None], before: Sequence[float]) -> list[float]:
    """Values, with what was there before in the place of a domain that was not drawn."""
    return [
        float(b) if v is None else float(clip_scores(v))
        for v, b in zip(values, before, strict=True)
    ]


def even_steps(steps: int, updates: int) -> list[int]:
    """Steps at which a run of `steps` is cut into `updates` + 1 even parts, each at least one."""
    found = sorted({round(steps * i / (updates + 1)) for i in range(1, updates + 1)})
    return [step for step in found if 0 < step < steps]


def next_time(times: Sequence[int], step: int, steps: int) -> int:
    """The first of the times that is later than a step, or `steps` if there is none."""
    return next((int(time) for time in times if time > step), steps)
