"""Readers of trainers' logs, on files that the real library wrote where it is installed, and else
by its grammar, whose source each reader's module names."""

import csv
import json
import math
import os
import struct
import zlib
from pathlib import Path

import pytest

from cuvee.mixtures.errors import DataError
from cuvee.tasks.run_logs import LATEST, RunLog, log_readers, read_log
from cuvee.tasks.run_logs.evidence import Evidence, Reading, owner_of
from cuvee.tasks.run_logs.final_scores import final_scores
from cuvee.tasks.run_logs.json_logs import OLMO_TOKENS

BLEND = (
    "elapsed time per iteration (ms): 12.3 | learning rate: 1.000000E-04 | lm loss: 2.500000E+00 |"
)


def test_event_files_of_the_real_writer(tmp_path):
    """Catches an image or text read as a number, the first of two values that one process wrote at
    a step, NaN that is left out, and a file cut off in a record that gives more than is whole."""
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(tmp_path)) as writer:
        for step, value in ((10, 3.0), (20, 2.5), (20, 2.25), (30, float("nan"))):
            writer.add_scalar("eval/web", value, step)
        writer.add_text("note", "words", 40)
    (path,) = tmp_path.iterdir()
    form, (log,) = read_log(path)
    values = {step: metrics["eval/web"][0] for step, metrics in log.points}
    assert form == "TensorBoard" and log.last == 30 and math.isnan(values.pop(30))
    assert values == {10: 3.0, 20: 2.25}
    os.truncate(path, path.stat().st_size // 2)
    assert [len(log.points) < 3 for log in read_log(path)[1]] in ([True], [])
    path.write_bytes(b"\xff" * 500)
    with pytest.raises(DataError, match="events.out"):
        read_log(path)


def test_what_megatron_prints(tmp_path):
    """Catches the training loss read as an evaluation, a set's number that is lost, an evaluation
    during the training that stands beside the last one, and a line that was cut off."""
    path = tmp_path / "slurm-17.out"
    path.write_text(
        f"noise\n [2026-11-27 14:00:00] iteration       90/     100 | {BLEND}\n"
        "  validation-0 loss at iteration 90 | lm loss value: 2.6E+00 | lm loss PPL: 1.3E+01 | \n"
        f"[default7]: [2026-11-27 14:00:01] iteration      100/     100 | {BLEND}\n"
        " validation-0 loss at iteration 100 | lm loss value: 2.5E+00 | lm loss PPL: 1.2E+01 | \n"
        "(min, max) time across ranks (ms):\n"
        " validation-0 loss at iteration 100 on validation set | lm loss value: 2.400000E+00 | "
        "lm loss PPL: 1.1E+01 | mtp_1 loss value: 2.9E+00 | mtp_1 loss PPL: 1.8E+01 | \n"
        " validation-1 loss at iteration 100 on validation set | lm loss value: nan | "
        "lm loss PPL: 1.1E+01 | \n"
        " validation-0 loss at iteration 100 on test set | lm loss value: 2.300000E+00 | \n"
        " validation-0 loss at iteration 100 on validation set | lm loss value: 9.0"
    )
    form, (log,) = read_log(path)
    last = [metrics for step, metrics in log.points if step == 100]
    assert (form, log.last, log.length, log.ended) == ("Megatron", 100, 100, None)
    known = {name: value for metrics in last for name, (value, _, _) in metrics.items()}
    assert math.isnan(known.pop("lm loss validation-1"))
    assert known == {
        "lm loss validation-0": 2.4,
        "mtp_1 loss validation-0": 2.9,
        "lm loss test-0": 2.3,
    }
    assert log.points[0] == (90, {"lm loss validation-0": (2.6, 0.0, 1)})
    (tmp_path / "other.log").write_text("iteration 3 of 5: lm loss value: 3\n" * 9)
    assert read_log(tmp_path / "other.log")[1] == []


def test_tables_as_wandb_exports_them(tmp_path):
    """Catches a run that failed read as one that ended, a chart's least values, and steps that
    count as runs."""
    with (tmp_path / "runs.csv").open("w", newline="") as file:
        csv.writer(file).writerows([
            ["Name", "State", "Runtime", "ID", "eval/web"],
            ["lively-sun-1", "finished", "12", "a1b2c3d4", "2.5"],
            ["lively-sun-2", "crashed", "3", "a1b2c3d5", "2.7"],
            ["lively-sun-3", "finished", "3", "a1b2c3d6", ""],
        ])  # fmt: skip
    first, second, third = read_log(tmp_path / "runs.csv")[1]
    assert (first.names, first.ended, second.ended) == (("a1b2c3d4", "lively-sun-1"), True, False)
    assert first.points[0][1]["eval/web"] == (2.5, 0, 1) and "eval/web" not in third.points[0][1]
    with (tmp_path / "chart.csv").open("w", newline="") as file:
        csv.writer(file).writerows([
            ["Step", *(f"sun - 1 - eval/web{end}" for end in ("", "__MIN", "__MAX"))],
            ["10", "3", "1", "4"], ["20", "2.5", "1", "4"],
        ])  # fmt: skip
    (chart,) = read_log(tmp_path / "chart.csv")[1]
    assert (chart.names, chart.last, chart.ended) == (("sun - 1",), 20, None)
    assert chart.points[-1] == (20, {"eval/web": (2.5, 0.0, 1)})


def message(*fields: tuple[int, object]) -> bytes:
    """A protobuf message: numbers of fields, and texts, messages or whole numbers."""

    def varint(number: int) -> bytes:
        more = number >> 7
        return bytes([number & 127 | (128 if more else 0)]) + (varint(more) if more else b"")

    made = b""
    for number, value in fields:
        raw = value.encode() if isinstance(value, str) else value
        kind = 0 if isinstance(raw, int) else 2
        made += varint(number << 3 | kind) + (varint(raw) if kind == 0 else varint(len(raw)) + raw)
    return made


def write_wandb(path, *records: bytes) -> None:
    """Records as W&B's writer cuts them: none across a block of 32 KiB without a new head."""
    made = bytearray(b":W&B\xe1\xbe\x00")
    for record in records:
        pieces = []
        while record or not pieces:
            left = 32768 - len(made) % 32768
            if left < 7:
                made += b"\0" * left
                left = 32768
            piece, record = record[: left - 7], record[left - 7 :]
            kind = (1 if not record else 2) if not pieces else (4 if not record else 3)
            check = zlib.crc32(bytes([kind]) + piece)
            made += struct.pack("<IHB", check, len(piece), kind) + piece
            pieces.append(piece)
    path.write_bytes(made)


def test_offline_logs_of_wandb(tmp_path):
    """Catches records of several blocks that are lost, a run that failed or was killed read as one
    that ended, a name that is lost, and a damaged record that is read."""
    run = message((1, 1), (17, message((1, "a1b2c3d4"), (8, "design 1"), (13, "host"))))
    rows = [
        {"_step": at, "eval/web": value, "note": "x" * 40_000, "trainer/global_step": 10 * at}
        for at, value in ((1, 3.0), (2, math.nan))
    ]
    history = [
        message((2, message(*(
            (1, message((2, key), (16, json.dumps(value)))) for key, value in row.items()
        )))) for row in rows
    ]  # fmt: skip
    nested = message((2, message((1, message((2, "train"), (2, "loss"), (16, "2.5"))))))
    path = tmp_path / "run-a1b2c3d4.wandb"
    for end, ended in ((message((18, b"")), True), (message((18, message((1, 1)))), False)):
        write_wandb(path, run, *history, nested, end)
        form, (log,) = read_log(path)
        assert (form, log.names, log.ended) == ("W&B offline", ("a1b2c3d4", "design 1"), ended)
        assert log.points[0][0] == 10 and log.points[0][1]["eval/web"] == (3.0, 0.0, 1)
        assert log.last == 20 and math.isnan(log.points[1][1]["eval/web"][0])
        assert log.points[2][1]["train.loss"] == (2.5, 0.0, 1)
    whole = path.read_bytes()
    path.write_bytes(whole[:-3])
    assert read_log(path)[1][0].ended is None and len(read_log(path)[1][0].points) == 3
    write_wandb(path, b"\xff" * 9)
    with pytest.raises(DataError, match="no whole W&B offline log"):
        read_log(path)
    path.write_bytes(whole[:60_000] + b"?" + whole[60_001:])
    assert len(read_log(path)[1][0].points) == 1 and read_log(path)[1][0].last == 10


def test_metrics_of_olmo_core(tmp_path):
    """Catches the step of a name that is lost, a last file that passes for a whole run, and one
    that loses to a file of a step because its name has none."""
    body = {"eval/lm/web/CE loss": 2.5, "throughput/total tokens": 41_000}
    (tmp_path / "metrics_step40.json").write_text(json.dumps(body | {OLMO_TOKENS: 16_000}))
    (tmp_path / "metrics_step50.json").write_text('{"x": 1}')
    (tmp_path / "metrics.json").write_text(json.dumps(body))
    form, (step,) = read_log(tmp_path / "metrics_step40.json")
    (bare,) = read_log(tmp_path / "metrics_step50.json")[1]
    (last,) = read_log(tmp_path / "metrics.json")[1]
    assert (form, bare.last, bare.tokens, last.ended) == ("OLMo-core", 50, 0, None)
    assert (step.last, step.tokens, last.last, last.tokens) == (16_000, 16_000, 41_000, 41_000)
    assert last.points == [(41_000, {n: (float(v), 0.0, 1) for n, v in body.items()})]


ALL, PART = ({"effective": n, "original": 100} for n in (100, 10))
MORE = {"piqa": {"acc": True}, "wiki": {"ppl": False}, "group": {"acc": None}}


@pytest.mark.parametrize(
    ("changes", "metrics", "names", "last"),
    [
        ({}, {"piqa/acc": -0.7, "wiki/ppl": 9.0}, ["x"], LATEST),
        ({"n-samples": {"piqa": PART, "wiki": ALL}}, {"wiki/ppl": 9.0}, ["x"], LATEST),
        ({"higher_is_better": {}}, {}, ["x"], LATEST),
        ({"model_name": "runs/a/checkpoint-10"}, None, ["runs/a/checkpoint-10"], 10),
        ({"model_name": "step7/global_step20/hf"}, None, ["step7/global_step20/hf"], 20),
        ({"config": {"model_args": "pretrained=iter_0000030,token=hf_secret"}}, None,
         ["x", "iter_0000030"], 30),
        ({"config": {"model_args": {"token": "hf_secret", "path": "y", "revision": "step40"}}},
         None, ["x", "y"], 40),
    ],
)  # fmt: skip
def test_results_of_lm_eval(tmp_path, changes, metrics, names, last):
    """Catches a model on the way that passes for the last, a part of the items for all, an accuracy
    whose sign nobody knows, and a secret of the model's arguments that is kept."""
    values = {"piqa": {"acc,none": 0.7}, "wiki": {"ppl,none": 9}, "group": {"acc,none": 0.6}}
    body = {"results": values, "higher_is_better": MORE, "n-samples": {"piqa": ALL, "wiki": ALL}}
    (tmp_path / "results_1.json").write_text(json.dumps(body | {"model_name": "x"} | changes))
    (log,) = read_log(tmp_path / "results_1.json")[1]
    ((step, found),) = log.points
    plain = {name: value for name, (value, _, _) in found.items() if " " not in name}
    assert plain == ({"piqa/acc": -0.7, "wiki/ppl": 9.0} if metrics is None else metrics)
    assert any(name.startswith("group/acc without") for name in found) and len(found) == 3
    assert (step, log.last, log.ended) == (last, last, True if last == LATEST else None)
    assert list(log.names) == names


@pytest.mark.parametrize(
    ("lines", "count"),
    [("\n{}\n\n", 1), ('{"_step": 1', 0), ("{}\n{}\n" + '{"_st', 2), ("{}\n{\n{}\n", None)],
)
def test_lines_that_are_blank_or_cut_off(tmp_path, lines, count):
    """Catches a log that a blank line, or the first line of a job that was killed, makes
    unreadable, and a damaged line within that is passed over."""
    (tmp_path / "history.jsonl").write_text(lines.replace("{}", '{"_step": 1, "x": 2}'))
    if count is None:
        with pytest.raises(DataError, match="no whole JSON"):
            read_log(tmp_path / "history.jsonl")
    else:
        assert sum(len(log.points) for log in read_log(tmp_path / "history.jsonl")[1]) == count
    (tmp_path / "wandb-summary.json").write_text('{"_step": 100, "x": 2}')
    assert read_log(tmp_path / "wandb-summary.json") == ("", [])


def said(form: str, step: int, value: float = 2.5, **more: object) -> tuple[str, RunLog]:
    log = RunLog(Path(f"{form}-{step}"), [(step, {"m": (value, 0.0, 1)})], last=step, **more)
    return form, log


@pytest.mark.parametrize(
    ("logs", "value", "words"),
    [
        ([said("TB", 100)], 2.5, ""),
        ([said("TB", 101)], 2.5, ""),
        ([said("TB", 150)], None, "TB-150 ends at step 150, and the run has 100"),
        ([said("TB", 150, length=300)], None, "ends at step 150 of 300"),
        ([said("TB", 300), said("state", 300, length=300)], 2.5, ""),
        ([said("W&B", 30, 2.9, ended=True), said("W&B", 40, 2.8)], None, "ends at step 40 of 100"),
        ([said("W&B", 30, 2.9, ended=False), said("W&B", 60, ended=True)], 2.5, ""),
        (
            [said("W&B", 30, ended=True), said("state", 30, length=100)],
            None,
            "W&B-30 does not reach",
        ),
        ([said("lm", 10, 3.0), said("lm", LATEST, ended=True)], 2.5, ""),
        ([said("lm", 10)], None, "ends at step 10 of 100"),
        ([said("lm", LATEST, ended=True), said("state", 10, length=100)], None, "step 100"),
        ([said("OLMo", 16_000, 9.0, tokens=16_000), said("OLMo", 42_000, tokens=42_000)], 2.5, ""),
        ([said("CSV", 1000, tokens=1000, ended=True)], None, "1,000 of 42,000 tokens"),
    ],
)
def test_the_end_of_a_run_by_all_of_its_logs(logs, value, words):
    """Catches one segment's end, or a model on the way, that passes for the run's; a claim that
    stands over steps and tokens that were counted; and steps that are not the run's."""
    found = final_scores(logs, {"t": "m"}, tokens=42_000, steps=100)
    assert {name: score.value for name, score in found.scores.items()} == (
        {} if value is None else {"t": value}
    )
    assert words in "; ".join(found.unfinished) and bool(words) == (value is None)


@pytest.mark.parametrize(
    ("rows", "value"),
    [
        (["run,tokens,m", "a,1000,3.0"], None),
        (["run,tokens,m", "a,1000,3.0", "a,42000,2.5"], 2.5),
        (["run,tokens,state,m", "a,1000,finished,3.0"], None),
        (["run,m", "a,2.5"], 2.5),
        (["run,state,m", "a,running,2.5"], None),
        (["run,step,m", "a,50,3.0", "a,100,2.5"], 2.5),
    ],
)
def test_the_end_of_a_run_by_a_table(tmp_path, rows, value):
    """Catches a table without steps whose tokens are passed over, or rows of one run that are
    taken for results of two."""
    (tmp_path / "a.csv").write_text("\n".join(rows) + "\n")
    logs = [("CSV", log) for log in read_log(tmp_path / "a.csv")[1]]
    found = final_scores(logs, {"t": "m"}, tokens=42_000, steps=100)
    assert [score.value for score in found.scores.values()] == ([value] if value else [])


@pytest.mark.parametrize(
    "name",
    ["trainer_state.json", "results_2026-11-27T10-00-00.json", "metrics.json", "wandb-rows.json",
     "history.jsonl", "run-1.wandb", "a.csv", "a.csv.gz", "events.out.tfevents.1.host.1.0"],
)  # fmt: skip
@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\x80\x04\x95.", b'{"log_history": [1], "_step": {}, "results": {"a": 1}}',
     b"[" * 100_000, b'{"log_history": 1e999, "results": [], "a": 1' + b"0" * 400 + b"}",
     b'[{"_step": "x"}]', b"\x00" * 999, b":W&B" + b"\x01" * 99,
     b'{"results": {"a": {"acc,none": 1}}, "n-samples": [1]}'],
)  # fmt: skip
def test_whatever_a_file_holds_is_read_or_refused_in_a_sentence(tmp_path, name, content):
    """Catches a traceback for a file of others, and anything that is unpickled."""
    (tmp_path / name).write_bytes(content)
    try:
        read_log(tmp_path / name)
    except DataError as error:
        assert name in str(error) and len(str(error)) < 5000


