"""From specs to outcomes: the `evaluate` of a flow.

What the store holds is not trained again. The rest is packed, each pack is one Prefect task that
waits for one Ray task, and every outcome is kept as soon as it is there. What runs have in common
is trained once (`proxies.trunk`). Loss of the record loses nothing.
"""

import dataclasses
import hashlib
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from prefect.futures import PrefectConcurrentFuture

from cuvee.flows.execution.budget import Budget, training_flops
from cuvee.flows.execution.ray_executor import RayExecutor
from cuvee.flows.prepare import Prepared
from cuvee.flows.progress_bars import Bar, current
from cuvee.flows.recipe.schema import Recipe
from cuvee.flows.workspace import Workspace
from cuvee.mixtures.controllers import required_runs
from cuvee.mixtures.errors import TrainingError
from cuvee.mixtures.runs import Failed, Outcome, RunResult, RunSpec, canonical_json
from cuvee.proxies.data import files
from cuvee.proxies.interfaces import Progress
from cuvee.proxies.train import branching
from cuvee.proxies.train.branching import WHOLE_RUN, BranchPlan
from cuvee.tasks.job import PackJob
from cuvee.tasks.pack_task import train_pack
from cuvee.tasks.store.doctor import SCORINGS
from cuvee.tasks.store.leases import LeaseStore
from cuvee.tasks.store.results import Store
from cuvee.tasks.tracking.fields import MixtureNames
from cuvee.tasks.tracking.tracker import Tracker

POLL_SECONDS = 0.05
OTHERS_SECONDS = 1.0  # between two looks at what another sweep trains
AHEAD = 1  # packs that wait for each slot, so that no core does while results are kept

Launched = tuple[PackJob, "PrefectConcurrentFuture[Any]"]


