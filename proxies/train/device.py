"""What a device computes fastest in, and the memory settings of a CPU trainer.

Asked by flows, which need no torch otherwise and would spend seconds on importing it: so on Linux
the machine is asked first, and torch only where it could know better.

glibc gives large blocks back to the kernel as soon as they are freed and gets fresh, zeroed pages
for the next ones. Those page faults took half the time of our own bfloat16 step and a third of a
naive loop's (docs/results). `keep_memory` sets the running process; `WORKER_ENVIRONMENT` does
the same from the start of one, for whoever starts workers, and gives each a single thread.
"""

import contextlib
import ctypes
import sys
from dataclasses import dataclass
from pathlib import Path

from cuvee.mixtures.errors import ServiceError

CPU_FLAGS = Path("/proc/cpuinfo")
DRIVERS = (Path("/dev/nvidiactl"), Path("/dev/kfd"), Path("/dev/dxg"))  # NVIDIA, AMD, WSL
MEMORY_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
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


@dataclass(frozen=True)
class DeviceKind:
    """GPUs (or slices of one) that are alike, or a machine whose cores train.

    Attributes:
        name: of the GPU, as its driver has it, or "cpu".
        memory: bytes; 0 where they are not known.
        torch: version that works with the GPU.
        nodes: identities of the machines, on a cluster.
    """

    name: str
    memory: int
    torch: str = ""
    nodes: tuple[str, ...] = ()


def this_device(device: str) -> DeviceKind:
    """The first GPU that this process may use, or the machine for "cpu".

    Raises:
        ServiceError: torch finds no GPU.
    """
    if device == "cpu":
        import psutil  # which a GPU alone does without

        total, limit = psutil.virtual_memory().total, memory_limit()
        return DeviceKind("cpu", min(total, limit or total))
    import torch

    if not torch.cuda.is_available():
        raise ServiceError(
            "a GPU was promised, and torch finds none: install a build of torch for it on that "
            "node, begin its Ray with --num-gpus 0, or set `proxy.device: cpu`"
        )
    seen = torch.cuda.get_device_properties(0)
    return DeviceKind(seen.name, seen.total_memory, torch.__version__)


def memory_limit() -> int:
    """The limit that this process's container sets, in bytes; 0 where there is none."""
    for path in MEMORY_LIMITS:
        with contextlib.suppress(OSError, ValueError):  # "max" is no number
            return int(path.read_text(encoding="utf-8"))
    return 0


def precision(device: str) -> str:
    """The arithmetic that pays on a device: bfloat16 where it is built in, else float32.

    Master weights, losses and scores are float32 in both. The answer becomes part of a run's spec:
    a store that was begun on one kind of machine is not silently mixed with runs of another.

    Args:
        device: "cpu", "cuda" or "auto", which is the GPU of this machine where there is one.
    """
    if device == "cuda" or (device == "auto" and has_gpu()):
        return "bfloat16"
    return "bfloat16" if _processor() else "float32"


def has_gpu() -> bool:
    """Whether there is a GPU that torch can use."""
    if sys.platform == "linux" and not any(path.exists() for path in DRIVERS):
        return False
    import torch

    return torch.cuda.is_available()


def training_device(wish: str) -> str:
    """Where this machine trains, "cpu" or "cuda", if "auto" or "cuda" is wished for."""
    return "cuda" if wish != "cpu" and has_gpu() else "cpu"


def _processor() -> bool:
    """Whether the processor multiplies bfloat16 by itself."""
    if sys.platform == "linux" and CPU_FLAGS.exists():
        return "avx512_bf16" in _flags()  # which the kernel tells only where programs may use it
    import torch

    # Private in torch 2.13, which has no public name for it; without it float32 is always right.
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return bool(supported())


def _flags() -> set[str]:
    lines = CPU_FLAGS.read_text(encoding="utf-8").splitlines()
    flags = (line.partition(":")[2] for line in lines if line.startswith("flags"))
    return set(next(flags, "").split())


def keep_memory() -> bool:
    """Let this process keep the memory it frees; whether the C library could be told."""
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False  # musl, macOS, Windows: nothing to set
    options = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1), (_TOP_PAD, KEPT))
    return all(set_option(name, value) == 1 for name, value in options)
