"""The mathematics is a place: importing all of it brings no vendor."""

import json
import pkgutil
import subprocess
import sys

from cuvee import mixtures
from cuvee.mixtures import registry

FOREIGN = ("torch", "ray", "prefect", "mlflow", "lm_eval", "pandas", "sklearn", "lightgbm")


def test_importing_every_module_of_mixtures_brings_no_vendor():
    """Catches a heavy import at the top of a law: it must stand inside `fit`."""
    modules = [m.name for m in pkgutil.walk_packages(mixtures.__path__, "cuvee.mixtures.")]
    assert "cuvee.mixtures.methods.regmix" in modules and len(modules) > 20
    program = (
        "import importlib, sys\n"
        f"[importlib.import_module(name) for name in {modules!r}]\n"
        f"print(','.join(name for name in {FOREIGN!r} if name in sys.modules))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""


def test_each_kind_is_whole_whichever_is_loaded_first():
    """Catches import cycles that only show when a folder is loaded first: the module fails to load,
    or what it registers is missing."""
    program = (
        "import importlib, json, sys\n"
        "def first(kind):\n"
        "    for name in [name for name in sys.modules if name.split('.')[0] == 'cuvee']:\n"
        "        del sys.modules[name]\n"
        "    return importlib.import_module('cuvee.mixtures.registry').names(kind)\n"
        "from cuvee.mixtures.registry import FOLDERS\n"
        "print(json.dumps({kind: first(kind) for kind in FOLDERS}))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {"law", "method", "controller", "world"} <= found.keys() and all(found.values())
    assert found == {kind: list(registry.names(kind)) for kind in found}
