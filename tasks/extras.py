"""What is installed: versions, the extras that a command lacks, and the line that installs them."""

import contextlib
import importlib.metadata
import re

from cuvee.mixtures.errors import MissingExtra

SHOWN_VERSIONS = (
    "cuvee", "torch", "transformers", "lm_eval", "prefect", "ray", "mlflow", "lightgbm",
    "scikit-learn", "scipy", "numpy", "tokenizers",
)  # fmt: skip
NAMED = 4  # packages in one sentence
REQUIREMENT = re.compile(r"""([\w.-]+).*;.*extra == ["']([\w-]+)["']""")


def lacking(*extras: str) -> dict[str, list[str]]:
    """Of some extras those that are not installed whole, each with the packages that it lacks.

    What an extra is made of is read from the metadata of this installation, so that pyproject.toml
    alone says it.
    """
    missing: dict[str, list[str]] = {}
    for requirement in _requirements():
        found = REQUIREMENT.match(requirement)
        if found and found[2] in extras and not is_installed(found[1]):
            missing.setdefault(found[2], []).append(found[1])
    return missing


def require(command: str, *extras: str) -> None:
    """Refuse a command whose extras are not installed.

    Raises:
        MissingExtra: says what is missing, and how to install all of it.
    """
    missing = lacking(*extras)
    if missing:
        packages = sorted({package for names in missing.values() for package in names})
        more = f" and {len(packages) - NAMED} more" if len(packages) > NAMED else ""
        raise MissingExtra(
            f"{command} needs {', '.join(packages[:NAMED])}{more}, not installed here: "
            f"{install(*missing)}"
        )


def install(*extras: str) -> str:
    """The line that installs extras beside what is there."""
    return f"pip install 'cuvee[{','.join(sorted(extras))}]'"


def installed_versions() -> dict[str, str]:
    """Versions of what a study rests on, as far as it is installed."""
    found = {}
    for name in SHOWN_VERSIONS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _requirements() -> list[str]:
    try:
        return importlib.metadata.requires("cuvee") or []
    except importlib.metadata.PackageNotFoundError:
        return []  # run from its sources: whoever does that sees what cannot be imported


def is_installed(package: str) -> bool:
    """Whether a package is installed here, by its name on the index."""
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
