"""World: domains, targets, a problem, results for specs, and the optimum that every world has."""

import functools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, Protocol

import numpy as np
from scipy.optimize import minimize

from cuvee.mixtures import simplex
from cuvee.mixtures.constraints import Constraints, constrain, feasible
from cuvee.mixtures.domains import Array, Domain, DomainSet
from cuvee.mixtures.objectives import Objective, WeightedMean
from cuvee.mixtures.problem import Problem, Proxy
from cuvee.mixtures.runs.run_results import Outcome, RunResult, Score
from cuvee.mixtures.runs.run_spec import RunSpec, Stage
from cuvee.mixtures.worlds import training

TOKENS = 1_000_000  # of the smallest domain
MILLION = 10**6
RUN_TOKENS = 500_000  # of a proxy


class World(Protocol):
    """A truth over mixtures of `size` domains for `count` targets. Its fields are its nature."""

    name: ClassVar[str]

    @property
    def size(self) -> int:
        """K domains."""
        ...

    @property
    def count(self) -> int:
        """M targets."""
        ...

    def truth(self, W: Array, epochs: Array) -> Array:
        """Scores without noise (n, M) of mixtures W (n, K) at passes `epochs` (n, K)."""
        ...

    def noise(self, W: Array) -> Array:
        """Standard deviation over seeds (n, M)."""
        ...


def world_domains(world: World) -> DomainSet:
    """The world's domains, a0, a1, ...: each larger than the one before, so that natural shares
    are uneven."""
    return DomainSet(
        tuple(
            Domain(
                name=f"a{k}",
                tokens=TOKENS * (k + 1),
                bytes=4 * TOKENS * (k + 1),
                identity=f"world-{k}",
            )
            for k in range(world.size)
        )
    )


def world_targets(world: World) -> tuple[str, ...]:
    """The world's targets, target/0, target/1, ..."""
    return tuple(f"target/{m}" for m in range(world.count))


def world_problem(
    world: World,
    *,
    objective: Objective | None = None,
    constraints: Constraints | None = None,
    full_tokens: int = RUN_TOKENS,
) -> Problem:
    """The problem that a world poses; by default the plain mean of its targets, unconstrained."""
    corpus = world_domains(world)
    names = world_targets(world)
    return Problem(
        domains=corpus,
        targets=names,
        objective=objective or WeightedMean(dict.fromkeys(names, 1.0)),  # type: ignore[arg-type]
        constraints=constraints or constrain(corpus, full_tokens=full_tokens),
        proxy=Proxy("world", RUN_TOKENS),
        full_tokens=full_tokens,
        scoring="world",
    )


def at_scale(world: Any, parameters: int, tokens: int, size: str = "") -> Any:
    """A world at one scale, seen through its wrappers; itself if it knows no scale.

    Args:
        world: a world.
        parameters: of the model; 0 takes those of `size`, or of the largest size.
        tokens: of the run.
        size: a step of the ladder, where parameters are not given.
    """
    if hasattr(world, "at_scale"):
        return world.at_scale(parameters, tokens, size)
    if hasattr(world, "world"):
        return replace(world, world=at_scale(world.world, parameters, tokens, size))
    return world


def _run(world: World, spec: RunSpec) -> RunResult:
    world = at_scale(world, 0, spec.tokens, spec.size)
    corpus = world_domains(world)
    moved = training.simulate_run(world, corpus, spec) if spec.controller else ()
    weights = training.mean_weights(moved, spec.tokens) if moved else spec.weights
    W = weights[None]
    epochs = corpus.stored_epochs(W, spec.tokens) / spec.repetition
    taught = W
    if hasattr(world, "exposure"):  # a world in which the order of training matters
        taught = world.exposure(spec.stages)[None]
    truth, sd = world.truth(taught, epochs)[0], world.noise(W)[0]
    chance = np.random.default_rng(int(_rounded(spec).fingerprint[:16], 16))
    values, units = truth + sd * chance.standard_normal(truth.size), {}
    if hasattr(world, "unit_scores"):  # a world that is measured on items
        units = world.unit_scores(weights, truth, chance)
        values = np.array([one.value for one in units.values()])
    return RunResult(
        spec=spec,
        scores={
            name: Score(float(value), float(s), 100)
            for name, value, s in zip(world_targets(world), values, sd, strict=True)
        },
        trajectory=moved,
        tokens=tuple(map(int, simplex.whole_counts(weights, spec.tokens))),
        epochs=tuple(map(float, epochs[0])),
        units=units,
    )


