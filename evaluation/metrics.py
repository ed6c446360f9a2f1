"""lm-eval's own metrics on a pack's answers: by its code, or for all proxies at once where plain.

A multiple-choice task with one gold answer, lm-eval's own verdict, no filter and no metric but
accuracies is plain. Its metrics are those of lm-eval 0.4.13 (`ConfigurableTask.process_results`),
with ll(c) the log-likelihood of a choice:

    acc        whether the gold answer has the highest ll(c); the first choice wins a tie
    acc_norm   the same of ll(c) / characters of c
    acc_bytes  the same of ll(c) / UTF-8 bytes of c

Any other task is judged by lm-eval itself, for one proxy after another.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cuvee.evaluation.requests import Floats, Item, TaskRequests

SIZES: Mapping[str, Callable[[str], int]] = {
    "acc": lambda choice: 1,
    "acc_norm": len,
    "acc_bytes": lambda choice: len(choice.encode()),
}


def score_answers(exam: TaskRequests, nats: Floats, greedy: NDArray[np.bool_]) -> dict[str, Floats]:
    """lm-eval's metrics on the answers of K models.

    Args:
        exam: the task.
        nats: (K, requests) log-likelihoods.
        greedy: (K, requests) whether decoding would give them.

    Returns:
        metric -> (K, items) values, for those metrics that are averaged over items; items that a
        metric does not judge have none, alike for all models. Perplexities are left to `scores`;
        metrics with another aggregation (f1) are not reported.
    """
    parts: dict[str, list[Floats]] = {}
    for members in _by_task(exam):
        task, items = members[0][0].task, [item for item, _ in members]
        if task.OUTPUT_TYPE == "generate_until" or not items[0].averaged:
            continue
        if _plain(task, items):
            found = _accuracies(members, nats)
        else:
            rows = [_asked(members, n, g) for n, g in zip(nats, greedy, strict=True)]
            found = {name: np.array([row[name] for row in rows]) for name in rows[0]}
        for name, values in found.items():
            parts.setdefault(name, []).append(values)
    return {name: np.concatenate(values, axis=1) for name, values in parts.items()}


def _by_task(exam: TaskRequests) -> Iterator[list[tuple[Item, int]]]:
    """The items of each of lm-eval's tasks (a group has several), with their first request."""
    tasks: dict[int, list[tuple[Item, int]]] = {}
    starts = accumulate((len(item.instances) for item in exam.items), initial=0)
    for item, place in zip(exam.items, starts, strict=False):
        tasks.setdefault(id(item.task), []).append((item, place))
    yield from tasks.values()


def _plain(task: Any, items: Sequence[Item]) -> bool:
    """Whether the docstring's formulas are all that lm-eval would do."""
    return bool(
        task.OUTPUT_TYPE == "multiple_choice"
        and items[0].own_verdict
        and not callable(task.config.process_results)
        and not task.config.filter_list
        and not (task.multiple_target or task.multiple_input)
        and items[0].averaged <= SIZES.keys()
        and all(item.choices == len(item.instances) for item in items)
    )


def _accuracies(members: Sequence[tuple[Item, int]], nats: Floats) -> dict[str, Floats]:
    """Metric -> (K, items) of a plain task."""
    texts = [item.task.doc_to_choice(item.instances[0].doc) for item, _ in members]
    width = max(map(len, texts))
    choice = np.arange(width)
    real = choice < np.array([len(some) for some in texts])[:, None]
    where = np.where(real, np.array([place for _, place in members])[:, None] + choice, 0)
    logs = np.where(real, nats[:, where], -np.inf)
    gold = np.array([item.gold for item, _ in members])
    result = {}
    for name in SIZES.keys() & members[0][0].averaged:
        sizes = np.ones(real.shape)
        sizes[real] = [SIZES[name](text) for some in texts for text in some]
        result[name] = ((logs / sizes).argmax(axis=-1) == gold).astype(np.float64)
    return result


def _asked(
    members: Sequence[tuple[Item, int]], nats: Floats, greedy: NDArray[np.bool_]
) -> dict[str, list[float]]:
    """Metric -> values by item, from lm-eval itself, on one model's answers (requests,)."""
    for item, place in members:
        item_answer(item, nats[place:], greedy[place:])
    task = members[0][0].task
    task._instances = [instance for item, _ in members for instance in item.instances]
    task.apply_filters()
    values: dict[str, list[float]] = {}
    for item, _ in members:
        for name, value in item_metric(item).items():
            if name in item.averaged:
                values.setdefault(name, []).append(float(value))
    return values


def item_answer(item: Item, nats: Floats, greedy: NDArray[np.bool_]) -> None:
    """Put one model's answers into an item's requests."""
    for instance, value, hit in zip(item.instances, nats, greedy, strict=False):
        whole = instance.request_type == "loglikelihood_rolling"
        instance.resps = [float(value) if whole else (float(value), bool(hit))]
        instance.filtered_resps = {}


def item_metric(item: Item) -> dict[str, Any]:
    """lm-eval's verdict on the answers of an item, under the task's first filter."""
    key = next(iter(item.instances[0].filtered_resps))
    results = [instance.filtered_resps[key] for instance in item.instances]
    return dict(item.task.process_results(item.instances[0].doc, results))
