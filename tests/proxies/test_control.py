"""Control: the evidence that controllers are given, and what their weights do to a training."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from synthetic_corpus import SyntheticCorpus

from cuvee.mixtures import controllers
from cuvee.mixtures.controllers import ControllerEvidence, State
from cuvee.mixtures.controllers.aioli import AioliController
from cuvee.mixtures.controllers.doge import DogeController
from cuvee.mixtures.controllers.exp3 import Exp3
from cuvee.mixtures.controllers.grape import Grape
from cuvee.mixtures.controllers.group_dro import GroupDRO
from cuvee.mixtures.controllers.mixmin import MixMinController
from cuvee.mixtures.controllers.skill_it import SkillItController
from cuvee.mixtures.errors import DataError, EvidenceError, RecipeError
from cuvee.proxies.model.likelihood import PackLikelihood
from cuvee.proxies.train import (
    controller_evidence,
    controller_runtime,
    gradients,
    reference_model,
    trainer,
)
from cuvee.proxies.train.trainer import Progress, TrainedRun, train_pack

CORPUS = SyntheticCorpus(256, {"code": 30_000, "law": 20_000, "web": 60_000})
EVEN = dict.fromkeys(("code", "law", "web"), 1 / 3)
STEPS = 24

torch.set_num_threads(1)


def spec(controller: Any = None, weights: dict[str, float] = EVEN, **fields: Any) -> Any:
    fields.setdefault("tokens", STEPS * 2048)
    moved = controllers.dump_controller(controller) if controller else ""
    return CORPUS.spec(weights, controller=moved, **fields)


class Interrupted(Exception):
    """What the tests raise where a kill would strike."""


def run_of(specs: list[Any], **options: Any) -> TrainedRun:
    run = train_pack(specs, CORPUS, **options).runs[0]
    assert isinstance(run, TrainedRun)
    return run


def seen(monkeypatch: pytest.MonkeyPatch, kind: type) -> list[ControllerEvidence]:
    """The evidence that every update of a controller is given from now on."""
    found: list[ControllerEvidence] = []
    update = kind.update

    def listen(self: Any, state: State, evidence: ControllerEvidence) -> State:
        found.append(evidence)
        return update(self, state, evidence)

    monkeypatch.setattr(kind, "update", listen)
    return found


@pytest.fixture(scope="module")
def references(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("references")
    plain = spec(seed=5)
    return {
        plain.fingerprint: reference_model.train_reference_model(
            plain, CORPUS, folder, device="cpu"
        )
    }


def test_training_losses_by_domain_are_those_of_the_curve(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Counts and losses since the last update; catches sums that are never set back."""
    found = seen(monkeypatch, Exp3)
    run = run_of([spec(Exp3(interval=4, warmup=0.0))])
    assert [e.step for e in found] == [4, 8, 12, 16, 20]
    assert all(sum(e.counts) == 4 * 8 for e in found)
    for i, e in enumerate(found):
        losses = [x for x in e.losses if x is not None]
        counts = [n for n in e.counts if n]
        mean = np.average(losses, weights=counts)
        curve = [loss for tokens, loss in run.curve if 4 * i < tokens / 2048 <= 4 * i + 4]
        assert mean == pytest.approx(np.mean(curve), rel=1e-5)


