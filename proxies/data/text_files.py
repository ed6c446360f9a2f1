"""A user's own text files as a source of documents: which files a domain's paths name, in parts."""

import glob
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from cuvee.mixtures.errors import DataError
from cuvee.proxies.data.documents import Document, ReadPart, UnusableDocument
from cuvee.proxies.data.files import (
    KNOWN,
    PACKINGS,
    PROSE,
    TABLES,
    TEXTS,
    file_digest,
    file_kind,
)

NAMED = 5  # files that were passed over, named in one sentence


@dataclass(frozen=True)
class Files:
    """Documents in files.

    Attributes:
        path: a file, a folder (searched for what can be read), a glob ("**" descends), or several.
        field: the name of the text in rows of JSON and columns of tables.
        separator: what parts the documents of plain text; a file is one document if it is None.
        skip: whether what cannot be used is yielded as `UnusableDocument`, not refused.
        digest: of a file's bytes; one that remembers makes `identity` cheap.
    """

    path: str | tuple[str, ...]
    field: str = "text"
    separator: str | None = None
    skip: bool = False
    digest: Callable[[Path], str] = file_digest

    def __post_init__(self) -> None:
        if self.separator == "":
            raise DataError("an empty separator parts nothing; leave it out for one per file")
        for path in self._paths:
            if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", path):
                raise DataError(
                    f"{path} is a URL, and text is read from this machine's files only: copy or "
                    "mount it, and give the path of the copy"
                )

    @property
    def _paths(self) -> tuple[str, ...]:
        return (self.path,) if isinstance(self.path, str) else tuple(self.path)

    @cached_property
    def _found(self) -> tuple[tuple[list[Path], list[Path]], ...]:
        try:
            found = tuple(map(_files, self._paths))
        except (OSError, RuntimeError, ValueError) as error:  # no such user, a name too long, ...
            raise DataError(f"{self.path} cannot be looked for: {error}") from error
        kinds = {file_kind(path)[0] for files, _ in found for path in files}
        if self.separator is not None and not kinds & {*TEXTS, *PROSE}:
            raise DataError(
                f"{self.path} holds no plain text that the separator {self.separator!r} could "
                "part: leave it out"
            )
        return found

    @property
    def files(self) -> tuple[Path, ...]:
        """The files, of each path sorted by name, each once.

        Raises:
            DataError: nothing is there, or a file is of a kind that cannot be read.
        """
        return tuple(dict.fromkeys(path for found, _ in self._found for path in found))

    @property
    def passed_over(self) -> tuple[Path, ...]:
        """What lies in the folders and is not read, hidden files aside."""
        return tuple(path for _, left in self._found for path in left)

    @property
    def notice(self) -> str:
        """What is passed over, in a sentence; empty where all is read."""
        left = self.passed_over
        if not left:
            return ""
        names = ", ".join(path.name for path in left[:NAMED])
        more = ", ..." if len(left) > NAMED else ""
        count = "1 file is" if len(left) == 1 else f"{len(left):,} files or folders are"
        return f"{count} not read beside {len(self.files):,} that are: {names}{more}"

    @property
    def most_tokens(self) -> float:
        """More tokens than this cannot be in the files: a byte each, and an end for every file.

        Infinite where a file is packed or a table.
        """
        sizes = 0.0
        for path in self.files:
            ending, packing = file_kind(path)
            packed = bool(packing) or ending in TABLES
            sizes += float("inf") if packed else path.stat().st_size + 1
        return sizes

    @property
    def identity(self) -> str:
        """Hash of the files' content in their order, and of how they are read."""
        parts: list[object] = [self.field, self.separator, self.skip]
        parts += [[*file_kind(Path(part.url)), part.content] for part in self.parts()]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def parts(self) -> tuple[ReadPart, ...]:
        """A part for each file.

        Raises:
            DataError: a file that cannot be read.
        """
        found = []
        for path in self.files:
            try:
                digest = self.digest(path)
                found.append(ReadPart(str(path), size=path.stat().st_size, content=digest))
            except OSError as error:
                raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
        return tuple(found)

    def documents(self) -> Iterator[Document]:
        """The documents of all files; raises what `read` does."""
        for path in self.files:
            yield from self.read(ReadPart(str(path)))

    def read(self, part: ReadPart) -> Iterator[Document]:
        """The documents of a file.

        Raises:
            DataError: text that is not UTF-8, malformed JSON, a missing field, ... unless these
                are skipped. The message names file and line.
            CorruptError: a file that breaks off.
        """
        from cuvee.proxies.data import readers

        for document in readers.read_documents(Path(part.url), self.field, self.separator):
            if isinstance(document, UnusableDocument) and not self.skip:
                raise DataError(
                    f"{document.why}. Mend it, or leave out what holds no text with "
                    "`corpus: {on_error: skip}`"
                )
            yield document


def _files(given: str) -> tuple[list[Path], list[Path]]:
    """The files that a path names, sorted, and what a folder holds beside them."""
    path = Path(given).expanduser()
    if path.is_dir():
        return _folder(path)
    found = [path] if path.is_file() else sorted({p for p in _expanded(path) if p.is_file()})
    if not found:
        raise DataError(f"no file at {path}; give a file, a folder or a glob such as data/*.jsonl")
    for file in found:
        if not file_kind(file)[0]:
            raise DataError(f"{file} is of a kind that cannot be read; known: {KNOWN}")
    return found, []


def _folder(folder: Path) -> tuple[list[Path], list[Path]]:
    """What a folder is read for, and what is passed over.

    Notes, programs and settings beside rows or .txt are no text: prose is read where there is
    neither, and plain .json where there is nothing else.
    """
    there = sorted(p for p in folder.rglob("*") if p.is_file() or p.is_symlink())
    kinds = {p: file_kind(p) if p.is_file() else ("", "") for p in there}
    weak = {(".json", ""), *((end, pack) for end in PROSE for pack in PACKINGS)}
    chosen = {p for p, k in kinds.items() if k[0] and k not in weak}
    chosen = chosen or {p for p, k in kinds.items() if k[0] in PROSE}
    chosen = chosen or {p for p, k in kinds.items() if k[0]}
    if not chosen:
        names = ", ".join(path.name for path in there[:NAMED]) or "nothing"
        raise DataError(
            f"folder {folder} holds no file of a kind that is read ({KNOWN}); it holds: {names}"
        )
    shown = (p for p in there if not any(x.startswith(".") for x in p.relative_to(folder).parts))
    return [p for p in there if p in chosen], [p for p in shown if p not in chosen]


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
