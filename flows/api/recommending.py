"""From runs to the mixture that they speak for, in the numbers that `cuvee fit` gives of them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

from cuvee.flows.api import frames, notebook
from cuvee.flows.api.fitting import as_tables
from cuvee.flows.api.frames import TableLike
from cuvee.flows.api.tables import LoadedTables, in_python_words, plain_values, python_words
from cuvee.flows.recipe.load import build_recipe
from cuvee.flows.study import table_problem
from cuvee.mixtures import registry
from cuvee.mixtures.errors import RecipeError
from cuvee.mixtures.recommendation import Estimate, LawEvidence, Recommendation
from cuvee.tasks.report.plots import mixtures as plots
from cuvee.tasks.study.answers import study_answers
from cuvee.tasks.study.study import Study
from cuvee.tasks.validation.paired import RECOMMENDED

if TYPE_CHECKING:
    import pandas as pd

METHOD = {"name": "regmix", "laws": ["default"], "search": "auto"}


@dataclass(frozen=True, repr=False)
class RecommendedMixture:
    """A recommended mixture by the names of its domains, its uncertainty and its evidence.

    Made by `cuvee.recommend`, and part of every study that is read or run.

    Attributes:
        recommendation: all that is known of it, in the order of its domains.
        verdict: how sure one may be of it, in the sentences that the report answers this with.

    Examples:
        >>> import cuvee
        >>> best = cuvee.recommend(
        ...     {"web": [1, 0.75, 0.5, 0.25, 0.0, 0.9], "code": [0, 0.25, 0.5, 0.75, 1.0, 0.1]},
        ...     {"math": [2.9, 2.55, 2.2, 2.2, 2.5, 2.75], "prose": [2, 2.1, 2.2, 2.3, 2.4, 2.05]},
        ...     objective={"math": 2, "prose": 1},
        ...     method={"name": "mixing_laws", "folds": 6, "refits": 10},
        ... )
        >>> sorted(best.weights), round(sum(best.weights.values()), 9)
        (['code', 'web'], 1.0)
        >>> list(best.references)
        ['natural', 'uniform', 'best observed']
        >>> best.grade
        'weak'
    """

    recommendation: Recommendation
    verdict: str

    @property
    def grade(self) -> str:
        """How far the fit alone bears it: `strong`, `draft` or `weak`."""
        return self.recommendation.verdict.partition(":")[0]

    @property
    def weights(self) -> dict[str, float]:
        """Shares of training tokens by domain, averaged over the run; they sum to 1."""
        return self._by_domain(self.recommendation.weights)

    @property
    def intervals(self) -> dict[str, tuple[float, float]]:
        """90 % interval of each share: how far it moves when the law is fitted to other samples."""
        ours = self.recommendation
        return dict(zip(ours.domains, ours.intervals, strict=True))

    @property
    def references(self) -> dict[str, dict[str, float]]:
        """Shares of the mixtures that it is compared with, by their names."""
        others = (c for c in self.recommendation.candidates if c.name != RECOMMENDED)
        return {c.name: self._by_domain(c.weights) for c in others}

    @property
    def gains(self) -> dict[str, Estimate]:
        """Predicted gain in the objective over each of them; positive is better."""
        return dict(self.recommendation.gains)

    @property
    def predicted(self) -> dict[str, Estimate]:
        """Predicted score of every target, lower is better; 90 % interval for one new run."""
        ours = self.recommendation
        targets = ours.candidate(RECOMMENDED).targets
        return dict(zip(ours.targets, targets, strict=True))

    @property
    def epochs(self) -> dict[str, float]:
        """Passes over each domain at full scale; empty where tokens are unknown."""
        ours = self.recommendation
        return self._by_domain(ours.epochs) if ours.epochs else {}

    @property
    def evidence(self) -> tuple[LawEvidence, ...]:
        """How well each law that was tried predicted runs that it had not seen; one is chosen."""
        return self.recommendation.laws

    @property
    def warnings(self) -> tuple[str, ...]:
        """What to know before using it, a sentence each."""
        return tuple(map(python_words, self.recommendation.warnings))

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values: the content of `recommendation.json` of a study."""
        return self.recommendation.to_json()

    def to_frame(self) -> "pd.DataFrame":
        """A row per domain: its share and interval, the references', epochs. Needs pandas.

        Raises:
            MissingExtra: pandas is not installed.
        """
        low, high = zip(*self.recommendation.intervals, strict=True)
        columns: dict[str, Iterable[float]] = {
            RECOMMENDED: self.recommendation.weights,
            "low": low,
            "high": high,
        }
        columns |= {name: list(shares.values()) for name, shares in self.references.items()}
        if self.epochs:
            columns["epochs"] = self.recommendation.epochs
        return frames.data_frame(columns, self.recommendation.domains, "domain")

    def plot(self) -> Figure:
        """Shares with their intervals beside the references, as a figure of matplotlib.

        Examples:
            `best.plot().savefig("shares.png")`
        """
        return notebook.shown_figure(partial(plots.shares_figure, self.recommendation))

    def __repr__(self) -> str:
        shares = ", ".join(f"{name} {share:.1%}" for name, share in self.weights.items())
        return f"RecommendedMixture({shares}; {self.grade})"

    def __str__(self) -> str:
        ours = self.recommendation
        width = max(map(len, ours.domains))
        lines = [
            f"{name:{width}}  {w:6.1%}  ({low:.1%} to {high:.1%})"
            for name, w, (low, high) in zip(ours.domains, ours.weights, ours.intervals, strict=True)
        ]
        return "\n".join([*lines, f"Verdict: {self.verdict}", *self._warned()])

    def _repr_html_(self) -> str:
        ours, others = self.recommendation, self.references
        head = (
            "domain",
            RECOMMENDED,
            "90 % interval",
            *others,
            *(["epochs"] if ours.epochs else []),
        )
        rows = [
            (
                name,
                f"{ours.weights[i]:.1%}",
                "{:.1%} to {:.1%}".format(*ours.intervals[i]),
                *(f"{shares[name]:.1%}" for shares in others.values()),
                *([f"{ours.epochs[i]:.2f}"] if ours.epochs else []),
            )
            for i, name in enumerate(ours.domains)
        ]
        return notebook.html_block(f"Verdict: {self.verdict}", head, rows, self._warned())

    def _warned(self) -> list[str]:
        return [f"Warning: {line}" for line in self.warnings]

    def _by_domain(self, values: Any) -> dict[str, float]:
        return {n: float(v) for n, v in zip(self.recommendation.domains, values, strict=True)}


