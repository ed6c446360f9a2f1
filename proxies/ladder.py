"""A size name -> everything about a proxy's shape and training. No torch here: planning is free.

One dial: the size. Width, depth, heads, context, batch, steps, learning rate and FLOPs follow in
numbered steps.

1. Shape. A table (`LADDER`), chosen so that the total at a vocabulary of 4096 is near the name.
   A size is a body: under a larger vocabulary it keeps name, body, batch and learning rate, while
   embedding and head grow ("0.6M" has 17M parameters at 131,072 tokens, 0.1M of them in the body).
   Depth grows with width, as in Hoffmann et al. 2022 (arXiv 2203.15556, table A9), continued
   downwards. Assumption, not studied: heads of 32 below 10M, 64 from there on.
2. MLP. SwiGLU with 8/3 of the width, rounded up to 32 (Shazeer 2020, arXiv 2002.05202; Touvron et
   al. 2023, arXiv 2302.13971).
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
from dataclasses import dataclass

from cuvee.mixtures.errors import RecipeError, UnknownName
from cuvee.mixtures.units import count_text

VOCABULARY = 4096  # tokens that the names of sizes count
LEAST_STEPS = 20  # below that a warm-up and a decay are no training
LEAST_BATCH = 8  # sequences
MOST_RATE = 2e-2
SMALL_BODY, SMALL_POWER = 7e6, 0.3  # the measured correction of step 4
SCHEDULES = ("wsd", "cosine", "constant")


@dataclass(frozen=True)
class ModelSize:
    """The shape of a proxy.

    Attributes:
        size: its name on the ladder.
        width: of the residual stream.
        layers: transformer blocks.
        heads: attention heads.
        context: tokens of a training sequence.
    """

    size: str
    width: int
    layers: int
    heads: int
    context: int

    @property
    def mlp(self) -> int:
        """Hidden width of the SwiGLU layer (step 2)."""
        return 32 * math.ceil(self.width * 8 / 3 / 32)

    @property
    def body(self) -> int:
        """Matrix parameters without embeddings and head."""
        return self.layers * (4 * self.width**2 + 3 * self.width * self.mlp)

    def parameters(self, vocabulary: int) -> int:
        """All parameters: embedding, untied head, blocks and gains of the norms."""
        gains = (2 * self.layers + 1) * self.width
        return 2 * vocabulary * self.width + self.body + gains

    def counts(self, vocabulary: int) -> dict[str, int]:
        """Parameters of the body and of all, for programs."""
        every = self.parameters(vocabulary)
        return {"body": self.body, "all": every, "vocabulary": vocabulary}

    def describe(self, vocabulary: int) -> str:
        """The size in words: parameters of the body and of all."""
        return (
            f"a proxy of size {self.size} has {count_text(self.body)} in its body and "
            f"{count_text(self.parameters(vocabulary))} in all, with embeddings and head of "
            f"{vocabulary:,} tokens"
        )

    def law_parameters(self, vocabulary: int) -> int:
        """What laws over sizes take for the number of parameters (step 9)."""
        return self.parameters(min(vocabulary, VOCABULARY))

    def flops(self, tokens: int, vocabulary: int) -> float:
        """Floating-point operations of training on `tokens` tokens (step 8)."""
        matrices = self.body + vocabulary * self.width
        attention = 12 * self.layers * self.width * self.context / 2
        return float(tokens) * (6.0 * matrices + attention)


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
    )
}


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
    """The shape that a size stands for.

    Raises:
        UnknownName: the ladder has no such size; the nearest is suggested.
    """
    if size not in LADDER:
        raise UnknownName("proxy size", size, LADDER)
    return LADDER[size]


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
