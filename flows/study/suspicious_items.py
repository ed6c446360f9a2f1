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
from cuvee.tasks.study.prepared import Prepared
from cuvee.tasks.study.study import Study
from cuvee.tasks.study.suspicious_items import (
    AskedItems,
    ItemMatch,
    item_matches,
    suspicious_keys,
    unscored,
)

KEPT = "longest-matches"  # folder of the store: by what is looked for and the text of a domain
VERSION = 2  # raised whenever the same items and the same text would give other matches
WHOLE = 1 << 30  # tokens of context, in which every item fits


def look_for_benchmarks(
    recipe: Recipe, prepared: Prepared, home: Workspace, executor: Executor | None
) -> tuple[ItemMatch, ...] | None:
    """The longest match of every benchmark item with the training text.

    What was found in a domain's text is kept in the store at once, and is not looked for again.

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
        found = {n: LongestMatches(*map(np.array, one)) for n, one in known.items() if one}
        missing = [domain for domain in corpus.domains if domain.name not in found]
        large = sum(domain.bytes for domain in missing) >= LITTLE_TEXT
        if large and executor is None:
            return None
        if missing:
            apart = large and is_remote(home.shared)
            place = publish_prepared_corpus(corpus, home.shared) if apart else str(corpus.root)
            for name, found[name] in corpus_matches(
                corpus,
                CorpusMatcher(place, ItemIndex.build(texts)),
                [domain.name for domain in missing],
                pool=executor.pool(None) if large and executor else InlinePool(),
                progress=bar.move,
            ):
                store.remember(KEPT, keys[name], [column.tolist() for column in found[name]])
    return item_matches(asked, {name: found[name] for name in keys})


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
            context, answer = json.loads(item.content)[item.gold]
            own = context and item.task.doc_to_text(item.instances[item.gold].doc)
            if isinstance(own, str):  # no description and no examples, which other items share
                context = context[max(0, context.rfind(own)) :]
            texts.append(f"{context or ''}{answer}")
        asked[f"task/{task.name}"] = list(zip(task.keys.tolist(), texts, strict=True))
    return asked


def with_matches(study: Study, matches: tuple[ItemMatch, ...] | None) -> Study:
    """A study that says what training text has of its benchmarks, and its gains without that.

    Gains are scored again without the suspicious items, where runs keep scores by item and enough
    items are left of each such task that the objective reads; another keeps its scores.
    """
    study, suspicious = dataclasses.replace(study, matches=matches), suspicious_keys(matches or ())
    if study.confirmation is None or not suspicious:
        return study
    runs = study.confirmation.runs
    lost = unscored((run.result for run in runs), suspicious)
    if set(lost) & set(study.problem.objective.targets):
        return study
    removed = {task: keys for task, keys in suspicious.items() if task not in lost}
    outcomes = {(run.mixture, run.result.spec.seed): _without(run.result, removed) for run in runs}
    return dataclasses.replace(study, clean=conclude_confirmation(study.problem, outcomes))


def _without(result: RunResult, removed: Mapping[str, Keys]) -> RunResult:
    """A run scored without some items."""
    scores, units = dict(result.scores), dict(result.units)
    for target, keys in removed.items():
        units[target] = left = units[target].without(keys)
        scores[target] = Score(left.value, scores[target].stderr, len(left))
    return dataclasses.replace(result, scores=scores, units=units)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
