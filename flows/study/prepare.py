"""From a recipe's sources to a prepared corpus and the benchmarks that proxies are scored on."""

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cuvee.evaluation import benchmarks, suites
from cuvee.evaluation.datasets import SOURCES
from cuvee.flows.recipe.consistency import floored_objective
from cuvee.flows.recipe.schema import Recipe
from cuvee.flows.study import continual
from cuvee.flows.study.confirm import problem_at_size
from cuvee.flows.study.recipe_sources import (
    look_at_sources,
    reading_sentence,
    recipe_corpus,
    recipe_files,
    recipe_tokenizer,
    sampled_sources,
    wanted_samples,
)
from cuvee.flows.workspace import Workspace
from cuvee.mixtures import simplex
from cuvee.mixtures.errors import DataError, RecipeError
from cuvee.mixtures.problem import Problem, Proxy
from cuvee.proxies import ladder
from cuvee.proxies.data.files import Digests
from cuvee.proxies.data.objects import is_remote, within
from cuvee.proxies.data.prepared_corpus import Corpus
from cuvee.proxies.data.sources.documents import SampledSource, TextSource
from cuvee.proxies.data.sources.quickstart_text import KINDS, quickstart
from cuvee.tasks.corpus import download
from cuvee.tasks.corpus.pipeline.task_pool import InlinePool, TaskPool
from cuvee.tasks.extras import require
from cuvee.tasks.process import usable_cores
from cuvee.tasks.store.leases import LeaseStore
from cuvee.tasks.store.results import Store
from cuvee.tasks.study.prepared import Prepared, recall_drawn
from cuvee.tasks.study.study import DomainFigures

if TYPE_CHECKING:
    from cuvee.flows.execution.executor import Executor
    from cuvee.proxies.data.tokenizer import TokenizerFile
    from cuvee.tasks.corpus.corpus_state import StateStore

DUPLICATES = ("duplicates", "duplicates_elsewhere", "near_duplicates")

LITTLE_TEXT = 100_000_000  # bytes below which Ray takes longer to start than to help (assumption)


def prepare(
    recipe: Recipe,
    home: Workspace,
    earlier: Corpus | None = None,
    *,
    executor: "Executor | None" = None,
    new_tokenizer: bool = False,
    planned: bool = False,
) -> Prepared:
    """Fetch, convert, tokenize; whatever is there already and intact is used as it is.

    Args:
        recipe: names the sources and the benchmarks.
        home: where they are kept.
        earlier: the corpus of a study of an earlier version, in the place of what would be made of
            the sources now (`finished.prepare_as_studied`).
        executor: whose workers read large text; None: such text has workers of its own.
        new_tokenizer: train another tokenizer than the study's.
        planned: leave what the study keeps of its corpora as it is.

    Raises:
        CuveeError: what is wrong with a source, an archive or a benchmark, by name.
    """
    require("a corpus", "train")
    digests, taken = Digests(home.digests), wanted_samples(recipe)
    given = None if earlier else recipe_tokenizer(recipe, home)
    own = {} if earlier else recipe_files(recipe, home, digests, given)
    look_at_sources(own, recipe_corpus(recipe).min_tokens, home)
    if own:
        home.display.say(reading_sentence(own, taken, str(home.store)))
    found = _fetch(recipe, home)
    suite = _benchmarks(recipe, home, found)
    texts = _benchmark_texts(suite)
    sources = sampled_sources(own or quickstart(found, recipe_corpus(recipe).quickstart), taken)
    try:
        states = _states(recipe, home, new_tokenizer, planned)
        with preparation_workers(recipe, home, {} if earlier else sources, executor) as pool:
            corpus = earlier or _corpus(
                recipe, home, sources, texts, given=given, pool=pool, states=states
            )
    finally:
        digests.keep()  # of what was refused, too: it is hashed but once
    prepared = Prepared(
        corpus,
        suite,
        recipe.evaluation.limits,
        points=recipe.evaluation.curve,
        texts={name: source.identity for name, source in own.items()},
        unread={n: f"{n}: {source.notice}" for n, source in own.items() if source.notice},
        sizes={n: s.tokens for n, s in recipe_corpus(recipe).domains.items() if s.tokens},
        drawn=recall_drawn(Store(home.store), recipe.name),
        tolerance=recipe_corpus(recipe).tolerance,
    )
    for notice in (one for part in corpus_parts(prepared).values() for one in part.notices):
        home.display.say(f"Note: {notice}")
    if recipe.proxy.start is None:
        return prepared
    with home.display.step("Checkpoint"):
        start = home.step("score-checkpoint", continual.measure_start)(recipe, prepared, home)
    return replace(prepared, start=start)


