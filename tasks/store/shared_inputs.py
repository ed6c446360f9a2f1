"""What workers read by path, where the store is remote: published under its URL, fetched by nodes.

A node shares nothing with the flow's but the store. So corpora and benchmarks are copied there,
under names of their contents, before the first pack is trained; checkpoints are written there; and
a worker keeps copies of what it maps or opens in its node's cache (`proxies.data.node_cache`).
"""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

from cuvee.evaluation.suites import Suite
from cuvee.mixtures.errors import CuveeError
from cuvee.proxies.data.files import file_digest
from cuvee.proxies.data.node_cache import NodeCache
from cuvee.proxies.data.objects import ObjectFolder
from cuvee.proxies.data.prepared_corpus import Corpus, publish_corpus, stored_files

CORPORA, BENCHMARKS = "corpora", "benchmarks"  # folders of a remote store
FOLDERS = (CORPORA, BENCHMARKS, "checkpoints")  # that hold no records


@dataclass(frozen=True)
class StoredQuestions:
    """The files of a suite in a remote store.

    Attributes:
        url: of their folder.
        files: (task, sha256 of its file, which is its name there) pairs.
    """

    url: str
    files: tuple[tuple[str, str], ...]

    def fetch(self, suite: Suite) -> Suite:
        """The suite with this node's copies of its files.

        Raises:
            CuveeError: as `NodeCache.folder`.
        """
        if not self.files:
            return suite
        digests = {f"{digest}.jsonl": digest for _, digest in self.files}
        key = hashlib.sha256(" ".join(sorted(digests)).encode()).hexdigest()[:32]
        folder = NodeCache.of_environment().folder(
            f"benchmarks-{key}", ObjectFolder(self.url), digests
        )
        own = tuple((task, folder / f"{digest}.jsonl") for task, digest in self.files)
        return replace(suite, own=own)


def publish_questions(suite: Suite, store: str) -> StoredQuestions:
    """Copy the files of a suite into a remote store, unless they are there.

    Raises:
        StorageError: the store cannot be written.
    """
    url = f"{store}/{BENCHMARKS}"
    place, files = ObjectFolder(url), []
    there = place.sizes()
    for task in suite.tasks:
        path = suite.file(task)
        if path is not None:
            digest = file_digest(path)
            if there.get(f"{digest}.jsonl") != path.stat().st_size:
                place.upload(path, f"{digest}.jsonl")
            files.append((task, digest))
    return StoredQuestions(url, tuple(files))


def corpus_problems(store: str) -> tuple[list[str], int]:
    """What is wrong with the corpora of a store, a sentence each, and how many there are.

    Files are looked for, not read: a node holds each against its hash when it fetches it. What a
    preparation has begun is no corpus.
    """
    found, problems = ObjectFolder(store).names(CORPORA), []
    names = [name for name in found if not name.startswith(".")]  # of preparations under way
    for name in names:
        url = f"{store}/{CORPORA}/{name}"
        try:
            wanted = stored_files(url)
        except CuveeError as error:
            problems.append(str(error))
            continue
        there = ObjectFolder(url).sizes()
        lacking = [file for file in wanted if not there.get(file)]
        if lacking:
            shown = f"{', '.join(lacking[:3])}{' and others' if len(lacking) > 3 else ''}"
            problems.append(
                f"{url}: {len(lacking)} of {len(wanted)} files are missing or empty ({shown}); "
                "`cuvee clean corpora` removes it, and the next run writes it anew"
            )
    return problems, len(names)


def publish_prepared_corpus(corpus: Corpus, store: str) -> str:
    """Copy a corpus into a remote store, unless it is there; its URL.

    Raises:
        StorageError: the store cannot be written.
    """
    url = f"{store}/{CORPORA}/{stored_name(corpus)}"
    publish_corpus(Path(corpus.root), url)
    return url


def stored_name(corpus: Corpus) -> str:
    """The name of a corpus in a remote store."""
    return str(corpus.manifest["digest"][:32])