def test_whose_a_log_is(tmp_path):
    """Catches a prefix of two runs taken for the first, a folder's run that stands over the log's,
    digits within longer ones, and the folder of a run that lends its id to another's row."""
    first, second, third = "ab" * 8 + "0" * 48, "ab" * 8 + "1" * 48, "c" * 64
    names = {
        first: "design 1 seed 0 (ababab)",
        second: "design 2",
        third: "natural seed 0 (cccccc)",
    }

    def owner(place: str, *said: str, form: str = "W&B", given: tuple[str, ...] = ()) -> str:
        return owner_of(Evidence(tmp_path / place, form, said, given=given), names)[0]

    assert owner("ab" * 8 + "0/x.log") == first and owner("ab" * 8 + "/x.log") == ""
    assert owner("ab" * 5 + "/x.log") == "" and owner(f"z{first}/x") == ""
    assert owner("x", "design 2") == second and owner("x", "design 22") == ""
    assert owner(f"{third}/x.log", first) == "" and owner(f"{third}/a", "lively-sun-1") == third
    assert owner(f"{third}/a.csv", "lively-sun-1", form="CSV") == ""
    assert owner(f"{third}/a", f"pretrained=/runs/{'d' * 32}/checkpoint") == ""
    assert owner(f"run_{third[:12]}/{third[:32]}.log", "") == third
    in_run = {"given": (third,)}
    assert owner("x/a.log", **in_run) == owner("a", "lively-sun-1", **in_run) == third
    assert owner("x/a.csv", "f" * 16, form="CSV", **in_run) == ""
    assert owner("x/a.json", f"/runs/{'d' * 32}/checkpoint", **in_run) == ""
    assert owner("x/a.log", first, **in_run) == "" and owner("a.csv", form="CSV", **in_run) == third
    assert owner(f"{third}/x/a.log", given=("f" * 64,)) == ""


