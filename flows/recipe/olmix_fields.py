"""The fields of Olmix's fit file, those of early versions included.

Source: allenai/olmix, `docs/cli/fit.md`, `README.md` and `olmix/fit/config.py`.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from cuvee.flows.recipe.parts import Amount, Count, ExportPart, HandoffPart, Part


def _fraction(value: Any) -> Any:
    """Reads 7/52.0 as a number; anything else is left to the type."""
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"\s*([\d.eE+-]+)\s*(?:/\s*([\d.eE+-]+)\s*)?", value)
    try:
        return float(found[1]) / float(found[2] or 1) if found else value
    except (ValueError, ZeroDivisionError):
        return value


Fraction = Annotated[float, BeforeValidator(_fraction), Field(gt=0)]
Share = Annotated[float, BeforeValidator(_fraction), Field(ge=0, le=1)]


class FitPart(Part):
    """A part of a fit file; null is what Olmix writes for a field that was not given."""

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        return {name: value for name, value in values.items() if value is not None}


class SwarmPart(FitPart):
    """The two tables."""

    ratios: str
    metrics: str


class PriorsPart(FitPart):
    """The natural mixture, and the text that exists."""

    relative_sizes: dict[str, Amount] = Field(default_factory=dict)
    token_counts: dict[str, Count] = Field(default_factory=dict)
    total_tokens: Count | None = None


class EvalPart(FitPart):
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


class RegressionPart(FitPart):
    """The law."""

    type: Literal["log_linear", "lightgbm", "gp", "autoscale", "bimix", "search"] = "log_linear"
    seed: int = Field(default=0, ge=0)
    n_test: int = 0
    train_split: float | list[float] = 1.0
    aggregate_task_families: bool = False


class ProposerPart(FitPart):
    """The search. `use_natural_kl` was a field of early versions."""

    type: Literal["exact", "simulation", "search"] = "exact"
    temperature: float | None = Field(default=None, gt=0)
    kl_reg: float | None = Field(default=None, ge=0)
    use_natural_kl: bool = False
    fit_only: bool = False
    make_worst_mix: bool = False


class OlmixConstraintsPart(FitPart):
    """Caps on repetition."""

    enabled: bool = False
    target_tokens: Count | None = None
    repetition_factor: float = Field(default=4.0, gt=0)


class FilteringPart(FitPart):
    """Which runs and metrics enter, with which weight, and shares that are given.

    `keep_sources`, `support_domains` and `fixed_weight` were fields of early versions.
    """

    keep_sources: list[str] = Field(default_factory=list)
    support_domains: list[str] = Field(default_factory=list)
    drop_metrics: list[str] = Field(default_factory=list)
    fixed_weight: dict[str, Share] = Field(default_factory=dict)
    obj_weights: dict[str, Fraction] = Field(default_factory=dict)


class FitFile(FitPart):
    """A fit file, whole. `export` and `handoff` are ours: those of a recipe."""

    swarm: SwarmPart
    priors: PriorsPart
    eval: EvalPart = EvalPart()
    regression: RegressionPart = RegressionPart()
    proposer: ProposerPart = ProposerPart()
    constraints: OlmixConstraintsPart = OlmixConstraintsPart()
    filtering: FilteringPart = FilteringPart()
    export: ExportPart = ExportPart()
    handoff: HandoffPart | None = None
