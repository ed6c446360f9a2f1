"""The recipe: what a person writes. YAML, checked whole before anything is spent.

Unknown fields are refused with a suggestion; numbers may carry a suffix (20M, 4B, 1.5T). The
methods, designs, laws and searches named in it are built by `mixtures.registry`, so that a new one
needs no change here.
"""

import hashlib
from typing import Annotated, Any, Literal

from pydantic import Field

from cuvee.evaluation import suites
from cuvee.flows.recipe.parts import (
    Amount,
    BudgetPart,
    ContinualPart,
    Count,
    ExportPart,
    HandoffPart,
    Part,
    SchedulePart,
    Share,
)
from cuvee.mixtures import registry
from cuvee.mixtures.constraints import Constraints, Group, constrain
from cuvee.mixtures.constraints.kept_ratios import keep_ratios
from cuvee.mixtures.domains import DomainSet
from cuvee.mixtures.errors import RecipeError
from cuvee.mixtures.inference.evidence_grade import RATIO
from cuvee.mixtures.inference.screening import Screened
from cuvee.mixtures.methods import Method
from cuvee.mixtures.objectives import Objective
from cuvee.mixtures.runs import canonical_json
from cuvee.proxies import ladder
from cuvee.tasks.study.finished import Purpose
from cuvee.tasks.study.tables import TableReading
from cuvee.tasks.validation.paired import AVERAGE, BASELINES, BEST, RECOMMENDED

FREE = (  # what no recommendation depends on: who trains, what tests it, what becomes of it
    "confirm", "export", "handoff", "schedule", "budget", "proxy.pack", "limits.failed_share",
)  # fmt: skip
LONGEST = 200  # characters of a study's name: files are named by it, and add to it


class SourcePart(Part):
    """One domain of a user's own corpus: files, folders or globs.

    `field` is the text in rows and tables; `separator` is what parts the documents of plain text.
    """

    path: str | Annotated[list[str], Field(min_length=1)]
    field: str = "text"
    separator: str | None = Field(default=None, min_length=1)


class CorpusPart(Part):
    """Where the text comes from: named quickstart domains, or paths by domain.

    A domain of less than `min_tokens` training tokens is refused. `on_error` says what becomes of
    rows that hold no text: nulls, malformed JSON, bytes that are not UTF-8.
    """

    quickstart: list[str] = []
    domains: dict[str, SourcePart] = {}
    vocabulary: Count = 4096
    heldout_bytes: Count = 400_000
    min_tokens: Count = 16_384
    on_error: Literal["refuse", "skip"] = "refuse"


class ProxyPart(Part):
    """How the small models are trained.

    With `start`, the folder of a Hugging Face checkpoint, they go on from it: see `continual`.
    """

    start: str | None = Field(default=None, min_length=1)
    size: str = "0.6M"
    tokens: Count = 400_000
    schedule: Literal["wsd", "cosine", "constant"] = "wsd"
    average: float = Field(default=0.0, ge=0, lt=1)
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    rate: float = Field(default=1.0, gt=0, le=1000)
    match_repetition: bool = False
    device: Literal["auto", "cpu", "cuda"] = "auto"
    pack: int | None = Field(default=None, ge=1, le=10_000)


class EvaluationPart(Part):
    """What the proxies are scored on beside held-out text of every domain.

    `curve` is how often held-out text is scored on the way of a run, for laws of scale; 0: never.
    """

    curve: int = Field(default=0, ge=0, le=32)
    suite: str | None = "quickstart"
    tasks: list[str] = []
    limit: Count | None = None
    heldout_tokens: Count = 16_384
    custom: dict[str, str] = {}

    @property
    def names(self) -> list[str]:
        """The suite and the tasks that are named; a user's own benchmarks come with their files."""
        return ([self.suite] if self.suite else []) + self.tasks

    @property
    def hub(self) -> bool:
        """Whether it names a task of lm-eval itself, whose data may have to be fetched."""
        return any(n not in suites.SUITES and n not in suites.OFFLINE for n in self.names)


class TablesPart(Part):
    """Runs that were trained elsewhere: two CSV tables, joined by run id.

    `sizes` are tokens by domain, or relative sizes; they make the natural mixture. `token_counts`
    say how much text exists where `sizes` do not. See `TableReading` for the others.
    """

    mixtures: str
    scores: str
    id: str | None = None
    sizes: dict[str, Amount] = {}
    token_counts: dict[str, Count] = {}
    targets: list[str] = []
    higher_is_better: list[str] = []
    families: dict[str, list[str]] = {}
    unmatched: Literal["refuse", "leave out"] = "refuse"
    only: list[str] = []
    every: bool = False

    @property
    def reading(self) -> TableReading:
        """What to read of the two tables."""
        return TableReading(
            key=self.id,
            targets=tuple(self.targets),
            higher_is_better=tuple(self.higher_is_better),
            families=tuple((name, tuple(parts)) for name, parts in self.families.items()),
            common=self.unmatched == "leave out",
            only=tuple(self.only),
            every=self.every,
        )


class GroupPart(Part):
    """A sum of shares held between two values."""

    domains: list[str]
    at_least: Share = 0.0
    at_most: Share = 1.0