def test_folders_are_read_without_following_what_leads_out(tmp_path):
    """Catches links out of a folder or of a run's parts, and loops of them, a pipe that is waited
    for, states of a trainer read as its logs, and a file that is given twice."""
    inside, outside = tmp_path / "in", tmp_path / "out"
    for folder in (inside / "state", outside):
        folder.mkdir(parents=True)
        (folder / "a.csv").write_text("run,x\na,1\n")
    (inside / "loop").symlink_to(inside)
    (inside / "away").symlink_to(outside)
    (inside / "itself.csv").symlink_to(inside / "itself.csv")
    (inside / "b.csv").symlink_to(outside / "a.csv")
    os.mkfifo(inside / "results.json")
    (inside / "run").mkdir()
    (inside / "run" / "run.json").write_text("{}")
    (inside / "run" / "checkpoint").symlink_to(outside)
    (inside / "pipe").mkdir()
    os.mkfifo(inside / "pipe" / "run.json")
    (inside / "c.csv").write_text("run,x\n\x1b[31mred,2\n")
    reading = Reading(["x"])
    for path in (inside, inside / "c.csv", inside):
        reading.read(path)
    assert [one.path.name for one in reading.evidence] == ["c.csv"]
    assert sorted(p.name for p, _ in reading.unreadable) == ["away", "b.csv", "checkpoint", "pipe"]
    assert any("is no file" in said for _, said in reading.unreadable)
    for name in ("progress.jsonl", "spent.json"):
        (inside / "run" / "checkpoint").rename(inside / "run" / name)
        (again := Reading(["x"])).read(inside / "run")
        assert [path.name for path, _ in again.unreadable] == [name] and not again.evidence
        (inside / "run" / name).rename(inside / "run" / "checkpoint")
    assert set(log_readers()) >= {one.form for one in reading.evidence}


