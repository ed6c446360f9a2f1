"""Olmix's fit files, read as they are: `ratios.csv`, `metrics.csv` and the YAML beside them.

Source: allenai/olmix, `docs/cli/fit.md` and `olmix/fit/config.py`. A file is known by its `swarm`
mapping. It is translated into a recipe, so that everything after is what any other study gets:
cross-validation, intervals, noise, a report, an approval, an export. Paths are relative to the YAML
file. What Olmix does not know, where the answer goes, are a recipe's `export` and `handoff`.

Fields of early versions of Olmix are read too:

* `filtering.support_domains`: only runs on these domains alone, which are all that can be chosen;
  `filtering.keep_sources`: the same, and each of them above zero. One of the two at a time.
* `filtering.fixed_weight`: the shares of these domains are given. They stay in the law and in the
  price of leaving the prior; Olmix takes them out and scales the rest.
* `proposer.use_natural_kl`: the natural mixture, by `token_counts`, is what the exact proposer
  stays near, whatever `relative_sizes` say.

Read otherwise than Olmix does, on purpose:

* The tables are joined by run id. Olmix keeps the common runs of both and then pairs the rows by
  position, so that two tables in different order are fitted to each other's scores.
* `drop_metrics` takes effect before families are averaged. Olmix drops after, by the family's name,
  so that dropped metrics stay in the average; without families it builds weights before it drops.
* `n_test` and `train_split` do nothing here: every run is held out once, by cross-validation, and a
  mixture is always recommended. Olmix with `n_test` above 0 proposes none, as with `fit_only`.
* `kl_reg: null` is no regularization; Olmix stops with an error.
* `make_worst_mix: true` is refused; Olmix's exact proposer ignores it.
* `aggregate_task_families` without `eval.tasks` has nothing to aggregate: metrics stay apart.
* LightGBM does not stop early on its training rows.
"""

import contextlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from cuvee.flows.recipe.load import build_recipe, recipe_text
from cuvee.flows.recipe.olmix_fields import FitFile, PriorsPart
from cuvee.flows.recipe.refusals import explain
from cuvee.flows.recipe.schema import Recipe
from cuvee.mixtures.errors import CuveeError, RecipeError
from cuvee.tasks import strict_yaml
from cuvee.tasks.study import tables

LAWS: Mapping[str, dict[str, Any]] = {
    "log_linear": {"name": "log_linear", "offset": "positive"},
    "lightgbm": {"name": "lightgbm"},
    "gp": {"name": "gaussian_process"},
    "autoscale": {"name": "autoscale"},
    "bimix": {"name": "bimix"},
    "search": {"name": "default"},  # which nothing is fitted by: the best row is looked up
}
FIELDS = {  # of a recipe, by what stands for them in a fit file
    "tables.sizes or tables.token_counts": "priors.token_counts",
    "tables.sizes": "priors.relative_sizes",
    "tables.token_counts": "priors.token_counts",
    "tables.targets": "eval.tasks",
    "tables.only": "filtering.support_domains",
    "Name it in tables.id": "Call it `run` in both",
    "name one in tables.id": "call one `run` in both tables",
    "constraints.epochs": "constraints.repetition_factor",
    "constraints.bounds": "filtering.fixed_weight",
    "full_scale.tokens": "constraints.target_tokens",
    "objective.weights": "filtering.obj_weights",
}
AGREE = 0.01  # relative sizes and token counts that differ by less, as shares, are the same prior


def detect(path: Path) -> bool:
    """Whether a file is a fit file of Olmix; False for whatever cannot be read."""
    try:
        values = strict_yaml.load_yaml(recipe_text(path))
    except (RecipeError, yaml.YAMLError):
        return False
    return isinstance(values, Mapping) and "swarm" in values


@contextlib.contextmanager
def in_its_words() -> Iterator[None]:
    """Errors name the fields of a fit file and not those of the recipe that it becomes."""
    try:
        yield
    except CuveeError as error:
        text = str(error)
        for ours, its in FIELDS.items():
            text = text.replace(ours, its)
        error.args = (text,)
        raise


