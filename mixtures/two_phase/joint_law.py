"""Joint law: the mixtures of the stable and the decay phase chosen together, by one law over both.

What a domain brings early and what it brings late are told apart by two rounds: fixed mixtures tell
the sum of both, decays that branched off one run the late part. With L the longest decay tried, a
run whose decay t begins at s is a point of a simplex of 2K corners,

    u = ((1 - L) m, L z),   z = (1 - l) m + l t,   l = (1 - s) / L

its mixture before the last L of the run, and the mixture in it; a fixed mixture w is ((1 - L) w,
L w). One law over u is fitted to both rounds. Where it has the form `c + exp(A . u)` the best
stable mixture and decay from a given switch point on are one convex problem over
d = (s m, (1 - s) t), because u is linear in d and the constraints on the run's average are too.

It extrapolates to stable phases that were never trained, so its answer is only a proposal: `anneal`
runs it beside the best decay of the one that was.
"""

import dataclasses
from dataclasses import dataclass
from typing import cast

import numpy as np

from cuvee.mixtures import simplex
from cuvee.mixtures.constraints import Constraints, Limit
from cuvee.mixtures.domains import Array, DomainSet
from cuvee.mixtures.inference.diagnostics import RunTable, bootstrap_fits
from cuvee.mixtures.laws import Exponential, FittedLaw, Law, Prediction
from cuvee.mixtures.laws.bounds import unbounded
from cuvee.mixtures.problem import Problem
from cuvee.mixtures.runs.run_results import RunResult, score_table
from cuvee.mixtures.searches import Search, score
from cuvee.mixtures.searches.exact import Exact
from cuvee.mixtures.two_phase.candidates import Candidates, TwoPhase

COUNT = 10**6  # tokens of a domain twice over are counted in this many parts of its own


@dataclass(frozen=True, eq=False)
class JointSlice:
    """A law over points u as a law over d = (s m, (1 - s) t), if it is of the exponential form.

    Attributes:
        law: fitted to points u (n, 2K).
        longest: L.
        switch: s.
    """

    law: FittedLaw
    longest: float
    switch: float

    @property
    def onto(self) -> Array:
        """u = d . onto, (2K, 2K)."""
        K = cast(Exponential, unbounded(self.law)).exponents.shape[1] // 2
        early, one = (1.0 - self.longest) / self.switch, np.eye(K)
        return np.block([[early * one, (1.0 - early) * one], [np.zeros((K, K)), one]])

    @property
    def offsets(self) -> Array:
        """c (M,)."""
        return cast(Exponential, unbounded(self.law)).offsets

    @property
    def exponents(self) -> Array:
        """A (M, 2K)."""
        return np.asarray(cast(Exponential, unbounded(self.law)).exponents @ self.onto.T)

    def predict(self, W: Array) -> Prediction:
        return self.law.predict(np.asarray(W) @ self.onto)


def joint_point(run: RunResult, longest: float) -> Array:
    """u (2K,) of a run of a fixed mixture or of two stages."""
    first, last = (np.asarray(run.spec.stages[i].weights) for i in (0, -1))
    part = min(run.spec.stages[-1].share / longest, 1.0)
    late = (1.0 - part) * first + part * last
    return np.concatenate([(1.0 - longest) * first, longest * late])


