"""History: fingerprints tell apart what trains differently, and records come back as they went."""

import dataclasses
import json

import numpy as np
import pytest

from cuvee.mixtures.errors import ConstraintError, EvidenceError
from cuvee.mixtures.runs import run_records, run_results, run_spec
from cuvee.mixtures.runs.run_results import Failed, RunResult, Score
from cuvee.mixtures.runs.run_spec import RunSpec, Stage

SPEC = RunSpec(
    domains=("a", "b"),
    identities=("x", "y"),
    stages=(Stage((0.25, 0.75), 0.5), Stage((0.75, 0.25), 0.5)),
    size="0.6M",
    tokens=1000,
    seed=0,
)
RESULT = RunResult(
    spec=SPEC,
    scores={"t": Score(1.5, 0.1, 10), "u": Score(2.5, 0.0, 10)},
    details={"t/accuracy": Score(0.5, 0.1, 10)},
    curve=((10, 3.0), (20, 2.0)),
    trajectory=((10, (0.5, 0.5)),),
    tokens=(500, 500),
    epochs=(0.5, 2.0),
    flops=1e9,
    seconds=2.0,
)


@pytest.mark.parametrize(
    "change",
    [
        {"identities": ("x", "z")},
        {"seed": 1},
        {"tokens": 1001},
        {"scoring": "s"},
        {"rate": 2.0},
        {"precision": "bfloat16"},
        {"repetition": 0.5},
        {"version": run_spec.VERSION + 1},
        {"stages": (Stage((0.5, 0.5)),)},
        {"controller": "{}"},
        {"average": 0.1},
        {"start": "0" * 64},
    ],
)
def test_a_fingerprint_knows_every_field(change):
    """Catches a field left out of the hash: a finished run would be taken for another."""
    assert dataclasses.replace(SPEC, **change).fingerprint != SPEC.fingerprint


def test_a_fingerprint_never_changes():
    """Gold: a changed value would orphan every finished run; raise VERSION instead."""
    assert SPEC.fingerprint == dataclasses.replace(SPEC).fingerprint
    assert dataclasses.replace(SPEC, version=1).fingerprint.startswith("1a4c187da108b890")
    assert SPEC.fingerprint.startswith("04561986aaebfc3b")
    text = run_spec.canonical_json(dataclasses.asdict(SPEC))
    assert json.loads(text)["stages"][0] == {"share": 0.5, "weights": [0.25, 0.75]}
    assert " " not in text


def test_weights_are_those_of_the_whole_run():
    """0.25/2 + 0.75/2 = 0.5; catches taking the first stage for the run."""
    assert np.allclose(SPEC.weights, [0.5, 0.5])


@pytest.mark.parametrize("outcome", [RESULT, Failed(SPEC, "diverged at step 3")])
def test_records_come_back_from_json(outcome):
    back = run_records.outcome_from_json(
        json.loads(json.dumps(run_records.outcome_to_json(outcome)))
    )
    assert back == outcome and back.spec.fingerprint == SPEC.fingerprint


@pytest.mark.parametrize("broken", [{}, {"kind": "RunResult"}, {"spec": 3, "kind": "Failed"}])
def test_what_is_no_record_is_refused(broken):
    with pytest.raises(EvidenceError, match="not the record"):
        run_records.outcome_from_json(broken)


def test_the_table_has_one_row_per_finished_run_in_order():
    W, Y, E = run_results.score_table((Failed(SPEC, "x"), RESULT), ["u", "t"])
    assert W.shape == (1, 2) and Y.tolist() == [[2.5, 1.5]] and E.tolist() == [[0.0, 0.1]]
    with pytest.raises(EvidenceError, match="no score for v; it has t, u"):
        run_results.score_table((RESULT,), ["v"])
    with pytest.raises(EvidenceError, match="no run has finished"):
        run_results.score_table((Failed(SPEC, "x"),), ["t"])


@pytest.mark.parametrize(
    "change",
    [
        {"stages": (Stage((0.5, 0.5), 0.5),)},
        {"stages": ()},
        {"identities": ("x",)},
        {"tokens": 0},
        {"precision": "float16"},
        {"repetition": 0.0},
    ],
)
def test_specs_that_make_no_sense_do_not_construct(change):
    with pytest.raises(EvidenceError):
        dataclasses.replace(SPEC, **change)


def test_weights_that_do_not_sum_to_one_do_not_construct():
    with pytest.raises(ConstraintError, match=r"sum to 0.9"):
        Stage((0.4, 0.5))
    with pytest.raises(EvidenceError, match="finite"):
        Score(float("nan"), 0.0, 1)
