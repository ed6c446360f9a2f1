"""How a long step says how far it is: a message and the fraction done."""

from collections.abc import Callable

Report = Callable[[str, float], None]


def ignore(message: str, fraction: float) -> None:
    """Progress that nobody watches."""
