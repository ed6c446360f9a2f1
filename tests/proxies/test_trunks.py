"""Trunks: what runs have in common is trained once, and no run can tell."""

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from synthetic_corpus import SyntheticCorpus

from cuvee.mixtures.controllers import dump_controller
from cuvee.mixtures.controllers.exp3 import Exp3
from cuvee.mixtures.runs.run_results import Failed, RunResult, training_cost
from cuvee.mixtures.runs.run_spec import Stage
from cuvee.proxies.data.sampling_table import BLOCK
from cuvee.proxies.train import branching, trainer, training_state
from cuvee.proxies.train.branching import plan_packs, shared_prefixes, trained_shares
from cuvee.proxies.train.trainer import TrainedRun, train_pack

CORPUS = SyntheticCorpus(256, {"code": 30_000, "law": 20_000, "web": 60_000})
MAIN = (0.5, 0.25, 0.25)
TAILS = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.2, 0.2, 0.6))
STEP = 2048  # tokens


def staged(tail, share=0.25, steps=20, **fields):
    stages = (Stage(MAIN, 1 - share), Stage(tail, share)) if tail else (Stage(MAIN),)
    return CORPUS.spec({"web": 1.0}, stages=stages, tokens=steps * STEP, **fields)


def run(batch, **options):
    return train_pack(list(batch.specs), CORPUS, branch=batch.branch, **options)


def together(specs, folder, limit=None, **options):
    """Outcome and parameters of runs by fingerprint, trained batch by batch as a flow would."""
    found, waiting = {}, plan_packs(specs, folder, limit=limit)
    while waiting:
        ready = next(
            b
            for b in waiting
            if not {n for o in waiting for n in o.branch.keep} & set(b.branch.needs)
        )
        waiting.remove(ready)
        result = run(ready, **options)
        for k, one in enumerate(result.runs):
            assert result.likelihood is not None
            values = result.likelihood.model.parameters.matrices[k].clone()
            found[one.spec.fingerprint] = (one, values)
    return found


@pytest.mark.parametrize("limit", [1, 3])
def test_branches_end_like_runs_trained_whole(tmp_path: Path, limit: int) -> None:
    """To the bit: catches moments, steps, losses or a stream that a trunk hands on wrongly."""
    specs = [staged(tail) for tail in TAILS]
    plan = plan_packs(specs, tmp_path, limit=limit)
    assert [b.branch.until for b in plan if b.branch.keep] == [15]
    branched = together(specs, tmp_path, limit)
    for spec in specs:
        whole = train_pack([spec], CORPUS)
        alone, own = whole.runs[0], branched[spec.fingerprint][0]
        assert isinstance(alone, TrainedRun) and isinstance(own, TrainedRun)
        assert (own.curve, own.trajectory, own.tokens, own.epochs, own.flops) == (
            alone.curve, alone.trajectory, alone.tokens, alone.epochs, alone.flops,
        )  # fmt: skip
        assert whole.likelihood is not None
        assert torch.equal(
            branched[spec.fingerprint][1], whole.likelihood.model.parameters.matrices[0]
        )
        assert alone.trunks == () and own.trunks[0][1] == pytest.approx(0.75 * own.flops)
    assert len({values[0].sum().item() for _, values in branched.values()}) == 3


def test_a_study_pays_for_a_trunk_once() -> None:
    """Three runs of 20 units share 15: 15 + 3 x 5 = 30, not 60; and an old record counts whole.

    Tokens and seconds of training are shared alike; each run is scored by itself.
    """
    given = {"flops": 20.0, "seconds": 4.0, "scoring_seconds": 1.0}
    runs = [
        RunResult(staged(tail), {}, trunks=(("a", 12.0), ("b", 3.0)), **given) for tail in TAILS
    ]
    cost = training_cost(runs)
    assert cost is not None and cost.flops == pytest.approx(30.0)
    assert cost.tokens == pytest.approx(1.5 * runs[0].spec.tokens)
    assert cost.core_seconds == pytest.approx(1.5 * 4.0 + 3 * 1.0)
    whole = training_cost([*runs, RunResult(staged(None), {}, flops=20.0)])
    assert whole is not None and whole.flops == pytest.approx(50.0)
    assert training_cost([*runs, RunResult(staged(None), {})]) is None  # it came in a table


