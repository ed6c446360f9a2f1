"""Documents out of tables, parquet and Arrow, by groups of rows, of every type of text."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cuvee.mixtures.errors import DataError
from cuvee.proxies.data.sources.documents import Document, ReadPart, TextDocument, UnusableDocument
from cuvee.proxies.data.sources.rows import RowFields, RowReader, unfit_text
from cuvee.proxies.data.sources.source_files import open_stored, shown_url

ROWS_AT_ONCE = 256  # of a table; 1,024 are no faster and hold more of long documents
BUFFER = 1 << 20  # bytes of a column that are read together, so that no group of rows sets memory


def table_documents(
    part: ReadPart, ending: str, fields: RowFields, longest: int
) -> Iterator[Document]:
    """The documents of a table, or of some groups of its rows.

    Args:
        part: its start and stop are groups of rows, or batches.
        ending: of the table's kind.
        fields: columns.
        longest: bytes of a document at most.

    Raises:
        DataError: it has no such column of text.
    """
    url = shown_url(part.url)
    reader = RowReader(fields, url)
    with open_stored(part.url, seeking=True) as file:
        if not file.read(1):
            yield UnusableDocument(f"{url} is empty; remove it or fill it")
            return
        file.seek(0)
        names = (fields.text, *fields.beside)
        schema, batches, row = table_batches(
            ending, file, names, groups=(part.start, part.stop), buffer=BUFFER
        )
        _check_columns(url, schema, fields)
        for batch in batches:
            column = _sound(nested_column(batch, fields.text))
            for name in fields.beside:
                nested_column(batch, name).validate(full=True)
            for start in range(0, len(column), ROWS_AT_ONCE):
                texts = _texts(column.slice(start, ROWS_AT_ONCE), fields.text, longest)
                beside = _beside(batch.slice(start, ROWS_AT_ONCE), fields.beside)
                for text, others in zip(texts, beside, strict=True):
                    row += 1
                    place = f"{url}, row {row}"
                    left_out = reader.left_out(others, place)
                    wrong = text.why if isinstance(text, UnusableDocument) else ""
                    wrong = wrong or unfit_text(text, fields.text, escaped=False)
                    if left_out is not None:
                        yield left_out
                    elif wrong:
                        yield UnusableDocument(f"{place}: {wrong}")
                    elif fields.others:
                        yield reader.with_others(text, others, place, escaped=False)
                    else:
                        yield TextDocument(text)


def _beside(batch: Any, names: Sequence[str]) -> Iterable[dict[str, Any]]:
    """The other fields of a few rows."""
    if not names:
        return ({} for _ in range(batch.num_rows))
    columns = [nested_column(batch, name).to_pylist() for name in names]
    return (dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True))


def _check_columns(url: str, schema: Any, fields: RowFields) -> None:
    for name in (fields.text, *fields.beside):
        if schema.names.count(name) > 1 or nested_type(schema, name) is None:
            which = "two columns are called" if name in schema.names else "no column"
            raise DataError(f"{url}: {which} {name!r}; it has: {', '.join(schema.names)}")
    holds = nested_type(schema, fields.text)
    inner = holds.value_type if pa.types.is_dictionary(holds) else holds
    if not any(test(inner) for test in _TEXT):
        raise DataError(f"{url}: column {fields.text!r} holds {holds}, not text")


def nested_type(schema: Any, name: str) -> Any:
    """The type of a column, which "a.b" names within a; None where there is none."""
    if name in schema.names:
        return schema.field(schema.names.index(name)).type
    outer, *inner = name.split(".")
    kind = schema.field(schema.names.index(outer)).type if outer in schema.names else None
    for step in inner:
        if kind is None or not pa.types.is_struct(kind) or kind.get_field_index(step) < 0:
            return None
        kind = kind.field(kind.get_field_index(step)).type
    return kind


def nested_column(batch: Any, name: str) -> Any:
    """A column of a few rows, which "a.b" names within a."""
    if name in batch.schema.names:
        return batch.column(name)
    outer, *inner = name.split(".")
    column = batch.column(outer)
    column.validate()
    return pc.struct_field(column, inner)


def _texts(column: Any, field: str, longest: int) -> Iterable[Any]:
    """Of a few rows the text, or what is wrong; together where they are short and all UTF-8."""
    if column.nbytes <= longest:
        with suppress(UnicodeDecodeError):
            null = UnusableDocument(f"column {field!r} is null")
            return [
                null if x is None else x for x in column.view(_STRINGS[column.type]).to_pylist()
            ]
    return (_one(value.as_buffer(), field, longest) for value in column)


def _one(raw: Any, field: str, longest: int) -> str | UnusableDocument:
    if raw is None:
        return UnusableDocument(f"column {field!r} is null")
    if raw.size > longest:
        return UnusableDocument(f"more than {longest:,} bytes; split its document")
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
    ending: str,
    file: BinaryIO,
    names: Sequence[str],
    *,
    groups: tuple[int, int | None] = (0, None),
    buffer: int = 0,
) -> tuple[Any, Iterator[Any], int]:
    """The schema of a table, its rows a few at a time, and the rows before the first of them.

    Args:
        ending: of the table's kind.
        file: the table, open.
        names: columns that are wanted; all come where it has not these.
        groups: of rows, or batches: from which on, and before which.
        buffer: bytes of a column read together; 0: all of it in a group of rows.
    """
    start, stop = groups
    if ending == ".parquet":
        table = pq.ParquetFile(file, buffer_size=buffer)
        schema = table.schema_arrow
        there = all(nested_type(schema, name) is not None for name in names)
        chosen = list(range(table.num_row_groups))[start:stop]
        before = sum(table.metadata.row_group(i).num_rows for i in range(start))
        columns = list(names) if there else None
        return schema, table.iter_batches(ROWS_AT_ONCE, row_groups=chosen, columns=columns), before
    try:
        reader = pa.ipc.open_file(file)
        chosen = list(range(reader.num_record_batches))[start:stop]
        before = sum(reader.get_batch(i).num_rows for i in range(start))
        return reader.schema, map(reader.get_batch, chosen), before
    except pa.ArrowInvalid:  # not a file of Arrow's, so perhaps a stream, as `datasets` writes
        file.seek(0)
        stream = pa.ipc.open_stream(file)
        return stream.schema, iter(stream), 0


def table_parts(url: str, ending: str, size: int, wanted: int) -> list[tuple[int, int, int]]:
    """Groups of rows that are read together: first, the one after the last, bytes.

    Of a file of Arrow's, whose batches do not tell their sizes, the bytes are shared out evenly; a
    stream has but one part.
    """
    with open_stored(url, seeking=True) as file:
        if ending == ".parquet":
            table = pq.ParquetFile(file).metadata
            groups = (table.row_group(i) for i in range(table.num_row_groups))
            sizes = [
                sum(group.column(i).total_compressed_size for i in range(group.num_columns))
                for group in groups
            ]
        else:
            try:
                count = pa.ipc.open_file(file).num_record_batches
            except pa.ArrowInvalid:
                return []
            sizes = [size // max(1, count)] * count
    parts, first, total = [], 0, 0
    for i, one in enumerate(sizes, 1):
        total += one
        if total >= wanted or i == len(sizes):
            parts.append((first, i, total))
            first, total = i, 0
    return parts
