"""A prepared corpus on disk: its manifest, its files, whether they are what was written."""

import contextlib
import hashlib
import json
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from cuvee.mixtures.domains import Domain, DomainSet
from cuvee.mixtures.errors import CorruptError, DataError
from cuvee.mixtures.runs.run_spec import BY_NAMES, RunSpec
from cuvee.proxies.data.files import file_digest
from cuvee.proxies.data.node_cache import NodeCache
from cuvee.proxies.data.objects import ObjectFolder, is_remote
from cuvee.proxies.data.shards import SPLITS, Shard, TokenArray, map_array, token_type
from cuvee.proxies.data.sources.source_files import is_url
from cuvee.proxies.data.token_views import ViewedFile, open_view

FORMAT = 2
READABLE = (1, 2)  # 1: identities over files, nothing said of what is held out
HELD_KEYS = "heldout.keys"  # of the documents that a study holds out, 16 bytes each, sorted
MANIFEST, TOKENIZER = "manifest.json", "tokenizer.json"  # the manifest is written last
BLOCK = 1 << 24  # bytes of a view that are written together
Views = Mapping[tuple[str, str], Mapping[str, Any]]
FileTimes = tuple[tuple[str, int, int, int, int], ...]  # what the file system says of every file
_verified: dict[Path, FileTimes] = {}  # corpora whose bytes this process has hashed, as they were


def write_manifest(root: Path, body: Mapping[str, Any]) -> None:
    """Writes manifest.json with a digest of itself; the last act of preparing a corpus."""
    (root / MANIFEST).write_bytes(_sealed_text({**body, "format": FORMAT}))


def _sealed_text(body: Mapping[str, Any]) -> bytes:
    sealed = {key: value for key, value in body.items() if key != "digest"}
    text = json.dumps({**sealed, "digest": _seal(sealed)}, indent=1, sort_keys=True)
    return f"{text}\n".encode()


def read_manifest(root: Path) -> dict[str, Any]:
    """The manifest of a prepared corpus.

    Raises:
        DataError: no corpus is there, or one of another format.
        CorruptError: the manifest is not what was written.
    """
    try:
        raw = (root / MANIFEST).read_bytes()
    except FileNotFoundError:
        raise DataError(
            f"no prepared corpus in {root}: manifest.json is missing; prepare it first"
        ) from None
    return _checked_manifest(raw, root / MANIFEST)


def _checked_manifest(raw: bytes, path: Path | str) -> dict[str, Any]:
    """The body of a manifest; see `read_manifest`."""
    try:
        body = json.loads(raw)
    except ValueError as error:
        raise _corrupt(path, f"it cannot be read ({error})") from None
    if not isinstance(body, dict) or "digest" not in body:
        raise _corrupt(path, "it is not a manifest")
    if _seal({key: value for key, value in body.items() if key != "digest"}) != body["digest"]:
        raise _corrupt(path, "its content does not match its own digest")
    if body.get("format") not in READABLE:
        raise DataError(f"{path} has format {body.get('format')}, not {FORMAT}; prepare it again")
    found: dict[str, Any] = body
    return found


def _seal(body: Mapping[str, Any]) -> str:
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _corrupt(path: Path | str, what: str) -> CorruptError:
    return CorruptError(f"{path} is corrupt: {what}; prepare the corpus again to replace it")


