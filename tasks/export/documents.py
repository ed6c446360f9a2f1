"""Documents of a domain as Hugging Face `datasets` reads them: the same ones that the study read.

A text file is one document, or what a separator parts, and never its lines; the text stands in the
column that the study read; a folder is written as patterns of its files, since `datasets` would
guess splits from their names.
"""

import dataclasses
import glob
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, ClassVar

from cuvee.mixtures.errors import ExportError
from cuvee.proxies.data.sources.source_files import (
    LINES,
    MAGIC,
    PROSE,
    SHEETS,
    TEXTS,
    file_kind,
    file_packing,
    is_url,
    local_path,
)
from cuvee.proxies.data.sources.text_files import Files
from cuvee.tasks.export.specification import DOCUMENTS, ExportSpec, StudiedText


@dataclass(frozen=True)
class DocumentRows:
    """What formats of rows, each a document of one path, have in common.

    Attributes:
        field: the column with the text, or columns by domain; by default those of the study.
    """

    name: ClassVar[str]

    field: str | Mapping[str, str] = ""
    staged: ClassVar[bool] = False
    unit: ClassVar[str] = DOCUMENTS
    needs: ClassVar[frozenset[str]] = frozenset({"path", "counts", "documents"})

    def __post_init__(self) -> None:
        check_field(self.name, self.field)

    def delivered(self, spec: ExportSpec) -> dict[str, float]:
        return spec.documents.tokens(spec.documents.rounded())


BUILDERS = {
    **dict.fromkeys((*TEXTS, *PROSE), "text"),
    **dict.fromkeys((*LINES, ".json"), "json"),
    **dict.fromkeys(SHEETS, "csv"),
    ".parquet": "parquet",
    ".arrow": "arrow",
}
PLAIN = (".jsonl", ".json", ".csv", ".parquet", ".arrow")  # files that every reader of rows knows
TEXT = "text"  # the builder of text files, and the column that it makes


@dataclass(frozen=True)
class DocumentPaths:
    """How a domain's documents are read.

    Attributes:
        source: keywords of `load_dataset`; its split is "train" where it says none.
        field: the column with the text.
        separator: what parts the documents of a text file; None: a file is one.
        nested: whether `field` may be one within another.
    """

    source: Mapping[str, Any]
    field: str
    separator: str | None = None
    nested: bool = False

    @property
    def lines(self) -> bool:
        """Whether a trainer that cannot be told otherwise would take lines for documents."""
        return bool(self.source["path"] == TEXT)


def document_source(
    spec: ExportSpec, name: str, field: str | Mapping[str, str] = ""
) -> DocumentPaths:
    """How a domain's documents are read.

    Args:
        spec: with the domain's paths, and how the study read it.
        name: of the domain.
        field: a format's option: the column of all domains, or of those that it names.

    Raises:
        ExportError: its files are of several kinds, or cannot be told, or are tokens, or hold rows
            that the study left out.
    """
    studied = spec.sources.get(name, StudiedText())
    if studied.own and (studied.files.filter or studied.tokens):
        raise ExportError(_not_for_readers(name, studied))
    source = _source(spec, name, studied)
    if source["path"] == TEXT:
        return DocumentPaths(source, TEXT, studied.files.separator)
    given = field if isinstance(field, str) else field.get(name, "")
    column = given or studied.files.field
    return DocumentPaths(source, column, nested="." in column and not given)


def _not_for_readers(name: str, studied: StudiedText) -> str:
    """Why no trainer that reads documents can be given what the study read of a domain."""
    if studied.tokens:
        return (
            f"domain {name!r} lies in token files ({studied.tokens}), which a trainer that reads "
            f"documents cannot take: name its text in export.paths.{name}, or take a format that "
            "reads tokens"
        )
    return (
        f"domain {name!r} was studied through the filter {studied.files.filter!r}, which a "
        "trainer that reads documents does not apply: write the rows that it keeps to files of "
        f"their own and name these in export.paths.{name}, or take a format that reads tokens"
    )


def check_top_level(form: str, spec: ExportSpec, name: str, read: DocumentPaths) -> None:
    """Refuse a field within another to a trainer that knows columns alone.

    Raises:
        ExportError: says what to do.
    """
    if read.nested:
        raise ExportError(
            f"the text of {name} is the field {read.field!r}, one within another, and {form} takes "
            f"columns alone: write its documents as .jsonl with a column of its own, name that in "
            f"{spec.place}, or choose huggingface; if a column is called so, say it in "
            f"export.formats.{form.lower()}.field"
        )


def rows_source(
    form: str, spec: ExportSpec, name: str, field: str | Mapping[str, str] = ""
) -> DocumentPaths:
    """How a domain's documents are read by a trainer that takes the rows of files as they are.

    Raises:
        ExportError: it would take lines for documents, or another column; and as `document_source`.
    """
    read, path = document_source(spec, name, field), spec.path(name)
    if read.lines:
        raise ExportError(
            f"{form} takes the lines of {path} for documents, and the study of {name} took whole "
            "files or what a separator parts: write its documents as .jsonl, and name that in "
            f"{spec.place}, or choose huggingface"
        )
    if "sep" in read.source:
        raise ExportError(
            f"{form} reads sheets that commas part, and those of {name} are parted by tabs: write "
            f"them as .jsonl, and name that in {spec.place}, or choose huggingface"
        )
    check_top_level(form, spec, name, read)
    return read


