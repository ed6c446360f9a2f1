"""Documents out of one file, or a part of it: text, rows of JSON or of a sheet, packed or not.

What holds no text that could be used (a null, a malformed row, bytes that are not UTF-8) is yielded
as `UnusableDocument`, with its place, for the caller to refuse or to count. One line and one
document are bounded, so that neither a damaged file nor one made to burst takes the machine's
memory.
"""

import codecs
import csv
import dataclasses
import re
from collections.abc import Iterator
from typing import BinaryIO

from cuvee.mixtures.errors import CuveeError, DataError
from cuvee.proxies.data.sources.compression import (
    DAMAGED,
    damaged_file_error,
    open_compressed,
    stored_bytes,
)
from cuvee.proxies.data.sources.documents import Document, ReadPart, TextDocument, UnusableDocument
from cuvee.proxies.data.sources.row_filter import Cell
from cuvee.proxies.data.sources.rows import (
    NUL,
    RowFields,
    RowReader,
    has_nul,
    not_utf8,
    parsed_json,
)
from cuvee.proxies.data.sources.source_files import LINES, SHEETS, TABLES, is_url, shown_url
from cuvee.proxies.data.sources.tables import table_documents

LONGEST = 1 << 28  # bytes of one line or one document (assumption: what is longer is a dump)
CHUNK = 1 << 20  # bytes of plain text decoded together
MARK = "\ufeff"  # a byte order mark, which belongs to no text
_BLANK = MARK + " \t\r\n"
NEWLINE = b"\n"


def read_documents(
    part: ReadPart, kind: tuple[str, str], fields: RowFields, separator: str | None
) -> Iterator[Document]:
    """The documents of a file, or of a part of one.

    Args:
        part: which; its start and stop are bytes of unpacked lines, or groups of rows of a table.
        kind: ending and packing, as `file_kind` gives them.
        fields: what is read of rows and tables.
        separator: what parts the documents of plain text; None: the file is one.

    Raises:
        DataError: the file cannot be read, or the table has no such column of text.
        CorruptError: it breaks off or is damaged.
    """
    (ending, packing), url, named = kind, part.url, shown_url(part.url)
    try:
        if ending in TABLES:
            yield from table_documents(part, ending, fields, LONGEST)
            return
        lines = ending in LINES or (ending == ".json" and _starts_with_a_row(url, packing))
        with open_compressed(url, packing) as stream:
            if not stream.peek(1) and not stored_bytes(stream):
                yield UnusableDocument(f"{named} is empty; remove it or fill it", empty=True)
            elif lines:
                yield from _rows(stream, dataclasses.replace(part, url=named), fields)
            elif ending == ".json":
                yield from _one_value(stream, named, fields)
            elif ending in SHEETS:
                yield from _sheet(stream, named, fields, "\t" if ending == ".tsv" else ",")
            elif separator is None:
                yield _plain(stream, named)
            else:
                yield from _parted(stream, named, separator)
    except CuveeError:
        raise
    except DAMAGED as error:
        raise damaged_file_error(named, error) from error
    except OSError as error:
        if error.errno is None and not is_url(url):  # how Arrow and bz2 report a broken stream
            raise damaged_file_error(named, error) from error
        raise DataError(f"{named} cannot be read: {error.strerror or error}") from error


