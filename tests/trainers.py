"""Exports, read by the trainers' own libraries: install each alone, and run its tests beside it.

    python tests/trainers.py [NAME ...]

Each section of infra/trainers.txt goes into a folder of its own under .trainers, without what it
depends on, so that it cannot change this project's environment; `test_export_trainers.py` and
`test_example_trainers.py` run once for each, in a process of their own. A library that cannot be
read is named with the reason: its exports are held to its grammar alone
(`test_export_delivery.py`).
"""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / ".trainers"
STAND_INS = {  # images and sounds, which are not read here
    "llamafactory": {"torchaudio/__init__.py": ""},
    "mosaicml-streaming": {
        "torchvision/__init__.py": "",
        "torchvision/datasets.py": "class VisionDataset: ...\n",
        "torchvision/transforms/__init__.py": "",
        "torchvision/transforms/functional.py": "def to_tensor(image): ...\n",
    },
}


def sections() -> dict[str, list[str]]:
    """Library -> what is installed for it."""
    found: dict[str, list[str]] = {}
    for line in (ROOT / "infra" / "trainers.txt").read_text().splitlines():
        if line.startswith("["):
            packages = found.setdefault(line.strip("[]"), [])
        elif line and not line.startswith("#"):
            packages.append(line)
    return found


def install(name: str, packages: list[str]) -> Path:
    """The folder of a library; made anew where its section has changed."""
    key = hashlib.sha256("\n".join(packages).encode()).hexdigest()[:12]
    folder = FOLDER / f"{name}-{key}"
    if not (folder / ".whole").exists():
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--upgrade"]
        subprocess.run([*pip, "--target", str(folder), *packages], check=True)
        for file, text in STAND_INS.get(name, {}).items():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_text(text)
        (folder / ".whole").touch()
    return folder


def read(name: str, folder: Path) -> bool:
    """Run a library's tests; whether they passed."""
    files = ("tasks/export/test_export_trainers.py", "flows/test_example_trainers.py")
    tests = [*(str(ROOT / "tests" / file) for file in files), "-m", "trainers", "-rs", "-k"]
    beside = {"PYTHONPATH": str(folder), "CUVEE_TRAINER": name}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    word = name.replace("-", "_")
    done = subprocess.run([*command, word], cwd=ROOT, env={**os.environ, **beside}, check=False)
    return done.returncode == 0


def main(chosen: list[str]) -> int:
    """Install and read the libraries named, or all."""
    failed = []
    for name, packages in sections().items():
        if chosen and name not in chosen:
            continue
        print(f"== {name}", flush=True)
        if not read(name, install(name, packages)):
            failed.append(name)
    print(f"failed: {', '.join(failed)}" if failed else "all read")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
