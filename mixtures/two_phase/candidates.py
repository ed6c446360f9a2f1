"""Decay-phase mixtures: candidates that branched off one run, and the best of them.

A candidate follows the mixture of the stable phase ("stable") up to a switch point s and a mixture
t of the decay phase ("decay") from there. Beside the stable mixture itself it is a point of a
simplex with one corner more: with L the longest decay tried,

    v = (1 - l, l t),   l = (1 - s) / L

says which part of the last L of the run still follows the stable mixture and how the rest is spent.
One law over v is fitted to all candidates, whatever their switch point. A decay is short, so the
log-linear law, which is nearly linear over small changes, needs few candidates for it; where the
law has that form its slice at a switch point has it too, and is searched exactly.

Constraints hold for the whole run: a decay is feasible if the run's average is. So a domain with an
epoch cap may take more of the decay than of the run.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import cast

import numpy as np

from cuvee.mixtures import simplex, ties
from cuvee.mixtures.constraints import Constraints, Limit
from cuvee.mixtures.designs import Design
from cuvee.mixtures.domains import Array
from cuvee.mixtures.inference.diagnostics import RunTable, bootstrap_fits
from cuvee.mixtures.laws import Exponential, FittedLaw, Law, Prediction
from cuvee.mixtures.laws.bounds import unbounded
from cuvee.mixtures.problem import Problem
from cuvee.mixtures.runs.run_results import RunResult, score_table
from cuvee.mixtures.runs.run_spec import RunSpec, Stage
from cuvee.mixtures.searches import Search, score

SAME = 1e-3  # shares closer than this make no schedule


def two_stages(stable: Array, decay: Array, switch: float) -> tuple[Stage, ...]:
    """The stable mixture (K,) up to a switch point in (0, 1), then the decay (K,)."""
    parts = ((stable, switch), (decay, round(1.0 - switch, 12)))
    return tuple(Stage(tuple(map(float, w)), share) for w, share in parts)


def is_candidate(problem: Problem, spec: RunSpec) -> bool:
    """Whether a run is a candidate of a problem: two stages, and else as `dataset.is_evidence`."""
    if len(spec.stages) != 2 or spec.controller or spec.domains != problem.domains.names:
        return False
    return spec == problem.staged(spec.stages, spec.seed)


def decay_limits(constraints: Constraints, stable: Array, switch: float) -> Constraints:
    """What a decay (K,) must satisfy for the run's average to satisfy the constraints.

    Exact for limits. A ball around the prior is kept by the decay itself, which suffices, since it
    is convex; so is sparsity by a decay of no other domains than the stable mixture's.
    """
    limits = [
        replace(
            limit,
            bound=(limit.bound - switch * float(np.dot(limit.coefficients, stable))) / (1 - switch),
        )
        for limit in constraints.limits
    ]
    if constraints.most_domains is not None:
        names = constraints.domains
        limits += [
            Limit(f"no {names[k]}", tuple(map(float, np.eye(len(names))[k])), 0.0)
            for k in np.flatnonzero(stable <= 1e-9)
        ]
    return replace(constraints, limits=tuple(limits))


@dataclass(frozen=True, eq=False)
class DecayLaw:
    """A law over points v as a law over decays that begin at one switch point.

    Attributes:
        law: fitted to points (n, K + 1).
        part: l, the part of the longest decay that is spent on t.
    """

    law: FittedLaw
    part: float

    def predict(self, W: Array) -> Prediction:
        return self.law.predict(decay_points(W, self.part))


@dataclass(frozen=True, eq=False)
class ExpDecayLaw(DecayLaw):
    """The same for a law `c_m + exp(A_m . v)`: as shares sum to 1, the slice has that form too."""

    @property
    def offsets(self) -> Array:
        """c (M,)."""
        return cast(Exponential, unbounded(self.law)).offsets

    @property
    def exponents(self) -> Array:
        """A (M, K)."""
        own = cast(Exponential, unbounded(self.law)).exponents
        return np.asarray((1.0 - self.part) * own[:, :1] + self.part * own[:, 1:])


def decay_law(law: FittedLaw, part: float) -> DecayLaw:
    """A law over points v as a law over decays; see `DecayLaw`."""
    kind = DecayLaw if score.exponential(law) is None else ExpDecayLaw
    return kind(law, min(part, 1.0))


def decay_points(decays: Array, part: float) -> Array:
    """Points (n, K + 1) of decays (n, K)."""
    part = min(part, 1.0)  # the longest decay's, after rounding
    return np.hstack([np.full((len(decays), 1), 1.0 - part), part * np.asarray(decays)])


@dataclass(frozen=True, eq=False)
class TwoPhase:
    """How a run should end.

    Attributes:
        switch: where the decay begins, in (0, 1).
        decay: its mixture (K,).
        gain: how much better it is predicted to be than the best fixed mixture to the end.
        refit_decays: what refits of the law choose at the same switch point (B, K).
        stable: the mixture before the decay (K,).
        refit_stables: what the same refits choose for it (B, K); empty where it was not chosen.
        noise: deviation of one run's objective, as the law over decays has it.
    """

    switch: float
    decay: Array
    gain: float
    refit_decays: Array
    stable: Array
    refit_stables: Array
    noise: float = 0.0

    @property
    def promises(self) -> bool:
        """Whether it changes the mixture at all, and is better by more than the noise of a run.

        Less is a tie, which the stable mixture wins: the comparison under fresh seeds would hardly
        show it, and which side of zero it falls on may hang on the last bits of a fit.
        """
        return self.gain > self.noise and bool(np.abs(self.decay - self.stable).max() > SAME)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Of a run that follows it."""
        return two_stages(self.stable, self.decay, self.switch)

    def near(self, other: "TwoPhase") -> bool:
        """Whether another is the same schedule but for a solver's rounding."""
        pairs = ((self.stable, other.stable), (self.decay, other.decay))
        same = all(np.abs(a - b).max() <= SAME for a, b in pairs)
        return same and self.switch == other.switch


