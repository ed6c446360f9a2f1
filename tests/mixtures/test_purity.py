"""The mathematics is a place: importing all of it brings no vendor."""

import pkgutil
import subprocess
import sys

from cuvee import mixtures

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


def test_the_registry_loads_every_kind_in_a_fresh_interpreter():
    """Catches import cycles that only show when a folder is loaded first."""
    program = (
        "from cuvee.mixtures import registry\n"
        "print(*[registry.names(kind)[0] for kind in sorted(registry.FOLDERS, reverse=True)"
        " if kind != 'controller'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "additive" in done.stdout and "dirichlet" not in done.stderr
