"""From specs to outcomes: what the store lacks is trained, and each outcome is kept at once.

An executor trains; what is trained is decided here. Leases keep two sweeps from training one run, a
budget bounds what is launched, and what runs have in common is trained once
(`proxies.train.branching`). Loss of the record loses nothing.
"""

import contextvars
import dataclasses
import functools
import hashlib
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType

from cuvee.flows.console import Bar
from cuvee.flows.execution.budget import Budget, training_flops
from cuvee.flows.execution.executor import Executor
from cuvee.flows.execution.pack_resources import PackResources
from cuvee.flows.recipe.schema import Recipe
from cuvee.flows.recipe.trainer_parts import study_program
from cuvee.flows.workspace import Workspace
from cuvee.mixtures.controllers import required_runs
from cuvee.mixtures.errors import TrainingError
from cuvee.mixtures.multiscale.steps import LadderStep
from cuvee.mixtures.runs.run_results import (
    NO_COST,
    Failed,
    Outcome,
    TrainingCost,
    finished_runs,
    training_cost,
)
from cuvee.mixtures.runs.run_spec import BY_NAMES, RunSpec, canonical_json
from cuvee.proxies.data.objects import is_remote, remove_folder, within
from cuvee.proxies.interfaces import Progress
from cuvee.proxies.train import branching
from cuvee.proxies.train.branching import WHOLE_RUN, BranchPlan, PlannedPack
from cuvee.tasks.pack_job import PackJob
from cuvee.tasks.store import shared_inputs
from cuvee.tasks.store.doctor import SCORINGS
from cuvee.tasks.store.leases import LeaseStore
from cuvee.tasks.store.results import Store
from cuvee.tasks.study.monitor import Announced
from cuvee.tasks.study.prepared import Prepared
from cuvee.tasks.tracking.fields import MixtureNames, run_name
from cuvee.tasks.tracking.tracker import Tracker
from cuvee.tasks.train_by_program import forget_state
from cuvee.tasks.trainer.contract import RefusedResult

POLL_SECONDS = 0.05
OTHERS_SECONDS = 1.0  # between two looks at what another sweep trains
AHEAD = 1  # packs that wait for each slot, so that no core does while results are kept
THREADS = 512  # that wait for packs; the executor's slots bound how many there are

Launched = tuple[PackJob, "Future[None]"]


