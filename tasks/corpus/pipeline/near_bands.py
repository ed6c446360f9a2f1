"""Bands of near-duplicates on disk: written beside the spools, searched a partition at a time.

A part's bands lie in runs, each sorted, and beside them where each 1,024th of all band hashes
starts in each run; so a task reads what is of its partition and nothing else. Documents that share
a band meet in one partition, whatever the number of partitions. Memory holds one partition (about
64 MB of records, and as much again to sort them) and, where all comes together, about 60 bytes for
each document that has a near-duplicate.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from cuvee.evaluation.ngrams import Powers
from cuvee.proxies.data.objects import ObjectFolder
from cuvee.tasks.corpus.pipeline.near_duplicates import (
    BANDS,
    RECORD,
    Keys,
    NearGraph,
    Places,
    band_records,
    shared_documents,
)
from cuvee.tasks.corpus.pipeline.task_pool import TaskPool
from cuvee.tasks.corpus.pipeline.whole_files import read_exactly, read_written

FINE = 10  # leading bits of a band hash by which places are kept: partitions are 2^10 at most
PARTITION = 64_000_000  # bytes of records in a partition, about
JOINED = 16  # graphs of partitions that are joined at once
ENDS = ("bands", "places")  # of the files' names
RESOLVED = np.dtype([("key", "<u8"), ("cluster", "<u4"), ("stays", "?")])


@dataclass
class BandWriter:
    """Writes the bands of one part."""

    file: BinaryIO
    powers: Powers = field(default_factory=Powers)
    waiting: list[NDArray[Any]] = field(default_factory=list)
    places: list[Places] = field(default_factory=list)

    def add(self, texts: Sequence[str], digests: Sequence[bytes]) -> None:
        """Takes the bands of documents, by their texts and the hashes of these."""
        if texts:
            self.waiting.append(band_records(texts, upper_halves(b"".join(digests)), self.powers))

    def flush(self) -> None:
        """Writes what was taken as a run."""
        if not self.waiting:
            return
        run = np.concatenate(self.waiting)
        run = run[np.argsort(run["band"], kind="stable")]
        self.waiting = []
        fine = run["band"] >> np.uint64(64 - FINE)
        before = self.places[-1][-1] if self.places else 0
        self.places.append(before + np.searchsorted(fine, np.arange((1 << FINE) + 1)))
        self.file.write(run.tobytes())


@contextmanager
def band_writer(folder: ObjectFolder, name: str, wanted: bool) -> Iterator[BandWriter | None]:
    """What writes the bands of a part, where they are wanted; whole at the end."""
    if not wanted:
        yield None
        return
    with folder.writing(f"{name}.bands") as file:
        writer = BandWriter(file)
        yield writer
        writer.flush()
    folder.write(f"{name}.places", np.array(writer.places, "<i8").tobytes())


def upper_halves(digests: bytes) -> Keys:
    """The keys by which near-duplicates are compared, of keys of 16 bytes each."""
    return np.frombuffer(digests, ">u8")[::2].astype(np.uint64)


@dataclass(frozen=True)
class NearFinder:
    """Finds the near-duplicates of a partition of bands; the same for all partitions of a corpus.

    Attributes:
        spools: where the bands of parts lie.
        parts: name and domain of each.
        ranks: of each domain.
        bits: leading bits of a band hash that name a partition.
        frozen: keys of what was held out before, 16 bytes each.
    """

    spools: ObjectFolder
    parts: Sequence[tuple[str, int]]
    ranks: Sequence[int]
    bits: int
    frozen: bytes

    def __call__(self, partition: int) -> NearGraph:
        """The pairs of a partition."""
        first, last = (place << (FINE - self.bits) for place in (partition, partition + 1))
        found, domains = [np.zeros(0, RECORD)], [np.zeros(0, np.int64)]
        for name, domain in self.parts:
            places = np.frombuffer(read_written(self.spools, f"{name}.places"), "<i8")
            places = places.reshape(-1, (1 << FINE) + 1)[:, [first, last]]
            if not (places[:, 1] > places[:, 0]).any():
                continue
            with self.spools.open(f"{name}.bands") as file:
                for start, stop in places.tolist():
                    file.seek(start * RECORD.itemsize)
                    size = (stop - start) * RECORD.itemsize
                    data = read_exactly(file, size, self.spools.path(f"{name}.bands"))
                    found.append(np.frombuffer(data, RECORD))
                    domains.append(np.full(stop - start, domain))
        frozen = upper_halves(self.frozen)
        return NearGraph.of_records(
            np.concatenate(found), np.concatenate(domains), self.ranks, frozen
        )


def find_near_duplicates(pool: TaskPool, finder: NearFinder) -> Iterator[NearGraph]:
    """The near-duplicates of a corpus as partitions are done: the last graph is the whole one."""
    found: list[NearGraph] = []
    for _, graph in pool.map(finder, range(1 << finder.bits)):
        found.append(graph)
        if len(found) == JOINED:
            found = [NearGraph.joined(found)]
        yield found[0]
    yield NearGraph.joined(found)


def band_bits(documents: int) -> int:
    """Leading bits of a band hash that name a partition, so that one is neither large nor tiny."""
    size = documents * BANDS * RECORD.itemsize / PARTITION
    return min(FINE, max(0, int(np.ceil(np.log2(max(size, 1))))))


def resolved(graph: NearGraph, domains: int) -> tuple[NDArray[Any], csr_array]:
    """What becomes of each document of a graph, and what pairs of domains share of them.

    Args:
        graph: of a whole corpus.
        domains: how many there are.

    Returns:
        Rows of `RESOLVED`, sorted by key: whether it stays, and how many documents its cluster has,
        exact copies counted. Then documents of one domain that are near to one of another, (K, K).
    """
    stays, clusters = graph.resolve()
    rows = np.empty(len(graph.keys), RESOLVED)
    rows["key"], rows["stays"] = graph.keys, stays
    rows["cluster"] = np.bincount(clusters, graph.copies, 1).astype(np.uint32)[clusters]
    of_holders = clusters[np.searchsorted(graph.keys, graph.holders["key"])]
    return rows, shared_documents(of_holders, graph.holders["domain"].astype(np.int64), domains)
