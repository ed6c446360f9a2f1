"""Runs a program of torchtitan 0.3 on a CPU, where it knows none: its own code but for the device.

Named for what they stand for: the type of the device and its memory, kernels of experts (which need
Triton), flex attention, which has a backward on a CPU only uncompiled, and what torch 2.13 lacks.
"""

import runpy
import sys
import types

import torch
import torch.nn.attention.flex_attention as flex

KERNELS = "torchtitan.distributed.minimal_async_ep.kernels"
DEVICE = {
    "get_device_name": "a CPU",
    "get_device_properties": types.SimpleNamespace(total_memory=1 << 30),
    "memory_stats": {},
    "reset_peak_memory_stats": None,
    "empty_cache": None,
}


class Kernels(types.ModuleType):
    """No kernel is run: the model is dense."""

    def __getattr__(self, name):
        return None


def main(program):
    torch._utils._get_available_device_type = lambda: "cpu"
    for name, value in DEVICE.items():
        setattr(torch.cpu, name, lambda *_, value=value: value)
    torch.compile = lambda model=None, **_: model or (lambda one: one)
    flex._validate_device = lambda *_: None
    barrier = torch.distributed.barrier
    torch.distributed.barrier = lambda *_, **__: barrier()  # gloo knows no device ids
    torch.distributed.set_timeout = lambda *_: None
    sys.modules[KERNELS] = Kernels(KERNELS)
    runpy.run_path(program, run_name="__main__")


if __name__ == "__main__":
    del sys.argv[0]
    main(sys.argv[0])