class ConstraintsPart(Part):
    """What every candidate and the answer satisfy."""

    bounds: dict[str, tuple[Share, Share]] = {}
    groups: list[GroupPart] = []
    required: dict[str, Share] = {}
    epochs: float | dict[str, float] | None = None
    most_domains: int | None = Field(default=None, ge=1)
    most_kl: float | None = Field(default=None, ge=0)
    ratios: list[dict[str, float]] = []  # held within each group, as an earlier study found them


class FullScalePart(Part):
    """The run for which the mixture is chosen; 0 where it is not known.

    Without `parameters`, a ladder's answer is for the largest model it trained.
    """

    tokens: Count = 0
    parameters: Count = 0


class SizePart(Part):
    """A size of proxies and the tokens of each training at which a claim is tested."""

    size: str
    tokens: Count


class ConfirmPart(Part):
    """Fresh runs that test the recommendation.

    `cuvee run` trains them at the study's own size, `cuvee confirm` at each of `sizes`.
    """

    seeds: int = Field(default=3, ge=2, le=1000)
    sizes: list[SizePart] = []
    mixtures: dict[str, dict[str, float]] = {}
    best_observed: bool = True

    def check(self) -> None:
        """Hold sizes and names to what can be trained and told apart.

        Raises:
            RecipeError: a size that cannot be trained or stands twice, or a name that is taken.
        """
        places = [(part.size, part.tokens) for part in self.sizes]
        for size, tokens in places:
            ladder.training_plan(size, tokens, vocabulary=1)  # which changes no step
        twice = next((place for place in places if places.count(place) > 1), None)
        if twice:
            raise RecipeError(f"confirm.sizes names {twice[0]} with {twice[1]:,} tokens twice")
        taken = {RECOMMENDED, BEST, AVERAGE, *BASELINES} & set(self.mixtures)
        if taken:
            raise RecipeError(
                f"confirm.mixtures cannot bear the name {min(taken)!r}, which every confirmation "
                "uses already; choose another"
            )


class LimitsPart(Part):
    """When to give up, and which targets are too noisy to be trusted.

    A target whose spread over mixtures is less than `least_signal` times that over seeds is
    flagged; with `drop_noisy` the recommendation does without it.
    """

    failed_share: float = Field(default=0.2, ge=0, le=1)
    least_signal: float = Field(default=RATIO, ge=0)
    drop_noisy: bool = False


class Recipe(Part):
    """A study, whole."""

    name: str = Field(
        pattern=rf"^[A-Za-z0-9][A-Za-z0-9_.-]{{0,{LONGEST - 1}}}$",
        description=f"made of at most {LONGEST} letters, digits, ., _ and -, the first a letter or "
        "a digit",
    )
    seed: int = Field(default=42, ge=0)
    corpus: CorpusPart | None = None
    tables: TablesPart | None = None
    proxy: ProxyPart = ProxyPart()
    continual: ContinualPart | None = None
    evaluation: EvaluationPart = EvaluationPart()
    objective: dict[str, Any]
    constraints: ConstraintsPart = ConstraintsPart()
    full_scale: FullScalePart = FullScalePart()
    method: dict[str, Any]
    confirm: ConfirmPart | None = None
    limits: LimitsPart = LimitsPart()
    budget: BudgetPart | None = None
    schedule: SchedulePart | None = None
    export: ExportPart = ExportPart()
    handoff: HandoffPart | None = None

    @property
    def digest(self) -> str:
        """Hash of all that a recommendation depends on; a default may be written out or not."""
        return hashlib.sha256(canonical_json(self.determining()).encode()).hexdigest()

    @property
    def purpose(self) -> Purpose:
        """What a recommendation is approved for: the budget, and whom a handoff calls."""
        tokens = self.export.tokens or self.full_scale.tokens
        target = self.handoff.target if self.handoff else ""
        return Purpose(tokens, self.full_scale.parameters, target)

    def determining(self) -> dict[str, Any]:
        """The values that a recommendation depends on, where they are not defaults."""
        values = self.model_dump(mode="json", exclude_defaults=True)
        for name in FREE:
            *outer, last = name.split(".")
            inner = values
            for part in outer:
                inner = inner.get(part, {})
            inner.pop(last, None)
        return values

    def build_method(self) -> Screened:
        """The method with its hyper-parameters, and with the limits on noise."""
        method: Method = registry.build("method", self.method)
        return Screened(method, self.limits.least_signal, self.limits.drop_noisy)

    def build_objective(self) -> Objective:
        """The objective with its hyper-parameters."""
        objective: Objective = registry.build("objective", self.objective)
        return objective.turned(self.tables.higher_is_better) if self.tables else objective

    def build_constraints(self, domains: DomainSet) -> Constraints:
        """The feasible set over a corpus's domains."""
        part = self.constraints
        groups = [Group(tuple(g.domains), g.at_least, g.at_most) for g in part.groups]
        if self.continual and self.continual.replay:
            groups.append(Group(tuple(self.continual.old), self.continual.replay))
        found = constrain(
            domains,
            full_tokens=self.full_scale.tokens,
            bounds=part.bounds,
            groups=groups,
            required=part.required,
            epochs=part.epochs,
            most_domains=part.most_domains,
            most_kl=part.most_kl,
        )
        for ratios in part.ratios:
            found = keep_ratios(found, ratios)
        return found
