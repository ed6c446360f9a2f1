"""What a device computes fastest in, so that a recipe need not say it.

Asked by flows, which need no torch otherwise and would spend seconds on importing it: so on Linux
the machine is asked first, and torch only where it could know better.
"""

import sys
from pathlib import Path

CPU_FLAGS = Path("/proc/cpuinfo")
DRIVERS = (Path("/dev/nvidiactl"), Path("/dev/kfd"), Path("/dev/dxg"))  # NVIDIA, AMD, WSL


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


def _processor() -> bool:
    """Whether the processor multiplies bfloat16 by itself."""
    if sys.platform == "linux" and CPU_FLAGS.exists() and "avx512_bf16" not in _flags():
        return False
    import torch

    # Private in torch 2.13, which has no public name for it; without it float32 is always right.
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return bool(supported())


def _flags() -> set[str]:
    lines = CPU_FLAGS.read_text(encoding="utf-8").splitlines()
    flags = (line.partition(":")[2] for line in lines if line.startswith("flags"))
    return set(next(flags, "").split())
