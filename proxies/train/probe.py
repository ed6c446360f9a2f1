"""Tries how fast packs of more and more models train on a device, and what memory they take.

Nothing that is tried is kept.
"""

import time
from collections.abc import Callable

import torch

from cuvee.proxies.train.batching import PackTrial
from cuvee.proxies.train.trainer import UNRECORDED, Training

SECONDS = 1.0  # that a pack is trained for
LONGEST = 60.0  # seconds after which no larger pack is begun
STEP_UP = 4  # times as many models in the next pack
GAIN = 1.05  # times as fast a larger pack must be for one larger still to be tried
TOGETHER = 8  # steps of a GPU between two looks at the clock, for which it is waited for


def step_rate(training: Training, seconds: float = SECONDS) -> float:
    """Tokens per second of all models of a pack, trained for a while.

    The first steps, which allocate what the others use and on a GPU are recorded, are left out; of
    a pack on a core that is so slow that the first takes longer than the while, it is taken.
    """
    on_cpu, plan = training.device == "cpu", training.plan
    tokens = len(training.specs) * plan.batch * plan.model_size.context

    def timed(steps: int) -> float:
        began = time.perf_counter()
        for _ in range(steps):
            training.advance()
        if not on_cpu:
            torch.cuda.synchronize()
        return time.perf_counter() - began

    first, spent, done = timed(1 if on_cpu else UNRECORDED + 1), 0.0, 0
    if on_cpu and first >= seconds:
        return tokens / first
    while spent < seconds and training.step < plan.steps:
        steps = 1 if on_cpu else min(TOGETHER, plan.steps - training.step)
        spent, done = spent + timed(steps), done + steps
    return done * tokens / spent


def try_packs(
    begin: Callable[[int], Training],
    most: int,
    *,
    seconds: float = SECONDS,
    check: Callable[[], None] = lambda: None,
) -> tuple[PackTrial, ...]:
    """Packs of one model and of ever more, as long as more are faster; the smallest first.

    Args:
        begin: a pack of so many models, before its first step.
        most: models that the device has memory for, as far as that is known before.
        seconds: that each is trained for.
        check: called before each; raises where the work was told to stop.

    Raises:
        RuntimeError: not even one model trains.
    """
    trials: list[PackTrial] = []
    models, began, spent = 1, time.perf_counter(), 0.0
    while time.perf_counter() - began + STEP_UP * spent < LONGEST:
        check()
        turn = time.perf_counter()
        try:
            trials.append(_try_pack(begin, models, seconds))
        except RuntimeError:  # no memory, in whichever words of the device's libraries
            if not trials:
                raise
            break
        spent = time.perf_counter() - turn
        slower = len(trials) > 1 and trials[-1].rate < GAIN * trials[-2].rate
        if models >= most or slower:
            break
        models = min(most, STEP_UP * models)
    return tuple(trials)


def _try_pack(begin: Callable[[int], Training], models: int, seconds: float) -> PackTrial:
    if not torch.cuda.is_available():
        return PackTrial(models, step_rate(begin(models), seconds))
    torch.cuda.empty_cache()  # of the last pack
    torch.cuda.reset_peak_memory_stats()
    rate = step_rate(begin(models), seconds)
    return PackTrial(models, rate, torch.cuda.max_memory_reserved())
