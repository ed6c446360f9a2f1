"""Leave-out contrasts: what is lost without a domain, with intervals that hold for all together.

A mixture without some domains has their shares at 0 and the rest in proportion. Its runs are paired
by seed with the whole mixture's: from scratch, or on a shared branch checkpoint, with the domains
left out of the last part d of the tokens alone ("Does your data spark joy?", Blakeney et al. 2024,
arXiv 2406.03476): K + 1 ends on one trunk cost (1 - d) + (K + 1) d runs.

Scores are `y_gs = m_g + b_s + e_gs` of mixture g under seed s; the variance of e is pooled over the
mixtures. Contrasts with one control correlate by 1/2: the critical value is Dunnett's (1955), two-
sided, at level^(1 / targets). That holds for all targets together however they correlate, by the
Gaussian correlation inequality (Royen 2014, "A simple proof of the Gaussian correlation conjecture
extended to multivariate gamma distributions"); with deviations that are estimated, approximately.
Where one seed alone is shared, the deviation is that of repeated mixtures.

Assumption, not mended: the noise of a target is the same in all mixtures. Where leaving a domain
out makes runs noisier, its interval is too short, and the others' are too long.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from cuvee.mixtures import simplex
from cuvee.mixtures.domain_worth import LeaveOut, Worth, Worths
from cuvee.mixtures.domains import Array
from cuvee.mixtures.inference.dataset import Dataset
from cuvee.mixtures.inference.diagnostics import holm, pooled_deviation
from cuvee.mixtures.inference.power import PairNoise
from cuvee.mixtures.objectives import Scalarized
from cuvee.mixtures.problem import Problem
from cuvee.mixtures.recommendation import LEVEL
from cuvee.mixtures.runs.run_results import RunResult, score_table
from cuvee.mixtures.runs.run_spec import RunSpec, Stage

NODES = 60  # of a quadrature
WHOLE: frozenset[int] = frozenset()  # nothing is left out
Scores = Mapping[frozenset[int], Mapping[int, Array]]  # by what is left out and seed, (T,) each


def without(mixture: Array, left: Iterable[int]) -> Array:
    """The mixture (K,) without some domains, whose shares go to the others in proportion."""
    rest = np.array(mixture, dtype=np.float64)
    rest[list(left)] = 0.0
    return simplex.normalized(rest)


def leave_out_spec(
    problem: Problem, mixture: Array, left: Iterable[int], *, share: float, seed: int
) -> RunSpec:
    """The run that leaves domains out of the last `share` of its tokens; 1 is from scratch."""
    before, rest = (tuple(map(float, w)) for w in (mixture, without(mixture, left)))
    if share == 1 or before == rest:
        return problem.spec(rest, seed)
    return problem.staged((Stage(before, 1.0 - share), Stage(rest, share)), seed)


def left_out(problem: Problem, mixture: Array, spec: RunSpec) -> tuple[float, frozenset[int]]:
    """Of what share of its tokens a run leaves which domains of a mixture out; 0 where it is no
    such run, or was trained in another way."""
    *first, last = (np.array(stage.weights) for stage in spec.stages)
    if len(last) != len(mixture) or spec != problem.staged(spec.stages, spec.seed):
        return 0.0, WHOLE
    left = frozenset(np.flatnonzero((last <= simplex.ZERO) & (mixture > simplex.ZERO)).tolist())
    if len(left) == np.sum(mixture > simplex.ZERO):
        return 0.0, WHOLE
    alike = [(last, without(mixture, left)), *((w, mixture) for w in first)]
    if len(first) > 1 or any(np.abs(a - b).max() > simplex.SAME for a, b in alike):
        return 0.0, WHOLE
    return round(float(spec.stages[-1].share), 9), left


def leave_out_worths(
    problem: Problem, runs: Sequence[RunResult], mixture: Array, found: Dataset
) -> tuple[LeaveOut, ...]:
    """What runs say of a mixture's (K,) domains, from scratch first; none where no run leaves any
    out, or no noise is known: that of `found`, the runs at fixed shares, where one seed is shared.
    """
    scores: dict[float, dict[frozenset[int], dict[int, Array]]] = {}
    for run in runs:
        share, left = left_out(problem, mixture, run.spec)
        if share:
            row = with_objective(score_table((run,), problem.targets)[1], found.scalar)[0]
            scores.setdefault(share, {}).setdefault(left, {})[run.spec.seed] = row
    whole = scores.get(1.0, {}).get(WHOLE)
    if whole is None:
        return ()
    noise = pooled_deviation(
        with_objective(found.sample.Y, found.scalar), simplex.group_rows(found.sample.W)
    )
    made = (
        _contrasts(problem.domains.names, share, {**scores[share], WHOLE: whole}, noise)
        for share in sorted(scores, reverse=True)
    )
    return tuple(one for one in made if one is not None)


def with_objective(Y: Array, scalar: Scalarized) -> Array:
    """Scores (n, 1 + M): the objective without its floors, then the targets (n, M)."""
    return np.column_stack([scalar.relaxed(Y), Y])


def _contrasts(
    names: Sequence[str], share: float, scores: Scores, noise: tuple[Array, int]
) -> LeaveOut | None:
    """Worths by the runs of one kind, of the domains that have the seeds."""
    from scipy import stats  # here: see `simplex`

    seeds = _common_seeds(scores)
    rows = sorted((s for s in scores if set(seeds) <= scores[s].keys() and len(s) < 3), key=sorted)
    cube = np.array([[scores[row][seed] for seed in seeds] for row in rows])  # (G, S, T)
    means, (sd, degrees) = cube.mean(axis=1), noise
    if len(seeds) > 1:
        rest = cube - means[:, None] - cube.mean(axis=0) + means.mean(axis=0)
        degrees = (len(rows) - 1) * (len(seeds) - 1)
        sd = np.sqrt((rest**2).sum(axis=(0, 1)) / max(1, degrees))
    worth = dict(zip(rows, means - means[0], strict=True))
    single = [row for row in rows if len(row) == 1]
    pairs = [row for row in rows if len(row) == 2 and all({k} in single for k in row)]
    if not single or not degrees:
        return None
    error, count = sd / np.sqrt(len(seeds)), len(sd)
    critical = simultaneous_quantile(len(single), count, degrees)
    joint = [worth[row] - sum(worth[frozenset({k})] for k in row) for row in pairs]
    wide = float(stats.t.isf((1 - LEVEL) / 2 / max(1, len(pairs) * count), degrees))  # Bonferroni
    lines = _with_intervals(np.reshape(joint, (-1, count)), 2 * error, wide, degrees)
    shown = PairNoise(1.0, degrees, critical=critical).smallest_gain(len(seeds))
    left, paired = np.array([worth[row] for row in single]), zip(pairs, lines, strict=True)
    return LeaveOut(
        share=share,
        seeds=len(seeds),
        degrees=degrees,
        domains=tuple(names[k] for row in single for k in row),
        worths=_with_intervals(left, np.sqrt(2) * error, critical, degrees),
        detectable=tuple((shown * np.sqrt(2) * sd).tolist()),
        pairs=tuple(((names[min(row)], names[max(row)]), line) for row, line in paired),
    )


def _common_seeds(scores: Scores) -> list[int]:
    """Seeds under which the whole mixture and those without one domain finished. Domains with the
    fewest are dropped: while no seed is left, and, up to half of them, while one alone is."""
    whole = set(scores[WHOLE])
    own = sorted((whole & set(scores[row]) for row in scores if len(row) == 1), key=len)
    common = [sorted(whole.intersection(*own[i:])) for i in range(len(own) + 1)]
    paired = (seeds for seeds in common[: len(own) // 2 + 1] if len(seeds) > 1)
    return next(paired, next(seeds for seeds in common if seeds))


def _with_intervals(means: Array, error: Array, critical: float, degrees: int) -> Worths:
    """Means (R, T) with standard errors (T,), their intervals and corrected probabilities."""
    from scipy import stats

    ratio = np.abs(means) / np.maximum(error, simplex.TINY)
    p = np.reshape(holm((2 * stats.t.sf(ratio, degrees)).ravel().tolist()), means.shape)
    ends = means - critical * error, means + critical * error
    cells = np.stack([means, *ends, p], axis=-1).tolist()
    return tuple(tuple(Worth(*cell) for cell in row) for row in cells)


def simultaneous_quantile(
    contrasts: int, targets: int, degrees: int, level: float = LEVEL
) -> float:
    """The c below which |t| of all contrasts with one control lies, in all targets, with
    probability `level`: Dunnett's `P(c) = level^(1 / targets)`, where

        P(c) = E_u E_z [Phi(sqrt2 c u + z) - Phi(-sqrt2 c u + z)]^contrasts

    with z standard normal and u^2 chi-square over its degrees.
    """
    from scipy import optimize, stats

    z, weights = np.polynomial.hermite_e.hermegauss(NODES)
    x, mass = np.polynomial.legendre.leggauss(NODES)
    u = np.sqrt(stats.chi2.ppf((x + 1) / 2, degrees) / degrees)[:, None]

    def missed(c: float) -> float:
        bound = np.sqrt(2) * c * u
        within = (stats.norm.cdf(bound + z) - stats.norm.cdf(z - bound)) ** contrasts
        return float(mass @ within @ weights / weights.sum() / 2 - level ** (1 / targets))

    return float(optimize.root_scalar(missed, bracket=(0.01, 1e4)).root)
