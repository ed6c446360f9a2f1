"""What a sweep may cost and when it runs: the parts `budget` and `schedule` of a recipe."""

from pydantic import BaseModel, ConfigDict, Field


class StandingPart(BaseModel):
    """A part of a recipe that decides nothing about what is trained or recommended."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class MoneyPart(StandingPart):
    """A ceiling on money, in whatever currency: wall time of the sweep, priced by the hour.

    `per_hour` is what an hour of everything that the sweep occupies costs, the whole cluster.
    """

    per_hour: float = Field(gt=0, allow_inf_nan=False)
    most: float = Field(gt=0, allow_inf_nan=False)


class BudgetPart(StandingPart):
    """Ceilings on what one sweep newly spends; what the store holds is free."""

    flops: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    minutes: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    money: MoneyPart | None = None

    @property
    def seconds(self) -> float | None:
        """The shorter of the two ceilings on wall time, in seconds."""
        limits = [60 * self.minutes] if self.minutes else []
        if self.money:
            limits.append(3600 * self.money.most / self.money.per_hour)
        return min(limits) if limits else None


class SchedulePart(StandingPart):
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
    notify: str = Field(default="", pattern=r"^$|^[a-z0-9-]+/[A-Za-z0-9-]+$")
    pool: str = ""
    limit: int = Field(default=1, ge=1)
    reuse: bool = True
