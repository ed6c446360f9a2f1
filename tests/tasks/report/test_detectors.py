"""What a study says of detectors of membership: the report's table, and the plan's cost."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
from synthetic_study import synthetic_study

from cuvee.evaluation.suites import Limits, Suite
from cuvee.flows.plan import detector_sentences
from cuvee.mixtures.runs.run_results import Score
from cuvee.proxies import ladder
from cuvee.tasks.report.sections import detectors, runs


def audited(means: dict[str, float]):
    """A study whose runs prefer the published order by so many standard errors."""
    study, rng = synthetic_study(), np.random.default_rng(1)
    every = []
    for run in study.runs:
        told = {n: Score(0.01 * (m + 0.1 * rng.normal()), 0.01, 80) for n, m in means.items()}
        every.append(replace(run, details={**run.details, **told}))
    return replace(study, history=tuple(every), untrained={"task/a/leak_loss": 0.002})


def test_a_leaked_task_is_named_and_a_clean_one_is_not() -> None:
    """Catches an error divided by the number of runs, which share their items: 1.5 standard errors
    in each of many runs would then be sure; tests that are not corrected for their number; and a
    detector that prefers published orders unseen, whose excess is taken for evidence."""
    study = audited(
        {"task/a/leak_loss": 5.0, "task/b/leak_loss": 1.5, "task/b/leak_zlib": -6.0}
        | {"task/c/leak_option_order": 9.0}
    )
    found = detectors.order_excesses(study)
    assert found["task/a/leak_loss"][3] < 1e-4 and found["task/a/leak_loss"][2] == 80
    assert 0.1 < found["task/b/leak_loss"][3] < 0.2 and found["task/b/leak_zlib"][3] > 0.9
    _, table, said = detectors.detector_blocks(study)
    assert table.rows[0][:4] == ("task/a", "loss", "80", "+0.002")
    assert "beyond chance, of task/a by loss: either" in said.text and "task/c" not in said.text
    assert found["task/c/leak_option_order"][3] is None and table.rows[3][5] == "-"
    only = list(detectors.detector_blocks(audited({"task/c/leak_option_order": 9.0})))
    assert len(only) == 2 and only[1].rows[0][5] == "-"
    clean = list(detectors.detector_blocks(audited({"task/b/leak_loss": 1.0})))[-1].text
    assert clean.startswith("The published order is not told") and "(least p 0.1" in clean
    assert not list(detectors.detector_blocks(synthetic_study()))


def test_detectors_do_not_stand_among_accuracies() -> None:
    """Catches dozens of rows that are no score in the table of accuracies."""
    shown = list(runs.task_blocks(audited({"task/a/leak_loss": 5.0})))
    assert not any("leak" in row[0] for block in shown for row in getattr(block, "rows", ()))


def test_the_plan_says_what_detectors_read(tmp_path) -> None:
    """Catches one order for all, the limit forgotten, and items without choices counted."""
    rows = [{"query": "q" * 88, "choices": ["a", "b", "c"], "gold": 0}] * 40  # 103 bytes an order
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "texts.jsonl").write_text('{"text": "long"}\n' * 9)
    own = (("own", tmp_path / "own.jsonl"), ("texts", tmp_path / "texts.jsonl"))
    domain = SimpleNamespace(tokens=100, bytes=300)
    prepared = SimpleNamespace(
        limits=Limits(detectors=("loss",)),
        suite=Suite(("own", "texts"), 10, tmp_path, own),
        corpus=SimpleNamespace(domains=[domain]),
    )
    (said,) = detector_sentences(prepared, ladder.training_plan("0.3M", 60_000, 4096))
    assert "(loss)" in said and f"choices: {10 * 3 * 103 // 3 / 1000:.3g}k tokens" in said
    assert not detector_sentences(SimpleNamespace(**{**vars(prepared), "limits": Limits()}), None)
