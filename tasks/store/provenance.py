"""What a result was computed by: the code, as one hash."""

import hashlib
import importlib.metadata
from pathlib import Path
from types import ModuleType

from cuvee import evaluation, mixtures, proxies

FITTING = ("numpy", "scipy", "lightgbm", "scikit-learn")
TRAINING = (*FITTING, "torch", "tokenizers", "lm_eval")


def code_version() -> str:
    """Hash of the sources that a recommendation is computed by, and of the packages under them."""
    return _hash((mixtures,), FITTING)


def study_version() -> str:
    """The same of everything that trains, scores and fits."""
    return _hash((mixtures, proxies, evaluation), TRAINING)


def _hash(rooms: tuple[ModuleType, ...], packages: tuple[str, ...]) -> str:
    content = [importlib.metadata.version(name) for name in packages]
    for room in rooms:
        files = sorted(Path(str(room.__file__)).parent.rglob("*.py"))
        content += [path.read_text(encoding="utf-8") for path in files]
    return hashlib.sha256("\0".join(content).encode()).hexdigest()