def pose_problem(recipe: Recipe, prepared: Prepared) -> Problem:
    """The problem that a recipe poses on a prepared corpus.

    Raises:
        CuveeError: constraints that clash, or a mixture to be confirmed that is none.
    """
    domains, proxy = prepared.domains, recipe.proxy
    for shares in recipe.confirm.mixtures.values() if recipe.confirm else ():
        simplex.check_mixture(domains.vector(shares), domains.names)
    before = prepared.start.scores if prepared.start else {}
    share = min(1.0, proxy.tokens / recipe.full_scale.tokens)
    sizes = recipe.confirm.sizes if recipe.confirm else ()
    rungs = recipe.build_method().method.sizes
    used = {proxy.size, *(step.size for step in sizes), *(size for size, _ in rungs)}
    problem = Problem(
        domains=domains,
        targets=prepared.targets,
        objective=floored_objective(recipe, recipe.build_objective(), before),
        constraints=recipe.build_constraints(domains),
        proxy=Proxy(
            size=proxy.size,
            tokens=proxy.tokens,
            schedule=proxy.schedule,
            precision=continual.proxy_precision(recipe),
            rate=proxy.rate,
            repetition=share if proxy.match_repetition else 1.0,
            average=proxy.average,
            start=prepared.start.content if prepared.start else "",
            trainer=proxy.trainer.identity if proxy.trainer else "",
        ),
        full_tokens=recipe.full_scale.tokens,
        scoring=prepared.scoring,
        version=prepared.version,
        full_parameters=recipe.full_scale.parameters,
        sizes=ladder.problem_sizes(used, prepared.corpus.vocabulary),
    )
    largest = max([proxy.tokens, *(step.tokens for step in sizes)])
    told = "; ".join(problem_at_size(problem, proxy.size, largest).sample_warnings)
    if proxy.match_repetition and told:
        raise RecipeError(
            f"proxy.match_repetition cannot be kept: {told}, or set match_repetition to false"
        )
    return problem


def _fetch(recipe: Recipe, home: Workspace) -> dict[str, Path]:
    offline = suites.suite(recipe.evaluation.names, Path()).archives
    wanted = {SOURCES[name].archive for name in offline}
    for name in recipe_corpus(recipe).quickstart:
        wanted |= set(KINDS[name].archives if name in KINDS else ())
    chosen = [archive for archive in download.pinned_archives().values() if archive.name in wanted]
    if not chosen:
        return {}
    try:
        with home.display.step("Archives") as bar:
            paths: dict[str, Path] = home.step("fetch-archives", download.fetch_archives)(
                home.archives, chosen, progress=bar.move
            )
    except DataError as error:
        if recipe_corpus(recipe).quickstart or not recipe.evaluation.suite:
            raise
        raise DataError(
            f"{error} Or do without the benchmarks of suite {recipe.evaluation.suite!r} and score "
            "held-out text of every domain alone: `evaluation: {suite: null}`"
        ) from error
    return paths


def _benchmark_texts(suite: suites.Suite) -> dict[str, Iterable[str]]:
    """Texts of the benchmarks that have a file, none of which may remain in the corpus."""
    tests = {name: suite.file(name) for name in suite.tasks}
    return {name: benchmarks.benchmark_texts(path) for name, path in tests.items() if path}