class StoreEvaluator:
    """The `evaluate` of a flow that trains nothing: it only looks into the store.

    Attributes:
        store: of results.
        found: fingerprints of the runs that were there.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.found: set[str] = set()

    def __call__(
        self,
        specs: Sequence[RunSpec],
        _title: str = "",
        confirmed: Mapping[str, str] = MappingProxyType({}),
    ) -> tuple[Outcome, ...]:
        lacking = "not in the store: `cuvee run` trains it"
        known = {spec.fingerprint: self.store.outcome_of(spec) for spec in specs}
        self.found |= {name for name, outcome in known.items() if outcome}
        outcomes = [known[spec.fingerprint] or Failed(spec, lacking) for spec in specs]
        return tuple(self.store.with_units(outcomes, confirmed))


class Evaluator:
    """The `evaluate` of a study: trains what is missing and remembers what it did.

    Args:
        recipe: says how large packs are, what may be spent and how much may fail.
        prepared: what is trained on, and scored.
        store: holds what need not be trained, and takes what was.
        tracker: is told of every run.
        executor: trains packs.
        workspace: has the checkpoints, and says how a pack is run as a step.

    Attributes:
        reused: outcomes that were found in the store.
        budget: what may be spent.
    """

    def __init__(
        self,
        recipe: Recipe,
        prepared: Prepared,
        store: Store,
        tracker: Tracker,
        executor: Executor,
        workspace: Workspace,
    ) -> None:
        self._prepared, self._store, self._tracker = prepared, store, tracker
        self._executor, self._workspace = executor, workspace
        self._program = study_program(recipe, workspace.trainings, workspace.shared)
        self._resources = PackResources(
            executor, store, prepared.corpus.vocabulary, recipe.proxy.pack, workspace.display.say
        )
        self._failed_share = recipe.limits.failed_share
        self._leases = LeaseStore(store)
        self._corpus = str(prepared.corpus.root)
        self._questions: shared_inputs.StoredQuestions | None = None
        self._flops = training_flops(prepared.corpus.vocabulary)
        self.budget = Budget(recipe.budget, self._flops)
        self._mixtures = MixtureNames(prepared.domains)
        self._confirmed: dict[str, str] = {}
        self._withheld: dict[str, Failed] = {}
        self._lock = threading.Lock()
        self._bar: Bar | None = None
        self._done: dict[str, Outcome] = {}
        self._reports: dict[str, Progress] = {}
        self._packs: dict[str, PackJob] = {}
        self._ended: set[str] = set()
        self._fresh: set[str] = set()
        self._unrecorded: list[RunSpec] = []
        self.reused = 0
        store.remember(SCORINGS, prepared.scoring, prepared.scored)

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
        self._confirmed |= confirmed
        for spec in specs:
            self._tags(spec)  # so that designs are numbered in their order, found or not
        unique = {spec.fingerprint: spec for spec in specs}
        wanted = [spec for name, spec in unique.items() if name not in self._done]
        found = {spec.fingerprint for spec in wanted if self._look_up(spec)}
        missing = [spec for spec in wanted if spec.fingerprint not in found]
        packs = branching.plan_packs(
            missing,
            self._branches,
            self._executor.device,
            1 if self._program else self._resources.limits(missing, self._tried_job),
            vocabulary=self._prepared.corpus.vocabulary,
        )
        self._announce(title, wanted, missing, packs)
        for note in self._store.damaged:
            self._workspace.display.say(f"damaged: {note}")
        self._store.damaged.clear()
        if missing:
            self._record_found()
            self._publish()
            if not self.trained and not self.budget.reached:
                self.budget.check(missing)
            with self._workspace.display.step(title) as self._bar:
                self._train(missing, packs)
        self._remove_branches(specs)
        self._check_failures(len(specs))
        known = {**self._withheld, **self._done}
        return tuple(self._store.with_units((known[s.fingerprint] for s in specs), confirmed))

    def require_memory(self, asked: tuple[RunSpec, ...], steps: Sequence[LadderStep]) -> None:
        """Refuse a ladder of which a rung fits no device before its first one is trained.

        Raises:
            RecipeError: a proxy takes more memory than there is.
        """
        if steps and not self._program and self._store.missing(asked):
            for step in steps:
                spec = dataclasses.replace(asked[0], size=step.size, tokens=step.tokens)
                self._resources.fitting(spec)

    def _publish(self) -> None:
        """Copy what workers read to the store, once, where that is remote."""
        shared = self._workspace.shared
        if is_remote(shared) and self._questions is None:
            prepared = self._prepared
            with self._workspace.display.step("Copies in the store"):
                self._questions = shared_inputs.publish_questions(prepared.suite, shared)
                self._corpus = shared_inputs.publish_prepared_corpus(prepared.corpus, shared)

    def _announce(
        self,
        title: str,
        wanted: Sequence[RunSpec],
        missing: Sequence[RunSpec],
        packs: Sequence[PlannedPack],
    ) -> None:
        """Tell whoever follows the study what is asked for, and what of it was there.

        What several runs begin with is told once, and is no part of theirs.
        """
        monitor, shares = self._workspace.monitor, branching.trained_shares(packs)
        asked = {
            spec.fingerprint: Announced(
                run_name(spec, self._tags(spec)),
                spec.tokens,
                self._flops(spec),
                shared=1 - shares.get(spec.fingerprint, (spec, 1.0))[1],
            )
            for spec in wanted
        }
        shared = {
            name: share * self._flops(spec)
            for name, (spec, share) in shares.items()
            if name not in asked
        }
        monitor.begin_round(title, asked, [spec.fingerprint for spec in missing], shared)
        for name in asked.keys() - {spec.fingerprint for spec in missing}:
            monitor.end_run(self._done[name], here=False)

    @property
    def trained(self) -> int:
        """Outcomes that this run of the study has trained, failures among them."""
        return len(self._fresh)

    @property
    def cost(self) -> TrainingCost:
        """Of what it has trained."""
        with self._lock:
            fresh = tuple(self._done[name] for name in self._fresh)
        return training_cost(finished_runs(fresh)) or NO_COST

    def untrained(self, spec: RunSpec) -> dict[str, float]:
        """What a proxy of a spec's size scores before training; computed once."""
        parts = [spec.size, spec.seed, spec.scoring, *([spec.start] if spec.start else [])]
        if spec.version != BY_NAMES:
            parts += [spec.domains, spec.contents]
        key = hashlib.sha256(canonical_json(parts).encode()).hexdigest()
        self._publish()
        known: dict[str, float] | None = self._store.recall("untrained", key)
        if known is None:
            known = self._executor.untrained_scores(self._job([spec], self._executor.device))
            self._store.remember("untrained", key, known)
        return known

    def _train(self, missing: Sequence[RunSpec], packs: Sequence[PlannedPack]) -> None:
        device = self._executor.device
        jobs = [self._job(pack.specs, device, pack.branch) for pack in packs]
        self._packs = {job.name: job for job in jobs}
        self._reports, self._ended = {}, set()
        for spec in missing:
            self._tracker.start_run(spec, self._tags(spec))
        with self._leases, ThreadPoolExecutor(THREADS, "pack") as pool:
            try:
                for job, future in self._launch(jobs, pool, len(missing)):
                    self._collect(job, future)
            except BaseException:
                self._executor.cancel()
                raise

    def _launch(
        self, jobs: Sequence[PackJob], pool: ThreadPoolExecutor, asked: int
    ) -> list[Launched]:
        """Submit what no other sweep trains; wait for the rest, or take it over from a dead one."""
        launched: list[Launched] = []
        waiting, told = list(jobs), False
        most = (
            self._executor.places(self._program)
            if self._program
            else self._executor.slots * (1 + AHEAD)
        )
        while waiting:
            elsewhere: list[PackJob] = []
            while waiting:
                job = self._next(waiting, launched, most)
                if job is None:
                    time.sleep(POLL_SECONDS)
                    self._executor.raise_if_cancelled()
                    continue
                waiting.remove(job)
                ours, theirs = self._divide(job)
                if ours and not self.budget.admits(ours.specs):
                    self._withhold(ours)
                elif ours:
                    launched.append((ours, self._submit(ours, pool)))
                elsewhere += [theirs] if theirs else []
                self._check_failures(asked)
            waiting = elsewhere
            if waiting and not told:
                count = sum(len(job.specs) for job in waiting)
                self._workspace.display.say(
                    f"Another sweep on this store trains {count} of these proxies now"
                )
                told = True
            if waiting:
                self._release_failed(launched)
                time.sleep(OTHERS_SECONDS)
        return launched

    def _submit(self, job: PackJob, pool: ThreadPoolExecutor) -> "Future[None]":
        """Have a pack trained in a thread that waits for it, and its outcomes kept at once."""
        step = self._workspace.step(
            "train-pack", self._train_pack, label=f"pack-{job.name}", retry=not job.program
        )
        return pool.submit(contextvars.copy_context().run, step, job)

    def _train_pack(self, job: PackJob) -> None:
        if job.request:  # asked anew: this may be another try, and the nodes are others meanwhile
            job = dataclasses.replace(job, request=self._resources.request(job.specs))
        left = job.program.retries if job.program else 0  # the steps of packs are retried
        while True:
            try:
                outcomes = self._executor.train(job, functools.partial(self._report, job))
            except TrainingError as error:
                if left == 0 or isinstance(error, RefusedResult):
                    raise
                left -= 1
                said = str(error).split(". The end of ")[0]  # the log, which is shown in the end
                self._workspace.display.say(f"Run {job.name}: {said}. It is begun again")
            else:
                return self._keep(job, outcomes)

    def _report(self, job: PackJob, reports: Sequence[Progress]) -> None:
        """Take what a pack has reported since the last call, from a thread of the executor's."""
        with self._lock:
            self._reports[job.name] = reports[-1]
            self._move_bar()
        if job.branch.keep:
            return  # the curves of the runs will hold it
        self._workspace.monitor.follow_training([s.fingerprint for s in job.specs], reports)
        for k, spec in enumerate(job.specs):
            points = [(report.tokens, report.losses[k]) for report in reports]
            self._tracker.log_curve(spec.fingerprint, points)

    def _next(
        self, waiting: Sequence[PackJob], launched: Sequence[Launched], most: int
    ) -> PackJob | None:
        """The first pack whose branches have been trained (or have failed: it does without).

        None as long as there is none, or what is under way takes as many slots as it may.
        """
        under_way = [job for job, future in launched if not future.done()]
        if sum(map(self._resources.slots, under_way)) >= most:
            return None
        coming = {name for job in (*waiting, *under_way) for name in job.branch.keep}
        return next((job for job in waiting if not coming & set(job.branch.needs)), None)

    def _withhold(self, job: PackJob) -> None:
        """Leave a pack untrained for want of budget; the next sweep asks for it again."""
        self._workspace.monitor.end_shared(job.branch.keep, trained=False)
        for spec in job.specs:
            self._withheld[spec.fingerprint] = Failed(spec, f"not trained: {self.budget.reached}")
            self._leases.release(spec.fingerprint)
            self._workspace.monitor.withdraw_run(spec.fingerprint)

    def _release_failed(self, launched: Sequence[Launched]) -> None:
        """Give back the leases on packs that failed: two sweeps must not wait for each other's."""
        for job, future in launched:
            if future.done() and not job.branch.keep:
                for spec in job.specs:
                    self._leases.release(spec.fingerprint)

    def _divide(self, job: PackJob) -> tuple[PackJob | None, PackJob | None]:
        """What this sweep leases of a pack, and what another one has leased."""
        if job.branch.keep:  # a branch is no result: each sweep has its own
            return job, None
        ours, theirs = [], []
        for spec in job.specs:
            if not self._leases.acquire(spec.fingerprint):
                if not self._look_up(spec):
                    theirs.append(spec)
            elif self._look_up(spec):  # finished elsewhere since it was found missing
                self._leases.release(spec.fingerprint)
            else:
                ours.append(spec)
        self._record_found()
        starts = dict(zip(job.specs, job.branch.start, strict=False))
        routes = [
            dataclasses.replace(job.branch, start=tuple(starts[s] for s in part if s in starts))
            for part in (ours, theirs)
        ]
        mine = self._job(ours, job.device, routes[0]) if ours else None
        other = self._job(theirs, job.device, routes[1]) if theirs else None
        with self._lock:
            self._packs.pop(job.name, None)
            self._packs |= {part.name: part for part in (mine, other) if part}
        return mine, other

    def _look_up(self, spec: RunSpec) -> bool:
        """Take an outcome from the store, if it is there."""
        outcome = self._store.outcome_of(spec)
        if outcome is None:
            return False
        self._done[spec.fingerprint] = outcome
        self.reused += 1
        self._workspace.monitor.end_run(outcome, here=False)
        self._unrecorded.append(spec)
        return True

    def _record_found(self) -> None:
        """Tell the record what was found in the store, since more is to be trained.

        Where nothing is, the record waits for the study's end, which tells it each run once, with
        its objective; a call costs the record more than what it carries.
        """
        found, self._unrecorded = self._unrecorded, []
        for spec in found:
            self._tracker.finish_run(self._done[spec.fingerprint], tags=self._tags(spec))

    def _tags(self, spec: RunSpec) -> dict[str, str]:
        """Which mixture a run has, and why it is trained, for the record."""
        name = self._confirmed.get(spec.fingerprint)
        return {"role": "confirmation", "mixture": name} if name else self._mixtures.tags(spec)

    def _job(
        self, specs: Sequence[RunSpec], device: str, branch: BranchPlan = WHOLE_RUN
    ) -> PackJob:
        folder = self._workspace.checkpoints
        names = dict.fromkeys(name for spec in specs for name in required_runs(spec))
        known = [self._done.get(name) or self._store.get(name) for name in names]
        job = PackJob(
            specs=tuple(specs),
            corpus=self._corpus,
            suite=self._prepared.suite,
            checkpoints="",
            device=device,
            limits=self._prepared.limits,
            points=self._prepared.points,
            references=tuple(
                run.spec.over(self._prepared.domains) for run in known if run
            ),  # the worker names what lacks
            models=str(within(folder, "references")),
            branch=dataclasses.replace(branch, starts=str(within(folder, "starts"))),
            questions=self._questions,
            request=None if self._program else self._resources.request(specs),
            program=self._program,
        )
        return job.at(folder)

    def _tried_job(self, spec: RunSpec) -> PackJob:
        """What a worker is told that tries packs of runs like one."""
        self._publish()
        return self._job([spec], self._executor.device)

    def _keep(self, job: PackJob, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            self._store.put(outcome)
            self._leases.release(outcome.spec.fingerprint)
        remove_folder(job.checkpoints)
        forget_state(job)
        with self._lock:
            self._done |= {o.spec.fingerprint: o for o in self._store.with_units(outcomes)}
            self._fresh |= {outcome.spec.fingerprint for outcome in outcomes}
            self._move_bar()
            self._ended.add(job.name)
            left = [other for name, other in self._packs.items() if name not in self._ended]
            needed_still = {name for other in left for name in other.branch.needs}
            for name in {*job.branch.needs} - needed_still:
                branching.remove_branch_checkpoint(self._branches, name)
        self._workspace.monitor.end_shared(job.branch.keep, trained=True)
        for outcome in outcomes:
            self._workspace.monitor.end_run(outcome, here=True)
            self._tracker.finish_run(outcome)

    def _collect(self, job: PackJob, future: "Future[None]") -> None:
        """Count a pack whose worker died too often as failed; the next run tries it again."""
        try:
            future.result()
        except TrainingError as error:
            if job.branch.keep:
                self._workspace.monitor.end_shared(job.branch.keep, trained=False)
                return  # of the runs that were to begin with it, each has been trained whole
            for spec in job.specs:
                failed = Failed(spec, str(error))
                self._done[spec.fingerprint] = failed
                self._fresh.add(spec.fingerprint)
                self._workspace.monitor.end_run(failed, here=True)
                self._tracker.finish_run(failed)

    @property
    def _branches(self) -> str | Path:
        """Where the states of shared beginnings are kept while runs need them."""
        return within(self._workspace.checkpoints, "trunks")

    def _remove_branches(self, specs: Sequence[RunSpec]) -> None:
        """Remove the branches of runs that are all stored, a killed study's included."""
        kept = branching.kept_branches(self._branches)
        if kept:
            for name in {t.name for spec in specs for t in branching.shared_prefixes(spec)}:
                if name[: branching.SHORT] in kept:
                    branching.remove_branch_checkpoint(self._branches, name)

    def _move_bar(self) -> None:
        """Show how far all packs are; the lock is held."""
        if self._bar is None or not self._packs:
            return
        packs = {name: job for name, job in self._packs.items() if not job.branch.keep}
        total = sum(len(job.specs) for job in packs.values())
        done = sum(1 for job in packs.values() for s in job.specs if s.fingerprint in self._done)
        under_way = sum(
            len(job.specs) * self._reports[name].step / self._reports[name].steps
            for name, job in packs.items()
            if name in self._reports and job.specs[0].fingerprint not in self._done
        )
        self._bar.move(f"{done} of {total}", (done + under_way) / total)

    def _check_failures(self, asked: int) -> None:
        failed = [run for run in self._done.values() if isinstance(run, Failed)]
        count = max(asked, len(self._done))
        if len(failed) > max(1.0, self._failed_share * count):
            reasons = "; ".join(sorted({run.reason for run in failed})[:3])
            diverged = any("diverged" in run.reason for run in failed)
            advice = "Lower proxy.rate, or " if diverged else "Mend that and run again, or "
            raise TrainingError(
                f"{len(failed)} of {count} trainings failed, more than the "
                f"recipe's limits.failed_share of {self._failed_share:.0%} allows: {reasons}. "
                f"{advice}raise the limit if you can do without them; finished runs are kept"
            )