def file_rows(
    form: str, spec: ExportSpec, name: str, field: str | Mapping[str, str] = ""
) -> DocumentPaths:
    """As `rows_source`, for a trainer that takes one plain file on a disk, or a data set's name.

    Raises:
        ExportError: the domain lies in a folder, in packed files, or in object storage.
    """
    read, path = rows_source(form, spec, name, field), spec.path(name)
    plain = Path(path).suffix in PLAIN and not glob.has_magic(path) and not is_url(path)
    if "data_files" in read.source and not plain:
        raise ExportError(
            f"{form} takes one file ({', '.join(PLAIN)}) on a disk that it sees, and the path of "
            f"{name} is {path}: name such a file in export.paths, or choose huggingface"
        )
    return read


def whole_path(form: str, spec: ExportSpec, name: str) -> str:
    """The only path of a domain, for a trainer that joins it to the folder of the export.

    Raises:
        ExportError: it is relative.
    """
    path = spec.path(name)
    if not (is_url(path) or Path(path).is_absolute()):
        raise ExportError(
            f"{form} would look for {path} in the folder of the export: name the whole path of "
            f"{name} in export.paths"
        )
    return path


def check_field(form: str, field: str | Mapping[str, str]) -> None:
    """Refuse an option that is neither a column nor columns by domain.

    Raises:
        ExportError: says what it may be.
    """
    given = [field] if isinstance(field, str) else field
    values = list(given.values()) if isinstance(given, Mapping) else given
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ExportError(f"{form}.field is a column's name, or names by domain; got {field!r}")


def _source(spec: ExportSpec, name: str, studied: StudiedText) -> dict[str, Any]:
    """The keywords of `load_dataset` for files of one kind, or for a data set by its name."""
    paths = spec.paths[name]
    if studied.own and studied.dataset:
        return dict(studied.dataset)
    if len(paths) == 1 and _named(paths[0]):
        return {"path": paths[0]}
    files = [pattern for path in paths for pattern in _patterns(path, studied.files)]
    kinds = {(not studied.own and file_kind(p)[0]) or studied.files.kind(p)[0] for p in files}
    builders = sorted({BUILDERS.get(kind, "") for kind in kinds})
    if len(builders) > 1:
        raise ExportError(
            f"the files of {name} are of several kinds ({', '.join(builders) or 'unknown'}), and "
            f"a data set is of one: name one kind in {spec.place}, such as {name}/*.jsonl"
        )
    if builders == [""]:  # not here, and of no known kind: at least no splits are guessed
        return {"path": paths[0], "data_files": ["**"] if len(paths) == 1 else files}
    found: dict[str, Any] = {"path": builders[0], "data_files": files}
    found |= {"sep": "\t"} if kinds == {".tsv"} else {}
    return found | ({"sample_by": "document"} if builders == [TEXT] else {})


def _patterns(path: str, studied: Files) -> list[str]:
    """A path as patterns of what the study would read of it: a folder as its files of each kind.

    A folder that is not on this machine holds files called as the study's are.
    """
    place = local_path(path)
    there = dataclasses.replace(studied, path=path, separator=None, filter="")
    if place.is_file():
        return [glob.escape(path)]
    folder, magic = place.is_dir(), glob.has_magic(path)
    if magic and not file_kind(path)[0] and glob.glob(path, recursive=True):
        return [glob.escape(file.url) for file in there.files]
    if not folder and (file_kind(path)[0] or magic or (studied.format and place.suffix)):
        return [path]
    endings = _endings(there if folder else studied)
    names = studied.glob or tuple(f"*{ending}" for ending in endings)
    unread = there.passed_over if folder else ()
    if any(fnmatch(Path(url).name, name) for url in unread for name in names):
        return [glob.escape(file.url) for file in there.files]
    return [f"{glob.escape(path.rstrip('/'))}/**/{name}" for name in names] or [path]


def same_text(given: Sequence[str], studied: Sequence[str]) -> bool:
    """Whether paths are some of those that the study read, or a folder and its own pattern."""

    def places(path: str) -> set[str]:
        whole = path if is_url(path) else str(local_path(path).absolute())
        base = MAGIC.split(whole, maxsplit=1)[0]
        return {whole.rstrip("/"), base.rpartition("/")[0] if base != whole else whole.rstrip("/")}

    return any(places(one) & places(other) for one in given for other in studied)


def _named(path: str) -> bool:
    """Whether a path can only be a data set's name: `owner/name`, and nothing here is called so."""
    plain = "://" not in path and path[:1] not in ("", "/", ".", "~") and path.count("/") <= 1
    return bool(plain and path[-1] != "/" and not file_kind(path)[0] and not Path(path).exists())


def _endings(files: Files) -> tuple[str, ...]:
    """The endings of files, each with that of its packing; of URLs by what the recipe calls them,
    since nothing is listed."""
    paths = (files.path,) if isinstance(files.path, str) else files.path
    if any(map(is_url, paths)):
        return tuple(sorted({"".join(file_kind(path)) for path in paths} - {""}))
    found = set()
    for file in files.files:
        packing = file_packing(file.name)
        plain = file.name[: len(file.name) - len(packing)]
        found.add(Path(plain).suffix + file.name[len(plain) :])
    return tuple(sorted(found))
