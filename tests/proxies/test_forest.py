"""Answers that share a context, against the same sequences one at a time."""

import functools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cuvee.proxies.model import prefix_tree
from cuvee.proxies.model.layers import Attention, Branches, apply_function, attend, fused_attention
from cuvee.proxies.model.likelihood import PackLikelihood
from cuvee.proxies.model.transformer import PackModel
from cuvee.proxies.model_size import ModelSize

RUNG = ModelSize("tiny", width=32, layers=2, heads=2, context=24)
VOCABULARY = 50


def pack(models=3, keep=None, device="cpu"):
    """A pack of random weights, large enough that what a token sees shows in its answer."""
    model = PackModel(RUNG, VOCABULARY, list(range(models)), device=device)
    with torch.no_grad():
        model.parameters.matrices.mul_(6.0)
    return PackLikelihood(model, keep)


def questions(seed, count=30):
    """Contexts with one to six answers, some of them as long as the model can take.

    Those of every other context are made of two tokens, so that they begin alike.
    """
    rng = np.random.default_rng(seed)
    contexts, answers = [], []
    for number in range(count):
        kinds = VOCABULARY if number % 2 else 2
        length = int(rng.integers(1, RUNG.context))
        contexts.append(tuple(rng.integers(0, VOCABULARY, length).tolist()))
        most = RUNG.context + 1 - length
        sizes = rng.integers(1, most + 1, int(rng.integers(1, 7)))
        answers.append([tuple(rng.integers(0, kinds, n).tolist()) for n in sizes])
    return contexts, answers


def alone(likelihood, contexts, answers):
    """The same from one plain sequence at a time."""
    nats, greedy = [], []
    for context, some in zip(contexts, answers, strict=True):
        for answer in some:
            whole = torch.tensor([[*context, *answer]])
            log_p, hits, *_ = likelihood.token_statistics(whole, torch.tensor([whole.shape[1]]))
            nats.append(log_p[:, 0, len(context) - 1 :].double().sum(-1))
            greedy.append(hits[:, 0, len(context) - 1 :].all(-1))
    return torch.stack(nats, 1), torch.stack(greedy, 1)


def asked_twice():
    """Questions of which the first comes again with fewer answers."""
    contexts, answers = questions(0)
    return [*contexts, contexts[0]], [*answers, answers[0][:1]]


@functools.cache
def one_at_a_time(keep, device):
    """What is expected whatever the budget, computed once."""
    return alone(pack(keep=keep and [*keep], device=device), *asked_twice())


@pytest.mark.parametrize("budget", [1, 40, 4096])
@pytest.mark.parametrize("keep", [None, (2, 0)])
@pytest.mark.parametrize("device", ["cpu", "cpu:0"])  # the latter takes the way of accelerators
def test_answers_equal_those_of_plain_sequences(monkeypatch, budget, keep, device):
    """Catches an answer that sees its neighbor or padding, positions that go on from the answer
    before, the wrong row of logits, answers out of order, and models mixed up."""
    monkeypatch.setattr("cuvee.proxies.model.likelihood.CPU_BATCH", budget)
    monkeypatch.setattr("cuvee.proxies.model.likelihood.BATCH", 3 * budget)
    likelihood = pack(keep=keep and [*keep], device=device)
    contexts, answers = asked_twice()
    nats, greedy = likelihood.answer(contexts, answers)
    expected, hits = one_at_a_time(keep, device)
    assert nats.std() > 5
    torch.testing.assert_close(nats, expected, rtol=1e-5, atol=1e-4)
    assert torch.equal(greedy, hits)
    assert (nats[0] - nats[1]).abs().max() > 1


def test_what_would_be_decoded_is_greedy():
    """Catches hits that are looked up at the wrong token: random answers are hardly ever greedy."""
    likelihood = pack(models=1)
    context = [3, 1, 4]
    for _ in range(3):
        choices = [(token,) for token in range(VOCABULARY)]
        nats, greedy = likelihood.answer([tuple(context)], [choices])
        assert greedy.sum() == 1
        assert bool(greedy[0, nats[0].argmax()])
        context.append(int(nats[0].argmax()))
    assert likelihood.answer([(3, 1, 4)], [[tuple(context[3:])]])[1].all()


