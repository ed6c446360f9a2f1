"""Outlier runs: loss spikes in a training curve, and seeds far from their group.

They are found and named, and stay in the evidence: laws weigh them down themselves (Huber weights),
and dropping a run is a person's decision.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats
from scipy.ndimage import median_filter

from cuvee.mixtures import simplex
from cuvee.mixtures.domains import Array
from cuvee.mixtures.inference import diagnostics
from cuvee.mixtures.runs.run_results import RunResult

WINDOW = 5  # points of the running median
SPIKE = 8.0  # robust deviations above it
RISE = 0.05  # and at least this part of the loss
EARLY = 0.1  # part of a curve that is not looked at: it falls too fast
LEAST = 10  # points of a curve
ALARM = 0.01  # chance of one false alarm over all seeds and targets, if noise is normal


@dataclass(frozen=True)
class Outlier:
    """A run that stands out.

    Attributes:
        run: its fingerprint.
        kind: "spike" or "seed".
        deviation: in robust deviations of the curve, or of the other seeds.
        text: what was seen, in words.
    """

    run: str
    kind: str
    deviation: float
    text: str


def find_outliers(runs: Sequence[RunResult], targets: Sequence[str]) -> tuple[Outlier, ...]:
    """Every outlier among finished runs."""
    return (*loss_spikes(runs), *far_seeds(runs, targets))


def outlier_warnings(runs: Sequence[RunResult], targets: Sequence[str]) -> tuple[str, ...]:
    """One sentence per kind that occurs."""
    found = find_outliers(runs, targets)
    texts = []
    for kind, title in (("spike", "loss spikes"), ("seed", "seeds far from their group")):
        own = [o for o in found if o.kind == kind]
        if own:
            named = "; ".join(o.text for o in own[:5]) + ("; ..." if len(own) > 5 else "")
            texts.append(f"outlier runs ({title}, {len(own)}), kept in the evidence: {named}")
    return tuple(texts)


def loss_spikes(runs: Sequence[RunResult]) -> tuple[Outlier, ...]:
    """Runs whose training loss jumped above its running median."""
    found = []
    for run in runs:
        tokens = np.array([t for t, _ in run.curve], dtype=np.float64)
        losses = np.array([x for _, x in run.curve], dtype=np.float64)
        if len(losses) < LEAST:
            continue
        z, rise = _jumps(losses)
        late = tokens >= EARLY * tokens[-1]
        worst = int(np.argmax(np.where(late & (rise >= RISE), z, -np.inf)))
        if late[worst] and rise[worst] >= RISE and z[worst] >= SPIKE:
            name = run.spec.fingerprint
            text = f"{name[:12]} at {tokens[worst]:,.0f} tokens, {rise[worst]:+.0%}"
            found.append(Outlier(name, "spike", float(z[worst]), text))
    return tuple(found)


def _jumps(losses: Array) -> tuple[Array, Array]:
    """Robust deviations above the running median, and the rise as a part of it."""
    middle = median_filter(losses, size=WINDOW, mode="nearest")
    off = losses - middle
    typical = 1.4826 * float(np.median(np.abs(off[off != 0]))) if (off != 0).any() else 0.0
    return off / max(typical, 1e-9), off / np.maximum(np.abs(middle), 1e-9)


def far_seeds(runs: Sequence[RunResult], targets: Sequence[str]) -> tuple[Outlier, ...]:
    """Runs far from the other seeds of the same training, by externally studentized residuals.

    The deviation is pooled over all groups without the run itself; a run is named where its
    residual would be this large by chance in fewer than `ALARM` of such studies (Bonferroni).
    """
    number = iter(simplex.group_rows([s.weights for r in runs for s in r.spec.stages]).tolist())
    stages = [tuple((next(number), s.share) for s in r.spec.stages) for r in runs]
    keys = [
        (r.spec.size, r.spec.tokens, own, r.spec.controller)
        for r, own in zip(runs, stages, strict=True)
    ]
    index = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    member = np.array([index[key] for key in keys], dtype=np.int64)
    counts = np.bincount(member) if len(member) else np.zeros(0, dtype=np.int64)
    rows = [i for i, group in enumerate(member) if counts[group] >= 2]
    names = [t for t in targets if all(t in runs[i].scores for i in rows)]
    if not rows or not names:
        return ()
    Y = np.array([[runs[i].scores[t].value for t in names] for i in rows])
    member = np.unique(member[rows], return_inverse=True)[1]
    found = []
    for i, row in enumerate(rows):
        others = np.arange(len(rows)) != i
        sd, degrees = diagnostics.pooled_deviation(Y[others], member[others])
        own = Y[others][member[others] == member[i]]
        if degrees < 1:
            continue
        error = sd * np.sqrt(1.0 + 1.0 / len(own))
        z = (Y[i] - own.mean(axis=0)) / np.maximum(error, 1e-12)
        chance = 2 * stats.t.sf(np.abs(z), degrees) * Y.size
        m = int(np.argmin(chance))
        if chance[m] < ALARM:
            spec = runs[row].spec
            text = f"{spec.fingerprint[:12]} (seed {spec.seed}) in {names[m]}, {z[m]:+.1f} sd"
            found.append(Outlier(spec.fingerprint, "seed", float(z[m]), text))
    return tuple(found)
