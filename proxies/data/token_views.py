"""Shards that are views: documents that lie in token files of others, of which nothing is copied.

A view holds, for each document in the order of the shard, which file it lies in, where, and how
many of its ids it has; an end-of-text token follows each. What a view shows is what a shard of
these tokens would hold, and its identity is the same. A file on this machine is mapped where it
lies, and must stay as it was: its size and times are looked at whenever a corpus is opened, and its
bytes are hashed again where these are others. A file in object storage is fetched once into the
cache of the node.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from cuvee.mixtures.errors import CorruptError, DataError
from cuvee.proxies.data.files import file_digest
from cuvee.proxies.data.node_cache import NodeCache
from cuvee.proxies.data.objects import ObjectFolder
from cuvee.proxies.data.shards import map_array
from cuvee.proxies.data.sources.source_files import file_state, is_url, local_path

SPANS = np.dtype([("start", "<u8"), ("count", "<u4"), ("file", "<u4")])  # bytes, ids, which file
VIEWED = "tokens"  # name of a token file's copy in the cache of a node


@dataclass(frozen=True)
class ViewedFile:
    """A token file that a view shows.

    Attributes:
        url: of the file; its whole path where it is local.
        type: of its ids.
        size: bytes.
        state: what shows that it was changed (`file_state`).
        sha256: of its bytes.
    """

    url: str
    type: str
    size: int
    state: str
    sha256: str

    @classmethod
    def seen(cls, url: str, kind: str, sha256: str = "") -> "ViewedFile":
        """A file as it is now; in object storage it is fetched, since its sha256 is not known."""
        if not is_url(url):
            path = local_path(url).resolve()
            return cls(str(path), kind, path.stat().st_size, file_state(str(path)), sha256)
        found = cls(url, kind, _object_size(url), file_state(url), "")
        return cls(url, kind, found.size, found.state, file_digest(found.path))

    @cached_property
    def path(self) -> Path:
        """Where this machine has its bytes, which are those of the sha256.

        Raises:
            DataError: it vanished.
            CorruptError: it holds other bytes than it did.
        """
        if is_url(self.url):
            key = hashlib.sha256(f"{self.url} {self.state}".encode()).hexdigest()[:32]
            cache, wanted = NodeCache.of_environment(), {VIEWED: self.state}
            return cache.folder(f"tokens-{key}", _Object(self), wanted) / VIEWED
        path = Path(self.url)
        if not path.exists():
            raise DataError(
                f"{path} is missing on this machine: the corpus reads its tokens where they lie. "
                "Put it back; or, where machines share no disk, name a store in object storage, "
                "into which they are copied"
            )
        if file_state(self.url) != self.state and file_digest(path) != self.sha256:
            raise CorruptError(
                f"{path} was changed after the corpus was prepared, which reads its tokens where "
                "they lie: put back what it held, or run the study again to prepare its text anew"
            )
        return path

    @cached_property
    def bytes(self) -> NDArray[np.uint8]:
        """The file, mapped."""
        return map_array(self.path, np.dtype(np.uint8))


def _object_size(url: str) -> int:
    folder, _, name = url.rpartition("/")
    place = ObjectFolder(folder)
    return int(place.files.info(place.path(name))["size"])


@dataclass(frozen=True)
class _Object:
    """A token file in object storage, as the cache of a node fetches it."""

    file: ViewedFile

    @property
    def url(self) -> str:
        return self.file.url.rpartition("/")[0]

    def sizes(self) -> dict[str, int]:
        """The size of the one file."""
        return {VIEWED: self.file.size}

    def check(self) -> None:
        """Refuses an object that is another by now."""
        if file_state(self.file.url) != self.file.state:
            raise CorruptError(
                f"{self.file.url} was changed after the corpus was prepared from it: run the study "
                "again to prepare its text anew"
            )

    def download(self, _: str, target: Path, size: int) -> str:
        """Fetches it; returns its state in the store, which must be what it was."""
        self.check()
        digest = ObjectFolder(self.url).download(self.file.url.rpartition("/")[2], target, size)
        self.check()
        whole = self.file.sha256 in ("", digest)
        return self.file.state if whole else digest


class TokenView:
    """Token ids that lie in files of others, cut like an array.

    Args:
        spans: rows of SPANS, a document each, in order.
        files: that they name.
        eot: id that follows each document.
        kind: type of the ids that come out.
    """

    ndim = 1

    def __init__(
        self, spans: NDArray[Any], files: Sequence[ViewedFile], *, eot: int, kind: DTypeLike
    ) -> None:
        self.spans, self.files, self.eot, self.dtype = spans, files, eot, np.dtype(kind)
        self.offsets = np.cumsum([0, *(spans["count"].astype("<i8") + 1)]).astype("<i8")
        self.size = int(self.offsets[-1])
        self._types = [np.dtype(file.type) for file in files]

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, key: Any) -> Any:
        """An id by its place, or the ids of a slice as an array."""
        if isinstance(key, slice):
            start, stop, step = key.indices(self.size)
            return self._gathered(start, max(start, stop)) if step == 1 else np.asarray(self)[key]
        place = range(self.size)[key]
        return self._gathered(place, place + 1)[0]

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        return self._gathered(0, self.size).astype(dtype or self.dtype, copy=False)

    def blocks(self, size: int) -> Iterator[bytes]:
        """All ids as a shard would hold them, so many bytes at a time."""
        step = size // self.dtype.itemsize
        for start in range(0, self.size, step):
            yield self._gathered(start, min(start + step, self.size)).tobytes()

    def _gathered(self, start: int, stop: int) -> NDArray[Any]:
        """Ids from one place to another."""
        out = np.full(stop - start, self.eot, dtype=self.dtype)
        first = int(np.searchsorted(self.offsets, start, side="right")) - 1
        last = int(np.searchsorted(self.offsets, stop, side="left"))
        begins = self.offsets[first:last].tolist()
        for begin, (place, count, number) in zip(
            begins, self.spans[first:last].tolist(), strict=True
        ):
            a, b = max(start, begin), min(stop, begin + count)
            if b > a:
                kind = self._types[number]
                at = place + (a - begin) * kind.itemsize
                out[a - start : b - start] = np.frombuffer(
                    self.files[number].bytes, kind, count=b - a, offset=at
                )
        return out


@dataclass(frozen=True)
class ViewMaker:
    """Makes the views of a corpus.

    Attributes:
        parts: of every part that was read: the URL of its file, the type of its ids, and the sha256
            of a local file; what spans name until a view is made of them.
        eot: id that ends a document.
        kind: type of the corpus's ids.
    """

    parts: Sequence[tuple[str, str, str]]
    eot: int
    kind: np.dtype[Any]

    def write(self, path: Path, stored: Iterable[bytes]) -> TokenView:
        """Writes the places of a shard's documents, rows of SPANS; returns what they show."""
        spans = np.frombuffer(b"".join(stored), SPANS).copy()
        parts = np.unique(spans["file"])
        files = sorted({self.parts[part] for part in parts.tolist()})
        numbers = np.array([files.index(self.parts[part]) for part in parts.tolist()])
        spans["file"] = numbers[np.searchsorted(parts, spans["file"])]
        path.write_bytes(spans.tobytes())
        return TokenView(
            spans, [ViewedFile.seen(*file) for file in files], eot=self.eot, kind=self.kind
        )


def view_record(name: str, view: TokenView) -> dict[str, Any]:
    """What the manifest of a corpus says of a view whose places are in a file."""
    digest = hashlib.sha256(view.spans.tobytes()).hexdigest()
    files = [asdict(file) for file in view.files]
    return {"spans": name, "sha256": digest, "eot": view.eot, "files": files}


def open_view(folder: Path, record: Mapping[str, Any], kind: DTypeLike) -> TokenView:
    """The view that a manifest speaks of; raises as `ViewedFile.path`."""
    spans = map_array(folder / record["spans"], SPANS)
    files = [ViewedFile(**one) for one in record["files"]]
    for file in files:
        _ = file.bytes
    return TokenView(spans, files, eot=record["eot"], kind=kind)