def double_problem(problem: Problem, stable: Array, switch: float) -> Problem:
    """The problem of d: every domain before the switch point and after it.

    Limits hold for the run's average. A KL ball holds for both parts, which suffices, since it is
    convex; sparsity is kept by no other domains than the chosen stable mixture's.

    Args:
        problem: of a mixture.
        stable: the stable mixture (K,) of the fixed round.
        switch: s.
    """
    constraints, parts = problem.constraints, (switch, 1.0 - switch)
    names = (*constraints.domains, *(f"{name} at the end" for name in constraints.domains))
    half = np.repeat([1.0, 0.0], len(stable))
    limits = [
        dataclasses.replace(limit, coefficients=limit.coefficients * 2)
        for limit in constraints.limits
    ]
    limits.append(Limit("before the end", tuple(map(float, half)), switch))
    limits.append(Limit("at the end", tuple(map(float, 1.0 - half)), 1.0 - switch))
    if constraints.most_domains is not None:
        for k in np.flatnonzero(stable <= simplex.ZERO):
            row = np.tile(np.eye(len(stable))[k], 2)
            limits.append(Limit(f"no {names[k]}", tuple(map(float, row)), 0.0))
    domains = DomainSet(
        tuple(
            dataclasses.replace(domain, name=names[i * len(stable) + k],
                                identity=f"{domain.identity} {i}",  # else runs would be alike
                                tokens=max(1, round(domain.tokens * part * COUNT)),
                                drawn_tokens=max(1, round(domain.natural_tokens * part * COUNT)),
                                shard_tokens=0)
            for i, part in enumerate(parts)
            for k, domain in enumerate(problem.domains)
        )
    )  # fmt: skip
    prior = tuple(part * p for part in parts for p in constraints.prior)
    doubled = Constraints(names, tuple(limits), None, prior, constraints.most_kl)
    return dataclasses.replace(
        problem, domains=domains, targets=problem.objective.targets, constraints=doubled
    )


def best_joint(
    tried: Candidates,
    fixed: tuple[RunResult, ...],
    law: Law,
    search: Search,
    count: int,
    rng: np.random.Generator,
) -> TwoPhase | None:
    """The best stable mixture, decay and switch point; None where law or runs do not allow it.

    Args:
        tried: the candidates.
        fixed: runs of fixed mixtures.
        law: over points u of 2K shares.
        search: its price for leaving the natural shares is kept; the search itself is exact.
        count: bootstrap refits.
        rng: the only source of chance.
    """
    sample = _sample(tried, fixed)
    if len(sample.W) < law.rows(sample.W.shape[1]):
        return None
    fit_rng, boot_rng, search_rng = rng.spawn(3)
    seed = int(search_rng.integers(2**31))
    fitted = sample.fit(law, np.arange(len(sample.W)), fit_rng)
    if score.exponential(fitted) is None:
        return None
    how = search if isinstance(search, Exact) else Exact()

    def chosen(model: FittedLaw, switch: float) -> tuple[Array, float]:
        return _chosen(tried, model, switch, how, np.random.default_rng(seed))

    switch, d, gain = tried.best_switch(lambda at: chosen(fitted, at))
    stable, decay = _split(d)
    models = bootstrap_fits(law.coarse(), sample, count, boot_rng)
    others = np.array([_split(chosen(model, switch)[0]) for model in models])
    others = others.reshape(-1, 2, len(stable))
    decays_law = tried.sample.fit(law, np.arange(len(tried.runs)), np.random.default_rng(seed))
    noise = tried.noise(decays_law)  # this law's own deviation holds what it cannot fit as well
    return TwoPhase(switch, decay, gain, others[:, 1], stable, others[:, 0], noise)


def _sample(tried: Candidates, fixed: tuple[RunResult, ...]) -> RunTable:
    """Points u (N, 2K) and scores of all rounds so far, in an order of their own."""
    every = {run.spec.fingerprint: run for run in (*fixed, *tried.runs, *tried.others)}
    runs = tuple(every[name] for name in sorted(every))
    points = np.array([joint_point(run, tried.longest) for run in runs])
    _, Y, _ = score_table(runs, tried.problem.objective.targets)
    return RunTable(points, Y, np.zeros(Y.shape[1]))


def _chosen(
    tried: Candidates, law: FittedLaw, switch: float, how: Search, rng: np.random.Generator
) -> tuple[Array, float]:
    """The best d (2K,) with a switch point, and its gain over the fixed stable mixture."""
    own = JointSlice(law, tried.longest, switch)
    task = double_problem(tried.problem, tried.stable, switch)
    scalar = score.scalarize(task, tried.reference)
    d = how.choose(own, task, tried.reference, rng)
    kept = np.concatenate([switch * tried.stable, (1.0 - switch) * tried.stable])
    now, then = scalar.relaxed(own.predict(np.stack([kept, d])).mean)
    return d, float(now - then)


def _split(d: Array) -> tuple[Array, Array]:
    """Stable mixture and decay (K,) of d (2K,)."""
    stable, decay = np.split(d, 2)
    return simplex.without_rounding(stable), simplex.without_rounding(decay)