def load_olmix(path: Path) -> tuple[Recipe, str, tuple[str, ...]]:
    """A fit file as a recipe, its exact text, and what a reader must know of the translation.

    Raises:
        RecipeError: the file does not make sense; says where, with a suggestion.
        DataError: `metrics.csv` cannot be read.
    """
    text = recipe_text(path)
    try:
        given = FitFile.model_validate(strict_yaml.load_yaml(text))
    except ValidationError as error:
        raise explain(error, str(path), FitFile) from None
    _check(given, str(path))
    metrics = path.parent / given.swarm.metrics
    measured = tables.score_names(metrics)
    families, weights = _objective(given, measured, str(path))
    budget = given.constraints.target_tokens
    members = [name for parts in families.values() for name in parts]
    values = {
        "name": re.sub(r"[^A-Za-z0-9_.-]+", "-", path.stem).lstrip("-_.") or "olmix",
        "seed": given.regression.seed,
        "tables": {
            "mixtures": str(path.parent / given.swarm.ratios),
            "scores": str(metrics),
            "sizes": _kept(given, _relative(given)),
            "token_counts": _kept(given, given.priors.token_counts),
            "only": _only(given),
            "every": bool(given.filtering.keep_sources),
            "targets": members or list(weights),
            "families": families,
            "unmatched": "leave out",
        },
        "objective": {"name": "mean", "weights": weights},
        "constraints": _constraints(given),
        "full_scale": {"tokens": budget} if budget else {},
        "method": _method(given),
        "export": given.export.model_dump(exclude_defaults=True),
        "handoff": given.handoff and given.handoff.model_dump(exclude_defaults=True),
    }
    return build_recipe(values, str(path)), text, _notes(given, measured)


def as_recipe(given: Recipe) -> str:
    """A recipe's text, for those who read recipes alone."""
    return yaml.safe_dump(given.model_dump(mode="json", exclude_defaults=True), sort_keys=False)


def _check(given: FitFile, where: str) -> None:
    """What no translation can mend."""
    law, proposer, limits = given.regression.type, given.proposer, given.constraints
    if not (given.priors.relative_sizes or given.priors.token_counts):
        raise RecipeError(f"{where}: priors needs relative_sizes or token_counts")
    if limits.enabled and not (limits.target_tokens and given.priors.token_counts):
        raise RecipeError(
            f"{where}: constraints.enabled needs constraints.target_tokens and priors.token_counts"
        )
    if (proposer.type == "search") != (law == "search"):
        raise RecipeError(
            f"{where}: proposer.type search and regression.type search need each other; "
            f"got {proposer.type} and {law}"
        )
    if proposer.type == "exact" and law != "log_linear":
        raise RecipeError(
            f"{where}: proposer.type exact needs regression.type log_linear; got {law}. "
            "Use proposer.type simulation"
        )
    filtering = given.filtering
    if filtering.keep_sources and filtering.support_domains:
        raise RecipeError(
            f"{where}: filtering.keep_sources and filtering.support_domains both choose the runs; "
            "give support_domains for runs on these domains, keep_sources for runs on all of them"
        )
    if proposer.use_natural_kl and not given.priors.token_counts:
        raise RecipeError(f"{where}: proposer.use_natural_kl needs priors.token_counts")
    known = set(_sizes(given))
    for name in (*_only(given), *filtering.fixed_weight):
        if name not in known:
            raise RecipeError(f"{where}: filtering names {name!r}, of which priors has no size")
        if _only(given) and name not in _only(given):
            raise RecipeError(
                f"{where}: filtering.fixed_weight names {name!r}, which the filter leaves out"
            )
    total = sum(filtering.fixed_weight.values())
    if total > 1 + 1e-9 or (total > 1 - 1e-9 and known > set(filtering.fixed_weight)):
        raise RecipeError(
            f"{where}: filtering.fixed_weight sums to {total:g}, which leaves nothing to choose"
        )
    if proposer.make_worst_mix:
        raise RecipeError(f"{where}: proposer.make_worst_mix: only good mixtures are recommended")


def _only(given: FitFile) -> list[str]:
    """The domains that can be chosen; empty for all."""
    return given.filtering.keep_sources or given.filtering.support_domains


def _sizes(given: FitFile) -> dict[str, float]:
    """Sizes that make the mixture which the answer is compared with and held near."""
    return _relative(given) or {**given.priors.token_counts}


def _relative(given: FitFile) -> dict[str, float]:
    return {} if given.proposer.use_natural_kl else given.priors.relative_sizes


def _kept(given: FitFile, sizes: Mapping[str, float]) -> dict[str, float]:
    only = _only(given)
    return {name: size for name, size in sizes.items() if not only or name in only}


