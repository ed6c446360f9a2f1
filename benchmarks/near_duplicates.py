"""Which library signs documents, how fast, how truly, and how many near-duplicates are found?

On the quickstart's text (fetched with pip unless it lies in --archives), one core:
1. MB of text a second of processor time: runs of five words hashed, then 112 minima by each library
   that is installed from the same hashes, and what a document costs in all (`band_records`).
2. Error of the estimated Jaccard similarity, over 600 documents and a copy of each with 0.5, 2, 5,
   10 and 40 % of its words replaced; the standard error of 112 independent minima stands beside it.
3. Against the exact similarity of all pairs of documents up to 60 kB, in each of four domains: the
   share of pairs in one cluster, by similarity, with the sketches and by bands alone.
4. Seconds and memory of the search for pairs, per million documents (synthetic records).
datatrove needs a virtual environment of its own, so it is not run here (docs/results says how it
was). Nothing is random but by a seed.

Usage: python benchmarks/near_duplicates.py [--archives FOLDER] [--documents 1000000]
"""

import argparse
import hashlib
import itertools
import json
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import rensa
from scipy.sparse import csr_array

from cuvee.evaluation.ngrams import Powers
from cuvee.proxies.data.sources.documents import TextDocument
from cuvee.proxies.data.sources.quickstart_text import KINDS, quickstart
from cuvee.tasks.corpus.download import fetch_archives, pinned_archives
from cuvee.tasks.corpus.pipeline import near_duplicates as near

DOMAINS = ("encyclopedia", "code_python", "legal", "techdocs")
STEPS = (0.2, 0.4, 0.5, 0.6, 0.72, 0.8, 0.9, 1.01)
Signer = Callable[[Any, Any], Any]


def quickstart_texts(folder: Path) -> dict[str, list[str]]:
    """Documents of up to 60 kB of each domain, without exact duplicates."""
    wanted = {name for domain in DOMAINS for name in KINDS[domain].archives}
    archives = [one for one in pinned_archives().values() if one.name in wanted]
    found = fetch_archives(folder, archives)
    texts = {}
    for name, source in quickstart(found, DOMAINS).items():
        read = (one.text for one in source.documents() if isinstance(one, TextDocument))
        texts[name] = list(dict.fromkeys(text for text in read if len(text) < 60_000))
    return texts


def flat(hashes: Any, ends: Any) -> Any:
    """Full-set R-MinHash of rensa."""
    rows = rensa.RMinHash.digest_matrix_from_flat_token_hashes(hashes, ends, near.HASHES, 1)
    return np.array(rows.to_rows(), np.uint32)


def rho(hashes: Any, ends: Any) -> Any:
    """The sampled sketch of rensa."""
    rows = rensa.RMinHash.digest_matrix_from_flat_token_hashes_rho(hashes, ends, near.HASHES, 1)
    return np.array(rows.to_rows(), np.uint32)


def plain(hashes: Any, ends: Any) -> Any:
    """112 multiplicative hashes by numpy, without a library."""
    low = (hashes >> np.uint64(32)).astype(np.uint32)
    factors = np.random.default_rng(0).integers(1, 2**32, near.HASHES, np.uint32) | np.uint32(1)
    found = np.empty((len(ends) - 1, near.HASHES), np.uint32)
    for i, factor in enumerate(factors):
        mixed = low * factor
        mixed ^= mixed >> np.uint32(15)
        found[:, i] = np.minimum.reduceat(mixed, ends[:-1].astype(np.int64))
    return found


def datasketch_rows(hashes: Any, ends: Any) -> Any:
    """MinHash of datasketch, from the same hashes."""
    import datasketch

    found = []
    for start, stop in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True):
        one = datasketch.MinHash(near.HASHES, seed=1, hashfunc=int)
        one.update_batch((hashes[start:stop] >> np.uint64(32)).tolist())
        found.append(one.hashvalues)
    return np.array(found)


SIGNERS: dict[str, Signer] = {
    "rensa": flat,
    "rensa rho": rho,
    "numpy": plain,
    "datasketch": datasketch_rows,
}


def signed(texts: list[str], signer: Signer) -> Any:
    """Signatures of texts that all have five words."""
    hashes, counts = near.shingle_hashes(texts, Powers())
    return signer(hashes, np.cumsum([0, *counts]).astype(np.uint64))


def megabytes_a_second(megabytes: float, work: Callable[[], Any]) -> float:
    """The best of three, by processor time."""
    taken = []
    for _ in range(3):
        began = time.process_time()
        work()
        taken.append(time.process_time() - began)
    return round(megabytes / min(taken), 1)


def speeds(texts: list[str]) -> dict[str, float]:
    """MB a second of each step and library."""
    size = sum(len(text.encode()) for text in texts) / 1e6
    hashes, counts = near.shingle_hashes(texts, Powers())
    ends = np.cumsum([0, *counts]).astype(np.uint64)
    found = {
        "runs of words": megabytes_a_second(size, lambda: near.shingle_hashes(texts, Powers())),
        "whole document": megabytes_a_second(
            size, lambda: near.band_records(texts, keys_of(texts), Powers())
        ),
    }
    for name, signer in SIGNERS.items():
        found[name] = megabytes_a_second(size, lambda signer=signer: signer(hashes, ends))
    return found


def keys_of(texts: list[str]) -> Any:
    """Keys by content."""
    digests = (hashlib.blake2b(text.encode(), digest_size=8).digest() for text in texts)
    return np.array([int.from_bytes(digest, "big") for digest in digests], np.uint64)


