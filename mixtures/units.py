"""Units: quantities as people write and read them: 20M tokens, 1.5T, 3.4 GB, 3 min 20 s."""

from typing import Any

SUFFIXES = {"k": 10**3, "K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}


def whole_number(value: Any) -> Any:
    """Reads 20M, 1.5B or 2e7 as a whole number; what is no number is returned as it is."""
    if isinstance(value, str) and value.strip().replace("_", ""):
        text, factor = value.strip().replace("_", ""), 1
        if text[-1] in SUFFIXES:
            text, factor = text[:-1], SUFFIXES[text[-1]]
        try:
            value = round(float(text) * factor, 6)
        except ValueError:
            return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def count_text(count: float) -> str:
    """A count for people, in three figures: "41k", "1.32M", "7"."""
    for suffix, factor in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= 0.9995 * factor:
            return f"{count / factor:.3g}{suffix}"
    return f"{count:.0f}"


def bytes_text(count: float) -> str:
    """A size on disk for people: "12 KB", "3.4 GB"."""
    for suffix, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= 0.9995 * factor:
            return f"{count / factor:.3g} {suffix}"
    return f"{count / 1e3:.0f} KB"


def error_text(error: float) -> str:
    """The standard error of a count behind it: " ± 1.3M"; "" where there is none."""
    return f" ± {count_text(error)}" if error else ""


def duration_text(seconds: float) -> str:
    """A duration for people: "45 s", "3 min 20 s", "2 h 5 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
