"""The recipe: what a person writes. YAML, checked whole before anything is spent.

Unknown fields are refused with a suggestion; numbers may carry a suffix (20M, 4B, 1.5T). The
methods, designs, laws and searches named in it are built by `mixtures.registry`, so that a new one
needs no change here.
"""

import difflib
import hashlib
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from flows import strict
from mixtures import registry
from mixtures.constraints import Constraints, Group, constrain
from mixtures.domains import DomainSet
from mixtures.errors import CuveeError, RecipeError, UnknownName
from mixtures.history import canonical
from mixtures.loop import Method
from mixtures.methods import screening
from mixtures.methods.screening import Screened
from mixtures.methods.verdict import RATIO
from mixtures.objectives import Objective, Regret
from proxies import ladder
from tasks import exports, handoff_call
from tasks.confirmation import AVERAGE, BASELINES, BEST, RECOMMENDED
from tasks.tables import Reading

SUFFIXES = {"k": 10**3, "K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}


def _count(value: Any) -> Any:
    """Reads 20M, 1.5B or 2e7 as whole numbers."""
    if isinstance(value, str) and value.strip():
        text, factor = value.strip().replace("_", ""), 1
        if text[-1] in SUFFIXES:
            text, factor = text[:-1], SUFFIXES[text[-1]]
        try:
            value = float(text) * factor
        except ValueError:
            return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


LATER = ("export", "handoff", "schedule")  # fields that act after a study, or start it
Count = Annotated[int, BeforeValidator(_count), Field(gt=0)]


class Part(BaseModel):
    """A part of a recipe: unknown fields are refused, values are not coerced in silence."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _yes_is_no_number(cls, values: Any) -> Any:
        for name, value in values.items() if isinstance(values, Mapping) else ():
            field = cls.model_fields.get(name)
            if isinstance(value, bool) and field is not None and field.annotation is not bool:
                raise ValueError(f"{name!r} is neither true nor false: give a value")
        return values


class SourcePart(Part):
    """One domain of a user's own corpus."""

    path: str
    field: str = "text"


class CorpusPart(Part):
    """Where the text comes from: named quickstart domains, or paths by domain."""

    quickstart: list[str] = []
    domains: dict[str, SourcePart] = {}
    vocabulary: Count = 4096
    heldout_bytes: Count = 400_000


class ProxyPart(Part):
    """How the small models are trained."""

    size: str = "0.6M"
    tokens: Count = 400_000
    schedule: Literal["wsd", "cosine"] = "wsd"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    rate: float = Field(default=1.0, gt=0)
    match_repetition: bool = False
    device: Literal["auto", "cpu", "cuda"] = "auto"
    pack: int | None = Field(default=None, ge=1)


class EvaluationPart(Part):
    """What the proxies are scored on beside held-out text of every domain."""

    suite: str | None = "quickstart"
    tasks: list[str] = []
    limit: Count | None = None
    heldout_tokens: Count = 16_384
    custom: dict[str, str] = {}


class TablesPart(Part):
    """Runs that were trained elsewhere: two CSV tables, joined by run id.

    `sizes` are tokens by domain, or relative sizes; they make the natural mixture. `token_counts`
    say how much text exists where `sizes` do not. See `tasks.tables.Reading` for the others.
    """

    mixtures: str
    scores: str
    id: str | None = None
    sizes: dict[str, float] = {}
    token_counts: dict[str, Count] = {}
    targets: list[str] = []
    higher_is_better: list[str] = []
    families: dict[str, list[str]] = {}
    unmatched: Literal["refuse", "leave out"] = "refuse"

    @property
    def reading(self) -> Reading:
        """What to read of the two tables."""
        return Reading(
            key=self.id,
            targets=tuple(self.targets),
            higher_is_better=tuple(self.higher_is_better),
            families=tuple((name, tuple(parts)) for name, parts in self.families.items()),
            common=self.unmatched == "leave out",
        )


class GroupPart(Part):
    """A sum of shares held between two values."""

    domains: list[str]
    at_least: float = 0.0
    at_most: float = 1.0


class ConstraintsPart(Part):
    """What every candidate and the answer satisfy."""

    bounds: dict[str, tuple[float, float]] = {}
    groups: list[GroupPart] = []
    required: dict[str, float] = {}
    epochs: float | dict[str, float] | None = None
    most_domains: int | None = Field(default=None, ge=1)
    most_kl: float | None = Field(default=None, ge=0)


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

    seeds: int = Field(default=3, ge=2)
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
            ladder.plan(size, tokens, vocabulary=1)  # which changes no step
        twice = next((place for place in places if places.count(place) > 1), None)
        if twice:
            raise RecipeError(f"confirm.sizes names {twice[0]} with {twice[1]:,} tokens twice")
        taken = {RECOMMENDED, BEST, AVERAGE, *BASELINES} & set(self.mixtures)
        if taken:
            raise RecipeError(
                f"confirm.mixtures cannot bear the name {min(taken)!r}, which every confirmation "
                "uses already; choose another"
            )


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
            exports.build(name, options)


class HandoffPart(Part):
    """What happens once the recommendation is approved; secrets stand in the environment alone.

    It is exported to the fsspec URL `to`, then either `webhook` or `command` is called, once.
    """

    format: str
    to: str = Field(min_length=1)
    stage: int | None = Field(default=None, ge=1)
    webhook: str | None = None
    command: list[str] = []
    timeout: float = Field(default=60, gt=0, allow_inf_nan=False)
    every: float = Field(default=30, gt=0, allow_inf_nan=False)


class LimitsPart(Part):
    """When to give up, and which targets are too noisy to be trusted.

    A target whose spread over mixtures is less than `least_signal` times that over seeds is
    flagged; with `drop_noisy` the recommendation does without it.
    """

    failed_share: float = Field(default=0.2, ge=0, le=1)
    least_signal: float = Field(default=RATIO, ge=0, allow_inf_nan=False)
    drop_noisy: bool = False


class Recipe(Part):
    """A study, whole."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    seed: int = Field(default=42, ge=0)
    corpus: CorpusPart | None = None
    tables: TablesPart | None = None
    proxy: ProxyPart = ProxyPart()
    evaluation: EvaluationPart = EvaluationPart()
    objective: dict[str, Any]
    constraints: ConstraintsPart = ConstraintsPart()
    full_scale: FullScalePart = FullScalePart()
    method: dict[str, Any]
    confirm: ConfirmPart | None = None
    limits: LimitsPart = LimitsPart()
    export: ExportPart = ExportPart()
    handoff: HandoffPart | None = None

    @property
    def digest(self) -> str:
        """Hash of all that a recommendation depends on; not of what is done with it later."""
        values = self.model_dump(mode="json", exclude_defaults=True, exclude=set(LATER))
        return hashlib.sha256(canonical(values).encode()).hexdigest()

    def build_method(self) -> Screened:
        """The method with its hyper-parameters, and with the limits on noise."""
        method: Method = registry.build("method", self.method)
        return Screened(method, self.limits.least_signal, self.limits.drop_noisy)

    def build_objective(self) -> Objective:
        """The objective with its hyper-parameters."""
        objective: Objective = registry.build("objective", self.objective)
        if self.tables and isinstance(objective, Regret):
            return objective.turned(self.tables.higher_is_better)
        return objective

    def build_constraints(self, domains: DomainSet) -> Constraints:
        """The feasible set over a corpus's domains."""
        part = self.constraints
        return constrain(
            domains,
            full_tokens=self.full_scale.tokens,
            bounds=part.bounds,
            groups=[Group(tuple(g.domains), g.at_least, g.at_most) for g in part.groups],
            required=part.required,
            epochs=part.epochs,
            most_domains=part.most_domains,
            most_kl=part.most_kl,
        )


def load(path: Path) -> tuple[Recipe, str]:
    """A recipe and its exact text.

    Raises:
        RecipeError: the file is missing, is not YAML, or does not make sense; says where.
        UnknownName: an unknown field or name, with a suggestion.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        near = sorted(p.name for p in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
        hint = f"; recipes there: {', '.join(near)}" if near else ""
        raise RecipeError(f"cannot read the recipe {path} ({error.strerror}){hint}") from error
    except UnicodeDecodeError as error:
        raise RecipeError(f"the recipe {path} is not UTF-8: {error.reason}") from error
    return parse(text, str(path)), text


def parse(text: str, where: str = "the recipe") -> Recipe:
    """A recipe from its text; see `load`."""
    try:
        values = strict.load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise RecipeError(f"{where} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, Mapping):
        raise RecipeError(f"{where} must be a mapping of fields; found {type(values).__name__}")
    if "swarm" in values:
        raise RecipeError(f"{where} is a fit configuration of Olmix, which `cuvee fit` alone reads")
    return build(values, where)


def build(values: Mapping[str, Any], where: str) -> Recipe:
    """A recipe from its values; see `load`."""
    try:
        recipe = Recipe.model_validate(values)
    except ValidationError as error:
        raise explain(error, where, Recipe) from None
    if (recipe.corpus is None) == (recipe.tables is None):
        raise RecipeError(f"{where}: a study needs either `corpus` or `tables`, and not both")
    if recipe.corpus and not recipe.full_scale.tokens:
        raise RecipeError(f"{where}: field 'full_scale.tokens' is missing")
    if recipe.corpus and bool(recipe.corpus.quickstart) == bool(recipe.corpus.domains):
        raise RecipeError(f"{where}: corpus needs either `quickstart` or `domains`, and not both")
    ladder.rung(recipe.proxy.size)
    try:
        if recipe.confirm:
            recipe.confirm.check()
        recipe.export.check()
        if recipe.handoff:
            exports.build(recipe.handoff.format, recipe.export.formats.get(recipe.handoff.format))
            handoff_call.check(recipe.handoff.webhook, recipe.handoff.command)
        recipe.build_method()
        objective = recipe.build_objective()
        if recipe.limits.drop_noisy:
            screening.check(objective)
    except UnknownName:
        raise
    except CuveeError as error:
        raise RecipeError(f"{where}: {error}") from error
    return recipe


def explain(error: ValidationError, where: str, root: type[BaseModel]) -> CuveeError:
    """What pydantic refused of a root model's values, in one sentence."""
    problems = []
    for item in error.errors(include_url=False):
        place = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            problems.append(f"unknown field {place!r}{_suggest(item['loc'], root)}")
        elif item["type"] == "missing":
            problems.append(f"field {place!r} is missing")
        else:
            problems.append(f"{place}: {item['msg']}; got {item['input']!r}")
    return RecipeError(f"{where}: " + "; ".join(problems))


def _suggest(location: tuple[int | str, ...], root: type[BaseModel]) -> str:
    model: Any = root
    for part in location[:-1]:
        field = model.model_fields.get(part)
        if field is None:
            continue  # a key of a mapping, such as a domain's name
        nested = (field.annotation, *typing.get_args(field.annotation))
        model = next((kind for kind in nested if hasattr(kind, "model_fields")), model)
    known = list(model.model_fields)
    close = difflib.get_close_matches(str(location[-1]), known, n=1, cutoff=0.5)
    return f", did you mean {close[0]!r}?" if close else f"; known: {', '.join(known)}"
