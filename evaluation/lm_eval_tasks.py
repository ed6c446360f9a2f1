"""lm-eval on a pack: each task's requests are built once and all proxies answer them together.

Tasks, prompts, filters and metrics are lm-eval's own (`evaluation.metrics`); only the model is
ours, and the encoding of requests is that of its `HFLM` (`evaluation.requests`). So accuracies
equal those of `HFLM` on each exported proxy. No other file imports lm_eval.

A request that `HFLM` would refuse (its answer alone is longer than the model's context, or encodes
to nothing) is left out with its item, for every proxy alike, and counted.

A task that asks for generated text is scored by the likelihood of its reference answer: proxies of
this size generate nothing that an exact match would reward.
"""

import contextlib
import functools
import hashlib
import io
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import yaml
from huggingface_hub import constants
from lm_eval.api.instance import Instance
from lm_eval.api.metrics import mean
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks import TaskManager
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from tokenizers import Tokenizer

from cuvee.evaluation import benchmarks
from cuvee.evaluation.likelihood import AnswerRow
from cuvee.evaluation.metrics import item_answer, item_metric
from cuvee.evaluation.requests import Item, RequestEncoder, TaskRequests, split_context
from cuvee.evaluation.suites import OFFLINE, SUITES, TASKS, Suite, short_name
from cuvee.mixtures.errors import CuveeError, DataError, UnknownName, closest_name

_built: dict[tuple[str, str, int, int], "tuple[TaskRequests, ...]"] = {}
KINDS = ("loglikelihood", "loglikelihood_rolling", "generate_until")


def task_requests(
    suite: Suite, *, tokenizer_path: Path, eot: int, context: int
) -> tuple[TaskRequests, ...]:
    """The suite's tasks, built and encoded; kept for the next pack of this process.

    Raises:
        UnknownName, DataError: as in `check`.
    """
    definition = Path(tokenizer_path).read_text(encoding="utf-8")
    key = (suite.identity, hashlib.sha256(definition.encode()).hexdigest(), eot, context)
    if key not in _built:
        encoder = RequestEncoder(plain_tokenizer(definition), eot, context)
        _built.clear()  # a worker scores pack after pack on one suite; two would only hold memory
        _built[key] = encoded_tasks(suite, encoder)
    return _built[key]


def encoded_tasks(suite: Suite, encoder: RequestEncoder) -> tuple[TaskRequests, ...]:
    """The suite's tasks as a model of this tokenizer and context is asked them.

    Raises:
        UnknownName, DataError: as in `check`.
    """
    return tuple(_exam(suite, name, encoder) for name in suite.tasks)


def plain_tokenizer(definition: str) -> Tokenizer:
    """A tokenizer that adds nothing and cuts nothing.

    What it is set to put before a text, a proxy has never seen: its documents follow each other,
    parted by the end-of-text token alone.
    """
    body = json.loads(definition)
    body["post_processor"] = body["truncation"] = body["padding"] = None
    return Tokenizer.from_str(json.dumps(body))


def forget_requests() -> None:
    """Drop the built requests, so that the next pack builds its own (for measurements)."""
    _built.clear()


def chosen_items(suite: Suite, name: str) -> dict[int, dict[str, Any]]:
    """The items that a suite asks of one task of its own, by their position in the file."""
    path = suite.file(name)
    if path is None:
        raise DataError(f"task {name!r} is lm-eval's own: it has no benchmark file")
    every = benchmarks.read_benchmark(path)
    return {i: every[i] for i in _positions(len(every), suite.limit)}


def _positions(items: int, limit: int | None) -> list[int]:
    return sorted(i for _, i in _order([items])[:limit])


def _exam(suite: Suite, name: str, encoder: RequestEncoder) -> TaskRequests:
    items: list[Item] = []
    rows: list[AnswerRow] = []
    starts: list[int] = []
    left_out = 0
    for task, instances in _asked(name, _load(suite, name), suite.limit):
        item, parts = _item(task, instances, encoder)
        if not parts:
            left_out += 1
            continue
        items.append(item)
        for part in parts:
            starts.append(len(rows))
            rows.extend(part)
    if len(items) < 2:
        raise DataError(
            f"task {name!r} has {len(items)} items that fit into {encoder.context} tokens "
            f"({left_out} do not); it needs at least 2"
        )
    return TaskRequests(short_name(name), tuple(items), tuple(rows), np.array(starts), left_out)


