"""Where the evidence of a study comes from: proxies, what scores them, and tables of runs."""

from typing import Literal, Self

from pydantic import Field, model_validator

from cuvee.evaluation import suites
from cuvee.evaluation.membership import DETECTORS
from cuvee.flows.recipe.parts import Amount, Count, Part, Size
from cuvee.flows.recipe.trainer_parts import TrainerPart
from cuvee.tasks.study.tables import TableReading

DetectorName = Literal[DETECTORS]  # type: ignore[valid-type]  # those that are registered
WITH_FILES = (*suites.SUITES, *suites.OFFLINE)  # names of suites and tasks; others are lm-eval's


class ProxyPart(Part):
    """How the small models are trained."""

    start: str | None = Field(
        default=None,
        min_length=1,
        description="Folder of a Hugging Face checkpoint of the proxies' family, whose weights and "
        "tokenizer every run goes on with; `continual` says what it has seen.",
        examples=[".cuvee/base"],
    )
    size: Size = Field(
        default="0.6M",
        description="Size of a proxy: a name of the ladder, from which width, depth, batch, steps "
        "and learning rate follow; a shape; or the path of the config.json of a Llama, whose "
        "context and other fields a shape with `config` may change.",
        examples=["1M", "smollm/config.json"],
    )
    tokens: Count = Field(
        default=400_000,
        description="Training tokens of each proxy.",
        examples=["20M"],
    )
    schedule: Literal["wsd", "cosine", "constant"] = Field(
        default="wsd",
        description="Learning rate over the run: `wsd` is a warm-up, a stable phase and a decay "
        "over the last 20 %, `cosine` half a cosine, `constant` the peak to the end.",
        examples=["constant"],
    )
    average: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Share of the last steps whose weights are averaged; 0 for none. It goes with "
        "`schedule: constant`.",
        examples=[0.2],
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto",
        description="Number format of the matrix products; `auto` takes bfloat16 where the device "
        "has it in hardware.",
        examples=["float32"],
    )
    rate: float = Field(
        default=1.0,
        gt=0,
        le=1000,
        description="Factor on the peak learning rate that the size gives; lower it where runs "
        "diverge.",
        examples=[0.5],
    )
    match_repetition: bool = Field(
        default=False,
        description="Train on a part of each domain's text, so that a proxy repeats it as often as "
        "the run at full scale will.",
        examples=[True],
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto",
        description="Where proxies train; `auto` takes a GPU where there is one.",
        examples=["cuda"],
    )
    pack: int | None = Field(
        default=None,
        ge=1,
        le=10_000,
        description="Proxies that one trainer trains at once, at most; null chooses from the "
        "device and the size. It changes no result.",
        examples=[16],
    )
    trainer: TrainerPart | None = Field(
        default=None,
        description="Your own program, which trains each run; null takes the built-in trainer.",
        examples=[{"command": ["/opt/train/bin/python", "/opt/train/train.py"], "gpus": 1}],
    )


class AuditPart(Part):
    """What is looked into besides, for whether scores mean what they say."""

    longest_match: bool = Field(
        default=True,
        description="Look in the training text for the longest run of words of every benchmark "
        "item: where it stands, how often, and what gains become without the suspicious items.",
        examples=[False],
    )
    detectors: list[DetectorName] = Field(
        default=[],
        description="Detectors of membership, which score every item of the tasks with choices in "
        "the published order of its choices against other orders: a proxy that finds the published "
        "one likelier has seen it. They see leaks with choices, of some 16 copies on; tasks of "
        "lm-eval itself are left out; runs are trained anew for another list.",
        examples=[["loss", "zlib"]],
    )


