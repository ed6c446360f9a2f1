"""One thread for fits, in the program and in a caller's own process, which is left as it was."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import threadpoolctl

from cuvee.mixtures import registry
from cuvee.mixtures.laws import Law
from cuvee.mixtures.threads import ALONE

ROOT = Path(__file__).parent.parent.parent


def threads() -> set[int]:
    return {one["num_threads"] for one in threadpoolctl.threadpool_info()}


@pytest.mark.parametrize("kind", sorted(ALONE))
def test_every_registered_fit_is_computed_with_one_thread(kind):
    """Catches a law or a method that gets round the one place where fits are held to a thread."""
    for name in registry.names(kind):
        cls = registry.lookup(kind, name)
        for word in ALONE[kind]:
            assert hasattr(getattr(cls, word), "__wrapped__"), (kind, name, word)


def test_a_fit_has_one_thread_and_its_caller_keeps_all():
    """Catches a limit that outlasts the fit, or is lifted when an inner fit ends; and a fit that
    fails and leaves its caller with one thread for good."""
    seen = []

    @registry.register("law")
    @dataclass(frozen=True)
    class Inner(Law):
        name = "of_this_test"

        def rows(self, domains: int) -> int:
            return domains

        def fit(self, W: bool, Y: None) -> None:
            if W:
                Inner().fit(False, None)
            seen.append(threads())
            if not W:
                raise ValueError("on purpose")

    try:
        with threadpoolctl.threadpool_limits(3):
            with pytest.raises(ValueError, match="on purpose"):
                Inner().fit(True, None)
            with pytest.raises(ValueError, match="on purpose"):
                Inner().fit(False, None)
            assert seen == [{1}, {1}] and 3 in threads()
    finally:
        registry.forget("law", "of_this_test")


PROGRAM = """
import os, sys
from cuvee.flows.cli import main as program
import threadpoolctl, numpy
print(*sorted({one["num_threads"] for one in threadpoolctl.threadpool_info()}), numpy.__name__)
"""


def test_the_program_has_one_thread_from_its_first_line():
    """Catches a variable that is set after numpy was imported, which read it: all cores then."""
    clean = {n: v for n, v in os.environ.items() if not n.endswith("_NUM_THREADS")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        check=False,
        env=clean,
        cwd=ROOT,
    )
    assert done.stdout.split() == ["1", "numpy"], done.stderr
