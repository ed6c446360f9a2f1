"""Which benchmark items stand in the training text, from the longest matches by domain."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cuvee.evaluation.longest_match import LongestMatches, item_words
from cuvee.mixtures.runs.run_results import RunResult
from cuvee.mixtures.runs.unit_scores import Keys

LONG = 8  # words of a run from which an item is suspicious (assumption: chance rarely has more)
FEWEST = 2  # items of a task without which nothing can be said of it
AskedItems = Mapping[str, Sequence[tuple[int, str]]]  # by target: each item's key, its text


@dataclass(frozen=True)
class ItemMatch:
    """The longest run of words that an item shares with the training text.

    Attributes:
        task: its target, "task/piqa".
        key: of the item among the units of the task's scores.
        text: the question with its right answer.
        words: how many these are.
        run: the words that both hold; none where no word is shared.
        domain: that holds them; of several, the one that holds such runs most often.
        document: its number in the domain's training text.
        count: places there at which so long a run of the item begins.
        suspicious: domains that hold LONG words of it in a row.
    """

    task: str
    key: int
    text: str
    words: int
    run: tuple[str, ...]
    domain: str
    document: int
    count: int
    suspicious: tuple[str, ...]


def item_matches(asked: AskedItems, found: Mapping[str, LongestMatches]) -> tuple[ItemMatch, ...]:
    """The longest match of each item.

    Args:
        asked: the items of each target, each a question with its right answer.
        found: matches of all these items, in this order, by domain.
    """
    domains = list(found)
    longest, counts, documents, starts = map(np.array, zip(*found.values(), strict=True))
    best = np.argmax(longest * (counts.max() + 1) + counts, axis=0)
    every = [(task, *item) for task, items in asked.items() for item in items]
    matches = []
    for i, (task, key, text) in enumerate(every):
        at, words = (best[i], i), item_words(text)
        matches.append(
            ItemMatch(
                task,
                key,
                " ".join(text.split()),
                len(words),
                tuple(words[starts[at] : starts[at] + longest[at]]),
                domains[best[i]],
                int(documents[at]),
                int(counts[at]),
                tuple(name for name, one in found.items() if one.words[i] >= LONG),
            )
        )
    return tuple(matches)


def suspicious_keys(matches: Sequence[ItemMatch]) -> dict[str, Keys]:
    """Keys of the suspicious items by target; of targets that have some."""
    suspects = [one for one in matches if one.suspicious]
    return {
        task: np.array([one.key for one in suspects if one.task == task], np.uint64)
        for task in dict.fromkeys(one.task for one in suspects)
    }


def unscored(runs: Iterable[RunResult], suspicious: Mapping[str, Keys]) -> tuple[str, ...]:
    """Tasks that cannot be scored without their suspicious items: a run keeps no scores by item, or
    hardly an item is left."""
    units = [run.units for run in runs]
    return tuple(
        task
        for task, keys in suspicious.items()
        if any(task not in one or len(one[task].without(keys)) < FEWEST for one in units)
    )
