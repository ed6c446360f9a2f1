"""The trainer contract: what is written, what is read, and what is refused by name."""

import json
import math

import jsonschema
import pytest

from cuvee.mixtures.errors import TrainingError
from cuvee.tasks.trainer import contract
from cuvee.tasks.trainer.contract import ContractRun, RefusedResult

TARGETS = ["domain/web", "domain/code"]
GOOD = {"value": 1.25, "stderr": 0.01, "n": 100}


def described(folder, fingerprint="a" * 64) -> ContractRun:
    tokens = {"path": "/corpus/train.bin", "index": "/corpus/train.idx.npz", "tokens": 10}
    domain = {"train": tokens, "valid": tokens}
    shape = dict.fromkeys(("parameters", "width", "layers", "heads", "mlp"), 1)
    plan = dict.fromkeys(("steps", "batch", "sequence_length", "warmup", "decay"), 1)
    write = contract.places_in(folder).model_dump()
    return ContractRun.model_validate(
        {
            "fingerprint": fingerprint,
            "tokens": 100,
            "stages": [{"tokens": 100, "shares": {"web": 0.25, "code": 0.75}}],
            "seed": 1,
            "data_seed": 1,
            "model": {"name": "1M", **shape},
            "schedule": {"kind": "wsd", "rate": 1e-3, "average": 0, "precision": "float32", **plan},
            "settings": {"free": [1, {"nested": None}]},
            "domains": {"web": domain, "code": domain},
            "token_type": "uint16",
            "tokenizer": "/corpus/tokenizer.json",
            "vocabulary": 512,
            "end_of_text": 0,
            "targets": TARGETS,
            "write": write,
            "resume_from": write["state"],
        }
    )


def answer(folder, **changes):
    values = {"fingerprint": "a" * 64, "scores": dict.fromkeys(TARGETS, GOOD)} | changes
    (folder / contract.RESULT).write_text(json.dumps(values))


def test_a_run_is_read_as_it_was_written_and_as_its_schema_says(tmp_path):
    """Catches a field that is lost on the way, and a schema that its own files do not follow."""
    run = described(tmp_path)
    path = contract.write_run(tmp_path, run)
    assert contract.read_run(path) == run
    schemas = contract.contract_schema()
    jsonschema.validate(json.loads(path.read_text()), schemas["run.json"])
    made = contract.write_result(run, dict.fromkeys(TARGETS, GOOD), flops=1e12)
    written = json.loads((tmp_path / "result.json").read_text())
    jsonschema.validate(written, schemas["result.json"])
    assert contract.accept_result(tmp_path, run) == made and made.flops == 1e12
    with pytest.raises(jsonschema.ValidationError, match="'n' is a required property"):
        scores = {"web": {"value": 1.0, "stderr": 0.0}}
        jsonschema.validate({"fingerprint": "", "scores": scores}, schemas["result.json"])


REFUSED = {
    "another run's": (
        {"fingerprint": "b" * 64},
        "belongs to run 'bbbbbbbbbbbb', and not to aaaaaa",
    ),
    "lacks a target": ({"scores": {"domain/web": GOOD}}, "lacks the score of domain/code; it has"),
    "no number": ({"scores": {"domain/web": {**GOOD, "value": "1.2"}}}, "scores.domain/web.value"),
    "not finite": (
        {"scores": {**dict.fromkeys(TARGETS, GOOD), "domain/code": {**GOOD, "value": math.nan}}},
        "the score of domain/code is not finite.*diverged",
    ),
    "infinite error": (
        {"scores": {**dict.fromkeys(TARGETS, GOOD), "x": {**GOOD, "stderr": math.inf}}},
        "the score of x is not finite",
    ),
    "negative error": (
        {"scores": {**dict.fromkeys(TARGETS, GOOD), "domain/web": {**GOOD, "stderr": -1}}},
        "its standard error is below 0",
    ),
    "no stderr": ({"scores": {"domain/web": {"value": 1.0, "n": 1}}}, "stderr: field required"),
    "measured on nothing": ({"scores": {"domain/web": {**GOOD, "n": 0}}}, "n: .*greater than"),
    "a share of items": ({"scores": {"domain/web": {**GOOD, "n": 1.5}}}, "n: .*valid integer"),
    "no such domain": ({"tokens": {"wob": 5}}, "`tokens` names wob, no domain"),
    "no such domain of a checkpoint": (
        {"tokens": {"wob": 5}, "scores": None},
        "`tokens` names wob, no domain",
    ),
    "fewer tokens than none": ({"tokens": {"web": -5}}, "tokens.web: .*greater than or equal to 0"),
    "more tokens than any": ({"tokens": {"web": 10**400}}, "tokens.web: .*less than"),
    "work without end": ({"flops": math.inf}, "flops: .*finite"),
    "later version": ({"version": 99}, "version 99 of the trainer contract.*update cuvee"),
    "no mapping": ({"scores": [1]}, "scores: .*valid dictionary"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_result_that_is_none_is_refused_by_name(tmp_path, kind):
    """Catches a result that is used though it is another run's, not whole, or no number."""
    run, (changes, words) = described(tmp_path), REFUSED[kind]
    answer(tmp_path, **changes)
    with pytest.raises(RefusedResult, match=words) as told:
        contract.accept_result(tmp_path, run)
    assert str(tmp_path / "result.json") in str(told.value)
    assert not (tmp_path / contract.ACCEPTED).exists()
    assert isinstance(told.value, TrainingError)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"fingerprint": "aa', "is not JSON.*beside its place and rename"),
        ('{"fingerprint": "a", "fingerprint": "b"}', "'fingerprint' stands there twice"),
        ("[" * 100_000, "is not JSON"),
        ("\x00\xff", "is not JSON"),
        ("[]", "it: input should be"),
    ],
)
def test_a_file_that_is_no_json_object_is_refused(tmp_path, text, words):
    """Catches a half-written file that ends the study by a traceback."""
    (tmp_path / contract.RESULT).write_bytes(text.encode("latin-1"))
    with pytest.raises(RefusedResult, match=words):
        contract.accept_result(tmp_path, described(tmp_path))


