"""Sequential search: each round asks where the recommendation is least certain.

A first round as in any swarm. Then, again and again: fit the law to bootstrap samples of the runs,
let each refit name its optimum (posterior sampling by bootstrap; Thompson 1933, Osband and Van Roy
2015), and train those optima whose gain over the present recommendation the refits disagree about
most. The expected gain of knowing the truth is the mean over refits of what each would
gain by its own optimum; the search stops when that is below the noise of one run.

BoTorch is not used: it would bring torch into the pure package, and its Gaussian process would be
a second model beside the law that makes the recommendation. The law's own refits are the
uncertainty that matters, work with every law, and cost milliseconds at these sizes.
"""

from dataclasses import dataclass

import numpy as np

from cuvee.mixtures import ties
from cuvee.mixtures.domains import Array
from cuvee.mixtures.errors import RecipeError
from cuvee.mixtures.inference import dataset, diagnostics
from cuvee.mixtures.inference import recommend as choice
from cuvee.mixtures.methods import RemainingRuns
from cuvee.mixtures.methods.swarm import Swarm
from cuvee.mixtures.problem import FIRST_SEED, Problem
from cuvee.mixtures.registry import register
from cuvee.mixtures.runs.run_results import History
from cuvee.mixtures.runs.run_spec import RunSpec

APART = 1e-3  # least L1 distance between mixtures of a round


@register("method")
@dataclass(frozen=True)
class Bayes(Swarm):
    """Rounds of runs; the fields beside these are those of `mixtures.methods.swarm.Swarm`.

    Take it where a run is dear and rounds may follow one another: it asks for more runs only where
    the answer is still uncertain, and stops when they would gain less than the noise of one.

    Attributes:
        runs: mixtures of the first round.
        batch: mixtures of each later round.
        rounds: later rounds at most.
        ensemble: bootstrap refits by which the next batch is chosen.
    """

    name = "bayes"

    runs: int = 24
    batch: int = 6
    rounds: int = 4
    ensemble: int = 16

    def __post_init__(self) -> None:
        self.assemble()
        if self.batch < 1 or self.rounds < 0 or self.ensemble < 4:
            raise RecipeError(
                "bayes needs batch >= 1, rounds >= 0 and ensemble >= 4; "
                f"got {self.batch}, {self.rounds} and {self.ensemble}"
            )

    def ask(
        self, problem: Problem, history: History, rng: np.random.Generator
    ) -> tuple[RunSpec, ...]:
        first = self.first_round(problem, history, rng)
        if first:
            return first
        added = self._added(problem, history)
        if added >= self.rounds * self.batch:
            return ()
        weights, needed = self._next(problem, history, rng)
        if not needed:
            return ()
        known = {run.spec.fingerprint for run in history}
        specs = [problem.spec(w, FIRST_SEED) for w in weights]
        fresh = [spec for spec in specs if spec.fingerprint not in known]
        return tuple(fresh[: self.batch - added % self.batch])

    def remaining(self, problem: Problem) -> RemainingRuns:
        words = f"up to {self.rounds} rounds of {self.batch}, until they promise no more than noise"
        return RemainingRuns(self.rounds * self.batch, words)

    def _added(self, problem: Problem, history: History) -> int:
        """Runs beyond the first round."""
        return len(self.drawn_specs(problem, history)) - self.runs

    def _next(
        self, problem: Problem, history: History, rng: np.random.Generator
    ) -> tuple[Array, bool]:
        """Mixtures (n, K) worth training, the most wanted first, and whether any is."""
        compare_rng, choose_rng = rng.spawn(2)
        found = dataset.gather_runs(problem, history)
        best = 0
        if len(self.laws) > 1:
            best, _, _ = dataset.compare_laws(self.laws, found, self.folds, compare_rng)
        chosen = choice.choose_mixture(
            self.laws[best],
            self.search.coarse(),
            found,
            {"natural": problem.domains.natural},
            refits=self.ensemble,
            rng=choose_rng,
        )
        gains = chosen.refit_gains
        noise = diagnostics.noise_floor(
            found.sample.W, found.sample.Y, problem.targets, found.scalar
        )
        floor = noise[-1].seeds if noise else 0.0
        if float(np.maximum(np.diag(gains), 0.0).mean()) <= floor:
            return np.zeros((0, len(problem.domains))), False
        disagreement = gains.std(axis=0) + np.maximum(gains.mean(axis=0), 0.0)
        return self._apart(chosen.refit_weights, disagreement, found.sample.W), True

    def _apart(self, points: Array, wanted: Array, tried: Array) -> Array:
        """Points in order of how much they are wanted, those near a tried or taken one left out."""
        taken = list(tried)
        rows = []
        for i in ties.sort_order(-wanted):
            if np.abs(np.array(taken) - points[i]).sum(axis=1).min() > APART:
                rows.append(points[i])
                taken.append(points[i])
        return np.array(rows).reshape(-1, points.shape[1])
