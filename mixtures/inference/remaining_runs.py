"""Later: what a method asks for after its first round, at most, for a plan of a study's cost."""

from dataclasses import dataclass
from typing import Protocol, cast

from cuvee.mixtures.problem import Problem


@dataclass(frozen=True)
class Later:
    """The runs that follow the first round.

    Attributes:
        runs: at most, in whole runs of the study's own proxy; a run that shares a trunk costs less.
        words: what they are.
    """

    runs: float
    words: str


class Continuing(Protocol):
    """A method that asks for more than one round."""

    def later(self, problem: Problem) -> Later:
        """The runs that follow the first round."""
        ...


def of(method: object, problem: Problem) -> Later:
    """What follows a method's first round; nothing where the method does not say."""
    if not hasattr(method, "later"):
        return Later(0.0, "")
    return cast(Continuing, method).later(problem)
