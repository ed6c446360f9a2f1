"""Checkpoints of transformers against lm-eval's own HFLM, and what is refused before it is run."""

import json
import os
import pickle
from pathlib import Path

os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}

import numpy as np
import pytest
from checkpoints import FAMILIES, write_checkpoint, write_tokenizer

from cuvee.evaluation import benchmarks, suites
from cuvee.evaluation.checkpoint_files import checkpoint_digest, checkpoint_weights
from cuvee.mixtures.errors import CuveeError, DataError
from cuvee.proxies.data.files import file_digest

TEXTS = [f"def f{i}(x):\n    return x + {i}  # café\n" * (1 + 4 * i) for i in range(4)]
QUESTIONS = [
    {
        "query": f"Question {i}: what does the {animal} say?\nAnswer:" + " " * (i % 2),
        "choices": [f"the {animal} says {'so ' * (i % 4)}", "nothing at all", f"no {i}"],
        "gold": i % 3,
    }
    for i, animal in enumerate(["cat", "dog", "owl", "fox", "naïve \u718a"])
] + [{"query": "", "choices": ["empty context", "is allowed"], "gold": 0}]


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory) -> dict[bool, Path]:
    """By whether it begins each text with a token of its own."""
    root = tmp_path_factory.mktemp("tokenizers")
    texts = [json.dumps(QUESTIONS, ensure_ascii=False), *TEXTS]
    return {b: write_tokenizer(root / str(b), texts, begins=b) for b in (False, True)}


@pytest.fixture(scope="module")
def suite(tmp_path_factory) -> suites.Suite:
    data = tmp_path_factory.mktemp("data")
    own = {}
    for name, rows in (("questions", QUESTIONS), ("texts", [{"text": t} for t in TEXTS])):
        source = data / f"{name}.src"
        source.write_text("".join(json.dumps(row) + "\n" for row in rows))
        own[name] = benchmarks.adopt_benchmark(source, data, name)
    return suites.suite([], data, own=own)


def whole(folder: Path, family: str, tokenizers: dict[bool, Path], **changes) -> Path:
    """A checkpoint with its tokenizer: Llama's begins each text, as Llama's does."""
    write_checkpoint(folder, family, **changes)
    for path in tokenizers[family == "llama"].iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


SLOW = [
    family if family in ("llama", "gpt_neox") else pytest.param(family, marks=pytest.mark.slow)
    for family in FAMILIES
]


@pytest.mark.parametrize("family", SLOW)
def test_scores_equal_those_of_hflm(family, tmp_path, tokenizers, suite):
    """Catches a token that a tokenizer adds and is lost or doubled, a wrong token before a text,
    windows that overlap, padding that is seen, logits taken one place off, and batches in which
    answers change places."""
    from lm_eval.api.instance import Instance
    from lm_eval.evaluator import evaluate
    from lm_eval.models.huggingface import HFLM

    from cuvee.evaluation import lm_eval_tasks
    from cuvee.evaluation.causal_model import CheckpointReading, load_checkpoint
    from cuvee.evaluation.likelihood import answer_totals
    from cuvee.evaluation.scores import score_requests

    folder = whole(tmp_path / family, family, tokenizers)
    ours = load_checkpoint(folder, CheckpointReading(device="cpu"))
    exams = lm_eval_tasks.encoded_tasks(suite, ours.encoder)
    (scored,) = score_requests(ours.likelihood, {}, exams)
    judge = HFLM(pretrained=str(folder), batch_size=2, device="cpu")
    tasks = {name: lm_eval_tasks._load(suite, name)[0] for name in suite.tasks}
    expected = evaluate(judge, {"tasks": tasks, "groups": {}}, bootstrap_iters=2)
    for exam in exams:
        nats, _ = answer_totals(ours.likelihood, exam.rows)
        found = np.add.reduceat(nats[0], exam.starts)
        samples = sorted(expected["samples"][exam.name], key=lambda one: one["doc_id"])
        answers = [a for one in samples for a in one["filtered_resps"]]
        answers = [a if isinstance(a, float) else a[0] for a in answers]
        np.testing.assert_allclose(found, answers, rtol=1e-5, atol=1e-4)
        assert np.std(answers) > 1
    results = expected["results"]
    accuracy = scored.details["task/questions/accuracy"]
    assert accuracy.value == results["questions"]["acc,none"]
    assert accuracy.stderr == pytest.approx(results["questions"]["acc_stderr,none"], rel=1e-6)
    bits = results["texts"]["bits_per_byte,none"]
    assert scored.scores["task/texts"].value == pytest.approx(bits, rel=1e-5)
    plain = HFLM(pretrained=str(folder), batch_size=1, device="cpu", add_bos_token=False)
    asked = [Instance("loglikelihood_rolling", {}, (t,), i) for i, t in enumerate(TEXTS)]
    heldout = [lm_eval_tasks.rolling_rows(ours.text_encoder, text) for text in TEXTS]
    assert max(map(len, heldout)) > 2  # longer than the context
    found = [answer_totals(ours.likelihood, rows)[0].sum() for rows in heldout]
    np.testing.assert_allclose(found, plain.loglikelihood_rolling(asked, True), rtol=1e-5)


