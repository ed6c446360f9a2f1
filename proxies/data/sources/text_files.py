"""A user's own text files as a source of documents: which files its paths name, and their parts."""

import glob
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from fsspec.utils import glob_translate

from cuvee.mixtures.errors import CuveeError, DataError
from cuvee.proxies.data.files import file_digest
from cuvee.proxies.data.sources.documents import (
    Document,
    ReadPart,
    TextDocument,
    UnusableDocument,
)
from cuvee.proxies.data.sources.row_filter import RowFilter
from cuvee.proxies.data.sources.rows import RowFields
from cuvee.proxies.data.sources.source_files import (
    KNOWN,
    LINES,
    PACKINGS,
    PROSE,
    SHEETS,
    TABLES,
    TEXTS,
    ListingProgress,
    StoredFile,
    changed_sentence,
    file_kind,
    file_packing,
    file_state,
    is_url,
    list_objects,
    local_path,
    shown_url,
    url_name,
)

NAMED = 5  # files that were passed over, named in one sentence
SPLIT = 1 << 28  # bytes of a file that are read together where its format can be parted
FORMATS = {
    "text": ".txt", "jsonl": ".jsonl", "json": ".json", "csv": ".csv", "tsv": ".tsv",
    "parquet": ".parquet", "arrow": ".arrow",
}  # fmt: skip
Found = tuple[tuple[StoredFile, ...], tuple[str, ...]]  # what is read, and what is passed over


