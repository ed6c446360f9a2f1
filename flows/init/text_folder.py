"""What a folder of text holds: its domains, how their text is read, and what is left out and why.

Sub-folders are domains; so are files, if they hold rows or a table, or are few and large. A folder
within which all text lies in one other is looked at in its place. Only heads of files are read.
"""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cuvee.flows.init.draft import SCHEMA
from cuvee.flows.init.language import text_language
from cuvee.mixtures.errors import DataError
from cuvee.proxies.data.sources.heads import LONGEST_ROW, FileHead, read_head, text_field
from cuvee.proxies.data.sources.source_files import KNOWN, PROSE, TABLES, TEXTS, file_kind
from cuvee.proxies.data.sources.text_files import Files
from cuvee.tasks.escape import printable

LEAST = 100_000  # bytes of text of a domain: 16,384 tokens of six bytes each, and what is held out
MOST = 32  # domains: more make a study of more runs than a first one should have
HEADS = 6  # files of a domain that are looked into
FEW = 12  # files of plain text, so large that each is a domain
DEEPEST = 8  # folders within one another that are gone into
SHOWN = 5  # of what is left out
LONGEST = 60  # characters of a domain's name
SPLITS = {"train", "training", "test", "testing", "valid", "validation", "val", "dev", "eval"}
PART = r"(?:part|shard|chunk|split|batch|file)?[-_. ]*\d+(?:[-_ ]?of[-_ ]?\d+)?"
SHARD = re.compile(rf"(?:(?:^|[-_. ]+){PART})+$", re.IGNORECASE)  # the number of a file's part
SEPARATORS = ("\n<|endoftext|>\n", "<|endoftext|>", "\n%\n", "\n\n\n", "\n\n")  # tried in order
PARTS = 8  # of a head that a separator must give
IGNORED = {"node_modules", "__pycache__", "site-packages", "venv", "env", SCHEMA}  # no text


@dataclass(frozen=True)
class TextDomain:
    """Text that makes one domain.

    Attributes:
        name: of the domain.
        paths: as a recipe names them.
        files: how many files that are.
        text: bytes of text, estimated from heads of files.
        kinds: endings of the files.
        field: of their rows; "" for plain text.
        separator: of the documents in plain text; "" where a file is one.
        damaged: why some of it cannot be used; "" where nothing speaks against it.
        language: a code, or "".
    """

    name: str
    paths: tuple[Path, ...]
    files: int
    text: float
    kinds: tuple[str, ...]
    field: str = ""
    separator: str = ""
    damaged: str = ""
    language: str = ""


@dataclass(frozen=True)
class TextFolder:
    """The domains of a folder, and what was left out, a sentence each."""

    path: Path
    domains: tuple[TextDomain, ...]
    left_out: tuple[str, ...] = ()

    @property
    def text(self) -> float:
        """Bytes of text in all."""
        return sum(domain.text for domain in self.domains)


