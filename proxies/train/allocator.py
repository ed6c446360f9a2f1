"""Memory that is kept, not returned: a setting of the C library that a CPU trainer needs.

glibc gives large blocks back to the kernel as soon as they are freed and gets fresh, zeroed pages
for the next ones. Those page faults took half the time of our own bfloat16 step and a third of a
naive loop's (README.md). `keep_memory` sets the running process; `WORKER_ENVIRONMENT` does the same
from the start of one, for whoever starts workers, and gives each a single thread.
"""

import ctypes

KEPT = 256 << 20  # bytes by which the heap grows at a time
WORKER_ENVIRONMENT = {
    "MALLOC_MMAP_MAX_": "0",  # no block in a mapping of its own: all from the heap
    "MALLOC_TRIM_THRESHOLD_": "-1",  # never shrink the heap
    "MALLOC_TOP_PAD_": str(KEPT),
    "OMP_NUM_THREADS": "1",  # one process per core beats one thread pool over all
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
_MMAP_MAX, _TRIM_THRESHOLD, _TOP_PAD = -4, -1, -2  # names of glibc's malloc.h


def keep_memory() -> bool:
    """Let this process keep the memory it frees; whether the C library could be told."""
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False  # musl, macOS, Windows: nothing to set
    options = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1), (_TOP_PAD, KEPT))
    return all(set_option(name, value) == 1 for name, value in options)
