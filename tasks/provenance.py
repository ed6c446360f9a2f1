"""What a result was computed by: the code, as one hash."""

import hashlib
import importlib.metadata
from pathlib import Path

import mixtures

PACKAGES = ("numpy", "scipy", "lightgbm", "scikit-learn")


def code_version() -> str:
    """Hash of the sources that a recommendation is computed by, and of the packages under them."""
    folder = Path(str(mixtures.__file__)).parent
    content = [path.read_text(encoding="utf-8") for path in sorted(folder.rglob("*.py"))]
    content += [importlib.metadata.version(name) for name in PACKAGES]
    return hashlib.sha256("\0".join(content).encode()).hexdigest()
