"""Near-duplicates: documents that share most of their runs of five words, by MinHash and LSH.

Broder 1997, "On the resemblance of documents"; the parameters are FineWeb's (Penedo et al. 2024,
arXiv 2406.17557): runs of n = 5 words, 112 minima in 14 bands of 8. Two documents of Jaccard
similarity J over their runs share a band with probability 1 - (1 - J^8)^14: 5 % at J = 0.5, half at
0.72, 92 % at 0.8, 99.9 % at 0.9. Words are lower-cased runs of letters and digits
(`evaluation.ngrams`), and every character of a script without blanks is a word.

Where we depart from FineWeb: (1) numbers are kept, where it makes all of them one. (2) A pair that
shares a band must also look alike (estimated J of at least `SIMILAR`) by two bits of each of the
112 minima, a standard error of 0.06: otherwise thousands of pages of one template, each half like
every other, become one cluster by way of one another. (3) A document goes if its cluster among the
domains of its own rank and before holds a better one, so that a domain which is added later never
changes what an earlier one keeps.

A document is its key, the first 8 bytes of the hash of its text; of 250 M documents two share one
with a chance of 0.2 %, and one of them is then lost. On disk it is 14 records of 52 bytes.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import rensa
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree

from cuvee.evaluation.ngrams import Powers, grams_of, normalize_words, text_grams, words_of

N, BANDS, ROWS, SEED = 5, 14, 8, 1
HASHES = BANDS * ROWS
SIMILAR = 0.65  # estimated Jaccard similarity from which a pair that shares a band is one
LONGEST = 8_000_000  # bytes of a document that are looked at (assumption: the rest follows them)
PIECE = 1_000_000  # bytes hashed at once, 50 bytes of memory each
ROUNDS = 100  # documents to which all others of one band are compared (assumption)
FROZEN = -1  # rank of a held-out document of the study: it stays, whatever else must go
RECORD = np.dtype(
    [("band", "<u8"), ("key", "<u8"), ("size", "<u4"), ("copies", "<u4"), ("sketch", "<u4", (7,))]
)
HOLDER = np.dtype([("key", "<u8"), ("domain", "<u4")])  # a domain that holds a document
METHOD = [N, BANDS, ROWS, SEED, SIMILAR, LONGEST, ROUNDS, rensa.RMinHash.ALGORITHM_VERSION]
_BAND = np.uint64(0x9E3779B97F4A7C15)
# Scripts without blanks between words: Thai, Lao, Burmese, Khmer, kana, Chinese characters.
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff]"
)
Keys = NDArray[np.uint64]
Places = NDArray[np.int64]


def shingle_hashes(texts: Sequence[str], powers: Powers) -> tuple[Keys, Places]:
    """Hashes of the runs of five words of texts, together, and how many each text has."""
    hashes, counts = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)]
    ends = np.cumsum([len(text) for text in texts])
    for batch in np.split(np.arange(len(texts)), np.flatnonzero(np.diff(ends // PIECE)) + 1):
        spaced = [_spaced(texts[i][:LONGEST]) for i in batch]
        if len(batch) == 1:
            words = _words(normalize_words(spaced[0]), powers)
            grams, lengths = grams_of(words, N), np.array([len(words)])
        else:
            grams, lengths = text_grams(spaced, N, powers)
        hashes.append(grams)
        counts.append(np.maximum(lengths - N + 1, 0))
    return np.concatenate(hashes), np.concatenate(counts)


def _spaced(text: str) -> str:
    """A text with blanks around every character of a script that has none between words."""
    return text if text.isascii() else _UNSPACED.sub(r" \g<0> ", text)


def _words(data: bytes, powers: Powers) -> Keys:
    """Hashes of the words of one normal text, a piece at a time."""
    found, start = [np.zeros(0, np.uint64)], 0
    while start < len(data):
        stop = data.find(b"\0", min(start + PIECE, len(data)))
        stop = len(data) if stop < 0 else stop
        found.append(words_of(data[start:stop], powers)[0])
        start = stop
    return np.concatenate(found)


def band_records(texts: Sequence[str], keys: Keys, powers: Powers) -> NDArray[Any]:
    """What is written of documents: a record for each band of each.

    Args:
        texts: of a group of documents, as they would be kept.
        keys: (len(texts),) of each; a key that is there twice is written once.
        powers: the tables of hashing, used again from call to call.

    Returns:
        Records of `RECORD`. A text of fewer than five words has none: it has exact duplicates only.
    """
    if not texts:
        return np.zeros(0, RECORD)
    _, chosen, copies = np.unique(keys, return_index=True, return_counts=True)
    hashes, counts = shingle_hashes([texts[i] for i in chosen], powers)
    chosen, copies = chosen[counts > 0], copies[counts > 0]
    ends = np.cumsum([0, *counts[counts > 0]]).astype(np.uint64)
    rows = rensa.RMinHash.digest_matrix_from_flat_token_hashes(hashes, ends, HASHES, SEED).to_rows()
    minima = np.array(rows, dtype=np.uint64).reshape(-1, HASHES)
    bands = grams_of(minima.reshape(-1), ROWS)[::ROWS].reshape(-1, BANDS)
    two_bits = (minima & np.uint64(3)).reshape(-1, 7, 16)  # the low ones: the high are not even
    shifts = np.arange(0, 32, 2, dtype=np.uint64)
    records = np.zeros(bands.shape, RECORD)
    records["band"] = bands + np.arange(BANDS, dtype=np.uint64) * _BAND
    records["key"], records["copies"] = keys[chosen, None], copies[:, None]
    sizes = [len(texts[i].encode()) for i in chosen]
    records["size"] = np.minimum(np.array(sizes, np.int64), 2**32 - 1)[:, None]
    records["sketch"] = (two_bits << shifts).sum(axis=2)[:, None]
    return records.reshape(-1)


def alike(one: NDArray[Any], other: NDArray[Any]) -> NDArray[np.bool_]:
    """Whether pairs of records that share a band are near-duplicates by their sketches.

    The 8 minima of the band are equal by choice and say nothing; of two bits, a quarter agree by
    chance. Beyond `LONGEST` bytes, lengths must agree to a factor of two.
    """
    unlike = one["sketch"] ^ other["sketch"]
    unlike = (unlike | unlike >> 1) & np.uint32(0x55555555)
    equal = (HASHES - ROWS) - np.bitwise_count(unlike).sum(axis=1, dtype=np.int64)
    low, high = np.sort([one["size"], other["size"]], axis=0).astype(np.int64)
    similar: NDArray[np.bool_] = (equal / (HASHES - ROWS) - 0.25) / 0.75 >= SIMILAR
    found: NDArray[np.bool_] = similar & ((high <= LONGEST) | (2 * low >= high))
    return found


@dataclass(frozen=True, eq=False)
class NearGraph:
    """Documents that have a near-duplicate, and enough of the pairs to know every cluster.

    Attributes:
        keys: (V,) sorted.
        ranks: (V,) of the first domain, in the order of ranks, that holds it; or `FROZEN`.
        sizes: (V,) bytes of text.
        copies: (V,) how often it was read.
        edges: (E, 2) places in `keys`: a forest, so E < V.
        holders: (H,) of `HOLDER`, sorted: the domains that hold each.
    """

    keys: Keys
    ranks: NDArray[np.int32]
    sizes: NDArray[np.uint32]
    copies: NDArray[np.uint32]
    edges: Places
    holders: NDArray[Any]

    @classmethod
    def of_records(
        cls, records: NDArray[Any], domains: Places, ranks: Sequence[int], frozen: Keys
    ) -> "NearGraph":
        """The pairs among all the records of some bands.

        Args:
            records: of `RECORD`, of all documents; in any order.
            domains: (len(records),) number of the one that each was read from.
            ranks: of each domain, by its number.
            frozen: keys of the documents that the study holds out.
        """
        shared = _shared_bands(records["band"])
        records, domains = records[shared], domains[shared]
        rank = np.array(ranks, np.int32)[domains]
        order = np.lexsort((rank, records["key"], records["band"]))
        records, rank, domains = records[order], rank[order], domains[order]
        first = _changes(records["band"]) | _changes(records["key"])  # of copies, the lowest rank
        holders = np.empty(len(records), HOLDER)
        holders["key"], holders["domain"] = records["key"], domains
        ends = np.flatnonzero(first)
        copies = np.add.reduceat(records["copies"], ends) if len(ends) else records["copies"]
        records, rank = records[first], rank[first]
        keys, at = np.unique(records["key"], return_index=True)
        held = np.where(np.isin(keys, frozen), FROZEN, rank[at]).astype(np.int32)
        order = np.lexsort((records["key"], ~records["size"], rank, records["band"]))
        pairs = np.searchsorted(keys, _pairs(records[order]))
        sizes, copies = records["size"][at], copies[at]
        return cls(keys, held, sizes, copies, pairs, _distinct(holders)).forest()

    @classmethod
    def joined(cls, graphs: Sequence["NearGraph"]) -> "NearGraph":
        """Graphs of other bands of the same documents as one; their order changes no cluster."""
        keys, at = np.unique(np.concatenate([g.keys for g in graphs]), return_index=True)
        ranks, sizes, copies = (
            np.concatenate([getattr(g, name) for g in graphs])[at]
            for name in ("ranks", "sizes", "copies")
        )
        edges = np.concatenate([np.searchsorted(keys, g.keys)[g.edges] for g in graphs])
        holders = _distinct(np.concatenate([g.holders for g in graphs]))
        return cls(keys, ranks, sizes, copies, edges, holders).forest()

    def forest(self) -> "NearGraph":
        """Without the pairs, and the documents, that no cluster of documents up to a rank needs."""
        V = len(self.keys)
        low, high = np.sort(self.edges, axis=1).T
        low, high = np.divmod(np.unique(low * V + high), max(V, 1))
        weights = np.maximum(self.ranks[low], self.ranks[high]) - FROZEN + 1
        tree = minimum_spanning_tree(csr_array((weights, (low, high)), shape=(V, V))).tocoo()
        used, edges = np.unique(np.stack([tree.row, tree.col], axis=1), return_inverse=True)
        keys, edges = self.keys[used], edges.reshape(-1, 2).astype(np.int64)
        holders = self.holders[np.isin(self.holders["key"], keys)]
        ranks, sizes, copies = self.ranks[used], self.sizes[used], self.copies[used]
        return NearGraph(keys, ranks, sizes, copies, edges, holders)

    def resolve(self) -> tuple[NDArray[np.bool_], Places]:
        """Which documents stay, (V,), and the cluster of each, (V,), numbered from 0.

        A document goes if, among those of ranks up to its own, its cluster has a better one: of a
        domain earlier in rank, then longer, then of a smaller key. A frozen one never goes.
        """
        V = len(self.keys)
        order = np.lexsort((self.keys, ~self.sizes, self.ranks))  # the best first
        place = np.empty(V, np.int64)
        place[order] = np.arange(V)
        ranks, edges = self.ranks[order], place[self.edges]
        weights = ranks[edges.max(axis=1)]
        root, stays = np.arange(V), np.ones(V, bool)
        for rank in np.unique(weights).tolist():
            ends = _roots(root, edges[weights == rank])
            nodes, ends = np.unique(ends, return_inverse=True)
            cluster = _components(ends.reshape(-1, 2), len(nodes))
            best = np.full(len(nodes), V)
            np.minimum.at(best, cluster, nodes)
            root[nodes] = best[cluster]
            lost = (root[nodes] != nodes) & (ranks[nodes] == rank) & (rank != FROZEN)
            stays[nodes[lost]] = False
        clusters = np.unique(_roots(root, np.arange(V)), return_inverse=True)[1]
        return stays[place], clusters[place]


def shared_documents(groups: Places, domains: Places, K: int) -> csr_array:
    """How many documents of one domain are also in another, (K, K); the diagonal is all of them.

    Args:
        groups: (D,) number of what each document is a copy of, a text or a cluster.
        domains: (D,) number of the domain that it was read from.
        K: number of domains.
    """
    shape = (int(groups.max(initial=-1)) + 1, K)
    counts = coo_array((np.ones(len(groups), np.int64), (groups, domains)), shape=shape).tocsr()
    return csr_array(counts.T @ (counts > 0).astype(np.int64))


def _changes(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Where a sorted column has another value than in the row before."""
    return np.concatenate([[True], values[1:] != values[:-1]])[: len(values)]


