"""Documents out of one file: plain text, rows of JSON, or a column of a table; packed or not.

What holds no text that could be used (a null, a malformed row, bytes that are not UTF-8) is yielded
as `UnusableDocument`, with its place, for the caller to refuse or to count. One line and one
document are bounded, so that neither a damaged file nor one made to burst takes the machine's
memory.
"""

import codecs
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from cuvee.mixtures.errors import DataError
from cuvee.proxies.data.compression import DAMAGED, damaged_file_error, open_compressed
from cuvee.proxies.data.documents import Document, TextDocument, UnusableDocument
from cuvee.proxies.data.files import LINES, TABLES, file_kind

LONGEST = 1 << 28  # bytes of one line or one document (assumption: what is longer is a dump)
CHUNK = 1 << 20  # bytes of plain text decoded together
ROWS_AT_ONCE = 256  # of a table; 1,024 are no faster and hold more of long documents
MARK = "\ufeff"  # a byte order mark, which belongs to no text
_BLANK = MARK + " \t\r\n"


def read_documents(path: Path, field: str, separator: str | None) -> Iterator[Document]:
    """The documents of a file.

    Args:
        path: of a known kind.
        field: the name of the text in rows and tables.
        separator: what parts the documents of plain text; None: the file is one.

    Raises:
        DataError: the file cannot be read, or the table has no such column of text.
        CorruptError: it breaks off or is damaged.
    """
    ending, packing = file_kind(path)
    try:
        if path.stat().st_size == 0:
            yield UnusableDocument(f"{path} is empty; remove it or fill it")
        elif ending in TABLES:
            yield from _table(path, field)
        elif ending in LINES or ending == ".json":
            yield from _rows(path, packing, field, whole=ending == ".json")
        else:
            yield from _plain(path, packing, separator)
    except DAMAGED as error:
        raise damaged_file_error(path, error) from error
    except OSError as error:
        if error.errno is None:  # how Arrow and bz2 report a broken stream
            raise damaged_file_error(path, error) from error
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


