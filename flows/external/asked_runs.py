"""The runs that a study asks for, as far as the store tells: what a sweep elsewhere trains next."""

from collections.abc import Sequence
from dataclasses import dataclass

from cuvee.flows.execution.budget import Budget, training_flops
from cuvee.flows.recipe.schema import Recipe
from cuvee.flows.recipe.trainer_parts import check_controllers
from cuvee.flows.study.confirm import (
    compared_schedules,
    confirmation_runs,
    fresh_seeds,
    mixture_names,
)
from cuvee.flows.study.prepare import pose_problem
from cuvee.flows.study.study import RememberingMethod
from cuvee.flows.workspace import Workspace
from cuvee.mixtures import loop
from cuvee.mixtures.runs.run_results import Outcome
from cuvee.mixtures.runs.run_spec import RunSpec
from cuvee.tasks.store.results import Store
from cuvee.tasks.study.prepared import Prepared
from cuvee.tasks.tracking.fields import MixtureNames, run_name


@dataclass(frozen=True)
class AskedRun:
    """A run that a study asks for.

    Attributes:
        spec: what is trained.
        name: as people see it in the record.
        role: "design", "anchor", "seed" (a mixture again) or "confirmation".
        outcome: of it in the store; None where it lacks.
    """

    spec: RunSpec
    name: str
    role: str
    outcome: Outcome | None


class _RoundLacks(Exception):
    """The store lacks runs of a round, and what comes after it is not known."""


def asked_runs(recipe: Recipe, prepared: Prepared, home: Workspace) -> dict[str, AskedRun]:
    """By fingerprint the runs of every round up to the first that the store lacks runs of; once it
    has all of them, those of the confirmation of what they recommend.

    Raises:
        CuveeError: what is wrong with the recipe or its evidence.
    """
    store, problem, method = (
        Store(home.store),
        pose_problem(recipe, prepared),
        recipe.build_method(),
    )
    mixtures, asked = MixtureNames(prepared.domains), dict[str, AskedRun]()

    def take(specs: Sequence[RunSpec], confirmed: dict[str, str] | None = None) -> list[Outcome]:
        found = []
        for spec in specs:
            tags = mixtures.tags(spec)
            again = any(tags["mixture"] == one[0] for one in seen if one[1] != spec.seed)
            seen.add((tags["mixture"], spec.seed))
            role = "seed" if again else tags["role"]
            if confirmed is not None:
                tags = {"role": "confirmation", "mixture": confirmed[spec.fingerprint]}
                role = "confirmation"
            outcome = store.outcome_of(spec)
            name = run_name(spec, tags)
            asked.setdefault(spec.fingerprint, AskedRun(spec, name, role, outcome))
            found += [outcome] if outcome else []
        if len(found) < len(specs):
            raise _RoundLacks
        return found

    seen: set[tuple[str, int]] = set()
    check_controllers(recipe, method.ask(problem, (), loop.generator(recipe.seed, 0)))
    budget = Budget(recipe.budget, training_flops(prepared.corpus.vocabulary))
    remembering = RememberingMethod(method, store, budget, home)
    try:
        history = loop.replay(remembering, problem, take, recipe.seed)
        if recipe.confirm:
            place = loop.generator(recipe.seed, len(history))
            answer = remembering.recommend(problem, history, place)
            problem = method.problem(problem, history)
            schedules = compared_schedules(problem, answer, recipe.confirm)
            seeds = fresh_seeds(recipe.seed, recipe.confirm.seeds)
            runs = confirmation_runs(problem, schedules, seeds)
            take(tuple(runs.values()), mixture_names(runs))
    except _RoundLacks:
        pass
    return asked