def _plain(stream: BinaryIO, url: str) -> Document:
    """A file of plain text as one document, decoded a chunk at a time."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    line, parts, size = 1, [""], 0
    for data in iter(lambda: stream.read(CHUNK), None):
        try:
            text = decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            line += error.object.count(b"\n", 0, error.start)
            return not_utf8(f"{url}, line {line}", error)
        if NUL in text:
            line += text.count("\n", 0, text.index(NUL))
            return has_nul(f"{url}, line {line}")
        line += text.count("\n")
        parts.append(text)
        size += len(data)
        if size > LONGEST:
            return _too_long(f"{url}, line {line}")
        if not data:
            break
    return TextDocument("".join(parts).lstrip(MARK))


def _parted(stream: BinaryIO, url: str, separator: str) -> Iterator[Document]:
    """Plain text in parts, each decoded alone, so that a bad one costs no other."""
    mark = re.compile(re.escape(separator.encode()).replace(b"\\\n", b"\r?\n"))  # Windows
    reach = 2 * len(separator.encode())
    begun, line, searched, lost = bytearray(), 1, 0, False
    for data in iter(lambda: stream.read(CHUNK), None):
        begun += data
        start = 0
        for found in list(mark.finditer(begun, searched)):
            raw, start = bytes(begun[start : found.start()]), found.end()
            if not lost:
                yield from _part(raw, url, line)
            lost = False
            line += raw.count(b"\n") + found[0].count(b"\n")
        if not data:
            break
        del begun[:start]
        if len(begun) > LONGEST:
            if not lost:
                yield _too_long(f"{url}, line {line}")
            line, lost = line + begun.count(b"\n", 0, len(begun) - reach), True
            del begun[:-reach]
        searched = max(0, len(begun) - reach)
    if not lost:
        yield from _part(bytes(begun[start:]), url, line)


def _part(raw: bytes, url: str, line: int) -> Iterator[Document]:
    try:
        text = raw.decode().lstrip(MARK)
    except UnicodeDecodeError as error:
        yield not_utf8(f"{url}, line {line + raw.count(NEWLINE, 0, error.start)}", error)
        return
    if NUL in text:
        yield has_nul(f"{url}, line {line + text.count(NEWLINE.decode(), 0, text.index(NUL))}")
    elif text.strip():
        yield TextDocument(text)


def _rows(stream: BinaryIO, part: ReadPart, fields: RowFields) -> Iterator[Document]:
    """Rows of JSON, one a line: those of which the first byte lies in the part."""
    reader, number, at = RowReader(fields, part.url), 0, part.start
    if part.start:
        stream.seek(part.start - 1)
        at = part.start - 1 + _rest_of_line(stream)
    while (part.stop is None or at < part.stop) and (line := stream.readline(LONGEST + 1)):
        number += 1
        place = f"{part.url}, line " + (f"{number}" if not part.start else f"at byte {at:,}")
        at += len(line)
        if len(line) > LONGEST:
            yield UnusableDocument(f"{place}: more than {LONGEST:,} bytes; split its document")
            at += _rest_of_line(stream) if not line.endswith(b"\n") else 0
            continue
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            yield not_utf8(place, error)
            continue
        escaped = b"\\u" in line
        line = b" "  # of a long row there is room for one copy
        text = text.strip(_BLANK)
        if text:
            row = parsed_json(text, place)
            del text
            yield reader.document(row, place, escaped=escaped)
    if part.start == 0 and part.stop is None:  # one part of many may well lack a field
        reader.close()


def _rest_of_line(stream: BinaryIO) -> int:
    """Goes to the line after this one, however long it is; the bytes that were passed over."""
    size = 0
    while line := stream.readline(CHUNK):
        size += len(line)
        if line.endswith(b"\n"):
            break
    return size


def _starts_with_a_row(url: str, packing: str) -> bool:
    line = b""
    with open_compressed(url, packing) as stream:
        while not line.strip(_BLANK.encode()):
            line = stream.readline(LONGEST)
            if not line:
                return True
    return isinstance(parsed_json(line.decode("utf-8-sig", "replace"), ""), dict)


def _one_value(stream: BinaryIO, url: str, fields: RowFields) -> Iterator[Document]:
    """A file that is one list of rows, or one row."""
    data = stream.read(LONGEST + 1)
    if len(data) > LONGEST:
        raise DataError(
            f"{url} is one value of more than {LONGEST:,} bytes: write a row a line, for example "
            f"with `jq -c '.[]'`"
        )
    try:
        value = parsed_json(data.decode("utf-8-sig"), url)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        yield not_utf8(f"{url}, line {line}", error)
        return
    reader = RowReader(fields, url)
    for number, row in enumerate(value if isinstance(value, list) else [value], 1):
        yield reader.document(row, f"{url}, row {number}", escaped=b"\\u" in data)
    reader.close()


def _sheet(stream: BinaryIO, url: str, fields: RowFields, delimiter: str) -> Iterator[Document]:
    """Rows of a sheet, whose first row names the columns; a quoted cell may hold ends of lines."""
    csv.field_size_limit(LONGEST)
    rows = csv.reader(_sheet_lines(stream, url), delimiter=delimiter, strict=True)
    names: list[str] = []
    reader = RowReader(fields, url)
    while True:
        place = f"{url}, line {rows.line_num + 1}"
        try:
            row = next(rows, None)
        except csv.Error as error:
            if not names:
                raise DataError(f"{place}: the row that names the columns: {error}") from error
            yield UnusableDocument(f"{place}: {error}")
            continue
        if row is None:
            break
        if not names:
            names = row
            wanted = (fields.text, *fields.beside)
            wrong = next((name for name in wanted if names.count(name) != 1), None)
            if wrong is not None:
                which = "two columns are called" if wrong in names else "no column"
                raise DataError(f"{url}: {which} {wrong!r}; it has: {', '.join(names)}")
        elif row and len(row) != len(names):
            why = f"{len(row)} cells under {len(names)} names of columns"
            yield UnusableDocument(f"{place}: {why}")
        elif row:
            cells = map(Cell, row) if fields.filter else row
            yield reader.document(dict(zip(names, cells, strict=True)), place, escaped=True)
    reader.close()


def _sheet_lines(stream: BinaryIO, url: str) -> Iterator[str]:
    """Lines of a sheet; bytes that are not UTF-8 come as surrogates, by which their row is told."""
    while line := stream.readline(LONGEST + 1):
        if len(line) > LONGEST:
            raise DataError(f"a line of more than {LONGEST:,} bytes in {url}")
        yield line.decode("utf-8", "surrogateescape").lstrip(MARK)


def _too_long(place: str) -> UnusableDocument:
    return UnusableDocument(
        f"{place}: a document of more than {LONGEST:,} bytes; give the domain the `separator` that "
        "parts its documents, or split the file"
    )
