"""Runs that were trained elsewhere, read back into the store by run id: `cuvee collect`.

A run is named by at least 12 digits of its fingerprint or by its name in the record: in a file, or
else in the name of the file or of a folder above it. Nothing is paired by position. What is
unfinished, foreign, not finite, doubled with other values, or other than what is stored is named,
and is not used.
"""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from cuvee.flows.external.asked_runs import AskedRun, asked_runs
from cuvee.flows.recipe.schema import Recipe
from cuvee.flows.study.finished import latest_study, prepare_as_studied
from cuvee.flows.workspace import Workspace
from cuvee.mixtures.errors import CuveeError, EvidenceError, RecipeError, UnknownName
from cuvee.mixtures.runs.run_results import RunResult, Score
from cuvee.tasks.escape import printable
from cuvee.tasks.pack_job import PackJob
from cuvee.tasks.run_logs.evidence import Evidence, Reading, owner_of
from cuvee.tasks.run_logs.final_scores import final_scores, same_value
from cuvee.tasks.store.results import Store
from cuvee.tasks.study.prepared import Prepared
from cuvee.tasks.study.table_file import first_names
from cuvee.tasks.train_by_program import SHORT, collect_outcome, run_plan
from cuvee.tasks.trainer.contract import (
    CHECKPOINT,
    PROGRESS,
    RESULT,
    SPENT,
    STATE,
    RefusedResult,
)

NEW, STORED, MISSING, UNFINISHED, REFUSED = "new", "stored", "missing", "unfinished", "refused"
SHOWN = 40  # lines of the table
OTHER_METRICS = "by proxy.trainer.metrics logs score the runs, in units of their own"
BEGUN = (STATE, CHECKPOINT, PROGRESS, SPENT)  # one of them is there once a run has begun


