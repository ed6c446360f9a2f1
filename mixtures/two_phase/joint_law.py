"""Joint law: the mixtures of the stable and the decay phase chosen together, by one law over both.

What a domain brings early and what it brings late are told apart by two rounds: fixed mixtures tell
the sum of both, decays that branched off one run the late part. With L the longest decay tried, a
run whose decay t begins at s is a point of a simplex of 2K corners,

    u = ((1 - L) m, L z),   z = (1 - l) m + l t,   l = (1 - s) / L

its mixture before the last L of the run, and the mixture in it; a fixed mixture w is ((1 - L) w,
L w). One law over u is fitted to both rounds. The best stable mixture and decay from a given switch
point on are one problem over d = (s m, (1 - s) t), because u is linear in d and the constraints on
the run's average are too; it is convex where the law has the form `c + exp(A . u)`.

It extrapolates to stable phases that were never trained, so its answer is only a proposal: `anneal`
runs it beside the best decay of the one that was.
"""

import dataclasses
from dataclasses import dataclass
from typing import cast

import numpy as np

from cuvee.mixtures import simplex, ties
from cuvee.mixtures.constraints import Constraints, Limit
from cuvee.mixtures.domains import Array, DomainSet
from cuvee.mixtures.errors import EvidenceError
from cuvee.mixtures.inference.diagnostics import RunTable, bootstrap_fits
from cuvee.mixtures.inference.optimum import Optimum, search_refits
from cuvee.mixtures.inference.recommend import DRAWS
from cuvee.mixtures.laws import (
    Exponential,
    FittedLaw,
    Law,
    Prediction,
    log_slopes,
    posterior_draws,
    predicted_means,
)
from cuvee.mixtures.laws.bounds import score_limits, unbounded
from cuvee.mixtures.problem import Problem
from cuvee.mixtures.runs.run_results import RunResult, score_table
from cuvee.mixtures.runs.run_spec import Stage
from cuvee.mixtures.searches import Search, score
from cuvee.mixtures.searches.auto import Auto
from cuvee.mixtures.searches.exact import Exact
from cuvee.mixtures.searches.mirror import Mirror
from cuvee.mixtures.threads import one_thread
from cuvee.mixtures.two_phase.candidates import Candidates, TwoPhase, two_stages

REFITS = 10  # searched, where a caller names no number
TINY = 1e-12  # share below which a derivative counts no more
COUNT = 10**6  # tokens of a domain twice over are counted in this many parts of its own


@dataclass(frozen=True, eq=False)
class JointSlice:
    """A law over points u as a law over d = (s m, (1 - s) t).

    Attributes:
        law: fitted to points u (n, 2K).
        longest: L.
        switch: s.
    """

    law: FittedLaw
    longest: float
    switch: float

    def points(self, d: Array) -> Array:
        """u (n, 2K) of d (n, 2K)."""
        stable, decay = np.split(d, 2, axis=-1)
        early = (1.0 - self.longest) / self.switch
        return np.concatenate([early * stable, (1.0 - early) * stable + decay], axis=-1)

    def predict(self, W: Array) -> Prediction:
        return self.law.predict(self.points(np.asarray(W)))

    def means(self, W: Array) -> Array:
        """Predicted scores (n, M) alone."""
        return predicted_means(self.law, self.points(W))

    def slopes(self, W: Array) -> tuple[Array, Array] | None:
        """As `laws.log_slopes`."""
        u = self.points(W)
        found = log_slopes(self.law, u)
        if found is None:
            return None
        by_early, by_late = np.split(found[1] / np.maximum(u, TINY)[:, None, :], 2, axis=-1)
        early = (1.0 - self.longest) / self.switch
        by_stable = early * by_early + (1.0 - early) * by_late
        return found[0], np.concatenate([by_stable, by_late], axis=-1) * W[:, None, :]


@dataclass(frozen=True, eq=False)
class ExpJointSlice(JointSlice):
    """The same for a law `c_m + exp(A_m . u)`: the slice has that form too."""

    @property
    def offsets(self) -> Array:
        """c (M,)."""
        return cast(Exponential, unbounded(self.law)).offsets

    @property
    def exponents(self) -> Array:
        """A (M, 2K)."""
        by_early, by_late = np.split(cast(Exponential, unbounded(self.law)).exponents, 2, axis=1)
        early = (1.0 - self.longest) / self.switch
        return np.hstack([early * by_early + (1.0 - early) * by_late, by_late])


def joint_slice(law: FittedLaw, longest: float, switch: float) -> JointSlice:
    """A law over points u as a law over d; see `JointSlice`."""
    kind = JointSlice if score.exponential(law) is None else ExpJointSlice
    return kind(law, longest, switch)


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
    shares = np.concatenate([part * problem.reference for part in parts]).tolist()
    return dataclasses.replace(
        problem,
        domains=domains,
        targets=problem.objective.targets,
        objective=problem.objective.relative_to(tuple(zip(names, shares, strict=True))),
        constraints=doubled,
    )


