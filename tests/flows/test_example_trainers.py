"""Trainers of `examples/trainers`, run with the libraries they are for, as far as they install.

On a CPU: torchtitan in one process (its reductions need NCCL), OLMo-core in two. Megatron-LM itself
knows no CPU: what it reads, and what is made of what it leaves, is held to Megatron Core.
"""

import contextlib
import importlib.util
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tiny_study

from cuvee.mixtures.runs.run_results import RunResult
from cuvee.tasks.trainer import contract
from tests.flows.test_trainer import CUVEE, ROOT, Sweep, recipe

EXAMPLES = ROOT / "examples/trainers"
TORCHRUN = str(CUVEE.with_name("torchrun"))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    tiny_study.write_corpus(folder)
    return folder


def library(name: str, module: str) -> None:
    """Skip unless a trainer's library is installed; fail where `make test-trainers` promised it."""
    if importlib.util.find_spec(module) is None:
        assert os.environ.get("CUVEE_TRAINER") != name, f"{module} is not there"
        pytest.skip(f"{name} is not installed")


def trained(corpus: Path, home: Path, monkeypatch, processes: int, *programs: Path) -> RunResult:
    """A run by an example."""
    command = [TORCHRUN, "--standalone", "--nproc-per-node", str(processes), *map(str, programs)]
    monkeypatch.setenv("CUVEE_TRAINER_COMMANDS", TORCHRUN)
    settings = {"save_every": 8, "micro_batch": 3}  # which divides no batch
    sweep = Sweep(recipe(corpus, settings, command=command, cpus=processes), home)
    (run,) = sweep.train(0)
    (folder,) = sweep.folders
    assert isinstance(run, RunResult), (folder / "trainer.log").read_text()[-6000:]
    return run


def hold_trained(run: RunResult) -> None:
    """The checkpoint scores as the model did at the end; at first it is at 4.6 bits per byte."""
    assert run.scores["domain/tables"].value < 3.6
    assert all(score.value < 4.5 for score in run.scores.values())
    assert run.curve[0][1] > 6 > 5.6 > min(loss for _, loss in run.curve)
    assert len(run.curve) > 5


@pytest.mark.trainers
def test_ai2_olmo_core_trains_a_run(corpus, tmp_path, monkeypatch):
    """Catches a model, a mixture or a schedule that OLMo-core refuses, a checkpoint that scores as
    an untrained model, and a curve without points."""
    library("ai2-olmo-core", "olmo_core")
    hold_trained(trained(corpus, tmp_path, monkeypatch, 2, EXAMPLES / "olmo_core/train.py"))


@pytest.mark.trainers
def test_torchtitan_trains_a_run(corpus, tmp_path, monkeypatch):
    """Catches a configuration that torchtitan refuses, targets that are not the next ids, weights
    that transformers reads otherwise (queries and keys lie in another order there)."""
    library("torchtitan", "torchtitan")
    on_cpu = ROOT / "tests/trainer_programs/torchtitan_on_cpu.py"
    run = trained(corpus, tmp_path, monkeypatch, 1, on_cpu, EXAMPLES / "torchtitan/train.py")
    hold_trained(run)
    assert max(run.tokens) - min(run.tokens) <= 256 and sum(run.tokens) == 40_960


def megatron_example():
    spec = importlib.util.spec_from_file_location("mcore_example", EXAMPLES / "megatron/train.py")
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    return example


@pytest.mark.trainers
@pytest.mark.parametrize("kind", ["uint16", "uint32"])
def test_megatron_core_reads_token_files_where_they_lie(tmp_path, kind):
    """Catches a header, a type or an offset that Megatron reads otherwise, and ids that the run may
    not draw: those behind `tokens`, in mid-document."""
    library("megatron-core", "megatron.core")
    indexed = importlib.import_module("megatron.core.datasets.indexed_dataset")
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 40_000, 1000).astype(kind)
    ids.tofile(tmp_path / "ids.bin")
    offsets = np.array([0, 10, 250, 251, 700, 1000])
    np.savez(tmp_path / "ids.npz", offsets=offsets, bytes=np.ones(5))
    split = contract.ContractTokens(
        path=str(tmp_path / "ids.bin"), index=str(tmp_path / "ids.npz"), tokens=600
    )
    domain = contract.ContractDomain(train=split, valid=split)
    assert megatron_example().write_index(domain, tmp_path / "link", kind) == 4
    read = indexed.IndexedDataset(str(tmp_path / "link"))
    assert [len(read[i]) for i in range(len(read))] == [10, 240, 1, 349]
    assert np.concatenate([read[i] for i in range(len(read))]).tolist() == ids[:600].tolist()
    assert read.document_indices.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.trainers
def test_megatron_core_s_weights_are_the_same_model_in_transformers(monkeypatch):
    """Catches queries, keys and values that are cut in another order than Megatron joins them, with
    grouped keys, and a gate in the place of what it gates."""
    library("megatron-core", "megatron.core")
    import torch
    from megatron.core import parallel_state, tensor_parallel
    from megatron.core.models.gpt import gpt_layer_specs, gpt_model
    from megatron.core.transformer.transformer_config import TransformerConfig
    from transformers import LlamaConfig, LlamaForCausalLM

    one = {"store": torch.distributed.HashStore(), "rank": 0, "world_size": 1}
    torch.distributed.init_process_group("gloo", **one)
    parallel_state.initialize_model_parallel()
    monkeypatch.setattr(torch.cuda, "current_device", lambda: "cpu")
    no_tracker = SimpleNamespace(fork=contextlib.nullcontext)
    monkeypatch.setattr(tensor_parallel, "get_cuda_rng_tracker", lambda: no_tracker)
    torch.manual_seed(0)
    config = TransformerConfig(
        num_layers=2, hidden_size=32, num_attention_heads=4, num_query_groups=2,
        ffn_hidden_size=96, normalization="RMSNorm", gated_linear_unit=True,
        activation_func=torch.nn.functional.silu, add_bias_linear=False, attention_dropout=0.0,
        hidden_dropout=0.0, use_cpu_initialization=True, bias_activation_fusion=False,
        apply_rope_fusion=False, masked_softmax_fusion=False, gradient_accumulation_fusion=False,
        persist_layer_norm=False,
    )  # fmt: skip
    layer = gpt_layer_specs.get_gpt_layer_local_spec(normalization="RMSNorm")
    model = gpt_model.GPTModel(
        config, layer, 64, 16, position_embedding_type="rope", parallel_output=False
    ).eval()
    llama = LlamaForCausalLM(
        LlamaConfig(
            hidden_size=32,
            intermediate_size=96,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            vocab_size=64,
            rms_norm_eps=1e-5,
            max_position_embeddings=16,
        )
    ).eval()
    ids, places = torch.randint(0, 64, (2, 16)), torch.arange(16).expand(2, 16)
    hidden = torch.ones(1, 1, 16, 16).tril() < 0.5
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.05 * torch.randn_like(weight))
        theirs = model(ids, places, hidden)
        llama.load_state_dict(megatron_example().llama_weights(model.state_dict(), 2, 4, 2))
        assert torch.allclose(llama(ids).logits, theirs, atol=1e-5) and theirs.abs().max() > 0.5
    torch.distributed.destroy_process_group()
