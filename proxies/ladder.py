"""A size name -> everything about a proxy's shape and training. No torch here: planning is free.

One dial: the size. Width, depth, heads, context, batch, steps, learning rate and FLOPs follow in
numbered steps.

1. Shape. A table (`LADDER`), chosen so that the total at a vocabulary of 4096 is near the name.
   A size is a body: under a larger vocabulary it keeps name, body, batch and learning rate, while
   embedding and head grow ("0.6M" has 17M parameters at 131,072 tokens, 0.1M of them in the body).
   Depth grows with width, as in Hoffmann et al. 2022 (arXiv 2203.15556, table A9), continued
   downwards; "1B" is that table's row of 1,143M, and "300M" has the body of GPT-3 Medium (Brown et
   al. 2020, arXiv 2005.14165, table 2.1) and Pythia-410M (Biderman et al. 2023, arXiv 2304.01373,
   table 1). Assumption, not studied: heads of 32 below 10M, 64 from there on (128 at "1B").
   A shape of your own stands beside the names (`model_size`): any Llama, with grouped keys and
   values (Ainslie et al. 2023, arXiv 2305.13245) and tied embeddings where it has them.
2. MLP. SwiGLU with 8/3 of the width, rounded up to 32 (Shazeer 2020, arXiv 2002.05202; Touvron et
   al. 2023, arXiv 2302.13971), unless a shape says otherwise.
3. Batch in tokens = 0.58 D^0.571 (Step Law, Li et al. 2025, arXiv 2503.04715, equation 1), as the
   nearest power of two of sequences. Ours: at least `LEAST_BATCH` sequences, because smaller ones
   leave even a CPU core idle.
4. Peak learning rate = 1.79 N^-0.713 D^0.307, N without embeddings and head (same source). Ours:
   times (N / 7e6)^0.3 below 7M. The law was fitted from 60M parameters up; at 400k tokens of the
   quickstart's text, sweeps put the best rate at 0.2, 0.3 and 0.5 of it for 0.3M, 0.6M and 2M
   (docs/results/trainer.md).
   Assumptions, not studied: that the correction does not depend on D, and a cap of 2e-2.
5. Steps = D // (batch x context).
6. Warm-up over 5 % of the steps, at most 2000 (the number that Step Law used). "wsd": the peak,
   then a decay over the last 20 % as 1 - sqrt (Haegele et al. 2024, arXiv 2405.18392, section 3);
   "cosine": half a cosine to a tenth of the peak (Loshchilov and Hutter 2017, arXiv 1608.03983,
   equation 5; the tenth from Hoffmann et al. 2022, arXiv 2203.15556); "constant": the peak to the
   end, to go with an average of the last weights (`optimizer.Average`).
7. Weight decay 0.1, betas (0.9, 0.95), clip 1.0, as in Llama (arXiv 2302.13971, section 2.2).
8. FLOPs = 6 N_matrices D plus attention, 12 x layers x width x context x D / 2 for a causal mask
   (Kaplan et al. 2020, arXiv 2001.08361, table 1, times three for the backward pass).
9. Parameters that laws over sizes see (`law_parameters`): those of the name, so with embeddings of
   4096 tokens at most. Counted whole, embeddings of 128k tokens would make 17M to 89M of 0.6M to
   10M; a law fitted to that small a step up takes the gain of a body 75 times as large for it, and
   promises it again at full scale, where embeddings are a small part. Without embeddings losses
   fall on one line (Kaplan et al. 2020, section 3.2). We keep those of 4096 so that a law means the
   same at every vocabulary, as it was measured at that one (docs/results/scale.md).
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from cuvee.mixtures.errors import RecipeError, UnknownName
from cuvee.proxies.model_size import VOCABULARY, ModelSize, given_shape, named_shape

__all__ = ["LADDER", "VOCABULARY", "ModelSize", "TrainingPlan", "model_size", "training_plan"]

LEAST_STEPS = 20  # below that a warm-up and a decay are no training
LEAST_BATCH = 8  # sequences
MOST_RATE = 2e-2
SMALL_BODY, SMALL_POWER = 7e6, 0.3  # the measured correction of step 4
SCHEDULES = ("wsd", "cosine", "constant")


LADDER = {
    model_size.size: model_size
    for model_size in (
        ModelSize("0.3M", width=32, layers=2, heads=1, context=256),
        ModelSize("0.6M", width=64, layers=2, heads=2, context=256),
        ModelSize("1M", width=96, layers=3, heads=3, context=256),
        ModelSize("2M", width=128, layers=4, heads=4, context=256),
        ModelSize("4M", width=192, layers=6, heads=6, context=256),
        ModelSize("10M", width=320, layers=6, heads=5, context=512),
        ModelSize("30M", width=512, layers=8, heads=8, context=1024),
        ModelSize("100M", width=768, layers=13, heads=12, context=1024),
        ModelSize("300M", width=1024, layers=24, heads=16, context=2048),
        ModelSize("1B", width=1792, layers=26, heads=14, context=2048),
    )
}


FIRST = 8  # names that every problem knows, whether or not a study uses them


@dataclass(frozen=True)
class TrainingPlan:
    """How a proxy is trained.

    Attributes:
        model_size: its shape.
        batch: sequences of a step.
        steps: optimizer steps.
        peak: highest learning rate.
        warmup: steps of linear warm-up.
        decay: steps of the final decay ("wsd").
        schedule: one of `SCHEDULES`.
        flops: of the whole training.
    """

    model_size: ModelSize
    batch: int
    steps: int
    peak: float
    warmup: int
    decay: int
    schedule: str
    flops: float

    @property
    def tokens(self) -> int:
        """Tokens that the steps consume; at most those asked for."""
        return self.steps * self.batch * self.model_size.context

    def comparable(self, count: int) -> tuple[int, ...]:
        """Up to `count` steps on the way whose losses can be compared with each other, ascending.

        At equal distances of log tokens, from a tenth of the run to the last step before the decay,
        or to the last but one under a constant rate. A cosine has none: its rate falls from the
        start, so that no shorter run would have been there (Hoffmann et al. 2022, arXiv 2203.15556,
        section 2).
        """
        if self.schedule == "cosine" or count < 1:
            return ()
        last = self.steps - (self.decay if self.schedule == "wsd" else 1)
        first = min(max(self.warmup + 1, self.steps // 10), last)
        grid = (first * (last / first) ** (i / max(1, count - 1)) for i in range(count))
        return tuple(sorted({round(step) for step in grid}))

    def rate(self, step: int) -> float:
        """Learning rate of a step, counted from 0: a pure function of it (step 6)."""
        if step < self.warmup:
            return self.peak * (step + 1) / self.warmup
        if self.schedule == "constant":
            return self.peak
        if self.schedule == "cosine":
            done = (step - self.warmup) / max(1, self.steps - self.warmup)
            return self.peak * (0.1 + 0.45 * (1 + math.cos(math.pi * done)))
        left = self.steps - step
        if left > self.decay:
            return self.peak
        return self.peak * (1 - math.sqrt(1 - left / (self.decay + 1)))


def model_size(size: str) -> ModelSize:
    """The shape that a size of a run stands for: a name on the ladder, or a shape's own.

    Raises:
        UnknownName: it is neither; the nearest name is suggested.
        RecipeError: no model has this shape.
    """
    found = find_size(size)
    if found is None:
        advice = "a shape, {width: ..., layers: ...}, or the path of a config.json goes, too"
        raise UnknownName("proxy size", size, LADDER, advice=advice)
    return found


def find_size(size: str) -> ModelSize | None:
    """As `model_size`; None where a trainer of others had a size that is unknown here."""
    return LADDER.get(size) or named_shape(size)


def problem_sizes(used: Iterable[str], vocabulary: int) -> tuple[tuple[str, int], ...]:
    """Parameters by size, as laws take them, of the first names and the sizes that a study uses.

    Answers of before the later names are found by what a problem was then.
    """
    first = tuple(LADDER)[:FIRST]
    later = sorted(set(used) - set(first), key=lambda size: (model_size(size).body, size))
    return tuple((s, model_size(s).law_parameters(vocabulary)) for s in (*first, *later))


def is_config(given: Any) -> bool:
    """Whether what a recipe gives for a size is read from a config.json."""
    if isinstance(given, Mapping):
        return "config" in given
    return isinstance(given, str) and ("/" in given or given.endswith(".json"))


def size_name(given: Any, path: Callable[[str], str]) -> Any:
    """The size of runs for what a recipe gives: a name, a shape, or the config.json of a Llama.

    A shape of the ladder gets its name there, so that runs of both are the same runs. What is none
    of these is returned as it is.

    Args:
        given: from the recipe.
        path: where a path of the recipe leads.

    Raises:
        RecipeError: no model has this shape, or the file is no config of a Llama.
    """
    if isinstance(given, str) and is_config(given):
        given = {"config": given}
    shape = given_shape(given, path) if isinstance(given, Mapping) else None
    if isinstance(given, str) and given not in LADDER:
        shape = named_shape(given)
    if shape is None:
        return given
    same = (name for name, one in LADDER.items() if replace(shape, size=name) == one)
    return next(same, shape.size)


def training_plan(
    size: str, tokens: int, vocabulary: int, *, schedule: str = "wsd", rate: float = 1.0
) -> TrainingPlan:
    """The training of a proxy (steps 3 to 8).

    Args:
        size: a name on the ladder.
        tokens: training tokens asked for; the rest of a last incomplete batch is not trained on.
        vocabulary: tokens of the tokenizer.
        schedule: one of `SCHEDULES`.
        rate: multiplier on the learning rate.

    Raises:
        UnknownName: no such size or schedule.
        RecipeError: fewer than `LEAST_STEPS` steps, or a rate that is not positive.
    """
    shape = model_size(size)
    if schedule not in SCHEDULES:
        raise UnknownName("learning-rate schedule", schedule, SCHEDULES)
    if not (math.isfinite(rate) and rate > 0):
        raise RecipeError(f"the multiplier on the learning rate must be positive; got {rate}")
    batch = max(LEAST_BATCH, 2 ** round(math.log2(batch_law(max(tokens, 1)) / shape.context)))
    steps = tokens // (batch * shape.context)
    if steps < LEAST_STEPS:
        raise RecipeError(
            f"{tokens:,} tokens are {max(steps, 0)} steps of {batch} x {shape.context} tokens at "
            f"size {size!r}; give at least {LEAST_STEPS * batch * shape.context:,} tokens"
        )
    return TrainingPlan(
        model_size=shape,
        batch=batch,
        steps=steps,
        peak=rate * min(MOST_RATE, rate_law(shape.body, tokens) * correction(shape.body)),
        warmup=max(1, min(2000, round(0.05 * steps))),
        decay=max(1, round(0.2 * steps)),
        schedule=schedule,
        flops=shape.flops(steps * batch * shape.context, vocabulary),
    )


def batch_law(tokens: int) -> float:
    """Step Law's batch in tokens for a run of `tokens` tokens."""
    return float(0.58 * tokens**0.571)


def rate_law(body: int, tokens: int) -> float:
    """Step Law's peak rate for `body` parameters without embeddings and `tokens` tokens."""
    return float(1.79 * body**-0.713 * tokens**0.307)


def correction(body: int) -> float:
    """Measured factor on Step Law's rate for few parameters; 1 from 7M up (step 4)."""
    return float(min(1.0, (body / SMALL_BODY) ** SMALL_POWER))