def best_joint(
    tried: Candidates,
    fixed: tuple[RunResult, ...],
    law: Law,
    search: Search,
    count: int,
    rng: np.random.Generator,
) -> TwoPhase | None:
    """The best stable mixture, decay and switch point; None where there are too few runs.

    Args:
        tried: the candidates.
        fixed: runs of fixed mixtures.
        law: over points u of 2K shares.
        search: laws of the form c + exp(A.u) are searched exactly, and this one's price for leaving
            the natural shares is kept; others by this one, or where it is `auto` by `mirror`.
        count: bootstrap refits.
        rng: the only source of chance.
    """
    sample = _sample(tried, fixed)
    if len(sample.W) < law.rows(sample.W.shape[1]):
        return None
    fit_rng, boot_rng, search_rng = rng.spawn(3)
    seed = int(search_rng.integers(2**31))
    fitted = sample.fit(law, np.arange(len(sample.W)), fit_rng)
    if search.convex_only and score.exponential(fitted) is None:
        return None
    how = _searched_by(search, fitted)

    def chosen(model: FittedLaw, switch: float, by: Search) -> tuple[Array, float]:
        return _chosen(tried, model, switch, by, np.random.default_rng(seed))

    switch, d, gain = tried.best_switch(lambda at: chosen(fitted, at, how))
    stable, decay = _split(d)
    models = bootstrap_fits(law.coarse(), sample, count, boot_rng)
    others = np.array([_split(chosen(model, switch, how.coarse())[0]) for model in models])
    others = others.reshape(-1, 2, len(stable))
    decays_law = tried.sample.fit(law, np.arange(len(tried.runs)), np.random.default_rng(seed))
    noise = tried.noise(decays_law)  # this law's own deviation holds what it cannot fit as well
    return TwoPhase(switch, decay, gain, others[:, 1], stable, others[:, 0], noise)


@one_thread
def choose_schedule(
    law: Law,
    search: Search,
    problem: Problem,
    runs: tuple[RunResult, ...],
    *,
    refits: int = REFITS,
    rng: np.random.Generator,
) -> tuple[tuple[Stage, ...], Optimum]:
    """The best schedule of two stages by one law over runs of two stages and of fixed mixtures.

    Args:
        law: over points u of 2K shares.
        search: from the law to d.
        problem: what is chosen; constraints hold for the run's average.
        runs: of which some have two stages; the schedule's switch point is the commonest of theirs.
        refits: posterior draws, or bootstrap refits of laws without a posterior, that are searched.
        rng: the only source of chance.

    Returns:
        The stages, and the optimum over d (2K,) with its refits: beside the schedule stand the
        natural and the uniform mixture to the end, and the best run.

    Raises:
        EvidenceError: no run of two stages, or too few for the law.
    """
    last = [run.spec.stages[-1].share for run in runs if len(run.spec.stages) == 2]
    if not last:
        raise EvidenceError("a schedule needs runs of two stages; all of these are of one mixture")
    longest, switch = max(last), 1.0 - max(sorted(set(last)), key=last.count)
    names = problem.objective.targets
    table = RunTable(
        np.array([joint_point(run, longest) for run in runs]),
        score_table(runs, names)[1],
        np.zeros(len(names)),
        score_limits(names, problem.limits),
    )
    fit_rng, boot_rng, search_rng = rng.spawn(3)
    fitted = table.fit(law, np.arange(len(runs)), fit_rng)
    drawn = posterior_draws(fitted, max(refits, DRAWS), boot_rng)
    if drawn is None:
        drawn = bootstrap_fits(law.coarse(), table, refits, boot_rng)
    search = _searched_by(search, fitted)
    own, *others = (joint_slice(each, longest, switch) for each in (fitted, *drawn))
    task = double_problem(problem, problem.domains.uniform, switch)
    reference = predicted_means(own, task.reference[None])[0]
    best = runs[ties.lowest(score.scalarize(task, reference).relaxed(table.Y))].spec.stages
    fixed = [problem.domains.natural] * 2, [problem.domains.uniform] * 2
    rows = [*fixed, [np.asarray(best[i].weights) for i in (0, -1)]]
    points = (np.concatenate([switch * m, (1 - switch) * t]) for m, t in rows)
    baselines = dict(zip(("natural", "uniform", "best observed"), points, strict=True))
    found = search_refits(
        (own, others[:refits]),
        search,
        (task, table.bounds),
        baselines,
        rng=search_rng,
        more=others[refits:],
    )
    return two_stages(*_split(found.weights), switch), found


def _searched_by(search: Search, fitted: FittedLaw) -> Search:
    """The search for d: random draws hardly ever meet the limits of both stages."""
    if score.exponential(fitted) is not None:
        return search if isinstance(search, Exact) else Exact()
    return Mirror() if isinstance(search, Auto) else search


def _sample(tried: Candidates, fixed: tuple[RunResult, ...]) -> RunTable:
    """Points u (N, 2K) and scores of all rounds so far, in an order of their own."""
    every = {run.spec.fingerprint: run for run in (*fixed, *tried.runs, *tried.others)}
    runs = tuple(every[name] for name in sorted(every))
    points = np.array([joint_point(run, tried.longest) for run in runs])
    names = tried.problem.objective.targets
    _, Y, _ = score_table(runs, names)
    limits = score_limits(names, tried.problem.limits)
    return RunTable(points, Y, np.zeros(Y.shape[1]), limits)


def _chosen(
    tried: Candidates, law: FittedLaw, switch: float, how: Search, rng: np.random.Generator
) -> tuple[Array, float]:
    """The best d (2K,) with a switch point, and its gain over the fixed stable mixture."""
    own = joint_slice(law, tried.longest, switch)
    task = double_problem(tried.problem, tried.stable, switch)
    scalar = score.scalarize(task, tried.reference)
    d = how.choose(own, task, tried.reference, rng)
    kept = np.concatenate([switch * tried.stable, (1.0 - switch) * tried.stable])
    now, then = scalar.relaxed(predicted_means(own, np.stack([kept, d])))
    return d, float(now - then)


def _split(d: Array) -> tuple[Array, Array]:
    """Stable mixture and decay (K,) of d (2K,)."""
    stable, decay = np.split(d, 2)
    return simplex.without_rounding(stable), simplex.without_rounding(decay)
