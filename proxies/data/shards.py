"""Token shards on disk: write, open, verify.

A corpus is a folder with a manifest, a tokenizer, and per domain a train and a validation shard:

    manifest.json                 written last; holds the sha256 of every other file
    tokenizer.json
    <domain>/train.bin            token ids, little-endian uint16 (uint32 above 65,536 ids)
    <domain>/train.idx.npz        offsets (D+1,) int64 in tokens; bytes (D,) int64, UTF-8
    <domain>/valid.bin, valid.idx.npz
    <domain>/*.attributes.parquet a row for each document, where something is kept beside them
    <domain>/train.spans          in the place of train.bin where the tokens lie in files of others

Documents are concatenated, each ended by the end-of-text token, in the order of a hash of their
text. A domain's identity is a hash over the tokenizer and its training shard's content, so it is
the content that evidence is tied to, not the path; what is held out has one of its own.
"""

import hashlib
import itertools
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cuvee.proxies.data.files import file_digest

SPLITS = ("train", "valid")
LONGEST_NAME = 200  # bytes of a folder's name, of the 255 that file systems allow
Integers = NDArray[np.int64]


def token_type(vocabulary: int) -> np.dtype:
    """The narrowest type on disk that holds every id below `vocabulary`."""
    return np.dtype("<u2") if vocabulary <= 1 << 16 else np.dtype("<u4")


def map_array(path: Path, kind: np.dtype) -> NDArray[Any]:
    """A file's numbers, mapped and not read; the file itself is closed at once.

    numpy's own maps keep their files open, of which a process may have but so many.
    """
    if not path.stat().st_size:
        return np.zeros(0, dtype=kind)
    import pyarrow as pa

    with pa.memory_map(str(path)) as file:
        return np.frombuffer(file.read_buffer(), dtype=kind)


class TokenArray(Protocol):
    """Token ids one after the other: an array, or a view that becomes one where it is cut."""

    @property
    def size(self) -> int: ...
    @property
    def dtype(self) -> Any: ...
    def __len__(self) -> int: ...
    def __getitem__(self, key: Any, /) -> Any: ...


@dataclass(frozen=True)
class Shard:
    """One split of one domain, memory-mapped.

    Attributes:
        tokens: (n,) ids; documents concatenated, each ended by the end-of-text id.
        offsets: (D+1,) where documents start, in tokens.
        bytes: (D,) UTF-8 bytes of each document.
    """

    tokens: TokenArray
    offsets: Integers
    bytes: Integers

    def __len__(self) -> int:
        return len(self.bytes)

    def document(self, index: int) -> NDArray[Any]:
        """Token ids of one document, its end-of-text id included."""
        found: NDArray[Any] = self.tokens[self.offsets[index] : self.offsets[index + 1]]
        return found


class ShardWriter:
    """Writes documents to one shard; `close` writes the index and returns what was written.

    Memory is bounded by the index (two integers per document), not by the text. Of a view tokens
    are hashed and not written: `keep` is false.
    """

    def __init__(self, folder: Path, split: str, *, keep: bool = True) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / f"{split}.bin"
        self._file = self._path.open("wb") if keep else None
        self._hash = hashlib.sha256()
        self._lengths: list[NDArray[Any]] = []
        self._bytes: list[NDArray[Any]] = []

    def write(self, ids: bytes) -> None:
        """Appends token ids as bytes, the end-of-text ids of documents included."""
        if self._file:
            self._file.write(ids)
        self._hash.update(ids)

    def end_documents(self, lengths: NDArray[Any], sizes: NDArray[Any]) -> None:
        """Says what the ids that were written are: tokens of each document, and UTF-8 bytes."""
        self._lengths.append(lengths)
        self._bytes.append(sizes)

    def close(self) -> dict[str, Any]:
        """Writes the index; returns documents, tokens, bytes, the sha256 of what they say (tokens
        and lengths of documents), and that of both files."""
        if self._file:
            self._file.close()
        index = self._path.with_suffix(".idx.npz")
        none = np.zeros(0, dtype="<i8")
        lengths = np.concatenate([none, *self._lengths]).astype("<i8")
        sizes = np.concatenate([none, *self._bytes]).astype("<i8")
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype("<i8")
        np.savez(index, offsets=offsets, bytes=sizes)
        tokens = self._hash.hexdigest()
        content = f"{tokens}\n{hashlib.sha256(lengths.tobytes()).hexdigest()}"
        return {
            "documents": len(sizes),
            "tokens": int(offsets[-1]),
            "bytes": int(sizes.sum()),
            "content": hashlib.sha256(content.encode()).hexdigest(),
            "files": {self._path.name: tokens, index.name: file_digest(index)},
        }


def folder_names(domains: Iterable[str]) -> dict[str, str]:
    """The folder of each domain: its name, with %XX for what no folder's name should hold.

    Names that would be one on a file system that does not tell case, or the name of a corpus's own
    file, are told apart by a number.
    """
    used = {"manifest.json", "tokenizer.json", "heldout.keys"}
    folders = {}
    for name in domains:
        kept = re.sub(r"[^\w. -]", lambda c: "".join(f"%{b:02X}" for b in c[0].encode()), name)
        plain = f"%2E{kept[1:]}" if name.startswith(".") else kept
        if len(plain.encode()) > LONGEST_NAME:
            short = plain.encode()[:LONGEST_NAME].decode(errors="ignore")
            plain = f"{short}%-{hashlib.sha256(name.encode()).hexdigest()[:12]}"
        choices = itertools.chain([plain], (f"{plain}%-{count}" for count in itertools.count(2)))
        folders[name] = next(folder for folder in choices if _folded(folder) not in used)
        used.add(_folded(folders[name]))
    return folders


def _folded(folder: str) -> str:
    """A folder's name as file systems compare it that tell neither case nor composition."""
    return unicodedata.normalize("NFC", folder).casefold()


def shard_identity(tokenizer: str, content: str) -> str:
    """What a split of a domain is: sha256 over its tokenizer, its tokens and its documents.

    Neither names nor folders nor formats of files are part of it, nor any other domain.

    Args:
        tokenizer: sha256 of its tokenizer.json.
        content: that `ShardWriter.close` gives.
    """
    body = f"{tokenizer}\n{content}\ndocument_order: key"
    return hashlib.sha256(body.encode()).hexdigest()
