"""What is kept of every domain, and what of it is held out: decided on keys alone, not on text.

The keys of all documents (hashes of their text) are cut into partitions by their leading bits, so
that equal text meets in one partition and memory holds one at a time. Of equal documents one stays,
in the domain that comes first in `Ranks`: no document is both trained on and held out, and no order
of domains or files decides which it is. The split is by whole document and by key, and a document
that a study has held out before stays held out: new text moves no old one.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from cuvee.mixtures.errors import DataError
from cuvee.proxies.data.objects import ObjectFolder
from cuvee.proxies.data.shards import map_array
from cuvee.tasks.corpus.corpus_settings import CorpusSettings
from cuvee.tasks.corpus.pipeline.near_duplicates import shared_documents
from cuvee.tasks.corpus.pipeline.read_parts import INDEX, Entries, PartRecord
from cuvee.tasks.corpus.pipeline.whole_files import file_sizes, not_whole, read_written

PARTITION = 64_000_000  # bytes of text in a partition, about
PARTITION_DOCUMENTS = 500_000  # at most, about
NOTABLE = 0.05  # share of a domain's documents that another one holds, from which it is told
KEPT = np.dtype(
    [*INDEX.descr, ("domain", "<u4"), ("part", "<u4"), ("row", "<u4"), ("cluster", "<u4")]
)
CONTAINED = 0.5  # share of a domain's texts that another nearly holds, from which it is told
COUNTS = (
    "documents_read",
    "bytes_read",
    "blank",
    "duplicates",
    "duplicates_elsewhere",
    "near_duplicates",
    "documents_dropped",
    "documents_cut",
    "blocks_dropped",
    "bytes_dropped",
    "skipped",
    "filtered",
)


@dataclass
class DomainText:
    """What is known of a domain while it is being prepared; its text is in the spools."""

    name: str
    counts: Counter[str] = field(default_factory=Counter)
    hits: Counter[str] = field(default_factory=Counter)
    elsewhere: Counter[str] = field(default_factory=Counter)  # doubled documents by other domain
    skipped: str = ""  # why the first row that was skipped holds no text
    read_bytes: int = 0  # of cleaned text, duplicates included
    documents: int = 0  # that are kept
    bytes: int = 0  # of their text
    frozen_bytes: int = 0  # of what was held out before
    frozen_documents: int = 0
    distinct: int = 0  # texts that it holds, whatever domain keeps them
    shared: dict[str, dict[str, int]] = field(default_factory=dict)  # of these, by other domain

    def add_part(self, record: PartRecord) -> None:
        """Counts what was read of a part."""
        self.counts.update(record.counts)
        self.hits.update(record.hits)
        self.skipped = self.skipped or record.skipped
        self.read_bytes += record.bytes


@dataclass(frozen=True)
class PartitionStats:
    """What is kept in a partition, per domain, shape (K,) each; and what was doubled.

    `shared` counts the texts of one domain that are in another, (K, K), on the diagonal all that it
    has; `apart` those of them that have no near-duplicate.
    """

    documents: tuple[int, ...]
    bytes: tuple[int, ...]
    frozen_documents: tuple[int, ...]
    frozen_bytes: tuple[int, ...]
    doubled: tuple[tuple[int, int, int], ...]  # domain, domain of the copy that stays, documents
    near: tuple[int, ...]  # documents dropped as near-duplicates
    shared: csr_array
    apart: csr_array


def partition_bits(records: Sequence[PartRecord]) -> int:
    """Leading bits of the key that name a partition, so that one is neither large nor tiny."""
    text = sum(record.bytes for record in records) / PARTITION
    documents = sum(record.documents for record in records) / PARTITION_DOCUMENTS
    return max(0, int(np.ceil(np.log2(max(text, documents, 1)))))


@dataclass(frozen=True)
class Deduplicator:
    """Drops the exact duplicates of a partition; the same for all partitions of a corpus.

    Attributes:
        spools: where spools lie.
        kept: where `<partition>.npy`, the rows that stay, is written.
        records: of all parts, in order.
        ranks: of each domain; the copy in the domain of the lowest rank stays.
        bits: of `partition_bits`.
        frozen: keys of what was held out before, sorted.
        near: rows of `RESOLVED`, of the documents that have near-duplicates.
        below: of each domain, the upper half of a key from which documents are not in its sample.
    """

    spools: ObjectFolder
    kept: ObjectFolder
    records: Sequence[PartRecord]
    ranks: Sequence[int]
    bits: int
    frozen: bytes
    near: Entries
    below: Sequence[int]

    def __call__(self, partition: int) -> PartitionStats:
        """The rows that stay, sorted by domain and key, go to a file; what they are comes back."""
        entries = self._entries(partition)
        ranks = np.array(self.ranks)
        order = np.lexsort((ranks[entries["domain"]], entries["low"], entries["high"]))
        entries = entries[order]  # parts, and rows within them, keep their order: sorts are stable
        high, low = entries["high"], entries["low"]
        first = np.ones(len(entries), dtype=bool)
        first[1:] = (high[1:] != high[:-1]) | (low[1:] != low[:-1])
        text = np.cumsum(first) - 1
        owner = entries["domain"][np.flatnonzero(first)[text]]
        doubled = Counter(
            zip(entries["domain"][~first].tolist(), owner[~first].tolist(), strict=True)
        )
        entries["cluster"] = np.bincount(text)[text]
        known, stays = self._resolve(entries)
        new = first | np.concatenate([[True], np.diff(entries["domain"]) != 0])[: len(first)]
        pairs = np.stack([text, entries["domain"]])[:, new]
        kept = entries[first & stays]
        last = np.array([one - 1 for one in self.below], dtype=np.uint64)
        kept = kept[kept["high"] <= last[kept["domain"]]]
        kept = kept[np.argsort(kept["domain"], kind="stable")]
        write_kept(self.kept, partition, kept)
        count = len(self.ranks)
        near = np.bincount(entries["domain"][first & ~stays], minlength=count).tolist()
        shares = (
            shared_documents(found[0], found[1], count) for found in (pairs, pairs[:, ~known[new]])
        )
        return self.stats(kept, doubled, tuple(near), *shares)

    def _resolve(self, entries: Entries) -> tuple[Entries, Entries]:
        """Which rows have near-duplicates, and which of all stay; those get the size of their
        cluster."""
        known = np.isin(entries["high"], self.near["key"])
        rows = self.near[np.searchsorted(self.near["key"], entries["high"][known])]
        entries["cluster"][known] = rows["cluster"]
        stays = np.ones(len(entries), dtype=bool)
        stays[known] = rows["stays"]
        return known, stays

    def stats(
        self, kept: Entries, doubled: Counter[tuple[int, int]], *others: Any
    ) -> PartitionStats:
        """The figures of a partition's rows."""
        count, old = len(self.ranks), is_held(kept, self.frozen)
        domain, size = kept["domain"], kept["size"].astype(float)  # sums below 2^53 are exact

        def per_domain(rows: Entries, weights: Entries | None = None) -> tuple[int, ...]:
            return tuple(int(x) for x in np.bincount(rows, weights, minlength=count))

        return PartitionStats(
            per_domain(domain),
            per_domain(domain, size),
            per_domain(domain[old]),
            per_domain(domain[old], size[old]),
            tuple(sorted((*pair, number) for pair, number in doubled.items())),
            *others,
        )

    def _entries(self, partition: int) -> Entries:
        """The rows of a partition, of all parts in their order."""
        found = [np.zeros(0, dtype=KEPT)]
        low, high = partition_range(partition, self.bits)
        for number, record in enumerate(self.records):
            index = read_index(self.spools, record)
            start = 0
            for length in record.runs:
                keys = index["high"][start : start + length]
                a, b = (start + np.searchsorted(keys, [low, high], side="left")).tolist()
                b = start + length if partition == (1 << self.bits) - 1 else b
                rows = np.empty(b - a, dtype=KEPT)
                for name in INDEX.names or ():
                    rows[name] = index[name][a:b]
                rows["domain"], rows["part"], rows["row"] = record.domain, number, np.arange(a, b)
                rows["cluster"] = 0
                found.append(rows)
                start += length
        return np.concatenate(found)