def test_batches_give_what_single_rows_give(tmp_path, tokenizers, suite):
    """Catches padding that is seen, and answers of one token taken from another's context."""
    from cuvee.evaluation import causal_model, lm_eval_tasks
    from cuvee.evaluation.likelihood import answer_totals

    folder = whole(tmp_path / "gpt2", "gpt2", tokenizers)
    ours = causal_model.load_checkpoint(folder, causal_model.CheckpointReading(device="cpu"))
    rows = [r for exam in lm_eval_tasks.encoded_tasks(suite, ours.encoder) for r in exam.rows]
    rows += [type(rows[0])((*rows[0].tokens[:9], i), 1) for i in range(0, 320, 3)]
    together = answer_totals(ours.likelihood, rows)
    likelihood = causal_model.CausalLikelihood(ours.likelihood.model, 48, batch=1)
    alone = [answer_totals(likelihood, [row]) for row in rows]
    np.testing.assert_allclose(together[0][0], [n[0, 0] for n, _ in alone], rtol=1e-6, atol=1e-5)
    assert together[1][0].tolist() == [h[0, 0] for _, h in alone]
    assert together[1][0, -107:].sum() <= 1


def to_pickle(folder: Path) -> None:
    """Weights that write a file when they are unpickled."""

    class Trap:
        def __reduce__(self):
            return (open, (str(folder / "trapped"), "w"))

    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Trap()))
    (folder / "model.safetensors").unlink()


def with_values(folder: Path, change) -> None:
    """Other weights in the place of a checkpoint's."""
    from safetensors.torch import load_file, save_file

    values = load_file(folder / "model.safetensors")
    save_file(change(values), folder / "model.safetensors", metadata={"format": "pt"})


def with_config(folder: Path, **changes) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def no_norm(folder: Path) -> None:
    with_values(folder, lambda v: {n: x for n, x in v.items() if n != "model.norm.weight"})


def not_finite(folder: Path) -> None:
    with_values(folder, lambda v: v | {"model.norm.weight": v["model.norm.weight"] * float("nan")})


def cut_short(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def lacks_a_shard(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    names = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))


def other_tokenizer(folder: Path) -> None:
    write_tokenizer(folder, [*TEXTS, "lorem ipsum dolor sit amet " * 9] * 3, vocabulary=330)
    with_values(folder, lambda v: {n: x[:300] if len(x) == 320 else x for n, x in v.items()})
    with_config(folder, vocab_size=300)


def masked(folder: Path) -> None:
    with_config(folder, architectures=["BertForMaskedLM"], model_type="bert")


def adapter(folder: Path) -> None:
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "org/base"}')


def own_code(folder: Path) -> None:
    """Code that writes a file when it is imported."""
    (folder / "mine.py").write_text(f"open({str(folder / 'trapped')!r}, 'w')\n")
    auto = {"AutoConfig": "mine.Config", "AutoModelForCausalLM": "mine.Model"}
    with_config(folder, model_type="mine", auto_map=auto)


