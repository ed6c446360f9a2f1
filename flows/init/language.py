"""Which language a sample of text is in, roughly; nothing where the library is not installed."""

import functools
from typing import Any

from cuvee.tasks.extras import is_installed

LIBRARY = "py3langid"
SURE = 0.5  # probability below which a text is said to be in no one language
ENOUGH = 200  # characters below which nothing is said
SAMPLE = 4_000  # characters that are looked at
NONE = ("zxx", "und")  # its words for no language, and for one that it cannot tell


def text_language(text: str) -> str:
    """A code of ISO 639, such as "en"; "" where none can be told."""
    if len(text.strip()) < ENOUGH or not is_installed(LIBRARY):
        return ""
    name, probability = _identifier().classify(text[:SAMPLE])
    return "" if name in NONE or probability < SURE else str(name)


@functools.cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
