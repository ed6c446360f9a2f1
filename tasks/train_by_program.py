"""One run from its spec to its outcome, trained by a program of others: what a worker does then.

Imports no torch, unless a checkpoint is to be scored. A run that its trainer had finished before
the outcome could be stored is not trained again; one that was cut off goes on from what the trainer
kept. A run directory whose result is refused is moved aside, so that the next attempt begins anew.
"""

import itertools
import json
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from cuvee.evaluation.suites import short_name
from cuvee.mixtures.errors import DataError, RecipeError, TrainingError
from cuvee.mixtures.runs.run_results import Outcome, RunResult, Score
from cuvee.mixtures.runs.run_spec import RunSpec
from cuvee.mixtures.runs.unit_scores import UnitScores
from cuvee.proxies import ladder
from cuvee.proxies.data.files import exclusive_lock, replace_file
from cuvee.proxies.data.prepared_corpus import BLOCK, Corpus
from cuvee.proxies.data.shards import SPLITS, token_type
from cuvee.proxies.interfaces import Progress
from cuvee.tasks.pack_job import PackJob
from cuvee.tasks.trainer import contract
from cuvee.tasks.trainer.attempt import NodePlace, run_program
from cuvee.tasks.trainer.contract import (
    ContractResult,
    ContractRun,
    Point,
    RefusedHere,
    RefusedResult,
)
from cuvee.tasks.trainer.program import TrainerProgram

SHORT = 32  # of the 64 digits of a fingerprint, as the name of a run directory
TOKENS = "tokens"  # beside the run directories: what a corpus reads from files of others
CURVE = 512  # points of a curve that are kept


def train_by_program(
    job: PackJob, report: Callable[[Progress], None], check: Callable[[], None] = lambda: None
) -> tuple[Outcome, ...]:
    """Have a program train the run of a job, unless it has; see `begin_run` and `attempt_run`."""
    return begin_run(job) or attempt_run(job, report, check)


def begin_run(job: PackJob) -> tuple[Outcome, ...]:
    """Write run.json; the outcome of the run, where its trainer has ended before.

    Raises:
        RefusedResult: what the trainer left is no result of the run.
    """
    begun = _begun(job)
    contract.write_run(begun.folder, begun.run)
    return begun.outcome() if begun.ended else ()


def attempt_run(
    job: PackJob,
    report: Callable[[Progress], None],
    check: Callable[[], None] = lambda: None,
    node: NodePlace = NodePlace(),  # noqa: B008 (frozen)
) -> tuple[Outcome, ...]:
    """Have the trainer train a run that was begun, once; two studies that share a folder of run
    directories and no store take turns, and the second finds what the first has trained.

    Args:
        job: of one run.
        report: is told of progress.
        check: raises where the run was told to stop.
        node: of those that train the run, this one; the first alone gives an outcome.

    Raises:
        RefusedResult: what the trainer left is no result of the run, or its files have changed.
        TrainingError: the trainer failed.
    """
    begun, total = _begun(job), job.specs[0].tokens
    try:
        begun.program.check_unchanged(job.specs[0].trainer)
    except RecipeError as error:
        raise RefusedHere(str(error)) from None

    def follow(points: list[Point]) -> None:
        for tokens, loss in points:
            report(Progress(min(tokens, total), total, tokens, (loss,)))

    path = begun.folder / contract.RUN
    if node.rank:
        run_program(begun.program, path, follow, check=check, node=node)
        return ()
    waited: list[bool] = []
    lock = begun.folder.with_name(f"{begun.folder.name}.lock")
    with exclusive_lock(lock, lambda: waited.append(True), check):
        if not (waited and begun.ended):
            began, ended = time.monotonic(), False
            try:
                run_program(begun.program, path, follow, check=check, node=node)
                ended = True
            finally:
                begun.note_spent(time.monotonic() - began, ended=ended)
        return begun.outcome()


def collect_outcome(
    job: PackJob, folder: Path, logged: dict[str, Score] | None = None, *, score: bool = True
) -> RunResult | None:
    """What a trainer elsewhere has left of a run, whose directory stays as it is; None as long as
    it does not say that it has ended.

    Args:
        job: of one run.
        folder: its run directory.
        logged: scores that logs have, in the place of a result.
        score: a checkpoint without scores too, which takes a while.

    Raises:
        RefusedResult: what is there is no result of the run.
        RefusedHere: its checkpoint cannot be scored on this machine.
    """
    begun = _begun(job)
    run = begun.run.model_copy(update={"write": contract.places_in(folder)})
    begun, path = replace(begun, folder=folder, run=run), folder / contract.RESULT
    result = contract.read_result(path, run) if path.exists() else None
    if logged is None and not (result and result.scores) and not (score and begun.ended):
        return None
    return begun.read(result, logged)


def forget_state(job: PackJob) -> None:
    """Remove what a trainer kept to go on from, once the outcome of its run is stored."""
    if job.program is not None:
        folder = Path(job.program.folder) / job.specs[0].fingerprint[:SHORT]
        shutil.rmtree(folder / contract.STATE, ignore_errors=True)


