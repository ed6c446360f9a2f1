"""The command line: `cuvee plan | run | confirm | fit | approve | export | ...`, on one recipe.

What must stand before anything of ours is imported is settled here: where Python looks for modules,
and one thread per process. Prefect reads its settings when it is imported, so a command settles the
home first and imports the flows after it; and all that takes time to import is imported by the
command that uses it, so that `--help` and a typo are answered at once.

A command is a function in a file `*_commands.py`, under `cuvee.flows.cli.app.command`: it takes a
session first, says what it does by `session.say`, and returns what `--json` prints.
"""

from cuvee.flows import python_path

_path = python_path.leave_working_folder()
from cuvee.tasks import process

process.set_environment({"PYTHONPATH": _path} if _path is not None else {})
process.set_environment(process.SINGLE_THREAD, over=False)  # before numpy, which reads them once
