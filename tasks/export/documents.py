"""Documents of a domain as Hugging Face `datasets` reads them: the same ones that the study read.

A text file is one document, or what a separator parts, and never its lines; the text stands in the
column that the study read; a folder is written as patterns of its files, since `datasets` would
guess splits from their names.
"""

import glob
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cuvee.mixtures.errors import ExportError
from cuvee.proxies.data.sources.source_files import LINES, PROSE, SHEETS, TEXTS, file_kind
from cuvee.proxies.data.sources.text_files import Files
from cuvee.tasks.export.specification import ExportSpec

BUILDERS = {
    **dict.fromkeys((*TEXTS, *PROSE), "text"),
    **dict.fromkeys((*LINES, ".json"), "json"),
    **dict.fromkeys(SHEETS, "csv"),
    ".parquet": "parquet",
    ".arrow": "arrow",
}
TEXT = "text"  # the builder of text files, and the column that it makes


@dataclass(frozen=True)
class DocumentPaths:
    """How a domain's documents are read.

    Attributes:
        source: keywords of `load_dataset`.
        field: the column with the text.
        separator: what parts the documents of a text file; None: a file is one.
    """

    source: Mapping[str, Any]
    field: str
    separator: str | None

    @property
    def lines(self) -> bool:
        """Whether a trainer that cannot be told otherwise would take lines for documents."""
        return bool(self.source["path"] == TEXT)


def document_source(
    spec: ExportSpec, name: str, field: str | Mapping[str, str] = ""
) -> DocumentPaths:
    """How a domain's documents are read.

    Args:
        spec: with the domain's paths, its column and separator in the study.
        name: of the domain.
        field: a format's option: the column of all domains, or of those that it names.

    Raises:
        ExportError: its files are of several kinds, or cannot be told, or hold rows that the study
            left out.
    """
    require_whole(spec, name)
    source = _source(spec, name)
    given = field if isinstance(field, str) else field.get(name, "")
    column = given or spec.fields.get(name, TEXT)
    if source["path"] == TEXT:
        return DocumentPaths(source, TEXT, spec.separators.get(name))
    return DocumentPaths(source, column, None)


def require_whole(spec: ExportSpec, name: str) -> None:
    """Refuse files of which the study read a part of the rows alone.

    Raises:
        ExportError: says what to do.
    """
    if name in spec.filters:
        raise ExportError(
            f"domain {name!r} was studied through the filter {spec.filters[name]!r}, which a "
            "trainer that reads documents does not apply: write the rows that it keeps to files of "
            f"their own and name these in export.paths.{name}, or take a format that reads tokens"
        )


def check_field(form: str, field: str | Mapping[str, str]) -> None:
    """Refuse an option that is neither a column nor columns by domain.

    Raises:
        ExportError: says what it may be.
    """
    given = [field] if isinstance(field, str) else field
    values = list(given.values()) if isinstance(given, Mapping) else given
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ExportError(f"{form}.field is a column's name, or names by domain; got {field!r}")


def _source(spec: ExportSpec, name: str) -> dict[str, Any]:
    """The keywords of `load_dataset` for files of one kind, or for a name on the Hub."""
    paths = spec.paths[name]
    if len(paths) == 1 and _named(paths[0]):
        return {"path": paths[0]}
    files = [pattern for path in paths for pattern in _patterns(path, spec.endings.get(name, ()))]
    builders = sorted({_builder(path) for path in files})
    if len(builders) > 1:
        raise ExportError(
            f"the files of {name} are of several kinds ({', '.join(builders) or 'unknown'}), and "
            f"a data set is of one: name one kind in export.paths, such as {name}/*.jsonl"
        )
    if builders == [
        ""
    ]:  # not here, and of a kind that is not known: at least no splits are guessed
        return {"path": paths[0], "data_files": ["**"] if len(paths) == 1 else files}
    found: dict[str, Any] = {"path": builders[0], "data_files": files}
    tabs = builders == ["csv"] and all(file_kind(path)[0] == ".tsv" for path in files)
    found |= {"sep": "\t"} if tabs else {}
    return found | ({"sample_by": "document"} if builders == [TEXT] else {})


def _patterns(path: str, endings: Sequence[str]) -> list[str]:
    """A path as patterns of files: a folder as its files of each kind that the study reads.

    A folder that is not on this machine holds files of the study's `endings`.
    """
    place = Path(path).expanduser()
    if place.is_file():
        return [glob.escape(path)]
    if place.is_dir():
        endings = endings_of(Files(path))
    elif glob.has_magic(path) and not _builder(path) and glob.glob(path, recursive=True):
        return [glob.escape(file.url) for file in Files(path).files]
    elif _builder(path) or not endings:
        return [path]
    return [f"{glob.escape(path.rstrip('/'))}/**/*{ending}" for ending in endings]


def _named(path: str) -> bool:
    """Whether a path can only be a data set's name: `owner/name`, and nothing here is called so."""
    plain = "://" not in path and path[:1] not in ("", "/", ".", "~") and path.count("/") <= 1
    return bool(plain and path[-1] != "/" and not _builder(path) and not Path(path).exists())


def endings_of(files: Files) -> tuple[str, ...]:
    """The endings of files, as they are written, each with that of its packing."""
    found: dict[str, None] = {}
    for file in files.files:
        length = sum(map(len, file_kind(file.name)))
        found[file.name[len(file.name) - length :]] = None
    return tuple(sorted(found))


def _builder(path: str) -> str:
    """What reads files of a name's ending; "" where it tells nothing."""
    return BUILDERS.get(file_kind(Path(path))[0], "")
