"""Text of plain values: YAML, and Python source whose only data are literals."""

import pprint
from collections.abc import Mapping
from typing import Any

import yaml

READ = """
def _value(row: dict | None, field: str) -> str | None:
    if row is None or field in row:
        return row and row[field]
    outer, _, inner = field.partition(".")
    return _value(row.get(outer), inner) if inner else None


def _lifted(row: dict, field: str) -> dict:
    return {"text": _value(row, field)}


def _divided(rows: dict, separator: str) -> dict:
    parts = [part for text in rows["text"] for part in text.split(separator)]
    return {"text": [part for part in parts if part.strip()]}


def _filled(row: dict) -> bool:
    return bool(row["text"] and row["text"].strip())


def _documents(source: dict, field: str, separator: str | None) -> IterableDataset:
    part = load_dataset(**{"split": "train", **source}, streaming=True)
    if "." in field:
        part, field = part.map(_lifted, fn_kwargs={"field": field}), "text"
    part = part.select_columns([field])
    if field != "text":
        part = part.rename_column(field, "text")
    if separator is not None:
        part = part.map(_divided, batched=True, fn_kwargs={"separator": separator})
    part = part.filter(_filled)
    return part.cast(Features({"text": Value("string")}))
"""

DEALER = '''
def _dealt(shares: list, drawn: list) -> int:
    """Who is next: of those behind their share of what is drawn, the one that is due first."""
    total = sum(drawn) + 1
    behind = [i for i, share in enumerate(shares) if drawn[i] < share * total]
    return min(behind, key=lambda i: (drawn[i] + 1) / shares[i])

'''  # no share is ever off by a whole unit


class _Plain(yaml.SafeDumper):
    """Writes what occurs twice twice, not as an alias, which not every reader knows."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def yaml_text(value: Any) -> str:
    """YAML, in the order of the values."""
    return yaml.dump(value, Dumper=_Plain, sort_keys=False)


def python_assignments(constants: Mapping[str, Any]) -> str:
    """Constants as assignments. Values are plain, so that what is written is only data."""
    lines = []
    for name, value in constants.items():
        lines.append(f"{name} = {pprint.pformat(value, width=96, sort_dicts=False)}")
    return "\n".join(lines) + "\n"


def python_module(about: str, constants: str, body: str) -> str:
    """A module: what it is, its constants, its code. `about` may hold any text."""
    safe = about.replace("\\", "\\\\").replace('"""', "'''")
    return f'"""{safe}\n"""\n\n{constants}\n{body.strip()}\n'