def _item(
    task: Any, instances: tuple[Any, ...], encoder: RequestEncoder
) -> tuple[Item, list[list[AnswerRow]]]:
    """An item and the rows of each of its requests; no rows where one does not fit."""
    pairs = [_question(task, instance) for instance in instances]
    parts: list[list[AnswerRow]] = []
    for context, continuation in pairs:
        if context is None:
            part = rolling_rows(encoder, continuation)
        else:
            row = encoder.pair(context, continuation)
            part = [] if row is None else [row]
        if not part:
            parts = []
            break
        parts.append(part)
    sizes = tuple(len((split_context(c or "")[1] + text).encode()) for c, text in pairs)
    choices, gold = _gold(task, instances)
    own = type(task).process_results is ConfigurableTask.process_results
    content = json.dumps(pairs).encode()
    return Item(task, instances, choices, gold, sizes, _averaged(task), own, content), parts


def rolling_rows(encoder: RequestEncoder, text: str) -> list[AnswerRow]:
    """A whole text in windows; the first token is conditioned on the end-of-text token."""
    windows = get_rolling_token_windows(encoder.encode(text), encoder.eot, encoder.context, 1)
    pairs = map(make_disjoint_window, windows)
    return [AnswerRow((*before, *after), len(after)) for before, after in pairs]


def _question(task: Any, instance: Any) -> tuple[str | None, str]:
    """(context, what is scored) of a request; the context is None for a whole text."""
    if instance.request_type == "loglikelihood_rolling":
        return None, instance.args[0]
    if instance.request_type == "loglikelihood":
        return instance.args[0], instance.args[1]
    target = task.doc_to_target(instance.doc)
    answer = target[0] if isinstance(target, list) else target
    return instance.args[0], f"{task.config.target_delimiter}{answer}"


def _gold(task: Any, instances: tuple[Any, ...]) -> tuple[int, int]:
    """How many requests are choices, and the position of the gold one (the first of several)."""
    if task.OUTPUT_TYPE != "multiple_choice":
        return 1, 0
    doc = instances[0].doc
    choices = task.doc_to_choice(doc)
    gold = task.doc_to_text(doc) if task.multiple_input else task.doc_to_target(doc)
    if isinstance(gold, list):
        gold = gold[0]
    return len(choices), choices.index(gold) if isinstance(gold, str) else int(gold)


def _averaged(task: Any) -> frozenset[str]:
    """The metrics of a task that are averaged over its items."""
    return frozenset(name for name, how in task.aggregation().items() if how is mean)


def check_tasks(suite: Suite) -> None:
    """Load every task and let it judge one item with made-up answers.

    Raises:
        UnknownName: there is no such task.
        DataError: a task cannot be loaded or cannot be scored by likelihood; names it and says why.
    """
    for name in suite.tasks:
        for task, instances in _asked(name, _load(suite, name), 1):
            for instance in instances:
                _question(task, instance)
            _gold(task, instances)
            if task.OUTPUT_TYPE == "generate_until":
                continue
            with _explained(name, "judged"):
                item = Item(task, instances, 1, 0, (), _averaged(task), True)
                item_answer(
                    item, np.full(len(instances), -1.0), np.zeros(len(instances), dtype=bool)
                )
                task._instances = list(instances)
                task.apply_filters()
                item_metric(item)