@dataclass(frozen=True)
class Corpus:
    """A prepared corpus on disk.

    Attributes:
        root: the folder.
        tokenizer_path: the tokenizer in the format of Hugging Face `tokenizers`.
        vocabulary: number of token ids.
        eot: id of the end-of-text token.
        domains: in the order they were prepared; sizes are those of the training split.
        look: size and times of every file when it was opened, by which `check` sees a change.
        folders: of each domain, under `root`.
        views: what the manifest says of splits that are views, by folder and split.
    """

    root: Path
    tokenizer_path: Path
    vocabulary: int
    eot: int
    domains: tuple[Domain, ...]
    look: FileTimes = field(default=(), compare=False, repr=False)
    folders: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)
    views: Views = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def open(cls, root: Path | str, *, verify: bool = True, again: bool = True) -> "Corpus":
        """Opens a prepared corpus; `verify` hashes every file, so that a flipped byte is found.

        Args:
            root: the folder; or the URL of one in a remote store, of which this node keeps a copy
                that is verified when it is fetched.
            verify: whether to hash.
            again: whether to hash what this process has hashed before, if no file was touched
                since. One pack after the other opens the same corpus.

        Raises:
            DataError: there is no corpus, or a file is missing.
            CorruptError: a file is not what was written; the message names it.
        """
        if is_remote(root):
            root, verify = fetch_corpus(str(root)), False
        root = Path(root)
        body = read_manifest(root)
        for file in _viewed_here(body):
            _ = file.path  # which sees that it is there, as it was
        look = _file_times(root, body)
        if verify and (again or _verified.get(root) != look):
            for name, expected in _files(body):
                _verify(root / name, expected)
            _verified[root] = look
        domains = tuple(map(_domain, body["domains"]))
        tokenizer = root / TOKENIZER
        folders = {entry["name"]: _folder(entry) for entry in body["domains"]}
        views = _views(body)
        return cls(root, tokenizer, body["vocabulary"], body["eot"], domains, look, folders, views)

    def check(self) -> None:
        """See that no file was touched since the corpus was opened.

        What was computed from mapped files may rest on bytes that nobody verified, if they changed
        meanwhile. Sees writes, not a medium that decays; that is seen when the corpus is opened.

        Raises:
            CorruptError: a file was changed, replaced or removed.
        """
        now = {line[0]: line for line in _file_times(self.root, read_manifest(self.root))}
        for line in self.look:
            if now.get(line[0]) != line:
                raise CorruptError(
                    f"{self.root / line[0]} was changed while it was trained on; nothing that may "
                    "rest on it was kept. Run again: the corpus is verified, and prepared anew if "
                    "it is damaged"
                )

    def train(self, name: str) -> Shard:
        """The training split of a domain."""
        return self._shard(name, "train")

    def valid(self, name: str) -> Shard:
        """The held-out split of a domain."""
        return self._shard(name, "valid")

    def attributes(self, name: str, split: str = "train") -> Path | None:
        """The parquet file of what is kept beside the documents of a split, a row for each, in
        their order; None where nothing is kept."""
        path = self.root / self.folders[name] / f"{split}.attributes.parquet"
        return path if path.exists() else None

    def domain_set(self) -> DomainSet:
        """The domains as a set whose order every weight vector follows."""
        return DomainSet(self.domains)

    @property
    def manifest(self) -> dict[str, Any]:
        """Counts of everything that was read, kept and dropped, under the names of `domains`."""
        body = read_manifest(self.root)
        entries = {_folder(entry): entry for entry in body["domains"]}
        shown = {folder: name for name, folder in self.folders.items()}
        called = {e["name"]: shown[folder] for folder, e in entries.items() if folder in shown}
        own = [entries[self.folders[domain.name]] for domain in self.domains]
        return {**body, "domains": [_renamed_entry(entry, called) for entry in own]}

    def renamed(self, names: Mapping[str, str]) -> "Corpus":
        """The corpus under other names and in their order: by what it calls a domain, its name."""
        own = {domain.name: domain for domain in self.domains}
        return replace(
            self,
            domains=tuple(replace(own[before], name=name) for before, name in names.items()),
            folders={name: self.folders[before] for before, name in names.items()},
        )

    def seen_by(self, run: RunSpec) -> "Corpus":
        """The corpus under the names by which a run knows its text; what else it holds, under its
        own, unless the run calls another domain so."""
        asked = dict(zip(run.identities, run.domains, strict=True))
        if run.version == BY_NAMES or all(
            asked.get(d.identity, d.name) == d.name for d in self.domains
        ):
            return self
        return self.renamed(
            {
                domain.name: asked.get(domain.identity, domain.name)
                for domain in self.domains
                if domain.identity in asked or domain.name not in run.domains
            }
        )

    def _shard(self, name: str, split: str) -> Shard:
        known = [domain.name for domain in self.domains]
        if name not in known:
            raise DataError(f"no domain {name!r} in {self.root}; it has: {', '.join(known)}")
        folder = self.folders[name]
        view = self.views.get((folder, split))
        return open_shard(self.root / folder, split, view, self.vocabulary)