def test_the_stream_draws_what_the_controller_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shares of each stretch are its weights to one sequence; catches a lag of a block."""
    found = seen(monkeypatch, AioliController)
    run = run_of([spec(AioliController(rounds=2), tokens=40 * 2048)])
    owed = np.zeros(3)
    weights = {tokens // 2048: np.array(w) for tokens, w in run.trajectory}
    now = weights[0]
    for e in found:
        owed += now * sum(e.counts) - np.array(e.counts)
        assert np.abs(owed).max() < 1
        now = weights.get(e.step, now)
    assert sum(run.tokens) == 40 * 2048
    assert sum(max(w) == 0.75 for w in weights.values()) == 6 and found[-1].step > 20


def test_excess_is_clipped_per_token(
    monkeypatch: pytest.MonkeyPatch, references: dict[str, Any]
) -> None:
    """Clipping after the mean gives a smaller number wherever signs differ within a domain."""
    found = seen(monkeypatch, GroupDRO)
    name, model = next(iter(references.items()))
    controlled = spec(GroupDRO(interval=2), reference=name)
    training = trainer.Training([controlled], CORPUS, device="cpu", references=references)
    expected = []
    for step in range(3):
        tokens, domains = training.streams[0].batch(step)
        own = controller_evidence.model_losses(training.model, 0, torch.from_numpy(tokens))
        known = controller_evidence.model_losses(model, 0, torch.from_numpy(tokens))
        if step < 2:
            clipped = (own - known).clamp_min(0).mean(1).numpy()
            expected.append((clipped, domains))
            assert (own < known).any()
        training.advance()
    values, places = (np.concatenate(part) for part in zip(*expected, strict=True))
    assert found[0].step == 2
    for d in range(3):
        assert found[0].excess[d] == pytest.approx(values[places == d].mean(), rel=1e-4)


def test_weights_on_the_loss_weigh_the_gradient(references: dict[str, Any]) -> None:
    """Against autograd on the written-out mean; catches factors that reach the loss alone."""
    model = next(iter(references.values()))
    tokens = torch.from_numpy(np.stack([CORPUS.train("law").tokens[:120].astype(np.int64)]))
    tokens = tokens.view(1, 4, 30)
    factors = torch.tensor([[0.0, 0.5, 1.5, 2.0]])
    x, y = tokens[..., :-1], tokens[..., 1:]
    model.parameters.clear()
    mean, losses = model.loss(x, y, factors)
    model.backward(mean)
    ours = model.parameters.named["head"].grad.clone()
    assert mean.item() == pytest.approx(float((losses.mean(2) * factors).mean()), rel=1e-6)
    head = model.parameters.named["head"].detach().clone().requires_grad_()
    logits = model.hidden(x).detach() @ head
    plain = torch.nn.functional.cross_entropy(logits[0], y.reshape(-1), reduction="none")
    (plain.view(4, -1).mean(1) * factors[0]).mean().backward()
    assert torch.allclose(ours, head.grad, atol=1e-7)
    model.parameters.clear()


def test_group_dro_weighs_losses_and_leaves_the_stream(references: dict[str, Any]) -> None:
    """Catches resampling on top of weighing, and factors that change the learning rate."""
    name = next(iter(references))
    start = {"code": 0.5, "law": 0.25, "web": 0.25}
    controlled = spec(GroupDRO(interval=2), start, reference=name)
    training = trainer.Training([controlled], CORPUS, device="cpu", references=references)
    conductor = training.controllers
    conductor.states[0] = {**(conductor.states[0] or {}), "weights": [0.25, 0.5, 0.25]}
    domains = np.array([[0, 0, 0, 0, 1, 1, 2, 2]])
    factors = conductor.factors(domains)
    # 0.25 / 0.5, 0.5 / 0.25 and 1, whose mean over the batch is (4 x 0.5 + 2 x 2 + 2 x 1) / 8 = 1
    assert factors is not None
    assert factors.tolist() == [[0.5, 0.5, 0.5, 0.5, 2.0, 2.0, 1.0, 1.0]]
    run = run_of([controlled], references=references)
    plain = run_of([spec(None, start)])
    assert run.tokens == plain.tokens and run.curve != plain.curve
    assert run.curve[0] == pytest.approx(plain.curve[0], rel=1e-6)  # the same start
    assert len(run.trajectory) == STEPS // 2


def test_held_out_losses_are_of_held_out_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """At step 0 of an untrained model, against the likelihood of the last held-out windows."""
    found = seen(monkeypatch, SkillItController)
    targets = ("domain/web", "domain/code")
    follow = SkillItController(
        ((1.0, 0.0), (0.0, 1.0), (0.0, 0.0)), targets, scheduled=True, updates=2
    )
    training = trainer.Training([spec(follow)], CORPUS, device="cpu", references={})
    expected = []
    for name in ("web", "code"):
        tokens = CORPUS.valid(name).tokens
        last = (len(tokens) - 1) // 256
        rows = np.stack([tokens[(last - 1 - i % last) * 256 :][:257] for i in range(4)])
        text = torch.from_numpy(rows.astype(np.int64))
        scored, *_ = PackLikelihood(training.model).token_statistics(text, torch.full((4,), 257))
        expected.append(-float(scored.mean()))
    training.advance()
    assert found[0].step == 0 and found[0].held_out == pytest.approx(expected, rel=1e-5)


def test_gradients_of_the_pack_axis_are_those_of_separate_passes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Against one backward pass per text; catches a probe of the wrong model or texts, gradients
    that add up from probe to probe, and products without the gains of the norms."""
    found = seen(monkeypatch, DogeController)
    specs = [spec(seed=1), spec(DogeController(("domain/web", "domain/law"), interval=4), seed=2)]
    training = trainer.Training(specs, CORPUS, device="cpu", references={})
    for _ in range(8):
        training.advance()
    stream, model = training.streams[1], training.model
    of_domains = [stream.windows[stream.order.index(i)] for i in range(3)]
    texts = gradients.draw_windows(of_domains, seed=stream.seed, step=8)
    held = training.controllers.windows[1]
    assert held is not None and texts.shape == (3, 2, 257)
    rows, values = [], []
    for text in [*texts, *held[:, :2]]:
        model.parameters.clear()
        both = text.expand(2, -1, -1)
        mean, _ = model.loss(both[..., :-1], both[..., 1:])
        model.backward(mean)
        rows.append(torch.cat([g[1] for g in model.parameters.gradients]).clone())
        values.append(float(mean[1].detach()))
    training.advance()
    assert [e.step for e in found] == [4, 8] and found[1].rate == training.plan.rate(8)
    assert found[1].held_out == pytest.approx(values[3:], rel=1e-5)  # of the very same sequences
    for d in range(3):
        assert found[1].norms[d] == pytest.approx(float(rows[d].norm()), rel=1e-4)
        for m in range(2):
            expected = float(rows[d] @ rows[3 + m])
            assert found[1].products[d][m] == pytest.approx(expected, rel=1e-3, abs=1e-6)