def partition_range(partition: int, bits: int) -> tuple[np.uint64, np.uint64]:
    """The first key's upper half of a partition, and of the next one (0 after the last)."""
    step = 1 << (64 - bits)
    return np.uint64(partition * step), np.uint64((partition + 1) * step % (1 << 64))


def read_index(spools: ObjectFolder, record: PartRecord) -> Entries:
    """A spool's index; mapped where it lies on a disk, so that only what is looked at is read."""
    name = f"{record.name}.index"
    if not record.documents:
        return np.zeros(0, dtype=INDEX)
    size = record.documents * INDEX.itemsize
    if not spools.remote and file_sizes(spools, [name]) == {name: size}:
        return map_array(Path(spools.path(name)), INDEX)
    raw = read_written(spools, name)
    if len(raw) != size:
        raise not_whole(spools.path(name))
    return np.frombuffer(raw, dtype=INDEX)


def write_kept(folder: ObjectFolder, partition: int, rows: Entries) -> None:
    """Writes the rows that stay of a partition."""
    folder.write(f"{partition}.npy", rows.tobytes())


def read_kept(folder: ObjectFolder, partition: int) -> Entries:
    """The rows that stay of a partition."""
    return np.frombuffer(read_written(folder, f"{partition}.npy"), dtype=KEPT)


