"""Attribution: what each domain is worth, measured by leaving it out, beside a swarm and its law.

Three rounds: a swarm, whose law gives the answer and the Shapley values; a mixture and the mixture
without each of its domains under paired seeds, in the decay phase on a shared branch checkpoint or
from scratch (`mixtures.attribution.leave_out`); and the pairs of domains whose interaction the law
predicts to be largest, left out together.

The runs that leave domains out measure and are not recommended, so that constraints do not bind
them. Gradient ascent on a domain ("unlearning") was not taken: what it gives depends on where and
in which order it stops, and leaving out is affordable at the scale of proxies.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np

from cuvee.mixtures import simplex, ties
from cuvee.mixtures.attribution.attribute import with_attribution
from cuvee.mixtures.attribution.leave_out import WHOLE, leave_out_spec, left_out, without
from cuvee.mixtures.designs.anchors import Anchor
from cuvee.mixtures.domains import Array, DomainSet
from cuvee.mixtures.errors import RecipeError
from cuvee.mixtures.inference.dataset import gather_runs
from cuvee.mixtures.inference.paired_trial import missing_specs
from cuvee.mixtures.inference.recommend import recommend_mixture
from cuvee.mixtures.laws import predicted_means
from cuvee.mixtures.methods import RemainingRuns
from cuvee.mixtures.methods.swarm import Swarm
from cuvee.mixtures.objectives import Objective
from cuvee.mixtures.problem import FIRST_SEED, Problem
from cuvee.mixtures.recommendation import Recommendation
from cuvee.mixtures.registry import register
from cuvee.mixtures.runs.run_results import Failed, History, finished_runs
from cuvee.mixtures.runs.run_spec import RunSpec

PHASES = ("decay", "scratch", "both")


@register("method")
@dataclass(frozen=True)
class LeaveOutAttribution(Swarm):
    """A swarm, and leave-one-out runs; the fields beside these are those of
    `mixtures.methods.swarm.Swarm`.

    Take it to learn what each domain is worth, beside a mixture to recommend. In the decay phase a
    seed costs (1 - d) + (K + 1) d runs; from scratch, which speaks of the whole run, K + 1.

    Attributes:
        around: the mixture whose domains are left out: `natural`, `uniform` or shares by domain.
        phase: `decay` leaves them out of the end of a run, `scratch` of all of it; or `both`.
        decay: d, the share of the tokens that the end has; 0.2 is the decay of the default
            learning-rate schedule.
        trials: seeds under which each is left out, paired with the whole mixture.
        pairs: pairs of domains left out together, those of the largest interaction by the first
            of the laws that the runs suffice for.
    """

    name = "attribution"

    runs: int = 24
    around: Annotated[Any, Anchor] = "natural"
    phase: Annotated[str, Literal[PHASES]] = "decay"
    decay: float = 0.2
    trials: int = 5
    pairs: int = 3

    def __post_init__(self) -> None:
        self.assemble()
        around = simplex.written_mixture(self.around, "method.around")
        object.__setattr__(self, "around", around)
        if not isinstance(around, str) and sum(share > simplex.ZERO for _, share in around) < 2:
            raise RecipeError(
                "method.around needs two domains with a share, of which one can be left out; "
                f"got {dict(around)}"
            )
        if self.phase not in PHASES:
            raise RecipeError(f"method.phase is one of {', '.join(PHASES)}; got {self.phase!r}")
        if not 0 < self.decay < 1 or self.trials < 2:
            raise RecipeError(
                "attribution needs method.decay in (0, 1) and method.trials >= 2; "
                f"got {self.decay} and {self.trials}"
            )

    def check_asked(self, objective: Objective, domains: DomainSet) -> None:
        super().check_asked(objective, domains)
        simplex.written_shares(self.around, domains)

    def ask(
        self, problem: Problem, history: History, rng: np.random.Generator
    ) -> tuple[RunSpec, ...]:
        if first := self.first_round(problem, history, rng):
            return first
        single = [WHOLE, *map(frozenset, itertools.combinations(self._players(problem), 1))]
        if second := missing_specs(history, self._specs(problem, single)):
            return second
        return missing_specs(history, self._specs(problem, self._pairs(problem, history)))

    def remaining(self, problem: Problem) -> RemainingRuns:
        """Ends of runs cost themselves; each seed's trunk is that of the whole mixture."""
        count = len(self._players(problem))
        pairs = min(self.pairs, math.comb(count, 2)) if count > 2 else 0
        words = f"{count} domains and {pairs} pairs left out under {self.trials} seeds"
        return RemainingRuns(self.trials * (1 + sum(self._shares) * (count + pairs)), words)

    def recommend(
        self, problem: Problem, history: History, rng: np.random.Generator
    ) -> Recommendation:
        static = tuple(run for run in history if len(run.spec.stages) == 1)
        answer = dataclasses.replace(
            recommend_mixture(self, problem, static, rng),
            evidence=tuple(run.spec.fingerprint for run in finished_runs(history)),
            failed=sum(isinstance(run, Failed) for run in history),
        )
        mixture = self._mixture(problem)
        return with_attribution(answer, self.laws, problem, history, rng, mixture=mixture)

    @property
    def _shares(self) -> tuple[float, ...]:
        """Of the tokens, the last of which domains are left out of."""
        return {"decay": (self.decay,), "scratch": (1.0,), "both": (1.0, self.decay)}[self.phase]

    def _mixture(self, problem: Problem) -> Array:
        return simplex.written_shares(self.around, problem.domains)

    def _players(self, problem: Problem) -> list[int]:
        """Numbers of the domains that can be left out."""
        found = np.flatnonzero(self._mixture(problem) > simplex.ZERO).tolist()
        return found if len(found) > 1 else []

    def _specs(self, problem: Problem, rows: Iterable[frozenset[int]]) -> list[RunSpec]:
        """The runs of mixtures by what is left out, under each seed."""
        mixture = self._mixture(problem)
        return [
            leave_out_spec(problem, mixture, left, share=share, seed=FIRST_SEED + seed)
            for left in rows
            for share in self._shares
            for seed in range(self.trials)
        ]

    def _pairs(self, problem: Problem, history: History) -> list[frozenset[int]]:
        """Those of the largest interaction by the first law that can be fitted to all runs but
        theirs: what is asked for does not depend on how much of it is answered."""
        mixture, players = self._mixture(problem), self._players(problem)
        every = [frozenset(pair) for pair in itertools.combinations(players, 2)]
        if not self.pairs or len(every) < 2:
            return []
        kept = (run for run in history if len(left_out(problem, mixture, run.spec)[1]) < 2)
        found = gather_runs(problem, tuple(kept))
        rows, rng = np.arange(len(found.restricted.W)), np.random.default_rng(FIRST_SEED)
        law = next((law for law in self.laws if law.rows(len(mixture)) <= len(rows)), None)
        if law is None:
            return []
        fitted = found.restricted.fit(law, rows, rng)

        def score(left: Iterable[int]) -> float:
            scores = predicted_means(fitted, without(mixture, left)[None])
            return float(found.restricted_scalar.relaxed(scores)[0])

        alone, whole = {k: score({k}) for k in players}, score(())
        joint = [score(left) - sum(alone[k] for k in left) + whole for left in every]
        return [every[i] for i in ties.sort_order(-np.abs(joint))[: self.pairs]]
