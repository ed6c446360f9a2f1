"""The differentiable pieces of a proxy, each with a backward pass written by hand.

At a million parameters a core spends more time between matrix products than in them: torch's
attention for CPUs takes three times as long as the same from batched products (measured: 8.3
against 2.4 ms for 8 x 256 tokens, 2 heads of 32, bfloat16), and autograd keeps and copies what a
hand-written rule need not.

Shapes: K models, B sequences, T tokens, N = B x T, D width, H heads, E width of a head, I and O in
and out. All functions take and give a leading K.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional

from cuvee.proxies.model.grouped_matmul import grouped_matmul
from cuvee.proxies.model_size import EPSILON, ROPE

LONGEST = 512  # tokens up to which whole attention matrices are kept on a CPU
BLOCK = 64  # queries at once where nothing is kept; 256 tokens take a third less than whole


def apply_function(function: type[Function], *inputs: Any) -> Tensor:
    """`function.apply` with a type."""
    result: Tensor = function.apply(*inputs)  # type: ignore[no-untyped-call]
    return result


class GroupedLinear(Function):
    """`x @ w` per model, computed in `dtype`; gradients come back in the dtype of the inputs."""

    @staticmethod
    def forward(ctx: Any, x_KNI: Tensor, w_KIO: Tensor, dtype: torch.dtype) -> Tensor:
        ctx.kinds = x_KNI.dtype, w_KIO.dtype
        x_KNI, w_KIO = x_KNI.to(dtype), w_KIO.to(dtype)
        ctx.save_for_backward(x_KNI, w_KIO)
        return grouped_matmul(x_KNI, w_KIO)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        x_KNI, w_KIO = ctx.saved_tensors
        g_KNO = grads[0].to(x_KNI.dtype)
        gx_KNI = grouped_matmul(g_KNO, w_KIO.transpose(1, 2))
        gw_KIO = grouped_matmul(x_KNI.transpose(1, 2), g_KNO)
        return gx_KNI.to(ctx.kinds[0]), gw_KIO.to(ctx.kinds[1]), None


class RMSNorm(Function):
    """`x / rms(x) * gain` (Zhang and Sennrich 2019, arXiv 1910.07467, equation 4)."""

    @staticmethod
    def forward(ctx: Any, x_KND: Tensor, gain_KD: Tensor, epsilon: float = EPSILON) -> Tensor:
        inverse_KN1 = torch.linalg.vector_norm(x_KND, dim=-1, keepdim=True)
        inverse_KN1.square_().div_(x_KND.shape[-1]).add_(epsilon).rsqrt_()
        unit_KND: Tensor = x_KND * inverse_KN1
        ctx.save_for_backward(unit_KND, inverse_KN1, gain_KD)
        return unit_KND * gain_KD[:, None]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        unit_KND, inverse_KN1, gain_KD = ctx.saved_tensors
        product_KND = grads[0] * unit_KND
        ggain_KD = product_KND.sum(1)
        if product_KND.device.type == "cpu":  # per model, for the sake of the last bit
            rows = zip(product_KND, gain_KD, strict=True)
            mean_KN1 = torch.stack([torch.mv(x_ND, gain_D) for x_ND, gain_D in rows])[..., None]
        else:
            mean_KN1 = product_KND @ gain_KD[..., None]
        mean_KN1.div_(unit_KND.shape[-1])
        gx_KND = grads[0] * gain_KD[:, None]
        gx_KND.addcmul_(unit_KND, mean_KN1, value=-1).mul_(inverse_KN1)
        return gx_KND, ggain_KD, None


class SwiGLU(Function):
    """`silu(gate) * up` of a joint tensor (..., 2M) -> (..., M)."""

    @staticmethod
    def forward(ctx: Any, joint: Tensor) -> Tensor:
        gate, up = joint.chunk(2, dim=-1)
        active = functional.silu(gate)
        ctx.save_for_backward(joint, active)
        return active * up

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        joint, active = ctx.saved_tensors
        gate, up = joint.chunk(2, dim=-1)
        result = torch.empty_like(joint)
        ggate, gup = result.chunk(2, dim=-1)
        ggate.copy_(torch.ops.aten.silu_backward(grads[0] * up, gate))
        torch.mul(grads[0], active, out=gup)
        return result


class Embedding(Function):
    """Rows of a table per model: (K, V, D) at (K, N) -> (K, N, D)."""

    @staticmethod
    def forward(ctx: Any, table_KVD: Tensor, tokens_KN: Tensor) -> Tensor:
        models, vocabulary, _ = table_KVD.shape
        model_K1 = torch.arange(models, device=tokens_KN.device)[:, None]
        ctx.save_for_backward(tokens_KN + vocabulary * model_K1)
        ctx.shape = table_KVD.shape
        return table_KVD[model_K1, tokens_KN]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (rows,) = ctx.saved_tensors
        models, vocabulary, width = ctx.shape
        table = torch.zeros(models * vocabulary, width, dtype=grads[0].dtype, device=rows.device)
        table.index_add_(0, rows.reshape(-1), grads[0].reshape(-1, width))
        return table.view(ctx.shape), None


class Rotary:
    """Rotary positions (Su et al. 2021, arXiv 2104.09864), halves as in Hugging Face Llama.

    The scale of attention, E^-1/2, is folded into the tables of the queries.
    """

    def __init__(
        self, length: int, width: int, *, dtype: torch.dtype, device: str, base: float = ROPE
    ) -> None:
        frequency = base ** -(torch.arange(0, width, 2, dtype=torch.float64) / width)
        angle_TE = torch.arange(length, dtype=torch.float64)[:, None] * frequency
        tables = torch.stack([angle_TE.cos(), angle_TE.sin()])
        self.keys = tables.to(dtype).to(device)
        self.queries = (tables * width**-0.5).to(dtype).to(device)

    @staticmethod
    def turn(x: Tensor, tables: Tensor, *, out: Tensor, sign: int = 1) -> None:
        """Rotate (..., T, E) into `out`; sign -1 is the transpose, which the backward needs."""
        cos, sin = tables[..., : x.shape[-2], :]
        first, second = x.chunk(2, dim=-1)
        out_first, out_second = out.chunk(2, dim=-1)
        torch.mul(first, cos, out=out_first)
        out_first.addcmul_(second, sin, value=-sign)
        torch.mul(second, cos, out=out_second)
        out_second.addcmul_(first, sin, value=sign)


@dataclass(frozen=True, eq=False)
class Branches:
    """Rotary positions and sight of sequences that hold a prefix tree, laid out depth first.

    Stands in for `Rotary` where several continuations share one context. A token sees what stands
    between the root and itself; forward only.

    Attributes:
        queries, keys: (2, R, 1, T, E/2) cosines and sines of each sequence's positions.
        mask: (R, 1, T, T) minus infinity where a token must not look, else 0.
    """

    queries: Tensor
    keys: Tensor
    mask: Tensor

    @classmethod
    def build(cls, rotary: Rotary, positions_RT: Tensor, ends_RT: Tensor) -> "Branches":
        """From each token's position and the place from which it is no longer seen, (R, T)."""
        place_T = torch.arange(ends_RT.shape[1], device=ends_RT.device)
        seen_RTT = (place_T[:, None] < ends_RT[:, None, :]).tril_()
        mask = torch.zeros(seen_RTT.shape, dtype=rotary.keys.dtype, device=ends_RT.device)
        mask.masked_fill_(~seen_RTT, float("-inf"))
        queries, keys = (t[:, positions_RT][:, :, None] for t in (rotary.queries, rotary.keys))
        return cls(queries, keys, mask[:, None])