@pytest.mark.slow
def test_what_transformers_and_lm_eval_write(tmp_path):
    """Catches names that the real programs do not write, losses that are not theirs, an end that is
    not the run's, errors and counts that are lost, and a model's path that names no run."""
    import lm_eval
    from checkpoints import write_checkpoint, write_tokenizer
    from lm_eval.loggers import EvaluationTracker
    from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

    folder = write_checkpoint(tmp_path / ("a" * 32), "llama")
    write_tokenizer(folder, ["some text of a sort"] * 99)
    texts = [{"input_ids": [i, 2, 3, 4], "labels": [i, 2, 3, 4]} for i in range(8)]
    trainer = Trainer(
        AutoModelForCausalLM.from_pretrained(folder),
        TrainingArguments(
            str(tmp_path / "out"), max_steps=4, logging_steps=1, use_cpu=True, report_to=[],
            eval_strategy="steps", eval_steps=2, save_strategy="no",
        ),
        train_dataset=texts, eval_dataset={"web": texts[:4], "code": texts[4:]},
    )  # fmt: skip
    trainer.train()
    told = trainer.evaluate()
    trainer.save_state()
    form, (log,) = read_log(tmp_path / "out" / "trainer_state.json")
    assert (form, log.last, log.length, log.ended) == ("trainer_state", 4, 4, None)
    values = {(step, name): m[name][0] for step, m in log.points for name in m if "_loss" in name}
    assert set(values) >= {(s, f"eval_{n}_loss") for s in (2, 4) for n in ("web", "code")}
    assert values[4, "eval_web_loss"] == told["eval_web_loss"]

    rows = [{"q": f"text {i}", "a": ["some", "sort"], "gold": i % 2} for i in range(6)]
    (tmp_path / "tiny.json").write_text("\n".join(map(json.dumps, rows)))
    task = {
        "task": "tiny", "dataset_path": "json", "test_split": "train", "doc_to_text": "{{q}}",
        "dataset_kwargs": {"data_files": str(tmp_path / "tiny.json")}, "doc_to_choice": "{{a}}",
        "output_type": "multiple_choice", "doc_to_target": "gold",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    }  # fmt: skip
    tracker = EvaluationTracker(output_path=str(tmp_path / "scores"))
    model = f"pretrained={folder},dtype=float32"
    found = lm_eval.simple_evaluate(
        "hf", model_args=model, tasks=[task], device="cpu", evaluation_tracker=tracker
    )
    found.pop("samples")
    tracker.save_results_aggregated(found)
    (path,) = tmp_path.glob("scores/**/*.json")
    form, (log,) = read_log(path)
    acc = found["results"]["tiny"]
    assert form == "lm-eval" and set(log.points[0][1]) == {"tiny/acc", "tiny/acc_norm"}
    assert log.points[0][1]["tiny/acc"] == (-acc["acc,none"], acc["acc_stderr,none"], 6)
    assert owner_of(Evidence(path, form, log.names), {"a" * 64: "x", "b" * 64: "y"})[0] == "a" * 64