def everything(name: str) -> list[Any]:
    return [
        spec(GroupDRO(), reference=name),
        spec(SkillItController(updates=3, scheduled=True)),
        spec(Exp3()),
        spec(controllers.load_controller({"name": "ado", "interval": 1})),
        spec(AioliController(rounds=2)),
        spec(DogeController(interval=5)),
        spec(Grape(interval=5, evaluated=("domain/law",))),
        spec(),
    ]


@pytest.mark.slow
def test_every_controller_resumes_to_the_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, references: dict[str, Any]
) -> None:
    """In one pack, whose members change nothing for each other; killed at step 13 of 24."""
    monkeypatch.setattr(trainer, "SAVE_SECONDS", 0.0)
    specs = everything(next(iter(references)))
    whole = train_pack(specs, CORPUS, references=references)

    def kill(progress: Progress) -> None:
        if progress.step >= 13:
            raise Interrupted

    with pytest.raises(Interrupted):
        train_pack(specs, CORPUS, references=references, checkpoints=tmp_path, report=kill)
    again = train_pack(specs, CORPUS, references=references, checkpoints=tmp_path)
    for one, two in zip(whole.runs, again.runs, strict=True):
        assert isinstance(one, TrainedRun) and isinstance(two, TrainedRun)
        assert one == dataclasses.replace(two, seconds=one.seconds)
        assert bool(one.trajectory) == bool(one.spec.controller)
    alone = run_of([specs[0]], references=references)
    assert alone.trajectory == whole.runs[0].trajectory and alone.curve == whole.runs[0].curve


