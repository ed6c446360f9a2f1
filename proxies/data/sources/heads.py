"""The head of a text file: its first rows or characters, without reading the rest.

For whoever must know what a file holds before anything is read whole: which field of its rows is
text, how much of its bytes is text, and why it cannot be used.
"""

import codecs
import csv
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cuvee.mixtures.errors import CuveeError
from cuvee.proxies.data.sources.compression import DAMAGED, damaged_file_error, open_compressed
from cuvee.proxies.data.sources.readers import MARK
from cuvee.proxies.data.sources.rows import field_value
from cuvee.proxies.data.sources.source_files import LINES, SHEETS, TABLES, file_kind
from cuvee.proxies.data.sources.tables import nested_column, nested_type, table_batches

HEAD = 1 << 17  # bytes of a file that are looked at, unless one row is longer
LONGEST_ROW = 1 << 24  # bytes of one row that are looked at
ROWS = 64  # of a table
TEXT = "text"  # the field that a recipe takes where it names none
PACKED = 3.0  # bytes of text in a byte of packed text (assumption), where a file is larger than
UNPACKED = 1 << 21  # bytes, which are unpacked to know it
DEEPEST = 4  # fields within fields that are looked at
GROUPS = 1000  # groups of rows whose sizes are added up
NUL = "\x00"


@dataclass(frozen=True)
class FileHead:
    """What the first bytes of a file hold.

    Attributes:
        path: of the file.
        texts: by field; plain text has the one field "".
        rows: that were looked at; 0 for plain text.
        share: by field, bytes of text in a byte of the file.
        why: the reason for which nothing of it was seen, in a sentence; "" if there is none.
        sound: whether it may be read whole nevertheless: its first row is too long for a look.
        refused: whether no reading gets past it, rows that are skipped or not.
    """

    path: Path
    texts: Mapping[str, tuple[str, ...]]
    rows: int = 0
    share: Mapping[str, float] | None = None
    why: str = ""
    sound: bool = False
    refused: bool = False

    @property
    def plain(self) -> bool:
        """Whether it is plain text, which has no fields."""
        return not self.rows


def read_head(path: Path) -> FileHead:
    """The head of a file of a known kind; what cannot be read is told in its `why`."""
    ending, packing = file_kind(path)
    try:
        if path.stat().st_size == 0:
            return FileHead(path, {}, why=f"{path} is empty")
        if ending in TABLES:
            return _table_head(path)
        if ending in LINES or ending == ".json":
            return _rows_head(path, packing)
        if ending in SHEETS:
            return _sheet_head(path, packing, "\t" if ending == ".tsv" else ",")
        return _plain_head(path, packing)
    except DAMAGED as error:
        return FileHead(path, {}, why=str(damaged_file_error(path, error)), refused=True)
    except CuveeError as error:
        return FileHead(path, {}, why=str(error), refused=True)
    except OSError as error:
        why = f"{path} cannot be read: {error.strerror or error}"
        return FileHead(path, {}, why=why, refused=True)


def text_field(heads: Sequence[FileHead]) -> str:
    """The field that holds the text of files: `text` where most rows have it, or the longest.

    "" where the files are plain text, or no row holds any text.
    """
    sizes: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    for head in heads:
        for name, texts in head.texts.items():
            sizes[name] += sum(map(len, texts))
            counts[name] += sum(1 for text in texts if text.strip())
    rows = sum(head.rows for head in heads)
    if counts[TEXT] * 2 > rows:
        return TEXT
    return max((n for n in counts if counts[n]), key=lambda n: (sizes[n], n), default="")


def _plain_head(path: Path, packing: str) -> FileHead:
    with open_compressed(path, packing) as stream:
        data = stream.read(HEAD)
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(data).lstrip(MARK)
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        return FileHead(path, {}, why=f"{path}: byte 0x{byte:02x} is not UTF-8")
    if NUL in text:
        return FileHead(path, {}, why=f"{path} holds bytes of 0, as text does not")
    return FileHead(path, {"": (text,)}, share={"": _unpacked(path, packing)})


def _unpacked(path: Path, packing: str) -> float:
    """Bytes of content in a byte of a file."""
    if not packing:
        return 1.0
    with open_compressed(path, packing) as stream:
        size = len(stream.read(UNPACKED))
    return max(size / path.stat().st_size, 0.0 if size < UNPACKED else PACKED)


def _rows_head(path: Path, packing: str) -> FileHead:
    rows, size, found, line = [], 0, 0, b""
    with open_compressed(path, packing) as stream:
        while size < HEAD and (line := stream.readline(LONGEST_ROW)):
            size, found = size + len(line), found + bool(line.strip())
            rows += _objects(line)
    if not rows:
        with open_compressed(path, packing) as stream:
            rows, size = _listed(stream.read(LONGEST_ROW))
    if not rows and len(line) == LONGEST_ROW:
        return FileHead(path, {}, why=f"{path} begins with a very long row", sound=True)
    if not rows:
        return FileHead(path, {}, why=f"{path}: its first {found or 1} lines hold no row of JSON")
    return _of_rows(path, rows, size / _unpacked(path, packing))


