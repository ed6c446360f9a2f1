"""The proxy against transformers' Llama, against autograd, and against itself in other packs."""

from pathlib import Path

import pytest
import torch

from cuvee.proxies.ladder import model_size
from cuvee.proxies.model import layers
from cuvee.proxies.model.grouped_matmul import grouped_matmul
from cuvee.proxies.model.likelihood import PackLikelihood
from cuvee.proxies.model.transformer import PackModel, initial_values
from cuvee.proxies.train import checkpoint
from cuvee.proxies.train.optimizer import AdamW

VOCABULARY = 300
# grouped keys and values, a tied head, and no number as in the names
GROUPED = "w96_l2_h6_kv2_c128_mlp160_rope500000_eps0.01_tied"

torch.set_num_threads(1)


def tokens(models: int, batch: int = 2, length: int = 65) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(1, VOCABULARY, (models, batch, length), generator=generator)


def trained(seeds: list[int], size: str = "0.6M") -> PackModel:
    """A pack with gains away from one, so that a forgotten gain shows."""
    model = PackModel(model_size(size), VOCABULARY, seeds)
    model.parameters.gains.add_(torch.linspace(-0.3, 0.3, model.parameters.gains.shape[1]))
    return model


def llama(model: PackModel, k: int, folder: Path) -> torch.nn.Module:
    from transformers import LlamaForCausalLM

    return LlamaForCausalLM.from_pretrained(checkpoint.export_huggingface(model, k, folder))


@pytest.mark.parametrize("size", ["0.6M", GROUPED])
def test_logits_and_gradients_equal_those_of_transformers(tmp_path: Path, size: str) -> None:
    """Catches wrong rotary halves, scale, mask, norm, order of gate and up, or a wrong export.

    With grouped heads: keys given to the wrong queries, a base or epsilon that is not exported, and
    an embedding that misses one of its two gradients.
    """
    model = trained([3, 4], size)
    text = tokens(2)
    mean, _ = model.loss(text[..., :-1], text[..., 1:])
    model.backward(mean)
    for k in range(2):
        other = llama(model, k, tmp_path)
        answer = other(text[k], labels=text[k])
        logits = grouped_matmul(model.hidden(text), model.head)[k]
        torch.testing.assert_close(logits.view_as(answer.logits), answer.logits, atol=1e-4, rtol=0)
        assert mean[k].item() == pytest.approx(answer.loss.item(), abs=1e-5)
        answer.loss.backward()
        gradient = {name: value.grad for name, value in other.named_parameters()}
        named = {n: p.grad[k] for n, p in model.parameters.named.items()}
        pairs = {
            "embedding": gradient["model.embed_tokens.weight"],
            "0.attention_norm": gradient["model.layers.0.input_layernorm.weight"],
            "norm": gradient["model.norm.weight"],
            "1.down": gradient["model.layers.1.mlp.down_proj.weight"].t(),
            "0.out": gradient["model.layers.0.self_attn.o_proj.weight"].t(),
            "0.qkv": torch.cat(
                [gradient[f"model.layers.0.self_attn.{x}_proj.weight"] for x in "qkv"]
            ).t(),
            "1.gate_up": torch.cat(
                [gradient[f"model.layers.1.mlp.{x}_proj.weight"] for x in ("gate", "up")]
            ).t(),
        }
        for name, expected in pairs.items():
            torch.testing.assert_close(named[name], expected, atol=2e-6, rtol=1e-3)


