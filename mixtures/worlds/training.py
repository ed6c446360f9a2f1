"""Training in a world: what a controller sees there, and what it does.

A run has `STEPS` steps. Held-out losses are the world's truth at what was drawn so far: after a
part f of the run at mean weights w the exposure is f w, and a world's truth is as good at exposures
that sum to f < 1 as at mixtures. So its targets fall as training goes on, by what is drawn, and
a run under a controller ends where a run at its mean weights ends.

Training losses by domain are those of the targets where the world has as many targets as domains
(target/k is then domain k's own text), else falling powers of each domain's exposure that differ
between domains. Noise is drawn from the run's fingerprint, so that equal specs give equal runs.

The inner product of the gradients of a domain and a target is, to first order, how far a step on
the domain lets the target fall; here it is that fall, and every gradient is as long as the largest
of them. An example of a target has the target's loss under the model of each source, give or take
what sets it apart from the other examples.
"""

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cuvee.mixtures import simplex
from cuvee.mixtures.controllers import Controller, ControllerEvidence, State, load_controller
from cuvee.mixtures.domains import Array, DomainSet
from cuvee.mixtures.errors import RecipeError
from cuvee.mixtures.runs.run_spec import RunSpec

STEPS = 100
EXAMPLES, LENGTH, APART = 50, 20, 0.3  # of a target; tokens of one; nats per token between them
RATE = 0.01  # learning rate that controllers are told
BATCH = 32  # sequences of a step
NOISE = 0.02  # standard deviation of a step's training loss, nats
Trajectory = tuple[tuple[int, tuple[float, ...]], ...]


def training_losses(world: Any, corpus: DomainSet, exposure: Array, tokens: float) -> Array:
    """Training loss of each domain (K,) at an exposure (K,), nats per token."""
    if world.count == world.size:
        return target_losses(world, corpus, exposure, tokens)
    rng = np.random.default_rng([world.size, 77])
    floor, power = rng.uniform(1.0, 3.0, world.size), rng.uniform(0.1, 0.6, world.size)
    return np.asarray(floor + 3.0 * (1.0 + STEPS * exposure) ** -power)


def target_losses(world: Any, corpus: DomainSet, exposure: Array, tokens: float) -> Array:
    """The truth of every target (M,) at an exposure (K,)."""
    passes = corpus.epochs(exposure, tokens)
    return np.asarray(world.truth(exposure[None], passes[None])[0], dtype=np.float64)


def simulate_run(world: Any, corpus: DomainSet, spec: RunSpec) -> Trajectory:
    """(tokens, weights) of a run under its controller.

    Raises:
        RecipeError: the controller asks for a target that the world has not.
    """
    run = _Run(world, corpus, spec)
    state = run.controller.start(spec.domains, spec.stages[0].weights, STEPS)
    points = [(0, tuple(map(float, state["weights"])))]
    step = 0
    while state["due"] < STEPS:
        ahead = int(state["due"]) - step
        step += ahead
        state = run.controller.update(state, run.advance(state, ahead, step))
        if points[-1][1] != tuple(state["weights"]):
            points.append((round(step / STEPS * spec.tokens), tuple(map(float, state["weights"]))))
    return tuple(points)


class _Run:
    """A run under way: what has been drawn, and what that has taught."""

    def __init__(self, world: Any, corpus: DomainSet, spec: RunSpec) -> None:
        self.world, self.corpus, self.spec = world, corpus, spec
        self.controller: Controller = load_controller(json.loads(spec.controller))
        known = [f"target/{m}" for m in range(world.count)]
        wanted = self.controller.targets(spec.domains)
        self.columns = [known.index(name) for name in wanted if name in known]
        if len(self.columns) != len(wanted):
            raise RecipeError(f"this world has {', '.join(known)}; asked for {', '.join(wanted)}")
        self.chance = np.random.default_rng(int(spec.fingerprint[:15], 16))
        self.exposure = np.zeros(len(corpus))

    def advance(self, state: State, ahead: int, step: int) -> ControllerEvidence:
        """Train so many steps up to a step, and tell what was seen."""
        weights = np.asarray(state["weights"], dtype=np.float64)
        self.exposure = self.exposure + weights * ahead / STEPS
        shares = weights if self.controller.moves == "sampling" else self._start
        drawn = simplex.whole_counts(shares, BATCH * ahead)
        noise = NOISE * self.chance.standard_normal(len(weights))
        seen = training_losses(self.world, self.corpus, self.exposure, self.spec.tokens) + noise
        products = self._products() if self.controller.gradients else ()
        likelihoods = self._likelihoods() if self.controller.mixes else ()
        over = np.maximum(seen - self._reference(), 0.0) if self.controller.compares else None
        return ControllerEvidence(
            step=step,
            counts=tuple(map(int, drawn)),
            losses=_where(seen, drawn),
            excess=_where(over, drawn) if over is not None else (),
            held_out=tuple(map(float, self._measured(self.exposure)[self.columns])),
            products=products,
            norms=(float(np.abs(products).max(initial=0.0)),) * len(weights) if products else (),
            rate=RATE,
            likelihoods=likelihoods,
            lengths=(LENGTH,) * len(likelihoods),
        )

    def _likelihoods(self) -> tuple[tuple[float, ...], ...]:
        """Log-probabilities of examples of every target under the model of each source (n, K)."""
        rows = np.array([self._measured(e)[self.columns] for e in np.eye(len(self.exposure))])
        means = np.repeat(rows.T, EXAMPLES, axis=0)
        single = APART * self.chance.standard_normal(means.shape)
        return tuple(tuple(map(float, row)) for row in -LENGTH * (means + single))

    @property
    def _start(self) -> Array:
        return np.asarray(self.spec.stages[0].weights, dtype=np.float64)

    def _measured(self, exposure: Array) -> Array:
        return target_losses(self.world, self.corpus, exposure, self.spec.tokens)

    def _products(self) -> tuple[tuple[float, ...], ...]:
        """Fall of each target by a step on each domain (K, M)."""
        now = self._measured(self.exposure)
        ahead = [self._measured(self.exposure + e / STEPS) for e in np.eye(len(self.exposure))]
        return tuple(tuple(map(float, (now - after)[self.columns])) for after in ahead)

    def _reference(self) -> Array:
        """Losses of the reference run's model, whose weights the controller names."""
        weights = np.asarray(getattr(self.controller, "reference", ()) or self._start)
        return training_losses(self.world, self.corpus, weights, self.spec.tokens)


def _where(values: Array, drawn: NDArray[np.int64]) -> tuple[float | None, ...]:
    return tuple(float(v) if n else None for v, n in zip(values, drawn, strict=True))


def mean_weights(points: Trajectory, tokens: int) -> Array:
    """Weights (K,) of a trajectory averaged over a run's tokens."""
    begins = [start for start, _ in points]
    lengths = np.diff([*begins, tokens])
    return simplex.normalized(lengths @ np.array([w for _, w in points]))
