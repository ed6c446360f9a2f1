"""Compressed files, opened as streams: gzip, zstd, bzip2, xz, and what damaged ones raise."""

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import zstandard

from cuvee.mixtures.errors import CorruptError

BUFFER = 1 << 20  # bytes
DAMAGED = (
    gzip.BadGzipFile, EOFError, zlib.error, lzma.LZMAError, zstandard.ZstdError,
    pa.ArrowException, UnicodeDecodeError, MemoryError,  # names and sizes in damaged tables
)  # fmt: skip


def damaged_file_error(path: Path, error: Exception) -> CorruptError:
    """What `DAMAGED` says of a file, in words."""
    why = " ".join(str(error).split())[:300]
    return CorruptError(
        f"{path} breaks off, is damaged or is not what its name says ({why}); copy or download it "
        "again, or rename it"
    )


class _Frames(io.RawIOBase):
    """The frames of a zstd file, one after the other, with windows of up to 2 GiB.

    `zstandard`'s own reader takes a file that breaks off for one that ends.
    """

    STEP = 1024  # bytes unpacked together: at most 256 blocks of 128 KiB

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._packed, self._plain = file, b"", b""
        self._make = zstandard.ZstdDecompressor(max_window_size=1 << 31).decompressobj
        self._frame = self._make()
        self._within = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._plain:
            self._packed = self._packed or self._file.read(self.STEP)
            if not self._packed:
                if self._within:
                    raise EOFError("the last frame is not whole")
                return 0
            self._plain = self._frame.decompress(self._packed)
            self._within = not self._frame.eof
            self._packed = self._frame.unused_data if self._frame.eof else b""
            if self._frame.eof:
                self._frame = self._make()
        size = min(len(buffer), len(self._plain))
        buffer[:size], self._plain = self._plain[:size], self._plain[size:]
        return size

    def close(self) -> None:
        self._file.close()
        super().close()


_OPENERS: dict[str, Callable[[Path], Any]] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
    ".zst": lambda path: _Frames(path.open("rb")),
}


@contextmanager
def open_compressed(path: Path, packing: str) -> Iterator[io.BufferedReader]:
    """The content of a file; `packing` is one of `files.PACKINGS`. Raises what `DAMAGED` names."""
    raw = _OPENERS[packing](path) if packing else path.open("rb", buffering=0)
    with io.BufferedReader(raw, BUFFER) as stream:
        yield stream
