"""How large a first study is: what plans in minutes to an hour on this machine.

From figures that this project measured (docs/results): 12,400 tokens per second
and core of a 0.6M proxy in float32, which machines with bfloat16 beat several times over; four
mixtures per domain, by which `kriging` ranks unseen mixtures of 17 domains with a correlation of
0.99.
"""

import math
import os
from dataclasses import dataclass

from cuvee.proxies import ladder
from cuvee.tasks.process import usable_cores

SIZE = "0.6M"
SPEED = 12_400.0  # tokens per second and core at that size, on a machine without bfloat16
SECONDS = 1_800.0  # of training that a first study may take by this speed
PER_DOMAIN = 4  # mixtures
LEAST_RUNS = 24  # mixtures, as in the quickstart
SEEDS = 3  # of the anchors, and of the confirmation
ANCHORS = ("natural", "uniform")
CONFIRMED = 4  # mixtures of a confirmation: recommended, natural, uniform, best observed
BYTES = 3.5  # of text in a token of a vocabulary of 4096 (assumption: of English, about)
STEPS = (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)  # leading digits of tokens
LEAST_TOKENS, MOST_TOKENS = 300_000, 20_000_000  # of one proxy
EPOCHS = 4  # passes over a domain, beyond which repeated text is worth much less (arXiv 2305.16264)


@dataclass(frozen=True)
class StudySize:
    """A study's size.

    Attributes:
        proxy: a name on the ladder.
        tokens: of one proxy.
        runs: mixtures that the design draws.
        full: tokens of the run that the mixture is for.
        trained: proxies in all, anchors and confirmation included.
        cores: that may be used here.
    """

    proxy: str
    tokens: int
    runs: int
    full: int
    trained: int
    cores: int

    @property
    def seconds(self) -> float:
        """Of training, by the speed above."""
        return self.trained * self.tokens / SPEED / self.cores


def first_study(domains: int, text: float) -> StudySize:
    """The size of a first study.

    Args:
        domains: their count.
        text: bytes in all.
    """
    cores = usable_cores() or os.cpu_count() or 1
    runs = max(LEAST_RUNS, PER_DOMAIN * domains)
    trained = runs + SEEDS * (len(ANCHORS) + CONFIRMED)
    there = max(1.0, text / BYTES)
    most = min(SECONDS * SPEED * cores / trained, 2 * there, MOST_TOKENS)
    tokens = round_down(max(most, min(LEAST_TOKENS, 2 * there)))
    ladder.training_plan(SIZE, tokens, vocabulary=1)
    return StudySize(SIZE, tokens, runs, round_down(there), trained, cores)


def round_down(count: float) -> int:
    """A count of one or two digits, not larger."""
    power = 10.0 ** math.floor(math.log10(max(count, 1.0)))
    return int(max(step for step in STEPS if step * power <= count * (1 + 1e-9)) * power)
