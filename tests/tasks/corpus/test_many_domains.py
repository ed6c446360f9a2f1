"""A corpus of many domains: prepared, opened and read with a bounded number of open files."""

import os
import resource
from contextlib import contextmanager

from cuvee.flows.study.recipe_sources import MOST_LISTED, reading_sentence
from cuvee.proxies.data.sources.text_files import Files
from cuvee.tasks.corpus.corpus_settings import CorpusSettings
from cuvee.tasks.corpus.prepare import prepare_corpus

DOMAINS = 250
SPARE = 64  # files that may be opened beside those that are open now


@contextmanager
def few_open_files():
    """Lets this process open few files more."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    now = max(map(int, os.listdir("/proc/self/fd")))
    resource.setrlimit(resource.RLIMIT_NOFILE, (now + SPARE, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_many_domains_hold_no_more_open_files_than_few(tmp_path):
    """Catches a file kept open for each domain: its source, its spool, its segments, its shards,
    which numpy's maps keep open for as long as one looks at them."""
    text = tmp_path / "text"
    text.mkdir()
    names = [f"d{i:03}" for i in range(DOMAINS)]
    for i, name in enumerate(names):
        rows = (f"the {i}th domain says {k} and {i * k}" for k in range(6))
        (text / f"{name}.txt").write_text("\n\n".join(rows))
    sources = {n: Files(str(text / f"{n}.txt"), separator="\n\n") for n in names}
    settings = CorpusSettings(vocabulary=300, min_tokens=1)
    with few_open_files():
        corpus = prepare_corpus(sources, tmp_path / "out", benchmarks={}, settings=settings)
        shards = [corpus.train(name) for name in names] + [corpus.valid(name) for name in names]
    assert sum(len(shard) for shard in shards) == 6 * DOMAINS
    assert sum(len(shard.tokens) for shard in shards[:DOMAINS]) == sum(
        domain.tokens for domain in corpus.domains
    )
    assert {int(shard.tokens[-1]) for shard in shards} == {corpus.eot}


def test_of_many_domains_the_largest_are_told(tmp_path):
    """Catches a sentence of a thousand names, and one that leaves out the largest."""
    sources = {}
    for i in range(MOST_LISTED + 3):
        (tmp_path / f"{i}.txt").write_text("x" * (1000 + 100 * i))
        sources[f"d{i:02}"] = Files(str(tmp_path / f"{i}.txt"))
    told = reading_sentence(sources, {})
    assert told.count("; ") == MOST_LISTED + 1 and told.endswith("3 smaller domains")
    assert f"d{MOST_LISTED + 2}" in told and "d02" not in told
    assert "d00" in reading_sentence({"d00": sources["d00"]}, {})
