"""Start MixBench: `python benchmarks/mixbench --help`; what is counted stands in `command.py`."""

import os
import sys
from pathlib import Path

if __name__ == "__main__":  # one thread a process, which numpy reads when it is imported
    os.environ |= {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")}
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from mixbench.command import main

    main()
