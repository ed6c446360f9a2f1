"""Swarm: one round of small runs, a law, a search. RegMix, mixing laws and Olmix are swarms.

What tells them apart is the defaults of their fields, each in its own file; methods of more rounds
begin with a swarm.
"""

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np

from cuvee.mixtures.designs.anchors import Anchor, Anchors
from cuvee.mixtures.domains import Array, DomainSet
from cuvee.mixtures.errors import RecipeError
from cuvee.mixtures.inference.dataset import is_evidence
from cuvee.mixtures.inference.recommend import recommend_mixture
from cuvee.mixtures.methods import Method
from cuvee.mixtures.objectives import Objective
from cuvee.mixtures.problem import FIRST_SEED, Problem
from cuvee.mixtures.recommendation import Recommendation
from cuvee.mixtures.registry import Registered, build
from cuvee.mixtures.runs.run_results import History
from cuvee.mixtures.runs.run_spec import RunSpec
from cuvee.mixtures.searches import score

MOST = 20_000  # runs, seeds, folds or refits of a study


@dataclass(frozen=True)
class Swarm(Method):
    """One round of runs.

    Attributes:
        runs: mixtures that the design draws, a run each.
        design: which mixtures are tried; a registered design.
        laws: candidate laws, of which the best by cross-validation is used; one or a list.
        search: from the law to the mixture; a registered search.
        anchors: mixtures that are repeated over seeds, to measure the noise: `natural`, `uniform`
            or shares by domain.
        seeds: runs of each anchor, the one with the design's seed included.
        folds: folds of the cross-validation that judges the laws.
        refits: bootstrap refits behind the intervals, or draws of a law's own posterior that are
            searched (the default law has one); null: 50 for exponential laws, 10 for others.
    """

    runs: int = 64
    design: Annotated[Any, Registered("design")] = "dirichlet"
    laws: Annotated[tuple[Any, ...], Registered("law", many=True)] = ("default",)
    search: Annotated[Any, Registered("search")] = "auto"
    anchors: Annotated[tuple[Any, ...], tuple[Anchor, ...]] = ("natural", "uniform")
    seeds: int = 3
    folds: int = 5
    refits: int | None = None

    def __post_init__(self) -> None:
        self.assemble()

    def assemble(self) -> None:
        """Build nested parts from a recipe's values, and check the numbers.

        Raises:
            UnknownName: a part that nothing is registered under.
            RecipeError: a number out of range.
        """
        laws = self.laws if isinstance(self.laws, list | tuple) else (self.laws,)
        object.__setattr__(self, "laws", tuple(build("law", law) for law in laws))
        object.__setattr__(self, "design", build("design", self.design))
        object.__setattr__(self, "search", build("search", self.search))
        object.__setattr__(self, "anchors", Anchors(tuple(self.anchors)).mixtures)
        if not self.laws:
            raise RecipeError("a method needs at least one law in `laws`")
        counts = (self.runs, self.seeds, self.folds)
        if not (1 <= self.runs <= MOST and 0 <= self.seeds <= MOST and 2 <= self.folds <= MOST):
            raise RecipeError(
                f"a method needs runs of 1 to {MOST:,}, seeds of 0 to {MOST:,} and folds of 2 to "
                f"{MOST:,}; got {', '.join(f'{n:,}' for n in counts)}"
            )
        if self.refits is not None and not 10 <= self.refits <= MOST:
            raise RecipeError(f"intervals need 10 to {MOST:,} refits; got {self.refits:,}")
        score.check_laws(self.search, self.laws)

    def check_asked(self, objective: Objective, domains: DomainSet) -> None:
        self.search.check_asked(objective, domains)

    def first_round(
        self, problem: Problem, history: History, rng: np.random.Generator
    ) -> tuple[RunSpec, ...]:
        """The design's runs and the anchors' repeats that the history does not hold.

        A failed run counts as answered. Whatever the generator, a history that holds as many runs
        of the design as were wanted is complete.
        """
        own = [run.spec for run in history if is_evidence(problem, run.spec)]
        known = {spec.fingerprint for spec in own}
        repeats = self.anchor_specs(problem)
        special = {spec.fingerprint for spec in repeats}
        done = sum(1 for spec in own if spec.fingerprint not in special)
        wanted: list[RunSpec] = []
        if done < self.runs:
            fresh = [problem.spec(row, FIRST_SEED) for row in self._mixtures(problem, rng)]
            new = [s for s in fresh if s.fingerprint not in known | special]
            wanted += new[: self.runs - done]
        wanted += [spec for spec in repeats if spec.fingerprint not in known]
        return tuple({spec.fingerprint: spec for spec in wanted}.values())

    def _mixtures(self, problem: Problem, rng: np.random.Generator) -> Array:
        """What the design draws, at the sizes that the study's mixtures were drawn at; a mixture
        that today's sizes forbid moves to the nearest that they allow."""
        now, then = problem.constraints, problem.constraints.as_drawn
        drawn: Array = self.design.draw(problem.domains, then, self.runs, rng)
        if then is now:
            return drawn
        fits = now.satisfied(drawn)
        moved = [w if ok else now.project(w) for w, ok in zip(drawn, fits, strict=True)]
        return np.array(moved, dtype=np.float64)

    def anchor_specs(self, problem: Problem) -> tuple[RunSpec, ...]:
        """Every anchor under every seed."""
        if self.seeds == 0 or not self.anchors:
            return ()
        rows = Anchors(self.anchors).all(problem.domains, problem.constraints)
        return tuple(problem.spec(row, FIRST_SEED + s) for row in rows for s in range(self.seeds))

    def ask(
        self, problem: Problem, history: History, rng: np.random.Generator
    ) -> tuple[RunSpec, ...]:
        return self.first_round(problem, history, rng)

    def recommend(
        self, problem: Problem, history: History, rng: np.random.Generator
    ) -> Recommendation:
        return recommend_mixture(self, problem, history, rng)
