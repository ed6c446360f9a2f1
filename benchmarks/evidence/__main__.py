"""What the evidence of a study is worth: every figure of it, measured, a module for each part.

A part is a module of this folder with `MINUTES` (what it takes on two cores) and

    def run(out: Path, minutes: float) -> dict

which measures for at most about so long, writes its rows as CSV files into `out`, goes on from what
is there already, and returns its figures by name: a dict each, of which one at least says by
`whole` whether all was measured that is wanted.

Usage: python benchmarks/evidence [PART ...] [--out build/evidence] [--minutes M] [--plan]. `--plan`
prints what would run, and for how long. The last line is JSON: every figure by name, over all
parts, and by `whole` of each part whether it is; a part that failed gives its error under its own
name, and the program ends with 1.
"""

import argparse
import importlib
import json
import os
import pkgutil
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent


def parts() -> tuple[str, ...]:
    """Names of the parts: the modules of this folder that can be run."""
    found = [one.name for one in pkgutil.iter_modules([str(HERE)]) if one.name != "__main__"]
    return tuple(name for name in found if "\ndef run(" in (HERE / f"{name}.py").read_text())


def plan(named: tuple[str, ...]) -> str:
    """What would run, a line for each part."""
    lines, total = [], 0.0
    for name in named:
        part = importlib.import_module(f"evidence.{name}")
        total += part.MINUTES
        first = (part.__doc__ or "").strip().splitlines()[0]
        lines.append(f"{name:16} {part.MINUTES / 60:5.1f} h  {first}")
    return "\n".join([*lines, f"{'all':16} {total / 60:5.1f} h"])


def measure(named: tuple[str, ...], out: Path, minutes: float | None) -> dict[str, Any]:
    """The figures of the parts, by name, and which are whole; of a part that failed, its error."""
    figures: dict[str, Any] = {"whole": {}}
    out.mkdir(parents=True, exist_ok=True)
    for name in named:
        part, begin = importlib.import_module(f"evidence.{name}"), time.monotonic()
        try:
            found = part.run(out, part.MINUTES if minutes is None else minutes)
            stated = [one["whole"] for one in found.values() if "whole" in one]
            figures["whole"][name] = bool(stated) and all(one is True for one in stated)
            figures |= found
        except Exception as error:  # the other parts are worth their figures all the same
            figures[name] = {"error": f"{type(error).__name__}: {error}"}
        print(f"{name}: {(time.monotonic() - begin) / 60:.1f} minutes", flush=True)
    return figures


def main() -> None:
    """Measure the named parts, or all of them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("part", nargs="*", choices=[*parts(), []], help="all, if none is named")
    parser.add_argument("--out", type=Path, default=Path("build/evidence"))
    parser.add_argument(
        "--minutes", type=float, help="of each part, at most; its own, if not given"
    )
    parser.add_argument("--plan", action="store_true", help="print what would run, and stop")
    given = parser.parse_args()
    named = tuple(given.part) or parts()
    if given.plan:
        print(plan(named))
        return
    figures = measure(named, given.out, given.minutes)
    print(json.dumps(figures))
    sys.exit(any("error" in one for one in figures.values() if isinstance(one, dict)))


if __name__ == "__main__":  # one thread a process, which numpy reads when it is imported
    os.environ |= {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")}
    sys.path[0] = str(HERE.parent)
    main()
