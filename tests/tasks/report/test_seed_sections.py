"""The report's noise section says whose part of the noise is whose."""

import dataclasses
import itertools

from synthetic_study import World, synthetic_study

from cuvee.mixtures.runs.run_results import Score
from cuvee.tasks.report.blocks import Paragraph, ReportTable
from cuvee.tasks.report.sections.runs import noise_blocks


def with_runs(more):
    """A study, and its noise section once it has more runs."""
    study = synthetic_study(confirmed=False)
    world = World(study.problem)
    found = dataclasses.replace(study, history=study.history + tuple(more(world)))
    return noise_blocks(study), list(noise_blocks(found))


def test_crossed_seeds_are_told_apart():
    """Initialization moves every score by 0.5 a seed, order by nothing: catches parts that are
    exchanged, a table in another order than its targets, and parts without a crossed seed."""

    def crossed(world):
        for weights in (world.problem.domains.natural, world.problem.domains.uniform):
            for init, order in itertools.product((11, 12, 13), repeat=2):
                run = world.run(weights, 100 * init + order)
                spec = dataclasses.replace(run.spec, seed=init, data_seed=order)
                scores = {
                    n: Score(s.value + 0.5 * init, s.stderr, s.n) for n, s in run.scores.items()
                }
                yield dataclasses.replace(run, spec=spec, scores=scores)

    before, after = with_runs(crossed)
    assert not any(
        block.columns[1] == "initialization" for block in before if isinstance(block, ReportTable)
    )
    said = " ".join(block.text for block in after if isinstance(block, Paragraph))
    assert "In the objective the noise is that of initialization in the main" in said
    table = next(
        b for b in after if isinstance(b, ReportTable) and b.columns[1] == "initialization"
    )
    assert [row[0] for row in table.rows] == [
        *World(synthetic_study().problem).problem.targets,
        "objective",
    ]
    assert all(
        0.4 < float(row[1].split()[0]) < 0.6 > 10 * float(row[2].split()[0]) for row in table.rows
    )