def _constraints(given: FitFile) -> dict[str, Any]:
    fixed = {name: (share, share) for name, share in given.filtering.fixed_weight.items()}
    caps = {"epochs": given.constraints.repetition_factor} if given.constraints.enabled else {}
    return caps | ({"bounds": fixed} if fixed else {})


def _objective(
    given: FitFile, measured: tuple[str, ...], where: str
) -> tuple[dict[str, list[str]], dict[str, float]]:
    """Families to aggregate (empty if metrics stay apart), and weights of what is left."""
    dropped = set(given.filtering.drop_metrics)
    kept = {
        family: [name for name in names if name not in dropped]
        for family, names in given.eval.families.items()
        if family not in dropped
    }
    kept = {family: names for family, names in kept.items() if names}
    together = given.regression.aggregate_task_families and bool(kept)
    if together:
        names = list(kept)
    elif given.eval.tasks:
        names = list(dict.fromkeys(name for names in kept.values() for name in names))
    else:
        names = [name for name in measured if name not in dropped]
    if not names:
        raise RecipeError(f"{where}: filtering.drop_metrics leaves no metric to optimize")
    weights = given.filtering.obj_weights
    lacking = [name for name in names if weights and name not in weights]
    unknown = [name for name in weights if name not in names and name not in dropped]
    if lacking or unknown:
        raise RecipeError(
            f"{where}: filtering.obj_weights must weigh every one of {', '.join(names[:9])}"
            f"{' ...' if len(names) > 9 else ''}; lacking {', '.join(lacking) or 'none'}, "
            f"unknown {', '.join(unknown) or 'none'}"
        )
    return (kept if together else {}), {name: weights.get(name, 1.0) for name in names}


def _method(given: FitFile) -> dict[str, Any]:
    proposer = given.proposer
    searches: dict[str, dict[str, Any]] = {
        "exact": {"name": "exact", "kl_reg": proposer.kl_reg or 0.0},
        "simulation": {"name": "simulate", "temperature": proposer.temperature or 1.0},
        "search": {"name": "auto"},
    }
    return {
        "name": "olmix",
        "laws": [dict(LAWS[given.regression.type])],
        "search": searches[proposer.type],
        "only_tried": proposer.type == "search",
    }


def _notes(given: FitFile, measured: tuple[str, ...]) -> tuple[str, ...]:
    """What the translation leaves out or reads otherwise, where it matters for this file."""
    proposer, regression = given.proposer, given.regression
    absent = [n for n in given.filtering.drop_metrics if n not in (*measured, *given.eval.tasks)]
    told = {
        "proposer.kl_reg is null: the mixture is not held near the prior": (
            proposer.type == "exact" and proposer.kl_reg is None
        ),
        f"proposer.kl_reg is for the exact proposer alone; {proposer.type} does without": (
            proposer.type != "exact" and proposer.kl_reg is not None
        ),
        f"proposer.use_natural_kl is for the exact proposer; {proposer.type} draws around the "
        "natural mixture": proposer.use_natural_kl and proposer.type != "exact",
        f"proposer.temperature is for simulation alone; {proposer.type} does without": (
            proposer.type != "simulation" and proposer.temperature is not None
        ),
        "proposer.fit_only: a mixture is recommended all the same": proposer.fit_only,
        "regression.n_test and train_split: every run is held out once, by cross-validation": (
            regression.n_test > 0 or regression.train_split not in (1.0, [1.0])
        ),
        "regression.aggregate_task_families has no effect without eval.tasks": (
            regression.aggregate_task_families and not given.eval.tasks
        ),
        f"filtering.drop_metrics names what metrics.csv does not have: {', '.join(absent)}": bool(
            absent
        ),
        "priors.token_counts are absent: epochs at full scale are unknown": (
            not given.priors.token_counts
        ),
        "constraints.target_tokens is null: epochs at full scale are unknown": (
            given.constraints.target_tokens is None
        ),
        "priors.relative_sizes are not the shares of priors.token_counts: the first are the "
        "natural mixture, the second cap and count epochs": _differ(given.priors),
    }
    return tuple(f"{note}." for note, applies in told.items() if applies)


def _differ(priors: PriorsPart) -> bool:
    sizes, counts = priors.relative_sizes, priors.token_counts
    if not (sizes and counts):
        return False
    first, second = sum(sizes.values()), sum(counts.values())
    names = {*sizes, *counts}
    return any(abs(sizes.get(n, 0) / first - counts.get(n, 0) / second) > AGREE for n in names)
