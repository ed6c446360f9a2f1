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

from cuvee.mixtures.errors import CorruptError, DataError
from cuvee.proxies.data.sources.source_files import open_stored, shown_url

BUFFER = 1 << 20  # bytes
RATIO = 500  # bytes of content in a byte of a file (assumption), beyond which it was made to burst
MOST = 1 << 30  # bytes of content below which this is not asked
DAMAGED = (
    gzip.BadGzipFile, EOFError, zlib.error, lzma.LZMAError, zstandard.ZstdError,
    pa.ArrowException, UnicodeDecodeError, MemoryError,  # names and sizes in damaged tables
)  # fmt: skip


def damaged_file_error(path: Path | str, error: Exception) -> CorruptError:
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


class _Unpacked(io.RawIOBase):
    """Unpacked bytes, as long as there are not more of them than text could have.

    A file that was made to burst is refused instead of being read for days.
    """

    def __init__(self, url: str, file: BinaryIO, unpack: Callable[[BinaryIO], Any]) -> None:
        self._url, self._file, self._size = url, file, 0
        self._plain = unpack(file)

    def readable(self) -> bool:
        return True

    @property
    def stored(self) -> int:
        """Bytes of the file that were read."""
        return self._file.tell()

    def readinto(self, buffer: Any) -> int:
        size = int(self._plain.readinto(buffer) or 0)
        self._size += size
        if self._size > MOST and self._size > RATIO * self.stored:
            raise DataError(
                f"{shown_url(self._url)} unpacks to more than {RATIO} times its size, as no text "
                "does: it looks made to burst. Leave it out, or unpack it yourself if it is sound"
            )
        return size

    def close(self) -> None:
        self._plain.close()
        self._file.close()
        super().close()


_UNPACKERS: dict[str, Callable[[BinaryIO], Any]] = {
    ".gz": lambda file: gzip.GzipFile(fileobj=file),
    ".bz2": bz2.BZ2File,
    ".xz": lzma.LZMAFile,
    ".zst": _Frames,
}


@contextmanager
def open_compressed(url: Path | str, packing: str) -> Iterator[io.BufferedReader]:
    """The content of a file packed as one of `PACKINGS`. Raises what `DAMAGED` names."""
    file: Any = open_stored(str(url))
    if packing:
        file = _Unpacked(str(url), file, _UNPACKERS[packing])
        file = io.BufferedReader(file, BUFFER)
    with file:
        yield file


def stored_bytes(stream: io.BufferedReader) -> int:
    """Bytes of the file, packed or not, that were read of it."""
    return stream.raw.stored if isinstance(stream.raw, _Unpacked) else stream.tell()
