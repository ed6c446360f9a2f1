"""Units: quantities as people write them, such as 20M tokens, 4B, 1.5T."""

from typing import Any

SUFFIXES = {"k": 10**3, "K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}


def whole_number(value: Any) -> Any:
    """Reads 20M, 1.5B or 2e7 as a whole number; what is no number is returned as it is."""
    if isinstance(value, str) and value.strip():
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
