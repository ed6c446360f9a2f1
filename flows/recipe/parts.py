"""What parts of a recipe are made of; the parts on what becomes of a study, its cost, its times."""

import hashlib
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from cuvee.mixtures.runs import canonical_json
from cuvee.mixtures.units import whole_number
from cuvee.tasks import export as exports
from cuvee.tasks.approval import webhook as handoff_call

Count = Annotated[int, BeforeValidator(whole_number), Field(gt=0, le=10**18)]
# A count, or a size of no unit.
Amount = Annotated[float, BeforeValidator(whole_number), Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
DAY = 86_400.0  # seconds


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
    """Training that goes on from `proxy.start`: what it has seen, and how much of it must be kept.

    `old` are the domains that the checkpoint was trained on and `replay` is their least share
    together. With `forget`, no old domain may end worse than the checkpoint by more than so many
    bits per byte.
    """

    old: list[str] = Field(min_length=1)
    replay: float = Field(default=0.0, ge=0, le=1)
    forget: float | None = Field(default=None, ge=0)


class ExportPart(Part):
    """What a trainer must know to take the recommendation; see `tasks/README.md`.

    `tokens` are those of the run, by default `full_scale.tokens`; `sequence_length` is in tokens,
    `batch` in sequences of a step; `formats` are options by format.
    """

    tokens: Count | None = None
    paths: dict[str, str | list[str]] = {}
    sequence_length: Count | None = None
    batch: Count | None = None
    seed: int = Field(default=42, ge=0)
    formats: dict[str, dict[str, Any]] = {}

    def check(self) -> None:
        """Refuse an unknown format or option, with a suggestion."""
        for name, options in self.formats.items():
            exports.build_format(name, options)


class HandoffPart(Part):
    """What happens once the recommendation is approved; secrets stand in the environment alone.

    It is exported to the fsspec URL `to`, then either `webhook` or `command` is called, once.
    A webhook's URL with a secret in any part is named as a variable: `$CUVEE_WEBHOOK_URL`.
    """

    format: str
    to: str = Field(min_length=1)
    stage: int | None = Field(default=None, ge=1)
    webhook: str | None = None
    command: list[str] = []
    timeout: float = Field(default=60, gt=0, le=7 * DAY)
    every: float = Field(default=30, gt=0, le=7 * DAY)

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
    """A ceiling on money, in whatever currency: wall time of the sweep, priced by the hour.

    `per_hour` is what an hour of everything that the sweep occupies costs, the whole cluster.
    """

    per_hour: float = Field(gt=0)
    most: float = Field(gt=0)


class BudgetPart(Part):
    """Ceilings on what one sweep newly spends; what the store holds is free."""

    flops: Amount | None = None
    minutes: float | None = Field(default=None, gt=0)
    money: MoneyPart | None = None

    @property
    def seconds(self) -> float | None:
        """The shorter of the two ceilings on wall time, in seconds."""
        limits = [60 * self.minutes] if self.minutes else []
        if self.money:
            limits.append(3600 * self.money.most / self.money.per_hour)
        return min(limits) if limits else None


class SchedulePart(Part):
    """When a scheduled sweep runs, where, and who is told when it fails.

    Attributes:
        cron: five fields, such as "0 3 * * 1"; `--cron` goes before it.
        timezone: in which the hours are meant.
        notify: a Prefect block, "type/name", such as "slack-webhook/data-team".
        pool: a work pool whose workers run the sweeps; empty to run them in `cuvee schedule`.
        limit: sweeps of this schedule at once; another one waits.
        reuse: keep the ratios within unchanged domains when others have changed.
    """

    cron: str = ""
    timezone: str = "UTC"
    notify: str = Field(
        default="",
        pattern=r"^$|^[a-z0-9-]+/[A-Za-z0-9-]+$",
        description='a Prefect block, "type/name", such as slack-webhook/data-team',
    )
    pool: str = ""
    limit: int = Field(default=1, ge=1)
    reuse: bool = True
