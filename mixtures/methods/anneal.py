"""Anneal: a main mixture, and another one for the end of the run.

"Domain upsampling at the end of training": Blakeney et al. 2024 (arXiv 2406.03476) raise some
domains in the last 10 to 20 % of a run; Llama 3 (arXiv 2407.21783, section 3.4.3) anneals on chosen
data, and uses that to judge data. Which domains, and from where, is searched for here, in four
rounds:

1. a swarm of fixed mixtures, whose law gives the main mixture (as `regmix`);
2. candidates: the main mixture up to a switch point, then one of several tails. They share the
   trunk, which is trained once, so each costs its tail; a law over them (`two_phase.candidates`)
   gives the best tail and switch point after that main mixture, and a law over both rounds
   (`two_phase.joint_law`) the best main mixture, tail and switch point together;
3. trials: one run of either under the first rounds' seed. The law over both rounds speaks of trunks
   that were never trained, so it learns from its run and proposes again, `trials` times at most;
   the best of these runs goes on;
4. that schedule and the main mixture to the end, at equal tokens, under fresh seeds.

A schedule is more complicated to run, so it has to earn its place: it is recommended only if the
interval of its measured gain over the main mixture lies above zero, else the main mixture is, and
the answer says what the schedule brought.
"""

import dataclasses
import hashlib
from collections import Counter
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np

from cuvee.mixtures import ties
from cuvee.mixtures.domains import Array
from cuvee.mixtures.errors import EvidenceError, RecipeError
from cuvee.mixtures.inference import dataset, diagnostics
from cuvee.mixtures.inference import recommend as choice
from cuvee.mixtures.inference.paired_trial import missing_specs, runs_of
from cuvee.mixtures.methods import RemainingRuns
from cuvee.mixtures.methods.swarm import Swarm
from cuvee.mixtures.problem import FIRST_SEED, Problem
from cuvee.mixtures.recommendation import Estimate, Recommendation
from cuvee.mixtures.registry import Registered, build, describe, register
from cuvee.mixtures.runs.run_results import Failed, History, finished_runs, score_table
from cuvee.mixtures.runs.run_spec import RunSpec, canonical_json
from cuvee.mixtures.searches.smallest_step import SmallestStep
from cuvee.mixtures.two_phase import candidates as tails
from cuvee.mixtures.two_phase import decision, joint_law
from cuvee.mixtures.two_phase.candidates import TwoPhase

FRESH = 1000  # first seed of the fourth round
NONE = (
    "no schedule: the laws over schedules predict none to be better than the main mixture by more "
    "than the noise of a run"
)


