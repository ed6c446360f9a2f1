"""Chunked linear and cross-entropy against torch's, losses and gradients."""

import pytest
import torch
from torch.nn import functional

from cuvee.proxies.model import loss
from cuvee.proxies.model.loss import linear_cross_entropy

torch.set_num_threads(1)


def example(models: int = 2, tokens: int = 37, scale: float = 1.0) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(models, tokens, 8, generator=generator, dtype=torch.float64)
    head = torch.randn(models, 8, 50, generator=generator, dtype=torch.float64) * scale
    targets = torch.randint(0, 50, (models, tokens), generator=generator)
    return hidden.requires_grad_(), head.requires_grad_(), targets


@pytest.mark.parametrize("budget", [1, 50 * 8 * 20, 1 << 30])
def test_losses_and_gradients_are_those_of_torch(
    budget: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float64, chunks of 16 (the last one short), 20, all: catches wrong means over chunks."""
    monkeypatch.setitem(loss.CHUNK_BYTES, "cpu", budget)
    monkeypatch.setitem(loss.LEAST_TOKENS, "cpu", 16)
    hidden, head, targets = example()
    upstream = torch.tensor([1.0, -0.5], dtype=torch.float64)  # catches a backward that ignores it
    mean, losses = linear_cross_entropy(hidden, head, targets, dtype=torch.float64)
    got = torch.autograd.grad(mean, (hidden, head), upstream)
    logits = hidden @ head
    expected = functional.cross_entropy(logits.transpose(1, 2), targets, reduction="none")
    wanted = torch.autograd.grad(expected.mean(1), (hidden, head), upstream)
    torch.testing.assert_close(losses, expected)
    torch.testing.assert_close(mean, expected.mean(1))
    for mine, theirs in zip(got, wanted, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_an_improbable_token_has_a_finite_and_exact_loss() -> None:
    """Probabilities below 1e-38 are zero in float32: catches -log(0) taken for a divergence."""
    hidden, head, targets = (x.float() if x.is_floating_point() else x for x in example(scale=100))
    _, losses = linear_cross_entropy(hidden, head, targets, dtype=torch.float32)
    logits = (hidden.double() @ head.double()).transpose(1, 2)
    expected = functional.cross_entropy(logits, targets, reduction="none")
    assert expected.max() > 200
    torch.testing.assert_close(losses.double(), expected, rtol=1e-4, atol=1e-3)


def test_bfloat16_products_give_nearly_the_float32_gradient() -> None:
    hidden, head, targets = (x.float() if x.is_floating_point() else x for x in example())
    mean, _ = linear_cross_entropy(hidden, head, targets, dtype=torch.bfloat16)
    exact, _ = linear_cross_entropy(hidden, head, targets, dtype=torch.float32)
    rough = torch.autograd.grad(mean.sum(), head)[0]
    true = torch.autograd.grad(exact.sum(), head)[0]
    torch.testing.assert_close(mean, exact, rtol=5e-3, atol=5e-3)
    assert functional.cosine_similarity(rough.ravel(), true.ravel(), dim=0) > 0.999


def test_not_a_number_stays_in_its_model() -> None:
    """Catches a pack-wide reduction, and NaN repaired by the way out for small probabilities."""
    hidden, head, targets = example()
    poisoned = hidden.detach().clone()
    poisoned[0, 3] = torch.nan
    poisoned.requires_grad_()
    mean, _ = linear_cross_entropy(poisoned, head, targets, dtype=torch.float64)
    clean, _ = linear_cross_entropy(hidden, head, targets, dtype=torch.float64)
    assert mean[0].isnan()
    assert mean[1] == clean[1]
    gradient = torch.autograd.grad(mean.sum(), head)[0]
    assert gradient[0].isnan().any()
    assert torch.equal(gradient[1], torch.autograd.grad(clean.sum(), head)[0][1])


def test_the_branch_for_accelerators_equals_that_for_cpus() -> None:
    """The accelerator's branch runs on CPU tensors here: same losses, same in-place gradient."""
    hidden, head, targets = (x.detach() for x in example())
    results = []
    for branch in (loss.probabilities, loss.probabilities_unbranched):
        logits = hidden @ head
        results.append((branch(logits, targets[..., None], hidden, head), logits))
    for mine, theirs in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs)
