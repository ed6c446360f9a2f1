"""Vocabularies to 262,144: bounded memory in loss, training and scoring, and honest plans."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from synthetic_corpus import SyntheticCorpus

from cuvee.flows import plan_speed
from cuvee.mixtures.runs.run_results import RunResult
from cuvee.proxies import ladder
from cuvee.proxies.model import loss

VOCABULARY = 262_144
PEAK = """
import re, sys
from pathlib import Path

def peak():  # of this process, in MB; ru_maxrss counts the parent's
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024
"""
LOSS = f"""{PEAK}
import torch
from cuvee.proxies.model.loss import linear_cross_entropy, token_losses

torch.set_num_threads(1)
hidden, head = torch.randn(1, 512, 4), torch.randn(1, 4, {VOCABULARY})
targets = torch.randint(0, {VOCABULARY}, (1, 512))
hidden.requires_grad_(), head.requires_grad_()
before = peak()
mean, losses = linear_cross_entropy(hidden, head, targets, dtype=torch.float32)
mean.sum().backward()
print(peak() - before)
"""
STUDY_STEP = f"""{PEAK}
sys.path.insert(0, "benchmarks")
import numpy as np, torch
from synthetic_corpus import SyntheticCorpus
from cuvee.evaluation.held_out import held_out_sample
from cuvee.evaluation.likelihood import answer_totals
from cuvee.proxies.train.trainer import Training

torch.set_num_threads(1)
corpus = SyntheticCorpus({VOCABULARY}, {{"a": 20_000, "b": 20_000}})
spec = corpus.spec({{"a": 0.5, "b": 0.5}}, size="0.3M", tokens=100_000, precision="float32")
before = peak()
training = Training([spec], corpus, device="cpu", references={{}})
training.advance()
training.advance()
text = corpus.valid("a").tokens[:1920]
sample = held_out_sample(
    "a", (text, np.arange(0, 1921, 128), np.full(15, 400)), eot=0, context=256,
    widths=np.ones({VOCABULARY}), limit=0,
)
nats, _ = answer_totals(training.result(1).likelihood, sample.rows)
assert np.isfinite(nats).all() and abs(nats.sum() / 1920 + np.log({VOCABULARY})) < 1
print(peak() - before)
"""


def measured(program: str) -> float:
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr
    return float(found.stdout)


def test_the_loss_holds_a_chunk_of_logits_at_a_time() -> None:
    """512 tokens have 537 MB of logits; a chunk of 128 has 134, the head and its gradients 4 each.
    Catches logits that are held whole, or twice."""
    assert measured(LOSS) < 350


@pytest.mark.slow
def test_training_and_scoring_at_262144_tokens_keep_within_memory() -> None:
    """268 MB of values, gradients and moments; half as much again while a step is computed, and two
    chunks. Catches logits of 2,048 tokens (2.1 GB), and a table of scores that is held whole."""
    assert measured(STUDY_STEP) < 1200


def test_chunks_do_not_shrink_below_what_pays() -> None:
    """Catches a chunk of 4 tokens at a wide vocabulary, which walks over the head for each; and
    more tokens than there are."""
    hidden = torch.zeros(1, 2048, 64)
    assert loss.chunk_tokens(hidden, 4096) == 256  # as it was: results are the same to the bit
    assert loss.chunk_tokens(hidden, VOCABULARY) == loss.LEAST_TOKENS["cpu"]


def test_models_of_a_pack_share_chunks_only_while_these_stay_long() -> None:
    """Catches 39 models at 131,072 tokens in chunks of 16 tokens, and packs at 4,096 parted."""
    pack = torch.zeros(64, 8, 4, device="meta")  # as an accelerator's: no processor's
    assert loss.models_together(pack, 4096, 2) == 64
    assert loss.models_together(pack, 131_072, 2) == 1
    assert loss.models_together(pack, 32_768, 2) == 4
    assert loss.models_together(torch.zeros(64, 8, 4), 4096, 2) == 1


def test_runs_of_another_vocabulary_say_nothing_of_the_speed() -> None:
    """At 131,072 tokens a step costs 43 times as much: catches an hour that is told for a day."""
    data = SyntheticCorpus(256, {"a": 30_000, "b": 30_000})
    spec = data.spec({"a": 0.5, "b": 0.5}, size="0.6M", tokens=10**6)
    plan = ladder.training_plan("0.6M", 10**6, 4096)
    runs = [RunResult(spec, {}, flops=plan.flops, seconds=60.0)]
    assert plan_speed.runs_of_cost(runs, "0.6M", 4096) == runs
    assert plan_speed.runs_of_cost(runs, "0.6M", 131_072) == []
    assert plan_speed.runs_of_cost(runs, "2M", 4096) == []
    store = SimpleNamespace(outcomes=lambda: iter(runs))
    wide = ladder.training_plan("0.6M", 10**6, 131_072)
    rate, source = plan_speed.expected_speed(store, wide, 131_072, 0.0)
    assert rate == pytest.approx(plan.flops / 60 / wide.model_size.flops(1, 131_072))
    assert source == "from the FLOPs of other sizes"
