"""Held-out bits per byte: against hand-computed values and a plain transformers computation."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from cuvee.evaluation import held_out as perplexity
from cuvee.evaluation.likelihood import AnswerRow, answer_totals
from cuvee.evaluation.windows import document_windows, tokens_to_reach
from cuvee.mixtures.errors import DataError

EOT = 0
WIDTHS = np.array([0.0, 1, 2, 3, 4, 5, 6, 7])


class Bigram:
    """A pack whose p(b | a) is a table, so that every sum can be made by hand."""

    def __init__(self, tables: np.ndarray, context: int) -> None:
        self.tables = torch.tensor(tables).log()  # (K, V, V)
        self.models, self.context = len(tables), context

    def answer(self, contexts, answers):
        nats, greedy = [], []
        for context, some in zip(contexts, answers, strict=True):
            for answer in some:
                before, after = [context[-1], *answer[:-1]], list(answer)
                nats.append(self.tables[:, before, after].sum(-1))
                best = self.tables[:, before].argmax(-1)
                greedy.append((best == torch.tensor(after)).all(-1))
        return torch.stack(nats, dim=1), torch.stack(greedy, dim=1)


def text(documents, bytes_=None):
    """(tokens, offsets, bytes) of documents, each ended by the end-of-text token."""
    ended = [[*document, EOT] for document in documents]
    sizes = bytes_ or [int(WIDTHS[document].sum()) for document in documents]
    offsets = np.cumsum([0] + [len(document) for document in ended])
    return np.concatenate(ended).astype(np.uint16), offsets, np.array(sizes)


def sample(held_out, context=4, limit=0):
    return perplexity.held_out_sample(
        "d", held_out, eot=EOT, context=context, widths=WIDTHS, limit=limit
    )


def tables(seeds):
    return np.stack([np.random.default_rng(s).dirichlet(np.ones(8), 8) for s in seeds])


def test_bits_per_byte_by_hand():
    """Catches nats for bits, the end of text scored, a first token left out or unconditioned."""
    pack = Bigram(tables([1, 2]), context=4)
    documents = [[3, 1, 4, 1, 5, 2, 6], [2, 7], [1]]
    chosen = sample(text(documents))
    nats, _ = answer_totals(pack, chosen.rows)
    for k in range(2):
        expected = 0.0
        for document in documents:
            for before, after in zip([EOT, *document], document, strict=False):
                expected -= math.log2(math.exp(pack.tables[k, before, after]))
        score = chosen.score(nats[k])
        assert score.value == pytest.approx(expected / (22 + 9 + 1), rel=1e-5)
        assert score.n == 4  # windows, as there are fewer than 30 documents


def test_units_are_documents_however_few_and_known_by_what_is_scored():
    """Catches windows as units, bits that are not those of the score, keys that go by a document's
    number, and one key for two samples of a document."""
    pack = Bigram(tables([1]), context=4)
    documents = [[3, 1, 4, 1, 5, 2, 6], [2, 7], [1]]
    chosen, turned = sample(text(documents)), sample(text(documents[::-1]))
    nats = answer_totals(pack, chosen.rows)[0][0]
    units = chosen.units(nats)
    assert units.sizes.tolist() == [22.0, 9.0, 1.0]
    assert units.value == pytest.approx(chosen.score(nats).value, rel=1e-12)
    assert units.totals[2] == pytest.approx(-nats[3] / math.log(2))
    assert units.keys.tolist() == turned.keys.tolist()[::-1]
    assert sample(text([documents[0][:6], *documents[1:]])).keys[0] != units.keys[0]
    assert len(sample(text(documents * 20)).units(np.ones(80)).keys) == 60


def test_passages_have_one_key_under_every_tokenizer():
    """Catches keys of a checkpoint's own tokens: two checkpoints would share no document."""
    passages = [perplexity.Passage(d, t) for d, t in ((0, "abcd"), (0, "ef"), (3, "ghi"))]
    samples = [
        perplexity.passage_sample(
            "d",
            passages,
            lambda text, n=n: [AnswerRow((0, *range(n)), n)] * (len(text) // n or 1),
        )
        for n in (1, 2)
    ]
    assert samples[0].keys.tolist() == samples[1].keys.tolist() and len(samples[0].keys) == 2
    for one in samples:
        assert one.units(np.ones(len(one.rows))).sizes.tolist() == [6.0, 3.0]


def test_bits_per_byte_agree_with_transformers():
    """Catches windows that overlap, or see a context that the model would not have."""
    torch.manual_seed(0)
    from transformers import LlamaConfig, LlamaForCausalLM  # seconds, for a worker without it

    config = LlamaConfig(
        vocab_size=8, hidden_size=16, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2, max_position_embeddings=6, initializer_range=0.5,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()

    class One:
        models, context = 1, 6

        @torch.inference_mode()
        def answer(self, contexts, answers):
            found = []
            for context, some in zip(contexts, answers, strict=True):
                for answer in some:
                    whole = torch.tensor([*context, *answer])
                    log_p = torch.log_softmax(model(whole[None, :-1]).logits[0], -1)
                    log_p = log_p[len(context) - 1 :]
                    found.append(log_p[range(len(answer)), list(answer)].sum())
            return torch.stack(found)[None], torch.zeros(1, len(found), dtype=torch.bool)

    rng = np.random.default_rng(0)
    documents = [rng.integers(1, 8, size=n).tolist() for n in (1, 5, 6, 7, 12, 20)]
    chosen = sample(text(documents), context=6)
    nats, _ = answer_totals(One(), chosen.rows)
    total = 0.0
    with torch.inference_mode():
        for document in documents:
            whole = torch.tensor([EOT, *document])
            for start in range(0, len(document), 6):
                part = whole[start : start + 7][None]
                loss = model(part, labels=part).loss
                total += float(loss) * (part.shape[1] - 1)
    size = sum(WIDTHS[document].sum() for document in documents)
    assert chosen.score(nats[0]).value == pytest.approx(total / math.log(2) / size, rel=1e-5)


@given(
    st.lists(st.lists(st.integers(1, 7), max_size=20), min_size=1, max_size=8),
    st.integers(1, 6),
)
def test_every_token_is_scored_exactly_once(documents, context):
    """Catches tokens lost or counted twice at windows and document ends, and bytes that do not add
    up to those of the documents."""
    held_out = text(documents)
    if sum(math.ceil(len(document) / context) for document in documents) < 2:
        with pytest.raises(DataError, match="at least 2"):
            sample(held_out, context)
        return
    chosen = sample(held_out, context)
    scored = [token for row in chosen.rows for token in row.tokens[-row.scored :]]
    assert scored == [token for document in documents for token in document]
    assert all(len(row.tokens) <= context + 1 for row in chosen.rows)
    assert chosen.bytes.sum() == pytest.approx(sum(WIDTHS[d].sum() for d in documents))


def test_a_limit_is_deterministic_nested_and_spread():
    """Catches a limit that takes the first documents, or others on another call."""
    rng = np.random.default_rng(1)
    held_out = text([rng.integers(1, 8, size=40).tolist() for _ in range(50)])
    few, same, more = sample(held_out, 8, 160), sample(held_out, 8, 160), sample(held_out, 8, 400)
    assert few.rows == same.rows
    assert sum(row.scored for row in few.rows) == 160
    assert set(few.rows) < set(more.rows)
    assert len(set(few.documents.tolist())) > 10
    assert max(few.documents) > 25


def test_limited_sample_estimates_the_whole():
    """Catches bytes of whole documents charged to a window, and an error that is far too small."""
    pack = Bigram(tables([5]), context=8)
    rng = np.random.default_rng(2)
    held_out = text([rng.integers(1, 8, size=rng.integers(2, 60)).tolist() for _ in range(400)])
    whole, part = sample(held_out, 8), sample(held_out, 8, 2000)
    truth = whole.score(answer_totals(pack, whole.rows)[0][0])
    found = part.score(answer_totals(pack, part.rows)[0][0])
    assert found.stderr > 0
    assert abs(found.value - truth.value) < 3 * found.stderr
    assert found.stderr < 0.1 * truth.value


def test_standard_error_is_that_of_the_ratio():
    """Catches the error of a mean of ratios, and one that ignores that long units weigh more."""
    rng = np.random.default_rng(3)
    values, errors = [], []
    for _ in range(400):
        sizes = rng.gamma(2.0, 50.0, size=40)
        bits = sizes * 2.0 + rng.normal(size=40) * sizes * 0.3
        score = perplexity.bits_per_byte(bits, sizes)
        values.append(score.value)
        errors.append(score.stderr)
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.12)
    by_hand = perplexity.bits_per_byte(np.array([2.0, 6.0]), np.array([1.0, 1.0]))
    assert (by_hand.value, by_hand.stderr, by_hand.n) == (4.0, 2.0, 2)


def test_documents_are_the_units_where_there_are_many():
    """Catches an error over windows where windows of one document are alike."""
    alike = [[1 + i % 7] * 32 for i in range(60)]
    chosen = sample(text(alike), context=4)
    nats, _ = answer_totals(Bigram(tables([4]), context=4), chosen.rows)
    by_document = chosen.score(nats[0])
    by_window = perplexity.bits_per_byte(-nats[0] / np.log(2), chosen.bytes)
    assert by_document.n == 60
    assert by_document.stderr > 1.5 * by_window.stderr


def test_widths_are_utf8_bytes(tmp_path):
    """Catches characters counted for bytes, and bytes given to the end-of-text token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    words = "caf\u00e9 na\u00efve \u718a\u732b plain words\n\n  x = 1\t\U0001f43b"
    tokenizer.train_from_iterator([words] * 4, trainer)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    widths = perplexity.token_widths(tmp_path / "tokenizer.json")
    assert widths[tokenizer.encode(words).ids].sum() == len(words.encode())
    assert widths[tokenizer.token_to_id("<|endoftext|>")] == 0


def test_a_row_scores_something_after_something():
    """Catches rows that would be scored without a context or would score nothing."""
    for scored in (0, 2, 3):
        with pytest.raises(ValueError, match="cannot score"):
            AnswerRow((1, 2), scored)


def test_the_limit_that_reaches_enough_documents_is_the_least():
    """Catches windows counted for documents, another order than that of the sample, and a limit
    that is one window short or long."""
    rng = np.random.default_rng(0)
    held_out = text([rng.integers(1, 8, n).tolist() for n in rng.integers(1, 30, 40)])
    windows = document_windows(*held_out[:2], eot=EOT, context=4)
    assert tokens_to_reach(windows, 41) is None
    for wanted in (5, 30, 40):
        limit = tokens_to_reach(windows, wanted)
        assert len(sample(held_out, limit=limit).keys) == wanted
        assert len(sample(held_out, limit=limit - 4).keys) < wanted
