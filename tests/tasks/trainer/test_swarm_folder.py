"""The manifest of a swarm: read as it was written, and refused where it is another file."""

import json
from pathlib import Path

import pytest

from cuvee.tasks.trainer.contract import RefusedResult
from cuvee.tasks.trainer.swarm_folder import SWARM, SwarmManifest, SwarmRun, read_swarm, write_swarm


def swarm(*digits: str) -> SwarmManifest:
    runs = [
        SwarmRun(
            fingerprint=digit * 64,
            name=f"design {digit} seed 1 ({digit * 6})",
            role="design",
            folder=f"runs/{digit * 32}",
            tokens=1000,
            size="0.3M",
        )
        for digit in digits
    ]
    return SwarmManifest(study="wine", recipe="ab" * 32, format="contract", runs=runs)


def test_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Catches a manifest that leaves out its version, which later readers tell it by."""
    written = swarm("a", "b")
    path = write_swarm(tmp_path / "new", written)
    assert read_swarm(tmp_path / "new") == written
    assert json.loads(path.read_text())["version"] == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s["runs"].append(s["runs"][0]), "names run aaaaaaaaaaaa twice"),
        (lambda s: s.update(version=2), "of version 2"),
        (lambda s: s["runs"][0].update(folder="../elsewhere"), "folder"),
        (lambda s: s["runs"][0].update(fingerprint="a" * 12), "fingerprint"),
        (lambda s: s.update(runs=[]), "runs"),
    ],
)
def test_refuses_what_would_be_misread(tmp_path: Path, change, said: str) -> None:
    """Catches a reader that follows a folder out of the swarm, or takes a run twice."""
    write_swarm(tmp_path, swarm("a", "b"))
    values = json.loads((tmp_path / SWARM).read_text())
    change(values)
    (tmp_path / SWARM).write_text(json.dumps(values))
    with pytest.raises(RefusedResult, match=said):
        read_swarm(tmp_path)
