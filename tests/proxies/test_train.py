"""The pack trainer: independence, divergence, resumption, streams, controllers, golden losses."""

import dataclasses
import functools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from synthetic_corpus import SyntheticCorpus

from cuvee.mixtures.errors import DataError, RecipeError
from cuvee.mixtures.runs.run_results import Failed
from cuvee.mixtures.runs.run_spec import Stage
from cuvee.proxies.train import trainer
from cuvee.proxies.train.batching import group_into_packs
from cuvee.proxies.train.trainer import Progress, Trained, TrainedRun, train_pack

CORPUS = SyntheticCorpus(256, {"code": 30_000, "law": 20_000, "web": 60_000})
EVEN = {"code": 0.5, "law": 0.25, "web": 0.25}
SKEWED = {"code": 0.1, "law": 0.1, "web": 0.8}

torch.set_num_threads(1)


def losses(result: Trained, k: int = 0) -> list[float]:
    run = result.runs[k]
    assert isinstance(run, TrainedRun)
    return [loss for _, loss in run.curve]


def values(result: Trained) -> torch.Tensor:
    assert result.likelihood is not None
    return result.likelihood.model.parameters.matrices


@functools.cache
def undisturbed(*specs: Any) -> Trained:
    """What comes of a pack that nothing happens to, trained once for all tests that compare."""
    return train_pack(specs, CORPUS)


class Interrupted(Exception):
    """What the tests raise where a kill would strike."""


def interrupted_at(step: int) -> Any:
    def report(progress: Progress) -> None:
        if progress.step >= step:
            raise Interrupted

    return report


def test_a_proxy_learns() -> None:
    """Catches gradients of the wrong sign or none, and a loss that is no mean.

    Initial logits have variance D x 2 / (5 D), which adds half of it to log 256 = 5.55.
    """
    curve = losses(train_pack([CORPUS.spec(EVEN, tokens=60 * 2048)], CORPUS))
    assert curve[0] == pytest.approx(math.log(256) + 0.2, abs=0.1)
    assert curve[-1] < 4.9


def test_neighbours_order_and_size_of_a_pack_change_no_loss() -> None:
    """To the bit, on a CPU: catches anything that is computed over the pack."""
    specs = [CORPUS.spec(EVEN), CORPUS.spec(SKEWED, seed=3), CORPUS.spec(SKEWED)]
    together = train_pack(specs, CORPUS)
    turned = train_pack(specs[::-1], CORPUS)
    for k, spec in enumerate(specs):
        alone = undisturbed(spec)
        assert losses(together, k) == losses(alone) == losses(turned, 2 - k)
        assert together.runs[k].spec.fingerprint == spec.fingerprint
        assert torch.equal(values(together)[k], values(alone)[0])
    assert losses(together, 0) != losses(together, 2)


def test_a_model_driven_to_nan_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neighbours are untouched to the bit; the failed one has a reason and no likelihood."""
    specs = [CORPUS.spec(EVEN, seed=s) for s in (0, 1, 2)]
    clean = train_pack(specs, CORPUS)
    advance = trainer.Training.advance

    def poison(self: trainer.Training) -> None:
        if self.step == 7:
            self.model.parameters.matrices[1, 0:5000] = math.nan
        advance(self)

    monkeypatch.setattr(trainer.Training, "advance", poison)
    seen: list[Progress] = []
    result = train_pack(specs, CORPUS, report=seen.append)
    failed = result.runs[1]
    assert isinstance(failed, Failed)
    assert "diverged at step 7 of 20: loss is nan" in failed.reason
    assert losses(result, 0) == losses(clean, 0)
    assert losses(result, 2) == losses(clean, 2)
    assert result.likelihood is not None
    assert result.likelihood.models == 2
    text = torch.randint(0, 256, (2, 30))
    lengths = torch.tensor([30, 30])
    assert clean.likelihood is not None
    scored, full = (
        result.likelihood.token_statistics(text, lengths),
        clean.likelihood.token_statistics(text, lengths),
    )
    assert torch.equal(scored[0], full[0][[0, 2]])
    assert math.isnan(seen[-1].losses[1])
    assert all(math.isfinite(seen[-1].losses[k]) for k in (0, 2))


def test_a_pack_that_fails_whole_stops_and_has_no_likelihood() -> None:
    """A rate of 1e30 overflows at once: catches a run to the end of dead models."""
    seen: list[Progress] = []
    result = train_pack([CORPUS.spec(EVEN, rate=1e30)], CORPUS, report=seen.append)
    assert result.likelihood is None
    assert isinstance(result.runs[0], Failed)
    assert seen[-1].step < 20


@pytest.mark.parametrize("step", [1, 7, 19])
def test_an_interrupted_pack_ends_like_an_undisturbed_one(
    step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the bit: catches moments, step, stream or history that a checkpoint forgets."""
    monkeypatch.setattr(trainer, "SAVE_SECONDS", 0.0)
    specs = [CORPUS.spec(EVEN), CORPUS.spec(SKEWED, seed=1)]
    whole = undisturbed(*specs)
    with pytest.raises(Interrupted):
        train_pack(specs, CORPUS, checkpoints=tmp_path, report=interrupted_at(step))
    assert len(list(tmp_path.iterdir())) == min(step - 1, 2)
    seen: list[Progress] = []
    resumed = train_pack(specs, CORPUS, checkpoints=tmp_path, report=seen.append)
    assert seen[0].step == max(1, step)
    assert torch.equal(values(resumed), values(whole))
    assert [losses(resumed, k) for k in (0, 1)] == [losses(whole, k) for k in (0, 1)]