@dataclass(frozen=True)
class _BegunRun:
    """A run, and where its trainer finds and leaves its files."""

    job: PackJob
    program: TrainerProgram
    corpus: Corpus
    folder: Path
    run: ContractRun

    @property
    def spent(self) -> dict[str, Any]:
        """What attempts took so far, in seconds, and whether the last one `ended` well."""
        path, found = self.folder / contract.SPENT, dict[str, Any]()
        with suppress(OSError, ValueError, TypeError, RecursionError):
            found = dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}
        seconds: Any = found.get("seconds", 0.0)
        known = isinstance(seconds, (int, float)) and 0 <= seconds <= contract.MOST
        return {"seconds": float(seconds) if known else 0.0, "ended": found.get("ended") is True}

    @property
    def ended(self) -> bool:
        """Whether its trainer has ended well, here or elsewhere."""
        return (self.folder / contract.RESULT).exists() or self.spent["ended"]

    def note_spent(self, seconds: float, *, ended: bool) -> None:
        """Keep what one more attempt took, and whether it ended well."""
        text = json.dumps({"seconds": self.spent["seconds"] + seconds, "ended": ended})
        replace_file(str(self.folder / contract.SPENT), text.encode())

    def outcome(self) -> tuple[Outcome, ...]:
        """What came of the run: what its trainer says, or what its checkpoint scores.

        Raises:
            RefusedResult: neither is there, or it is no result of the run.
        """
        try:
            return (self.read(contract.accept_result(self.folder, self.run)),)
        except RefusedHere:
            raise
        except RefusedResult as error:
            raise RefusedResult(f"{error}. {self._set_aside()}") from None

    def read(
        self, result: ContractResult | None, logged: dict[str, Score] | None = None
    ) -> RunResult:
        """The outcome by the scores of a result, of logs, or else of the checkpoint; see above."""
        began, units = time.monotonic(), dict[str, UnitScores]()
        if logged is not None:
            scores, details = logged, dict[str, Score]()
        elif result and result.scores is not None:
            scores, details = contract.run_scores(self.run, result)
        else:
            scores, details, units = self._score_checkpoint(result)
        self.corpus.check()
        spec, plan = self.job.specs[0], run_plan(self.job.specs[0], self.corpus)
        shares = dict(zip(spec.domains, spec.weights.tolist(), strict=True))
        drawn = (result and result.tokens) or {n: round(s * spec.tokens) for n, s in shares.items()}
        tokens = tuple(drawn.get(name, 0) for name in spec.domains)
        there = [max(1, self.run.domains[name].train.tokens) for name in spec.domains]
        devices = (self.program.gpus or self.program.cpus) * self.program.nodes
        points = contract.ProgressFile(Path(self.run.write.progress)).points()
        curve = contract.training_curve(points)
        return RunResult(
            spec=spec,
            scores=scores,
            details=details,
            units=units,
            curve=curve[:: max(1, -(-len(curve) // CURVE))],
            tokens=tokens,
            epochs=tuple(n / all_ for n, all_ in zip(tokens, there, strict=True)),
            flops=(result and result.flops) or plan.flops,
            seconds=self.spent["seconds"] * devices,
            scoring_seconds=(time.monotonic() - began) * devices,
        )

    def _score_checkpoint(
        self, result: ContractResult | None
    ) -> tuple[dict[str, Score], dict[str, Score], dict[str, UnitScores]]:
        """The scores of the model that the trainer left, on all targets, details, and units.

        Raises:
            RefusedResult: there is none.
            RefusedHere: it cannot be scored on this machine.
        """
        folder = self.folder / ((result and result.checkpoint) or self.run.write.checkpoint)
        if not folder.is_dir():
            raise RefusedResult(
                f"the trainer {self.program.name} ended well and left nothing that can be scored: "
                f"it writes {self.run.write.result}, with `fingerprint` and `scores` by target, or "
                f"a model in the format of Hugging Face, with its tokenizer, to {folder}"
            )
        from cuvee.evaluation.causal_model import CheckpointReading
        from cuvee.tasks.checkpoint_scores import score_checkpoint

        how, job = CheckpointReading(device="auto" if self.program.gpus else "cpu"), self.job
        try:
            found = score_checkpoint(folder, self.corpus, job.suite, job.limits, how=how)
        except DataError as error:
            raise RefusedHere(
                f"the checkpoint in {folder} cannot be scored: {error}. It stays there, and the "
                f"next `cuvee run` scores it; remove {self.folder} to train the run anew"
            ) from error
        wanted = {name: found.scores[name] for name in self.run.targets}
        return wanted, found.details, found.units

    def _set_aside(self) -> str:
        """Move the directory away, so that the run can be trained anew."""
        for number in itertools.count(1):
            aside = self.folder.with_name(f"{self.folder.name}.refused-{number}")
            if not aside.exists():
                try:
                    self.folder.rename(aside)
                except OSError as error:
                    return (
                        f"Its directory {self.folder} cannot be moved aside ({error.strerror}): "
                        "remove it, so that the next `cuvee run` trains the run anew"
                    )
                break
        return f"Its directory is now {aside}; the next `cuvee run` trains the run anew"


def _begun(job: PackJob) -> _BegunRun:
    (spec,), program, job = job.specs, job.program, job.here()
    if program is None:
        raise TrainingError(f"pack {job.name} names no program that trains it")
    job.check_scoring()
    corpus = Corpus.open(job.corpus, again=False).seen_by(spec)
    folder = Path(program.folder) / spec.fingerprint[:SHORT]
    return _BegunRun(job, program, corpus, folder, describe_run(job, corpus, folder))


def run_plan(spec: RunSpec, corpus: Corpus) -> ladder.TrainingPlan:
    """How the built-in trainer would train a run."""
    return ladder.training_plan(
        spec.size, spec.tokens, corpus.vocabulary, schedule=spec.schedule, rate=spec.rate
    )


def describe_run(job: PackJob, corpus: Corpus, folder: Path) -> ContractRun:
    """A run as its trainer reads it.

    Args:
        job: of one run, with its program.
        corpus: under the names of the run.
        folder: the run directory.
    """
    (spec,), program = job.specs, job.program
    plan = run_plan(spec, corpus)
    shape, write = plan.model_size, contract.places_in(folder)
    ends = np.rint(np.cumsum([stage.share for stage in spec.stages]) * spec.tokens).astype(int)
    lengths = np.diff([0, *ends[:-1], spec.tokens]).tolist()
    return ContractRun(
        fingerprint=spec.fingerprint,
        tokens=spec.tokens,
        stages=[
            contract.ContractStage(
                tokens=length, shares=dict(zip(spec.domains, stage.weights, strict=True))
            )
            for stage, length in zip(spec.stages, lengths, strict=True)
        ],
        seed=spec.seed,
        data_seed=spec.order_seed,
        model=contract.ContractModel(
            name=spec.size,
            parameters=shape.parameters(corpus.vocabulary),
            width=shape.width,
            layers=shape.layers,
            heads=shape.heads,
            mlp=shape.mlp,
            kv_heads=shape.kv_heads,
            tied=shape.tied,
            rope=shape.rope,
            epsilon=shape.epsilon,
        ),
        schedule=contract.ContractSchedule(
            steps=plan.steps,
            batch=plan.batch,
            sequence_length=shape.context,
            kind=plan.schedule,
            rate=plan.peak,
            warmup=plan.warmup,
            decay=plan.decay,
            average=spec.average,
            precision=spec.precision,
        ),
        settings=dict(program.settings) if program else {},
        domains=_domain_files(spec, corpus, folder.parent / TOKENS),
        token_type=token_type(corpus.vocabulary).name,
        tokenizer=str(corpus.tokenizer_path.absolute()),
        vocabulary=corpus.vocabulary,
        end_of_text=corpus.eot,
        targets=[
            *(f"domain/{name}" for name in spec.domains),
            *(f"task/{short_name(task)}" for task in job.suite.tasks),
        ],
        write=write,
        resume_from=write.state,
    )


def _domain_files(
    spec: RunSpec, corpus: Corpus, written: Path
) -> dict[str, contract.ContractDomain]:
    """Where the ids of every domain of a run lie, and how many of them it may use."""
    found = {}
    for i, name in enumerate(spec.domains):
        splits = {}
        for split in SPLITS:
            shard = corpus.train(name) if split == "train" else corpus.valid(name)
            count = len(shard.tokens)
            if split == "train":
                count = round(spec.usable(i) * count)
            splits[split] = contract.ContractTokens(
                path=str(_token_file(corpus, name, split, written)),
                index=str((corpus.root / corpus.folders[name] / f"{split}.idx.npz").absolute()),
                tokens=count,
            )
        found[name] = contract.ContractDomain(**splits)
    return found


def _token_file(corpus: Corpus, name: str, split: str, written: Path) -> Path:
    """The ids of a split as one file; those that lie in files of others are written out once."""
    path = corpus.root / corpus.folders[name] / f"{split}.bin"
    if path.exists():
        return path.absolute()
    shard = corpus.train(name) if split == "train" else corpus.valid(name)
    domain = next(one for one in corpus.domains if one.name == name)
    identity = domain.identity if split == "train" else domain.heldout or domain.identity
    own = written / f"{identity[:SHORT]}.{split}.bin"
    written.mkdir(parents=True, exist_ok=True)
    with exclusive_lock(written / f"{own.name}.lock"):
        if not own.exists():
            draft = own.with_suffix(".draft")
            with draft.open("wb") as out:
                out.writelines(shard.tokens.blocks(BLOCK))  # type: ignore[attr-defined]
            draft.rename(own)
    return own