def test_all_kernels_see_the_same_branches(monkeypatch):
    """Catches a mask or positions that one of the attention kernels ignores, and blocks of queries
    that miss a key or end early."""
    monkeypatch.setattr("cuvee.proxies.model.layers.BLOCK", 7)
    contexts, answers = questions(1, count=6)
    planted = prefix_tree.build_prefix_trees(
        prefix_tree.grow_prefix_tree(contexts, answers, longest=RUNG.context)
    )
    model = pack(models=1).model
    branches = Branches.build(model.rotary, planted.positions, planted.ends)
    shape = (1, *planted.tokens.shape, 3 * RUNG.width)
    joint = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        one, other = (f(joint, branches, RUNG.heads) for f in (attend, fused_attention))
        plain = attend(joint, model.rotary, RUNG.heads)
        whole = apply_function(Attention, joint, branches, RUNG.heads)
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(one, whole, rtol=1e-4, atol=1e-5)
    assert (one - plain).abs().max() > 0.1


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 60), st.integers(1, 300))
def test_every_answer_is_planted_exactly_once(seed, longest, budget):
    """Catches answers lost or doubled where trees are split, and batches over their budget."""
    contexts, answers = questions(seed, count=8)
    flat = [(c, a) for c, some in zip(contexts, answers, strict=True) for a in some]
    trees = prefix_tree.grow_prefix_tree(contexts, answers, longest)
    assert all(tree.size <= longest or len(tree.answers) == 1 for tree in trees)
    found = {}
    for batch in prefix_tree.prefix_tree_batches(trees, budget):
        lines = len(batch.tokens)
        assert batch.tokens.numel() <= budget or lines == 1
        for owner in batch.owners.unique().tolist():
            assert owner not in found
            found[owner] = tuple(batch.targets[batch.owners == owner].tolist())
        fed = batch.tokens.reshape(-1)[batch.sources[batch.rows]]
        first = np.unique(batch.owners.numpy(), return_index=True)[1]
        assert [int(fed[i]) for i in first] == [flat[int(batch.owners[i])][0][-1] for i in first]
    assert found == {i: answer for i, (_, answer) in enumerate(flat)}


def test_a_context_is_computed_once():
    """Catches choices that bring their context along each."""
    trees = prefix_tree.grow_prefix_tree(
        [tuple(range(1, 11))], [[(1, 2), (3, 4), (5,), (6, 7, 8)]], longest=24
    )
    (batch,) = prefix_tree.prefix_tree_batches(trees, 1000)
    assert batch.tokens.shape == (1, 10 + 1 + 1 + 0 + 2)
    assert len(batch.sources) == len(set(batch.sources.tolist())) == 1 + 1 + 1 + 0 + 2


def test_how_answers_begin_is_computed_once():
    """Catches answers that bring a common beginning along each, a beginning that only the next
    answer finds, and logits of one prediction made twice."""
    answers = [(1, 2, 3, 4), (9,), (1, 2, 5), (1, 2, 3, 6), (1, 2)]
    trees = prefix_tree.grow_prefix_tree([(7, 8)], [answers], longest=24)
    (batch,) = prefix_tree.prefix_tree_batches(trees, 1000)
    assert batch.tokens.tolist() == [[7, 8, 1, 2, 3]]
    assert batch.positions is None  # the answers part at tokens that are predicted, never fed
    assert batch.sources.tolist() == [1, 2, 3, 4]
    assert batch.rows.tolist() == sorted([0, 1, 2, 3, 0, 0, 1, 2, 0, 1, 2, 3, 0, 1])
    split = prefix_tree.grow_prefix_tree(
        [(7, 8)], [[(1, 2, 3, 4), (1, 5, 6, 7), (1, 2, 8, 9)]], longest=24
    )
    (batch,) = prefix_tree.prefix_tree_batches(split, 1000)
    assert batch.tokens.tolist() == [[7, 8, 1, 2, 3, 8, 5, 6]]
    assert batch.positions.tolist() == [[0, 1, 2, 3, 4, 4, 3, 4]]
    assert batch.ends.tolist() == [[8, 8, 8, 6, 5, 6, 8, 8]]


def test_what_cannot_be_scored_is_refused():
    """Catches a context cut in silence, and an answer of no tokens that counts as certain."""
    likelihood = pack(models=1)
    for context, answer in (((), (1,)), ((1,), ()), ((1,) * 24, (1, 2))):
        with pytest.raises(ValueError, match="scores 2 to 25 tokens"):
            likelihood.answer([context], [[answer]])
