"""The proxy: a Llama-style transformer, K of them at once.

Every parameter has a leading model axis. All matrices of a pack lie in one buffer (K, P) and all
gains of norms in another, gradients likewise, so that clipping and the optimizer are a handful of
operations whatever the depth; the parameters by name are views.

Shape suffixes: K models, B sequences, T tokens, N = B x T, D width, V vocabulary, C queries, keys
and values of all heads.
"""

import hashlib
import math
import warnings
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from cuvee.proxies.model.layers import (
    Branches,
    Embedding,
    GroupedLinear,
    RMSNorm,
    Rotary,
    SwiGLU,
    apply_function,
    attend,
    repeat_shared_heads,
)
from cuvee.proxies.model.loss import linear_cross_entropy
from cuvee.proxies.model_size import ModelSize

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float64": torch.float64}


class Parameters:
    """The parameters of K proxies with their gradients, in flat buffers.

    Attributes:
        matrices, gains: values (K, P) and (K, Q); weight decay acts on the first only.
        gradients: of the same, in this order.
        named: views by name, leaves of autograd whose gradients are views of the buffers.
    """

    def __init__(
        self, size: ModelSize, vocabulary: int, models: int, *, device: str, dtype: torch.dtype
    ) -> None:
        shapes = tuple(parameter_layout(size, vocabulary))
        self.named: dict[str, Tensor] = {}
        self.buffers: list[Tensor] = []
        self.gradients: list[Tensor] = []
        for group in (False, True):
            members = [(name, shape) for name, shape in shapes if is_gain(name) is group]
            total = sum(math.prod(shape) for _, shape in members)
            values = torch.zeros(models, total, dtype=dtype, device=device)
            gradient = torch.zeros_like(values)
            start = 0
            for name, shape in members:
                stop = start + math.prod(shape)
                view = values[:, start:stop].view(models, *shape).detach().requires_grad_()
                view.grad = gradient[:, start:stop].view(models, *shape)
                self.named[name] = view
                start = stop
            self.buffers.append(values)
            self.gradients.append(gradient)

    @property
    def matrices(self) -> Tensor:
        return self.buffers[0]

    @property
    def gains(self) -> Tensor:
        return self.buffers[1]

    def clear(self) -> None:
        """Set every gradient to zero, in place."""
        for gradient in self.gradients:
            gradient.zero_()


