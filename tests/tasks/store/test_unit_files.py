"""Scores by document and item beside a result: found by content, never in the way of a result."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cuvee.mixtures.runs.run_results import Failed, RunResult, Score
from cuvee.mixtures.runs.unit_scores import UnitScores, unit_keys
from cuvee.tasks.store.doctor import examine_stores
from cuvee.tasks.store.results import Store
from tests.tasks.store.test_store import renamed, result, spec

HELD = replace(spec(), heldout=("ha", "hb"))


def drawn(seed: int, count: int = 40) -> UnitScores:
    rng = np.random.default_rng(seed)
    keys = unit_keys(f"{seed}/{i}".encode() for i in range(count))
    return UnitScores(keys, rng.gamma(2.0, 500.0, count), rng.integers(1, 2000, count) * 1.0)


UNITS = {"domain/a": drawn(1), "domain/b": drawn(2, 3), "task/piqa": drawn(3)}


def scored(units: dict[str, UnitScores], run=HELD) -> RunResult:
    scores = {name: Score(part.value, 0.01, len(part)) for name, part in units.items()}
    return replace(result(), spec=run, scores=scores, units=units)


def file(store: Store) -> Path:
    return Path(store.objects.path(f"runs/{HELD.fingerprint}/units.npz"))


def same(found: UnitScores, units: UnitScores) -> bool:
    close = pytest.approx(units.value, rel=1e-6)
    return found.keys.tolist() == units.keys.tolist() and found.value == close


def test_units_come_back_under_the_names_of_whoever_asks(tmp_path):
    """Catches units in the result, under an old name or of an absent text, and keys cut to 53
    bits on the way."""
    Store(str(tmp_path)).put(scored(UNITS))
    store = Store(str(tmp_path))
    assert not store.outcome_of(HELD).units
    assert all(same(part, UNITS[name]) for name, part in store.units_of(HELD).items())
    found = store.units_of(renamed(("a", "z"), ("hb", "new")))
    assert sorted(found) == ["domain/a", "task/piqa"]
    assert same(found["domain/a"], UNITS["domain/b"])
    (run, other) = store.with_units([store.outcome_of(HELD), Failed(HELD, "?")], [HELD.fingerprint])
    assert run.units.keys() == UNITS.keys() and other == Failed(HELD, "?")


@pytest.mark.parametrize("harm", ["absent", "empty", "half", "flip", "pickle"])
def test_a_lost_file_costs_no_training(tmp_path, harm):
    """Catches a run that is trained again for want of its units, and units of a damaged file."""
    store = Store(str(tmp_path))
    store.put(scored(UNITS))
    raw = bytearray(file(store).read_bytes())
    if harm == "absent":
        file(store).unlink()
    elif harm == "pickle":
        with file(store).open("wb") as out:
            np.savez(out, names=np.array(UNITS, object), allow_pickle=True)
    else:
        raw[raw.index(b"totals.npy") + 200] ^= 1
        cut = {"empty": 0, "half": len(raw) // 2, "flip": len(raw)}[harm]
        file(store).write_bytes(raw[:cut])
    assert store.units_of(HELD) == {} and store.missing((HELD,)) == () and not store.damaged
    said = [line for line in examine_stores([store], {})[0] if "units.npz" in line]
    assert len(said) == (harm != "absent")


def test_a_second_scoring_adds_and_replaces_units(tmp_path):
    """Catches units of one scoring beside scores of another, and units that are lost with it."""
    store = Store(str(tmp_path))
    store.put(scored(UNITS))
    now = renamed(("b", "c"), ("hb", "hc"))
    other = {"domain/b": drawn(5, 3), "domain/c": drawn(6)}
    store.put(scored(other, now))
    found = Store(str(tmp_path)).units_of(HELD)
    assert same(found["domain/a"], UNITS["domain/a"]) and same(found["domain/b"], drawn(5, 3))
    assert same(store.units_of(now)["domain/c"], other["domain/c"])
    store.put(replace(scored(UNITS), units={}))  # scores from elsewhere
    assert sorted(Store(str(tmp_path)).units_of(now)) == ["domain/c"]
    store.put(Failed(HELD, "the disk was full"))
    assert sorted(store.units_of(now)) == ["domain/c"]


def test_units_that_are_not_of_the_score_are_named(tmp_path):
    """Catches a doctor that opens the file and does not compare."""
    store = Store(str(tmp_path))
    store.put(scored(UNITS))
    whole = file(store).read_bytes()
    assert not [line for line in examine_stores([store], {})[0] if "units.npz" in line]
    store.put(scored(UNITS | {"task/piqa": drawn(9)}))
    file(store).write_bytes(whole)
    (said,) = [line for line in examine_stores([store], {})[0] if "units.npz" in line]
    assert "task/piqa" in said