def test_a_reference_is_made_once_and_again_when_it_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a reference that depends on who made it, and one that is trained at every use."""
    calls: list[int] = []

    def count(*args: Any, **options: Any) -> Any:
        calls.append(1)
        return train_pack(*args, **options)

    monkeypatch.setattr(reference_model, "train_pack", count)
    plain = spec(seed=3)
    first = reference_model.train_reference_model(
        plain, CORPUS, tmp_path, device="cpu"
    ).parameters.matrices.clone()
    second = reference_model.train_reference_model(
        plain, CORPUS, tmp_path, device="cpu"
    ).parameters.matrices.clone()
    assert len(calls) == 1 and torch.equal(first, second)
    next(tmp_path.glob("*/step-*.pt")).write_bytes(b"x" * 100)
    third = reference_model.train_reference_model(
        plain, CORPUS, tmp_path, device="cpu"
    ).parameters.matrices
    assert len(calls) == 2 and torch.equal(first, third)
    with pytest.raises(EvidenceError, match="cannot be a reference"):
        reference_model.train_reference_model(
            spec(reference="0" * 64), CORPUS, tmp_path, device="cpu"
        )


@pytest.mark.slow
def test_mixmin_reads_the_models_of_its_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each source predicts its own text best, so text of one domain is mixed of it; catches
    sources in another order than the domains, and weights that come a step too late."""
    found = seen(monkeypatch, MixMinController)
    names = ("code", "law", "web")
    alone = [spec(None, {name: 1.0}) for name in names]
    models = {
        s.fingerprint: reference_model.train_reference_model(s, CORPUS, tmp_path, device="cpu")
        for s in alone
    }
    mixed = MixMinController(tuple(s.fingerprint for s in alone), ("domain/law",))
    run = run_of([spec(mixed)], references=models)
    (evidence,) = found
    assert evidence.step == 0 and len(evidence.likelihoods) == controller_runtime.EXAMPLES
    assert np.array(evidence.likelihoods).sum(axis=0).argmax() == 1
    assert run.trajectory == ((0, run.trajectory[0][1]),) and run.trajectory[0][1][1] > 0.9
    assert run.tokens[1] > 0.9 * sum(run.tokens)
    with pytest.raises(EvidenceError, match="source run .* is not there"):
        train_pack([spec(mixed)], CORPUS, references={})


def test_what_cannot_be_controlled_is_refused() -> None:
    """Each message names what is missing; catches a controller that is ignored in silence."""
    with pytest.raises(EvidenceError, match="none named"):
        train_pack([spec(GroupDRO())], CORPUS)
    with pytest.raises(RecipeError, match="'task/piqa' is scored only afterwards"):
        train_pack([spec(AioliController(evaluated=("task/piqa",), rounds=2))], CORPUS)
    short = SyntheticCorpus(256, {"code": 30_000, "law": 1_000, "web": 60_000})
    lacking = short.spec(
        EVEN, controller=controllers.dump_controller(SkillItController()), tokens=STEPS * 2048
    )
    with pytest.raises(DataError, match="held-out text of 'law' has 100 tokens"):
        train_pack([lacking], short)
    config = json.dumps({"name": "exp3", "wamup": 0.1})
    with pytest.raises(RecipeError, match="warmup"):
        train_pack([dataclasses.replace(spec(), controller=config)], CORPUS)


def test_a_long_trajectory_keeps_its_mean() -> None:
    """Thinned to 256 stretches of a run of 1000 steps; catches points that are dropped."""
    rng = np.random.default_rng(0)
    moved = [(step, list(w)) for step, w in enumerate(rng.dirichlet(np.ones(3), 1000))]
    kept = controller_evidence.thin_trajectory(moved, 1000)
    assert len(kept) == controller_evidence.MOST_POINTS and kept[0][0] == 0
    lengths = np.diff([*[step for step, _ in kept], 1000])
    mean = lengths @ np.array([w for _, w in kept]) / 1000
    assert mean == pytest.approx(np.mean([w for _, w in moved], axis=0))
    assert math.isclose(sum(kept[5][1]), 1.0)
