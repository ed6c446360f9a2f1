"""Methods: complete ways of choosing a mixture, and all that a flow may ask of one."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np

from cuvee.mixtures.domains import DomainSet
from cuvee.mixtures.multiscale.steps import LadderStep
from cuvee.mixtures.objectives import Objective
from cuvee.mixtures.problem import Problem
from cuvee.mixtures.recommendation import Recommendation
from cuvee.mixtures.runs.run_results import History
from cuvee.mixtures.runs.run_spec import RunSpec


@dataclass(frozen=True)
class RemainingRuns:
    """The runs that follow a method's first round, at most.

    Attributes:
        runs: in whole runs of the study's own proxy; one that shares a prefix run costs less.
        words: what they are.
    """

    runs: float = 0.0
    words: str = ""


class Method(Protocol):
    """A complete way of choosing a mixture. Its fields are its hyper-parameters.

    A class that names this one as its base needs `name`, `ask` and `recommend` only: the others say
    what holds for one round of runs of one size, without a design.

    Attributes:
        name: in recipes.
        directed: whether what it reads speaks of the objective, not of training losses or nothing.
        runs: mixtures that its design draws; 0 where it has none.
        design: which mixtures; a registered design, or None.
        scaling: laws of scale that its answer may rest on.
        refits: bootstrap refits behind its intervals; None: as many as suit the law.
    """

    name: ClassVar[str]
    directed: ClassVar[bool] = True
    runs: int = 0
    design: Any = None
    scaling: tuple[Any, ...] = ()
    refits: int | None = None

    @abstractmethod
    def ask(
        self, problem: Problem, history: History, rng: np.random.Generator
    ) -> tuple[RunSpec, ...]:
        """The runs wanted next; none when the evidence is complete."""

    @abstractmethod
    def recommend(
        self, problem: Problem, history: History, rng: np.random.Generator
    ) -> Recommendation:
        """The mixture that the history speaks for."""

    def remaining(self, problem: Problem) -> RemainingRuns:
        """What is asked for after the first round, for the plan of a study's cost."""
        return RemainingRuns()

    def check_asked(self, objective: Objective, domains: DomainSet) -> None:
        """Hold what a recipe asks of its parts to the objective and domains; see `Search`."""
        return

    @property
    def sizes(self) -> tuple[tuple[str, int], ...]:
        """(size, tokens) of the runs that are not of the study's own proxy."""
        return ()

    def steps(self, problem: Problem) -> tuple[LadderStep, ...]:
        """The steps of a ladder of sizes, the study's own proxy first; none without a ladder.

        Raises:
            RecipeError: steps that do not fit the problem or each other.
        """
        return ()

    def problem(self, problem: Problem, history: History) -> Problem:
        """The problem that its answer is for."""
        return problem
