"""ADO: a scaling law per domain, fitted while training, says where loss still falls.

Source: Jiang et al. 2024, "Adaptive data optimization: dynamic sample selection with scaling laws"
(arXiv 2410.11820), as coded in yidingjiang/ado, `src/data_selectors/ado.py`. Per domain
`L(n) = exp(e) + exp(a) n^-alpha` of its training losses at n steps, then

    slope = max(alpha, 0.05) (L - exp e) / n
    rho ~ slope * prior * history^0.5, clipped at 0.01
    p = 0.9 mean of past rho + 0.1 rho;   history <- 0.9 history + 0.1 share of the batch

The prior is the run's starting weights. Fit: Huber loss (1e-3) of the log losses, penalties that
keep alpha in (0.001, 0.8), a <= 6.5 and e >= 0.5 soft. Departures: the losses are already means
over an interval, so no Savitzky-Golay filter; the objective is evaluated on the 8 x 8 x 8 grid of
starts, and only the best three are polished by L-BFGS (512 for each domain would cost more than a
proxy); the soft limit on e is not put below the data: losses of less than exp(0.5) nats exist, so
that limit is the lower of 0.5 and log(0.9 min L).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from cuvee.mixtures import simplex
from cuvee.mixtures.controllers import Controller, ControllerEvidence, State, clip_scores
from cuvee.mixtures.domains import Array
from cuvee.mixtures.errors import RecipeError
from cuvee.mixtures.registry import register

LEAST_POINTS = 6  # of a domain's curve; below, three parameters are not fitted
MOST_POINTS = 64  # of a fit: the rest would be repeats of their neighbors
FLOOR = 1e-2
LEAST_ALPHA, MOST_ALPHA, MOST_A, LEAST_E = 0.001, 0.8, 6.5, 0.5
HUBER = 1e-3
KEEP = 0.9  # of the mean of rho, and of the history


@register("controller")
@dataclass(frozen=True)
class AdoController(Controller):
    """Online scaling laws per domain.

    Take it through the method `ado`.

    Attributes:
        interval: training steps between two updates of the weights.
        refits: of the laws in a run; the first when a tenth of the run after `ignored` is done.
        ignored: share of the run whose losses are left out of the fits; weights rest until then.
    """

    name = "ado"

    interval: int = 4
    refits: int = 6
    ignored: float = 0.1

    def __post_init__(self) -> None:
        if self.interval < 1 or self.refits < 1 or not 0 <= self.ignored < 0.9:
            raise RecipeError(
                "ado needs interval >= 1, refits >= 1 and ignored in [0, 0.9); "
                f"got {self.interval}, {self.refits} and {self.ignored}"
            )

    def start(self, domains: Sequence[str], weights: Sequence[float], steps: int) -> State:
        p = [float(w) for w in weights]
        begin = self.ignored + 0.1
        times = [round(steps * (begin + (1 - begin) * i / self.refits)) for i in range(self.refits)]
        return {
            "weights": p,
            "prior": p,
            "history": p,
            "average": p,
            "curves": [[] for _ in p],
            "laws": [[] for _ in p],
            "last": [0.0] * len(p),
            "updates": 0,
            "ignored": int(self.ignored * steps),
            "fits": times,
            "due": self.interval,
        }

    def update(self, state: State, evidence: ControllerEvidence) -> State:
        drawn = max(1, sum(evidence.counts))
        share = np.array(evidence.counts, dtype=np.float64) / drawn
        history = KEEP * np.asarray(state["history"]) + (1 - KEEP) * share
        curves, last = self._grown(state, evidence)
        laws, fits = state["laws"], state["fits"]
        if fits and evidence.step >= fits[0]:
            found = (fit_curve(np.asarray(curve)) for curve in curves)
            laws = [new or old for new, old in zip(found, laws, strict=True)]
            fits = [time for time in fits if time > evidence.step]
        after = {
            **state,
            "history": history.tolist(),
            "curves": curves,
            "last": last,
            "laws": laws,
            "fits": fits,
            "due": evidence.step + self.interval,
        }
        slopes = loss_slopes(laws, last, evidence.step)
        if slopes is None:
            return after
        rho = floor_shares(slopes * np.asarray(state["prior"]) * np.sqrt(history))
        updates, average = state["updates"], np.asarray(state["average"])
        mean = average + (rho - average) / (updates + 1)
        return {
            **after,
            "weights": simplex.normalized(KEEP * average + (1 - KEEP) * rho).tolist(),
            "average": mean.tolist(),
            "updates": updates + 1,
        }

    def _grown(
        self, state: State, evidence: ControllerEvidence
    ) -> tuple[list[list[list[float]]], list[float]]:
        """Curves with this interval's losses, and the last loss of each domain."""
        curves, last = [list(curve) for curve in state["curves"]], list(state["last"])
        for d, loss in enumerate(evidence.losses):
            if loss is None:
                continue
            last[d] = float(clip_scores(loss))
            if evidence.step > state["ignored"] and last[d] > 0:
                curves[d].append([float(evidence.step), last[d]])
        return curves, last


