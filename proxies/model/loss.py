"""Linear layer and cross-entropy in one, in chunks of tokens: logits are never held whole.

For a proxy with 64 channels and a vocabulary of 4096, logits are most of the work and nearly all of
the memory. So each chunk of logits is made, turned in place into probabilities and then into its
own gradient, used for the gradients of hidden states and head, and dropped while it is still in
cache: three products, one pass of exponentials, nothing computed twice.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from cuvee.proxies.model.grouped_matmul import grouped_matmul

CHUNK_BYTES = {"cpu": 4 << 20, "cuda": 256 << 20}  # of logits; CPU: within the shared cache
# Tokens at least: each chunk walks over the whole head and its gradient, so that at a vocabulary of
# 131,072 chunks of 16 take 1.9 (float32) to 2.5 times (bfloat16) as long (docs/results/trainer.md).
LEAST_TOKENS = {"cpu": 128, "cuda": 16}
FEW_TOKENS, MANY_TOKENS = 512, 1024  # of a chunk on a GPU, below which models go in groups; theirs
TINY = 1e-30  # below this a probability has lost digits, and its logarithm is computed anew


def linear_cross_entropy(
    hidden_KND: Tensor,
    head_KDV: Tensor,
    targets_KN: Tensor,
    *,
    dtype: torch.dtype,
    factors_KN: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of `hidden @ head`, products computed in `dtype`.

    Args:
        hidden_KND: hidden states.
        head_KDV: the output matrix.
        targets_KN: tokens to predict.
        dtype: of the products.
        factors_KN: what each token's loss counts in its model's mean; one when None.

    Returns:
        Mean of factor times loss per model (K,) and loss per token (K, N), in nats, float32
        (float64 when computed in it). Only the means carry a gradient; the others are for
        controllers and curves.
    """
    result: tuple[Tensor, Tensor] = LinearCrossEntropy.apply(  # type: ignore[no-untyped-call]
        hidden_KND, head_KDV, targets_KN, dtype, factors_KN
    )
    return result


@torch.no_grad()
def token_losses(hidden_KND: Tensor, head_KDV: Tensor, targets_KN: Tensor) -> Tensor:
    """Cross-entropy of `hidden @ head` per token (K, N), in nats, without any gradient.

    Products are computed in the dtype of the operands, a chunk of tokens at a time.
    """
    tokens = hidden_KND.shape[1]
    kind = loss_dtype(hidden_KND.dtype)
    losses_KN = torch.empty(targets_KN.shape, dtype=kind, device=hidden_KND.device)
    on_cpu = hidden_KND.device.type == "cpu"
    to_probabilities = probabilities if on_cpu else probabilities_unbranched
    size = chunk_tokens(hidden_KND, head_KDV.shape[-1])
    for start in range(0, tokens, size):
        part = slice(start, min(start + size, tokens))
        hidden, target = hidden_KND[:, part], targets_KN[:, part, None]
        logits = grouped_matmul(hidden, head_KDV)
        losses_KN[:, part] = to_probabilities(logits, target, hidden, head_KDV)
    return losses_KN


