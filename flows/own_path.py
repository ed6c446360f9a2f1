"""Where Python may look for Cuvee's own packages: never in the folder it is called from.

Their names are ordinary words, and a `tasks.py` of the user's, found first, would be run in place
of ours. Imports the standard library alone, because it comes before all other imports.
"""

import contextlib
import importlib.util
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("mixtures", "proxies", "evaluation", "tasks", "flows")


def leave_working_folder() -> str | None:
    """Take the working folder out of this process's path.

    It may stand there as `.`, as nothing beside a colon, or by its name; all the same. It stays
    only where Cuvee itself lies in it.

    Returns:
        What PYTHONPATH should be for this process's children; None if it may stay as it is.

    Raises:
        SystemExit: another package stands in place of ours all the same; it is told which.
    """
    here, cleaned = str(ROOT), None
    with contextlib.suppress(OSError):  # it was deleted: nothing is found in it
        here = os.path.realpath(".")
    if here != str(ROOT):
        sys.path[:] = [one for one in sys.path if os.path.realpath(one or ".") != here]
        given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
        kept = [one for one in given if os.path.realpath(one or ".") != here]
        cleaned = None if kept == given or given == [""] else os.pathsep.join(kept)
    for room in ROOMS:
        found = importlib.util.find_spec(room)
        where = Path(found.origin).resolve() if found and found.origin else None
        if where is None or where.parent.parent != ROOT:
            print(
                f"cuvee: error: Python finds another package {room!r} ({where or 'a folder'}) "
                f"before Cuvee's own in {ROOT}: take its folder out of PYTHONPATH, or rename it",
                file=sys.stderr,
            )
            sys.exit(2)
    return cleaned
