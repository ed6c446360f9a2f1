"""`cuvee clean`: what a home holds, by kind, size and age; what can be made again may go.

Evidence (results, approvals, record, studies) goes only when it is named. Nothing goes while a
command uses the home, here or on another machine that shares it.
"""

import fcntl
import itertools
import os
import re
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from cuvee.flows.workspace import IN_USE, Workspace
from cuvee.mixtures.errors import RecipeError, ServiceError, StorageError, UnknownName
from cuvee.proxies.data.node_cache import CachedCopy, NodeCache
from cuvee.proxies.data.objects import ObjectFolder, is_remote

UNITS = {"h": 3600, "d": 86_400, "w": 604_800}
BEATING = 600.0  # seconds within which a live sweep has written its heartbeat


@dataclass(frozen=True)
class Kind:
    """Things of one kind in a home.

    Attributes:
        places: globs under the home; what matches one is removed as a whole.
        holds: what it is, for people.
        evidence: whether it cannot be made again.
    """

    places: tuple[str, ...]
    holds: str
    evidence: bool = False


KINDS = {
    "corpora": Kind(("corpora/[!.]*", "corpora/.*.partial"), "tokenized text"),
    "checkpoints": Kind(("checkpoints/*",), "trunks and packs in training"),
    "trainings": Kind(
        ("trainings/*",), "run directories of your own trainer: logs, models", evidence=True
    ),
    "benchmarks": Kind(("benchmarks/*",), "benchmarks as JSON lines"),
    "archives": Kind(("archives/*", "archives/.partial"), "downloads"),
    "cache": Kind((), "this node's copies of what lies in a remote store"),
    "hub": Kind(("huggingface",), "what was read from the Hub"),
    "ray": Kind(("ray/*",), "logs and sockets of Ray's sessions"),
    "prefect": Kind(("prefect", "prefect-api"), "Prefect's database and logs"),
    "digests": Kind(("digests.json",), "hashes of text files"),
    "logs": Kind(("logs/*",), "what commands said and did, with times"),
    "sweeps": Kind(
        ("store/sweeps/*", "store/progress/*", "store/**/*.draft"),
        "left by sweeps that were killed",
    ),
    "studies": Kind(("studies/*",), "reports and exports", evidence=True),
    "approvals": Kind(("store/approvals", "store/handoffs"), "who approved what", evidence=True),
    "store": Kind(("store",), "results of trainings", evidence=True),
    "record": Kind(("mlflow",), "the record of all studies", evidence=True),
}


SHARED = ("corpora", "checkpoints", "benchmarks")  # lie in the store, where it is remote
LEFT_IN_STORE = ("sweeps", "progress")  # folders of what sweeps write while they live


@dataclass(frozen=True)
class Thing:
    """Something that may go.

    Attributes:
        kind: of `KINDS`.
        path: of it, in the home or in a store elsewhere.
        size: bytes on disk.
        used: when that was last, in seconds of Unix time.
        store: that holds it, where it lies elsewhere.
        copy: what it is in this node's cache.
    """

    kind: str
    path: Path
    size: int
    used: float
    store: ObjectFolder | None = None
    copy: CachedCopy | None = None

    def remove(self) -> None:
        """Remove it, as far as that goes."""
        if self.copy is not None:
            NodeCache.of_environment().evict(self.copy)  # unless a process uses it
        elif self.store is not None:
            with suppress(FileNotFoundError):
                self.store.files.rm(str(self.path), recursive=True)
        elif self.path.is_dir() and not self.path.is_symlink():
            shutil.rmtree(self.path, ignore_errors=True)
        else:
            self.path.unlink(missing_ok=True)

    @property
    def there(self) -> bool:
        """Whether it is still there."""
        if self.store is not None:
            return bool(self.store.files.exists(str(self.path)))
        return os.path.lexists(self.path)


def clean(
    home: Workspace, kinds: Sequence[str], *, older: str, remove: bool
) -> tuple[Table, str, list[dict[str, Any]]]:
    """A table of what may go, a sentence on what became of it, and the table's rows as values.

    Args:
        home: need not exist.
        kinds: names in KINDS; empty for all that is no evidence.
        older: only what was not used for so long, such as "30d"; "" for all.
        remove: whether to remove it, or only to look.

    Raises:
        RecipeError: an unknown kind, or an age that is none.
        ServiceError: a command uses the home.
    """
    for name in kinds:
        if name not in KINDS:
            raise UnknownName("kind", name, KINDS)
    before = time.time() - age_seconds(older)
    shared = _left_elsewhere(home) if "sweeps" in kinds else []  # of others too: by name alone
    shared += _shared_things(home, [name for name in SHARED if name in kinds])
    every = (*_things(home.root), *_copies(home), *shared)
    found = [thing for thing in every if thing.used <= before]
    chosen = [thing for thing in found if _chosen(thing.kind, kinds)]
    table, rows = Table("kind", "what", "items", "size", "last used", ""), []
    for name, kind in KINDS.items():
        of = [thing for thing in found if thing.kind == name]
        if of:
            age = (time.time() - max(thing.used for thing in of)) / UNITS["d"]
            goes = _chosen(name, kinds)
            note = "" if goes else "stays: name it to remove it"
            size = sum(thing.size for thing in of)
            rows.append({"kind": name, "items": len(of), "bytes": size, "chosen": goes})
            table.add_row(name, kind.holds, f"{len(of)}", _size(size), f"{age:.0f} days ago", note)
    total = f"{len(chosen)} items, {_size(sum(thing.size for thing in chosen))}"
    if not chosen:
        return table, "nothing to remove", rows
    if not remove:
        return table, f"{total} would go; nothing was removed: --yes removes them", rows
    with _alone(home):
        for thing in chosen:
            thing.remove()
    left = [str(thing.path) for thing in chosen if thing.there]
    if left:
        raise StorageError(f"{len(left)} of {total} could not be removed: {', '.join(left[:5])}")
    return table, f"{total} removed", rows


