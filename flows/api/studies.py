"""Studies from Python: run one from its recipe, or read one that is finished."""

import contextlib
import html
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import threadpoolctl

from cuvee.flows.api.recommending import RecommendedMixture
from cuvee.flows.api.tables import LoadedTables, plain_values
from cuvee.flows.console import Display
from cuvee.flows.execution.executor import Executor
from cuvee.flows.recipe.evidence_parts import TablesPart
from cuvee.flows.recipe.load import load_recipe, name_sizes, parse, say_doubled_paths
from cuvee.flows.recipe.schema import Recipe
from cuvee.flows.study import table_problem
from cuvee.flows.workspace import Workspace, find_workspace, open_workspace
from cuvee.mixtures.errors import EvidenceError, StorageError, UnknownName
from cuvee.mixtures.runs.run_results import RunResult, score_table
from cuvee.mixtures.runs.run_spec import BY_CONTENT
from cuvee.tasks import strict_yaml
from cuvee.tasks.extras import require
from cuvee.tasks.store.results import Store
from cuvee.tasks.study import finished
from cuvee.tasks.study.finished import FILE, FinishedStudy
from cuvee.tasks.study.tables import JoinedTables, read_tables

HOME = ".cuvee"  # as of the command line, where CUVEE_HOME names no other
EXECUTORS = ("inline", "ray")
FIT = "fit"  # folder of what was fitted without training, within a study's


@dataclass(frozen=True, repr=False)
class StudyResult:
    """A finished study: its recommendation, its verdict and where its report lies.

    Made by `run` and `open_study`.

    Attributes:
        study: as the store keeps it.
        folder: of report, summary and recommendation; None where they are on another machine.
        store: of the runs that it rests on.

    Examples:
        In a notebook, after `make demo`:

            study = cuvee.open_study("quickstart")
            study.verdict
            study.recommendation.plot()
            law = cuvee.fit(study.tables, law="log_linear")
    """

    study: FinishedStudy
    folder: Path | None
    store: Store = field(compare=False)

    @property
    def name(self) -> str:
        """Of the recipe."""
        return self.study.name

    @property
    def recommendation(self) -> RecommendedMixture:
        """The recommended mixture, judged by all that tested it."""
        return RecommendedMixture(self.study.answer, self.study.verdict)

    @property
    def verdict(self) -> str:
        """What may be said of the recommendation, in words."""
        return self.study.verdict

    @property
    def confirmed(self) -> bool | None:
        """Whether fresh runs bore its claim out; None where none tested it."""
        return self.study.confirmed

    @property
    def recipe(self) -> str:
        """The YAML that was run."""
        return self.study.recipe_text

    @property
    def report(self) -> Path | None:
        """The report's page, if it is on this machine."""
        page = self.folder / "report.html" if self.folder else None
        return page if page and page.exists() else None

    @property
    def summary(self) -> dict[str, Any]:
        """Figures of the study, as in `summary.json`; empty where that is on another machine."""
        if self.folder is None or not (self.folder / "summary.json").exists():
            return {}
        found: dict[str, Any] = json.loads((self.folder / "summary.json").read_text("utf-8"))
        return found

    @property
    def tables(self) -> LoadedTables:
        """The runs that it rests on, for `fit` and `recommend`: from the store, or its own tables.

        Raises:
            EvidenceError: they are not of one mixture each, or no longer in the store; its tables
                have changed since.
            DataError: its tables are no longer where they were.
        """
        if self.study.tables:
            return _fitted_tables(self.study)
        answer, outcomes = self.study.answer, map(self.store.get, self.study.answer.evidence)
        runs = [run for run in outcomes if isinstance(run, RunResult) and len(run.spec.stages) == 1]
        if len(runs) < len(answer.evidence) or not runs:
            raise EvidenceError(
                f"{len(runs)} of the {len(answer.evidence)} runs of {self.name!r} are in the store "
                f"{self.store.url} and were trained at one mixture; tables need all of them"
            )
        here = self.study.domains  # under whatever names and in whatever order they were trained
        seen = [
            run.seen_as(run.spec.over(here))
            if run.spec.version == BY_CONTENT and not run.spec.controller
            else run
            for run in runs
        ]
        W, Y, _ = score_table(tuple(seen), answer.targets)
        ids = tuple(run.spec.fingerprint[:12] for run in runs)
        joined = JoinedTables(ids, answer.domains, answer.targets, W, Y, rescaled=0)
        sizes = {domain.name: float(domain.tokens) for domain in self.study.domains}
        return LoadedTables(joined, TablesPart(mixtures=FILE, scores=FILE, sizes=sizes))

    def __repr__(self) -> str:
        return f"StudyResult({self.name!r}, {self.recommendation!r})"

    def _repr_html_(self) -> str:
        where = f"<p>Report: {html.escape(str(self.report))}</p>" if self.report else ""
        return f"<p>Study {html.escape(self.name)}</p>{self.recommendation._repr_html_()}{where}"


