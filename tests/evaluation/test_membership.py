"""Detectors of membership: by hand, and on a model that remembers."""

import math
import zlib

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from cuvee.evaluation import membership, suites
from cuvee.evaluation.membership import ScoredText, order_excess
from cuvee.evaluation.membership_audit import audit_items, score_texts
from cuvee.evaluation.requests import RequestEncoder
from cuvee.flows.recipe.evidence_parts import AuditPart, EvaluationPart

EOT = 0
P = np.array([0.5, 0.25, 0.5, 0.125, 0.5, 0.5, 0.5, 0.01, 0.5, 0.5])
TEXT = ScoredText(
    text="a text",
    tokens=np.array([3, 3, 4, 5, 6, 7, 8, 9, 10, 11]),
    log_p=np.log(P),
    mean=np.full(10, -2.0),
    deviation=np.array([1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 10.0, 1.0, 1.0]),
    greedy=np.array([1, 1, 1, 1, 1, 1, 0, 0, 1, 1], dtype=bool),
)


def encoder(context: int) -> RequestEncoder:
    """A token for each byte, after the end of text."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<|endoftext|>": EOT, **{c: i + 1 for i, c in enumerate(alphabet)}}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return RequestEncoder(tokenizer, EOT, context)


class Memory:
    """A pack whose second model goes on as some texts do: after 3 tokens of one, with p 0.9."""

    models = 2

    def __init__(self, known: list[list[int]], context: int, vocabulary: int = 257) -> None:
        self.context, self.vocabulary = context, vocabulary
        self.after = {tuple(text[:i]): text[i] for text in known for i in range(3, len(text))}

    def token_statistics(self, tokens, lengths):
        even = torch.full((*tokens.shape, self.vocabulary), 1 / self.vocabulary).double()
        knows = even.clone()
        for b, row in enumerate(tokens.tolist()):
            for t in range(len(row) - 1):
                told = self.after.get(tuple(row[1 : t + 1]))
                if told is not None:
                    knows[b, t] = 0.1 / (self.vocabulary - 1)
                    knows[b, t, told] = 0.9
        p = torch.stack([even, knows])[:, :, :-1]
        log_p = p.log()
        after = tokens[None, :, 1:, None].expand(2, -1, -1, 1)
        seen = log_p.gather(-1, after)[..., 0]
        mean = (p * log_p).sum(-1)
        spread = (p * (log_p - mean[..., None]) ** 2).sum(-1).sqrt()
        return seen, p.argmax(-1) == after[..., 0], mean, spread


def test_detectors_by_hand() -> None:
    """Catches the highest tokens for the lowest, a mean over all of them, Min-K%++ without its
    normalization, tokens counted twice by DC-PDD or left uncapped, bits for nats, and n-grams that
    need not match in a row; a sum over tokens in zlib's, which orders texts by how many they have
    (Carlini et al. 2021 take the mean)."""
    frequency = np.full(12, 1 / 12)
    told = {name: found[0] for name, found in membership.detect([TEXT], frequency).items()}
    assert told["loss"] == pytest.approx(np.log(P).mean())
    assert told["zlib"] == pytest.approx(np.log(P).mean() / len(zlib.compress(b"a text")))
    assert told["min_k"] == pytest.approx((math.log(0.01) + math.log(0.125)) / 2)
    # 0.01 is within a wide spread: the lowest two are 0.125 and the 0.01 of 10 nats' deviation
    assert told["min_k_plus"] == pytest.approx(
        (math.log(0.125) + 2 + (math.log(0.01) + 2) / 10) / 2
    )
    capped = [min(0.01, p * math.log(12)) for p in np.delete(P, 1)]  # 0.25 is the 3 met again
    assert told["dc_pdd"] == pytest.approx(np.mean(capped))
    # starts 0, 1, 2 (1.25 and 2.5 rounded to even), 4 and 5: only the first two hold no miss
    assert told["ngram"] == pytest.approx(2 / 5)
    assert set(told) == set(membership.TEXT_DETECTORS)


def test_frequency_keeps_rare_tokens_out_of_a_cap() -> None:
    """Catches a frequency of 0, whose logarithm is infinite, and one that does not sum to 1."""
    found = membership.token_frequency(np.array([1, 1, 2]), 4)
    np.testing.assert_allclose(found, [1 / 7, 3 / 7, 2 / 7, 1 / 7])


def test_option_order_is_above_0_where_the_published_order_is_likeliest() -> None:
    """Catches a comparison with the mean of the others, or with the order itself."""
    orders = [TEXT] + [
        ScoredText("b", TEXT.tokens, TEXT.log_p + shift, TEXT.mean, TEXT.deviation, TEXT.greedy)
        for shift in (-0.2, 0.1)
    ]
    found = membership.detect(orders, np.full(12, 1 / 12))["option_order"]
    np.testing.assert_allclose(found, [-0.1, -0.3, 0.1])
    # what was not asked for is not computed, not even what it rests on
    assert set(membership.detect(orders, np.zeros(0), ["option_order"])) == {"option_order"}
    assert order_excess("option_order", found) == pytest.approx(-1 / 3)
    assert order_excess("option_order", found[::-1]) == pytest.approx(2 / 3)
    assert order_excess("loss", np.array([1.0, 2.0, 4.0])) == -2.0
    # of equal values it is 0 and no rounding, whose sign would be the same over all items
    assert order_excess("ngram", np.full(4, 0.2)) == 0.0


def test_a_model_that_remembers_is_told_from_one_that_does_not() -> None:
    """Catches texts scored under the wrong model or in the wrong order, padding that is scored, a
    rotation that is taken for the published order, and items counted that cannot be compared."""
    rng = np.random.default_rng(1)
    words = ["".join(map(chr, rng.integers(97, 123, size=n))) for n in rng.integers(4, 12, 90)]
    items = [
        {"query": words[3 * i], "choices": [words[3 * i + 1], words[3 * i + 2], "x"], "gold": 0}
        for i in range(30)
    ]
    reader = encoder(64)
    seen = [membership.item_text(item) for item in items[:10]]
    pack = Memory([reader.encode(text) for text in seen], 64)
    scored = score_texts(pack, [membership.item_text(item) for item in items], reader)
    assert [len(own) for own in scored] == [30, 30]
    assert all(one.greedy[3:].all() and len(one.tokens) == len(one.text) for one in scored[1][:10])
    assert not any(one.greedy[3:].all() for one in scored[1][10:])
    assert scored[0][3].log_p == pytest.approx(-math.log(257))
    more = [*items, {"text": "has no choices"}, {**items[0], "query": "long " * 20}]
    flat, every = membership.token_frequency(np.zeros(0), 257), membership.DETECTORS
    blind, knows = audit_items(pack, more, encoder=reader, frequency=flat, names=every)
    for name in membership.DETECTORS:
        assert knows[name].shape == (30,)
        if name != "zlib":  # whose bytes vary with the order
            assert abs(blind[name]).max() <= (2 / 3 if name == "option_order" else 1e-12)
    for name in ("loss", "min_k_plus", "ngram", "option_order"):
        assert knows[name][:10].min() > knows[name][10:].max(), name


def test_orders_of_an_item_that_was_not_seen_have_no_excess() -> None:
    """Catches an excess that is not 0 on average, such as of the best order over the others."""
    rng = np.random.default_rng(2)
    for name in ("loss", "option_order"):
        values = rng.normal(size=(4000, 4))
        if name == "option_order":
            values = np.stack(
                [values[:, i] - np.delete(values, i, 1).max(1) for i in range(4)], axis=1
            )
        excess = np.array([order_excess(name, row) for row in values])
        assert abs(excess.mean()) < 3.5 * excess.std() / math.sqrt(len(excess))


def test_scoring_is_another_only_where_items_are_audited() -> None:
    """Catches detectors that move the fingerprints of every run, and ones that move none: a store
    would then give runs without what was asked for."""
    plain = EvaluationPart().limits
    assert '"detectors"' not in plain.identity and plain == suites.Limits()
    asked = EvaluationPart(audit=AuditPart(detectors=["min_k", "loss", "min_k"])).limits
    turned = EvaluationPart(audit=AuditPart(detectors=["loss", "min_k"])).limits
    assert asked == turned and asked.identity != plain.identity


def test_a_recipe_may_name_every_detector_where_one_has_something_to_score() -> None:
    """Catches a detector that is registered and cannot be asked for; and one that is asked of tasks
    of lm-eval alone, trains every run anew and says nothing."""
    every = AuditPart(detectors=list(membership.DETECTORS))
    with pytest.raises(ValidationError):
        AuditPart(detectors=["likeliest"])
    for given in ({"suite": None, "tasks": ["hellaswag"]}, {"suite": None}):
        with pytest.raises(ValidationError, match="no task has one"):
            EvaluationPart(**given, audit=every)
        assert EvaluationPart(**given, custom={"own": "own.jsonl"}, audit=every).limits.detectors
    assert EvaluationPart(tasks=["hellaswag"], audit=every).limits.detectors
