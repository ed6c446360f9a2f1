"""Swarm: one round of small runs, a law, a search. RegMix, mixing laws and Olmix are swarms.

What tells them apart is the defaults of their fields, each in its own file; methods of more rounds
begin with a swarm.
"""

import itertools
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

import numpy as np

from cuvee.mixtures import ties
from cuvee.mixtures.attribution.attribute import with_attribution
from cuvee.mixtures.designs.anchors import Anchor, Anchors
from cuvee.mixtures.domains import Array, DomainSet
from cuvee.mixtures.errors import RecipeError
from cuvee.mixtures.inference.dataset import is_evidence, tells_noise
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
        crossed: of these seeds, how many are crossed: initialization and data order differ apart,
            so that the report says which of the two the noise comes from; 2 adds 2 runs to each
            anchor, 3 adds 6. These runs tell the noise alone, and no law is fitted to them.
        repeats: the design's most concentrated mixtures that are run under one more seed each:
            proxies on little else than one domain are the noisiest. It lets laws and `cuvee plan`
            know how much; fits miss other mixtures more (8 repeats of 32 runs: errors 10-30 % up).
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
    # no part of `repr`, by which fits of before are found in a store
    crossed: int = field(default=0, repr=False, metadata={"later": True})
    repeats: int = field(default=0, repr=False, metadata={"later": True})

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
        most = self.seeds if self.anchors else 0
        if self.crossed == 1 or self.crossed > most or self.repeats > self.runs:
            raise RecipeError(
                f"method.crossed is 0, or 2 to method.seeds ({self.seeds}) where there are "
                f"method.anchors ({len(self.anchors)}), and method.repeats at most method.runs "
                f"({self.runs}); got {self.crossed} and {self.repeats}"
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
        known = {run.spec.fingerprint for run in history if tells_noise(problem, run.spec)}
        anchors, drawn = self.anchor_specs(problem), self.drawn_specs(problem, history)
        if len(drawn) < self.runs:
            fresh = [problem.spec(row, FIRST_SEED) for row in self._mixtures(problem, rng)]
            taken = known | {spec.fingerprint for spec in anchors}
            new = [s for s in fresh if s.fingerprint not in taken]
            drawn += new[: self.runs - len(drawn)]
        alone = [float(np.sum(spec.weights**2)) for spec in drawn[: self.runs]]
        most = ties.sort_order(-np.array(alone))[: self.repeats]
        again = [problem.spec(drawn[i].weights, FIRST_SEED + 1) for i in most]
        wanted = {spec.fingerprint: spec for spec in (*drawn, *anchors, *again)}
        return tuple(spec for name, spec in wanted.items() if name not in known)

    def drawn_specs(self, problem: Problem, history: History) -> list[RunSpec]:
        """The runs of a history under the design's seed that are not of an anchor."""
        anchors = {spec.fingerprint for spec in self.anchor_specs(problem)}
        own = [run.spec for run in history if is_evidence(problem, run.spec)]
        return [s for s in own if s.seed == FIRST_SEED and s.fingerprint not in anchors]

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
        """Every anchor under every seed, and those crossed with every other's data order."""
        if self.seeds == 0 or not self.anchors:
            return ()
        rows = Anchors(self.anchors).all(problem.domains, problem.constraints)
        seeds = range(FIRST_SEED, FIRST_SEED + self.seeds)
        apart = list(itertools.permutations(seeds[: self.crossed], 2))
        specs = [problem.spec(row, seed) for row in rows for seed in seeds]
        specs += [replace(problem.spec(r, i), data_seed=j) for r in rows for i, j in apart]
        return tuple(specs)

    def ask(
        self, problem: Problem, history: History, rng: np.random.Generator
    ) -> tuple[RunSpec, ...]:
        return self.first_round(problem, history, rng)

    def recommend(
        self, problem: Problem, history: History, rng: np.random.Generator
    ) -> Recommendation:
        answer = recommend_mixture(self, problem, history, rng)
        return with_attribution(answer, self.laws, problem, history, rng)
