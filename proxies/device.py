"""What a device computes fastest in, so that a recipe need not say it."""

import torch


def precision(device: str) -> str:
    """The arithmetic that pays on a device: bfloat16 where it is built in, else float32.

    Master weights, losses and scores are float32 in both. The answer becomes part of a run's spec:
    a store that was begun on one kind of machine is not silently mixed with runs of another.

    Args:
        device: "cpu", "cuda" or "auto", which is the GPU of this machine where there is one.
    """
    if device == "cuda" or (device == "auto" and torch.cuda.is_available()):
        return "bfloat16"
    # Private in torch 2.13, which has no public name for it; without it float32 is always right.
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return "bfloat16" if supported() else "float32"