def _sheet_head(path: Path, packing: str, delimiter: str) -> FileHead:
    """The first rows of a sheet; the last that is looked at may be cut, and is left out."""
    with open_compressed(path, packing) as stream:
        data = stream.read(HEAD)
    lines = data.decode("utf-8-sig", "replace").splitlines(keepends=True)
    try:
        cells = list(csv.reader(lines, delimiter=delimiter))
    except csv.Error as error:
        return FileHead(path, {}, why=f"{path} is no sheet: {error}")
    cells = cells[:-1] if len(data) == HEAD else cells
    rows = [dict(zip(cells[0], row, strict=False)) for row in cells[1:]]
    if not rows:
        return FileHead(path, {}, why=f"{path} has no rows")
    return _of_rows(path, rows, len(data) / _unpacked(path, packing))


def _objects(line: bytes) -> list[Any]:
    try:
        value = json.loads(line.decode("utf-8-sig"), parse_int=len)
    except (ValueError, RecursionError):
        return []
    return [value] if isinstance(value, dict) else []


def _listed(data: bytes) -> tuple[list[Any], int]:
    """The first rows of one list of rows, or the one row that a file is; and their bytes."""
    text, decoder = data.decode("utf-8-sig", "ignore").strip(), json.JSONDecoder(parse_int=len)
    rows: list[Any] = []
    at = 1 if text.startswith("[") else 0
    while len(rows) < ROWS:
        at += len(text[at:]) - len(text[at:].lstrip(" \t\r\n,"))
        try:
            value, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            break
        rows += [value] if isinstance(value, dict) else []
        if text[:1] != "[":
            break
    return rows, len(text[:at].encode())


def _of_rows(path: Path, rows: Sequence[Mapping[str, Any]], size: float) -> FileHead:
    """A head from rows that fill so many bytes of the file."""
    names = dict.fromkeys(name for row in rows for name in _field_names(row))
    values = {name: [field_value(row, name) for row in rows] for name in names}
    texts = {n: tuple(x for x in found if isinstance(x, str)) for n, found in values.items()}
    texts = {name: found for name, found in texts.items() if found}
    share = {name: _bytes(found) / max(size, 1.0) for name, found in texts.items()}
    why = "" if texts else f"{path}: its rows have no field of text; they have: "
    why += ", ".join(map(str, names))[:300] if why else ""
    return FileHead(path, texts, rows=len(rows), share=share, why=why)


def _field_names(row: Mapping[str, Any], within: str = "", depth: int = 1) -> Iterator[str]:
    """The fields of a row, and "a.b" for b within a, as a recipe names them."""
    for name, value in row.items():
        if isinstance(value, Mapping) and depth < DEEPEST:
            yield from _field_names(value, f"{within}{name}.", depth + 1)
        else:
            yield f"{within}{name}"


def _bytes(texts: Iterable[str]) -> int:
    return sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)


def _table_head(path: Path) -> FileHead:
    with path.open("rb") as file:
        ending = file_kind(path)[0]
        schema = table_batches(ending, file, [])[0]
        names = [n for n in _text_columns(schema) if nested_type(schema, n) is not None]
        if not names:
            return FileHead(path, {}, why=f"{path} has no column of text", refused=True)
        file.seek(0)
        _, batches, _ = table_batches(ending, file, names, buffer=HEAD)
        rows: list[Any] = []
        for batch in batches:
            columns = [nested_column(batch.slice(0, ROWS), name) for name in names]
            for column in columns:
                column.validate(full=True)  # Arrow reads wherever damaged offsets point
            cells = zip(*(column.to_pylist() for column in columns), strict=True)
            rows += [dict(zip(names, row, strict=True)) for row in cells]
            if len(rows) >= ROWS:
                break
    if not rows:
        return FileHead(path, {}, why=f"{path} has no rows")
    head = _of_rows(path, [{n: _decoded(v) for n, v in row.items()} for row in rows], 1.0)
    return FileHead(path, head.texts, head.rows, _table_shares(path, head), head.why)


def _decoded(value: Any) -> Any:
    return value.decode("utf-8") if isinstance(value, bytes) else value


def _text_columns(fields: Iterable[Any], within: str = "", depth: int = 1) -> list[str]:
    """Columns that hold text, by type, those within others too; each name that stands once.

    Bytes are text only in columns that are called so.
    """
    names: list[str] = []
    for field in fields:
        kind = field.type
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
        text = text or pa.types.is_string_view(kind)
        raw = pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
        if text or (raw and field.name == TEXT):
            names.append(f"{within}{field.name}")
        elif pa.types.is_struct(kind) and depth < DEEPEST:
            names += _text_columns(kind, f"{within}{field.name}.", depth + 1)
    counts = Counter(names)
    return [name for name in names if counts[name] == 1]


def _table_shares(path: Path, head: FileHead) -> dict[str, float]:
    """Bytes of each column, unpacked, in a byte of the file; by the head alone where none says."""
    size = max(path.stat().st_size, 1)
    total = max(1.0, sum(map(_bytes, head.texts.values())))
    known = {name: _bytes(found) / total for name, found in head.texts.items()}
    if file_kind(path)[0] != ".parquet":
        return known
    metadata = pq.read_metadata(path)
    sums: Counter[str] = Counter()
    count = min(metadata.num_row_groups, GROUPS)
    for group in (metadata.row_group(i) for i in range(count)):
        for column in (group.column(i) for i in range(group.num_columns)):
            sums[column.path_in_schema] += column.total_uncompressed_size
    whole = metadata.num_row_groups / max(count, 1)
    return {name: sums[name] * whole / size for name in head.texts}