class LinearCrossEntropy(Function):
    """See `linear_cross_entropy`."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_KND: Tensor,
        head_KDV: Tensor,
        targets_KN: Tensor,
        dtype: torch.dtype,
        factors_KN: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        wide = models_together(hidden_KND, head_KDV.shape[-1], dtype.itemsize)
        parts = [
            _chunked(
                hidden_KND[k : k + wide].to(dtype),
                head_KDV[k : k + wide].to(dtype),
                targets_KN[k : k + wide],
                kind=loss_dtype(dtype),
                factors_KN=None if factors_KN is None else factors_KN[k : k + wide],
            )
            for k in range(0, len(hidden_KND), wide)
        ]
        losses_KN, gh_KND, gw_KDV = (
            p[0] if len(parts) == 1 else torch.cat(p) for p in zip(*parts, strict=True)
        )
        ctx.save_for_backward(gh_KND, gw_KDV)
        ctx.mark_non_differentiable(losses_KN)
        counted_KN = losses_KN if factors_KN is None else losses_KN * factors_KN
        return counted_KN.mean(1), losses_KN

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        gh_KND, gw_KDV = ctx.saved_tensors
        scale = grads[0][:, None, None]
        return gh_KND * scale, gw_KDV * scale, None, None, None


def _chunked(
    hidden_KND: Tensor,
    head_KDV: Tensor,
    targets_KN: Tensor,
    *,
    kind: torch.dtype,
    factors_KN: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Losses (K, N) and the gradients of the mean loss per model, in `kind`."""
    tokens = hidden_KND.shape[1]
    losses_KN = torch.empty(targets_KN.shape, dtype=kind, device=hidden_KND.device)
    gh_KND = torch.empty(hidden_KND.shape, dtype=kind, device=hidden_KND.device)
    gw_KDV = torch.zeros(head_KDV.shape, dtype=kind, device=hidden_KND.device)
    size = chunk_tokens(hidden_KND, head_KDV.shape[-1])
    on_cpu = hidden_KND.device.type == "cpu"
    to_probabilities = probabilities if on_cpu else probabilities_unbranched
    for start in range(0, tokens, size):
        part = slice(start, min(start + size, tokens))
        hidden, target = hidden_KND[:, part], targets_KN[:, part, None]
        logits = grouped_matmul(hidden, head_KDV)
        losses_KN[:, part] = to_probabilities(logits, target, hidden, head_KDV)
        _take_one(logits, target)
        gh_KND[:, part] = grouped_matmul(logits, head_KDV.transpose(1, 2))
        if factors_KN is not None:  # on states, not on logits, which are V / D times as many
            factor = factors_KN[:, part, None]
            gh_KND[:, part] *= factor
            hidden = (hidden * factor).to(hidden.dtype)
        gw_KDV += grouped_matmul(hidden.transpose(1, 2), logits)
    return losses_KN, gh_KND.div_(tokens), gw_KDV.div_(tokens)


def _take_one(values_KnV: Tensor, target_Kn1: Tensor) -> None:
    """Subtract one at each target, in place; `scatter_add_` takes 25 times as long."""
    rows = torch.arange(target_Kn1.numel(), device=target_Kn1.device) * values_KnV.shape[-1]
    places = rows + target_Kn1.reshape(-1)
    flat = values_KnV.view(-1)
    flat[places] = flat[places] - 1


def probabilities(logits: Tensor, target: Tensor, hidden: Tensor, head: Tensor) -> Tensor:
    """Losses (K, n) of a chunk; its logits (K, n, V) become probabilities in place.

    One pass over the logits. The few losses whose probability has underflowed are computed anew.
    """
    torch.softmax(logits, -1, out=logits)
    chosen = logits.gather(-1, target)[..., 0].to(loss_dtype(logits.dtype))
    losses = -chosen.log()
    lost = chosen < TINY
    if lost.any():
        for model, token in lost.nonzero().tolist():
            row = (hidden[model, token, None] @ head[model])[0].to(losses.dtype)
            losses[model, token] = row.logsumexp(0) - row[target[model, token, 0]]
    return losses


def probabilities_unbranched(
    logits: Tensor, target: Tensor, _hidden: Tensor, _head: Tensor
) -> Tensor:
    """The same without a branch on values, which would make the host wait for an accelerator.

    The sum over the vocabulary is had from the most probable token, whose probability cannot
    underflow: two passes less than by `logsumexp`, and rounded once.
    """
    kind = loss_dtype(logits.dtype)
    chosen, most = logits.gather(-1, target)[..., 0].to(kind), logits.amax(-1).to(kind)
    torch.softmax(logits, -1, out=logits)
    return most - logits.amax(-1).to(kind).log() - chosen


def loss_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of losses: float64 for float64, else float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def models_together(hidden_KND: Tensor, vocabulary: int, size: int) -> int:
    """Models whose logits are computed at once, of `size` bytes each: one on a CPU.

    On a GPU all, unless chunks would become short: every chunk walks over its models' heads, and 39
    models at 131,072 tokens took 2.6 times as long together as in turn (docs/results/trainer.md).
    """
    models = hidden_KND.shape[0]
    if hidden_KND.device.type == "cpu":
        return 1
    row = vocabulary * size
    if models * row * FEW_TOKENS <= CHUNK_BYTES["cuda"]:
        return models
    return max(1, min(models, CHUNK_BYTES["cuda"] // (row * MANY_TOKENS)))


def chunk_tokens(hidden_KND: Tensor, vocabulary: int) -> int:
    """Tokens whose logits are held at once: 134 MB on a CPU at a vocabulary of 262,144."""
    kind = "cpu" if hidden_KND.device.type == "cpu" else "cuda"
    budget, least = CHUNK_BYTES[kind], LEAST_TOKENS[kind]
    row = hidden_KND.shape[0] * vocabulary * hidden_KND.element_size()
    return max(least, min(hidden_KND.shape[1], budget // row))