def run(
    recipe: str | os.PathLike[str] | Mapping[str, Any],
    *,
    home: str | os.PathLike[str] | None = None,
    executor: Literal["inline", "ray"] = "inline",
    quiet: bool = False,
) -> StudyResult:
    """Run a study: train what the store lacks, recommend, confirm, report; or fit two tables.

    The same recipe gives the same answer as `cuvee run`, and as `cuvee fit` where it has `tables`,
    and shares their store: what one has trained the other does not train again.

    Args:
        recipe: path of a YAML file, or its values as a mapping.
        home: folder of data, results and reports; that of the command line by default.
        executor: "inline" trains in this process, one pack after the other; "ray" on all cores and
            GPUs, and needs the extra `flow`.
        quiet: print nothing while it runs.

    Raises:
        RecipeError: what is wrong with the recipe, or no such executor.
        MissingExtra: what it needs and is not installed, such as torch to train.
        CuveeError: what is wrong with its data or its evidence.

    Examples:
        >>> import cuvee, tempfile
        >>> with tempfile.TemporaryDirectory() as home:
        ...     done = cuvee.run({
        ...         "name": "from-tables",
        ...         "tables": {"mixtures": "examples/fit_from_csv/mixtures.csv",
        ...                    "scores": "examples/fit_from_csv/scores.csv"},
        ...         "objective": {"name": "mean", "weights": {"domain/legal": 1}},
        ...         "method": {"name": "mixing_laws", "refits": 10},
        ...     }, home=home, quiet=True)
        ...     done.report.name, max(done.recommendation.weights.values()) > 0.5
        ('report.html', True)
    """
    if executor not in EXECUTORS:
        raise UnknownName("executor", executor, EXECUTORS)
    if isinstance(recipe, Mapping):
        text = strict_yaml.dump_yaml(name_sizes(plain_values(recipe), None))
        given = parse(text, "run")
    else:
        given, text = load_recipe(Path(recipe).expanduser())
    if given.tables is None:
        require("a study that trains", "train", *(["flow"] if executor == "ray" else []))
    with _left_as_it_was():
        place = open_workspace(_home(home), Display(quiet=quiet), hub=given.hub)
        try:
            say_doubled_paths(given, place.display.say)
            folder = _folder_of(given, text, place, executor)
        finally:
            place.display.close()
    copy, store = _read_copy(folder), Store(place.store)
    study = copy and finished.finished_by_identity(store, copy.identity)
    if study is None:
        raise StorageError(f"{folder} holds no study, although one was written there")
    return StudyResult(study, folder, store)


def open_study(name: str, *, home: str | os.PathLike[str] | None = None) -> StudyResult:
    """Read the latest finished study of a name.

    Args:
        name: of its recipe.
        home: folder in which it was run; that of the command line by default. The store may lie
            elsewhere, as `CUVEE_STORE` says.

    Raises:
        UnknownName: the store has no study of this name; suggests the nearest.
        StorageError: there is no store.

    Examples:
        >>> import cuvee, tempfile
        >>> with tempfile.TemporaryDirectory() as home:
        ...     try:
        ...         cuvee.open_study("quickstart", home=home)
        ...     except cuvee.StorageError as error:
        ...         print(str(error).partition(" at ")[0])
        there is no store of results
    """
    place = find_workspace(_home(home))
    if "://" not in place.store and not Path(place.store).is_dir():
        raise StorageError(
            f"there is no store of results at {place.store}: `cuvee run` or `cuvee fit` makes one; "
            "give the `home` in which they ran"
        )
    store = Store(place.store)
    study = finished.latest_of_name(store, name)
    if study is None:
        raise UnknownName("study", name, [known.name for known in finished.latest_studies(store)])
    for folder in (place.study(name), place.study(name) / FIT):
        copy = _read_copy(folder)
        if copy is not None and copy.identity == study.identity:
            return StudyResult(study, folder, store)
    return StudyResult(study, None, store)


def _fitted_tables(study: FinishedStudy) -> LoadedTables:
    """The tables that a study was fitted to, wherever it is opened; errors as its `tables`."""
    recipe = parse(study.recipe_text)
    if (part := recipe.tables) is None:
        raise EvidenceError(f"the study {study.name!r} does not say which tables it was fitted to")
    files = {"mixtures": part.mixtures, "scores": part.scores, **study.table_files}
    joined = read_tables(Path(files["mixtures"]), Path(files["scores"]), part.reading)
    problem, history = table_problem.pose_table_problem(recipe, joined)
    if finished.evidence_basis(problem.domains, problem.scoring, history) != dict(study.data):
        raise EvidenceError(
            f"{files['mixtures']} and {files['scores']} no longer hold the runs that the study "
            f"{study.name!r} was fitted to: put those back, or fit it again with `cuvee fit`"
        )
    return LoadedTables(joined, part)


def _home(given: str | os.PathLike[str] | None) -> Path:
    return Path(given or os.environ.get("CUVEE_HOME") or HOME)


def _folder_of(given: Recipe, text: str, place: Workspace, executor: str) -> Path:
    """Run a study, and say where its files lie."""
    if given.tables is not None:
        from cuvee.flows.study.refit import refit

        return refit(given, text, place)
    from cuvee.flows.study.study import search_mixture

    search_mixture(given, _executor(executor, given, place), place, text=text)
    return place.study(given.name)


def _executor(name: str, given: Recipe, place: Workspace) -> Executor:
    if name == "ray":
        from cuvee.flows.execution.ray_executor import RayExecutor

        return RayExecutor(place.root, device=given.proxy.device)
    from cuvee.flows.execution.inline_executor import InlineExecutor

    return InlineExecutor(given.proxy.device)


def _read_copy(folder: Path) -> FinishedStudy | None:
    """The finished study whose files lie in a folder, if one does."""
    with contextlib.suppress(OSError, ValueError, EvidenceError):
        return finished.from_json(json.loads((folder / FILE).read_text(encoding="utf-8")))
    return None


@contextlib.contextmanager
def _left_as_it_was() -> Iterator[None]:
    """The caller's environment and threads are theirs again when a study has been run."""
    before = dict(os.environ)
    with threadpoolctl.threadpool_limits(1):
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)
