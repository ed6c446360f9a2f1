"""Static: the fixed mixtures that need no proxy, as the baselines that often win.

`natural` is the shares of tokens that exist, `uniform` equal shares, `temperature` the natural
shares to a power (multilingual sampling, as in Conneau et al. 2020, arXiv 1911.02116, section 3.1,
alpha), `unimax` as even as a cap on epochs allows (Chung et al. 2023, arXiv 2304.09151, algorithm
1). All are run under the same seeds; the one with the best mean objective is recommended, or the
one that is named.
"""

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np

from cuvee.mixtures import ties
from cuvee.mixtures.domains import Array, DomainSet
from cuvee.mixtures.errors import RecipeError, UnknownName
from cuvee.mixtures.inference import paired_trial
from cuvee.mixtures.inference.paired_trial import BASELINES, Answer
from cuvee.mixtures.inference.weight_warnings import unit_warnings
from cuvee.mixtures.methods import Method
from cuvee.mixtures.methods.controlled import check_counts
from cuvee.mixtures.problem import Problem
from cuvee.mixtures.recommendation import Recommendation
from cuvee.mixtures.registry import register
from cuvee.mixtures.runs.run_results import History
from cuvee.mixtures.runs.run_spec import RunSpec, Stage
from cuvee.mixtures.simplex import temper

KINDS = ("natural", "uniform", "temperature", "unimax")


@register("method")
@dataclass(frozen=True)
class Static(Method):
    """Baselines under a few seeds.

    Take it where no search can be paid, or first: it trains the mixtures that need none (natural,
    uniform, tempered, UniMax) and says which is best.

    Attributes:
        choose: one of `natural`, `uniform`, `temperature`, `unimax`, or "best".
        temperature: power of the natural shares, in [0, 1]; 0 is uniform, 1 natural.
        epochs: UniMax's cap on passes over a domain at full scale.
        trials: seeds under which every mixture is trained.
    """

    name = "static"
    directed = False  # none of the mixtures was made for the objective

    choose: Annotated[str, Literal[(*KINDS, "best")]] = "best"
    temperature: float = 0.5
    epochs: float = 4.0
    trials: int = 3

    def __post_init__(self) -> None:
        check_counts(seeds=2, trials=self.trials)
        if self.choose not in (*KINDS, "best"):
            raise UnknownName("choice of method 'static'", self.choose, (*KINDS, "best"))
        if not 0 <= self.temperature <= 1 or self.epochs <= 0:
            raise RecipeError(
                "static needs temperature in [0, 1] and epochs > 0; "
                f"got {self.temperature} and {self.epochs}"
            )

    def ask(
        self, problem: Problem, history: History, rng: np.random.Generator
    ) -> tuple[RunSpec, ...]:
        every = [spec for specs in self._specs(problem).values() for spec in specs]
        return paired_trial.missing_specs(
            history, (*paired_trial.baseline_specs(problem, self.trials), *every)
        )

    def recommend(
        self, problem: Problem, history: History, rng: np.random.Generator
    ) -> Recommendation:
        specs = self._specs(problem)
        name = self.choose if self.choose != "best" else self._best(problem, history, specs)
        weights = np.asarray(specs[name][0].weights)
        stages = (Stage(tuple(map(float, weights))),)
        notes = (f"the {name} mixture was chosen", *unit_warnings(problem.domains, weights))
        if self.choose == "best":
            notes += (
                f"it is the best of {len(specs)} by the runs that its gains are measured on, "
                "which flatters it a little; confirm it",
            )
        answer = Answer(samples=weights[None], stages=stages, notes=notes)
        others = {k: v for k, v in specs.items() if k not in BASELINES}
        found = paired_trial.conclude_trial(self, problem, history, answer, others)
        kept = tuple(w for w in found.warnings if not w.startswith("one answer only"))
        return dataclasses.replace(found, warnings=kept)

    def _specs(self, problem: Problem) -> dict[str, tuple[RunSpec, ...]]:
        """Runs by mixture; those that break a constraint are moved to the nearest that does not."""
        natural = problem.domains.natural
        mixtures = {
            "natural": natural,
            "uniform": problem.domains.uniform,
            "temperature": temper(natural, self.temperature),
            "unimax": unimax(problem.domains, problem.full_tokens, self.epochs),
        }
        return {
            name: paired_trial.trial_specs(
                problem, (Stage(tuple(map(float, _feasible(problem, w)))),), self.trials
            )
            for name, w in mixtures.items()
        }

    def _best(
        self, problem: Problem, history: History, specs: dict[str, tuple[RunSpec, ...]]
    ) -> str:
        first = paired_trial.baseline_specs(problem, self.trials)[: self.trials]
        natural = paired_trial.run_scores(
            paired_trial.require_runs(history, first, "natural run"), problem
        )
        scalar = problem.objective.scalarize(problem.targets, natural.mean(axis=0))
        means = {
            name: float(scalar.relaxed(paired_trial.run_scores(runs, problem)).mean())
            for name, wanted in specs.items()
            if (runs := paired_trial.runs_of(history, wanted))
        }
        return list(means)[ties.lowest(np.array(list(means.values())))]


def _feasible(problem: Problem, weights: Array) -> Array:
    """The weights to the last digit if they are feasible, so that they are one run with others."""
    if bool(problem.constraints.satisfied(weights)):
        return weights
    return problem.constraints.project(weights)


def unimax(domains: DomainSet, tokens: float, epochs: float) -> Array:
    """Shares (K,) as even as a cap on epochs allows, for a run of so many tokens.

    From the smallest domain up, each gets an even part of what is left of the budget, or its cap. A
    budget beyond every cap is shared in proportion to the caps.
    """
    given, left = np.zeros(len(domains)), float(tokens)
    order = np.argsort(domains.tokens, kind="stable")
    for place, k in enumerate(order):
        given[k] = min(left / (len(order) - place), epochs * float(domains.tokens[k]))
        left -= given[k]
    shares = np.asarray(given / given.sum())
    return domains.uniform if np.allclose(shares, domains.uniform, atol=1e-12) else shares