@dataclass(frozen=True)
class Files:
    """Documents in files.

    Attributes:
        path: a file, a folder (searched for what can be read), a glob ("**" descends), or several;
            paths, or URLs that fsspec opens.
        field: the name of the text in rows of JSON and columns of tables; "a.b" is b within a.
        separator: what parts the documents of plain text; a file is one document if it is None.
        skip: whether what cannot be used is yielded as `UnusableDocument`, not refused.
        digest: of a file's bytes; one that remembers makes `identity` cheap.
        id: the field with a document's id; "" for none.
        attributes: fields that are kept beside the text.
        format: of `FORMATS`, whatever the files are called; "" goes by their names.
        glob: patterns of the files that are read of a folder, whatever they are; none: those that
            hold text by their names.
        named: whether files may be named alone beside patterns for folders.
        filter: which rows are read, as `RowFilter` reads it; "" for all.
        part_bytes: of a file that are read together where its format can be parted.
    """

    view: ClassVar[bool] = False  # text is never used where it lies

    path: str | tuple[str, ...]
    field: str = "text"
    separator: str | None = None
    skip: bool = False
    digest: Callable[[Path], str] = file_digest
    id: str = ""
    attributes: tuple[str, ...] = ()
    format: str = ""
    glob: tuple[str, ...] = ()
    named: bool = False
    filter: str = ""
    part_bytes: int = SPLIT

    def __post_init__(self) -> None:
        if self.separator == "":
            raise DataError("an empty separator parts nothing; leave it out for one per file")

    def __getstate__(self) -> dict[str, Any]:
        """Without what was listed and hashed: workers read parts, and need none of it."""
        return {**self.__dict__, "digest": file_digest} | {"_listed": None}

    @property
    def _paths(self) -> tuple[str, ...]:
        return (self.path,) if isinstance(self.path, str) else tuple(self.path)

    @property
    def shown(self) -> str:
        """The paths in a sentence."""
        return ", ".join(map(shown_url, self._paths))

    def list_files(self, progress: ListingProgress = lambda count: None) -> Found:
        """What is read, of each path sorted by name, and what lies beside it; looked for once.

        Args:
            progress: called with the number of files seen, while a long listing goes on.

        Raises:
            DataError: nothing is there, or a file is of a kind that cannot be read.
        """
        if self.__dict__.get("_listed") is None:
            self.__dict__["_listed"] = self._list(progress)
        found: Found = self.__dict__["_listed"]
        return found

    def _list(self, progress: ListingProgress) -> Found:
        read: dict[str, StoredFile] = {}
        left: list[str] = []
        for path in self._paths:
            try:
                found, more = self._at(path, progress)
            except (OSError, RuntimeError, ValueError) as error:  # no such user, a long name, ...
                raise DataError(f"{self.shown} cannot be looked for: {error}") from error
            read |= {file.url: file for file in found if file.url not in read}
            left += more
        kinds = {self.kind(file.url)[0] for file in read.values()}
        if self.separator is not None and not kinds & {*TEXTS, *PROSE}:
            raise DataError(
                f"{self.shown} holds no plain text that the separator {self.separator!r} could "
                "part: leave it out"
            )
        if self.filter and kinds & {*TEXTS, *PROSE}:
            raise DataError(
                f"{self.shown} holds plain text, which has no fields that filter {self.filter!r} "
                "could ask for: leave it out"
            )
        return tuple(read.values()), tuple(left)

    def kind(self, url: str) -> tuple[str, str]:
        """Ending and packing of a file, by the format that is given or by its name."""
        if self.format:
            return FORMATS[self.format], file_packing(url)
        found = file_kind(url)
        return found if found[0] or not self.glob else (TEXTS[0], file_packing(url))

    @property
    def files(self) -> tuple[StoredFile, ...]:
        """The files, of each path sorted by name, each once; raises what `list_files` does."""
        return self.list_files()[0]

    @property
    def passed_over(self) -> tuple[str, ...]:
        """What lies in the folders and is not read, hidden files aside."""
        return self.list_files()[1]

    @property
    def notice(self) -> str:
        """What is passed over, in a sentence; empty where all is read."""
        left = self.passed_over
        if not left:
            return ""
        names = ", ".join(map(url_name, left[:NAMED]))
        more = ", ..." if len(left) > NAMED else ""
        count = "1 file is" if len(left) == 1 else f"{len(left):,} files or folders are"
        return f"{count} not read beside {len(self.files):,} that are: {names}{more}"

    @property
    def most_tokens(self) -> float:
        """More tokens than this cannot be in the files: a byte each, and an end for every file.

        Infinite where a file is packed or a table, or where a server does not tell its size.
        """
        sizes = 0.0
        for file in self.files:
            ending, packing = self.kind(file.url)
            unknown = packing or ending in TABLES or (file.content and not file.size)
            sizes += float("inf") if unknown else file.size + 1
        return sizes

    @property
    def reading(self) -> str:
        """How files are read, whichever they are: what their documents depend on beside bytes."""
        given = [self.field, self.separator, self.skip, self.id, self.attributes, self.format]
        given += [RowFilter(self.filter).canonical] if self.filter else []
        return json.dumps(given)

    @property
    def identity(self) -> str:
        """Hash of the files' content in their order, and of how they are read."""
        digest = hashlib.sha256(self.reading.encode())
        for file in self.files:
            digest.update(f"\n{self._content(file)}".encode())
        return digest.hexdigest()

    def _content(self, file: StoredFile) -> str:
        """What a file holds and what it is read as."""
        if file.content:
            return "".join((file.content, *self.kind(file.url)))
        try:
            return "".join((self.digest(local_path(file.url)), *self.kind(file.url)))
        except OSError as error:
            raise DataError(f"{file.url} cannot be read: {error.strerror or error}") from error

    def parts(self) -> tuple[ReadPart, ...]:
        """The files, large ones in parts of about `part_bytes` where the format allows it.

        Raises:
            DataError: a file that cannot be read.
        """
        return tuple(part for file in self.files for part in self._parts(file))

    def _parts(self, file: StoredFile) -> Iterator[ReadPart]:
        (ending, packing), most = self.kind(file.url), self.part_bytes
        url = file.url if is_url(file.url) else str(local_path(file.url).absolute())
        content = self._content(file)
        ranges: list[tuple[int, int, int]] = []
        if file.size > most and ending in LINES and not packing:
            starts = range(0, file.size, most)
            ranges = [(at, at + most, min(most, file.size - at)) for at in starts]
        elif file.size > most and ending in TABLES:
            from cuvee.proxies.data.sources.tables import table_parts

            ranges = table_parts(file.url, ending, file.size, most)
        if len(ranges) < 2:
            yield ReadPart(url, size=file.size, content=content)
        for number, (start, stop, size) in enumerate(ranges if len(ranges) > 1 else [], 1):
            last = number == len(ranges)
            yield ReadPart(url, start, None if last else stop, size, content)

    def documents(self) -> Iterator[Document]:
        """The documents of all files; raises what `read` does."""
        for file in self.files:
            yield from self.read(ReadPart(file.url, size=file.size))

    def read(self, part: ReadPart) -> Iterator[Document]:
        """The documents of a file, or of a part of one.

        Raises:
            DataError: text that is not UTF-8, malformed JSON, a missing field, ... unless these
                are skipped; a file that changes or vanishes meanwhile. Names file and line.
            CorruptError: a file that breaks off.
        """
        from cuvee.proxies.data.sources import readers

        kind, url = self.kind(part.url), part.url
        known = part.content if is_url(url) else ""
        before = known.removesuffix("".join(kind)) or file_state(url)
        chosen = RowFilter(self.filter) if self.filter else None
        fields = RowFields(self.field, self.id, self.attributes, chosen)
        try:
            for document in readers.read_documents(part, kind, fields, self.separator):
                if isinstance(document, UnusableDocument) and document.empty:
                    document = document if self._names(url) else TextDocument("")
                if isinstance(document, UnusableDocument) and not self.skip:
                    raise DataError(
                        f"{document.why}. Mend it, or leave out what holds no text with "
                        "`corpus: {on_error: skip}`"
                    )
                yield document
        except CuveeError:
            if file_state(url) != before:
                raise DataError(changed_sentence(url)) from None
            raise
        if file_state(url) != before:
            raise DataError(changed_sentence(url))

    def _names(self, url: str) -> bool:
        """Whether a file is one of the paths, and not one of a folder or a glob."""
        if is_url(url):
            return url in self._paths
        near = (local_path(path).absolute() for path in self._paths if not is_url(path))
        return local_path(url).absolute() in near

    def _at(self, given: str, progress: ListingProgress) -> tuple[list[StoredFile], list[str]]:
        """The files that a path names, sorted, and what a folder holds beside them."""
        if is_url(given):
            found, folder = list_objects(given, progress)
            if folder:
                return self._of_folder(folder, found)
        else:
            path = local_path(given)
            if path.is_dir():
                return self._of_folder(f"{path}/", _within(path, progress))
            there = [path] if path.is_file() else sorted({*filter(Path.is_file, _expanded(path))})
            found = [_local(file) for file in there]
        if not found:
            raise DataError(
                f"no file at {shown_url(given)}; give a file, a folder or a glob such as "
                "data/*.jsonl"
            )
        if self.glob and not self.named:
            raise DataError(
                f"`glob` says which files of a folder are read, and {shown_url(given)} is no "
                "folder: leave it out (`format: text` reads a file as text, whatever it is called)"
            )
        for file in found:
            if not self.kind(file.url)[0]:
                raise DataError(
                    f"{shown_url(file.url)} is of a kind that cannot be read; known: {KNOWN}. "
                    "If it is one of these under another name, say which in `format`"
                )
        return found, []

    def _of_folder(
        self, folder: str, there: list[StoredFile]
    ) -> tuple[list[StoredFile], list[str]]:
        """What a folder is read for, and what is passed over."""

        def hidden(file: StoredFile) -> bool:
            return "/." in f"/{file.url.removeprefix(folder)}"

        if self.glob:
            what, left = f"that matches {', '.join(self.glob)}", []
            patterns = [re.compile(glob_translate(f"**/{pattern}")) for pattern in self.glob]
            chosen = [
                file
                for file in there
                if not hidden(file)
                and any(pattern.match(file.url.removeprefix(folder)) for pattern in patterns)
            ]
        else:
            what, wanted = f"of a kind that is read ({KNOWN})", self._wanted_kinds(there)
            there_of = [
                f.size >= 0
                and self.kind(f.url) in wanted
                and not (self.format and (hidden(f) or _is_marker(f)))
                for f in there
            ]
            chosen = [file for file, good in zip(there, there_of, strict=True) if good]
            left = [
                f.url for f, good in zip(there, there_of, strict=True) if not good and not hidden(f)
            ]
        if not chosen:
            names = ", ".join(file.name for file in there[:NAMED]) or "nothing"
            raise DataError(f"folder {folder[:-1]} holds no file {what}; it holds: {names}")
        return chosen, left

    def _wanted_kinds(self, there: Iterable[StoredFile]) -> set[tuple[str, str]]:
        """Those of a folder's kinds of files that hold text.

        Notes, programs and settings beside rows or .txt are no text: sheets are read where there is
        neither, prose where there are no sheets, and plain .json where there is nothing else.
        """
        known = {self.kind(file.url) for file in there if file.size >= 0} - {("", "")}
        weak = {(".json", ""), *((end, pack) for end in (*PROSE, *SHEETS) for pack in PACKINGS)}
        strong = known if self.format else known - weak
        sheets = {kind for kind in known if kind[0] in SHEETS}
        prose = {kind for kind in known if kind[0] in PROSE}
        return strong or sheets or prose or known


