"""What a worker is told to train and score; imports no torch, so that a flow need not."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

from cuvee.evaluation.suites import Limits, Suite, scoring_identity
from cuvee.mixtures.errors import DataError
from cuvee.mixtures.runs.run_spec import RunSpec
from cuvee.proxies.data.objects import within
from cuvee.proxies.train.batching import PackRequest
from cuvee.proxies.train.branching import WHOLE_RUN, BranchPlan
from cuvee.tasks.store.shared_inputs import StoredQuestions
from cuvee.tasks.trainer.program import TrainerProgram


@dataclass(frozen=True)
class PackJob:
    """Everything that a worker needs to train and score a pack; plain values only.

    Attributes:
        specs: runs that can train together.
        corpus: folder of the prepared corpus, or its URL in a remote store.
        suite: what the proxies are scored on beside held-out text.
        checkpoints: folder for the pack's checkpoints.
        device: "cpu" or "cuda".
        limits: how much held-out text is scored.
        references: runs whose models the specs are compared with while they train.
        models: folder where reference models are kept.
        branch: the shared prefixes that the runs begin with; or the one that is trained instead.
        points: how often held-out text is scored on the way of a run.
        questions: of the suite, where its files lie in a remote store.
        request: what its worker gets; None for a core, and a GPU where it trains on one.
        program: that trains in the place of the built-in trainer, one run alone; None for that.
    """

    specs: tuple[RunSpec, ...]
    corpus: str
    suite: Suite
    checkpoints: str
    device: str = "cpu"
    limits: Limits = Limits()  # noqa: RUF009 (frozen)
    references: tuple[RunSpec, ...] = ()
    models: str = ""
    branch: BranchPlan = WHOLE_RUN
    points: int = 0
    questions: StoredQuestions | None = None
    request: PackRequest | None = None
    program: TrainerProgram | None = None

    @property
    def name(self) -> str:
        """Short, and different for different packs."""
        prints = self.branch.keep or [spec.fingerprint for spec in self.specs]
        kind = "trunk-" if self.branch.keep else ""
        if len(prints) == 1:
            return f"{kind}{prints[0][:12]}"
        return f"{kind}{hashlib.sha256(''.join(prints).encode()).hexdigest()[:12]}x{len(prints)}"

    def at(self, folder: str | Path) -> "PackJob":
        """The job with its checkpoints under a folder."""
        return replace(self, checkpoints=str(within(folder, self.name)))

    def here(self) -> "PackJob":
        """The job with the files of its suite on this node, fetched where they lie elsewhere."""
        if self.questions is None:
            return self
        return replace(self, suite=self.questions.fetch(self.suite), questions=None)

    def check_scoring(self) -> None:
        """Hold what a pack is scored on here and now against the scoring that its specs name.

        Results are kept under fingerprints that hold the hash of scoring, so a proxy that was asked
        anything else must not be kept. Specs without a hash claim nothing.

        Raises:
            DataError: a benchmark, a limit or lm-eval is not the one that the specs were made for.
        """
        found = scoring_identity(self.suite.contents, self.limits.identity, self.points)
        for wanted in {spec.scoring for spec in self.specs} - {"", found}:
            raise DataError(
                f"pack {self.name} was to be scored as {wanted[:12]}, but what its worker finds is "
                f"{found[:12]}: a file under {self.suite.data}, or the version of lm-eval, is not "
                "what the run was planned with. Nothing was kept; run the same command again, and "
                "on several nodes install the same versions"
            )