def look_at_text(folder: Path) -> TextFolder:
    """The domains that a folder holds.

    Raises:
        DataError: it is none, or its text makes fewer than two domains; says what was found.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder: give --corpus the folder that holds the text")
    at, left = folder, []
    for _ in range(DEEPEST):
        found, more = _domains(at)
        left += more
        inner = found[0].paths[0] if len(found) == 1 else at
        if inner == at or not inner.is_dir():
            break
        at = inner
    if len(found) < 2:
        raise DataError(_too_few(folder, found, left))
    if len(found) > MOST:
        found.sort(key=lambda domain: -domain.text)
        rest = found[MOST:]
        left.append(
            f"{len(rest)} domains beyond the {MOST} largest are left out, since each domain asks "
            f"for more runs ({_names([domain.name for domain in rest])}): move folders together, "
            "or add them to the recipe by hand"
        )
        found = found[:MOST]
    found.sort(key=lambda domain: domain.name)
    return TextFolder(at, tuple(found), tuple(left))


def _too_few(folder: Path, found: Sequence[TextDomain], left: Sequence[str]) -> str:
    what = f"makes one domain, {found[0].name!r}" if found else "holds no domain of text"
    why = f" ({'; '.join(left[:SHOWN])})" if left else ""
    return (
        f"{folder} {what}{why}, and a mixture needs two or more: put each kind of text into a "
        f"folder or a file of its own, at least {LEAST / 1000:.0f} KB each, of a kind that is read "
        f"({KNOWN})"
    )


def _domains(folder: Path) -> tuple[list[TextDomain], list[str]]:
    """What each entry of a folder makes, and what is left out."""
    found: list[TextDomain] = []
    left: list[str] = []
    taken: dict[str, int] = {}
    candidates = list(_candidates(folder, left))
    strong = any(_strong(files) for _, _, files in candidates)
    passed = [paths for _, paths, files in candidates if strong and not _strong(files)]
    if passed:
        names = [path.name for paths in passed for path in paths]
        left.append(
            f"{_names(names)}: notes or programs, which are not taken for text where there is "
            "other text"
        )
    for name, paths, files in candidates:
        if paths in passed:
            continue
        domain = _domain(_domain_name(name, taken), paths, files)
        if isinstance(domain, str):
            left.append(domain)
        else:
            found.append(domain)
    return found, left


def _candidates(
    folder: Path, left: list[str]
) -> Iterator[tuple[str, tuple[Path, ...], tuple[Path, ...]]]:
    """Names, paths and files of what may be a domain: sub-folders, and groups of loose files."""
    loose, seen = [], {os.path.realpath(folder)}
    for path in _entries(folder):
        if path.is_file():
            loose += [path] if file_kind(path)[0] else []
        elif path.is_dir():
            real = os.path.realpath(path)
            if any(one == real or one.startswith(real.rstrip("/") + "/") for one in seen):
                left.append(f"{_shown(path)} leads back to what is there already, and is left out")
                continue
            seen.add(real)
            try:
                yield path.name, (path,), tuple(Path(f.url) for f in Files(str(path)).files)
            except DataError as error:
                if not os.access(path, os.R_OK | os.X_OK):
                    left.append(f"{_shown(path)} may not be read, and is left out")
                elif "cannot be looked for" in str(error):
                    left.append(f"{_shown(path)} is left out: {printable(str(error))[:300]}")
    yield from _loose(folder, loose)


def _entries(folder: Path) -> list[Path]:
    """What lies in a folder and may be text, sorted: nothing hidden, no folder of programs.

    Raises:
        DataError: it cannot be looked into.
    """
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries)
    except OSError as error:
        raise DataError(f"{folder} cannot be looked into: {error.strerror or error}") from error
    return [folder / name for name in names if name[0] != "." and name not in IGNORED]


def _loose(
    folder: Path, files: Sequence[Path]
) -> Iterator[tuple[str, tuple[Path, ...], tuple[Path, ...]]]:
    """Loose files by what they are called without the numbers of their parts."""
    plain = [path for path in files if file_kind(path)[0] in (*TEXTS, *PROSE)]
    large = [path for path in plain if path.stat().st_size >= LEAST / 3]
    apart = len(plain) <= FEW and len(large) == len(plain)
    groups: dict[str, list[Path]] = {}
    for path in files:
        name = "" if path in plain and not apart else _group(path)
        groups.setdefault(name, []).append(path)
    if {name.lower() for name in groups} <= SPLITS:
        groups = {"": list(files)} if files else {}
    for name, paths in groups.items():
        yield name or folder.resolve().name or "text", tuple(paths), tuple(paths)


def _group(path: Path) -> str:
    """A file's name without its endings and the number of its part."""
    ending, packing = file_kind(path)
    stem = path.name[: len(path.name) - len(packing)]
    return SHARD.sub("", stem[: len(stem) - len(ending)])