@dataclasses.dataclass(frozen=True)
class CollectedRun:
    """What became of a run that the study asks for: new, stored, missing, unfinished or refused."""

    asked: AskedRun
    state: str
    said: str = ""
    paths: tuple[Path, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        run = {"run": self.asked.spec.fingerprint, "name": self.asked.name, "role": self.asked.role}
        return {**run, "state": self.state, "said": self.said, "from": [str(p) for p in self.paths]}


@dataclasses.dataclass(frozen=True)
class Collected:
    """Every run that is asked for, and what was left out: (path, why) each."""

    runs: tuple[CollectedRun, ...]
    unreadable: tuple[tuple[Path, str], ...]
    foreign: tuple[tuple[Path, str], ...]

    @property
    def counts(self) -> dict[str, int]:
        """Runs by state, and what is of none of them."""
        known = Counter(run.state for run in self.runs)
        states = {state: known[state] for state in (NEW, STORED, MISSING, UNFINISHED, REFUSED)}
        return {**states, "foreign": len(self.foreign), "unreadable": len(self.unreadable)}

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        left = {"foreign": self.foreign, "unreadable": self.unreadable}
        return {
            "counts": self.counts,
            "runs": [run.to_json() for run in self.runs],
            **{
                name: [{"path": str(path), "said": said} for path, said in every]
                for name, every in left.items()
            },
        }


def collect_runs(recipe: Recipe, home: Workspace, paths: Sequence[Path]) -> Collected:
    """Read what came back; finished runs that the store lacks are kept, each at once.

    Args:
        recipe: says which runs are asked for, and what their logs call a target.
        home: whose store takes them.
        paths: swarm folders, run directories and logs; the recipe's own run directories if none.

    Raises:
        RecipeError: the recipe names no trainer, or a target that is none.
        CuveeError: what is wrong with the recipe's sources, or a path that is not there.
    """
    if recipe.proxy.trainer is None:
        raise RecipeError(
            "the recipe names no trainer, and what others have trained never passes for runs of "
            "the built-in one: say in proxy.trainer which has, and its version"
        )
    program = recipe.proxy.trainer.program(str(home.trainings), elsewhere=True)
    store = Store(home.store)
    prepared = prepare_as_studied(recipe, home, latest_study(store, recipe))
    job = PackJob(
        specs=(), corpus=str(prepared.corpus.root), suite=prepared.suite, checkpoints="",
        limits=prepared.limits, points=prepared.points, program=program,
    )  # fmt: skip
    collector = _Collector(job, prepared, store, _metric_names(prepared.targets, program.metrics))
    reading = Reading(collector.metrics.values())
    with home.display.step("Files"):
        for path in paths or [Path(program.folder)]:
            reading.read(path)
    done: dict[str, CollectedRun] = {}
    with home.display.step("Runs") as bar:
        while True:
            try:
                asked = asked_runs(recipe, prepared, home)
            except EvidenceError as error:  # what is stored asks for no more
                if not done:
                    raise
                home.display.say(f"What comes next cannot be said: {error}")
                break
            if not (fresh := {mark: one for mark, one in asked.items() if mark not in done}):
                break
            names = {mark: one.name for mark, one in asked.items()}
            owners = [owner_of(evidence, names) for evidence in reading.evidence]
            for number, (mark, one) in enumerate(fresh.items()):
                bar.move(f"{number} of {len(fresh)}", number / len(fresh))
                pairs = zip(reading.evidence, owners, strict=True)
                done[mark] = collector.collect(one, [e for e, (own, _) in pairs if own == mark])
    waiting = [run.asked.name for run in done.values() if run.state not in (NEW, STORED)]
    if waiting:
        home.display.say(
            f"What comes next waits for {first_names(waiting)}. A run that fails each time holds "
            "it up, and `cuvee fit` takes what is there"
        )
    foreign = [
        (evidence.path, said)
        for evidence, (own, said) in zip(reading.evidence, owners, strict=True)
        if not own
    ]
    return Collected(tuple(done.values()), tuple(reading.unreadable), tuple(foreign))


def _metric_names(targets: Sequence[str], given: Mapping[str, str]) -> dict[str, str]:
    """By target, what logs call it."""
    for name in given:
        if name not in targets:
            raise UnknownName("target of proxy.trainer.metrics", name, targets)
    return {target: given.get(target, target) for target in targets}


@dataclasses.dataclass(frozen=True)
class _Collector:
    """What runs are held against, and where they are kept.

    Attributes:
        job: of a run, without its spec.
        prepared: what is scored.
        store: takes outcomes.
        metrics: by target, what logs call it.
    """

    job: PackJob
    prepared: Prepared
    store: Store
    metrics: Mapping[str, str]

    def collect(self, asked: AskedRun, evidence: Sequence[Evidence]) -> CollectedRun:
        """Keep a run, or say why it is not."""
        paths = tuple(dict.fromkeys(one.path for one in evidence))
        before = asked.outcome if isinstance(asked.outcome, RunResult) else None
        try:
            found, lacks = self._outcome(asked, evidence, before)
        except CuveeError as error:
            return CollectedRun(asked, REFUSED, str(error), paths)
        if before:
            return CollectedRun(asked, STORED, "", paths)
        if found is None:
            return CollectedRun(asked, UNFINISHED if lacks else MISSING, lacks, paths)
        self.store.put(found)
        return CollectedRun(asked, NEW, "", paths)

    def _outcome(
        self, asked: AskedRun, evidence: Sequence[Evidence], before: RunResult | None
    ) -> tuple[RunResult | None, str]:
        """What all evidence of a run says together; or why it does not suffice.

        Raises:
            CuveeError: what of it is refused.
        """
        spec, job = asked.spec, dataclasses.replace(self.job, specs=(asked.spec,))
        plan = run_plan(spec, self.prepared.corpus)
        logs = [(one.form, one.log) for one in evidence if one.log]
        logged = final_scores(logs, self.metrics, tokens=spec.tokens, steps=plan.steps)
        lacking = [name for target, name in self.metrics.items() if target not in logged.scores]
        told = [(before.scores, f"the store {self.store.url}")] if before else []
        told += [(logged.scores, f"the log {logs[0][1].path}")] if logged.scores else []
        found, lacks = None, list(logged.unfinished)
        by_logs = bool(job.program and job.program.metrics)
        folders = [one.path for one in evidence if not one.log]
        for folder in folders:
            there = _holds_something(folder / CHECKPOINT)
            model = bool(lacking and not before and not by_logs and (not logs or there))
            outcome = collect_outcome(job, folder, score=model)
            told += [(outcome.scores, str(folder))] if outcome else []
            found = found or outcome
            if not outcome and by_logs and there:
                lacks.append(f"the model in {folder / CHECKPOINT} is not scored: {OTHER_METRICS}")
            elif not outcome and any(map(_holds_something, (folder / name for name in BEGUN))):
                lacks.append(f"{folder} has no {RESULT}, nor says that its trainer has ended")
        _check_same(told)
        seen = sorted({name for one in evidence for name in one.metrics})
        if logs and (unknown := [name for name in lacking if name not in seen]):
            told_by = f"no log has {first_names(unknown)}; they have {first_names(seen)}"
            lacks.insert(0, f"{told_by}. Say in proxy.trainer.metrics which metric is which target")
        if not (found or before or lacking):
            own = Path(job.program.folder if job.program else "", spec.fingerprint[:SHORT])
            found = collect_outcome(job, folders[0] if folders else own, dict(logged.scores))
        return found, "; ".join(lacks)


def _holds_something(path: Path) -> bool:
    return path.is_file() or (path.is_dir() and any(path.iterdir()))


def _check_same(told: Sequence[tuple[Mapping[str, Score], str]]) -> None:
    """Refuse outcomes of one run that differ; each is scores by target, and where they are."""
    known: dict[str, tuple[float, str]] = {}
    for scores, there in told:
        for name, score in scores.items():
            value, here = known.setdefault(name, (score.value, there))
            if not same_value(value, score.value):
                raise RefusedResult(
                    f"{name} differs: {value!r} in {here}, and {score.value!r} in {there}. One run "
                    "has one result: two jobs have trained it, or its trainer gives other scores "
                    "each time"
                )


def collected_table(found: Collected) -> Table:
    """The runs that want a look, for people; the others are counts."""
    table = Table()
    for title in ("run", "state", "why"):
        table.add_column(title, overflow="fold")
    rows = [(run.asked.name, run.state, run.said) for run in found.runs
            if run.state in (UNFINISHED, REFUSED)]  # fmt: skip
    rows += [(path.name, "unreadable", said) for path, said in found.unreadable]
    rows += [(path.name, "foreign", said) for path, said in found.foreign]
    for row in rows[:SHOWN]:
        table.add_row(*(Text(printable(cell)) for cell in row))
    table.caption = f"and {len(rows) - SHOWN} more: see --json" if len(rows) > SHOWN else None
    return table