def key_bytes(entries: Entries) -> Entries:
    """The keys of rows as 16 bytes each, whose order is that of the keys, shape (n,)."""
    halves = np.stack([entries["high"], entries["low"]], axis=1).astype(">u8")
    return halves.view("S16").ravel()


def is_held(entries: Entries, held: bytes) -> Entries:
    """Which rows are of documents whose keys are among sorted ones, (n,) bool."""
    upper = np.frombuffer(held, dtype=">u8")[::2].astype("<u8")
    maybe = np.isin(entries["high"], upper)
    result = np.zeros(len(entries), dtype=bool)
    result[maybe] = np.isin(key_bytes(entries[maybe]), np.frombuffer(held, dtype="S16"))
    return result


def of_domain(kept: Entries, domain: int) -> Entries:
    """The rows of one domain, in the order of their keys."""
    a, b = np.searchsorted(kept["domain"], [domain, domain + 1]).tolist()
    return kept[a:b]


def count_partitions(domains: Sequence[DomainText], stats: Sequence[PartitionStats]) -> None:
    """Adds what is kept and doubled in all partitions to the domains."""
    for part in stats:
        for i, domain in enumerate(domains):
            domain.documents += part.documents[i]
            domain.bytes += part.bytes[i]
            domain.frozen_documents += part.frozen_documents[i]
            domain.frozen_bytes += part.frozen_bytes[i]
        for i, owner, number in part.doubled:
            if i == owner:
                domains[i].counts["duplicates"] += number
            else:
                domains[i].counts["duplicates_elsewhere"] += number
                domains[i].elsewhere[domains[owner].name] += number
        for domain, number in zip(domains, part.near, strict=True):
            domain.counts["near_duplicates"] += number


def count_shared(
    domains: Sequence[DomainText], stats: Sequence[PartitionStats], near: csr_array | None
) -> None:
    """Adds to the domains what texts of theirs are in others, too.

    Args:
        domains: in order.
        stats: of all partitions.
        near: (K, K) of the texts that have near-duplicates; None where none were looked for.
    """
    exact = sum((part.shared for part in stats[1:]), stats[0].shared)
    for domain, number in zip(domains, exact.diagonal().tolist(), strict=True):
        domain.distinct = number
    alike = exact if near is None else sum((part.apart for part in stats), near)
    alike = alike.tocoo()
    for i, j, number in zip(*alike.coords, alike.data, strict=True):
        if i != j and number:
            shared = {"exact": int(exact[i, j]), "near": int(number)}
            domains[i].shared[domains[j].name] = shared


