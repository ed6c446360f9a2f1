"""Checkpoints that others trained, scored as a recipe scores its proxies: `cuvee score`.

A checkpoint is called by the run whose `run.json` lies in its folder, or beside its folder where
that is the `checkpoint` of the trainer contract; and else by the name of its folder. Of two that
would share a name each gets the digits of its content.
"""

import csv
import dataclasses
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from rich.text import Text

from cuvee.evaluation.causal_model import CheckpointReading
from cuvee.evaluation.checkpoint_files import checkpoint_digest, checkpoint_weights
from cuvee.evaluation.scores import PackScores
from cuvee.flows.recipe.schema import Recipe
from cuvee.flows.study.finished import latest_study, prepare_as_studied
from cuvee.flows.study.prepare import pose_problem
from cuvee.flows.workspace import Workspace
from cuvee.mixtures import loop
from cuvee.mixtures.errors import CuveeError, EvidenceError, RecipeError, StorageError
from cuvee.mixtures.runs.run_results import Failed, Outcome, RunResult, Score
from cuvee.mixtures.runs.run_spec import RunSpec
from cuvee.proxies.data.files import Digests
from cuvee.tasks.checkpoint_scores import score_parts, scored_parts
from cuvee.tasks.process import usable_cores
from cuvee.tasks.store.results import Store
from cuvee.tasks.study.prepared import Prepared
from cuvee.tasks.trainer.contract import CHECKPOINT, RUN

COLUMNS, WIDEST = 4, 24  # checkpoints that a table shows, and letters of their names
DETAILS = ["run", "score", "value", "stderr", "n", "content", "path"]  # columns of the second table
TARGET = re.compile(r"(domain|task)/")
LONGEST = 1 << 20  # letters of a header
SHOWN = ("accuracy", "probability")  # of the details of a task
FINGERPRINT = re.compile(r"[0-9a-f]{64}")
ROWS = "scored-checkpoints"  # folder of the store: by content, the latest scores of a checkpoint
LARGE = 40_000_000  # bytes of weights from which more threads than one help (assumption)
SHORT = 8  # digits of a content in a name


@dataclasses.dataclass(frozen=True)
class ScoredCheckpoint:
    """What came of scoring a checkpoint.

    Attributes:
        path: its folder, as it was given.
        name: of its row.
        content: hash of its files; "" where they cannot be read.
        scores: of it; none where there is a problem.
        problem: why it has no scores, or "".
    """

    path: Path
    name: str
    content: str = ""
    scores: PackScores = PackScores()  # noqa: RUF009 (frozen)
    problem: str = ""

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        body = {"path": str(self.path), "run": self.name, "content": self.content}
        if self.problem:
            return {**body, "error": self.problem}
        parts = {"scores": self.scores.scores, "details": self.scores.details}
        return body | {
            kind: {name: dataclasses.asdict(one) for name, one in scores.items()}
            for kind, scores in parts.items()
        }


def score_checkpoints(
    recipe: Recipe, home: Workspace, folders: Sequence[Path], how: CheckpointReading
) -> list[ScoredCheckpoint]:
    """Score checkpoints on the held-out text and the tasks of a recipe; one that fails is named.

    Raises:
        RecipeError: the recipe has no text.
        CuveeError: what is wrong with the recipe's sources or benchmarks.
    """
    if recipe.tables is not None:
        raise RecipeError(
            "checkpoints are scored on held-out text, and this recipe has tables in the place of "
            "a corpus: name one with `corpus`"
        )
    store, digests = Store(home.store), Digests(home.digests)
    prepared = prepare_as_studied(recipe, home, latest_study(store, recipe))
    parts = scored_parts(prepared.corpus, prepared.suite, prepared.limits)
    found = []
    with home.display.step("Checkpoints") as bar:
        for number, folder in enumerate(folders):

            def move(
                what: str, share: float, number: int = number, name: str = folder.name
            ) -> None:
                done = (number + share) / len(folders)
                bar.move(f"{name} {what}, {number + 1} of {len(folders)}", done)

            name = content = ""
            try:
                name, content = checkpoint_name(folder), checkpoint_digest(folder, digests)
                large = sum(path.stat().st_size for path in checkpoint_weights(folder)) > LARGE
                torch.set_num_threads(usable_cores() or 1 if large else 1)
                scores = score_parts(
                    folder, parts, prepared.suite,
                    how=how, store=store, digest=digests, progress=move,
                )  # fmt: skip
                found.append(ScoredCheckpoint(folder, name, content, scores))
            except CuveeError as error:
                found.append(ScoredCheckpoint(folder, name, content, problem=str(error)))
            finally:
                digests.keep()
    found = _distinct(found)
    for one in found:
        if not one.problem:
            store.remember(ROWS, one.content, {**one.to_json(), "study": recipe.name})
    _keep_runs(recipe, prepared, home, found, how)
    return found


