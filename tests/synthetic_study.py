"""A realistic study made from known numbers, for the tests of the report and of the record.

Scores follow a log-linear world with interference between domains, so that the pictures look like
those of a real study; nothing is trained.
"""

import functools
from dataclasses import replace

import numpy as np
from scipy import stats

from cuvee.mixtures import surface
from cuvee.mixtures.constraints import constrain
from cuvee.mixtures.domains import Domain, DomainSet
from cuvee.mixtures.objectives import WeightedMean
from cuvee.mixtures.problem import Problem, Proxy
from cuvee.mixtures.recommendation import Candidate, Estimate, LawEvidence, Noise, Recommendation
from cuvee.mixtures.registry import build
from cuvee.mixtures.runs.run_results import Failed, RunResult, Score, score_table
from cuvee.mixtures.runs.run_spec import Stage
from cuvee.tasks.study.study import DomainFigures, Study
from cuvee.tasks.validation.paired import ConfirmedRun, paired_confirmation

NAMES = ("encyclopedia", "legal", "fiction", "news", "code", "manuals", "science", "dialogue")
TOKENS = (4_200_000, 900_000, 2_600_000, 1_900_000, 3_100_000, 700_000, 1_200_000, 500_000)
TASKS = ("reading", "facts", "clauses", "completion", "definitions")
RECIPE = """\
name: synthetic
method: {name: regmix, law: lightgbm, runs: 24}   # <b>not bold</b>
objective: {mean: {domain/legal: 2, domain/encyclopedia: 1, task/clauses: 1}}
proxy: {size: 0.6M, tokens: 500k}
constraints: {epochs: 4}
"""


