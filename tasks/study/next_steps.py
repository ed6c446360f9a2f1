"""What to do about weak evidence: which field of the recipe to change, to what, and at what cost.

The reasons are those of `mixtures.inference.evidence_grade`; what each asks for is in
docs/how-to/weak-evidence.md. The cost is that of the runs which are there, times what is asked for.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from cuvee.mixtures import simplex
from cuvee.mixtures.inference import evidence_grade
from cuvee.mixtures.problem import Problem
from cuvee.mixtures.recommendation import Recommendation
from cuvee.mixtures.runs.run_results import RunResult, TrainingCost, score_table, training_cost
from cuvee.mixtures.units import count_text, duration_text
from cuvee.tasks.validation.paired import AVERAGE, Confirmation, Judgement

GOOD = 4  # mixtures per domain: 64 of 17 domains were ranked at 0.99 by kriging (docs/results/laws)
SEEDS = 3  # of an anchor, as by default
MORE = 2  # times as much of what there is too little of


@dataclass(frozen=True)
class _Evidence:
    """A recommendation with the runs that it rests on."""

    answer: Recommendation
    problem: Problem
    runs: tuple[RunResult, ...]
    least_signal: float

    @cached_property
    def cost(self) -> TrainingCost | None:
        return training_cost(self.runs)

    @property
    def mixtures(self) -> int:
        return simplex.count_mixtures(score_table(self.runs, self.problem.targets)[0])

    @property
    def foreign(self) -> bool:
        """Whether the runs came in tables, so that nothing here can train more of them."""
        return self.problem.proxy.size == "table"

    @property
    def method(self) -> dict[str, object]:
        found = json.loads(self.answer.method or "{}")
        return found if isinstance(found, dict) else {}

    def field(self, name: str) -> int:
        """A number among the method's fields; 0 where it has none of that name."""
        value = self.method.get(name, 0)
        return value if isinstance(value, int) else 0

    def price(self, runs: float, *, longer: float = 1.0) -> str:
        """What so many runs cost, by those that there are; "" where that is not known."""
        return _price(self.cost, runs * longer / len(self.runs)) if self.runs else ""


def _price(cost: TrainingCost | None, times: float) -> str:
    """So many times a cost, in words; "" where it is not known."""
    if cost is None or not cost.core_seconds:
        return ""
    seconds, flops = duration_text(times * cost.core_seconds), times * cost.flops
    return f", about {seconds} of one core and {flops:.1e} FLOPs"


def tested_steps(
    tested: Sequence[Confirmation], unconfirmed: Sequence[Confirmation]
) -> tuple[str, ...]:
    """A sentence for each thing to do where fresh runs did not bear a claim out; none where they
    did.

    Args:
        tested: the confirmations of a study, the largest size last.
        unconfirmed: those of them that did not bear the claim out.
    """
    worse = [
        (pair.gain, name, found.size)
        for found in tested
        for name, pair in found.objective.items()
        if pair.judgment is Judgement.WORSE
    ]
    if worse:
        _, name, size = min(worse)
        better = "its average shares" if name == AVERAGE else f"the {name} mixture"
        return (f"use {better}, which fresh runs at {size} found better than this one",)
    if not unconfirmed:
        return ()
    found = unconfirmed[0]
    seeds = len(
        {*(run.result.spec.seed for run in found.runs), *(r.spec.seed for r in found.failed)}
    )
    own = found is tested[0]
    cost = training_cost([run.result for run in found.runs])
    fresh = seeds * (MORE - 1) * (len(found.objective) + len(found.unpaired) + 1)
    price = _price(cost, fresh / len(found.runs))
    steps = [
        f"raise confirm.seeds from {seeds} to {MORE * seeds}{price}: "
        f"{'run' if own else 'confirm'} again, and only the new seeds are trained"
    ]
    if len(tested) == 1 and own:
        steps.append(
            "confirm at a larger size: name it in confirm.sizes (`cuvee plan` says what it costs), "
            "and run `cuvee confirm`"
        )
    return tuple(steps)


