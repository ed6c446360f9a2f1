"""Readers of a user's own text: .txt, .jsonl (plain, .gz, .zst) and .parquet.

A source yields documents. A document is what is kept whole when text is held out, so it should be
an article, a file, a page; not a line, and not a whole dump.
"""

import glob
import gzip
import hashlib
import io
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

import pyarrow as pa
import pyarrow.parquet as pq

from mixtures.errors import CorruptError, DataError

SUFFIXES = (".txt", ".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet")


class Source(Protocol):
    """Where the text of one domain comes from."""

    @property
    def identity(self) -> str:
        """Cheap to compute; changes whenever the documents may have changed."""
        ...

    def documents(self) -> Iterator[str]:
        """The documents, in the same order every time."""
        ...


@dataclass(frozen=True)
class Texts:
    """Documents given in memory; for tests and notebooks.

    Attributes:
        texts: the documents.
    """

    texts: tuple[str, ...]

    @property
    def identity(self) -> str:
        """Hash of the documents."""
        return hashlib.sha256(json.dumps(self.texts).encode()).hexdigest()

    def documents(self) -> Iterator[str]:
        """The documents, as given."""
        return iter(self.texts)


@dataclass(frozen=True)
class Files:
    """Documents in files.

    Attributes:
        path: a file, a folder (searched for every readable kind), or a glob ("**" descends).
        field: the name of the text in .jsonl rows and .parquet columns.
        separator: what parts the documents of a .txt file; a file is one document if it is None.
    """

    path: str
    field: str = "text"
    separator: str | None = None

    def __post_init__(self) -> None:
        if self.separator == "":
            raise DataError("an empty separator parts nothing; leave it out for one per file")

    @property
    def files(self) -> tuple[Path, ...]:
        """The files, sorted by name.

        Raises:
            DataError: nothing is there, or a file is of a kind that cannot be read.
        """
        given = Path(self.path).expanduser()
        if given.is_dir():
            found = sorted(p for p in given.rglob("*") if p.is_file() and _suffix(p))
            if not found:
                raise DataError(
                    f"folder {given} holds no file of a kind that can be read: {_KINDS}"
                )
            return tuple(found)
        if given.is_file():
            found = [given]
        else:
            names = glob.glob(str(given), recursive=True)
            found = sorted(path for path in map(Path, names) if path.is_file())
        if not found:
            raise DataError(
                f"no file at {given}; give a file, a folder or a glob such as data/*.jsonl"
            )
        for path in found:
            if not _suffix(path):
                raise DataError(f"{path} is of a kind that cannot be read; known: {_KINDS}")
        return tuple(found)

    @property
    def identity(self) -> str:
        """Hash of the files' names, sizes and times of change, and of how they are read.

        Reading a corpus only to learn that it is unchanged would take as long as preparing it.
        """
        parts = [json.dumps([self.field, self.separator])]
        for path in self.files:
            stat = path.stat()
            parts.append(f"{path.resolve()}:{stat.st_size}:{stat.st_mtime_ns}")
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def documents(self) -> Iterator[str]:
        """The documents of all files.

        Raises:
            DataError: an empty file, text that is not UTF-8, malformed JSON, a missing field. The
                message names file and line.
            CorruptError: a compressed file or a parquet file that breaks off.
        """
        for path in self.files:
            try:
                yield from self._read(path)
            except OSError as error:
                raise DataError(f"{path} cannot be read: {error.strerror or error}") from error

    def _read(self, path: Path) -> Iterator[str]:
        if path.stat().st_size == 0:
            raise DataError(f"{path} is empty; remove it or fill it")
        suffix = _suffix(path)
        if suffix == ".parquet":
            return _parquet(path, self.field)
        if suffix == ".txt":
            return _plain(path, self.separator)
        return _json_lines(path, suffix, self.field)


_KINDS = ", ".join(SUFFIXES)


def _suffix(path: Path) -> str:
    """The longest known ending of a file's name, or ""."""
    endings = [suffix for suffix in SUFFIXES if path.name.lower().endswith(suffix)]
    return max(endings, key=len, default="")


def _plain(path: Path, separator: str | None) -> Iterator[str]:
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(_not_utf8(path, line, data[error.start])) from None
    if separator is None:
        yield text
    else:
        yield from (part for part in text.split(separator) if part.strip())


def _json_lines(path: Path, suffix: str, field: str) -> Iterator[str]:
    for number, line in _lines(path, suffix):
        try:
            row = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
        except UnicodeDecodeError as error:
            raise DataError(_not_utf8(path, number, line[error.start])) from None
        except ValueError as error:
            raise DataError(f"{path}, line {number}: malformed JSON: {error}") from None
        yield _text(row, field, f"{path}, line {number}", line)


def _text(row: Any, field: str, place: str, line: bytes) -> str:
    """The text of a JSON row, checked."""
    if not isinstance(row, dict):
        raise DataError(f"{place}: a row is a JSON object; found {type(row).__name__}")
    if field not in row:
        raise DataError(f"{place}: no field {field!r}; the row has: {', '.join(row) or 'nothing'}")
    text = row[field]
    if not isinstance(text, str):
        raise DataError(f"{place}: field {field!r} is {type(text).__name__}, not text")
    if b"\\u" in line:
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise DataError(
                f"{place}: half of a surrogate pair at character {error.start} of {field!r}; "
                "such text has no UTF-8 form"
            ) from None
    return text


def _lines(path: Path, suffix: str) -> Iterator[tuple[int, bytes]]:
    """Numbered lines of a file that may be compressed; blank lines are left out."""
    try:
        with _open(path, suffix) as stream:
            for number, line in enumerate(stream, 1):
                if line.strip():
                    yield number, line
    except (gzip.BadGzipFile, EOFError, zlib.error, pa.ArrowException) as error:
        raise _broken(path, error) from error
    except OSError as error:
        if suffix == ".jsonl.zst" and error.errno is None:  # how Arrow reports a broken stream
            raise _broken(path, error) from error
        raise


def _open(path: Path, suffix: str) -> BinaryIO:
    if suffix == ".jsonl.gz":
        return cast(BinaryIO, gzip.open(path, "rb"))
    if suffix == ".jsonl.zst":
        stream = pa.input_stream(str(path), compression="zstd")
        return cast(BinaryIO, io.BufferedReader(stream))
    return path.open("rb")


def _parquet(path: Path, field: str) -> Iterator[str]:
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if field not in names:
                raise DataError(f"{path}: no column {field!r}; it has: {', '.join(names)}")
            kind = file.schema_arrow.field(field).type
            if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
                raise DataError(f"{path}: column {field!r} holds {kind}, not text")
            row = 0
            for batch in file.iter_batches(batch_size=1024, columns=[field]):
                for text in batch.column(0).to_pylist():
                    row += 1
                    if text is None:
                        raise DataError(f"{path}, row {row}: column {field!r} is null")
                    yield text
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: column {field!r} holds text that is not UTF-8") from error
    except (pa.ArrowException, OSError) as error:
        raise _broken(path, error) from error


def _broken(path: Path, error: Exception) -> CorruptError:
    return CorruptError(f"{path} breaks off or is damaged ({error}); copy or download it again")


def _not_utf8(path: Path, line: int, byte: int) -> str:
    return f"{path}, line {line}: byte 0x{byte:02x} is not UTF-8; convert the file (iconv) first"
