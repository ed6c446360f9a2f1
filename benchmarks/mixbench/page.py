"""The page of results, from the figures of one run."""

from typing import Any


def written(whole: dict[str, Any]) -> str:
    """The page as Markdown."""
    return f"# MixBench\n\n{len(whole['cells'])} cells\n"