def _domain(name: str, paths: tuple[Path, ...], files: tuple[Path, ...]) -> TextDomain | str:
    """A domain from its files, or the sentence that says why they make none."""
    where = _shown(paths[0]) + (f" and {len(paths) - 1} more" if len(paths) > 1 else "")
    if any(not _writable(str(path)) for path in paths):
        return f"{where} is left out: its name is not UTF-8, so that no recipe can name it"
    step = max(1, len(files) // HEADS)
    heads = [read_head(path) for path in files[::step][:HEADS]]
    good = [head for head in heads if not head.why]
    damaged = next((head.why for head in heads if head.why and not head.sound), "")
    if not good:
        why = damaged or f"{heads[0].why}, of more than {LONGEST_ROW / 1e6:.0f} MB: split it"
        return f"{where} is left out: {printable(why)[:300]}"
    field = text_field(good)
    refused = next((head.why for head in heads if head.refused), "") or _lacking(good, field)
    if refused:
        return f"{where} is left out: {printable(refused)[:300]}; mend that file or move it away"
    share = _share(good, field)
    text = share * sum(path.stat().st_size for path in files if path.exists())
    if text < LEAST:
        return (
            f"{where} is left out: about {text / 1000:,.0f} KB of text, and a domain needs at "
            f"least {LEAST / 1000:.0f} KB (add text, or move it into another folder)"
        )
    sample = "\n".join(t for head in good for t in head.texts.get(field if head.rows else "", ()))
    separator = _separator(good, files)
    if not separator and len(files) < 2 and not field:
        return (
            f"{where} is left out: one document, of which nothing can be held out (write a "
            "document a file, or part them by a mark and name it in `separator`)"
        )
    missing = any(len(head.texts.get(field, ())) < head.rows for head in good)  # or are not text
    damaged = damaged or (f"some rows have no text in {field!r}" if missing else "")
    kinds = tuple(sorted({"".join(file_kind(path)) for path in files}))
    return TextDomain(
        name, paths, len(files), text, kinds, field, separator, damaged, text_language(sample)
    )


def _lacking(heads: Sequence[FileHead], field: str) -> str:
    """Which table has no column of the text that the others have; "" where all have it."""
    tables = [head for head in heads if file_kind(head.path)[0] in TABLES]
    return next((f"{h.path} has no column {field!r}" for h in tables if field not in h.texts), "")


def _share(heads: Sequence[FileHead], field: str) -> float:
    """Bytes of text in a byte of files, by their heads."""
    sizes = [head.path.stat().st_size for head in heads]
    fields = [field if head.rows else "" for head in heads]
    shares = [(head.share or {}).get(name, 0.0) for head, name in zip(heads, fields, strict=True)]
    texts = [share * size for share, size in zip(shares, sizes, strict=True)]
    return sum(texts) / max(1, sum(sizes))


def _separator(heads: Sequence[FileHead], files: Sequence[Path]) -> str:
    """What parts documents in a few files of plain text; "" where a file is one."""
    if len(files) >= FEW or not all(head.plain for head in heads):
        return ""
    text = "\n".join(head.texts[""][0] for head in heads).replace("\r\n", "\n")
    return next((mark for mark in SEPARATORS if text.count(mark) >= PARTS), "")


def _strong(files: Sequence[Path]) -> bool:
    """Whether something other than notes, programs and settings is among files."""
    return any(file_kind(path)[0] not in (*PROSE, ".json") for path in files)


def _domain_name(name: str, taken: dict[str, int]) -> str:
    """A name that stands on one line, and once."""
    plain = re.sub(r"[^\w.+-]+", "_", printable(name)).strip("_.")[:LONGEST] or "text"
    taken[plain] = taken.get(plain, 0) + 1
    if taken[plain] == 1:
        return plain
    return _domain_name(f"{plain}_{taken[plain]}", taken)


def _writable(path: str) -> bool:
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _shown(path: Path) -> str:
    return repr(path.name) if not path.name.isprintable() else path.name


def _names(names: Sequence[str]) -> str:
    shown = ", ".join(printable(name)[:LONGEST] for name in names[:SHOWN])
    return shown if len(names) <= SHOWN else f"{shown} and {len(names) - SHOWN} more"
