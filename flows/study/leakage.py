"""The audit of a study's benchmarks: what of them is trained on, and what gains are without it."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping

import numpy as np

from cuvee.evaluation.longest_match import ItemIndex, LongestMatches
from cuvee.flows.execution.executor import Executor
from cuvee.flows.recipe.schema import Recipe
from cuvee.flows.study.confirm import conclude_confirmation
from cuvee.flows.study.prepare import LITTLE_TEXT
from cuvee.flows.workspace import Workspace
from cuvee.mixtures.runs.run_results import RunResult, Score
from cuvee.mixtures.runs.run_spec import canonical_json
from cuvee.mixtures.runs.unit_scores import Keys
from cuvee.proxies.data.objects import is_remote
from cuvee.tasks.corpus.pipeline.task_pool import InlinePool
from cuvee.tasks.store.results import Store
from cuvee.tasks.store.shared_inputs import publish_prepared_corpus
from cuvee.tasks.study.leakage import AskedItems, ItemMatch, item_matches, suspicious_keys
from cuvee.tasks.study.prepared import Prepared
from cuvee.tasks.study.study import Study

KEPT = "longest-matches"  # folder of the store: by what is looked for and the text of a domain
VERSION = 1  # raised whenever the same items and the same text would give other matches
WHOLE = 1 << 30  # tokens of context, in which every item fits
FEWEST = 2  # items of a task without which nothing can be said of it


def look_for_benchmarks(
    recipe: Recipe, prepared: Prepared, home: Workspace, executor: Executor | None
) -> tuple[ItemMatch, ...] | None:
    """The longest match of every benchmark item with the training text.

    What was found in a domain's text is kept in the store, and is not looked for again.

    Args:
        recipe: says whether it is wanted.
        prepared: the text and the benchmarks.
        home: has the store.
        executor: whose workers look through large text; None: what is large is left alone.
    """
    if not (recipe.evaluation.audit.longest_match and prepared.suite.tasks):
        return None
    from cuvee.tasks.corpus.benchmark_matches import CorpusMatcher, corpus_matches

    store, corpus = Store(home.store), prepared.corpus
    with home.display.step("Leakage") as bar:
        asked = asked_items(prepared)
        texts = [text for items in asked.values() for _, text in items]
        mark = canonical_json(texts)
        keys = {d.name: _hash(f"{VERSION}\n{d.identity}\n{mark}") for d in corpus.domains}
        known = {name: store.recall(KEPT, key) for name, key in keys.items()}
        missing = [domain for domain in corpus.domains if known[domain.name] is None]
        large = sum(domain.bytes for domain in missing) >= LITTLE_TEXT
        if large and executor is None:
            return None
        if missing:
            apart = large and is_remote(home.shared)
            place = publish_prepared_corpus(corpus, home.shared) if apart else str(corpus.root)
            fresh = corpus_matches(
                corpus,
                CorpusMatcher(place, ItemIndex.build(texts)),
                [domain.name for domain in missing],
                pool=executor.pool(None) if large and executor else InlinePool(),
                progress=bar.move,
            )
            for name, matches in fresh.items():
                known[name] = [column.tolist() for column in matches]
                store.remember(KEPT, keys[name], known[name])
    found = {name: LongestMatches(*map(np.array, lists)) for name, lists in known.items()}
    return item_matches(asked, found)


def asked_items(prepared: Prepared) -> AskedItems:
    """The items of each target as a proxy is asked them, and their keys among units of scores."""
    from cuvee.evaluation.lm_eval_tasks import task_requests  # here: it takes 6 s to import

    corpus = prepared.corpus
    tasks = task_requests(
        prepared.suite, tokenizer_path=corpus.tokenizer_path, eot=corpus.eot, context=WHOLE
    )
    asked = {}
    for task in tasks:
        texts = []
        for item in task.items:
            pairs = json.loads(item.content)
            context, answer = pairs[item.gold]
            others = [text for i, (_, text) in enumerate(pairs[: item.choices]) if i != item.gold]
            texts.append([f"{context or ''}{answer}", *others])
        asked[f"task/{task.name}"] = list(zip(task.keys.tolist(), texts, strict=True))
    return asked


def with_matches(study: Study, matches: tuple[ItemMatch, ...] | None) -> Study:
    """A study that says what training text has of its benchmarks, and its gains without that.

    Gains are scored again without the suspicious items, where runs keep scores by item and enough
    items of a task are left.
    """
    study, suspicious = dataclasses.replace(study, matches=matches), suspicious_keys(matches or ())
    if study.confirmation is None or not suspicious:
        return study
    outcomes: dict[tuple[str, int], RunResult] = {}
    for run in study.confirmation.runs:
        left = _without(run.result, suspicious)
        if left is None:
            return study
        outcomes[run.mixture, run.result.spec.seed] = left
    return dataclasses.replace(study, clean=conclude_confirmation(study.problem, outcomes))


def _without(result: RunResult, suspicious: Mapping[str, Keys]) -> RunResult | None:
    """A run scored without some items; None where that cannot be."""
    scores, units = dict(result.scores), dict(result.units)
    for target, keys in suspicious.items():
        left = units[target].without(keys) if target in units else None
        if left is None or len(left) < FEWEST:
            return None
        units[target] = left
        scores[target] = Score(left.value, scores[target].stderr, len(left))
    return dataclasses.replace(result, scores=scores, units=units)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
