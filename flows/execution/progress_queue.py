"""Where workers leave their progress and the flow picks it up: a Ray actor, without torch."""

from cuvee.proxies.interfaces import Progress


class Board:
    """What the packs under way have reported and nobody has picked up."""

    def __init__(self) -> None:
        self._latest: dict[str, list[Progress]] = {}

    def report(self, pack: str, progress: Progress) -> None:
        """Leave a progress report."""
        self._latest.setdefault(pack, []).append(progress)

    def drain(self) -> dict[str, list[Progress]]:
        """Everything that was left since the last call."""
        latest, self._latest = self._latest, {}
        return latest
