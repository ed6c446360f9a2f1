"""The whole campaign of faults: `inputs.py`, `fuzz.py`, `records.py` and `faults.py` in turn.

Usage: python benchmarks/resilience.py [--trials 52] [--count 12000] [--fuzz 30000] [--sizes 100
1000 10000]. The last line is JSON with the figures of all four.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
KEYS = ("trials", "lost", "double_counted", "corrupt_used", "reruns_failed", "tracebacks", "hangs",
        "missed", "kinds", "inputs_tried", "wrong_acceptances", "wrong_refusals", "misread",
        "open_10000_seconds", "seconds", "growth")  # fmt: skip


def run(program: str, *words: str) -> dict[str, Any]:
    """Run one of the programs, show what it prints, and return the figures of its last line."""
    command = [sys.executable, str(HERE / program), *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=HERE.parent) as process:
        last = ""
        for line in process.stdout or ():
            print(line, end="", flush=True)
            last = line if line.strip() else last
    if process.returncode:
        raise SystemExit(f"{program} ended with {process.returncode}")
    return dict(json.loads(last))


def both_kinds(generated: dict[str, Any], fuzzed: dict[str, Any]) -> dict[str, Any]:
    """The figures of generated and of fuzzed inputs, added."""
    return {name: value + fuzzed.get(name, 0) for name, value in generated.items()}


def together(faults: dict[str, Any], tried: dict[str, Any], records: dict[str, Any]) -> Any:
    """The figures of the campaign; a traceback or a hang counts wherever it was met."""
    both = {name: faults[name] + tried[name] for name in ("tracebacks", "hangs")}
    found = {**faults, **tried, **records, **both}
    return {name: found.get(name) for name in KEYS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=52)
    parser.add_argument("--count", type=int, default=12_000)
    parser.add_argument("--fuzz", type=int, default=30_000)
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 1_000, 10_000])
    given = parser.parse_args()
    tried = both_kinds(
        run("inputs.py", "--count", str(given.count)), run("fuzz.py", "--count", str(given.fuzz))
    )
    records = run("records.py", "--sizes", *map(str, given.sizes))
    faults = run("faults.py", "--trials", str(given.trials))
    print(json.dumps(together(faults, tried, records)))


if __name__ == "__main__":
    main()
