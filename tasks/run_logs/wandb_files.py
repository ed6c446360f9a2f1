"""W&B's offline logs, `run-ID.wandb`: records of LevelDB's log, with protobuf messages in them.

They are read without W&B itself, by the numbers of the few fields that matter. Sources (0.31):
wandb/proto/wandb_internal.proto (`Record`, `HistoryRecord`, `RunRecord`, `RunExitRecord`) and
core/pkg/leveldb/record.go (7 bytes before the first record, blocks of 32 KiB, CRC-32 of IEEE).
"""

import json
import mmap
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cuvee.tasks.extras import require
from cuvee.tasks.run_logs import RunLog, log_reader
from cuvee.tasks.run_logs.json_logs import wandb_points

BLOCK, HEAD, MAGIC = 1 << 15, 7, b":W&B"
FULL, FIRST, LAST = 1, 2, 4  # pieces of a record that spans blocks
HISTORY, RUN, EXIT = 2, 17, 18  # fields of a record


@log_reader("W&B offline", r".*\.wandb")
def wandb_offline_log(path: Path) -> list[RunLog]:
    """The history of a run, and whether it ended well; metrics within others have dots."""
    require("W&B's offline logs", "logs")
    rows: list[dict[str, Any]] = []
    names, ended = [], None
    for record in _records(path):
        for kind, content in _fields(record):
            if kind == HISTORY:
                items = [list(_fields(item)) for number, item in _fields(content) if number == 1]
                rows.append(dict(map(_metric, items)))
            elif kind == RUN:
                names = [text.decode() for number, text in _fields(content) if number in (1, 8)]
            elif kind == EXIT:
                ended = dict(_fields(content)).get(1, 0) == 0
    points = wandb_points(rows)
    last = max((step for step, _ in points), default=0)
    return [RunLog(path, points, tuple(names), last=last, ended=ended)]


def _metric(item: list[tuple[int, Any]]) -> tuple[str, Any]:
    """The name and the value of an item of a history."""
    name = b".".join(value for number, value in item if number in (1, 2)).decode()
    return name, json.loads(dict(item)[16])


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """Numbers and values of the fields of a protobuf message whose schema is not at hand."""
    from google.protobuf.empty_pb2 import Empty
    from google.protobuf.unknown_fields import UnknownFieldSet

    for field in UnknownFieldSet(Empty.FromString(message)):
        yield field.field_number, field.data


def _records(path: Path) -> Iterator[bytes]:
    """Records up to the first that is cut off or damaged."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as raw:
        if raw[: len(MAGIC)] != MAGIC:
            raise ValueError("it does not begin as one")
        at, whole = HEAD, b""
        while at + HEAD <= len(raw):
            if BLOCK - at % BLOCK < HEAD:  # what is left of a block holds no head
                at += BLOCK - at % BLOCK
                continue
            check, size, kind = struct.unpack_from("<IHB", raw, at)
            piece = raw[at + HEAD : at + HEAD + size]
            if len(piece) < size or zlib.crc32(piece, zlib.crc32(bytes([kind]))) != check:
                return
            at, whole = at + HEAD + size, piece if kind in (FULL, FIRST) else whole + piece
            if kind in (FULL, LAST):
                yield whole