def test_a_damaged_checkpoint_costs_time_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "SAVE_SECONDS", 0.0)
    with pytest.raises(Interrupted):
        train_pack([CORPUS.spec(EVEN)], CORPUS, checkpoints=tmp_path, report=interrupted_at(9))
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:-9])
    seen: list[Progress] = []
    resumed = train_pack([CORPUS.spec(EVEN)], CORPUS, checkpoints=tmp_path, report=seen.append)
    assert seen[0].step == 1
    assert losses(resumed) == losses(undisturbed(CORPUS.spec(EVEN)))


def test_a_run_is_trained_with_the_seed_of_its_data_apart() -> None:
    """Catches a data seed that moves the initial values too, or that the trainer never hands on."""
    specs = [
        CORPUS.spec(EVEN, seed=1),
        CORPUS.spec(EVEN, seed=1, data_seed=2),
        CORPUS.spec(EVEN, seed=2),
    ]
    begun = trainer.Training(specs, CORPUS, device="cpu", references={})
    first, ours, second = begun.model.parameters.matrices
    assert torch.equal(first, ours) and not torch.equal(ours, second)
    one, both, two = (stream.batch(0)[0] for stream in begun.streams)
    assert (both == two).all() and not (both == one).all()


def test_stages_are_followed_and_recorded() -> None:
    first, second = (1.0, 0.0, 0.0), (0.0, 0.0, 1.0)
    spec = CORPUS.spec(EVEN, stages=(Stage(first, 0.25), Stage(second, 0.75)))
    run = train_pack([spec], CORPUS).runs[0]
    assert isinstance(run, TrainedRun)
    assert run.tokens == (5 * 2048, 0, 15 * 2048)
    assert run.trajectory == ((0, first), (5 * 2048, second))


def test_what_a_run_reports() -> None:
    run = undisturbed(CORPUS.spec(EVEN)).runs[0]
    assert isinstance(run, TrainedRun)
    assert run.tokens == (20480, 10240, 10240)
    assert run.epochs == pytest.approx((80 / 117, 40 / 78, 40 / 234))
    assert [tokens for tokens, _ in run.curve] == [2048 * (i + 1) for i in range(20)]
    assert run.trajectory == ()
    assert run.flops > 0


EXP3 = '{"interval":2,"name":"exp3","warmup":0.0}'


def test_reports_on_the_way_are_the_curve_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a last report over steps that the one before it has told already: the record then
    holds another end of the curve than the store, as the moment of the report decides."""
    monkeypatch.setattr(trainer, "REPORTS", 6)  # of 20 steps: after 3, 6, ... 18, and 20
    seen: list[Progress] = []
    result = train_pack([CORPUS.spec(EVEN)], CORPUS, report=seen.append)
    assert [report.step for report in seen] == [3, 6, 9, 12, 15, 18, 20]
    assert [report.losses[0] for report in seen] == losses(result)
    assert [report.tokens for report in seen] == [2048 * report.step for report in seen]


def test_a_controller_moves_the_weights_and_survives_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches controller state or running sums that are lost when a pack is killed."""
    monkeypatch.setattr(trainer, "SAVE_SECONDS", 0.0)
    specs = [CORPUS.spec(EVEN, controller=EXP3), CORPUS.spec(SKEWED)]
    whole = undisturbed(*specs)
    run = whole.runs[0]
    assert isinstance(run, TrainedRun)
    # eps_t = sqrt(ln 3 / (3 t)) is above 1/3 until the third update: until then all are equal
    assert [tokens // 2048 for tokens, _ in run.trajectory] == [0, 2, 8, 10, 12, 14, 16, 18]
    assert run.trajectory[1][1] == pytest.approx((1 / 3, 1 / 3, 1 / 3))
    assert losses(whole, 1) == losses(undisturbed(*specs[1:]))
    with pytest.raises(Interrupted):
        train_pack(specs, CORPUS, checkpoints=tmp_path, report=interrupted_at(11))
    resumed = train_pack(specs, CORPUS, checkpoints=tmp_path)
    assert resumed.runs[0] == dataclasses.replace(run, seconds=resumed.runs[0].seconds)
    assert torch.equal(values(resumed), values(whole))


def test_packs_hold_only_what_can_train_together() -> None:
    specs = [CORPUS.spec(EVEN, seed=s) for s in range(5)]
    specs.insert(2, CORPUS.spec(EVEN, precision="bfloat16"))
    grouped = group_into_packs(specs, "cpu", 2)
    assert [len(pack) for pack in grouped] == [2, 2, 1, 1]
    assert sorted(s.fingerprint for p in grouped for s in p) == sorted(s.fingerprint for s in specs)
    assert [len(pack) for pack in group_into_packs(specs, "cuda")] == [5, 1]
    with pytest.raises(RecipeError, match="group them with"):
        train_pack(specs, CORPUS)
    with pytest.raises(RecipeError, match="at least one run"):
        train_pack([], CORPUS)
    with pytest.raises(RecipeError, match="at least 1 model"):
        group_into_packs(specs, "cpu", 0)


def test_a_corpus_that_is_not_the_specs_is_refused() -> None:
    """Evidence is tied to content: catches training on other text under the same name."""
    other = SyntheticCorpus(256, {"code": 30_001, "law": 20_000, "web": 60_000})
    with pytest.raises(DataError, match="'code' of the corpus is not the one"):
        train_pack([CORPUS.spec(EVEN)], other)
    with pytest.raises(DataError, match="no domain 'web'; it has: code, law"):
        train_pack([CORPUS.spec(EVEN)], SyntheticCorpus(256, {"code": 30_000, "law": 20_000}))
