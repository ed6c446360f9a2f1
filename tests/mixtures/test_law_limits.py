"""Laws that are cubic in their runs: too many are refused, and other laws take their place."""

import dataclasses

import numpy as np
import pytest

from cuvee.mixtures import worlds
from cuvee.mixtures.errors import EvidenceError
from cuvee.mixtures.inference import dataset
from cuvee.mixtures.registry import build
from cuvee.mixtures.runs.run_results import RunResult, Score


@pytest.mark.parametrize("name", ["kriging", "gaussian_process"])
def test_a_law_that_is_cubic_in_its_runs_refuses_too_many(name):
    """Catches a fit of hours that was asked for by nobody, and a limit that holds in folds only."""
    W, rng = np.random.default_rng(0).dirichlet(np.full(4, 0.7), 40), np.random.default_rng(0)
    law = dataclasses.replace(build("law", name), most=39)
    with pytest.raises(EvidenceError, match="at most 39 of them; got 40"):
        law.fit(W, W[:, :1], np.zeros(1), rng)
    problem = worlds.world_problem(worlds.Additive(size=4, count=2))
    Y = np.stack([W[:, 0], W[:, 1]], axis=1) + 1.0
    runs = tuple(
        RunResult(problem.spec(w, 0), dict(zip(problem.targets, map(score, y), strict=True)))
        for w, y in zip(W, Y, strict=True)
    )
    found = dataset.gather_runs(problem, runs)
    chosen, _, left = dataset.compare_laws((law, build("law", "linear")), found, 5, rng)
    assert chosen == 1 and "left out" in left[0] and "at most 39" in left[0]


def score(value):
    return Score(float(value), 0.0, 1)