REFUSED = {
    "safetensors are written by": to_pickle,
    "holds no tokenizer": lambda folder: [p.unlink() for p in folder.glob("tokenizer*")],
    "holds no weights": lambda folder: (folder / "model.safetensors").unlink(),
    "holds no config.json": lambda folder: (folder / "config.json").unlink(),
    "lacks 1 weights of its model, such as model.norm.weight": no_norm,
    "model.norm.weight holds numbers that are not finite": not_finite,
    "cannot be loaded on cpu": cut_short,
    "lacks 1 of its 2 files of weights: model-00002-of-00002": lacks_a_shard,
    "they do not belong together": other_tokenizer,
    "BertForMaskedLM, which is no causal language model": masked,
    "adapter of PEFT .* merge": adapter,
    "code of its own": own_code,
    "names a kernel to be downloaded": lambda folder: with_config(
        folder, text_config={"_attn_implementation": "someone/kernel"}
    ),
    "names other weights .transformers_weights.": lambda folder: with_config(
        folder, transformers_weights="other.safetensors"
    ),
    "config.json cannot be read|no model that transformers has": lambda folder: (
        folder / "config.json"
    ).write_text("{"),
}


@pytest.mark.parametrize("sentence", REFUSED)
def test_what_cannot_be_scored_is_refused_in_a_sentence(sentence, tmp_path, tokenizers):
    """Catches weights that are unpickled, code that is run, random numbers in the place of weights
    that are missing, and a traceback."""
    from cuvee.evaluation.causal_model import CheckpointReading, load_checkpoint

    folder = whole(tmp_path / "llama", "llama", tokenizers)
    load_checkpoint(folder, CheckpointReading(device="cpu"))
    REFUSED[sentence](folder)
    with pytest.raises(CuveeError, match=sentence):
        load_checkpoint(folder, CheckpointReading(device="cpu"))
    assert not (folder / "trapped").exists()


def test_an_encoder_with_a_head_for_the_next_token_is_refused(tmp_path, tokenizers):
    """Catches trust in a class's name: BERT's head for the next token sees what follows."""
    from cuvee.evaluation.causal_model import CheckpointReading, load_checkpoint

    folder = whole(tmp_path / "bert", "bert", tokenizers, is_decoder=False)
    with pytest.raises(DataError, match="see those that follow"):
        load_checkpoint(folder, CheckpointReading(device="cpu"))


def test_sharded_weights_and_another_type_are_read(tmp_path, tokenizers):
    """Catches a reader of one file, a type that is not asked for, and a digest of shards that lie
    beside the one file that transformers loads."""
    import torch
    from transformers import AutoModelForCausalLM

    from cuvee.evaluation.causal_model import CheckpointReading, load_checkpoint

    folder = whole(tmp_path / "qwen2", "qwen2", tokenizers)
    whole_digest = checkpoint_digest(folder, file_digest)
    AutoModelForCausalLM.from_pretrained(folder).save_pretrained(
        tmp_path / "shards", max_shard_size="20KB"
    )
    assert len(checkpoint_weights(tmp_path / "shards")) > 2
    for path in tokenizers[False].iterdir():
        (tmp_path / "shards" / path.name).write_bytes(path.read_bytes())
    one, many, half = (
        load_checkpoint(place, CheckpointReading(device="cpu", dtype=kind))
        for place, kind in ((folder, "auto"), (tmp_path / "shards", "auto"), (folder, "bfloat16"))
    )
    context, answers = [[5, 6, 7]], [[[8, 9], [10]]]
    nats, _ = one.likelihood.answer(context, answers)
    assert torch.equal(nats, many.likelihood.answer(context, answers)[0])
    rounded = half.likelihood.answer(context, answers)[0]
    assert 1e-4 < (rounded - nats).abs().max() < 1
    assert checkpoint_digest(tmp_path / "shards", file_digest) != whole_digest
    for path in (tmp_path / "shards").glob("model*"):
        (folder / path.name).write_bytes(path.read_bytes())
    assert checkpoint_digest(folder, file_digest) == whole_digest


def test_a_causal_model_within_one_of_images_is_scored(tmp_path, tokenizers):
    """Catches a size of the vocabulary that is looked for where such a model has none."""
    import torch
    from checkpoints import SHAPE
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration

    from cuvee.evaluation.causal_model import CheckpointReading, load_checkpoint

    torch.manual_seed(0)
    eye = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "image_size": 28,
           "num_attention_heads": 2, "patch_size": 14}  # fmt: skip
    config = Gemma3Config(
        text_config={**SHAPE, "vocab_size": 320, "pad_token_id": 0, "query_pre_attn_scalar": 8},
        vision_config=eye, mm_tokens_per_image=4, image_token_index=319,
    )  # fmt: skip
    Gemma3ForConditionalGeneration(config).save_pretrained(tmp_path)
    for path in tokenizers[False].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    loaded = load_checkpoint(tmp_path, CheckpointReading(device="cpu"))
    nats, _ = loaded.likelihood.answer([[5, 6, 7]], [[[8, 9], [10]]])
    assert (nats < -1).all()