def hold_out(
    domains: Sequence[DomainText],
    kept: Callable[[], Iterator[Entries]],
    frozen: bytes,
    settings: CorpusSettings,
) -> bytes:
    """The keys of all documents to hold out, sorted: those held out before, and new ones.

    A domain takes new ones if it has none of the former, or less than half of what is wanted: those
    with the smallest keys, until there is enough text. A document of more than twice the wanted
    size is left to training; if that leaves nothing, the smallest document is held out.

    Args:
        domains: with their sizes.
        kept: the rows that stay, a partition at a time, in the order of keys.
        frozen: keys of what was held out before, sorted.
        settings: say how much is wanted.

    Raises:
        DataError: a domain of fewer than two documents.
    """
    for domain in domains:
        _check_documents(domain)
    wanted = [min(settings.valid_share * one.bytes, settings.valid_bytes) for one in domains]
    size = [domain.frozen_bytes for domain in domains]
    missing = {
        i
        for i, domain in enumerate(domains)
        if not domain.frozen_documents or size[i] < wanted[i] / 2
    }
    taken: dict[int, list[bytes]] = {i: [] for i in missing}
    least: dict[int, tuple[int, bytes]] = {}
    for rows in kept() if missing else ():
        for i in sorted(missing):
            own = of_domain(rows, i)
            own = own[~is_held(own, frozen)]
            if not len(own):
                continue
            small = own[np.argmin(own["size"])]
            least[i] = min(least.get(i, (1 << 62, b"")), (int(small["size"]), _key_of(small)))
            fits = own[own["size"] <= 2 * wanted[i] - size[i]]
            for row, bytes_ in zip(fits, fits["size"].tolist(), strict=True):
                if size[i] >= wanted[i]:
                    break
                if size[i] + bytes_ <= 2 * wanted[i]:
                    taken[i].append(_key_of(row))
                    size[i] += bytes_
        missing = {i for i in missing if size[i] < wanted[i]}
        if not missing:
            break
    for i, keys in taken.items():
        if not keys and not domains[i].frozen_documents:
            keys.append(least[i][1])
    old = np.frombuffer(frozen, dtype="S16")
    new = np.array([key for keys in taken.values() for key in keys], dtype="S16")
    return bytes(np.union1d(old, new).astype("S16").tobytes())


def _key_of(row: Entries) -> bytes:
    return int(row["high"]).to_bytes(8, "big") + int(row["low"]).to_bytes(8, "big")


def _check_documents(domain: DomainText) -> None:
    if domain.documents < 2:
        why = "; ".join(unused_text(domain)) or (
            "add text, or, if one file of text holds many documents, say in `separator` what parts "
            "them"
        )
        raise DataError(
            f"domain {domain.name!r} has {domain.documents} usable documents of "
            f"{domain.counts['documents_read']} read; it takes at least 2, one to train on and one "
            f"to hold out: {why}"
        )


def unused_text(domain: DomainText, named: Callable[[str], str] = str) -> list[str]:
    """What a person must know of a domain's text that is not used, a sentence each."""
    counts, found, name = domain.counts, [], named(domain.name)
    read = counts["documents_read"]
    for other, count in sorted(domain.elsewhere.items()):
        if count >= NOTABLE * read:
            which = f"all {count:,}" if count == read else f"{count:,} of {read:,}"
            found.append(f"{which} documents of {name} are also in {named(other)}, and count there")
    for other, shared in sorted(domain.shared.items()):
        if shared["near"] > shared["exact"] and shared["near"] >= CONTAINED * domain.distinct:
            nearly, exact = (shared[how] / domain.distinct for how in ("near", "exact"))
            found.append(
                f"{nearly:.0%} of the texts of {name} are also in {named(other)}, word for "
                f"word ({exact:.0%}) or nearly; each stays in one of the two"
            )
    if domain.skipped:
        total = counts["skipped"] + read
        found.append(
            f"{counts['skipped']:,} of {total:,} rows of {name} were skipped, the first: "
            f"{domain.skipped}"
        )
    return found
