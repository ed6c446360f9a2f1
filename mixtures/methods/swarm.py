"""Swarm: one round of small runs, a law, a search. RegMix, mixing laws and Olmix are swarms.

What they share is here as functions of a `Swarm`; what tells them apart is the defaults of their
fields, each in its own file.
"""

from collections.abc import Sequence
from typing import Any, Protocol, cast

import numpy as np

from cuvee.mixtures import simplex
from cuvee.mixtures.designs import Design
from cuvee.mixtures.designs.anchors import Anchors
from cuvee.mixtures.domains import Array
from cuvee.mixtures.errors import EvidenceError, RecipeError
from cuvee.mixtures.laws import Law
from cuvee.mixtures.problem import Problem
from cuvee.mixtures.registry import build
from cuvee.mixtures.runs import History, RunResult, RunSpec, finished_runs
from cuvee.mixtures.searches import Search, score

MOST = 20_000  # runs, seeds, folds or refits of a study
FIRST = 0  # seed of every design run: equal seeds make mixtures comparable in pairs


class Swarm(Protocol):
    """The fields of a method that is one round of runs."""

    @property
    def runs(self) -> int:
        """Mixtures that the design draws."""
        ...

    @property
    def design(self) -> Any:
        """Which mixtures; a registered design."""
        ...

    @property
    def laws(self) -> tuple[Any, ...]:
        """Candidate laws; the best by cross-validation is used."""
        ...

    @property
    def search(self) -> Any:
        """From the law to the mixture; a registered search."""
        ...

    @property
    def anchors(self) -> tuple[Any, ...]:
        """Mixtures repeated over seeds, as in design `anchors`."""
        ...

    @property
    def seeds(self) -> int:
        """Runs of each anchor, the one with the design's seed included."""
        ...

    @property
    def folds(self) -> int:
        """Folds of the cross-validation."""
        ...

    @property
    def refits(self) -> int | None:
        """Bootstrap refits behind the intervals; None: 50 for exponential laws, 10 for others."""
        ...


def assemble(swarm: Swarm) -> None:
    """Build nested parts of a frozen swarm from a recipe's values, and check its numbers.

    Raises:
        UnknownName: a part that nothing is registered under.
        RecipeError: a number out of range.
    """
    laws = swarm.laws if isinstance(swarm.laws, list | tuple) else (swarm.laws,)
    object.__setattr__(swarm, "laws", tuple(build("law", law) for law in laws))
    object.__setattr__(swarm, "design", build("design", swarm.design))
    object.__setattr__(swarm, "search", build("search", swarm.search))
    object.__setattr__(swarm, "anchors", Anchors(tuple(swarm.anchors)).mixtures)
    if not swarm.laws:
        raise RecipeError("a method needs at least one law in `laws`")
    counts = (swarm.runs, swarm.seeds, swarm.folds)
    if not (1 <= swarm.runs <= MOST and 0 <= swarm.seeds <= MOST and 2 <= swarm.folds <= MOST):
        raise RecipeError(
            f"a method needs runs of 1 to {MOST:,}, seeds of 0 to {MOST:,} and folds of 2 to "
            f"{MOST:,}; got {', '.join(f'{n:,}' for n in counts)}"
        )
    if swarm.refits is not None and not 10 <= swarm.refits <= MOST:
        raise RecipeError(f"intervals need 10 to {MOST:,} refits; got {swarm.refits:,}")
    score.check_laws(swarm.search, swarm.laws)


def parts(swarm: Swarm) -> tuple[Design, tuple[Law, ...], Search]:
    """The nested parts with their protocols."""
    return (
        cast(Design, swarm.design),
        cast(tuple[Law, ...], swarm.laws),
        cast(Search, swarm.search),
    )


def ask(
    swarm: Swarm, problem: Problem, history: History, rng: np.random.Generator
) -> tuple[RunSpec, ...]:
    """The design's runs and the anchors' repeats that the history does not hold.

    A failed run counts as answered. Whatever the generator, a history that holds as many runs of
    the design as were wanted is complete.
    """
    own = [run.spec for run in history if belongs(problem, run.spec)]
    known = {spec.fingerprint for spec in own}
    repeats = anchor_specs(swarm, problem)
    special = {spec.fingerprint for spec in repeats}
    done = sum(1 for spec in own if spec.fingerprint not in special)
    wanted: list[RunSpec] = []
    if done < swarm.runs:
        design, _, _ = parts(swarm)
        drawn = design.draw(problem.domains, problem.constraints, swarm.runs, rng)
        fresh = [problem.spec(row, FIRST) for row in drawn]
        fresh = [s for s in fresh if s.fingerprint not in known and s.fingerprint not in special]
        wanted += fresh[: swarm.runs - done]
    wanted += [spec for spec in repeats if spec.fingerprint not in known]
    return tuple({spec.fingerprint: spec for spec in wanted}.values())


def anchor_specs(swarm: Swarm, problem: Problem) -> tuple[RunSpec, ...]:
    """Every anchor under every seed."""
    if swarm.seeds == 0 or not swarm.anchors:
        return ()
    rows = Anchors(swarm.anchors).all(problem.domains, problem.constraints)
    return tuple(problem.spec(row, FIRST + s) for row in rows for s in range(swarm.seeds))


def belongs(problem: Problem, spec: RunSpec) -> bool:
    """Whether a run is evidence for a problem: the same data, proxy, scoring and way of training.

    Its mixture and seed are free; a run whose weights moved in stages or under a controller is not
    evidence for a law of fixed mixtures.
    """
    if len(spec.stages) != 1 or spec.controller or spec.domains != problem.domains.names:
        return False
    return spec == problem.spec(spec.stages[0].weights, spec.seed)


def evidence_of(problem: Problem, history: History) -> tuple[tuple[RunResult, ...], int]:
    """Finished runs that belong to the problem, and how many finished ones do not.

    Raises:
        EvidenceError: none belongs.
    """
    runs = finished_runs(history)
    own = tuple(run for run in runs if belongs(problem, run.spec))
    if not own:
        raise EvidenceError(
            f"none of {len(runs)} finished runs is evidence for this problem: their domains, data, "
            "proxy or scoring differ from the recipe's; train anew or restore what was changed"
        )
    return own, len(runs) - len(own)


def natural_row(problem: Problem, W: Array) -> Sequence[int]:
    """Rows of runs of the natural mixture (or the feasible one nearest to it)."""
    natural = problem.constraints.project(problem.domains.natural)
    near = np.abs(W - natural).max(axis=1) <= 2 * simplex.SAME
    near |= np.abs(W - problem.domains.natural).max(axis=1) <= 2 * simplex.SAME
    return [int(i) for i in np.flatnonzero(near)]
