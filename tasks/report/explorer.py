"""The explorer of a report: what its sliders need, as plain values that the page computes with.

The page holds a surface of the chosen law (`mixtures.surface`), the constraints as linear limits
and the objective as numbers. Its program, `templates/explorer.js`, does what `Surface.predict`
and `Constraints` do here; a test holds the two together.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np

from cuvee.mixtures.inference.diagnostics import Z
from cuvee.mixtures.recommendation import LEVEL
from cuvee.tasks.report.blocks import Block, Explorer, Paragraph
from cuvee.tasks.study.study import Study

MOST_TRIED = 600  # tried mixtures that the page holds, to say how far from them one is


def explorer_blocks(study: Study) -> Iterable[Block]:
    """The explorer; a sentence where a recommendation has no law to explore."""
    surface = study.recommendation.surface
    if surface is None:
        return
    worst = max(surface.error)
    yield Paragraph(
        "Move a share, or the weight of a target, and the prediction follows. Predictions are the "
        f"chosen law's, interpolated between {len(surface.centers)} mixtures: at mixtures not "
        f"interpolated it differs from the law by {worst:.4f} bits per byte (root mean square) for "
        f"the worst target, which is part of the {LEVEL:.0%} intervals. Intervals are for one new "
        "proxy of the study's size, and widen where nothing was tried."
    )
    yield Explorer(explorer_values(study))


def explorer_values(study: Study) -> dict[str, Any]:
    """Everything that the page's program reads; shares of tokens, bits per byte, nats."""
    ours, problem = study.recommendation, study.problem
    surface = ours.surface
    assert surface is not None
    limits, scalar = (
        problem.constraints,
        problem.objective.scalarize(problem.targets, study.reference),
    )
    low, high = limits.bounds
    tried = np.unique(np.round([run.spec.weights for run in study.runs], 4), axis=0)
    return {
        "domains": list(ours.domains),
        "targets": list(ours.targets),
        "candidates": [{"name": c.name, "weights": list(c.weights)} for c in ours.candidates],
        "natural": problem.domains.natural.tolist(),
        "low": low.tolist(),
        "high": high.tolist(),
        "limits": [
            {"name": limit.name, "row": list(limit.coefficients), "bound": limit.bound}
            for limit in limits.limits
        ],
        "prior": list(limits.prior),
        "most_kl": limits.most_kl,
        "most_domains": limits.most_domains,
        "objective": {
            "rows": scalar.rows.tolist(),
            "offsets": scalar.offsets.tolist(),
            "floors": scalar.floors.tolist(),
            "bounds": scalar.bounds.tolist(),
        },
        "tokens": [study.tokens.get(name, 0) for name in ours.domains],
        "full_tokens": problem.full_tokens,
        "tried": tried[:: -(-len(tried) // MOST_TRIED) or 1].tolist(),
        "z": Z,
        "surface": {
            "power": surface.power,
            "centers": surface.centers,
            "mean": surface.mean,
            "spread": surface.spread,
            "error": surface.error,
        },
    }
