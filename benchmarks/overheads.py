"""What each controller adds to the processor time of a training run.

Every part of a controlled step that a static one lacks (gathering evidence, updates, weights of the
losses) is timed within the run itself, and divided by the rest of that run, which is static
training: so other work on the machine meets both alike. Processor time is counted. References and
graphs are runs of their own and not in it; nor are two products of hidden states and weights inside
the loss, below a hundredth of a step.

Usage: python benchmarks/overheads.py [--methods NAME ...] [--steps 160] [--targets 8]
"""

import argparse
import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from synthetic_corpus import SyntheticCorpus

from cuvee.mixtures.controllers import dump_controller
from cuvee.mixtures.registry import build
from cuvee.proxies.train.trainer import Training

RULES = {"doremi": "group_dro", "odm": "exp3"}  # controllers; others are named as their method
CONTROLLED = ("skill_it", "odm", "ado", "doremi", "aioli", "doge", "grape")


def overhead(name: str, steps: int = 160, *, targets: int = 8, size: str = "0.6M") -> float:
    """Part of a static run's processor time that a method's controller adds, with its defaults.

    Args:
        name: of the method, or "grape".
        steps: of the run.
        targets: held-out texts that are followed, where a controller follows some; at most the 8
            domains.
        size: of the proxy.
    """
    sizes = {f"d{i}": 60_000 for i in range(8)}
    corpus = SyntheticCorpus(4096, sizes)
    even = dict.fromkeys(sizes, 1 / 8)
    fields: dict[str, Any] = {"size": size, "tokens": steps * 8 * 256}
    plain = corpus.spec(even, **fields)
    controller = build("controller", {"name": RULES.get(name, name)})
    if controller.targets(tuple(sizes)):
        followed = tuple(f"domain/{d}" for d in sizes)[:targets]
        graph = (
            {"graph": tuple((1.0,) * len(followed) for _ in sizes)} if name == "skill_it" else {}
        )
        controller = dataclasses.replace(controller, evaluated=followed, **graph)
    models = {}
    if controller.compares:
        first = Training([plain], corpus, device="cpu", references={})
        models[plain.fingerprint] = first.model
    named = {"controller": dump_controller(controller), "reference": next(iter(models), "")}
    training = Training(
        [corpus.spec(even, **named, **fields)], corpus, device="cpu", references=models
    )
    clock = Clock()
    for part in ("before_step", "after_step", "factors"):
        setattr(training.controllers, part, clock.timed(getattr(training.controllers, part)))
    began = time.process_time()
    while training.step < training.plan.steps:
        training.advance()
    total = time.process_time() - began
    return clock.spent / (total - clock.spent)


class Clock:
    """Sums the processor time of what it wraps."""

    def __init__(self) -> None:
        self.spent = 0.0

    def timed(self, work: Callable[..., Any]) -> Callable[..., Any]:
        """The same work, timed."""

        def counted(*args: Any, **kwargs: Any) -> Any:
            began = time.process_time()
            try:
                return work(*args, **kwargs)
            finally:
                self.spent += time.process_time() - began

        return counted


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n\n", 1)[0])
    parser.add_argument("--methods", nargs="+", default=list(CONTROLLED))
    parser.add_argument("--steps", type=int, default=160)
    parser.add_argument("--targets", type=int, default=8)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    for name in given.methods:
        print(f"{name}: {overhead(name, given.steps, targets=given.targets):+.1%}", flush=True)


if __name__ == "__main__":
    main()