class Evaluator:
    """Trains what is missing and remembers what it did.

    Attributes:
        trained: outcomes that were trained by this run of the study.
        reused: outcomes that were found in the store.
        budget: what may be spent; everything, unless a flow sets another.
    """

    def __init__(
        self,
        prepared: Prepared,
        store: Store,
        tracker: Tracker,
        runner: RayExecutor,
        *,
        checkpoints: Path,
        pack_limit: int | None = None,
        failed_share: float = 0.2,
    ) -> None:
        self._prepared, self._store, self._tracker, self._runner = prepared, store, tracker, runner
        self._checkpoints, self._pack_limit = checkpoints, pack_limit
        self._failed_share = failed_share
        self._leases = LeaseStore(store)
        self.budget = Budget(None, training_flops(prepared.corpus.vocabulary))
        self._mixtures = MixtureNames(prepared.domains)
        self._confirmed: dict[str, str] = {}
        self._withheld: dict[str, Failed] = {}
        self._lock = threading.Lock()
        self._bar: Bar | None = None
        self._done: dict[str, Outcome] = {}
        self._seen: dict[str, Progress] = {}
        self._packs: dict[str, PackJob] = {}
        self._ended: set[str] = set()
        self.trained = 0
        self.reused = 0

    def __call__(
        self,
        specs: Sequence[RunSpec],
        title: str = "Proxies",
        confirmed: Mapping[str, str] = MappingProxyType({}),
    ) -> tuple[Outcome, ...]:
        """One outcome per spec, in their order.

        Args:
            specs: what is wanted.
            title: shown while it is trained.
            confirmed: by fingerprint, the mixture that a run of a confirmation has; the others are
                of the design.

        Raises:
            TrainingError: more than the allowed share failed.
            CuveeError: what a worker found wrong with its input.
        """
        missing = []
        self._confirmed |= confirmed
        for spec in specs:
            self._tags(spec)  # so that designs are numbered in their order, found or not
        for spec in {spec.fingerprint: spec for spec in specs}.values():
            if spec.fingerprint in self._done:
                continue
            if not self._look_up(spec):
                missing.append(spec)
        for note in self._store.damaged:
            current().say(f"damaged: {note}")
        self._store.damaged.clear()
        if missing:
            if not self.trained and not self.budget.reached:
                self.budget.check(missing)
            with current().step(title) as self._bar:
                self._train(missing)
        self._clear(specs)
        self._check_failures(len(specs))
        known = {**self._withheld, **self._done}
        return tuple(known[spec.fingerprint] for spec in specs)

    def untrained(self, spec: RunSpec) -> dict[str, float]:
        """What a proxy of a spec's size scores before training; computed once."""
        parts = [spec.size, spec.seed, spec.scoring, *([spec.start] if spec.start else [])]
        key = hashlib.sha256(canonical_json(parts).encode()).hexdigest()
        known: dict[str, float] | None = self._store.recall("untrained", key)
        if known is None:
            known = self._runner.untrained(self._job([spec], self._runner.device))
            self._store.remember("untrained", key, known)
        return known

    def progress(self, name: str, reports: Sequence[Progress]) -> None:
        """Called from the runner's thread with what workers reported since the last call."""
        job = self._packs.get(name)
        if job is None or not reports:
            return
        with self._lock:
            self._seen[name] = reports[-1]
            self._move()
        if job.branch.keep:
            return  # the curves of the runs will hold it
        for k, spec in enumerate(job.specs):
            points = [(report.tokens, report.losses[k]) for report in reports]
            self._tracker.log_curve(spec.fingerprint, points)

    def _train(self, missing: Sequence[RunSpec]) -> None:
        device = self._runner.device
        batches = branching.plan_packs(missing, self._trunks, device, self._pack_limit)
        jobs = [self._job(batch.specs, device, batch.branch) for batch in batches]
        self._packs = {job.name: job for job in jobs}
        self._seen, self._ended = {}, set()
        for spec in missing:
            self._tracker.start_run(spec, self._tags(spec))
        with self._leases:
            try:
                for job, future in self._launch(jobs, len(missing)):
                    self._settle(job, future)
            except BaseException:
                self._runner.stop()
                raise

    def _launch(self, jobs: Sequence[PackJob], asked: int) -> list[Launched]:
        """Submit what no other sweep trains; wait for the rest, or take it over from a dead one."""
        slots, told = self._runner.slots, False
        launched: list[Launched] = []
        jobs = list(jobs)
        while jobs:
            others: list[PackJob] = []
            while jobs:
                under_way = sum(not f.wrapped_future.done() for _, f in launched)
                full = under_way >= slots * (1 + AHEAD)
                job = None if full else self._next(jobs, launched)
                if job is None:
                    time.sleep(POLL_SECONDS)
                    self._runner.check()
                    continue
                jobs.remove(job)
                mine, theirs = self._divide(job)
                if mine and not self.budget.admits(mine.specs):
                    self._withhold(mine)
                elif mine:
                    future = train_pack.submit(mine, self._runner.run, self._keep)
                    launched.append((mine, future))
                others += [theirs] if theirs else []
                self._check_failures(asked)
            jobs = others
            if jobs and not told:
                count = sum(len(job.specs) for job in jobs)
                current().say(f"Another sweep on this store trains {count} of these proxies now")
                told = True
            if jobs:
                self._give_back(launched)
                time.sleep(OTHERS_SECONDS)
        return launched

    def _withhold(self, job: PackJob) -> None:
        """Leave a pack untrained for want of budget; the next sweep asks for it again."""
        for spec in job.specs:
            self._withheld[spec.fingerprint] = Failed(spec, f"not trained: {self.budget.reached}")
            self._leases.release(spec.fingerprint)

    def _give_back(self, launched: Sequence[Launched]) -> None:
        """Give back the leases on packs that failed: two sweeps must not wait for each other's."""
        for job, future in launched:
            if future.wrapped_future.done() and not job.branch.keep:
                for spec in job.specs:
                    self._leases.release(spec.fingerprint)

    def _divide(self, job: PackJob) -> tuple[PackJob | None, PackJob | None]:
        """What of a pack this sweep has leased, and what another one has."""
        if job.branch.keep:  # a trunk is no result: each sweep has its own
            return job, None
        mine, theirs = [], []
        for spec in job.specs:
            if not self._leases.acquire(spec.fingerprint):
                if not self._look_up(spec):
                    theirs.append(spec)
            elif self._look_up(spec):  # finished elsewhere since it was found missing
                self._leases.release(spec.fingerprint)
            else:
                mine.append(spec)
        starts = dict(zip(job.specs, job.branch.start, strict=False))
        parts = [
            self._job(
                part,
                job.device,
                dataclasses.replace(
                    job.branch, start=tuple(starts[spec] for spec in part if spec in starts)
                ),
            )
            if part
            else None
            for part in (mine, theirs)
        ]
        with self._lock:
            self._packs.pop(job.name, None)
            self._packs |= {part.name: part for part in parts if part}
        return parts[0], parts[1]

    def _look_up(self, spec: RunSpec) -> bool:
        """Take an outcome from the store, if it is there."""
        outcome = self._store.get(spec.fingerprint)
        if outcome is None:
            return False
        self._done[spec.fingerprint] = outcome
        self.reused += 1
        self._tracker.finish_run(outcome, tags=self._tags(spec))
        return True

    def _tags(self, spec: RunSpec) -> dict[str, str]:
        """Which mixture a run has, and why it is trained, for the record."""
        name = self._confirmed.get(spec.fingerprint)
        return {"role": "confirmation", "mixture": name} if name else self._mixtures.tags(spec)

    @property
    def _trunks(self) -> Path:
        """Where the states of trunks are kept while runs need them."""
        return self._checkpoints / "trunks"

    def _next(self, waiting: Sequence[PackJob], launched: Sequence[Launched]) -> PackJob | None:
        """The first pack whose trunks have been trained (or have failed: then it does without)."""
        coming = {name for job in waiting for name in job.branch.keep}
        for job, future in launched:
            if not future.wrapped_future.done():
                coming |= set(job.branch.keep)
        return next((job for job in waiting if not coming & set(job.branch.needs)), None)

    def _clear(self, specs: Sequence[RunSpec]) -> None:
        """Remove the trunks of runs that are all stored, a killed study's included."""
        if self._trunks.is_dir() and any(self._trunks.iterdir()):
            for name in {t.name for spec in specs for t in branching.shared_prefixes(spec)}:
                branching.remove_branch_checkpoint(self._trunks, name)

    def _job(
        self, specs: Sequence[RunSpec], device: str, branch: BranchPlan = WHOLE_RUN
    ) -> PackJob:
        job = PackJob(
            specs=tuple(specs),
            corpus=str(self._prepared.corpus.root),
            suite=self._prepared.suite,
            checkpoints="",
            device=device,
            limits=self._prepared.limits,
            points=self._prepared.points,
            references=self._references(specs),
            models=str(self._checkpoints / "references"),
            branch=dataclasses.replace(branch, starts=str(self._checkpoints / "starts")),
        )
        return job.at(self._checkpoints)

    def _references(self, specs: Sequence[RunSpec]) -> tuple[RunSpec, ...]:
        """The runs that specs are compared with; what is not known here, the worker will name."""
        wanted = dict.fromkeys(name for spec in specs for name in required_runs(spec))
        known = [self._done.get(name) or self._store.get(name) for name in wanted]
        return tuple(run.spec for run in known if run is not None)

    def _keep(self, job: PackJob, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            self._store.put(outcome)
            self._leases.release(outcome.spec.fingerprint)
        files.remove_folder(Path(job.checkpoints))
        with self._lock:
            for outcome in outcomes:
                self._done[outcome.spec.fingerprint] = outcome
                self.trained += 1
            self._move()
            self._release(job)
        for outcome in outcomes:
            self._tracker.finish_run(outcome)

    def _release(self, job: PackJob) -> None:
        """Remove the trunks that no pack needs any more; the lock is held."""
        self._ended.add(job.name)
        left = [other for name, other in self._packs.items() if name not in self._ended]
        needed_still = {name for other in left for name in other.branch.needs}
        for name in {*job.branch.needs} - needed_still:
            branching.remove_branch_checkpoint(self._trunks, name)

    def _settle(self, job: PackJob, future: PrefectConcurrentFuture[Any]) -> None:
        """Count a pack whose worker died too often as failed; the next run tries it again."""
        try:
            future.result()
        except TrainingError as error:
            if job.branch.keep:
                return  # of the runs that were to begin with it, each has been trained whole
            for spec in job.specs:
                failed = Failed(spec, str(error))
                self._done[spec.fingerprint] = failed
                self._tracker.finish_run(failed)

    def _move(self) -> None:
        """Move the bar; the lock is held."""
        if self._bar is None or not self._packs:
            return
        packs = {name: job for name, job in self._packs.items() if not job.branch.keep}
        total = sum(len(job.specs) for job in packs.values())
        done = sum(1 for job in packs.values() for s in job.specs if s.fingerprint in self._done)
        under_way = sum(
            len(job.specs) * self._seen[name].step / self._seen[name].steps
            for name, job in packs.items()
            if name in self._seen and job.specs[0].fingerprint not in self._done
        )
        self._bar.move(f"{done} of {total}", (done + under_way) / total)

    def _check_failures(self, asked: int) -> None:
        failed = [run for run in self._done.values() if isinstance(run, Failed)]
        if len(failed) > max(1.0, self._failed_share * max(asked, len(self._done))):
            reasons = "; ".join(sorted({run.reason for run in failed})[:3])
            diverged = any("diverged" in run.reason for run in failed)
            advice = "Lower proxy.rate, or " if diverged else "Mend that and run again, or "
            raise TrainingError(
                f"{len(failed)} of {max(asked, len(self._done))} trainings failed, more than the "
                f"recipe's limits.failed_share of {self._failed_share:.0%} allows: {reasons}. "
                f"{advice}raise the limit if you can do without them; finished runs are kept"
            )


def begin(
    recipe: Recipe,
    prepared: Prepared,
    store: Store,
    tracker: Tracker,
    runner: RayExecutor,
    home: Workspace,
) -> Evaluator:
    """The trainings of a recipe, under its limits and its budget; the runner reports to them."""
    trainings = Evaluator(
        prepared,
        store,
        tracker,
        runner,
        checkpoints=home.checkpoints,
        pack_limit=recipe.proxy.pack,
        failed_share=recipe.limits.failed_share,
    )
    trainings.budget = Budget(recipe.budget, training_flops(prepared.corpus.vocabulary))
    store.remember(SCORINGS, prepared.scoring, prepared.scored)
    runner.listen(trainings.progress)
    return trainings


def tokens_per_second(outcomes: Sequence[Outcome]) -> float:
    """Median training speed, tokens per second per core (a pack's divided among its models)."""
    rates = [
        run.spec.tokens / run.seconds
        for run in outcomes
        if isinstance(run, RunResult) and run.seconds > 0
    ]
    return float(np.median(rates)) if rates else 0.0