@register("method")
@dataclass(frozen=True)
class Anneal(Swarm):
    """Four rounds; the fields beside these are those of `mixtures.methods.swarm.Swarm`.

    Take it where the trainer can change the mixture for the last tenth or two of the run: it
    recommends such a schedule only where its measured gain is beyond the noise.

    Attributes:
        switches: points of the run at which a tail may begin, each in (0, 1).
        candidates: tails tried, over all switch points; at least as many as `tail_law` needs.
        tail_design: which tails are tried; a registered design.
        tail_law: law over the tails; a registered law.
        trials: proposals of main mixture and tail together, each a run; 0: only tails after the
            main mixture. They take as many runs as the tail law needs for twice the domains.
        pairs: fresh seeds under which the schedule is compared with the main mixture.
    """

    name = "anneal"

    runs: int = 32
    switches: tuple[float, ...] = (0.8, 0.9)
    candidates: int = 16
    tail_design: Annotated[Any, Registered("design")] = "dirichlet"
    tail_law: Annotated[Any, Registered("law")] = "log_linear"
    trials: int = 3
    pairs: int = 3

    def __post_init__(self) -> None:
        self.assemble()
        object.__setattr__(self, "tail_design", build("design", self.tail_design))
        object.__setattr__(self, "tail_law", build("law", self.tail_law))
        object.__setattr__(self, "switches", tuple(sorted(map(float, self.switches))))
        if not self.switches or not 0 < self.switches[0] <= self.switches[-1] < 1:
            raise RecipeError(
                "anneal needs switches between 0 and 1, such as [0.8, 0.9]; "
                f"got {list(self.switches)}"
            )
        if isinstance(self.search, SmallestStep):
            raise RecipeError(
                "anneal looks for the ending that gains most, and smallest_step for no more than "
                "was asked for: take another search, or the method regmix"
            )
        if self.candidates < 1 or self.trials < 0 or self.pairs < 2:
            raise RecipeError(
                "anneal needs candidates >= 1, trials >= 0 and pairs >= 2, or its gain has no "
                f"interval; got {self.candidates}, {self.trials} and {self.pairs}"
            )

    def ask(
        self, problem: Problem, history: History, rng: np.random.Generator
    ) -> tuple[RunSpec, ...]:
        if first := self.first_round(problem, history, rng):
            return first
        main = self._main(problem, history)
        if second := missing_specs(history, self._candidates(problem, history, main)):
            return second
        proposals = self._proposals(problem, history, main)
        if third := missing_specs(history, (proposal.spec for proposal in proposals)):
            return third
        best = _best(problem, history, proposals)
        fourth = () if best is None else self._pairs(problem, main, best.ending)
        return missing_specs(history, fourth)

    def remaining(self, problem: Problem) -> RemainingRuns:
        """Tails cost themselves, and the longest trunk once."""
        wanted, count = self._wanted(problem), len(self.switches)
        parts = [len(range(i, wanted, count)) * (1 - s) for i, s in enumerate(self.switches)]
        tries = self.trials + 1
        words = (
            f"{wanted} tails on one trunk and the main mixture to the end, up to {tries} schedules "
            f"tried, and {self.pairs} pairs of the best with the main mixture"
        )
        return RemainingRuns(sum(parts) + self.switches[-1] + 1 + tries + 2 * self.pairs, words)

    def recommend(
        self, problem: Problem, history: History, rng: np.random.Generator
    ) -> Recommendation:
        main = self._main(problem, history)
        static = self._static(problem, history, main)
        base = choice.recommend_mixture(self, problem, static, _chance(problem, static))
        base = dataclasses.replace(
            base,
            evidence=tuple(run.spec.fingerprint for run in finished_runs(history)),
            failed=sum(isinstance(run, Failed) for run in history),
            method=canonical_json(describe(self)),
        )
        if len(self._tried(problem, history, main).runs) < self._least(problem):
            return _noted(base, "too few candidates for a schedule have finished")
        ending = self._chosen(problem, history, main)
        if ending is None:
            return _noted(base, NONE)
        try:
            measured, targets = self._measured(problem, history, main, ending)
        except EvidenceError as error:
            return _noted(base, f"the schedule was not compared: {error}")
        return decision.conclude_schedule(problem, base, ending, measured=measured, targets=targets)

    def tried(self, problem: Problem, history: History) -> tuple[TwoPhase, Estimate] | None:
        """The best schedule and its measured gain over the main mixture, if it was run."""
        main = self._main(problem, history)
        ending = self._chosen(problem, history, main)
        if ending is None:
            return None
        return ending, self._measured(problem, history, main, ending)[0]

    def _static(self, problem: Problem, history: History, main: Array | None) -> History:
        """The first round: what was asked for later rests on it."""
        later = set()
        if main is not None:
            seeds = (FIRST_SEED, *(FRESH + i for i in range(self.pairs)))
            later = {problem.spec(tuple(main), seed).fingerprint for seed in seeds}
            later -= {spec.fingerprint for spec in self.anchor_specs(problem)}
        return tuple(
            run
            for run in history
            if len(run.spec.stages) == 1 and run.spec.fingerprint not in later
        )

    def _main(self, problem: Problem, history: History) -> Array:
        """The main mixture (K,): that of the candidates, or where there are none, the law's."""
        trunks = Counter(
            run.spec.stages[0].weights
            for run in history
            if tails.is_candidate(problem, run.spec) and run.spec.seed == FIRST_SEED
        )
        if trunks:
            return np.asarray(max(trunks, key=lambda w: (trunks[w], w)), dtype=np.float64)
        static = self._static(problem, history, None)
        return choice.pick_shares(self, problem, static, _chance(problem, static))

    def _candidates(self, problem: Problem, history: History, main: Array) -> tuple[RunSpec, ...]:
        """The second round: tails at every switch point, and the main mixture to the end."""
        rng = _chance(problem, self._static(problem, history, main))
        wanted, count = self._wanted(problem), len(self.switches)
        specs = []
        for i, (switch, child) in enumerate(zip(self.switches, rng.spawn(count), strict=True)):
            drawn = tails.draw_decays(
                problem,
                main,
                switch,
                len(range(i, wanted, count)),
                design=self.tail_design,
                rng=child,
            )
            specs += [problem.staged(tails.two_stages(main, t, switch), FIRST_SEED) for t in drawn]
        return (*specs, problem.spec(tuple(main), FIRST_SEED))

    def _wanted(self, problem: Problem) -> int:
        """Tails of the second round."""
        return max(self.candidates, self._least(problem) - 1)

    def _least(self, problem: Problem) -> int:
        """Candidates that the law over tails needs."""
        return int(self.tail_law.rows(len(problem.domains) + 1))

    def _tried(self, problem: Problem, history: History, main: Array) -> tails.Candidates:
        """The candidates that finished."""
        runs = runs_of(history, self._candidates(problem, history, main))
        found, _ = dataset.evidence_runs(problem, self._static(problem, history, main))
        W, Y, _ = score_table(found, problem.objective.targets)
        rows = dataset.reference_rows(problem, W)
        reference = Y[rows].mean(axis=0) if rows else Y.mean(axis=0)
        return tails.Candidates(problem, runs, main, self.switches, reference)

    def _proposals(self, problem: Problem, history: History, main: Array) -> list["Proposal"]:
        """The third round so far: the best tail after the main mixture, then both together."""
        tried = self._tried(problem, history, main)
        if len(tried.runs) < self._least(problem):
            return []
        first = self._proposal(problem, history, tried, both=False)
        found = [] if first is None else [first]
        for _ in range(self.trials):
            another = self._proposal(problem, history, tried, both=True)
            if another is None or any(another.ending.near(other.ending) for other in found):
                break
            found.append(another)
            run = runs_of(history, (another.spec,))
            if not run:
                break
            tried = dataclasses.replace(tried, others=(*tried.others, *run))
        return found

    def _proposal(
        self,
        problem: Problem,
        history: History,
        tried: tails.Candidates,
        *,
        both: bool,
        refits: int = 0,
    ) -> "Proposal | None":
        """The best tail after the main mixture, or the best of both together."""
        static = self._static(problem, history, tried.stable)
        law, how, rng = self.tail_law, self.search, _chance(problem, static)
        ending: TwoPhase | None
        if both:
            fixed, _ = dataset.evidence_runs(problem, static)
            ending = joint_law.best_joint(tried, tuple(fixed), law, how, refits, rng)
        else:
            ending = tails.best_decay(tried, law, how, refits, rng)
        if ending is None or not ending.promises:
            return None
        return Proposal(ending, problem.staged(ending.stages, FIRST_SEED), tried, both)

    def _chosen(self, problem: Problem, history: History, main: Array) -> TwoPhase | None:
        """The schedule that was compared, with refits; None where none promised anything."""
        best = _best(problem, history, self._proposals(problem, history, main))
        if best is None:
            return None
        count = self.refits or choice.SLOW_REFITS
        again = self._proposal(problem, history, best.tried, both=best.both, refits=count)
        return again.ending if again else None

    def _pairs(self, problem: Problem, main: Array, ending: TwoPhase) -> tuple[RunSpec, ...]:
        """The fourth round: schedule and main mixture under each fresh seed."""
        seeds = range(FRESH, FRESH + self.pairs)
        schedule = tuple(problem.staged(ending.stages, seed) for seed in seeds)
        return schedule + tuple(problem.spec(tuple(main), seed) for seed in seeds)

    def _measured(
        self, problem: Problem, history: History, main: Array, ending: TwoPhase
    ) -> tuple[Estimate, Array]:
        """Gain of the schedule over the main mixture in the objective, and per target (M,)."""
        specs = self._pairs(problem, main, ending)
        pairs = zip(specs[: self.pairs], specs[self.pairs :], strict=True)
        done = [both for pair in pairs if len(both := runs_of(history, pair)) == 2]
        if len(done) < 2:
            raise EvidenceError(f"{len(done)} pairs of runs finished, wanted at least 2")
        _, ours, _ = score_table(tuple(one for one, _ in done), problem.targets)
        _, theirs, _ = score_table(tuple(other for _, other in done), problem.targets)
        scalar = dataset.gather_runs(problem, self._static(problem, history, main)).scalar
        found = diagnostics.paired_mean((scalar.relaxed(theirs) - scalar.relaxed(ours)).tolist())
        return Estimate(found.mean, found.low, found.high), (theirs - ours).mean(axis=0)