def test_runs_share_exactly_what_trains_alike() -> None:
    """Catches a name that forgets what training depends on, or knows what comes after."""

    def shared(one, two):
        names = {t.name for t in shared_prefixes(two)}
        return max((t.step for t in shared_prefixes(one) if t.name in names), default=0)

    first = staged(TAILS[0], 0.2, 200)
    assert shared(first, staged(TAILS[1], 0.2, 200)) == 160
    assert shared(first, dataclasses.replace(first, scoring="other")) == 200
    # another switch point, or none, parts the block in which it lies: 160 is in [128, 192)
    assert shared(first, staged(TAILS[0], 0.1, 200)) == 2 * BLOCK
    assert shared(first, staged(None, steps=200)) == 2 * BLOCK
    for change in (
        {"seed": 1}, {"rate": 2.0}, {"schedule": "cosine"}, {"average": 0.1}, {"size": "0.6M"},
        {"precision": "bfloat16"}, {"repetition": 0.5}, {"start": "abc"}, {"tokens": 201 * STEP},
        {"identities": ("x", "y", "z")}, {"stages": (Stage((0.6, 0.2, 0.2)),)},
    ):  # fmt: skip
        assert shared(first, dataclasses.replace(first, **change)) == 0, change
    exp3 = '{"interval":2,"name":"exp3","warmup":0.0}'
    assert shared_prefixes(dataclasses.replace(staged(None), controller=exp3)) == ()


def test_controlled_runs_are_planned_beside_branches(tmp_path: Path) -> None:
    """A run whose weights move shares no beginning; catches a plan that needs each to have one."""
    moved = CORPUS.spec({"web": 1.0}, tokens=20 * STEP, controller=dump_controller(Exp3()))
    assert [b.specs for b in plan_packs([moved], tmp_path)] == [(moved,)]
    plan = plan_packs([moved, *(staged(tail) for tail in TAILS)], tmp_path, limit=3)
    (own,) = [b for b in plan if moved in b.specs]
    assert own.specs == (moved,) and not own.branch.start and not own.branch.keep


def test_trunks_of_trunks_are_planned() -> None:
    """100 steps; switches at 80 and 90: 64 for all, then 16 and 26, then the tails.

    Catches a run that is lost, planned twice, or waits for a trunk that nobody trains.
    """
    specs = [staged(tail, 0.2, 100) for tail in TAILS]
    specs += [staged(tail, 0.1, 100) for tail in TAILS[:2]] + [staged(None, steps=100)]
    plan = plan_packs(specs, "nowhere")
    ends = [spec for b in plan if not b.branch.keep for spec in b.specs]
    assert sorted(s.fingerprint for s in ends) == sorted(s.fingerprint for s in specs)
    made = {name: b.branch.until for b in plan for name in b.branch.keep}
    assert sorted(made.values()) == [64, 80, 90]
    steps = 0
    for b in plan:
        begin = made[b.branch.start[0]] if b.branch.start else 0
        steps += (b.branch.until or 100) - begin
    assert steps == 64 + 16 + 26 + 3 * 20 + 2 * 10 + 36
    shares = trained_shares(plan)
    assert shares.keys() == made.keys() | {spec.fingerprint for spec in specs}
    assert 100 * math.fsum(share for _, share in shares.values()) == pytest.approx(steps)
    assert shares[specs[0].fingerprint][1] == pytest.approx(0.2)
    apart = [dataclasses.replace(spec, seed=i) for i, spec in enumerate(specs)]
    assert all(not b.branch.keep for b in plan_packs(apart, "nowhere"))


@pytest.mark.slow
def test_a_pack_may_hold_branches_of_several_trunks(tmp_path: Path) -> None:
    """Two seeds in one pack on a device with room: catches the trunk of another seed."""
    specs = [staged(tail, seed=seed) for seed in (0, 1) for tail in TAILS]
    plan = plan_packs(specs, tmp_path, limit=8)
    assert [len(b.specs) for b in plan] == [6, 2]
    branched = together(specs, tmp_path, 8)
    for spec in specs:
        alone = train_pack([spec], CORPUS).runs[0]
        own = branched[spec.fingerprint][0]
        assert isinstance(alone, TrainedRun) and isinstance(own, TrainedRun)
        assert own.curve == alone.curve and len(own.trunks) == 1


