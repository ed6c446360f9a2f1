"""Attributes of documents in columns beside the shards: a row for each document, in their order.

They are a parquet file for each domain and split, with the columns that the recipe keeps (`id` and
`attributes`) and, where near-duplicates are removed, `cluster_size`. They are verified with the
rest of a corpus and are no part of a domain's identity.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cuvee.proxies.data.files import file_digest

CLUSTER = "cluster_size"
Rows = Sequence[Mapping[str, Any]]


def write_attributes(path: Path, groups: Callable[[], Iterator[Rows]]) -> dict[str, str]:
    """Writes a file of attributes, which is read twice: first for the types of its columns.

    A column whose values have no type in common, of all groups, is written as text.

    Args:
        path: of the file.
        groups: rows of all documents, in order, some at a time.

    Returns:
        The sha256 by the file's name; nothing where no document has attributes.
    """
    types: dict[str, pa.DataType] = {}
    for rows in groups():
        for name in dict.fromkeys(name for row in rows for name in row):
            types[name] = _common(types.get(name, pa.null()), _column(rows, name).type)
    if not types:
        return {}
    schema = pa.schema([(name, types[name]) for name in sorted(types, key=_place)])
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for rows in groups():
            columns = [_column(rows, field.name, field.type) for field in schema]
            writer.write_table(pa.table(columns, schema=schema))
    return {path.name: file_digest(path)}


def _place(name: str) -> tuple[int, str]:
    return {"id": 0, CLUSTER: 2}.get(name, 1), name


def _common(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    """The type that holds the values of both; text where there is none."""
    schemas = [pa.schema([("x", kind)]) for kind in (one, other)]
    try:
        return pa.unify_schemas(schemas, promote_options="permissive").field("x").type
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.string()


def _column(rows: Rows, name: str, kind: pa.DataType | None = None) -> pa.Array:
    """The values of a column; as text where they have no type, or where that is their type."""
    values = [row.get(name) for row in rows]
    if kind != pa.string():
        try:
            return pa.array(values, kind)
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
            pass
    texts = (
        value if value is None or isinstance(value, str) else json.dumps(value) for value in values
    )
    return pa.array(list(texts), pa.string())