@dataclass(frozen=True, eq=False)
class Proposal:
    """A schedule to be tried.

    Attributes:
        ending: the schedule.
        spec: its trial.
        tried: the runs that it rests on.
        both: whether main mixture and tail were chosen together.
    """

    ending: TwoPhase
    spec: RunSpec
    tried: tails.Candidates
    both: bool


def _best(problem: Problem, history: History, proposals: list[Proposal]) -> Proposal | None:
    """The proposal whose trial scored best; the first one where none finished."""
    ran = [one for one in proposals if runs_of(history, (one.spec,))]
    if not ran:
        return proposals[0] if proposals else None
    trials = runs_of(history, (one.spec for one in ran))
    _, Y, _ = score_table(trials, problem.objective.targets)
    scalar = problem.objective.scalarize(problem.objective.targets, ran[0].tried.reference)
    return ran[ties.lowest(scalar.relaxed(Y))]


def _noted(base: Recommendation, note: str) -> Recommendation:
    return dataclasses.replace(base, warnings=(note, *base.warnings))


def _chance(problem: Problem, static: History) -> np.random.Generator:
    """The chance of everything that follows the first round: what is asked in a later round must
    not depend on how much of it is answered already."""
    names = sorted(run.spec.fingerprint for run in static if dataset.is_evidence(problem, run.spec))
    digest = hashlib.sha256("".join(names).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))
