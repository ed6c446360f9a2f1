"""What parts of a recipe are made of; the parts on what becomes of a study, its cost, its times."""

import hashlib
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    model_validator,
)

from cuvee.mixtures.catalog import attribute_texts
from cuvee.mixtures.runs.run_spec import canonical_json
from cuvee.mixtures.units import whole_number
from cuvee.proxies import ladder, model_size
from cuvee.tasks import export as exports
from cuvee.tasks.approval import webhook as handoff_call

Count = Annotated[int, BeforeValidator(whole_number), Field(gt=0, le=10**18)]
# A count, or a size of no unit.
Amount = Annotated[float, BeforeValidator(whole_number), Field(gt=0)]
Place = Annotated[str, Field(min_length=1)]  # a path or URL
KINDS = {int: "integer", float: "number", bool: "boolean"}
SHAPE = {
    "type": "object",
    "properties": {
        name: {"description": text, "type": KINDS[model_size.PARTS[name]]}
        for name, text in attribute_texts(model_size.ModelSize).items()
        if name != "size"
    }
    | {"config": {"description": "A config.json, whose fields these change.", "type": "string"}},
    "additionalProperties": False,
    "if": {"required": ["config"]},
    "else": {"required": [*model_size.REQUIRED]},
}
# The size of runs as a text; shapes and files become it before (`load.name_sizes`).
TEXT = {"type": "string", "pattern": f"/|[.]json$|^{model_size.SHAPE}$"}
Size = Annotated[str, WithJsonSchema({"anyOf": [{"enum": [*ladder.LADDER]}, TEXT, SHAPE]})]
Share = Annotated[float, Field(ge=0, le=1)]
DAY = 86_400.0  # seconds
BLOCK_RULE = 'a Prefect block, "type/name", such as slack-webhook/data-team'  # in a refusal