def _asked(name: str, tasks: list[Any], limit: int | None) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """Each chosen item's lm-eval task and requests: the first `limit` in a fixed hash order."""
    with _explained(name, "asked"):
        every = _order([len(task.eval_docs) for task in tasks])
        for t, task in enumerate(tasks):
            chosen = {i for owner, i in every[:limit] if owner == t}
            if not chosen:
                continue
            with contextlib.redirect_stderr(io.StringIO()):  # its progress bar cannot be turned off
                task.build_all_requests(samples=chosen)
            groups: dict[int, list[Instance]] = {}
            for instance in task.instances:
                if instance.request_type not in KINDS:
                    raise DataError(f"task {name!r}: {instance.request_type} requests are unknown")
                groups.setdefault(instance.doc_id, []).append(instance)
            for group in groups.values():
                yield task, tuple(sorted(group, key=lambda instance: instance.idx))


def _order(sizes: list[int]) -> list[tuple[int, int]]:
    """(task, item) of every item in an order that is fixed and unrelated to that of the files."""
    every = [(t, i) for t, size in enumerate(sizes) for i in range(size)]
    return sorted(every, key=lambda at: hashlib.sha256(f"{at[0]}/{at[1]}".encode()).digest())


def _load(suite: Suite, name: str) -> list[Any]:
    """lm-eval's task of this name, or all tasks of a group."""
    for vendor in ("lm_eval", "huggingface_hub"):  # which tells of every attempt to be connected
        logging.getLogger(vendor).setLevel(logging.ERROR)
    path = suite.file(name)
    with _explained(name, "loaded"):
        if path is not None:
            tasks = [_local(name, path, suite.limit)]
        else:
            manager = _manager()
            if name not in manager.all_tasks:
                close = closest_name(name, [*OFFLINE, *manager.all_tasks])
                raise UnknownName("task", name, [close] if close else [*SUITES, *OFFLINE])
            tasks = list(manager.load([name])["tasks"].values())
    for task in tasks:
        for method in ("doc_to_choice", "doc_to_target", "doc_to_text"):
            setattr(task, method, _remembered(getattr(task, method)))
    return tasks


def _local(name: str, path: Path, limit: int | None) -> Any:
    """A task over a benchmark file, read here: no data set cache that workers could fight over.

    lm-eval gets the chosen items only: it walks over all that it has for every few that it asks.
    """
    every = benchmarks.read_benchmark(path)
    items = [every[i] for i in _positions(len(every), limit)]
    own = "asdiv_offline" if "text" in items[0] else "piqa_offline"
    config = yaml.safe_load((TASKS / f"{name if name in OFFLINE else own}.yaml").read_bytes())
    config |= {"task": name, "dataset_kwargs": None}
    config["custom_dataset"] = lambda version: {"test": datasets.Dataset.from_list(items)}
    return ConfigurableTask(config=config)


@functools.cache
def _manager() -> Any:
    """The index of lm-eval's own tasks; reading it takes seconds."""
    return TaskManager()


def _remembered(method: Any) -> Any:
    """A method of a task that renders each item's template once, not once per proxy."""
    known: dict[int, tuple[Any, Any]] = {}  # the item is kept so that its id stays its own

    def remembered(doc: Any, *rest: Any) -> Any:
        if rest:
            return method(doc, *rest)
        if id(doc) not in known:
            known[id(doc)] = (doc, method(doc))
        return known[id(doc)][1]

    return remembered


@contextlib.contextmanager
def _explained(name: str, what: str) -> Iterator[None]:
    """What goes wrong inside lm-eval, as an error that names the task.

    Everything is caught, because a task may run any code of its own and fail in any way.
    """
    try:
        yield
    except CuveeError:
        raise
    except Exception as error:
        raise DataError(
            f"task {name!r} cannot be {what} ({type(error).__name__}: {error}); a task of lm-eval "
            f"itself needs its data set in the cache of Hugging Face, here {constants.HF_HOME} "
            f"(HF_HOME says where), or a network{_forbidden()}; shipped tasks that need neither: "
            f"{', '.join(OFFLINE)}"
        ) from error


def _forbidden() -> str:
    """The variables that forbid the network, if any is set; named so that a user can unset them."""
    names = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")
    found = [f"{name}={os.environ[name]}" for name in names if os.environ.get(name, "0") != "0"]
    return f", which {' and '.join(found)} in the environment forbid: set 0 instead" * bool(found)
