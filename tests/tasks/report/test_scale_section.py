"""The report's section on sizes: what it says, what it leaves out, and where it is silent."""

from dataclasses import replace

import numpy as np
from synthetic_study import synthetic_study

from cuvee.mixtures.runs.run_results import RunResult, Score
from cuvee.mixtures.scale_evidence import (
    Forecast,
    LawTrial,
    ScaleCurve,
    ScaleEvidence,
    ScalePoint,
)
from cuvee.tasks.report.blocks import Paragraph, Picture, ReportTable
from cuvee.tasks.report.plots.runs import scales_figure
from cuvee.tasks.report.sections.scale import scale_blocks

SMALL = ScalePoint(300_000, 400_000, 2.5, 3)
EVIDENCE = ScaleEvidence(
    parameters=7_000_000_000,
    tokens=300_000_000_000,
    largest_parameters=4_000_000,
    largest_tokens=1_000_000,
    predicted_parameters=300_000,
    predicted_tokens=400_000,
    chosen="single_scale",
    beats=False,
    verdict="no scaling law beat single-scale ranking",
    trials=(
        LawTrial("joint", 0.02, 0.8, 0.85, -0.01, -0.1, 0.05),
        LawTrial("single_scale", 0.6, 0.82, 0.86),
        LawTrial("nested", refused="needs at least 3 sizes; got 2"),
    ),
    curves=(
        ScaleCurve("natural", (0.5, 0.5), (SMALL, ScalePoint(4_000_000, 10**6, 2.0, 1))),
        ScaleCurve("mixture 4", (0.2, 0.8), (ScalePoint(300_000, 400_000, 2.4, 1),)),
    ),
    forecasts=(Forecast("joint", "recommended", 1.21, 1.1, 1.32),),
)  # fmt: skip


def study(evidence=EVIDENCE):
    plain = synthetic_study()
    return replace(plain, recommendation=replace(plain.recommendation, scale=evidence))


def told(given):
    blocks = tuple(scale_blocks(given))
    words = " ".join(b.text for b in blocks if isinstance(b, Paragraph))
    cells = [c for b in blocks if isinstance(b, ReportTable) for row in b.rows for c in row]
    return blocks, words, cells


def test_the_section_states_the_scale_the_extrapolation_and_the_test():
    """Catches a section that shows forecasts without saying how far they reach."""
    blocks, words, cells = told(study())
    assert "7,000,000,000 parameters" in words and "1.75e+03 times the parameters" in words
    assert "no scaling law beat" in words and "300,000 parameters at 400,000 tokens" in words
    assert "single_scale (used)" in cells and "-1.0% (-10.0% to +5.0%)" in cells
    assert "needs at least 3 sizes; got 2" in cells and "1.210 (1.100 to 1.320)" in cells
    assert "2.5000" in cells and any(isinstance(b, Picture) for b in blocks)


def test_a_law_that_won_changes_what_is_said():
    _, words, cells = told(
        study(replace(EVIDENCE, chosen="joint", beats=True, verdict="joint won"))
    )
    assert "joint (used)" in cells and "assumed to be that of models" not in words


def test_a_study_of_one_size_has_no_section():
    assert not tuple(scale_blocks(study(None)))


def test_every_mixture_of_the_curves_is_drawn():
    """Catches a picture of the named mixtures alone."""
    axes = scales_figure(EVIDENCE).axes[0]
    assert len(axes.lines) == 2 and axes.get_xscale() == "log"


def test_accuracy_is_forecast_only_where_runs_are_above_chance():
    """Catches a sigmoid through guesses: the proxies of this study guess in every task but one."""
    given = study()
    rng = np.random.default_rng(0)
    target, detail = "task/reading", "task/reading/accuracy"

    def able(run):
        if not isinstance(run, RunResult):
            return run
        bits = run.scores[target].value
        value = 0.25 + 0.6 / (1 + np.exp(4 * (bits - 2))) + 0.005 * rng.standard_normal()
        return replace(run, details={**run.details, detail: Score(float(value), 0.01, 1000)})

    moved = replace(given, history=tuple(able(run) for run in given.history))
    tables = [b for b in scale_blocks(moved) if isinstance(b, ReportTable)]
    known = next(t for t in tables if t.columns[0] == "task" and "accuracy" in t.columns[2])
    refused = next(t for t in tables if t.columns[-1] == "why accuracy is not forecast")
    assert [row[0] for row in known.rows] == [target]
    assert target not in [row[0] for row in refused.rows] and refused.rows
    assert all("chance" in row[1] or "fall" in row[1] for row in refused.rows)