def _benchmarks(recipe: Recipe, home: Workspace, found: Mapping[str, Path]) -> suites.Suite:
    part, folder = recipe.evaluation, home.benchmarks
    make = home.step("prepare-benchmarks", benchmarks.prepare_benchmarks)
    with home.display.step("Benchmarks"):
        own = {
            n: benchmarks.adopt_benchmark(Path(recipe.source_path(path)), folder, n)
            for n, path in part.custom.items()
        }
        suite = suites.suite(part.names, folder, part.limit, own=own)
        if suite.archives:
            make(found, folder, suite.archives)
        if suite.tasks:
            from cuvee.evaluation import lm_eval_tasks

            lm_eval_tasks.check_tasks(suite)
    return suite


def _corpus(
    recipe: Recipe,
    home: Workspace,
    sources: Mapping[str, TextSource],
    texts: Mapping[str, Iterable[str]],
    *,
    given: "TokenizerFile | None",
    pool: TaskPool,
    states: "StateStore",
) -> Corpus:
    part = recipe_corpus(recipe)
    from cuvee.tasks.corpus import prepare as corpora  # here: the core has no tokenizers
    from cuvee.tasks.corpus.corpus_settings import CorpusSettings

    settings = CorpusSettings(
        vocabulary=part.vocabulary,
        valid_bytes=part.heldout_bytes,
        min_tokens=part.min_tokens,
        deduplicate=part.deduplicate,
        tolerance=part.tolerance,
    )
    with home.display.step("Corpus") as bar:
        corpus: Corpus = home.step("prepare-corpus", corpora.prepare_corpus)(
            sources,
            home.corpora,
            benchmarks=texts,
            settings=settings,
            progress=bar.move,
            tokenizer=given,
            states=states,
            pool=pool,
        )
    return corpus


def _states(recipe: Recipe, home: Workspace, fresh: bool, planned: bool) -> "StateStore":
    from cuvee.tasks.corpus.corpus_state import StateStore  # here: the core has no tokenizers

    return StateStore(Store(home.store), recipe.name, home.root / "tokenizers", fresh, planned)


@contextlib.contextmanager
def preparation_workers(
    recipe: Recipe,
    home: Workspace,
    sources: Mapping[str, TextSource],
    executor: "Executor | None",
) -> Iterator[TaskPool]:
    """Where the text is read: in this process where there is little, else by workers of Ray.

    While they write to a store that homes share, a heartbeat there keeps `clean` from it.
    """
    size = sum(map(_bytes_to_read, sources.values()))
    if size < LITTLE_TEXT or not ((usable_cores() or 1) > 1 or os.environ.get("RAY_ADDRESS")):
        yield InlinePool()
        return
    shared = str(within(home.shared, "corpora")) if is_remote(home.shared) else None
    with contextlib.ExitStack() as held:
        if shared:
            held.enter_context(LeaseStore(Store(home.store)))
        if executor is None:
            from cuvee.flows.execution.ray_executor import RayExecutor  # for large text alone

            executor = held.enter_context(RayExecutor(home.root, device=recipe.proxy.device))
        yield executor.pool(shared)


def _bytes_to_read(source: TextSource) -> int:
    if isinstance(source, SampledSource):
        return source.stored_bytes
    return sum(part.size for part in source.parts())


def corpus_parts(prepared: Prepared) -> dict[str, DomainFigures]:
    """What became of each domain's text, for the report."""
    return {
        entry["name"]: DomainFigures(
            documents=entry["train"]["documents"],
            bytes=entry["train"]["bytes"],
            tokens=entry["train"]["tokens"],
            duplicates=sum(entry["counts"].get(kind, 0) for kind in DUPLICATES),
            contaminated=entry["contaminated_documents"],
            skipped=entry["counts"].get("skipped", 0),
            filtered=entry["counts"].get("filtered", 0),
            notices=(
                *([prepared.unread[entry["name"]]] if entry["name"] in prepared.unread else []),
                *entry.get("notices", ()),
            ),
            distinct=entry.get("distinct", 0),
            shared={
                other: (count["exact"], count["near"])
                for other, count in entry.get("shared", {}).items()
            },
        )
        for entry in prepared.corpus.manifest["domains"]
    }
