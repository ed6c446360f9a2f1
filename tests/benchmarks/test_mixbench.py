"""MixBench judges laws: rows are joined by id, far mixtures are far, figures are right by hand."""

import csv
import json
import random

import numpy as np
import pytest
from mixbench import command, contestants, judge, scales, searched, splits, summary, tables, truths

from cuvee.mixtures import registry, simplex
from cuvee.mixtures.errors import DataError, RecipeError

DOMAINS = ("train_a", "train_b", "train_c")
LAW = """
from dataclasses import dataclass
import numpy as np
from cuvee.mixtures.laws import Law, Prediction
from cuvee.mixtures.registry import register

class Recalled:
    def __init__(self, W, Y):
        self.W, self.Y = W, Y
    def predict(self, W):
        same = np.abs(W[:, None] - self.W[None]).sum(axis=2) == 0
        known, nearest = same.any(axis=1)[:, None], self.Y[same.argmax(axis=1)]
        found = np.where(known, nearest, self.Y.mean(axis=0))
        return Prediction(found, np.full(found.shape, 1e-3))

@register("law")
@dataclass(frozen=True)
class Memorizing(Law):
    name = "memorizing"
    def rows(self, domains):
        return 2
    def fit(self, W, Y, noise, rng):
        return Recalled(W, Y)
"""


