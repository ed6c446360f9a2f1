"""The one loop that every method goes through: ask, evaluate, recommend.

`ask` and `recommend` are pure functions of the history, so that a search that is interrupted and
started again replays to the same point. In tests `evaluate` is a world with a known optimum; in a
flow it trains.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from cuvee.mixtures.problem import Problem
from cuvee.mixtures.recommendation import Recommendation
from cuvee.mixtures.runs.run_results import History, Outcome
from cuvee.mixtures.runs.run_spec import RunSpec

Evaluate = Callable[[Sequence[RunSpec]], Sequence[Outcome]]


class Strategy(Protocol):
    """What the loop runs: a registered method, or one that is wrapped."""

    def ask(
        self, problem: Problem, history: History, rng: np.random.Generator
    ) -> tuple[RunSpec, ...]:
        """The runs wanted next; none when the evidence is complete."""
        ...

    def recommend(
        self, problem: Problem, history: History, rng: np.random.Generator
    ) -> Recommendation:
        """The mixture that the history speaks for."""
        ...


def generator(seed: int, *path: int) -> np.random.Generator:
    """The random generator of one place in a study, such as (seed, round, index)."""
    return np.random.default_rng([seed, *path])


def search(
    method: Strategy, problem: Problem, evaluate: Evaluate, seed: int
) -> tuple[Recommendation, History]:
    """Run a method to its end.

    Args:
        method: what chooses.
        problem: what is to be chosen.
        evaluate: trains the specs it is given; returns one outcome for each, in their order.
        seed: of every random choice that the method makes.

    Returns:
        The recommendation and the history it rests on.
    """
    history = replay(method, problem, evaluate, seed)
    return method.recommend(problem, history, generator(seed, len(history))), history


def replay(method: Strategy, problem: Problem, evaluate: Evaluate, seed: int) -> History:
    """What came of all that a method asks for; arguments as of `search`."""
    history: History = ()
    while specs := method.ask(problem, history, generator(seed, len(history))):
        history += tuple(evaluate(specs))
    return history
