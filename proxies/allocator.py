"""Environment of worker processes: one thread each, and memory that is kept, not returned.

The C library gives large blocks back to the kernel as soon as they are freed and gets fresh, zeroed
pages for the next one; in a naive training loop on a CPU those page faults take a third of the
time. The variables act only from the start of a process, so whoever starts it puts them there.
"""

WORKER_ENVIRONMENT = {
    "MALLOC_MMAP_MAX_": "0",  # no block of its own mapping: all from the heap
    "MALLOC_TRIM_THRESHOLD_": "-1",  # never shrink the heap
    "MALLOC_TOP_PAD_": str(256 << 20),  # and grow it in large steps
    "OMP_NUM_THREADS": "1",  # one process per core beats one thread pool over all
    "MKL_NUM_THREADS": "1",
}