def age_seconds(age: str) -> float:
    """An age such as 12h, 30d or 2w, in seconds; "" is none.

    Raises:
        RecipeError: it is not an age.
    """
    match = re.fullmatch(r"(\d{1,5})\s*([hdw])", age.strip()) if age else None
    if age and not match:
        raise RecipeError(
            f"--older takes hours, days or weeks, such as 12h, 30d or 2w; got {age!r}"
        )
    return int(match[1]) * UNITS[match[2]] if match else 0.0


def _chosen(kind: str, kinds: Sequence[str]) -> bool:
    return kind in kinds if kinds else not KINDS[kind].evidence


def _things(root: Path) -> Iterator[Thing]:
    for name, kind in KINDS.items():
        for path in sorted({path for place in kind.places for path in root.glob(place)}):
            seen = list(_stats(path))
            size = sum(stat.st_blocks * 512 for stat in seen)
            yield Thing(name, path, size, max((stat.st_mtime for stat in seen), default=0.0))


def _elsewhere(home: Workspace) -> ObjectFolder | None:
    """The home's store, where it lies elsewhere: several homes may share it."""
    store, own = ObjectFolder(home.store), home.root / "store"
    return store if store.root not in (str(own), str(own.resolve())) else None


def _left_elsewhere(home: Workspace) -> list[Thing]:
    """What sweeps left in a store that is not in the home."""
    store = _elsewhere(home)
    return list(_written_by_sweeps(store, LEFT_IN_STORE)) if store else []


def _shared_things(home: Workspace, kinds: Sequence[str]) -> Iterator[Thing]:
    """What studies keep in a remote store for their workers."""
    if not kinds or not is_remote(home.store):
        return
    store = ObjectFolder(home.store)
    for kind in kinds:
        sizes: Counter[str] = Counter()
        newest: dict[str, str] = {}
        for name, size in ObjectFolder(f"{home.shared}/{kind}").sizes().items():
            sizes[name.split("/")[0]] += size
            newest[name.split("/")[0]] = name
        for name, size in sizes.items():
            with suppress(FileNotFoundError):
                used = store.files.modified(store.path(f"{kind}/{newest[name]}"))
                path = Path(store.path(f"{kind}/{name}"))
                yield Thing(kind, path, size, used.timestamp(), store)


def _copies(home: Workspace) -> Iterator[Thing]:
    """This node's copies, where the store is remote."""
    if is_remote(home.store):
        for copy in NodeCache.of_environment().copies():
            yield Thing("cache", copy.path, copy.size, copy.used, copy=copy)


def _written_by_sweeps(store: ObjectFolder, folders: Sequence[str]) -> Iterator[Thing]:
    for folder in folders:
        for name in store.names(folder):
            path = store.path(f"{folder}/{name}")
            with suppress(FileNotFoundError):
                size, used = int(store.files.size(path) or 0), store.files.modified(path)
                yield Thing("sweeps", Path(path), size, used.timestamp(), store)


def _stats(path: Path) -> Iterator[os.stat_result]:
    """Of a file, or of a folder and all in it; what is gone meanwhile is left out."""
    inner = (Path(at, name) for at, dirs, files in os.walk(path) for name in (*dirs, *files))
    for each in itertools.chain([path], inner):
        with suppress(FileNotFoundError):
            yield each.lstat()


@contextmanager
def _alone(home: Workspace) -> Iterator[None]:
    """Holds the home, so that no command can begin to use it.

    Raises:
        ServiceError: one uses it.
    """
    now, store = time.time(), _elsewhere(home)
    stores = [ObjectFolder(str(home.root / "store")), *([store] if store else [])]
    beats = [thing.used for each in stores for thing in _written_by_sweeps(each, ["sweeps"])]
    if any(now - beat < BEATING for beat in beats):
        raise ServiceError(
            f"a sweep wrote to the store of {home.root} less than {BEATING / 60:.0f} minutes ago: "
            "wait until it has ended; one that was killed counts as ended after that time"
        )
    with (home.root / IN_USE).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ServiceError(
                f"a command uses {home.root} (a run, a schedule, a review, ...): nothing was "
                "removed; end it and clean again"
            ) from None
        yield


def _size(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
