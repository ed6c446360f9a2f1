"""Olmix: a Dirichlet swarm, the log-linear law, its exact optimum with a price on leaving natural.

Source: allenai/olmix: `generate/synthesize_mixture.py` (temperature 1, minimum weight 0.002, ten
draws for each mixture kept), `fit/law.py` (`y = exp(c) + exp(x . t)`) and `fit/core.py` (`kl_reg`
0.05 in the paper's configurations). Departures: repeated anchors, cross-validation and intervals,
as in `regmix`; its proposer `search`, which looks the best row up, fits nothing here either, and
the verdict says that the lowest score of many is low by luck.
"""

from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np

from cuvee.mixtures import simplex
from cuvee.mixtures.errors import ConstraintError
from cuvee.mixtures.inference import dataset, diagnostics, evidence_grade
from cuvee.mixtures.inference.paired_trial import RECOMMENDED, measured_candidate
from cuvee.mixtures.inference.recommend import recommend_mixture
from cuvee.mixtures.methods.swarm import Swarm
from cuvee.mixtures.problem import Problem
from cuvee.mixtures.recommendation import Recommendation
from cuvee.mixtures.registry import Registered, describe, register
from cuvee.mixtures.runs.run_results import Failed, History
from cuvee.mixtures.runs.run_spec import Stage, canonical_json

DESIGN = (("name", "dirichlet"), ("temperature", 1.0), ("minimum", 0.002), ("oversample", 10))
LAW = (("name", "log_linear"), ("offset", "positive"))
SEARCH = (("name", "exact"), ("kl_reg", 0.05))


@register("method")
@dataclass(frozen=True)
class Olmix(Swarm):
    """One round of runs; the fields beside these are those of `mixtures.methods.swarm.Swarm`.

    Take it to follow Olmix's published recipe, or where the answer should stay near the natural
    mixture: its search puts a price on leaving it.

    Attributes:
        only_tried: recommend the best of the mixtures that were run, in place of a search.
    """

    name = "olmix"

    design: Annotated[Any, Registered("design")] = field(default_factory=lambda: dict(DESIGN))
    laws: Annotated[tuple[Any, ...], Registered("law", many=True)] = field(
        default_factory=lambda: (dict(LAW),)
    )
    search: Annotated[Any, Registered("search")] = field(default_factory=lambda: dict(SEARCH))
    only_tried: bool = False

    def recommend(
        self, problem: Problem, history: History, rng: np.random.Generator
    ) -> Recommendation:
        if self.only_tried:
            return self._looked_up(problem, history)
        return recommend_mixture(self, problem, history, rng)

    def _looked_up(self, problem: Problem, history: History) -> Recommendation:
        """The best feasible mixture that was run, by its own scores."""
        found = dataset.gather_runs(problem, history)
        W, scalar = found.sample.W, found.scalar
        if not problem.constraints.satisfied(W).any():
            raise ConstraintError(
                f"none of {len(W)} mixtures that were run meets the constraints; relax them, or "
                "search beyond the runs"
            )
        best = dataset.best_observed(problem, found)
        member = simplex.group_rows([*W, best])
        own = found.sample.Y[member[:-1] == member[-1]]
        low, high = problem.constraints.bounds
        runs = "one run" if len(own) == 1 else f"{len(own)} runs of one mixture"
        answer = Recommendation(
            domains=problem.domains.names,
            targets=problem.targets,
            stages=(Stage(tuple(map(float, best))),),
            intervals=tuple(map(tuple, np.clip([low, high], 0.0, 1.0).T.tolist())),
            candidates=(measured_candidate(RECOMMENDED, best, own.mean(axis=0)[None], scalar),),
            noise=diagnostics.noise_floor(W, found.sample.Y, problem.targets, scalar),
            active=problem.constraints.active(best),
            epochs=tuple(map(float, problem.domains.epochs(best, problem.full_tokens))),
            evidence=found.fingerprints,
            failed=sum(isinstance(run, Failed) for run in history),
            verdict=f"weak: do not use this yet; the answer is {runs}, the best of {len(W)}: no "
            "law was fitted, and the lowest score of many is low by luck. Repeat it under other "
            "seeds, beside the natural mixture",
            warnings=(
                "no law was fitted: the scores are those that were measured and have no interval, "
                "and the intervals of the shares are what the constraints allow",
            ),
            method=canonical_json(describe(self)),
        )
        return evidence_grade.mark_unmeasured(answer, problem, W)
