"""Domains that grew by less than a stated share keep their earlier shards, and so their runs.

The shards are those of the earlier corpus, linked or copied, so that no identity ever lies: what is
trained on is what the runs of before were trained on. Growth is counted from there each time.
"""

import contextlib
import itertools
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cuvee.mixtures.errors import CuveeError
from cuvee.proxies.data.prepared_corpus import (
    Corpus,
    marked_name,
    read_manifest,
    split_tokens,
)
from cuvee.proxies.data.shards import SPLITS, token_type
from cuvee.tasks.corpus.corpus_state import RankedDomain

STEP = 1 << 12  # documents that are looked at together


def keep_earlier(
    entry: Mapping[str, Any],
    folder: Path,
    earlier: RankedDomain,
    *,
    others: Path,
    tolerance: float,
) -> dict[str, Any]:
    """A domain's part of the manifest: of its earlier shards if they stay, else as it is given.

    Args:
        entry: of the domain as it is now.
        folder: of its shards, which the earlier ones replace if they stay.
        earlier: what the study knows of the domain.
        others: folder of prepared corpora, in one of which the earlier shards may lie.
        tolerance: share of the earlier tokens by which it may have grown.
    """
    grown = entry["train"]["tokens"] / max(1, earlier.tokens) - 1
    if earlier.identity == entry["identity"] or not 0 <= grown < tolerance:
        return dict(entry)
    there, name = False, marked_name(entry["name"])
    for root, before, width in _earlier_entries(others, earlier.identity):
        there = True
        with tempfile.TemporaryDirectory(dir=folder.parent) as work:
            then = document_hashes(root / before["folder"], before, width, Path(work) / "then")
            now = document_hashes(folder, entry, width, Path(work) / "now")
            if not _all_among(then, now):
                continue  # it did not only grow
        shutil.rmtree(folder)
        shutil.copytree(root / before["folder"], folder, copy_function=_link)
        told = (
            f"{name} has grown by {grown:.1%}, which is less than corpus.tolerance "
            f"({tolerance:.1%}): its earlier text stays in use, and with it its runs"
        )
        stays = {part: before[part] for part in ("identity", "heldout", *SPLITS)}
        return {**entry, **stays, "notices": [*entry["notices"], told]}
    if there:
        return dict(entry)
    told = (
        f"{name} has grown by {grown:.1%}, which is less than corpus.tolerance "
        f"({tolerance:.1%}), but its earlier shards are gone or damaged: its text is read anew, "
        "and earlier runs of it do not count"
    )
    return {**entry, "notices": [*entry["notices"], told]}


def _earlier_entries(others: Path, identity: str) -> Iterator[tuple[Path, dict[str, Any], Any]]:
    """Where shards of an identity lie that are whole: the corpus, its entry, its type of ids."""
    for path in sorted(others.glob("*/manifest.json")):
        with contextlib.suppress(CuveeError):
            body = read_manifest(path.parent)
            for entry in body["domains"]:
                if entry["identity"] == identity and "heldout" in entry:
                    Corpus.open(path.parent, again=False)  # verified, whole
                    yield path.parent, entry, token_type(body["vocabulary"])


def document_hashes(
    folder: Path, entry: Mapping[str, Any], width: Any, out: Path
) -> NDArray[np.int64]:
    """A hash of each document of both splits, sorted, good within this process; on the disk."""
    with out.open("wb") as file:
        for split in SPLITS:
            tokens = split_tokens(folder, split, entry[split].get("view"), width)
            begin = 0
            for ends in _document_ends(folder / f"{split}.idx.npz"):
                places = itertools.pairwise([begin, *ends])
                hashes = [hash(tokens[a:b].tobytes()) for a, b in places]
                file.write(np.array(hashes, dtype=np.int64).tobytes())
                begin = ends[-1]
    found = np.memmap(out, dtype=np.int64, mode="r+")
    found.sort()
    return found


def _document_ends(path: Path) -> Iterator[list[int]]:
    """Where the documents of a shard end, in lists, without its whole index in memory."""
    with zipfile.ZipFile(path) as index, index.open("offsets.npy") as file:
        np.lib.format.read_magic(file)
        _, _, kind = np.lib.format.read_array_header_1_0(file)
        file.read(kind.itemsize)  # 0, where the first begins
        while raw := file.read(STEP * kind.itemsize):
            yield np.frombuffer(raw, dtype=kind).tolist()


def _all_among(some: NDArray[np.int64], every: NDArray[np.int64]) -> bool:
    """Whether all of some sorted numbers are among others, which are sorted too."""
    for start in range(0, len(some), STEP):
        block = some[start : start + STEP]
        places = np.minimum(np.searchsorted(every, block), len(every) - 1)
        if (every[places] != block).any():
            return False
    return True


def _link(source: str, to: str) -> None:
    """A hard link, or a copy where the file system has none."""
    try:
        os.link(source, to)
    except OSError:
        shutil.copy2(source, to)