class Attention(Function):
    """Causal attention with rotary positions on a joint (K, B, T, 3D) -> (K, B, T, D), for CPUs.

    Keeps the probabilities (K B H, T, T) for the backward pass instead of computing them twice.
    """

    @staticmethod
    def forward(ctx: Any, joint_KBTC: Tensor, rotary: Rotary | Branches, heads: int) -> Tensor:
        models, batch, length, _ = joint_KBTC.shape
        qkv = _turned_heads(joint_KBTC, rotary, heads)
        q, k, v = qkv.flatten(1, 2)  # (KBH, T, E) each
        weights = torch.bmm(q, k.transpose(1, 2))
        mask = rotary.mask if isinstance(rotary, Branches) else _mask(length, weights)
        weights.view(-1, heads, length, length).add_(mask)
        torch.softmax(weights, -1, out=weights)
        ctx.save_for_backward(qkv, weights)
        ctx.rotary = rotary
        mixed = torch.bmm(weights, v).view(qkv.shape[1:])
        return mixed.transpose(1, 2).reshape(models, batch, length, -1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        qkv, weights = ctx.saved_tensors
        _, rows, heads, length, width = qkv.shape
        g = grads[0].view(rows, length, heads, width).transpose(1, 2).reshape(-1, length, width)
        q, k, v = qkv.flatten(1, 2)
        gscores = torch.bmm(g, v.transpose(1, 2))
        gscores = torch._softmax_backward_data(gscores, weights, -1, weights.dtype)
        gq, gk = torch.bmm(gscores, k), torch.bmm(gscores.transpose(1, 2), q)
        gv = torch.bmm(weights.transpose(1, 2), g)
        joint = grads[0].new_empty(rows, length, 3, heads, width)
        split = joint.permute(2, 0, 3, 1, 4)
        Rotary.turn(gq.view_as(qkv[0]), ctx.rotary.queries, out=split[0], sign=-1)
        Rotary.turn(gk.view_as(qkv[1]), ctx.rotary.keys, out=split[1], sign=-1)
        split[2].copy_(gv.view_as(qkv[2]))
        return joint.view(*grads[0].shape[:3], -1), None, None


def attend(joint_KBTC: Tensor, rotary: Rotary | Branches, heads: int, *, first: int = 0) -> Tensor:
    """Causal attention (K, B, T, 3D) -> (K, B, T, D), by the kernel that suits the device.

    What comes out for places before `first` is not asked for and may be anything finite.
    """
    if joint_KBTC.device.type == "cpu" and joint_KBTC.shape[2] <= LONGEST:
        if not torch.is_grad_enabled():
            return blocked_attention(joint_KBTC, rotary, heads, first=first)
        return apply_function(Attention, joint_KBTC, rotary, heads)
    return fused_attention(joint_KBTC, rotary, heads)


def repeat_shared_heads(joint_KBTC: Tensor, heads: int, shared: int) -> Tensor:
    """Keys and values of `shared` heads once for each query head: (K, B, T, 3D) for `attend`.

    Grouped queries (Ainslie et al. 2023, arXiv 2305.13245): neighbors among them share a head.
    """
    if shared == heads:
        return joint_KBTC
    width = joint_KBTC.shape[-1] // (heads + 2 * shared)
    query, both = joint_KBTC[..., : heads * width], joint_KBTC[..., heads * width :]
    each = both.view(*both.shape[:-1], 2 * shared, 1, width)
    each = each.expand(*each.shape[:-2], heads // shared, width)
    return torch.cat([query, each.flatten(-3)], dim=-1)


def blocked_attention(
    joint_KBTC: Tensor, rotary: Rotary | Branches, heads: int, *, first: int = 0
) -> Tensor:
    """The same forward, for CPUs: a block of queries skips the keys that come after it."""
    models, batch, length, _ = joint_KBTC.shape
    qkv = _turned_heads(joint_KBTC, rotary, heads)
    q, k, v = qkv.flatten(1, 2)
    mixed = torch.zeros_like(q) if first else torch.empty_like(q)
    for start in range(first, length, BLOCK):
        stop = min(start + BLOCK, length)
        weights = torch.bmm(q[:, start:stop], k[:, :stop].transpose(1, 2))
        mask = rotary.mask if isinstance(rotary, Branches) else _mask(length, weights)
        weights.view(-1, heads, stop - start, stop).add_(mask[..., start:stop, :stop])
        torch.softmax(weights, -1, out=weights)
        mixed[:, start:stop] = torch.bmm(weights, v[:, :stop])
    return mixed.view(qkv.shape[1:]).transpose(1, 2).reshape(models, batch, length, -1)


def _turned_heads(joint_KBTC: Tensor, rotary: Rotary | Branches, heads: int) -> Tensor:
    """Queries and keys with their positions, and values: (3, KB, H, T, E)."""
    models, batch, length, joint = joint_KBTC.shape
    split = joint_KBTC.view(models * batch, length, 3, heads, joint // 3 // heads)
    split = split.permute(2, 0, 3, 1, 4)
    qkv = joint_KBTC.new_empty(split.shape)
    Rotary.turn(split[0], rotary.queries, out=qkv[0])
    Rotary.turn(split[1], rotary.keys, out=qkv[1])
    qkv[2].copy_(split[2])
    return qkv


def fused_attention(joint_KBTC: Tensor, rotary: Rotary | Branches, heads: int) -> Tensor:
    """The same by `scaled_dot_product_attention`: never holds a (T, T) matrix."""
    models, batch, length, joint = joint_KBTC.shape
    split = joint_KBTC.view(models * batch, length, 3, heads, joint // 3 // heads)
    q, k, v = split.permute(2, 0, 3, 1, 4)
    q, k = _turned(q, rotary.queries), _turned(k, rotary.keys)
    mask = rotary.mask if isinstance(rotary, Branches) else None
    mixed = functional.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=mask is None, scale=1.0
    )
    return mixed.transpose(1, 2).reshape(models, batch, length, -1)


def _turned(x: Tensor, tables: Tensor) -> Tensor:
    cos, sin = tables[..., : x.shape[-2], :]
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


_MASKS: dict[tuple[int, torch.dtype], Tensor] = {}  # a few kilobytes, read only


def _mask(length: int, like: Tensor) -> Tensor:
    """(T, T) with minus infinity above the diagonal."""
    key = (length, like.dtype)
    if key not in _MASKS:
        full = torch.full((length, length), float("-inf"), dtype=like.dtype)
        _MASKS[key] = full.triu(1)
    return _MASKS[key]
