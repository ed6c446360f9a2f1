"""Takes the folder that Cuvée is called from out of the path where Python looks for modules.

A `numpy.py` of the user's, found there first, would be run in place of ours by every
worker. Imports the standard library alone, because it comes before all other imports.
"""

import contextlib
import os
import sys
from pathlib import Path

_ROOM = Path(__file__).resolve().parent
HOUSE = _ROOM.parent if (_ROOM.parent / "cuvee").is_dir() else _ROOM.parent.parent  # has `cuvee/`


def leave_working_folder() -> str | None:
    """Take the working folder out of this process's path.

    It may stand there as `.`, as nothing beside a colon, or by its name; all the same. It stays
    only where Cuvee itself lies in it.

    Returns:
        What PYTHONPATH should be for this process's children; None if it may stay as it is.
    """
    here = None
    with contextlib.suppress(OSError):  # it was deleted: nothing is found in it
        here = os.path.realpath(".")
    if here in (None, str(HOUSE)):
        return None
    sys.path[:] = [one for one in sys.path if os.path.realpath(one or ".") != here]
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    rest = [one for one in given if os.path.realpath(one or ".") != here]
    return None if rest == given or given == [""] else os.pathsep.join(rest)