def _distinct(holders: NDArray[Any]) -> NDArray[Any]:
    """Rows of `HOLDER` without doubles, sorted."""
    holders = holders[np.lexsort((holders["domain"], holders["key"]))]
    return holders[_changes(holders["key"]) | _changes(holders["domain"])]


def _shared_bands(bands: Keys) -> Places:
    """Where the records are whose band another record has, too."""
    order = np.argsort(bands)
    new = _changes(bands[order])
    alone = new & np.concatenate([new[1:], [True]])[: len(new)]
    found: Places = order[~alone]
    return found


def _pairs(records: NDArray[Any]) -> Keys:
    """Keys of near-duplicates, (E, 2): each record with the first of its band, of what is left with
    the first that is left, and so on."""
    found = [np.zeros((0, 2), np.uint64)]
    for _ in range(ROUNDS):
        if not len(records):
            break
        new = _changes(records["band"])
        leaders = records[np.flatnonzero(new)[np.cumsum(new) - 1]]
        same = alike(leaders, records)
        pairs = np.stack([leaders["key"], records["key"]], axis=1)
        found.append(pairs[same & ~new])
        records = records[~(same | new)]
    return np.concatenate(found)


def _components(edges: Places, count: int) -> Places:
    matrix = coo_array((np.ones(len(edges), bool), tuple(edges.T)), shape=(count, count))
    labels: Places = connected_components(matrix, directed=False)[1]
    return labels


def _roots(root: Places, nodes: Places) -> Places:
    """What nodes stand under at last."""
    while True:
        up = root[nodes]
        if np.array_equal(up, nodes):
            return nodes
        nodes = up
