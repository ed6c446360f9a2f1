"""Matrix products over the model axis, by the fastest exact kernel that the device has.

On a CPU each model's product is a call of its own. So a model's numbers do not depend, to the
last bit, on how many models stand beside it; and a pack gains nothing from batching there.

Why oneDNN for float32: torch's `mm` goes to MKL, which on AMD processors stays on AVX2 (measured:
99 GFLOP/s, against 219 of oneDNN's AVX-512 kernels on the same core). `mkldnn._linear_pointwise` is
the one operator that reaches those kernels with ordinary dense tensors. It is not public, so it is
probed once and `torch.mm` stands in where it is missing or differs.
"""

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor


def grouped_matmul(a_KNI: Tensor, b_KIO: Tensor) -> Tensor:
    """Products per model: (K, N, I) times (K, I, O) -> (K, N, O), in the dtype of the operands."""
    if a_KNI.device.type != "cpu":
        return torch.bmm(a_KNI, b_KIO)
    multiply = _float32_kernel() if a_KNI.dtype == torch.float32 else torch.mm
    if len(a_KNI) == 1:
        return multiply(a_KNI[0], b_KIO[0])[None]
    return torch.stack([multiply(a, b) for a, b in zip(a_KNI, b_KIO, strict=True)])


@cache
def _float32_kernel() -> Callable[[Tensor, Tensor], Tensor]:
    """oneDNN's product where it works, else torch's."""
    try:
        left, right = torch.ones(3, 5), torch.arange(10.0).view(5, 2)
        exact = torch.equal(_onednn(left, right), torch.mm(left, right))
    except (AttributeError, RuntimeError, TypeError):
        return torch.mm
    return _onednn if exact else torch.mm


def _onednn(a_NI: Tensor, b_IO: Tensor) -> Tensor:
    result: Tensor = torch.ops.mkldnn._linear_pointwise(a_NI, b_IO.t(), None, "none", [], "")
    return result