def loss_slopes(laws: Sequence[Sequence[float]], last: Sequence[float], step: int) -> Array | None:
    """Fall of each domain's loss per step (K,); None before every domain has a law.

    A law that lies above the present loss says that nothing is left to learn: 0.
    """
    if not all(laws):
        return None
    found = np.array(laws, dtype=np.float64)
    left = np.maximum(np.asarray(last) - np.exp(found[:, 0]), 0.0)
    return np.asarray(np.maximum(found[:, 2], 0.05) * left / max(step, 1))


def floor_shares(values: Array) -> Array:
    """Shares in proportion to values, none below `FLOOR` (or half an even share, if lower)."""
    least = min(FLOOR, 0.5 / len(values))
    if values.sum() <= 0:
        return np.full(len(values), 1.0 / len(values))
    return simplex.normalized(np.maximum(simplex.normalized(values), least))


def fit_curve(curve: Array) -> list[float]:
    """(e, a, alpha) of `exp(e) + exp(a) n^-alpha` for points (n, loss); empty for too few."""
    if len(curve) < LEAST_POINTS:
        return []
    rows = np.unique(np.linspace(0, len(curve) - 1, MOST_POINTS).round().astype(int))
    n, observed = np.log(curve[rows, 0]), np.log(curve[rows, 1])
    least_e = min(LEAST_E, float(np.log(0.9) + observed.min()))
    top = float(observed.max())

    def value(parameters: Array) -> Array:
        """The objective at many parameters (..., 3)."""
        e, a, alpha = (parameters[..., i, None] for i in range(3))
        error = np.abs(np.logaddexp(e, a - alpha * n) - observed)
        huber = np.where(error < HUBER, 0.5 * error**2, HUBER * (error - 0.5 * HUBER)).mean(-1)
        return np.asarray(huber + (over(parameters) ** 2).sum(axis=-1))

    def over(parameters: Array) -> Array:
        """How far the soft limits are passed (..., 4): alpha above, alpha below, a, e."""
        e, a, alpha = np.moveaxis(parameters, -1, 0)
        passed = (alpha - MOST_ALPHA, LEAST_ALPHA - alpha, a - MOST_A, least_e - e)
        return np.asarray(np.maximum(0.0, np.stack(passed, axis=-1)))

    axes = (np.linspace(least_e, top, 8), np.linspace(-2, MOST_A, 8), np.linspace(0.05, 0.8, 8))
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    starts = grid[np.argsort(value(grid), kind="stable")[:3]]

    def with_slope(x: Array) -> tuple[float, Array]:
        """The objective and its gradient (3,), from one pass over the curve."""
        e, a, alpha = x.tolist()  # plain numbers: an evaluation is mostly the cost of small calls
        part = a - alpha * n
        logs = np.logaddexp(e, part)
        error = logs - observed
        pull = np.minimum(np.maximum(error, -HUBER), HUBER)  # slope of the Huber loss
        falls = pull * np.exp(part - logs)  # its part through the falling term
        high, low = max(0.0, alpha - MOST_ALPHA), max(0.0, LEAST_ALPHA - alpha)
        large, small = max(0.0, a - MOST_A), max(0.0, least_e - e)
        huber = float(pull @ (error - 0.5 * pull)) / len(n)
        down, through = float(falls.sum()) / len(n), float(falls @ n) / len(n)
        slope = (
            float(pull.sum()) / len(n) - down - 2 * small,
            down + 2 * large,
            2 * (high - low) - through,
        )
        return 1e3 * (huber + high**2 + low**2 + large**2 + small**2), 1e3 * np.array(slope)

    results = [minimize(with_slope, start, jac=True, method="L-BFGS-B") for start in starts]
    best = min(results, key=lambda result: float(result.fun))
    return [float(x) for x in best.x]