def _problem(names):
    domains = DomainSet(
        tuple(
            Domain(n, t, int(t * 3.6), f"{i:064x}", t // 900)
            for i, (n, t) in enumerate(zip(names, TOKENS, strict=True))
        )
    )
    targets = tuple(f"domain/{n}" for n in names) + tuple(f"task/{t}" for t in TASKS)
    return Problem(
        domains=domains,
        targets=targets,
        objective=WeightedMean({targets[0]: 1.0, targets[1]: 2.0, "task/clauses": 1.0}),
        constraints=constrain(domains, full_tokens=20_000_000, epochs=8.0),
        proxy=Proxy("0.6M", 500_000),
        full_tokens=20_000_000,
    )


class World:
    """Bits per byte by target: a floor plus a decaying exponential of a blend of shares."""

    def __init__(self, problem, seed=7):
        rng = np.random.default_rng(seed)
        K, M = len(problem.domains), len(problem.targets)
        self.problem = problem
        self.blend = 0.12 * rng.random((M, K))
        for m in range(M):
            self.blend[m, m % K] = 1.0
        self.floor = rng.uniform(1.2, 2.2, M)
        self.noise = rng.uniform(0.005, 0.03, M)

    def truth(self, weights):
        return self.floor + 0.9 * np.exp(-3.0 * self.blend @ np.asarray(weights))

    def run(self, weights, seed):
        rng = np.random.default_rng([seed, int(1e6 * weights[0]), int(1e6 * weights[1])])
        spec = self.problem.spec(weights, seed)
        row = self.truth(weights) + self.noise * rng.standard_normal(len(self.floor))
        steps = np.linspace(10_000, 500_000, 60).astype(int)
        loss = 2.2 * row.mean() + 4.5 * np.exp(-steps / 60_000) + 0.03 * rng.standard_normal(60)
        accuracy = {
            f"task/{t}/accuracy": Score(0.25 + 0.1 * rng.random(), 0.02, 400) for t in TASKS
        }
        tokens = tuple(int(w * 500_000) for w in spec.weights)
        return RunResult(
            spec=spec,
            scores={t: Score(v, 0.01, 120) for t, v in zip(self.problem.targets, row, strict=True)},
            details=accuracy,
            curve=tuple((int(s), float(x)) for s, x in zip(steps, loss, strict=True)),
            tokens=tokens,
            epochs=tuple(n / t for n, t in zip(tokens, TOKENS, strict=True)),
            flops=1.9e12,
            seconds=25.5,
        )


def _estimates(world, weights, width=0.02):
    return tuple(Estimate(v, v - width, v + width) for v in world.truth(weights).tolist())


def _candidate(world, name, weights):
    targets = _estimates(world, weights)
    row = np.array([e.mean for e in targets])
    value = float(world.problem.objective.value(row, world.problem.targets, row))
    return Candidate(
        name, tuple(map(float, weights)), Estimate(value, value - 0.012, value + 0.012), targets
    )


def _laws(observed):
    rng = np.random.default_rng(5)
    laws = []
    for name, spread, chosen in (("log_linear", 0.05, False), ("lightgbm", 0.02, True)):
        predicted = observed + spread * rng.standard_normal(len(observed))
        rho = float(stats.spearmanr(observed, predicted).statistic)
        laws.append(
            LawEvidence(
                law=name,
                spearman=rho,
                decision_accuracy=0.5 + rho / 2.2,
                error=float(np.abs(observed - predicted).mean()),
                coverage=0.87,
                spearman_targets=tuple(np.round(rng.uniform(0.2, 0.95, 13), 3).tolist()),
                held_out=tuple(zip(observed.tolist(), predicted.tolist(), strict=True)),
                learning_curve=((8, 0.41), (12, 0.62), (18, 0.77), (24, rho)) if chosen else (),
                chosen=chosen,
            )
        )
    return tuple(laws)


def _noise(world, observed):
    rows = [
        Noise(t, float(s), float(s) * (0.8 if i == 11 else 3 + i), 4)
        for i, (t, s) in enumerate(zip(world.problem.targets, world.noise, strict=True))
    ]
    return (*rows, Noise("objective", 0.009, float(np.std(observed)), 4))


def _confirm(world, mixtures, seeds):
    problem, runs = world.problem, []
    for name, weights in mixtures.items():
        for seed in seeds:
            result = world.run(weights, seed)
            row = np.array([result.scores[t].value for t in problem.targets])
            value = float(problem.objective.value(row, problem.targets, row))
            runs.append(ConfirmedRun(name, value, result))

    return paired_confirmation(runs, problem.targets, objective=problem.objective)


def synthetic_study(*, names=NAMES, confirmed=True, failures=1, seeds=(101, 102, 103)):
    """Eight domains, thirteen targets, thirty runs with one failure, and a confirmation."""
    problem = _problem(names)
    world = World(problem)
    natural, uniform = problem.domains.natural, problem.domains.uniform
    rng = np.random.default_rng(3)
    draws = rng.dirichlet(6 * natural, 24)
    history = [world.run(w, 1) for w in draws]
    history += [world.run(w, seed) for w in (natural, uniform) for seed in (1, 2, 3)]
    for i in range(failures):
        history[5 + i] = Failed(history[5 + i].spec, "the loss became NaN at step 212 of 244")
    runs = [r for r in history if isinstance(r, RunResult)]
    rows = np.array([[r.scores[t].value for t in problem.targets] for r in runs])
    observed = problem.objective.value(rows, problem.targets, rows[0])
    best = runs[int(np.argmin(observed))].spec.weights
    weights = np.array([0.24, 0.36, 0.06, 0.05, 0.05, 0.08, 0.10, 0.06])
    candidates = tuple(
        _candidate(world, n, w)
        for n, w in (
            ("recommended", weights),
            ("natural", natural),
            ("uniform", uniform),
            ("best observed", best),
        )
    )
    gains = tuple(
        (c.name, Estimate(g := c.objective.mean - candidates[0].objective.mean, g - 0.02, g + 0.02))
        for c in candidates[1:]
    )
    recommendation = Recommendation(
        domains=names,
        targets=problem.targets,
        stages=(Stage(tuple(weights.tolist())),),
        intervals=tuple((max(0.0, w - 0.05), min(1.0, w + 0.04)) for w in weights.tolist()),
        candidates=candidates,
        gains=gains,
        laws=_laws(observed),
        noise=_noise(world, observed),
        active=(f"{names[1]} at most 8 epochs (share 0.36)",),
        epochs=tuple(problem.domains.epochs(weights, 20_000_000).tolist()),
        evidence=tuple(r.spec.fingerprint for r in runs),
        failed=failures,
        verdict="usable: the predicted gain over natural and uniform exceeds the noise",
        warnings=("the signal to noise of task/completion is 0.8, below 2: it says nothing",),
        method='{"law":"lightgbm","name":"regmix","runs":24}',
    )
    mixtures = {"recommended": weights, "natural": natural, "uniform": uniform}
    return Study(
        name="synthetic",
        recipe_text=RECIPE,
        problem=problem,
        recommendation=recommendation,
        history=tuple(history),
        corpus={
            d.name: DomainFigures(
                d.documents, d.bytes, d.tokens, 17 * i, {"reading": 3 * i, "clauses": i % 3}
            )
            for i, d in enumerate(problem.domains)
        },
        versions={"cuvee": "0.1.0", "numpy": "2.1.0", "python": "3.11.9", "torch": "2.8.0"},
        confirmation=_confirm(world, mixtures, seeds) if confirmed else None,
        untrained={
            **dict.fromkeys(problem.targets, 8.1),
            **{f"task/{t}/accuracy": 0.251 for t in TASKS},
        },
        chance={f"task/{t}/accuracy": 0.25 for t in TASKS},
        minutes=7.4,
        trained_now=30,
        reused=9,
        tokens_per_second=21_300.0,
        seed=11,
        started="2025-01-02T03:04:05+00:00",
    )


def explored_study(**changes):
    """The synthetic study with the surface of a law fitted to its runs."""
    plain = synthetic_study()
    plain = replace(plain, problem=replace(plain.problem, **changes))
    found, law = fitted() if "constraints" not in changes else law_of(plain)
    return replace(plain, recommendation=replace(plain.recommendation, surface=found)), law


def law_of(plain):
    """A surface and the law that it passes through, of a study's runs within its constraints."""
    W, Y, _ = score_table(plain.runs, plain.problem.targets)
    law = build("law", "kriging").fit(W, Y, np.full(Y.shape[1], 0.01), np.random.default_rng(0))
    known = np.array([c.weights for c in plain.recommendation.candidates])
    found = surface.law_surface(law, plain.problem.constraints, known, np.random.default_rng(1))
    return found, law


@functools.cache
def fitted():
    """The same without further constraints; an objective has no say in it."""
    return law_of(synthetic_study())