def _keep_runs(
    recipe: Recipe,
    prepared: Prepared,
    home: Workspace,
    found: Sequence[ScoredCheckpoint],
    how: CheckpointReading,
) -> None:
    """Keep the scores of runs that the recipe's method asks of its trainer as their outcomes.

    A run has one outcome for good, so that only scores read as `cuvee run` reads them become it.
    """
    store, named = Store(home.store), {one.name: one.scores for one in found if not one.problem}
    if recipe.proxy.trainer is None or not any(map(FINGERPRINT.fullmatch, named)):
        return
    if dataclasses.replace(how, device="auto") != CheckpointReading():
        home.display.say(
            f"none of them became a result of a run of {recipe.name}: those are read without "
            "--context, --dtype and --tokenizer"
        )
        return
    kept = 0

    def take(specs: Sequence[RunSpec]) -> list[Outcome]:
        nonlocal kept
        for spec in specs:
            scores = named.get(spec.fingerprint)
            if scores and store.outcome_of(spec) is None:
                store.put(RunResult(spec, scores.scores, scores.details, units=scores.units))
                kept += 1
        return [store.outcome_of(spec) or Failed(spec, "not in the store") for spec in specs]

    with suppress(EvidenceError):  # too few runs to ask for more
        loop.replay(recipe.build_method(), pose_problem(recipe, prepared), take, recipe.seed)
    home.display.say(
        f"{kept} of them are new results of runs of {recipe.name}: `cuvee fit` reads them"
    )


def checkpoint_name(folder: Path) -> str:
    """The run that a checkpoint is of, or the name of its folder."""
    folder = folder.resolve() if ".." in folder.parts else folder.absolute()
    for place in (folder, folder.parent) if folder.name == CHECKPOINT else (folder,):
        try:
            run = json.loads((place / RUN).read_text(encoding="utf-8"))
            if FINGERPRINT.fullmatch(run["fingerprint"]):
                return str(run["fingerprint"])
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            continue
    return folder.name


def _distinct(found: Sequence[ScoredCheckpoint]) -> list[ScoredCheckpoint]:
    """The same with a name each, and each once."""
    contents = {(one.name, one.content) for one in found if not one.problem}
    shared = Counter(name for name, _ in contents)
    seen: dict[tuple[str, str], ScoredCheckpoint] = {}
    for one in found:
        name = f"{one.name}-{one.content[:SHORT]}" if shared[one.name] > 1 else one.name
        key = (str(one.path), "") if one.problem else (one.name, one.content)
        seen.setdefault(key, dataclasses.replace(one, name=name))
    return list(seen.values())


def write_tables(found: Sequence[ScoredCheckpoint], path: Path) -> Path:
    """Write scores as the table that `cuvee fit` reads, and beside it all with their errors.

    Returns:
        the second table: a line per checkpoint and score.

    Raises:
        StorageError: it cannot be written, or something else lies there.
    """
    good = [one for one in found if not one.problem]
    targets = list(dict.fromkeys(name for one in good for name in one.scores.scores))
    rows = [[one.name, *(repr(one.scores.scores[t].value) for t in targets)] for one in good]
    more = check_tables(path)
    lines = [
        [one.name, name, repr(score.value), repr(score.stderr), score.n, one.content, one.path]
        for one in good
        for name, score in _all(one.scores).items()
    ]
    _write(path, ["run", *targets], rows)
    _write(more, DETAILS, lines)
    return more


def check_tables(path: Path) -> Path:
    """See that both tables can be written; the path of the second.

    Raises:
        StorageError: something else lies there, or nothing can be written there.
    """
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise StorageError(f"cannot write {path}: name a file, in a folder that is there")
    more = path.with_name(f"{path.stem}.details{path.suffix or '.csv'}")
    for place in (path, more):
        try:
            with place.open(newline="", encoding="utf-8", errors="replace") as file:
                header = next(csv.reader([file.readline(LONGEST)]), [])
        except FileNotFoundError:
            continue
        except csv.Error:
            header = []
        except OSError as error:
            raise StorageError(f"cannot read {place}: {error.strerror or error}") from error
        scores = len(header) > 1 and header[0] == "run" and all(map(TARGET.match, header[1:]))
        if header != DETAILS and not (scores and place == path):
            raise StorageError(f"{place} holds something else: name another file with --csv")
    return more


def scores_table(found: Sequence[ScoredCheckpoint]) -> Table:
    """Scores of checkpoints, a line each where there are many, for people."""
    table = Table(title="Bits per byte, and of tasks what else is known (standard error)")
    lines = [(one.name, _all(one.scores)) for one in found]
    targets = {name for one in found for name in one.scores.scores}
    names = [n for n in dict.fromkeys(n for _, s in lines for n in s) if n in targets or
             n.rpartition("/")[2] in SHOWN]  # fmt: skip
    table.add_column("score", overflow="fold")
    for name, _ in lines[:COLUMNS]:
        table.add_column(Text(name if len(name) <= WIDEST else f"{name[: WIDEST - 3]}..."),
                         justify="right")  # fmt: skip
    for name in names:
        cells = [scores.get(name) for _, scores in lines[:COLUMNS]]
        table.add_row(Text(name), *(f"{c.value:.4f} ({c.stderr:.4f})" if c else "" for c in cells))
    if len(lines) > COLUMNS:
        table.caption = f"and {len(lines) - COLUMNS} more: see --csv or --json"
    return table


def _all(scores: PackScores) -> Mapping[str, Score]:
    """Scores and details by name, the details of a task after its score."""
    return dict(sorted({**scores.scores, **scores.details}.items()))


def _write(path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    draft = path.with_name(f".{path.name}.draft")
    try:
        with draft.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([header, *rows])
        draft.replace(path)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror or error}") from error