def next_steps(
    answer: Recommendation,
    problem: Problem,
    runs: Sequence[RunResult],
    *,
    least_signal: float = evidence_grade.RATIO,
) -> tuple[str, ...]:
    """A sentence for each thing that would mend weak evidence; none where it is strong.

    Args:
        answer: the recommendation, graded.
        problem: what was asked.
        runs: that there are; those that the answer rests on count.
        least_signal: ratio of spreads below which a target is mostly noise.
    """
    known = set(answer.evidence)
    used = tuple(run for run in runs if run.spec.fingerprint in known)
    have = _Evidence(answer, problem, used, least_signal)
    if not used or answer.verdict.startswith("strong"):
        return ()
    if not answer.laws:
        return tuple(_trials(have)) if answer.verdict.startswith("weak") else ()
    W = score_table(used, problem.targets)[0]
    weak = evidence_grade.weak_points(answer, W)
    found: dict[str, str] = {}
    if "law" in weak or "mixtures" in weak:
        found |= dict(_ranking(have, poor="law" in weak))
    if "gain" in weak:
        found |= dict(_gain(have))
    if "beyond" in weak:
        found["near"] = (
            "hold shares nearer to what was tried, with constraints.most_kl or constraints.bounds, "
            "and fit again (`cuvee fit`): that trains nothing"
        )
    if not answer.noise and not found:
        found |= dict(_seeds(have))
    return tuple(found.values())


def _ranking(have: _Evidence, *, poor: bool) -> Iterator[tuple[str, str]]:
    """More mixtures, or longer proxies where there are mixtures enough."""
    wanted = GOOD * len(have.answer.domains)
    if poor and len(have.answer.laws) == 1 and have.answer.laws[0].law != "kriging":
        yield (
            "laws",
            "name several laws, method.laws: [kriging, log_linear], and fit again (`cuvee fit`): "
            "that trains nothing",
        )
    if have.foreign:
        more = max(wanted, have.mixtures + 1) if have.mixtures < wanted else MORE * have.mixtures
        yield (
            "runs",
            f"train other mixtures and add their rows to both tables: {more} in all, where there "
            f"are {have.mixtures}",
        )
    elif have.mixtures < wanted or not poor:
        had = have.field("runs") or have.mixtures
        runs = max(wanted, had + 1)
        yield (
            "runs",
            f"raise method.runs from {had} to {runs} ({GOOD} mixtures a domain rank well)"
            f"{have.price(runs)}, and run again",
        )
    else:
        yield "tokens", _longer(have)


def _longer(have: _Evidence) -> str:
    tokens = have.problem.proxy.tokens
    return (
        f"lengthen proxies, proxy.tokens from {count_text(tokens)} to {count_text(MORE * tokens)}"
        f"{have.price(len(have.runs), longer=MORE)}: all are trained anew"
    )


def _gain(have: _Evidence) -> Iterator[tuple[str, str]]:
    """Less noise where it hides the gain; else perhaps there is nothing to gain."""
    targets = have.problem.objective.targets
    noisy = [
        n.target for n in have.answer.noise if n.target in targets and n.ratio < have.least_signal
    ]
    if noisy and not have.foreign:
        yield "tokens", f"{_longer(have)} ({', '.join(noisy[:3])}: mostly noise)"
        return
    if not have.answer.noise:
        yield from _seeds(have)
    if have.mixtures < GOOD * len(have.answer.domains):  # whose refits differ, with wide intervals
        yield from _ranking(have, poor=False)
        return
    yield (
        "objective",
        "perhaps there is nothing to gain over natural shares for this objective: use them, or "
        "name fewer targets in the objective, which moves the best mixture, and fit again (`cuvee "
        "fit`): that trains nothing",
    )


def _seeds(have: _Evidence) -> Iterator[tuple[str, str]]:
    """Repeats, without which nobody knows the noise."""
    if have.foreign:
        yield (
            "seeds",
            "train two of the mixtures again under another seed, and add their rows: runs of one "
            "mixture are its repeats",
        )
        return
    repeats = have.method.get("anchors")
    count = (SEEDS - 1) * (len(repeats) if isinstance(repeats, list) else 1)
    yield (
        "seeds",
        f"repeat mixtures over seeds, method.seeds: {SEEDS}{have.price(count)}: run again, and "
        "only the repeats are trained",
    )


def _trials(have: _Evidence) -> Iterator[str]:
    """More pairs of seeds for a gain that was measured, and not predicted."""
    had = have.field("trials")
    if had:
        yield (
            f"raise method.trials from {had} to {MORE * had}{have.price(MORE * len(have.runs))}: "
            "the interval of a gain narrows with the root of its pairs"
        )
