"""What a sweep may cost and when it runs: the parts `budget` and `schedule` of a recipe."""

from pydantic import Field

from cuvee.flows.recipe.parts import Amount, Part


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