def test_the_export_carries_a_tokenizer_that_loads(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models
    from transformers import AutoTokenizer

    tokenizer = Tokenizer(models.BPE({"<|endoftext|>": 0, "a": 1, "b": 2}, []))
    tokenizer.add_special_tokens(["<|endoftext|>"])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    folder = checkpoint.export_huggingface(
        trained([0]), 0, tmp_path / "out", tokenizer=tmp_path / "tokenizer.json"
    )
    loaded = AutoTokenizer.from_pretrained(folder)
    assert loaded("ab")["input_ids"] == [1, 2]
    assert loaded.eos_token_id == 0


@pytest.mark.parametrize(
    ("precision", "size"), [("float32", "0.3M"), ("bfloat16", "0.3M"), ("bfloat16", GROUPED)]
)
def test_a_model_is_bit_for_bit_the_same_in_any_pack(precision: str, size: str) -> None:
    """Catches initial values drawn from one generator for the pack, and joint reductions."""
    text = tokens(3)

    def run(members: list[int]) -> tuple[list[float], list[torch.Tensor]]:
        model = PackModel(model_size(size), VOCABULARY, members, precision=precision)
        optimizer = AdamW(model.parameters)
        for _ in range(3):
            model.parameters.clear()
            mean, _ = model.loss(text[members, :, :-1], text[members, :, 1:])
            model.backward(mean)
            optimizer.step(1e-2, optimizer.norms())
        return mean.tolist(), [row.clone() for row in model.parameters.matrices]

    losses, values = run([0, 1, 2])
    for k in range(3):
        alone, value = run([k])
        assert alone == [losses[k]]
        assert torch.equal(value[0], values[k])
    assert run([2, 0])[0] == [losses[2], losses[0]]


def test_seeds_decide_initial_values() -> None:
    one, two = (initial_values(model_size("0.3M"), VOCABULARY, seed) for seed in (1, 2))
    assert not torch.equal(one["head"], two["head"])
    assert torch.equal(one["0.qkv"], initial_values(model_size("0.3M"), VOCABULARY, 1)["0.qkv"])
    assert one["0.qkv"].std() == pytest.approx((2 / 5 / 32) ** 0.5, rel=0.1)


def test_both_attentions_agree_with_their_gradients() -> None:
    """The hand-written one for CPUs and torch's fused one, which long contexts and GPUs take."""
    rotary = layers.Rotary(20, 8, dtype=torch.float64, device="cpu")
    generator = torch.Generator().manual_seed(0)
    joint = torch.randn(2, 3, 20, 48, dtype=torch.float64, generator=generator, requires_grad=True)
    upstream = torch.randn(2, 3, 20, 16, dtype=torch.float64, generator=generator)
    mine = layers.attend(joint, rotary, 2)
    fused = layers.fused_attention(joint, rotary, 2)
    torch.testing.assert_close(mine, fused)
    torch.testing.assert_close(
        torch.autograd.grad(mine, joint, upstream), torch.autograd.grad(fused, joint, upstream)
    )


def test_hand_written_layers_have_the_gradients_of_finite_differences() -> None:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        values = torch.randn(*shape, dtype=torch.float64, generator=generator)
        return values.requires_grad_()

    check = torch.autograd.gradcheck
    assert check(layers.RMSNorm.apply, (draw(2, 3, 4), draw(2, 4)))
    assert check(layers.SwiGLU.apply, (draw(2, 3, 8),))
    assert check(layers.GroupedLinear.apply, (draw(2, 3, 4), draw(2, 4, 5), torch.float64))
    rows = torch.tensor([[0, 2, 2], [1, 0, 1]])  # a doubled row: catches += without accumulation
    assert check(layers.Embedding.apply, (draw(2, 4, 3), rows))


def test_clipping_acts_on_each_model_alone() -> None:
    """Catches one norm for the pack. Adam forgets scale, so the gradients are looked at."""
    model = PackModel(model_size("0.3M"), VOCABULARY, [0, 1])
    for gradient in model.parameters.gradients:
        gradient[0], gradient[1] = 1.0, 1e-5
    optimizer = AdamW(model.parameters)
    before = optimizer.norms()
    optimizer.step(1e-3, before)
    after = optimizer.norms()
    assert before[0] > 100
    assert after[0].item() == pytest.approx(1.0, rel=1e-4)
    assert after[1] == before[1] < 1


def test_adamw_is_torchs_with_decay_on_matrices_only() -> None:
    model = trained([0], "0.3M")
    reference = [b.clone().requires_grad_() for b in model.parameters.buffers]
    groups = [
        {"params": [reference[0]], "weight_decay": 0.1},
        {"params": [reference[1]], "weight_decay": 0.0},
    ]
    other = torch.optim.AdamW(groups, lr=1e-2, betas=(0.9, 0.95))
    mine = AdamW(model.parameters)
    for step in range(3):
        for gradient, value in zip(model.parameters.gradients, reference, strict=True):
            gradient.fill_(1e-5 * (step + 1))
            value.grad = gradient.clone()
        mine.step(1e-2, mine.norms())
        other.step()
    for value, expected in zip(model.parameters.buffers, reference, strict=True):
        torch.testing.assert_close(value, expected.detach())


@pytest.mark.parametrize("size", ["0.6M", GROUPED])
def test_likelihood_is_that_of_the_exported_model(tmp_path: Path, size: str) -> None:
    """Catches a shift by one, padding that is scored, and a likelihood over the wrong models."""
    model = trained([5, 6, 7], size)
    text = tokens(1, batch=3, length=40)[0]
    lengths = torch.tensor([40, 17, 2])
    likelihood = PackLikelihood(model, keep=[0, 2])
    logs, best, mean, deviation = likelihood.token_statistics(text, lengths)
    assert logs.shape == best.shape == (2, 3, 39)
    logits = llama(model, 2, tmp_path)(text[:, :-1]).logits.log_softmax(-1)
    expected = logits.gather(-1, text[:, 1:, None])[..., 0]
    for row, length in enumerate(lengths):
        torch.testing.assert_close(
            logs[1, row, : length - 1], expected[row, : length - 1], atol=1e-4, rtol=0
        )
        hits = logits.argmax(-1)[row] == text[row, 1:]
        assert torch.equal(best[1, row, : length - 1], hits[: length - 1])
        assert not logs[1, row, length - 1 :].any()
    expected = (logits.exp() * logits).sum(-1)
    spread = (logits.exp() * (logits - expected[..., None]) ** 2).sum(-1).sqrt()
    torch.testing.assert_close(mean[1, 0], expected[0], atol=1e-4, rtol=0)
    torch.testing.assert_close(deviation[1, 0], spread[0], atol=1e-4, rtol=0)
    assert not deviation[1, 1, 16:].any()
    with pytest.raises(ValueError, match=f"2 to {model.size.context + 1}"):
        likelihood.token_statistics(torch.zeros(1, 300, dtype=torch.int64), torch.tensor([300]))