def write(path, header, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def scores(W):
    return np.column_stack([2 + np.exp(-2 * W[:, 0] - W[:, 1]), 3 - W[:, 2]])


@pytest.fixture
def folder(tmp_path):
    """RegMix's files in small, losses in another order than mixtures."""
    rng = np.random.default_rng(0)
    shuffled = random.Random(1)
    for part, size, count in (("train", "1m", 40), ("test", "1m", 24), ("test", "60m", 24)):
        W = np.random.default_rng(len(part)).dirichlet(np.ones(3), count)
        Y = scores(W) + 0.001 * rng.standard_normal((count, 2)) - (size == "60m")
        losses = [[i, *y] for i, y in enumerate(Y)]
        shuffled.shuffle(losses)
        names = ("metric/the_pile_pile_cc_val_loss", "metric/the_pile_arxiv_val_loss")
        shares = [[i, *w] for i, w in enumerate(W)]
        write(tmp_path / "regmix" / f"{part}_mixture_{size}.csv", ("index", *DOMAINS), shares)
        write(tmp_path / "regmix" / f"{part}_pile_loss_{size}.csv", ("index", *names), losses)
    return tmp_path


@pytest.fixture
def memorizing(tmp_path):
    """A law of one's own, in one file."""
    path = tmp_path / "my_law.py"
    path.write_text(LAW)
    yield path
    registry.forget("law", "memorizing")


def test_rows_are_joined_by_their_id(folder):
    """Catches a loader that pairs shares and losses by position, or that drops a row alone."""
    table = tables.regmix(folder)
    for runs in (table.pool, table.tests["1m"]):
        assert np.abs(runs.Y - scores(runs.W)).max() < 0.01
    assert table.targets == ("the_pile_pile_cc", "the_pile_arxiv")
    path = folder / "regmix" / "test_pile_loss_60m.csv"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(DataError, match="1 rows of .* have no partner"):
        tables.regmix(folder)


def test_far_mixtures_are_farther_from_the_rest_than_any_that_is_fitted():
    """Catches a far split that draws at random, or that fits what it is judged on."""
    W = np.random.default_rng(3).dirichlet(np.ones(3), 40)
    runs = tables.Runs(tuple(map(str, range(40))), W, scores(W), scores(W))
    table = tables.Table("t", "s", ("a", "b"), runs)
    rows = splits.most_rows(table, "far")
    trained = set()
    for draw in range(5):
        (trial,) = splits.trials(table, "far", rows, draw)
        assert len(trial.train) == rows and len(trial.held_out) == 9
        both = np.concatenate([trial.train, trial.held_out])
        away = splits.farness(W[both])
        assert away[:rows].max() < away[rows:].min() and len(set(both)) == len(both)
        trained.add(tuple(sorted(trial.train)))
    assert len(trained) == 5
    halves = [splits._judged(40, True, np.random.default_rng(i)) for i in (1, 2)]
    assert [len(h) for h in halves] == [20, 20] and set(halves[0]) != set(halves[1])


def test_repeats_of_a_mixture_lie_in_one_part():
    """Catches a run that is predicted from a repeat of it under another seed."""
    W = np.repeat(np.random.default_rng(3).dirichlet(np.ones(3), 12), 3, axis=0)
    runs = tables.Runs(tuple(map(str, range(36))), W, scores(W), scores(W))
    table = tables.Table("t", "s", ("a", "b"), runs)
    member = simplex.group_rows(W)
    for split in splits.SPLITS:
        for trial in splits.trials(table, split, splits.most_rows(table, split), 0):
            assert not set(member[trial.train]) & set(member[trial.held_out])


def test_decisions_on_close_pairs_by_hand():
    """Catches pairs that are far apart, or within the noise, and are counted; and a tie that is
    counted as right. Of 0, 1, 2, 5 at a floor of 1, the pairs 1 to 3 apart are (0, 1), (0, 2),
    (1, 2) and (2, 5); the guesses order them right, right, by a tie, and wrong: 2.5 of 4."""
    observed = np.array([0.0, 1.0, 2.0, 5.0])
    guess = np.array([0.0, 4.0, 4.0, 3.0])
    assert judge.close_accuracy(observed, guess, 1.0) == 2.5 / 4
    assert judge.close_accuracy(observed, observed, 6.0) is None


def test_a_law_of_ones_own_takes_part_and_memorizing_does_not_win(folder, memorizing, capsys):
    """Catches a test row that a law was fitted to, a law of one's own that is left out, a kept
    cell that is run again, or that a lower limit cut short and is not, and a level that is judged
    at another size."""
    out = folder / "cells.json"
    given = ["--data", str(folder), "--tables", "regmix-1m", "--laws", "log_linear", "--rows"]
    given += ["512", "--draws", "2", "--law-file", str(memorizing), "--out", str(out)]
    command.main([*given, "--reference", "log_linear"])
    whole = json.loads(capsys.readouterr().out.splitlines()[-1])
    cells = {(c["split"], c["rows"], c["law"]): c for c in whole["cells"]}
    assert {(rows, law) for _, rows, law in cells} == {
        (n, law) for n in (27, 40) for law in ("log_linear", "memorizing")
    }
    for (split, rows, law), cell in cells.items():
        for size in ("1m", "60m"):
            found = cell["judged"][size]
            assert (found["rank"]["mean"] > 80) == (law == "log_linear"), (split, rows, law)
            assert ("coverage" in found) == (size == "1m")
            assert found["main.rank"] == found["targets.the_pile_pile_cc.rank"]
        if law == "memorizing":
            assert cell["against_reference"]["1m"]["rank"]["high"] < 0
    kept = json.loads(out.read_text())["cells"]
    for cell in kept.values():
        cell["draws"][0]["seconds"] = 77.0
    out.write_text(json.dumps({"cells": kept}))
    command.main(given)
    assert (
        json.loads(capsys.readouterr().out.splitlines()[-1])["cells"][0]["judged"]["1m"]["seconds"][
            "high"
        ]
        > 77
    )
    for cell in kept.values():  # as a lower limit leaves it
        cell |= {"draws": cell["draws"][:1], "limit": 0.0}
    out.write_text(json.dumps({"cells": kept}))
    command.main(given)
    assert {c["draws"] for c in json.loads(capsys.readouterr().out.splitlines()[-1])["cells"]} == {
        2
    }
    empty = folder / "empty.py"
    empty.write_text("x = 1\n")
    with pytest.raises(RecipeError, match="registers no law"):
        contestants.laws_of(empty)


def test_a_source_is_judged_by_the_law_that_the_others_choose():
    """Catches a law that is chosen on the source that it is judged on, and a source of much noise
    that chooses for all. Shortfalls of `a` are 0, 0, 5 and 1, of `b` 5, 4, 0 and 0: without the
    third source `a` is chosen, without the first `b`."""
    ranks = {"one": (90, 10), "two": (84, 80), "three": (10, 95), "four": (50, 51)}
    found = [
        {"source": source, "table": "t", "split": "random", "rows": 8, "law": law}
        | {"draws": [{"judged": {"x": {"rank": rank}}}]}
        for source, pair in ranks.items()
        for law, rank in zip("ab", pair, strict=True)
    ]
    found.append(found[0] | {"law": "c", "draws": found[0]["draws"]})
    refused = {key: value for key, value in found[0].items() if key != "draws"}
    report = summary.chosen_elsewhere([*found, refused | {"table": "u", "refused": "too few"}])
    assert (report["three"]["chosen"], report["three"]["shortfall"]) == ("a", 5)
    assert (report["three"]["best"], report["one"]["chosen"]) == ("b", "b")
    assert report["one"]["shortfalls"] == {"a": 0, "b": 5, "c": 0}


def test_recorded_sweeps_are_joined_by_run_and_parted_by_size(tmp_path):
    """Catches sizes that are given to runs by their position, sizes in no order, and runs of one
    size and several numbers of tokens that are taken for one scale."""
    W = np.random.default_rng(5).dirichlet(np.ones(3), 8)
    names = [f"r{i}" for i in range(8)]
    sizes = [("4M", 4e6) if i % 2 else ("0.3M", 3e5) for i in range(8)]
    write(
        tmp_path / "mixtures.csv", ("run", *"abc"), [[n, *w] for n, w in zip(names, W, strict=True)]
    )
    rows = [[n, *y] for n, y in zip(names, scores(W), strict=True)]
    write(tmp_path / "scores.csv", ("run", "x", "y"), rows[::-1])
    about = [[n, s, p, 7] for n, (s, p) in zip(names, sizes, strict=True)]
    write(tmp_path / "runs.csv", ("run", "size", "parameters", "tokens"), about[3:] + about[:3])
    found = tables.sweep_sizes(tmp_path)
    assert list(found) == ["0.3M", "4M"] and found["4M"][1:] == (4e6, 7)
    assert found["4M"][0].ids == ("r1", "r3", "r5", "r7")
    assert np.allclose(found["4M"][0].Y, scores(W[1::2]), atol=1e-5)
    about = [[n, s, p, 7e6 if n < "r4" else 8e6] for n, (s, p) in zip(names, sizes, strict=True)]
    write(tmp_path / "runs.csv", ("run", "size", "parameters", "tokens"), about)
    assert list(tables.sweep_sizes(tmp_path)) == ["0.3M/7M", "0.3M/8M", "4M/7M", "4M/8M"]
    committed = tables.sweeps()
    assert len(committed["scales-0.3M-transfer"].tests) == 5
    assert committed and all(np.allclose(t.pool.W.sum(axis=1), 1) for t in committed.values())


def test_scaling_laws_are_judged_on_larger_sizes_that_they_did_not_see():
    """Catches a size that is fitted and judged, and a level that is off and counted as nothing: a
    law that ignores size is off by what separates the sizes, one of the truth's form is not."""
    case = scales.world_draw("joint", 0)
    largest = max(part.parameters for part in case.fitted)
    assert [t.parameters / largest for t in case.tests.values()] == [2, 4]
    off = {}
    for name in ("joint", "single_scale"):
        limits = {"draws": 1, "limit": 1.0}
        cell = scales.cell_draws(
            name, lambda draw: scales.world_draw("joint", draw), np.full(3, 0.004), **limits
        )
        off[name] = [found["level"] for found in cell["draws"][0]["judged"].values()]
    apart = [
        100 * abs(1 - case.fitted[-1].runs.truth.mean() / t.runs.truth.mean())
        for t in case.tests.values()
    ]
    assert max(off["joint"]) < 1 < 0.5 * apart[0] < off["single_scale"][0] < off["single_scale"][1]


def test_searches_are_judged_by_the_truth_of_what_they_find():
    """Catches a regret that the law predicts in place of the world's, and a search without one."""
    (draw,) = searched.cell_draws(
        "log_linear", truths.WorldTable("additive"), 64, draws=1, limit=1.0
    )["draws"]
    found = {name: judged["regret"] for name, judged in draw["judged"].items()}
    assert set(found) == {searched.BEST_RUN, *registry.names("search")} - {"smallest_step"}
    assert 0 <= found["exact"] < 0.3 * found[searched.BEST_RUN]