def test_runs_branch_off_a_trunk_in_a_remote_store(s3: str) -> None:
    """Catches a trunk that only the node that trained it can find."""
    folder = f"{s3}/store/checkpoints/trunks"
    specs = [staged(tail) for tail in TAILS]
    *branches, stem = plan_packs(specs, folder)
    run(stem)
    (own,) = run(branches[0]).runs
    alone = train_pack([specs[0]], CORPUS).runs[0]
    assert isinstance(alone, TrainedRun) and isinstance(own, TrainedRun)
    assert own.curve == alone.curve and len(own.trunks) == 1
    assert not any(pack.branch.keep for pack in plan_packs(specs, folder))  # it is there
    branching.remove_branch_checkpoint(folder, stem.branch.keep[0])
    assert not branching.kept_branches(folder)


def test_a_damaged_or_lost_trunk_costs_time_and_nothing_else(tmp_path: Path) -> None:
    specs = [staged(tail) for tail in TAILS]
    *branches, stem = plan_packs(specs, tmp_path)
    run(stem)
    path = next(tmp_path.rglob("step-*.pt"))
    path.write_bytes(path.read_bytes()[:-9])
    (damaged,) = run(branches[0]).runs
    branching.remove_branch_checkpoint(tmp_path, stem.branch.keep[0])
    (lost,) = run(branches[1]).runs
    for own, spec in ((damaged, specs[0]), (lost, specs[1])):
        assert isinstance(own, TrainedRun) and own.trunks == ()
        alone = train_pack([spec], CORPUS).runs[0]
        assert isinstance(alone, TrainedRun) and own.curve == alone.curve


def test_branches_of_a_trunk_that_diverged_fail_as_they_would_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a branch that goes on from ruins, and one that waits for ever."""
    advance = trainer.Training.advance

    def poison(self: trainer.Training) -> None:
        if self.step == 7:
            self.model.parameters.matrices[:, 0:5000] = math.nan
        advance(self)

    monkeypatch.setattr(trainer.Training, "advance", poison)
    specs = [staged(tail) for tail in TAILS]
    *branches, stem = plan_packs(specs, tmp_path)
    run(stem)
    alone = train_pack([specs[0]], CORPUS).runs[0]
    own = run(branches[0]).runs[0]
    assert isinstance(own, Failed) and own == alone


class Killed(Exception):
    """What the tests raise where a kill would strike."""


def test_a_checkpoint_of_another_format_is_not_used(tmp_path: Path) -> None:
    """Catches a pack that goes on from a state whose fields mean something else."""
    assert training_state.checkpoint_identity(["a"]) != ["a"]


def parameters(spec, steps):
    """Matrices of one run after each step."""
    training = trainer.Training([spec], CORPUS, device="cpu", references={})
    seen = []
    for _ in range(steps):
        training.advance()
        seen.append(training.model.parameters.matrices[0].clone())
    return seen


@pytest.mark.slow
def test_an_average_is_the_mean_of_the_last_steps(tmp_path: Path, monkeypatch) -> None:
    """The last 5 of 20, whole, killed and branched; catches the first ones, and a lost sum."""
    monkeypatch.setattr(trainer, "SAVE_SECONDS", 0.0)
    fields = {"schedule": "constant", "average": 0.25}
    specs = [staged(tail, 0.1, **fields) for tail in TAILS]
    expected = torch.stack(parameters(specs[0], 20)[15:]).mean(0)
    whole = train_pack(specs[:1], CORPUS)
    assert whole.likelihood is not None
    found = whole.likelihood.model.parameters.matrices[0]
    assert torch.allclose(found, expected, atol=1e-6)
    assert not torch.allclose(found, parameters(specs[0], 20)[-1], atol=1e-4)

    def kill(progress):
        if progress.step == 18:
            raise Killed

    with pytest.raises(Killed):
        train_pack(specs[:1], CORPUS, checkpoints=tmp_path / "own", report=kill)
    again = train_pack(specs[:1], CORPUS, checkpoints=tmp_path / "own")
    assert again.likelihood is not None
    assert torch.equal(again.likelihood.model.parameters.matrices[0], found)
    branched = together(specs, tmp_path / "trunks")
    assert torch.equal(branched[specs[0].fingerprint][1], found)
    assert branched[specs[0].fingerprint][0].trunks


def test_runs_without_an_average_keep_their_fingerprint() -> None:
    spec = staged(None)
    assert dataclasses.replace(spec, average=0.0, start="").fingerprint == spec.fingerprint
    assert dataclasses.replace(spec, average=0.1).fingerprint != spec.fingerprint
    assert dataclasses.replace(spec, start="abc").fingerprint != spec.fingerprint
