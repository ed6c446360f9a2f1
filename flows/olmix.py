"""Olmix's fit files, read as they are: `ratios.csv`, `metrics.csv` and the YAML beside them.

Source: allenai/olmix, `docs/cli/fit.md` and `olmix/fit/config.py`. A file is known by its `swarm`
mapping. It is translated into a recipe, so that everything after is what any other study gets:
cross-validation, intervals, noise, a report. Paths are relative to the YAML file.

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
* The proposer `search` goes by the default law's prediction of the runs, not by their raw scores.
* LightGBM does not stop early on its training rows.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, Field, ValidationError

from flows import recipe as recipes
from flows.parts import Count, Part
from flows.recipe import Recipe
from mixtures.errors import RecipeError
from mixtures.laws import default
from tasks import tables

LAWS: Mapping[str, dict[str, Any]] = {
    "log_linear": {"name": "log_linear", "offset": "positive"},
    "lightgbm": {"name": "lightgbm"},
    "gp": {"name": "gaussian_process"},
    "autoscale": {"name": "autoscale"},
    "bimix": {"name": "bimix"},
    "search": {"name": default.NAME},
}
AGREE = 0.01  # relative sizes and token counts that differ by less, as shares, are the same prior


def _fraction(value: Any) -> Any:
    """Reads 7/52.0 as a number; anything else is left to the type."""
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"\s*([\d.eE+-]+)\s*(?:/\s*([\d.eE+-]+)\s*)?", value)
    try:
        return float(found[1]) / float(found[2] or 1) if found else value
    except (ValueError, ZeroDivisionError):
        return value


Fraction = Annotated[float, BeforeValidator(_fraction), Field(gt=0, allow_inf_nan=False)]


class SwarmPart(Part):
    """The two tables."""

    ratios: str
    metrics: str


class PriorsPart(Part):
    """The natural mixture, and the text that exists."""

    relative_sizes: dict[str, float] = Field(default_factory=dict)
    token_counts: dict[str, Count] = Field(default_factory=dict)
    total_tokens: Count | None = None


class EvalPart(Part):
    """Metrics by family: a list, or task -> metric as the in-loop evaluator has it."""

    type: Literal["offline", "inloop"] = "offline"
    tasks: dict[str, list[str] | dict[str, str]] = Field(default_factory=dict)

    @property
    def families(self) -> dict[str, list[str]]:
        """Family -> metrics."""
        return {
            name: list(found.values()) if isinstance(found, dict) else found
            for name, found in self.tasks.items()
        }


class RegressionPart(Part):
    """The law."""

    type: Literal["log_linear", "lightgbm", "gp", "autoscale", "bimix", "search"] = "log_linear"
    seed: int = Field(default=0, ge=0)
    n_test: int = 0
    train_split: float | list[float] = 1.0
    aggregate_task_families: bool = False


class ProposerPart(Part):
    """The search."""

    type: Literal["exact", "simulation", "search"] = "exact"
    temperature: float | None = Field(default=None, gt=0)
    kl_reg: float | None = Field(default=None, ge=0)
    fit_only: bool = False
    make_worst_mix: bool = False


class ConstraintsPart(Part):
    """Caps on repetition."""

    enabled: bool = False
    target_tokens: Count | None = None
    repetition_factor: float = Field(default=4.0, gt=0)


class FilteringPart(Part):
    """What enters the objective, with which weight."""

    drop_metrics: list[str] = Field(default_factory=list)
    obj_weights: dict[str, Fraction] = Field(default_factory=dict)


class FitFile(Part):
    """A fit file, whole."""

    swarm: SwarmPart
    priors: PriorsPart
    eval: EvalPart = EvalPart()
    regression: RegressionPart = RegressionPart()
    proposer: ProposerPart = ProposerPart()
    constraints: ConstraintsPart = ConstraintsPart()
    filtering: FilteringPart = FilteringPart()


def detect(path: Path) -> bool:
    """Whether a file is a fit file of Olmix; False for whatever cannot be read."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return False
    return isinstance(values, Mapping) and "swarm" in values


def load(path: Path) -> tuple[Recipe, str, tuple[str, ...]]:
    """A fit file as a recipe, its exact text, and what a reader must know of the translation.

    Raises:
        RecipeError: the file does not make sense; says where, with a suggestion.
        DataError: `metrics.csv` cannot be read.
    """
    text = path.read_text(encoding="utf-8")
    try:
        given = FitFile.model_validate(yaml.safe_load(text))
    except ValidationError as error:
        raise recipes.explain(error, str(path), FitFile) from None
    _check(given, str(path))
    metrics = path.parent / given.swarm.metrics
    measured = tables.targets_of(metrics)
    families, weights = _objective(given, measured, str(path))
    budget = given.constraints.target_tokens
    members = [name for parts in families.values() for name in parts]
    values = {
        "name": re.sub(r"[^A-Za-z0-9_.-]+", "-", path.stem).lstrip("-_.") or "olmix",
        "seed": given.regression.seed,
        "tables": {
            "mixtures": str(path.parent / given.swarm.ratios),
            "scores": str(metrics),
            "sizes": given.priors.relative_sizes or given.priors.token_counts,
            "token_counts": given.priors.token_counts,
            "targets": members or list(weights),
            "families": families,
            "unmatched": "leave out",
        },
        "objective": {"name": "mean", "weights": weights},
        "constraints": (
            {"epochs": given.constraints.repetition_factor} if given.constraints.enabled else {}
        ),
        "full_scale": {"tokens": budget} if budget else {},
        "method": _method(given),
    }
    return recipes.build(values, str(path)), text, _notes(given, measured)


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
    if proposer.make_worst_mix:
        raise RecipeError(f"{where}: proposer.make_worst_mix: only good mixtures are recommended")


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