def open_shard(folder: Path, split: str, view: Mapping[str, Any] | None, vocabulary: int) -> Shard:
    """A split of a domain in its folder; `view` is what the manifest says where it is one.

    Raises:
        DataError: a file is missing.
        CorruptError: a file is not what was written.
    """
    path, kind = folder / f"{split}.bin", token_type(vocabulary)
    try:
        with np.load(path.with_suffix(".idx.npz")) as index:
            offsets, sizes = index["offsets"], index["bytes"]
        tokens = split_tokens(folder, split, view, kind)
    except FileNotFoundError as error:
        raise _missing(Path(error.filename)) from None
    except (ValueError, KeyError, OSError, EOFError) as error:
        raise _corrupt(path, f"it or its index cannot be read ({error})") from None
    if len(offsets) != len(sizes) + 1 or offsets[-1] != len(tokens):
        raise _corrupt(path, f"it has {len(tokens)} tokens, its index says {offsets[-1]}")
    return Shard(tokens, offsets, sizes)


def split_tokens(folder: Path, split: str, view: Mapping[str, Any] | None, kind: Any) -> TokenArray:
    """The tokens of a split in its folder; `view` is what the manifest says where it is one."""
    return open_view(folder, view, kind) if view else map_array(folder / f"{split}.bin", kind)


def fetch_corpus(url: str) -> Path:
    """The folder of this node's copy of a corpus in a remote store.

    Raises:
        DataError: no whole corpus is there.
        CorruptError: a file there is not what was written; names it.
    """
    files = stored_files(url)
    key = f"corpus-{files[MANIFEST][:32]}"
    return NodeCache.of_environment().folder(key, ObjectFolder(url), files)


def stored_files(url: str) -> dict[str, str]:
    """The sha256 of each file of a corpus in a remote store; raises as `fetch_corpus`."""
    raw = ObjectFolder(url).read(MANIFEST)
    if raw is None:
        raise DataError(f"no whole corpus in {url}: {MANIFEST} is missing; prepare it first")
    files = dict(_files(_checked_manifest(raw, f"{url}/{MANIFEST}")))
    return {**files, MANIFEST: hashlib.sha256(raw).hexdigest()}


def publish_corpus(root: Path, url: str) -> None:
    """Copy a corpus into a remote store, unless it is there: its manifest last.

    Raises:
        StorageError: the store cannot be written.
    """
    place, body = ObjectFolder(url), read_manifest(root)
    raw = (root / MANIFEST).read_bytes()
    copied = _without_local_views(body)
    if copied != body:
        raw = _sealed_text(copied)
    if place.read(MANIFEST) == raw:
        return
    there = place.sizes()  # of a copy that was cut off: names hold one content, of this corpus
    for name, _ in _files(copied):
        if not (root / name).exists():
            with _written_out(root, name, body) as path:
                place.upload(path, name)
        elif there.get(name) != (root / name).stat().st_size:
            place.upload(root / name, name)
    place.replace(MANIFEST, raw)


def marked_name(name: str) -> str:
    """A domain's name as it stands in what a manifest says: whoever reads it may have another."""
    return f"{{{name}}}"


