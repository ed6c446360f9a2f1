"""Checkpoints: atomic, at most two, verified, and passed over when damaged."""

import os
from pathlib import Path

import pytest
import torch

from cuvee.mixtures.errors import StorageError
from cuvee.proxies.data.objects import ObjectFolder, remove_folder
from cuvee.proxies.train import checkpoint


def state(step: int) -> dict[str, object]:
    return {"identity": ["a", "b"], "step": step, "values": torch.arange(5.0) * step}


def test_the_latest_comes_back_and_older_ones_go(tmp_path: Path) -> None:
    for step in (1, 2, 10):
        checkpoint.save_checkpoint(tmp_path, step, state(step))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-000000002.pt", "step-000000010.pt"]
    loaded = checkpoint.load_checkpoint(tmp_path, ["a", "b"])
    assert loaded is not None
    assert loaded["step"] == 10
    assert torch.equal(loaded["values"], torch.arange(5.0) * 10)


@pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
def test_a_damaged_one_is_passed_over(tmp_path: Path, damage: str) -> None:
    """Catches a load that trusts the name, and a crash on a file that is cut short."""
    checkpoint.save_checkpoint(tmp_path, 1, state(1))
    path = checkpoint.save_checkpoint(tmp_path, 2, state(2))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes({"flip": bytes(data), "cut": bytes(data[:100]), "empty": b""}[damage])
    loaded = checkpoint.load_checkpoint(tmp_path, ["a", "b"])
    assert loaded is not None
    assert loaded["step"] == 1
    (tmp_path / "step-000000001.pt").unlink()
    assert checkpoint.load_checkpoint(tmp_path, ["a", "b"]) is None


def test_a_half_written_one_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill before the move leaves the one before: catches writing under the final name."""
    checkpoint.save_checkpoint(tmp_path, 1, state(1))
    monkeypatch.setattr(Path, "replace", lambda self, target: os.kill(0, 0) or self)
    checkpoint.save_checkpoint(tmp_path, 2, state(2))
    loaded = checkpoint.load_checkpoint(tmp_path, ["a", "b"])
    assert loaded is not None
    assert loaded["step"] == 1


def test_another_packs_checkpoint_is_not_used(tmp_path: Path) -> None:
    checkpoint.save_checkpoint(tmp_path, 1, state(1))
    assert checkpoint.load_checkpoint(tmp_path, ["b", "a"]) is None


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write the checkpoint"):
        checkpoint.save_checkpoint(tmp_path / "file", 1, state(1))


def test_remove_leaves_nothing_and_may_come_twice(tmp_path: Path) -> None:
    folder = tmp_path / "pack"
    checkpoint.save_checkpoint(folder, 1, state(1))
    remove_folder(folder)
    remove_folder(folder)
    assert not folder.exists()


def test_the_same_holds_in_a_remote_store(s3: str) -> None:
    """Catches a path made of a URL, which is a folder called "s3:", and older ones that stay."""
    folder = f"{s3}/store/checkpoints/pack"
    for step in (1, 2, 10):
        checkpoint.save_checkpoint(folder, step, state(step))
    place = ObjectFolder(folder)
    assert place.names("") == ("step-000000002.pt", "step-000000010.pt")
    raw = place.read("step-000000010.pt") or b""
    place.replace("step-000000010.pt", raw[:-1])
    loaded = checkpoint.load_checkpoint(folder, ["a", "b"])
    assert loaded is not None and loaded["step"] == 2
    remove_folder(folder)
    remove_folder(folder)
    assert checkpoint.load_checkpoint(folder, ["a", "b"]) is None and not place.names("")
    assert not Path("s3:").exists()