class Part(BaseModel):
    """A part of a recipe: unknown fields are refused, values are not coerced in silence."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _yes_is_no_number(cls, values: Any) -> Any:
        for name, value in values.items() if isinstance(values, Mapping) else ():
            field = cls.model_fields.get(name)
            kind = str(field.annotation) if field else ""
            if field is None or field.annotation is bool or "Any" in kind or "Part" in kind:
                continue
            if isinstance(value, bool) or ("str]" not in kind and _flagged(value)):
                raise ValueError(
                    f"{name!r} is neither true nor false: give a value; YAML reads an unquoted no, "
                    "off, yes or on so, write names in quotes"
                )
        return values


def _flagged(value: Any) -> bool:
    """Whether true or false stands somewhere in lists and mappings."""
    if isinstance(value, Mapping | list):
        return any(map(_flagged, value.values() if isinstance(value, Mapping) else value))
    return isinstance(value, bool)


class ContinualPart(Part):
    """Training that goes on from `proxy.start`: what it has seen, how much of it must be kept."""

    old: list[str] = Field(
        min_length=1,
        description="Domains that the checkpoint was trained on.",
        examples=[["web", "books"]],
    )
    replay: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Least share of the old domains together, from 0 to 1.",
        examples=[0.1],
    )
    forget: float | None = Field(
        default=None,
        ge=0,
        description="How much worse than the checkpoint an old domain may end, in bits per byte; "
        "null for no floor.",
        examples=[0.02],
    )


class ExportPart(Part):
    """What a trainer must know to take the recommendation."""

    tokens: Count | None = Field(
        default=None,
        description="Training tokens of the run; null takes `full_scale.tokens`.",
        examples=["300B"],
    )
    paths: dict[str, str | list[str]] = Field(
        default={},
        description="Where the trainer finds each domain's data: a path or URL, or a list of them.",
        examples=[{"web": "s3://bucket/web", "code": ["/data/code-1", "/data/code-2"]}],
    )
    validation: dict[str, Place | Annotated[list[Place], Field(min_length=1)]] = Field(
        default={},
        description="Where the trainer finds each domain's validation set: it goes out with the "
        "mixture where the format has a place for it, so that the run logs a loss by domain.",
        examples=[{"web": "s3://bucket/web-held-out", "code": "/data/code-held-out"}],
    )
    sequence_length: Count | None = Field(
        default=None,
        description="Length of the trainer's sequences, in tokens.",
        examples=[4096],
    )
    batch: Count | None = Field(
        default=None,
        description="Sequences in a training step, for formats whose stages start at steps.",
        examples=[1024],
    )
    seed: int = Field(
        default=42,
        ge=0,
        description="Seed of the trainer's own shuffling, where a format has one.",
        examples=[7],
    )
    formats: dict[str, dict[str, Any]] = Field(
        default={},
        description="Options by format; each format has fields of its own.",
        examples=[{"mosaic": {"samples": "documents"}}],
    )

    def check(self) -> None:
        """Refuse an unknown format or option, with a suggestion."""
        for name, options in self.formats.items():
            exports.build_format(name, options)


class HandoffPart(Part):
    """What happens once the recommendation is approved; secrets stand in the environment alone.

    It is exported to `to`, then either `webhook` or `command` is called, once.
    """

    format: str = Field(
        description="Format of the export.",
        examples=["megatron"],
    )
    to: str = Field(
        min_length=1,
        description="Folder or fsspec URL that the export is written to.",
        examples=["s3://bucket/mixtures"],
    )
    stage: int | None = Field(
        default=None,
        ge=1,
        description="The one stage of a schedule that is exported, counted from 1; null exports "
        "all.",
        examples=[1],
    )
    webhook: str | None = Field(
        default=None,
        description="URL that is called with the manifest; one with a secret in it is named as a "
        "variable of the environment, `$CUVEE_WEBHOOK_...`.",
        examples=["$CUVEE_WEBHOOK_URL"],
    )
    command: list[str] = Field(
        default=[],
        description="Program by its full path, with its arguments, that is called with the "
        "manifest; the operator allows it in CUVEE_HANDOFF_COMMANDS.",
        examples=[["/usr/local/bin/start-training", "--queue", "big"]],
    )
    timeout: float = Field(
        default=60,
        gt=0,
        le=7 * DAY,
        description="Seconds that the call may take, a week at most.",
        examples=[300],
    )
    every: float = Field(
        default=30,
        gt=0,
        le=7 * DAY,
        description="Seconds between two looks for an approval, with `cuvee handoff --watch`.",
        examples=[600],
    )

    @property
    def target(self) -> str:
        """Hash of whom an approval lets be called, and with what; "" where nobody is."""
        if not (self.webhook or self.command):
            return ""
        called = [self.webhook, self.command, self.format, self.to, self.stage]
        return hashlib.sha256(canonical_json(called).encode()).hexdigest()

    def check(self, export: ExportPart) -> None:
        """Refuse an unknown format, and a call that cannot be made or holds a secret."""
        exports.build_format(self.format, export.formats.get(self.format))
        handoff_call.check_handoff(self.webhook, self.command, self.to)


class MoneyPart(Part):
    """A ceiling on money, in whatever currency: wall time of the sweep, priced by the hour."""

    per_hour: float = Field(
        gt=0,
        description="What an hour of everything that the sweep occupies costs, the whole cluster.",
        examples=[12.5],
    )
    most: float = Field(
        gt=0, description="What the sweep may cost, in the same currency.", examples=[100]
    )


class BudgetPart(Part):
    """Ceilings on what one sweep newly spends; what the store holds is free."""

    flops: Amount | None = Field(
        default=None,
        description="FLOPs that the sweep may newly spend; a design that needs more is refused.",
        examples=[1e18],
    )
    minutes: float | None = Field(
        default=None,
        gt=0,
        description="Wall time that the sweep may take, in minutes.",
        examples=[90],
    )
    money: MoneyPart | None = Field(
        default=None,
        description="Wall time that the sweep may take, as money.",
        examples=[{"per_hour": 12.5, "most": 100}],
    )

    @property
    def seconds(self) -> float | None:
        """The shorter of the two ceilings on wall time, in seconds."""
        limits = [60 * self.minutes] if self.minutes else []
        if self.money:
            limits.append(3600 * self.money.most / self.money.per_hour)
        return min(limits) if limits else None


class SchedulePart(Part):
    """When a scheduled sweep runs, where, and who is told when it fails."""

    cron: str = Field(
        default="",
        description="Five fields of cron: minute, hour, day, month, day of the week; `--cron` goes "
        "before it.",
        examples=["0 3 * * 1"],
    )
    timezone: str = Field(
        default="UTC",
        description="Time zone in which the hours are meant.",
        examples=["Europe/Paris"],
    )
    notify: Annotated[str, BLOCK_RULE] = Field(
        default="",
        pattern=r"^$|^[a-z0-9-]+/[A-Za-z0-9-]+$",
        description='Prefect block that is told of failures, "type/name"; empty for none.',
        examples=["slack-webhook/data-team"],
    )
    pool: str = Field(
        default="",
        description="Work pool whose workers run the sweeps; empty to run them in `cuvee "
        "schedule` itself.",
        examples=["gpu-pool"],
    )
    limit: int = Field(
        default=1,
        ge=1,
        description="Sweeps of this schedule at once; another one waits.",
        examples=[2],
    )
    reuse: bool = Field(
        default=True,
        description="Keep the ratios within unchanged domains when others have changed.",
        examples=[False],
    )