def _renamed_entry(entry: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """A domain's part of the manifest under other names of all domains."""
    found = {**entry, "name": names[entry["name"]]}
    if "shared" in entry:
        found["shared"] = {names.get(other, other): n for other, n in entry["shared"].items()}
    if "notices" in entry:
        marks = {marked_name(before): name for before, name in names.items()}
        every = re.compile("|".join(map(re.escape, marks)))
        found["notices"] = [every.sub(lambda m: marks[m[0]], one) for one in entry["notices"]]
    return found


def _domain(entry: Mapping[str, Any]) -> Domain:
    """A domain as the manifest has it; of a sample, as large as the whole is estimated to be."""
    split = entry["train"]
    found = Domain(
        name=entry["name"],
        tokens=split["tokens"],
        bytes=split["bytes"],
        identity=entry["identity"],
        documents=split["documents"],
        heldout=entry.get("heldout", ""),
    )
    sampled = entry.get("sampled")
    return found.sized(sampled["tokens"], sampled["error"]) if sampled else found


def _files(body: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Every file of a corpus with the sha256 it was written with."""
    yield TOKENIZER, body["tokenizer"]
    if "heldout_keys" in body:
        yield HELD_KEYS, body["heldout_keys"]
    for entry in body["domains"]:
        for split in SPLITS:
            view = entry[split].get("view")
            for file, expected in entry[split]["files"].items():
                if not view or file != f"{split}.bin":
                    yield f"{_folder(entry)}/{file}", expected
            if view:
                yield f"{_folder(entry)}/{view['spans']}", view["sha256"]


def _views(body: Mapping[str, Any]) -> Views:
    """What is said of splits that are views, by folder and split."""
    return {
        (_folder(entry), split): entry[split]["view"]
        for entry in body["domains"]
        for split in SPLITS
        if "view" in entry[split]
    }


def _viewed_here(body: Mapping[str, Any]) -> list[ViewedFile]:
    """The files of this machine that views show."""
    found = {tuple(one.items()) for view in _views(body).values() for one in view["files"]}
    files = [ViewedFile(**dict(one)) for one in sorted(found)]
    return [file for file in files if not is_url(file.url)]


def _without_local_views(body: Mapping[str, Any]) -> dict[str, Any]:
    """A manifest as it is in a store: what views show of this machine's files is copied there."""
    copied: dict[str, Any] = json.loads(json.dumps(body))
    for entry in copied["domains"]:
        for split in SPLITS:
            files = entry[split].get("view", {}).get("files", ())
            if any(not is_url(file["url"]) for file in files):
                del entry[split]["view"]
    return copied


@contextlib.contextmanager
def _written_out(root: Path, name: str, body: Mapping[str, Any]) -> Iterator[Path]:
    """A shard of what a view shows, for as long as it takes to copy it."""
    folder, _, file = name.rpartition("/")
    split = file.removesuffix(".bin")
    (entry,) = (one for one in body["domains"] if _folder(one) == folder)
    with tempfile.TemporaryDirectory(dir=root.parent, prefix=f".{root.name}.") as draft:
        path = Path(draft) / file
        view = open_view(root / folder, entry[split]["view"], token_type(body["vocabulary"]))
        with path.open("wb") as out:
            out.writelines(view.blocks(BLOCK))
        _verify(path, entry[split]["files"][file])
        yield path


def _folder(entry: Mapping[str, Any]) -> str:
    return str(entry.get("folder", entry["name"]))  # earlier corpora have folders named so


def _file_times(root: Path, body: Mapping[str, Any]) -> FileTimes:
    """What the file system says of every file of a corpus: any write changes it."""
    found = []
    for name in [*(name for name, _ in _files(body)), *(one.url for one in _viewed_here(body))]:
        try:
            seen = (root / name).stat()
        except FileNotFoundError:
            raise _missing(root / name) from None
        found.append((name, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns, seen.st_ino))
    return tuple(found)


def _missing(path: Path) -> DataError:
    return DataError(f"{path} is missing; prepare the corpus again to replace it")


def _verify(path: Path, expected: str) -> None:
    found = file_digest(path)
    if found != expected:
        raise _corrupt(path, f"sha256 expected {expected}, found {found}")
