"""Starting checkpoints: a run goes on from an exported proxy, and from nothing else."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from synthetic_corpus import SyntheticCorpus

from cuvee.mixtures.errors import DataError
from cuvee.proxies import ladder
from cuvee.proxies.train import checkpoint, warm_start
from cuvee.proxies.train.branching import BranchPlan
from cuvee.proxies.train.trainer import TrainedRun, Training, train_pack

CORPUS = SyntheticCorpus(256, {"code": 30_000, "law": 20_000, "web": 60_000})
EVEN = {"code": 0.5, "law": 0.25, "web": 0.25}
SPEC = CORPUS.spec(EVEN)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A trained proxy in Hugging Face's format, and its parameters."""
    trained = train_pack([SPEC], CORPUS)
    assert trained.likelihood is not None
    model = trained.likelihood.model
    folder = checkpoint.export_huggingface(model, 0, tmp_path_factory.mktemp("old"))
    return folder, [values.clone() for values in model.parameters.buffers]


def begun(spec, starts: Path | str = "") -> Training:
    return Training(
        [spec], CORPUS, device="cpu", references={}, branch=BranchPlan(starts=str(starts))
    )


def test_a_run_begins_at_the_very_weights_of_its_checkpoint(exported, tmp_path: Path) -> None:
    """To the bit: catches a transposed or swapped matrix, and a start that is ignored."""
    folder, values = exported
    content = warm_start.adopt_start_checkpoint(folder, tmp_path, "0.3M", 256)
    training = begun(dataclasses.replace(SPEC, start=content), tmp_path)
    for mine, theirs in zip(training.model.parameters.buffers, values, strict=True):
        assert torch.equal(mine, theirs)
    fresh = begun(SPEC)
    assert not torch.equal(fresh.model.parameters.matrices, values[0])


def test_a_run_of_a_shape_begins_at_a_llama_that_transformers_wrote(tmp_path: Path) -> None:
    """Catches a tied head that is looked for, grouped keys joined in another order, the rotary base
    of version 5 that is not found, a base or a head that nobody compares, and an older config that
    is named by what it leaves out and then refused for that."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=256, hidden_size=48, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=6, num_key_value_heads=2, max_position_embeddings=64,
        tie_word_embeddings=True, rope_parameters={"rope_theta": 5e5, "rope_type": "default"},
    )  # fmt: skip
    torch.manual_seed(0)
    llama = LlamaForCausalLM(config)
    llama.save_pretrained(tmp_path / "llama")
    size = ladder.size_name(str(tmp_path / "llama"), str)
    assert size == "w48_l2_h6_kv2_c64_mlp64_rope500000_eps1e-06_tied"
    content = warm_start.adopt_start_checkpoint(tmp_path / "llama", tmp_path / "kept", size, 256)
    model = begun(dataclasses.replace(SPEC, size=size, start=content), tmp_path / "kept").model
    text = torch.randint(0, 256, (1, 2, 65), generator=torch.Generator().manual_seed(1))
    found, _ = model.loss(text[..., :-1], text[..., 1:])
    assert found.item() == pytest.approx(llama(text[0], labels=text[0]).loss.item(), abs=1e-5)
    place = tmp_path / "llama" / "config.json"
    older = json.loads(place.read_text())
    for name in ("tie_word_embeddings", "rms_norm_eps", "num_key_value_heads"):
        older.pop(name)
    plain = tmp_path / "older"
    plain.mkdir()
    (plain / "config.json").write_text(json.dumps(older))
    assert ladder.size_name(str(plain), str) == "w48_l2_h6_c64_mlp64_rope500000_eps1e-06"
    warm_start._check(older, plain, ladder.size_name(str(plain), str), 256)
    for wrong, words in ((size[:-5], "tie_word_embeddings is True"), ("_rope500000", "rope_theta")):
        other = wrong if wrong.startswith("w") else size.replace(wrong, "")
        with pytest.raises(DataError, match=words):
            warm_start.adopt_start_checkpoint(tmp_path / "llama", tmp_path, other, 256)


def test_what_was_learned_is_there_from_the_first_step(exported, tmp_path: Path) -> None:
    """The first loss of the second run is near the last of the first, and the rate warms up anew.

    Catches weights that are overwritten by an initialization, and moments that are taken over.
    """
    folder, _ = exported
    content = warm_start.adopt_start_checkpoint(folder, tmp_path, "0.3M", 256)
    first = train_pack([SPEC], CORPUS).runs[0]
    second = train_pack(
        [dataclasses.replace(SPEC, start=content)], CORPUS, branch=BranchPlan(starts=str(tmp_path))
    ).runs[0]
    assert isinstance(first, TrainedRun) and isinstance(second, TrainedRun)
    assert (
        abs(second.curve[0][1] - first.curve[-1][1]) < 0.2 < first.curve[0][1] - first.curve[-1][1]
    )
    training = begun(dataclasses.replace(SPEC, start=content), tmp_path)
    assert training.optimizer.steps == 0 and not training.optimizer.first[0].any()


def test_a_checkpoint_is_known_by_its_weights(exported, tmp_path: Path) -> None:
    """Catches a name by path or date: the same weights elsewhere are the same start."""
    folder, _ = exported
    content = warm_start.adopt_start_checkpoint(folder, tmp_path / "a", "0.3M", 256)
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "config.json").write_text((folder / "config.json").read_text())
    tensors = load_file(folder / warm_start.FILE)
    save_file(tensors, copy / warm_start.FILE)
    assert warm_start.adopt_start_checkpoint(copy, tmp_path / "b", "0.3M", 256) == content
    tensors["model.norm.weight"][0] += 1
    save_file(tensors, copy / warm_start.FILE)
    assert warm_start.adopt_start_checkpoint(copy, tmp_path / "b", "0.3M", 256) != content


def test_what_is_no_checkpoint_of_the_size_is_refused(exported, tmp_path: Path) -> None:
    """Catches a shape that happens to load, a pickle, a missing tensor, and silence."""
    folder, _ = exported
    with pytest.raises(DataError, match="hidden_size is 32, wanted 64"):
        warm_start.adopt_start_checkpoint(folder, tmp_path, "0.6M", 256)
    with pytest.raises(DataError, match="vocab_size is 256, wanted 4096"):
        warm_start.adopt_start_checkpoint(folder, tmp_path, "0.3M", 4096)
    with pytest.raises(DataError, match="needs config.json and model.safetensors"):
        warm_start.adopt_start_checkpoint(tmp_path / "nowhere", tmp_path, "0.3M", 256)
    broken = tmp_path / "broken"
    broken.mkdir()
    config = json.loads((folder / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps(config))
    torch.save({}, broken / "pytorch_model.bin")
    with pytest.raises(DataError, match="model.safetensors is missing"):
        warm_start.adopt_start_checkpoint(broken, tmp_path, "0.3M", 256)
    tensors = load_file(folder / warm_start.FILE)
    del tensors["lm_head.weight"]
    save_file(tensors, broken / warm_start.FILE)
    with pytest.raises(DataError, match="lacks the tensor 'lm_head.weight'"):
        warm_start.adopt_start_checkpoint(broken, tmp_path, "0.3M", 256)


def test_a_start_that_is_not_there_is_an_error_not_a_random_model(tmp_path: Path) -> None:
    for place in (tmp_path, ""):
        with pytest.raises(DataError, match="starting checkpoint abc is not among those kept"):
            begun(dataclasses.replace(SPEC, start="abc"), place)