@dataclass(frozen=True, eq=False)
class Candidates:
    """The candidates of a problem and what they are judged by.

    Attributes:
        problem: what is to be chosen.
        runs: candidates, and the stable mixture to the end, under one seed.
        stable: mixture of the shared run (K,).
        switches: points at which a decay may begin.
        reference: scores of the natural mixture, of the objective's targets.
        others: trials of schedules that branched off other runs, under the same seed.
    """

    problem: Problem
    runs: tuple[RunResult, ...]
    stable: Array
    switches: tuple[float, ...]
    reference: Array
    others: tuple[RunResult, ...] = ()

    @property
    def longest(self) -> float:
        """L, the part of a run that the longest decay takes."""
        return 1.0 - min(self.switches)

    @property
    def sample(self) -> RunTable:
        """Points v (N, K + 1) and scores; one seed, so noise shows in the residuals alone."""
        rows = [_point(run.spec, self.stable, self.longest) for run in self.runs]
        _, Y, _ = score_table(self.runs, self.problem.objective.targets)
        return RunTable(np.array(rows), Y, np.zeros(Y.shape[1]))

    def noise(self, law: FittedLaw) -> float:
        """Deviation of the objective of one run of the stable mixture, by a law over points v."""
        targets = self.problem.objective.targets
        rows = self.problem.objective.scalarize(targets, self.reference).rows
        deviation = law.predict(np.eye(len(self.stable) + 1)[:1]).sd[0]
        return float(np.sqrt(rows**2 @ deviation**2).max())

    def best_switch(
        self, chosen: Callable[[float], tuple[Array, float]]
    ) -> tuple[float, Array, float]:
        """The switch point from which the most is gained, what is chosen there, and the gain."""
        found = [chosen(switch) for switch in self.switches]
        best = ties.highest(np.array([gain for _, gain in found]))
        return self.switches[best], *found[best]

    def chosen(
        self, law: FittedLaw, switch: float, how: Search, rng: np.random.Generator
    ) -> tuple[Array, float]:
        """The best decay (K,) from a switch point on, and its gain over the stable mixture."""
        own = decay_law(law, (1.0 - switch) / self.longest)
        restricted = replace(
            self.problem,
            targets=self.problem.objective.targets,
            constraints=decay_limits(self.problem.constraints, self.stable, switch),
        )
        scalar = score.scalarize(restricted, self.reference)
        decay = how.choose(own, restricted, self.reference, rng)
        corner = law.predict(np.eye(len(self.stable) + 1)[:1]).mean
        over = scalar.relaxed(corner) - scalar.relaxed(own.predict(decay[None]).mean)
        return simplex.without_rounding(decay), float(over[0])


def best_decay(
    tried: Candidates, law: Law, search: Search, count: int, rng: np.random.Generator
) -> TwoPhase:
    """The best decay over all switch points, by a law over the candidates.

    Args:
        tried: the candidates.
        law: over points of K + 1 shares.
        search: from the law to a decay.
        count: bootstrap refits.
        rng: the only source of chance.

    Raises:
        EvidenceError: too few candidates for the law.
    """
    sample = tried.sample
    fit_rng, boot_rng, search_rng = rng.spawn(3)
    seed = int(search_rng.integers(2**31))
    fitted = sample.fit(law, np.arange(len(sample.W)), fit_rng)
    switch, decay, gain = tried.best_switch(
        lambda at: tried.chosen(fitted, at, search, np.random.default_rng(seed))
    )
    coarse = search.coarse()
    others = [
        tried.chosen(model, switch, coarse, np.random.default_rng(seed))[0]
        for model in bootstrap_fits(law.coarse(), sample, count, boot_rng)
    ]
    refit_decays = np.array(others).reshape(-1, len(tried.stable))
    none = np.empty((0, len(tried.stable)))
    noise = tried.noise(fitted)
    return TwoPhase(switch, decay, gain, refit_decays, tried.stable, none, noise)


def _point(spec: RunSpec, stable: Array, longest: float) -> Array:
    """v (K + 1,) of a candidate, or of the stable mixture to the end."""
    if len(spec.stages) == 1:
        return np.asarray(np.eye(len(stable) + 1)[0])
    last = spec.stages[1]
    return np.asarray(decay_points(np.array([last.weights]), last.share / longest)[0])


def draw_decays(
    problem: Problem,
    stable: Array,
    switch: float,
    n: int,
    *,
    design: Design,
    rng: np.random.Generator,
) -> Array:
    """Decays (n, K) to try: half as the design draws them, half of those half way to the stable."""
    within = decay_limits(problem.constraints, stable, switch)
    drawn: Array = np.array(design.draw(problem.domains, within, n, rng), dtype=np.float64)
    toward = within.project(stable)
    drawn[1::2] = 0.5 * (drawn[1::2] + toward)
    return drawn