def _rounded(spec: RunSpec) -> RunSpec:
    """The spec in parts per million: runs that differ by a solver's rounding have equal luck."""
    parts = (simplex.whole_counts(np.asarray(s.weights), MILLION) / MILLION for s in spec.stages)
    stages = (Stage(tuple(map(float, w)), s.share) for w, s in zip(parts, spec.stages, strict=True))
    return replace(spec, stages=tuple(stages))


def value_of(world: World, task: Problem, exposure: Array) -> float:
    """True objective at full scale of one exposure (K,)."""
    return float(_value(world, task, exposure[None])[0])


def _value(world: World, task: Problem, W: Array) -> Array:
    """True objective (n,) at full scale of mixtures W (n, K)."""
    world = at_scale(world, task.full_parameters, task.full_tokens)
    natural = task.domains.natural[None]
    reference = world.truth(natural, task.domains.epochs(natural, task.full_tokens))[0]
    scores = world.truth(W, task.domains.epochs(W, task.full_tokens))
    return task.objective.value(scores, task.targets, reference)


@functools.lru_cache(maxsize=64)
def _optimum(world: Any, task: Problem) -> Array:
    """The best feasible mixture (K,) of the truth: 20 000 draws, the 5 best polished by SLSQP."""
    rng = np.random.default_rng(0)
    points = feasible.draw_inside(
        lambda n: np.concatenate(
            [rng.dirichlet(np.full(world.size, a), n // 3 + 1) for a in (0.3, 1.0, 3.0)]
        ),
        task.constraints,
        20_000,
        rng,
    )
    values = _value(world, task, points)
    best = points[np.argsort(values, kind="stable")[:5]]
    found = np.vstack([best, *[_polished(world, task, start) for start in best]])
    keep = found[task.constraints.satisfied(found)]
    return np.asarray(keep[int(np.argmin(_value(world, task, keep)))], dtype=np.float64)


def _polished(world: World, task: Problem, start: Array) -> Array:
    rows, bounds = task.constraints.matrix
    conditions: list[dict[str, Any]] = [{"type": "eq", "fun": lambda w: w.sum() - 1}]
    if len(rows):
        conditions.append({"type": "ineq", "fun": lambda w: bounds - rows @ w})
    result = minimize(
        lambda w: float(_value(world, task, np.clip(w, 0, None)[None])[0]),
        start,
        bounds=[
            (0.0, 1.0 if x > 0 or task.constraints.most_domains is None else 0.0) for x in start
        ],
        constraints=conditions,
        method="SLSQP",
        options={"maxiter": 300, "ftol": 1e-12},
    )
    return simplex.normalized(np.clip(result.x, 0.0, None))[None]


class Answers:
    """What every world does with its truth; an abstract level without state."""

    def __call__(self: Any, specs: Sequence[RunSpec]) -> list[Outcome]:
        """Train in the world: one result per spec, the same for the same spec."""
        return [_run(self, spec) for spec in specs]

    def optimum(self: Any, task: Problem) -> Array:
        """The best feasible mixture (K,) of the truth."""
        return _optimum(self, task)

    def regret(self: Any, task: Problem, weights: Array) -> float:
        """True objective of a mixture minus the optimum's, at full scale; at least about 0."""
        values = _value(self, task, np.vstack([weights, self.optimum(task)]))
        return float(values[0] - values[1])

    def noise(self: Any, W: Array) -> Array:
        """Standard deviation over seeds (n, M): none, where a world says nothing else."""
        return np.zeros((len(W), self.count))


class Around(Answers):
    """What a world around another `world` takes from it, unless it says otherwise."""

    world: Any

    @property
    def size(self) -> int:
        """K domains."""
        return int(self.world.size)

    @property
    def count(self) -> int:
        """M targets."""
        return int(self.world.count)

    def truth(self, W: Array, epochs: Array) -> Array:
        """Scores without noise (n, M) of mixtures W (n, K) at passes `epochs` (n, K)."""
        return np.asarray(self.world.truth(W, epochs), dtype=np.float64)

    def noise(self, W: Array) -> Array:
        """Standard deviation over seeds (n, M)."""
        return np.asarray(self.world.noise(W), dtype=np.float64)
