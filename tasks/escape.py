"""Text of other people's making, put into Markdown or on a terminal so that it reads as it is."""

import os
import re

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # but line ends and tabs
SECRET = re.compile(r"SECRET|TOKEN(?!I)|PASSW|AUTH(?!OR)|CREDENTIAL|KEY$|WEBHOOK", re.IGNORECASE)
SHORTEST = 8  # characters of what is taken for a secret
USER = re.compile(r"(?<=://)([^/\s]+|[^/\s:@]+:(?!\d+/)[^\s@]+)@")  # keys may hold slashes
QUERY = re.compile(r"(://[^\s?]*)\?[^\s)'\"]+")


def printable(text: str) -> str:
    """A text whose control characters, which names and paths may hold, are written out."""
    return CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)


def escape_markdown(text: str) -> str:
    """Text that Markdown shows as it is, inside a paragraph or a table's cell."""
    flat = " ".join(text.split())
    return re.sub(r"([\\|<>*`\[\]&~$])", r"\\\1", flat)


def fenced_code(text: str, language: str = "") -> str:
    """A fenced code block whose fence is longer than any in the text."""
    runs = [len(run) for run in re.findall(r"`+", text)]
    fence = "`" * max(3, 1 + max(runs, default=0))
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def without_secrets(text: str) -> str:
    """A text without what may be a secret.

    Addresses lose users, passwords and queries; values of variables of the environment that are
    named like secrets are replaced by their names.
    """
    for name, value in os.environ.items():
        if SECRET.search(name) and len(value) >= SHORTEST and not value.isdigit():
            text = text.replace(value, f"${name}")
    return QUERY.sub(r"\1?...", USER.sub("...@", text))