class EvaluationPart(Part):
    """What the proxies are scored on beside held-out text of every domain."""

    curve: int = Field(
        default=0,
        ge=0,
        le=32,
        description="How often held-out text is scored on the way of a run, for laws of scale; 0 "
        "for never.",
        examples=[4],
    )
    suite: str | None = Field(
        default="quickstart",
        description="Benchmarks by the name of a suite, fetched once: `quickstart` or "
        "`offline` (all that are shipped); null for none.",
        examples=["offline", None],
    )
    tasks: list[str] = Field(
        default=[],
        description="More tasks: those of a suite, or any of lm-eval, whose data may lie on "
        "Hugging Face. A task's target is `task/` and its name without `_offline`.",
        examples=[["piqa_offline", "hellaswag"]],
    )
    limit: Count | None = Field(
        default=None,
        description="Questions asked of each task at most; null leaves it to the suite.",
        examples=[200],
    )
    heldout_tokens: Count = Field(
        default=16_384,
        description="Held-out tokens of each domain that are scored.",
        examples=["64k"],
    )
    held_out_targets: list[str] | None = Field(
        default=None,
        description="Targets that the objective does not read, on whose mean the confirmed gain is "
        "stated too: what was not optimized cannot flatter. null takes all that are measured; [] "
        "none. It changes no run.",
        examples=[["task/piqa", "domain/news"], []],
    )
    custom: dict[str, str] = Field(
        default={},
        description="Your own benchmarks by name: files of JSON lines with `query`, `choices` and "
        "`gold`, or with `text`; the target is `task/` and the name.",
        examples=[{"qa": "qa.jsonl"}],
    )
    audit: AuditPart = Field(
        default=AuditPart(),
        description="What is looked into besides, for whether scores mean what they say.",
        examples=[{"longest_match": False}],
    )

    @property
    def limits(self) -> suites.Limits:
        """How much of the text is scored, and what items are audited for."""
        return suites.Limits(self.heldout_tokens, tuple(sorted(set(self.audit.detectors))))

    @property
    def names(self) -> list[str]:
        """The suite and the tasks that are named; a user's own benchmarks come with their files."""
        return ([self.suite] if self.suite else []) + self.tasks

    @property
    def hub(self) -> bool:
        """Whether it names a task of lm-eval itself, whose data may have to be fetched."""
        return any(name not in WITH_FILES for name in self.names)

    @model_validator(mode="after")
    def _auditable(self) -> Self:
        if self.audit.detectors and not self.custom and not {*self.names} & {*WITH_FILES}:
            raise ValueError(
                "audit.detectors score the items of benchmark files, and no task has one (those of "
                "lm-eval itself have none): name a suite, or leave detectors out"
            )
        return self


class TablesPart(Part):
    """Runs that were trained elsewhere: two CSV tables, joined by run id."""

    mixtures: str = Field(
        description="CSV of a row per run and a column per domain: its shares of tokens.",
        examples=["ratios.csv"],
    )
    scores: str = Field(
        description="CSV of a row per run and a column per target: its scores, lower is better.",
        examples=["metrics.csv"],
    )
    id: str | None = Field(
        default=None,
        description="Column that joins the two; null takes the first of run, run_id, index and id "
        "that both have.",
        examples=["run"],
    )
    sizes: dict[str, Amount] = Field(
        default={},
        description="Tokens that exist by domain, or relative sizes, for the natural mixture.",
        examples=[{"web": "400B", "code": "40B"}],
    )
    token_counts: dict[str, Count] = Field(
        default={},
        description="Tokens that exist by domain, for epoch caps and exports, where `sizes` are "
        "relative.",
        examples=[{"web": "400B", "code": "40B"}],
    )
    targets: list[str] = Field(
        default=[],
        description="Columns of scores to read; all where the list is empty.",
        examples=[["loss/web", "piqa"]],
    )
    higher_is_better: list[str] = Field(
        default=[],
        description="Columns of which more is better, such as accuracies: their sign is turned.",
        examples=[["piqa"]],
    )
    bounds: dict[str, tuple[float, float]] = Field(
        default={},
        description="Least and most that a column's scores can be, by its name: no prediction lies "
        "outside. Known by itself of columns that end in the name of a metric, such as "
        "`piqa/accuracy`.",
        examples=[{"piqa": [0, 1]}],
    )
    families: dict[str, list[str]] = Field(
        default={},
        description="Columns by the name of the one that takes their place: their plain mean.",
        examples=[{"qa": ["piqa", "siqa"]}],
    )
    unmatched: Literal["refuse", "leave out"] = Field(
        default="refuse",
        description="What becomes of runs that stand in one table only.",
        examples=["leave out"],
    )
    only: list[str] = Field(
        default=[],
        description="Domains to read; runs on any other are set aside. All where the list is "
        "empty.",
        examples=[["web", "code"]],
    )
    every: bool = Field(
        default=False,
        description="Of the runs on `only`, read those in which each of these domains has a share.",
        examples=[True],
    )

    @property
    def reading(self) -> TableReading:
        """What to read of the two tables."""
        return TableReading(
            key=self.id,
            targets=tuple(self.targets),
            higher_is_better=tuple(self.higher_is_better),
            families=tuple((name, tuple(parts)) for name, parts in self.families.items()),
            bounds=tuple((name, *limits) for name, limits in self.bounds.items()),
            common=self.unmatched == "leave out",
            only=tuple(self.only),
            every=self.every,
        )