def _is_marker(file: StoredFile) -> bool:
    """Whether a file is what a writer of many files leaves beside them, such as _SUCCESS."""
    return file.name.startswith("_") and ("." not in file.name or not file.size)


def _local(path: Path) -> StoredFile:
    return StoredFile(str(path), path.stat().st_size)


def _within(folder: Path, progress: ListingProgress) -> list[StoredFile]:
    """All files below a folder, sorted; links that lead to none have size -1."""
    paths = []
    for number, path in enumerate(folder.rglob("*"), 1):
        if path.is_file() or path.is_symlink():
            paths.append(path)
        if number % 10_000 == 0:
            progress(number)
    return [_local(p) if p.is_file() else StoredFile(str(p), -1) for p in sorted(paths)]


def _expanded(pattern: Path) -> Iterator[Path]:
    """What matches a glob; "**" enters each folder once, however links lead to it."""
    if "**" not in pattern.parts:
        yield from map(Path, glob.glob(str(pattern)))
        return
    at = pattern.parts.index("**")
    rest = pattern.parts[at + 1 :] or ("*",)
    for base in glob.glob(str(Path(*pattern.parts[:at]))):
        seen: set[str] = set()
        for folder, inner, _ in os.walk(base, followlinks=True):
            real = os.path.realpath(folder)
            inner[:] = sorted(x for x in inner if not x.startswith(".") and real not in seen)
            if real not in seen:
                seen.add(real)
                yield from _expanded(Path(glob.escape(folder), *rest))