def recommend(
    mixtures: LoadedTables | TableLike,
    scores: TableLike | None = None,
    *,
    objective: Mapping[str, Any] | None = None,
    constraints: Mapping[str, Any] | None = None,
    full_tokens: int | str = 0,
    method: str | Mapping[str, Any] = METHOD,
    seed: int = 42,
) -> RecommendedMixture:
    """Recommend a mixture from runs: the numbers of `cuvee fit` on the same tables.

    Args:
        mixtures: from `load_tables`, or a table of shares as it takes them.
        scores: a table of scores, where `mixtures` is a table.
        objective: what is minimized: weights of targets, `{"math": 2, "code": 1}`, or an objective
            as recipes have it, `{"name": "worst", "members": ["math", "code"]}`. The plain mean of
            all targets by default.
        constraints: as in recipes: `{"bounds": {"code": (0.1, 0.5)}, "epochs": 4}`. Shares are
            fractions.
        full_tokens: of the run that the mixture is for ("300B" is understood); 0 where unknown.
        method: a registered method's name or its mapping; `{"name": "regmix", "laws": ["kriging",
            "log_linear"]}` compares two laws and takes the better. Without it: RegMix's steps with
            the default law.
        seed: of every random choice.

    Raises:
        EvidenceError: too few runs.
        ConstraintError: constraints that no mixture satisfies.
        RecipeError: an objective, a constraint or a method that does not make sense.
        DataError: what is wrong with a table, as `load_tables`.

    Examples:
        >>> import cuvee
        >>> tables = cuvee.load_tables(
        ...     "examples/fit_from_csv/mixtures.csv", "examples/fit_from_csv/scores.csv"
        ... )
        >>> best = cuvee.recommend(
        ...     tables,
        ...     objective={"domain/legal": 2, "domain/encyclopedia": 2, "task/mmlu": 1},
        ...     constraints={"bounds": {"code_python": (0.02, 1)}},
        ...     method={"name": "mixing_laws", "refits": 10},
        ... )
        >>> [name for name, share in best.weights.items() if share > 0.25]
        ['encyclopedia', 'legal']
    """
    tables = as_tables(mixtures, scores)
    values = {
        "name": "recommend",
        "seed": seed,
        "tables": tables.part.model_dump(exclude_defaults=True),
        "objective": _objective(objective, tables),
        "constraints": plain_values(constraints or {}),
        "full_scale": {"tokens": full_tokens} if full_tokens else {},
        "method": _method(method),
    }
    with in_python_words():
        recipe = build_recipe(values, "recommend")
        problem, answer, history = table_problem.recommend_from_tables(recipe, tables.joined)
    return _with_verdict(Study(recipe.name, "", problem, answer, history))


def _with_verdict(study: Study) -> RecommendedMixture:
    sure = study_answers(study)["sure"]
    return RecommendedMixture(study.recommendation, python_words(sure))


def _objective(given: Mapping[str, Any] | None, tables: LoadedTables) -> dict[str, Any]:
    """An objective as a recipe has it."""
    if not isinstance(given, Mapping | None):
        names = [given] if isinstance(given, str) else given
        known = isinstance(names, list | tuple) and all(one in tables.targets for one in names)
        meant = dict.fromkeys(names if known and names else tables.targets[:2], 1)
        raise RecipeError(
            f"`objective` takes weights by target, such as {meant}, or a mapping with the `name` "
            f"of a registered objective; got {given!r:.60}"
        )
    if given is not None and isinstance(given.get("name"), str):
        return dict(plain_values(given))
    return {"name": "mean", "weights": plain_values(given or dict.fromkeys(tables.targets, 1.0))}


def _method(given: str | Mapping[str, Any]) -> dict[str, Any]:
    """A method as a recipe has it; laws and the like may be instances."""
    if not isinstance(given, str | Mapping):
        raise RecipeError(
            f"`method` takes a registered method's name or its mapping, such as {METHOD}, which is "
            f"what it is without one; got {given!r:.60}"
        )
    values = {"name": given} if isinstance(given, str) else dict(given)
    return {key: _part(value) for key, value in values.items()}


def _part(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_part(one) for one in value]
    named = hasattr(value, "name") and not isinstance(value, Mapping | str)
    return plain_values(registry.describe(value) if named else value)
