"""The call of a handoff: a webhook or a command, made at most once."""

from collections.abc import Sequence
from urllib.parse import urlsplit

from mixtures.errors import RecipeError


def check(webhook: str | None, command: Sequence[str]) -> None:
    """Refuse what cannot be called, or holds a secret.

    Raises:
        RecipeError: says what is wrong with the recipe's `handoff`.
    """
    if webhook and command:
        raise RecipeError("handoff calls either `webhook` or `command`, not both")
    if not webhook:
        return
    parts = urlsplit(webhook)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise RecipeError(f"handoff.webhook must be an http or https URL; got {webhook!r}")
    if parts.username or parts.password:
        raise RecipeError(
            "handoff.webhook holds a user name or password: secrets do not stand in recipes; set "
            "CUVEE_WEBHOOK_TOKEN in the environment, which is sent as a bearer token"
        )
