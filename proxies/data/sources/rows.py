"""A row of JSON, of a sheet or of a table as a document: its text, its id, what is kept beside."""

import functools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from cuvee.mixtures.errors import DataError
from cuvee.proxies.data.sources.documents import FILTERED, Document, TextDocument, UnusableDocument
from cuvee.proxies.data.sources.row_filter import FilterError, RowFilter

NUL = "\0"
DIGITS = 18  # of a whole number that is kept as one; a longer one is kept as a fraction
ABSENT = object()


@dataclass(frozen=True)
class RowFields:
    """What is read of a row. Names are keys or columns; "a.b" is b within a.

    Attributes:
        text: with the text.
        id: with the document's id; "" for none.
        attributes: that are kept beside the text.
        filter: says which rows are wanted; None: all.
    """

    text: str = "text"
    id: str = ""
    attributes: tuple[str, ...] = ()
    filter: RowFilter | None = None

    @property
    def others(self) -> tuple[str, ...]:
        """The fields beside the text that are kept."""
        return tuple(dict.fromkeys(name for name in (self.id, *self.attributes) if name))

    @property
    def beside(self) -> tuple[str, ...]:
        """The fields beside the text that are read."""
        asked = self.filter.names if self.filter else ()
        return tuple(dict.fromkeys((*self.others, *asked)))


class RowReader:
    """Rows of one file, or of a part of it, as documents.

    Args:
        fields: what is read of them.
        url: of the file, for messages.
    """

    def __init__(self, fields: RowFields, url: str) -> None:
        self._fields, self._url = fields, url
        self._kinds: dict[str, tuple[str, str]] = {}  # of attributes, and where it was seen
        self._unseen = set(fields.others)
        self._example = ""

    def document(self, row: Any, place: str, *, escaped: bool) -> Document:
        """The document of a row, checked; `escaped` where it may hold what has no UTF-8 form."""
        if isinstance(row, UnusableDocument):
            return row
        if not isinstance(row, Mapping):
            return UnusableDocument(f"{place}: a row is a JSON object; found {type(row).__name__}")
        left_out = self.left_out(row, place)
        if left_out is not None:
            return left_out
        name = self._fields.text
        text = row.get(name, ABSENT) if name in row else field_value(row, name)
        if text is ABSENT:
            names = ", ".join(row)[:300] or "nothing"
            return UnusableDocument(f"{place}: no field {name!r}; the row has: {names}")
        if not isinstance(text, str):
            what = "null" if text is None else f"{type(text).__name__}, not text"
            return UnusableDocument(f"{place}: field {name!r} is {what}")
        wrong = unfit_text(text, name, escaped=escaped)
        if wrong:
            return UnusableDocument(f"{place}: {wrong}")
        return self.with_others(text, row, place, escaped=escaped)

    def left_out(self, row: Mapping[str, Any], place: str) -> Document | None:
        """What stands for a row that the filter does not want or can say nothing of, else None."""
        try:
            wanted = self._fields.filter is None or self._fields.filter.keeps(row)
        except FilterError as error:
            return UnusableDocument(f"{place}: {error}")
        return None if wanted else FILTERED

    def with_others(
        self, text: str, row: Mapping[str, Any], place: str, *, escaped: bool
    ) -> Document:
        """A document of a text that was checked, with the other fields of its row."""
        fields = self._fields
        if not fields.others:
            return TextDocument(text)
        values = {name: field_value(row, name) for name in fields.others}
        self._example = self._example or ", ".join(map(str, row))
        self._unseen -= {name for name, value in values.items() if value is not ABSENT}
        kept = {name: None if v is ABSENT else v for name, v in values.items()}
        if escaped:
            for name, value in kept.items():
                wrong = unfit_text(json.dumps(value, ensure_ascii=False), name, escaped=True)
                if wrong:
                    return UnusableDocument(f"{place}: {wrong}")
        for name in fields.attributes:
            if kept[name] is not None:
                kind = _kind_named(kept[name])
                first, where = self._kinds.setdefault(name, (kind, place))
                if first != kind:
                    return UnusableDocument(
                        f"{place}: field {name!r} is {kind}, and {first} in {where}"
                    )
        given = kept.get(fields.id)
        attributes = {name: kept[name] for name in fields.attributes}
        return TextDocument(text, "" if given is None else str(given), attributes)

    def close(self) -> None:
        """To be called after the last row of a whole file.

        Raises:
            DataError: a field that no row had, which is misspelled rather than missing.
        """
        if self._unseen and self._example:
            raise DataError(
                f"no row of {self._url} has a field {min(self._unseen)!r}; they have: "
                f"{self._example[:300]}"
            )


def field_value(row: Mapping[str, Any], name: str) -> Any:
    """The value of a field, ABSENT if the row has none; "a.b" is b within a."""
    if name in row:
        return row[name]
    outer, dot, inner = name.partition(".")
    within = row.get(outer) if dot else None
    return field_value(within, inner) if isinstance(within, Mapping) else ABSENT


def unfit_text(text: str, name: str, *, escaped: bool) -> str:
    """What is wrong with a text, in words; "" if nothing is."""
    if NUL in text:
        return f"a character of code 0 (NUL) at {text.index(NUL)} of {name!r}, as text has none"
    if escaped and not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            if 0xDC80 <= ord(text[error.start]) <= 0xDCFF:
                byte = ord(text[error.start]) - 0xDC00
                return (
                    f"byte 0x{byte:02x} in {name!r} is not UTF-8, or half of a surrogate pair; "
                    "convert the file (iconv) first"
                )
            return (
                f"half of a surrogate pair at character {error.start} of {name!r}; such text has "
                "no UTF-8 form"
            )
    return ""


def not_utf8(place: str, error: UnicodeDecodeError) -> UnusableDocument:
    """What is said of bytes that are not UTF-8."""
    byte = error.object[error.start]
    return UnusableDocument(
        f"{place}: byte 0x{byte:02x} is not UTF-8; convert the file (iconv) first"
    )


def has_nul(place: str) -> UnusableDocument:
    """What is said of text with bytes of 0."""
    return UnusableDocument(
        f"{place}: a byte of 0 (NUL), as text has none; is it UTF-16, or no text at all?"
    )


def _kind_named(value: Any) -> str:
    kinds = {str: "text", int: "a number", float: "a number", bool: "true or false", list: "a list"}
    return kinds.get(
        type(value), "a group of fields" if isinstance(value, dict) else type(value).__name__
    )


def _whole_number(digits: str) -> int | float:
    """A whole number of JSON, which may have any length there."""
    return int(digits) if len(digits) <= DIGITS else float(digits)


@functools.cache
def _decoder() -> Callable[[str], Any]:
    return json.JSONDecoder(parse_int=_whole_number).decode


def parsed_json(text: str, place: str) -> Any:
    """A value of JSON, or why it is none."""
    try:
        return _decoder()(text)
    except RecursionError:
        return UnusableDocument(f"{place}: nested too deeply to be read")
    except ValueError as error:
        return UnusableDocument(f"{place}: malformed JSON: {error}")
