"""A corpus of many domains: prepared, opened and read with a bounded number of open files."""

import os
import resource
from contextlib import contextmanager

from cuvee.proxies.data.text_files import Files
from cuvee.tasks.corpus.deduplicate_split import CorpusSettings
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