def _plain(path: Path, packing: str, separator: str | None) -> Iterator[Document]:
    """Plain text, a chunk at a time: the whole as one document, or its parts."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    line, parts, size = 1, [""], 0
    parting = re.compile(
        re.escape(separator or "").replace("\\\n", "\r?\n")
    )  # Windows ends lines so
    with open_compressed(path, packing) as stream:
        for data in iter(lambda: stream.read(CHUNK), None):
            try:
                text = decoder.decode(data, final=not data)
            except UnicodeDecodeError as error:
                line += error.object.count(b"\n", 0, error.start)
                yield _not_utf8(path, line, error)
                return
            line += text.count("\n")
            if separator is None:
                parts.append(text)
            else:
                *done, rest = parting.split(parts[0] + text)
                yield from (TextDocument(x) for x in map(_unmarked, done) if x.strip())
                parts = [rest]
            size = size + len(data) if separator is None else len(parts[0])
            if size > LONGEST:
                yield UnusableDocument(
                    f"{path}, line {line}: a document of more than {LONGEST:,} bytes; give the "
                    "domain the `separator` that parts its documents, or split the file"
                )
                return
            if not data:
                break
    text = _unmarked("".join(parts))
    if separator is None or text.strip():
        yield TextDocument(text)


def _unmarked(text: str) -> str:
    return text.lstrip(MARK)


def _rows(path: Path, packing: str, field: str, *, whole: bool) -> Iterator[Document]:
    """Rows of JSON, one a line; if `whole`, the file may also be one list of rows, or one row."""
    with open_compressed(path, packing) as stream:
        if whole and not _starts_with_a_row(stream):
            yield from _one_value(path, packing, field)
            return
    with open_compressed(path, packing) as stream:
        number = 0
        while line := stream.readline(LONGEST + 1):
            number += 1
            place = f"{path}, line {number}"
            if len(line) > LONGEST:
                yield UnusableDocument(f"{place}: more than {LONGEST:,} bytes; split its document")
                while line and not line.endswith(b"\n"):
                    line = stream.readline(CHUNK)
                continue
            try:
                text = line.decode()
            except UnicodeDecodeError as error:
                yield _not_utf8(path, number, error)
                continue
            escaped = b"\\u" in line
            line = b" "  # of a long row there is room for one copy
            text = text.strip(_BLANK)
            if text:
                row = _parsed(text, place)
                del text
                yield _text(row, field, place, escaped=escaped)


def _starts_with_a_row(stream: BinaryIO) -> bool:
    line = b""
    while not line.strip(_BLANK.encode()):
        line = stream.readline(LONGEST)
        if not line:
            return True
    return isinstance(_parsed(line.decode("utf-8-sig", "replace"), ""), dict)


def _one_value(path: Path, packing: str, field: str) -> Iterator[Document]:
    with open_compressed(path, packing) as stream:
        data = stream.read(LONGEST + 1)
    if len(data) > LONGEST:
        raise DataError(
            f"{path} is one value of more than {LONGEST:,} bytes: write a row a line, for example "
            f"with `jq -c '.[]'`"
        )
    try:
        value = _parsed(data.decode("utf-8-sig"), str(path))
    except UnicodeDecodeError as error:
        yield _not_utf8(path, data.count(b"\n", 0, error.start) + 1, error)
        return
    for number, row in enumerate(value if isinstance(value, list) else [value], 1):
        yield _text(row, field, f"{path}, row {number}", escaped=b"\\u" in data)


def _parsed(text: str, place: str) -> Any:
    """A value of JSON, or why it is none; whole numbers, which are not used, may have any length"""
    try:
        return json.loads(text, parse_int=len)
    except RecursionError:
        return UnusableDocument(f"{place}: nested too deeply to be read")
    except ValueError as error:
        return UnusableDocument(f"{place}: malformed JSON: {error}")


def _text(row: Any, field: str, place: str, *, escaped: bool) -> Document:
    """The text of a JSON row, checked."""
    if isinstance(row, UnusableDocument):
        return row
    if not isinstance(row, dict):
        return UnusableDocument(f"{place}: a row is a JSON object; found {type(row).__name__}")
    if field not in row:
        names = ", ".join(row)[:300] or "nothing"
        return UnusableDocument(f"{place}: no field {field!r}; the row has: {names}")
    text = row[field]
    if not isinstance(text, str):
        what = "null" if text is None else f"{type(text).__name__}, not text"
        return UnusableDocument(f"{place}: field {field!r} is {what}")
    if escaped:
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            return UnusableDocument(
                f"{place}: half of a surrogate pair at character {error.start} of {field!r}; "
                "such text has no UTF-8 form"
            )
    return TextDocument(text)


def _table(path: Path, field: str) -> Iterator[Document]:
    row = 0
    with path.open("rb") as file:
        schema, batches = table_batches(path, file, [field])
        if schema.names.count(field) != 1:
            which = "two columns are called" if field in schema.names else "no column"
            raise DataError(f"{path}: {which} {field!r}; it has: {', '.join(schema.names)}")
        holds = schema.field(field).type
        inner = holds.value_type if pa.types.is_dictionary(holds) else holds
        if not any(test(inner) for test in _TEXT):
            raise DataError(f"{path}: column {field!r} holds {holds}, not text")
        for batch in batches:
            column = _sound(batch.column(field))
            for start in range(0, len(column), ROWS_AT_ONCE):
                for text in _texts(column.slice(start, ROWS_AT_ONCE), field):
                    row += 1
                    good = isinstance(text, str)
                    bad = "" if good else f"{path}, row {row}: {text.why}"
                    yield TextDocument(text) if good else UnusableDocument(bad)


def _texts(column: Any, field: str) -> Iterable[Any]:
    """Of a few rows the text, or what is wrong; together where they are short and all UTF-8."""
    if column.nbytes <= LONGEST:
        with suppress(UnicodeDecodeError):
            null = UnusableDocument(f"column {field!r} is null")
            return [
                null if x is None else x for x in column.view(_STRINGS[column.type]).to_pylist()
            ]
    return (_one(value.as_buffer(), field) for value in column)


def _one(raw: Any, field: str) -> str | UnusableDocument:
    if raw is None:
        return UnusableDocument(f"column {field!r} is null")
    if raw.size > LONGEST:
        return UnusableDocument(f"more than {LONGEST:,} bytes; split its document")
    try:
        return str(memoryview(raw), "utf-8")
    except UnicodeDecodeError:
        return UnusableDocument(f"column {field!r} holds text that is not UTF-8")


def _sound(column: Any) -> Any:
    """Bytes of a column whose offsets lie within it: Arrow itself reads wherever they point."""
    if pa.types.is_dictionary(column.type):
        column.validate(full=True)
        column = column.dictionary_decode()
    column = column.view(_BYTES.get(column.type, column.type))  # text is checked row by row
    column.validate(full=True)
    return column


_BYTES = {
    pa.string(): pa.binary(), pa.large_string(): pa.large_binary(),
    pa.string_view(): pa.binary_view(),
}  # fmt: skip
_STRINGS = {plain: text for text, plain in _BYTES.items()}
_TEXT: tuple[Callable[[Any], bool], ...] = (
    pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view,
    pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view,
)  # fmt: skip


def table_batches(
    path: Path, file: BinaryIO, fields: Sequence[str], *, buffer: int = 0
) -> tuple[Any, Iterator[Any]]:
    """The schema of a table, and its rows a few at a time.

    Args:
        path: of the table, whose name says its kind.
        file: the same, open.
        fields: columns that are wanted; all come where it has not these.
        buffer: bytes read together; 0: a whole column of a group of rows.
    """
    if file_kind(path)[0] == ".parquet":
        table = pq.ParquetFile(file, buffer_size=buffer)
        names = list(fields) if set(fields) <= set(table.schema_arrow.names) else None
        return table.schema_arrow, table.iter_batches(ROWS_AT_ONCE, columns=names)
    try:
        reader = pa.ipc.open_file(file)
        return reader.schema, map(reader.get_batch, range(reader.num_record_batches))
    except pa.ArrowInvalid:  # not a file of Arrow's, so perhaps a stream, as `datasets` writes
        file.seek(0)
        stream = pa.ipc.open_stream(file)
        return stream.schema, iter(stream)


def _not_utf8(path: Path, line: int, error: UnicodeDecodeError) -> UnusableDocument:
    byte = error.object[error.start]
    return UnusableDocument(
        f"{path}, line {line}: byte 0x{byte:02x} is not UTF-8; convert the file (iconv) first"
    )