def test_what_a_device_cannot_compute_is_a_sentence(tmp_path, tokenizers, monkeypatch):
    """Catches an exception of torch that ends the scoring of all checkpoints: of weights of a byte,
    which have no `isfinite`, and of a computation that fails after loading."""
    import torch

    from cuvee.evaluation import causal_model

    folder, reading = whole(tmp_path / "llama", "llama", tokenizers), causal_model.CheckpointReading
    loaded = causal_model.load_checkpoint(folder, reading(device="cpu"))
    model = loaded.likelihood.model

    def fail(*_args, **_more):
        raise RuntimeError("no kernel\nof that type")

    monkeypatch.setattr(type(model), "forward", fail)
    with pytest.raises(
        DataError, match="llama cannot be computed on cpu: RuntimeError: no kernel$"
    ):
        loaded.likelihood.answer([[5, 6, 7]], [[[8, 9], [10]]])
    with pytest.raises(DataError, match="llama cannot be computed on cpu: RuntimeError: no kernel"):
        causal_model.load_checkpoint(folder, reading(device="cpu"))
    model.model.norm.weight.data = model.model.norm.weight.data.to(torch.float8_e4m3fn)
    causal_model._check_finite(model, folder)
    model.model.norm.weight.data = torch.full((32,), torch.nan).to(torch.float8_e4m3fn)
    with pytest.raises(DataError, match="model.norm.weight holds numbers that are not finite"):
        causal_model._check_finite(model, folder)


def test_sums_need_no_float64_of_a_device(tmp_path, tokenizers):
    """Catches a type that MPS lacks, in what is computed on the device."""
    import torch
    from torch.overrides import TorchFunctionMode

    from cuvee.evaluation.causal_model import CheckpointReading, load_checkpoint

    class NoDoubles(TorchFunctionMode):
        """Has float64 of what `cpu` gave alone."""

        fetched: tuple[torch.Tensor, ...] = ()

        def __torch_function__(self, func, types, args=(), kwargs=None):
            if func is torch.Tensor.double and not any(args[0] is one for one in self.fetched):
                raise TypeError("no float64 on this device")
            found = func(*args, **(kwargs or {}))
            self.fetched += (found,) if func is torch.Tensor.cpu else ()
            return found

    folder = whole(tmp_path / "llama", "llama", tokenizers)
    likelihood = load_checkpoint(folder, CheckpointReading(device="cpu")).likelihood
    with NoDoubles() as mode:
        nats, _ = likelihood.answer([[5, 6, 7]], [[[8, 9], [10]]])
    assert len(mode.fetched) == 2
    assert (nats < 0).all()


def test_weights_that_are_no_part_of_the_model_are_told(tmp_path, tokenizers, caplog):
    """Catches a model of fewer layers than were trained that nobody hears of."""
    from cuvee.evaluation.causal_model import CheckpointReading, load_checkpoint

    folder = whole(tmp_path / "llama", "llama", tokenizers)
    load_checkpoint(folder, CheckpointReading(device="cpu"))
    assert "no part of its model" not in caplog.text
    with_config(folder, num_hidden_layers=1)
    load_checkpoint(folder, CheckpointReading(device="cpu"))
    assert "9 weights are no part of its model, such as model.layers.1." in caplog.text


def test_a_context_is_the_models_own_or_a_shorter_one(tmp_path, tokenizers):
    """Catches a context beyond what positions were trained for, and one that is not kept to."""
    from cuvee.evaluation.causal_model import CheckpointReading, load_checkpoint

    folder = whole(tmp_path / "gpt_neox", "gpt_neox", tokenizers)
    for asked, expected in ((None, 48), (16, 16)):
        reading = CheckpointReading(device="cpu", context=asked)
        assert load_checkpoint(folder, reading).likelihood.context == expected
    with pytest.raises(DataError, match="made for 48 tokens; a context of 64 is too long"):
        load_checkpoint(folder, CheckpointReading(device="cpu", context=64))
    with pytest.raises(DataError, match="float32, bfloat16, float16; got 'int8'"):
        CheckpointReading(dtype="int8")
    with pytest.raises(DataError, match="cannot be loaded on cuda:99|cannot be loaded on nowhere"):
        load_checkpoint(folder, CheckpointReading(device="nowhere"))