def test_a_second_result_must_be_the_first(tmp_path):
    """Catches the last of two jobs of one run that wins, and a requeued one that is refused."""
    run = described(tmp_path)
    assert contract.accept_result(tmp_path, run) is None
    answer(tmp_path)
    first = contract.accept_result(tmp_path, run)
    answer(tmp_path, note="written again, by a job that was requeued")
    assert contract.accept_result(tmp_path, run) == first
    other = {**dict.fromkeys(TARGETS, GOOD), "domain/web": {**GOOD, "value": 1.26}}
    answer(tmp_path, scores=other)
    with pytest.raises(RefusedResult, match="written twice with other values"):
        contract.accept_result(tmp_path, run)
    answer(tmp_path)
    with pytest.raises(RefusedResult, match="written twice"):
        contract.write_result(run, other)
    assert contract.accept_result(tmp_path, run) == first
    (tmp_path / contract.ACCEPTED).write_text('{"fing')  # whoever wrote it was killed
    assert contract.accept_result(tmp_path, run) == first


def test_a_directory_is_of_one_run(tmp_path):
    """Catches a run that trains in the directory of another one, over its files."""
    contract.write_run(tmp_path, described(tmp_path))
    contract.write_run(tmp_path, described(tmp_path))
    with pytest.raises(RefusedResult, match="is the directory of run aaaaaaaaaaaa"):
        contract.write_run(tmp_path, described(tmp_path, "b" * 64))


def test_scores_beyond_the_targets_are_details(tmp_path):
    """Catches a score that no recipe asked for among those that are fitted."""
    run = described(tmp_path)
    answer(tmp_path, scores={**dict.fromkeys(TARGETS, GOOD), "mmlu": {**GOOD, "value": 0.3}})
    scores, details = contract.run_scores(run, contract.accept_result(tmp_path, run))
    assert set(scores) == set(TARGETS) and details["mmlu"].value == 0.3


def test_progress_is_read_as_it_grows(tmp_path):
    """Catches half a line that is taken for a whole one, a line that is told twice, and one that
    is no progress and ends the reading."""
    file = contract.ProgressFile(tmp_path / contract.PROGRESS)
    assert file.points() == []
    with (tmp_path / contract.PROGRESS).open("a") as out:
        out.write('{"tokens": 10, "loss": 5.0}\n{"tokens": 20, ')
        out.flush()
        assert file.points() == [(10, 5.0)]
        out.write('"loss": 4.0}\nepoch 3\n[1]\n{"tokens": 30, "loss": NaN}\n')
        out.write('{"tokens": 3.5, "loss": 1}\n')
        out.write('{"tokens": 35, "loss": 1%s}\n{"tokens": 40' % ("0" * 400))
        out.write(', "loss": 3, "lr": 0.1}\n')
        out.flush()
        assert file.points() == [(20, 4.0), (40, 3.0)] and file.points() == []


def test_a_curve_holds_what_was_done_last():
    """Catches the losses of a stretch that was trained again, twice in one curve."""
    seen = [(10, 5.0), (20, 4.0), (30, 3.5), (20, 4.1), (30, 3.6), (40, 3.0)]
    assert contract.training_curve(seen) == ((10, 5.0), (20, 4.1), (30, 3.6), (40, 3.0))