def jaccard_table(texts: list[str]) -> Any:
    """Exact similarity of all pairs that share a run, as (i, j, J) with i < j."""
    hashes, counts = near.shingle_hashes(texts, Powers())
    runs, columns = np.unique(hashes, return_inverse=True)
    places = np.unique(np.stack([np.repeat(np.arange(len(texts)), counts), columns]), axis=1)
    table = csr_array((np.ones(places.shape[1], int), tuple(places)), (len(texts), len(runs)))
    sizes = np.bincount(places[0], minlength=len(texts))
    both = (table @ table.T).tocoo()
    upper = both.row < both.col
    i, j, shared = both.row[upper], both.col[upper], both.data[upper]
    return i, j, shared / (sizes[i] + sizes[j] - shared)


def edited(text: str, share: float, rng: np.random.Generator) -> str:
    """A text of whose words a share is replaced."""
    words = text.split()
    for i in rng.choice(len(words), max(1, round(share * len(words))), replace=False):
        words[i] = f"word{rng.integers(10**9)}"
    return " ".join(words)


def errors(texts: list[str], share: float) -> dict[str, tuple[float, float]]:
    """Bias and root of the mean square of the estimate's error, by library."""
    rng = np.random.default_rng(1)
    copies = [edited(text, share, rng) for text in texts]
    i, j, J = jaccard_table(texts + copies)
    own = j == i + len(texts)
    found = {}
    for name, signer in SIGNERS.items():
        one, other = signed(texts, signer), signed(copies, signer)
        off = (one == other).mean(axis=1)[i[own]] - J[own]
        found[name] = round(float(off.mean()), 4), round(float(np.sqrt((off**2).mean())), 4)
    spread = float(np.sqrt((J[own] * (1 - J[own]) / near.HASHES).mean()))
    return {"similarity": (round(float(J[own].mean()), 3), 0.0), **found, "theory": (0, spread)}


def clustered(texts: list[str], threshold: float) -> dict[str, str]:
    """Of the pairs of each range of similarity, how many are in one cluster."""
    near.SIMILAR, before = threshold, near.SIMILAR
    keys = keys_of(texts)
    records = near.band_records(texts, keys, Powers())
    none = np.zeros(0, np.uint64)
    graph = near.NearGraph.of_records(records, np.zeros(len(records), np.int64), [0], none)
    near.SIMILAR = before
    stays, clusters = graph.resolve()
    of = -1 - np.arange(len(texts))
    place = np.searchsorted(graph.keys, keys) % max(1, len(graph.keys))
    known = graph.keys[place] == keys
    of[known] = clusters[place[known]]
    i, j, similar = jaccard_table(texts)
    found = {"documents": f"{len(texts)}", "gone": f"{int((~stays).sum())}"}
    for low, high in itertools.pairwise(STEPS):
        own = (similar >= low) & (similar < high)
        found[f"{low}"] = f"{int((of[i[own]] == of[j[own]]).sum())} of {int(own.sum())}"
    return found


def search_cost(documents: int) -> dict[str, float]:
    """Seconds and peak memory of the pairs among records, a fifth of them of near-duplicates."""
    rng = np.random.default_rng(0)
    records = np.zeros((documents, near.BANDS), near.RECORD)
    records["band"] = rng.integers(0, 2**64, records.shape, np.uint64)
    records["key"] = rng.integers(0, 2**64, documents, np.uint64)[:, None]
    records["sketch"] = rng.integers(0, 2**32, (documents, 1, 7), np.uint32)
    doubled = documents // 10
    for field in ("band", "sketch"):
        records[field][:doubled] = records[field][doubled : 2 * doubled]
    records = records.reshape(-1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.process_time()
    none = np.zeros(0, np.uint64)
    graph = near.NearGraph.of_records(records, np.zeros(len(records), np.int64), [0], none)
    gone = int((~graph.resolve()[0]).sum())
    seconds = time.process_time() - began
    more = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {
        "gone": gone,
        "seconds": round(seconds, 1),
        "records_gb": round(records.nbytes / 1e9, 2),
        "more_gb": round(more / 1e6, 2),
    }


def main() -> None:
    """Measures and prints all of it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--archives", type=Path, default=Path(".cuvee/archives"))
    parser.add_argument("--documents", type=int, default=1_000_000)
    given = parser.parse_args()
    by_domain = quickstart_texts(given.archives)
    rng = np.random.default_rng(0)
    texts = [t for d in by_domain.values() for t in d if len(t.split()) > 60]
    some = [texts[i] for i in rng.permutation(len(texts))[:600]]
    found: dict[str, Any] = {"speed": speeds(some)}
    print(f"MB a second of one core, {len(some)} documents: {found['speed']}", flush=True)
    found["errors"] = {share: errors(some, share) for share in (0.005, 0.02, 0.05, 0.1, 0.4)}
    for share, row in found["errors"].items():
        print(f"{share:.1%} of words replaced, (bias, error): {row}", flush=True)
    for name, documents in by_domain.items():
        for threshold, words in ((near.SIMILAR, "with sketches"), (-1.0, "bands alone")):
            row = clustered(documents, threshold)
            found.setdefault("pairs", {})[f"{name}, {words}"] = row
            print(f"{name}, {words}: {row}", flush=True)
    found["search"] = search_cost(given.documents)
    print(f"pairs among {given.documents:,} documents: {found['search']}", flush=True)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
