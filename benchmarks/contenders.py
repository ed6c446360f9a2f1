"""The methods that are compared, each with fields that make it cost the same number of runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cuvee.mixtures.domains import Array
from cuvee.mixtures.inference import diagnostics
from cuvee.mixtures.problem import Problem
from cuvee.mixtures.recommendation import Recommendation
from cuvee.mixtures.registry import build
from cuvee.mixtures.runs.run_spec import Stage

BASELINES = ("natural", "uniform", "static")
LAWS = ("kriging", "log_linear")  # of the methods that fit one: the quickstart's, without LightGBM
EVERY = (
    "static", "regmix", "bayes", "mixmin", "skill_it", "doremi", "doge", "grape", "odm", "ado",
    "aioli",
)  # fmt: skip
STAGES = 4  # of the answers that are schedules


@dataclass(frozen=True)
class Budget:
    """What a method may spend, and on what.

    Attributes:
        runs: proxies, all of one size and length: references, graphs, rounds and trials included.
        domains: K.
        steps: of a proxy; controllers that would hardly act in a short run act more often.
        scheduled: whether methods whose paper moves the weights of the final run itself answer
            with a schedule.
    """

    runs: int
    domains: int
    steps: int = 400
    scheduled: bool = False

    @property
    def trials(self) -> int:
        """Seeds of a method's own trial of its answer."""
        return 3 if self.runs >= 24 else 2


def configured(name: str, budget: Budget) -> Any:
    """A method whose runs are as many as the budget allows.

    "grape" is the method `doge` under the rule of that name.
    """
    runs, trials, steps = budget.runs, budget.trials, budget.steps
    left = runs - 3 * trials  # beside the trial of the answer, of natural and of uniform
    rounds = 3 if runs >= 24 else 2
    swarm = {"runs": runs - 2 * trials, "seeds": trials, "refits": 10, "laws": LAWS}
    batch = 4 if runs >= 24 else 1  # few runs all go to the mixtures that a law needs
    repeats = trials if runs >= 24 else 1
    first = {"runs": runs - 2 * repeats - 2 * batch, "seeds": repeats, "batch": batch}
    stages = STAGES if budget.scheduled else 1
    probe = {"interval": max(2, min(20, steps // 8))}
    moved = {"seeds": left, "trials": trials, "stages": stages}
    settings: dict[str, dict[str, Any]] = {
        "static": {"trials": runs // 4},
        "doremi": {"rounds": rounds, "seeds": (left - rounds + 1) // rounds, "trials": trials},
        "skill_it": {**moved, "seeds": left - budget.domains},
        "mixmin": {"seeds": max(1, left // (budget.domains + 1)), "trials": trials},
        "bayes": {**swarm, **first, "rounds": 2, "ensemble": 8},
        "odm": moved,
        "ado": {**moved, "interval": max(1, min(4, steps // 40))},
        "aioli": {**moved, "rounds": max(1, min(4, int(0.4 * steps / budget.domains)))},
        "doge": {**moved, "stages": 1, **probe},
        "grape": {**moved, "rule": "grape", **probe},
    }  # fmt: skip
    return build("method", {"name": RENAMED.get(name, name), **settings.get(name, swarm)})


RENAMED = {"grape": "doge"}


@dataclass(frozen=True)
class Answer:
    """What a method would train, and what finding it took.

    Attributes:
        stages: shares of tokens over time; one stage is a fixed mixture.
        runs: proxies.
        flops: of all of them.
    """

    stages: tuple[Stage, ...]
    runs: int = 0
    flops: float = 0.0

    @property
    def weights(self) -> Array:
        """Shares of tokens over the whole run (K,)."""
        return np.asarray(sum(np.asarray(s.weights) * s.share for s in self.stages))


def fixed(weights: Array) -> Answer:
    """A mixture that needs no proxy."""
    return Answer((Stage(tuple(map(float, weights))),))


def baselines(problem: Problem) -> dict[str, Answer]:
    """The natural and the uniform mixture."""
    return {"natural": fixed(problem.domains.natural), "uniform": fixed(problem.domains.uniform)}


def answer(found: Recommendation, history: Sequence[Any]) -> Answer:
    """The answer of a method that went through the loop."""
    flops = float(sum(getattr(run, "flops", 0.0) for run in history))
    return Answer(found.stages, len(history), flops)


def figures(kept: Mapping[str, Any], every: Mapping[str, Any]) -> dict[str, Any]:
    """Means of an answer's scores, and its gains over each baseline with 90 % intervals.

    Args:
        kept: lists of scores by kind, `mean` and `worst` and any other, one entry per pair.
        every: the same of all answers, the baselines among them.
    """
    result: dict[str, Any] = {k: float(np.mean(values)) for k, values in kept.items()}
    for baseline in BASELINES:
        for kind in kept:
            differences = np.array(every[baseline][kind]) - np.array(kept[kind])
            gain = diagnostics.paired_mean(differences.tolist())
            label = baseline if kind == "mean" else f"{baseline}_in_{kind}"
            result[f"gain_over_{label}"] = gain.mean
            result[f"interval_over_{label}"] = [gain.low, gain.high]
    result["low"], result["high"] = result["interval_over_uniform"]
    return result