class PackModel:
    """K proxies of one shape.

    Args:
        size: the shape.
        vocabulary: tokens of the tokenizer.
        seeds: one per model. A model's initial values depend on its own seed alone.
        device: where it lives.
        precision: of the matrix products; values are kept in float32 (float64 for "float64").
    """

    def __init__(
        self,
        size: ModelSize,
        vocabulary: int,
        seeds: Sequence[int],
        *,
        device: str = "cpu",
        precision: str = "float32",
    ) -> None:
        self.size, self.vocabulary, self.models, self.device = size, vocabulary, len(seeds), device
        self.compute = PRECISIONS[precision]
        self.dtype = torch.float64 if precision == "float64" else torch.float32
        self.parameters = Parameters(size, vocabulary, self.models, device=device, dtype=self.dtype)
        self.rotary = Rotary(
            size.context, size.head_width, dtype=self.compute, device=device, base=size.rope
        )
        for model, seed in enumerate(seeds):
            for name, value in initial_values(size, vocabulary, seed).items():
                with torch.no_grad():
                    self.parameters.named[name][model].copy_(value)

    @property
    def head(self) -> Tensor:
        """The output matrix (K, D, V), which is the embedding's where the two are tied."""
        named = self.parameters.named
        return named["embedding"].transpose(1, 2) if self.size.tied else named["head"]

    def hidden(
        self,
        tokens_KBT: Tensor,
        *,
        members: slice | None = None,
        branches: Branches | None = None,
        at: Tensor | None = None,
        first: int = 0,
    ) -> Tensor:
        """Normed hidden states before the head, (K, B x T, D), float32.

        Args:
            tokens_KBT: input tokens of each model.
            members: the models that `tokens_KBT` is for; all when None.
            branches: where and what tokens see, if not every token all that came before it.
            at: (S,) the positions of B x T whose states are wanted, (K, S, D); all when None.
            first: none of them stands before this place of its sequence.
        """
        p = self.parameters.named
        if members is not None:
            p = {name: value[members] for name, value in p.items()}
        rotary, size = branches or self.rotary, self.size
        models, batch, length = tokens_KBT.shape
        x_KND = apply_function(Embedding, p["embedding"], tokens_KBT.reshape(models, -1))
        for i in range(size.layers):
            a_KND = apply_function(RMSNorm, x_KND, p[f"{i}.attention_norm"], size.epsilon)
            joint_KNC = apply_function(GroupedLinear, a_KND, p[f"{i}.qkv"], self.compute)
            joint_KBTC = joint_KNC.view(models, batch, length, -1)
            joint_KBTC = repeat_shared_heads(joint_KBTC, size.heads, size.kv_heads)
            last = at is not None and i == size.layers - 1
            mixed = attend(joint_KBTC, rotary, size.heads, first=first if last else 0)
            mixed = mixed.reshape(x_KND.shape)
            if last:
                mixed, x_KND = mixed[:, at], x_KND[:, at]
            x_KND = x_KND + apply_function(GroupedLinear, mixed, p[f"{i}.out"], self.compute)
            m_KND = apply_function(RMSNorm, x_KND, p[f"{i}.mlp_norm"], size.epsilon)
            active = apply_function(
                SwiGLU, apply_function(GroupedLinear, m_KND, p[f"{i}.gate_up"], self.compute)
            )
            x_KND = x_KND + apply_function(GroupedLinear, active, p[f"{i}.down"], self.compute)
        return apply_function(RMSNorm, x_KND, p["norm"], size.epsilon)

    @staticmethod
    def backward(mean_K: Tensor) -> None:
        """Add the gradients of the mean losses to the buffers."""
        with warnings.catch_warnings():  # gradients of a pack are strided by intention
            warnings.filterwarnings("ignore", message="grad and param do not obey")
            mean_K.sum().backward()  # type: ignore[no-untyped-call]

    def loss(
        self, tokens_KBT: Tensor, targets_KBT: Tensor, factors_KB: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Mean loss per model (K,), and per token (K, B, T) without gradient; nats.

        Args:
            tokens_KBT: input tokens of each model.
            targets_KBT: the tokens that follow them.
            factors_KB: what each sequence counts in its model's mean; one when None.
        """
        hidden_KND = self.hidden(tokens_KBT)
        targets_KN = targets_KBT.reshape(self.models, -1)
        factors_KN = None
        if factors_KB is not None:
            factors_KN = factors_KB.repeat_interleave(targets_KBT.shape[2], dim=1)
        mean_K, losses_KN = linear_cross_entropy(
            hidden_KND, self.head, targets_KN, dtype=self.compute, factors_KN=factors_KN
        )
        return mean_K, losses_KN.view(targets_KBT.shape)


def parameter_layout(size: ModelSize, vocabulary: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of one model's parameters; matrices are (in, out)."""
    yield "embedding", (vocabulary, size.width)
    for i in range(size.layers):
        yield f"{i}.attention_norm", (size.width,)
        yield f"{i}.qkv", (size.width, size.width + 2 * size.keys_width)
        yield f"{i}.out", (size.width, size.width)
        yield f"{i}.mlp_norm", (size.width,)
        yield f"{i}.gate_up", (size.width, 2 * size.mlp)
        yield f"{i}.down", (size.mlp, size.width)
    yield "norm", (size.width,)
    if not size.tied:
        yield "head", (size.width, vocabulary)


def is_gain(name: str) -> bool:
    """Whether a parameter is the gain of a norm, which weight decay leaves alone."""
    return name.endswith("norm")


def initial_values(size: ModelSize, vocabulary: int, seed: int) -> dict[str, Tensor]:
    """One model's initial values, float32 on the CPU.

    Normal with variance 2 / (5 D) (Nguyen and Salazar 2019, arXiv 1910.05895, section 2.2); outputs
    into the residual stream divided by sqrt(2 layers) (Radford et al. 2019, section 2.3). Each
    parameter has a generator of its own, so no value depends on the order of the others.
    """
    values = {}
    for name, shape in parameter_layout(size, vocabulary):
        if is_gain(name):
            values[name] = torch.ones(shape)
            continue
        digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
        scale = math.sqrt(2 / (5 * size.width))
        if name.endswith((".out", ".down")):
            scale /= math.sqrt(2 * size.layers)
        values[name] = torch.randn(shape, generator=generator) * scale
    return values
