"""What a recipe's names and numbers give away: mistakes that show before anything is read.

The targets, domains and sizes of a study follow from its recipe. So whatever names another one, or
asks for what no mixture can be, is told when the recipe is read, all of it at once, and not after
the text has been tokenized. Studies from tables know their domains from the tables, which are read
in a moment: they are left to `flows.study.table_problem`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cuvee.evaluation import suites
from cuvee.mixtures import simplex
from cuvee.mixtures.constraints import Group, constrain
from cuvee.mixtures.constraints.kept_ratios import keep_ratios
from cuvee.mixtures.domains import Domain, DomainSet
from cuvee.mixtures.errors import CuveeError, RecipeError, UnknownName, closest_name
from cuvee.mixtures.objectives import Objective
from cuvee.proxies import ladder

if TYPE_CHECKING:
    from cuvee.flows.recipe.schema import Recipe

PLENTY = 10**18  # tokens of a domain that no epoch cap holds back


def check_names(recipe: "Recipe") -> None:
    """Hold all names of a recipe against each other.

    Raises:
        RecipeError: every mistake that shows without reading anything, in one message.
    """
    if recipe.corpus is None:
        return
    names = tuple(recipe.corpus.quickstart or recipe.corpus.domains)
    problems = [
        *_suite(recipe),
        *_targets(recipe, names),
        *_plans(recipe),
        *_tokenizer(recipe),
        *_attributes(recipe),
    ]
    if len(names) < 2:
        alone = f"corpus has one domain, {names[0]!r}, and nothing to mix it with"
        raise RecipeError("; ".join([alone, *problems]))
    domains = DomainSet(tuple(Domain(name, PLENTY, PLENTY, name) for name in names))
    wrong = [*_constraints(recipe, domains), *_mixtures(recipe, domains)]
    wrong += _told("objective or method.search", check_aims, recipe, domains)
    problems += wrong
    if not wrong and recipe.constraints.most_kl is None:  # which needs the true sizes
        problems += _told("constraints", recipe.build_constraints, domains)
    if problems:
        raise RecipeError("; ".join(dict.fromkeys(problems)))


def _told(place: str, work: Callable[..., Any], *given: Any, **named: Any) -> list[str]:
    """What something raises, as a list of one sentence; empty where it raises nothing."""
    try:
        work(*given, **named)
    except CuveeError as error:
        return [f"{place}: {error}"]
    return []


def _unknown(place: str, kind: str, given: Iterable[str], known: Sequence[str]) -> Iterator[str]:
    for name in given:
        if name not in known:
            yield f"{place}: {UnknownName(kind, name, known)}"


def _suite(recipe: "Recipe") -> Iterator[str]:
    part = recipe.evaluation
    if part.suite and part.suite not in suites.SUITES and part.suite not in suites.OFFLINE:
        none = part.suite.lower() in ("none", "no", "off", "false", "nothing")
        if none or closest_name(part.suite.lower(), suites.SUITES, cutoff=0.6):
            known = ", ".join(suites.SUITES)
            yield f"unknown suite {part.suite!r}; suites: {known}; `suite: null` for none"
    own = {name: Path() for name in part.custom}
    yield from _told("evaluation", suites.suite, part.names, Path(), part.limit, own=own)


def _targets(recipe: "Recipe", names: Sequence[str]) -> Iterator[str]:
    """Targets of the objective that no run would measure."""
    part = recipe.evaluation
    known = [f"domain/{name}" for name in names]
    for name in part.names:
        tasks = suites.SUITES[name].tasks if name in suites.SUITES else (name,)
        known += [f"task/{suites.short_name(task)}" for task in tasks]
    known += [f"task/{name}" for name in part.custom]
    wanted = recipe.build_objective().targets
    yield from _unknown("objective", "target", wanted, list(dict.fromkeys(known)))
    place, held_out = "evaluation.held_out_targets", part.held_out_targets or ()
    yield from _unknown(place, "target", held_out, known)
    for name in sorted(set(wanted) & set(held_out)):
        yield f"{place}: the objective reads {name!r}; held out is what it does not"


def _tokenizer(recipe: "Recipe") -> Iterator[str]:
    """Fields of a tokenizer that is trained beside one that is given, or the reverse."""
    part = recipe.corpus
    if part and part.tokenizer and "vocabulary" in part.model_fields_set:
        yield "corpus.vocabulary has no effect with corpus.tokenizer: remove it"
    if part and part.end_of_text and not (part.tokenizer or recipe.proxy.start):
        yield "corpus.end_of_text names a token of corpus.tokenizer: give that, or remove it"


def _attributes(recipe: "Recipe") -> Iterator[str]:
    """Attributes that would have the name of a column that stands for something else."""
    part = recipe.corpus
    if part is None:
        return
    for name, source in part.domains.items():
        taken = {"cluster_size": "corpus.deduplicate: near"} if part.deduplicate == "near" else {}
        if source.id not in (None, "id"):
            taken["id"] = f"id: {source.id}"
        for column in sorted(taken.keys() & set(source.attributes)):
            yield (
                f"corpus.domains.{name}.attributes: {column!r} is the column that {taken[column]} "
                "fills; leave it out, or give the field another name"
            )


def _plans(recipe: "Recipe") -> Iterator[str]:
    """Sizes and tokens that make no training."""
    proxy = recipe.proxy
    sizes = [("method.rungs", *size) for size in recipe.build_method().method.sizes]
    for place, size, tokens in [("proxy", proxy.size, proxy.tokens), *sizes]:
        yield from _told(place, ladder.training_plan, size, tokens, 1, schedule=proxy.schedule)


def _constraints(recipe: "Recipe", domains: DomainSet) -> Iterator[str]:
    """Names and ranges of each constraint by itself; whether they clash is another question."""
    part, full = recipe.constraints, recipe.full_scale.tokens
    caps = part.epochs if isinstance(part.epochs, Mapping) else {}
    for field, values in (("bounds", part.bounds), ("required", part.required), ("epochs", caps)):
        yield from _unknown(f"constraints.{field}", "domain", values, domains.names)
        for name, value in values.items():
            if name in domains.names:
                one: Any = {"full_tokens": full, field: {name: value}}
                yield from _told(f"constraints.{field}", constrain, domains, **one)
    for group in part.groups:
        place = "constraints.groups"
        wrong = list(_unknown(place, "domain", group.domains, domains.names))
        made = [Group(tuple(group.domains), group.at_least, group.at_most)]
        yield from wrong or _told(place, constrain, domains, full_tokens=full, groups=made)
    free = constrain(domains, full_tokens=full)
    for ratios in part.ratios:
        yield from _told("constraints.ratios", keep_ratios, free, ratios)


def _mixtures(recipe: "Recipe", domains: DomainSet) -> Iterator[str]:
    """Mixtures to be confirmed, and paths of an export."""
    given = recipe.confirm.mixtures if recipe.confirm else {}
    for name, shares in given.items():
        place = f"confirm.mixtures.{name}"
        wrong = list(_unknown(place, "domain", shares, domains.names))
        if wrong:
            yield from wrong
        else:
            yield from _told(place, simplex.check_mixture, domains.vector(shares), domains.names)
    yield from _unknown("export.paths", "domain", recipe.export.paths, domains.names)
    yield from _unknown("export.validation", "domain", recipe.export.validation, domains.names)


def check_aims(recipe: "Recipe", domains: DomainSet) -> None:
    """Hold the mixtures that objective and search refer to, and what they ask, to the domains.

    Raises:
        CuveeError: a name that is not there, or shares that are no mixture.
    """
    objective = recipe.build_objective()
    objective.reference_shares(domains)
    recipe.build_method().method.check_asked(objective, domains)


def check_continual(recipe: "Recipe") -> None:
    """Hold what a recipe says of continual pretraining together; nothing is read from disk.

    Raises:
        RecipeError: a start without old domains or the reverse, or what cannot go with a start.
    """
    part = recipe.continual
    if (part is None) != (recipe.proxy.start is None):
        raise RecipeError(
            "proxy.start names the checkpoint that runs go on from, and continual.old the domains "
            "that it was trained on; a recipe has both or neither"
        )
    if part is None or recipe.corpus is None:
        if part is not None:
            raise RecipeError("runs in `tables` were trained elsewhere: proxy.start has no meaning")
        return
    known = recipe.corpus.quickstart or list(recipe.corpus.domains)
    for name in part.old:
        if name not in known:
            raise UnknownName("old domain", name, known)
    for name in ("vocabulary", "tokenizer"):
        if name in recipe.corpus.model_fields_set:
            raise RecipeError(
                "with proxy.start the corpus is tokenized by the checkpoint's own tokenizer, so "
                f"that corpus.{name} has no effect: remove it"
            )
    _one_size(recipe)
    zeros = dict.fromkeys(old_targets(recipe), 0.0)
    floored_objective(recipe, recipe.build_objective(), zeros)


def _one_size(recipe: "Recipe") -> None:
    """Weights of one size fit no other.

    Raises:
        RecipeError: the method or the confirmation trains another size too.
    """
    sizes = [step.size for step in recipe.confirm.sizes] if recipe.confirm else []
    sizes += [size for size, _ in recipe.build_method().method.sizes]
    other = next((size for size in sizes if size != recipe.proxy.size), None)
    if other:
        raise RecipeError(
            f"every run goes on from a checkpoint of size {recipe.proxy.size}, so that none can be "
            f"of size {other}: take it out of the method's rungs or of confirm.sizes"
        )


def floored_objective(
    recipe: "Recipe", objective: Objective, before: Mapping[str, float]
) -> Objective:
    """The objective with the recipe's floor on forgetting, if it sets one.

    Args:
        recipe: says which domains are old and by how much they may become worse.
        objective: of the recipe.
        before: the checkpoint's scores, by target.

    Raises:
        RecipeError: the objective is neither a mean nor one with floors.
    """
    part = recipe.continual
    if part is None or part.forget is None:
        return objective
    most = tuple((name, before[name] + part.forget) for name in old_targets(recipe))
    floored = objective.floored(most)
    if floored is None:
        raise RecipeError(
            "continual.forget sets floors under the old domains, which objectives `mean` and "
            f"`floors` can keep; {objective.name!r} cannot: choose one of them, or leave forget out"
        )
    return floored


def old_targets(recipe: "Recipe") -> tuple[str, ...]:
    """Held-out text of the domains that the checkpoint was trained on."""
    return tuple(f"domain/{name}" for name in recipe.continual.old) if recipe.continual else ()
