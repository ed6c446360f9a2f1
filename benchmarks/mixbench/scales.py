"""Scaling laws: fitted to smaller models, judged on larger ones, at 2 and 4 times the largest.

Cases are the four Pile domains at 90M, 200M and 440M, this project's ladder, its sweep of sizes and
tokens (`scales`), and worlds of several truths at four sizes (20 tokens a parameter): `joint` is
the form of a scaling law here, the others of none: synergies beside it, exponents that depend on
the mixture, size and data that limit each other, and domains that run out. A draw of real runs
takes nine tenths of each size's; a draw of a world is another world.

`level` is how far off the mean of a size is, which all its runs share; `width` the half-width of
the 90 % intervals of scores and `score` their interval score (their width, and 20 times what lies
outside; Gneiting and Raftery 2007), in % of a score. `gains` is how often the 90 % interval of a
gain holds it, target by target: of the mixture that a law would pick over each other one, in
`REFITS` refits that are set off as a recommendation's are; `gain_width` is its half-width. Real
gains hold the noise of two runs, which an interval of a gain does not.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from cuvee.mixtures import simplex, worlds
from cuvee.mixtures.domains import Array
from cuvee.mixtures.errors import CuveeError
from cuvee.mixtures.inference.diagnostics import Z, pooled_deviation
from cuvee.mixtures.laws import Prediction
from cuvee.mixtures.registry import build
from cuvee.mixtures.scaling import ScalingRuns
from cuvee.mixtures.scaling.average import AverageScaling, FittedAverage, average_fits
from cuvee.mixtures.scaling.equations import EquationScaling
from cuvee.mixtures.scaling.repeated import effective_tokens
from mixbench.contestants import checked, drawn_within, timed
from mixbench.judge import Judge
from mixbench.tables import SWEEPS, Runs, Table, pile4_runs, sweep_sizes

MILLION = 10**6
FITTED = {300_000: 30, 600_000: 16, 1 * MILLION: 12, 2 * MILLION: 10}  # parameters: mixtures
LARGER = {"2 x": 4 * MILLION, "4 x": 8 * MILLION}
TOKENS_EACH = 20  # per parameter
SIZE, TARGETS, SD = 5, 3, 0.004
SCARCE = np.array([4.0, 6.0, 9.0, 14.0, 20.0]) * MILLION  # tokens of the domains that run out
TESTED = 32  # mixtures at each larger size
KEPT = 0.9  # of a real size's runs, in a draw
REFITS = 8  # behind an interval of a gain, which is that of Student's t of as many
Truth = Callable[[Array, float, float], Array]


@dataclass(frozen=True, eq=False)
class SizedRuns:
    """Runs of one size.

    Attributes:
        runs: their shares and scores.
        parameters: of the models.
        tokens: of the runs.
    """

    runs: Runs
    parameters: float
    tokens: float


@dataclass(frozen=True, eq=False)
class ScaleDraw:
    """What a scaling law is fitted to, and what it is judged on.

    Attributes:
        table: targets and floor, as the judge reads them.
        fitted: sizes that it sees.
        tests: sizes that it does not, by name.
        available: (K,) tokens that exist of each domain; None where repetition is not known.
    """

    table: Table
    fitted: tuple[SizedRuns, ...]
    tests: Mapping[str, SizedRuns]
    available: Array | None = None

    @property
    def scaling_runs(self) -> ScalingRuns:
        """The fitted sizes as arrays."""
        counts = [len(part.runs.W) for part in self.fitted]
        Y = np.vstack([part.runs.Y for part in self.fitted])
        return ScalingRuns(
            W=np.vstack([part.runs.W for part in self.fitted]),
            parameters=np.repeat([float(part.parameters) for part in self.fitted], counts),
            tokens=np.repeat([float(part.tokens) for part in self.fitted], counts),
            Y=Y,
            noise=np.vstack([_noise(part.runs) for part in self.fitted]),
            groups=np.arange(len(Y)),
            available=self.available,
        )


def _noise(runs: Runs) -> Array:
    """Deviations (N, M) between runs of one mixture; 0 where none was run twice."""
    deviation, degrees = pooled_deviation(runs.Y, simplex.group_rows(runs.W))
    return np.broadcast_to(deviation if degrees else 0.0 * deviation, runs.Y.shape)


def real_draw(
    name: str, parts: Mapping[str, SizedRuns], fitted: list[str], tests: list[str], draw: int
) -> ScaleDraw:
    """A draw of recorded sizes."""
    rng = np.random.default_rng([draw, 21])
    some = []
    for key in fitted:
        runs = parts[key].runs
        keep = np.sort(rng.permutation(len(runs.W))[: max(1, round(KEPT * len(runs.W)))])
        some.append(SizedRuns(runs.take(keep), parts[key].parameters, parts[key].tokens))
    first = parts[fitted[0]].runs
    names = tuple(map(str, range(first.Y.shape[1])))
    table = Table(name, name.split("-", maxsplit=1)[0], names, first)
    return ScaleDraw(table, tuple(some), {key: parts[key] for key in tests})


def pile4_parts(data: Path) -> dict[str, SizedRuns]:
    """Sizes of the four Pile domains by "200M/8B"."""
    units = {"M": 10**6, "B": 10**9}
    sized = {}
    for key, runs in pile4_runs(data)[0].items():
        n, d = (float(word[:-1]) * units[word[-1]] for word in key.split("/"))
        sized[key] = SizedRuns(runs, n, d)
    return sized


def sweep_parts(name: str) -> dict[str, SizedRuns]:
    """Scales of a sweep of this project, smallest first."""
    return {key: SizedRuns(*found) for key, found in sweep_sizes(SWEEPS / name).items()}


def exponents(rng: np.random.Generator) -> Truth:
    """Size and data are worth powers whose exponents the mixture sets."""
    floor = rng.uniform(0.6, 1.2, TARGETS)
    a, b = rng.uniform(0.15, 0.45, (2, TARGETS, SIZE))
    taught = rng.uniform(0.0, 1.0, (TARGETS, SIZE))

    def truth(W: Array, n: float, d: float) -> Array:
        by_size, by_data = (n / MILLION) ** -(W @ a.T), (d / (20 * MILLION)) ** -(W @ b.T)
        return np.asarray(floor + 0.5 * np.exp(-W @ taught.T) + 0.4 * by_size + 0.4 * by_data)

    return truth


def coupled(rng: np.random.Generator) -> Truth:
    """Size and data limit each other, and data counts by what it teaches (Kaplan et al. 2020)."""
    floor, alpha, beta = rng.uniform(0.4, 0.8, TARGETS), 0.3, 0.25
    taught = rng.uniform(0.05, 1.0, (TARGETS, SIZE))

    def truth(W: Array, n: float, d: float) -> Array:
        useful = d * (W @ taught.T) / (20 * MILLION)
        limits = (n / MILLION) ** (-alpha / beta) + 1.0 / np.maximum(useful, 1e-9)
        return np.asarray(floor + 0.7 * limits**beta)

    return truth


def of_world(make: Callable[[int], Any], rng: np.random.Generator) -> Truth:
    """The truth of a world that knows sizes."""
    world = make(int(rng.integers(2**31)))

    def truth(W: Array, n: float, d: float) -> Array:
        return np.asarray(worlds.truth.at_scale(world, round(n), round(d)).truth(W, W))

    return truth


def joint_world(seed: int) -> Any:
    """The joint law's own form."""
    return worlds.Scaled(size=SIZE, count=TARGETS, seed=seed)


def repeating(rng: np.random.Generator) -> Truth:
    """Domains that run out: repeats are worth less and less, at a rate that no law here takes."""
    floor, worth = rng.uniform(0.6, 1.2, TARGETS), float(rng.uniform(4.0, 10.0))
    taught = rng.uniform(0.0, 1.5, (TARGETS, SIZE))

    def truth(W: Array, n: float, d: float) -> Array:
        useful = effective_tokens(W, np.full(len(W), d), SCARCE, worth)[:, None]
        by_scale = 0.4 * (n / MILLION) ** -0.3 + 0.4 * (useful / (20 * MILLION)) ** -0.28
        return np.asarray(floor + 0.5 * np.exp(-W @ taught.T) + by_scale)

    return truth


TRUTHS: dict[str, Callable[[np.random.Generator], Truth]] = {
    "joint": partial(of_world, joint_world),
    "synergies": partial(of_world, lambda seed: worlds.Interacting(joint_world(seed), 0.5, seed)),
    "exponents": exponents,
    "coupled": coupled,
    "repeating": repeating,
}


def world_draw(name: str, draw: int) -> ScaleDraw:
    """A draw of a truth: a world, its nested design at the fitted sizes, others at larger ones."""
    rng = np.random.default_rng([draw, 31])
    truth = TRUTHS[name](rng)
    design = rng.dirichlet(np.full(SIZE, 0.7), max(FITTED.values()))

    def sized(W: Array, n: int) -> SizedRuns:
        clean = truth(W, n, TOKENS_EACH * n)
        Y = clean + SD * rng.standard_normal(clean.shape)
        runs = Runs(tuple(map(str, range(len(W)))), W, Y, clean)
        return SizedRuns(runs, n, TOKENS_EACH * n)

    fitted = tuple(sized(design[:count], n) for n, count in FITTED.items())
    others = rng.dirichlet(np.full(SIZE, 0.7), TESTED)
    tests = {key: sized(others, n) for key, n in LARGER.items()}
    targets = tuple(f"target/{m}" for m in range(TARGETS))
    table = Table(f"scale-{name}", "worlds", targets, fitted[0].runs, floor=np.full(TARGETS, SD))
    return ScaleDraw(table, fitted, tests, SCARCE if name == "repeating" else None)


def cases(data: Path) -> dict[str, Callable[[int], ScaleDraw]]:
    """Draws of all cases by name; real sizes are named after the model."""
    found: dict[str, Callable[[int], ScaleDraw]] = {
        f"scale-{name}": partial(world_draw, name) for name in TRUTHS
    }
    pile = pile4_parts(data)
    small = [key for key in pile if key.startswith("90M")]
    middle = [key for key in pile if key.startswith("200M")]
    large = [key for key in pile if key.startswith("440M")]
    early = [key for key, part in pile.items() if part.tokens <= 6e9]
    late = [key for key in pile if key not in early]
    for name, fitted, tests in (
        ("pile4-90M-to-larger", small, [*middle, *large]),
        ("pile4-200M-to-440M", [*small, *middle], large),
        ("pile4-6B-to-8B", early, late),
    ):
        found[name] = partial(real_draw, name, pile, fitted, tests)
    *below, top = rungs = sweep_parts("ladder")
    found["ladder-to-largest"] = partial(real_draw, "ladder-to-largest", rungs, below, [top])
    own = sweep_parts("scales")
    for size, tokens in (("1M", 2), ("2M", 4)):
        most, name = own[f"{size}/{tokens}M"], f"scales-to-{size}-{tokens}M"
        seen = [k for k, part in own.items() if part.parameters <= most.parameters]
        fitted = [k for k in seen if own[k].tokens <= most.tokens]
        tests = [k for k in own if k not in seen or k.startswith(f"{size}/")]
        tests = [k for k in tests if k not in fitted and own[k].tokens >= most.tokens]
        found[name] = partial(real_draw, name, own, fitted, tests)
    return found


def one_draw(law: Any, case: ScaleDraw, floor: Array, draw: int) -> dict[str, Any]:
    """Figures of a draw by the size that was judged."""
    runs, rng = case.scaling_runs, np.random.default_rng([draw, 41])
    model, seconds = timed(lambda: law.fit(runs, rng))
    whole = model if isinstance(model, FittedAverage) else average_fits([(law, model)])
    refits = list(whole.refits(runs, REFITS, rng))
    judge, judged = Judge(case.table, floor), {}
    for name, test in case.tests.items():
        found = checked(model.predict(test.runs.W, test.parameters, test.tokens))
        again = [refit.predict(test.runs.W, test.parameters, test.tokens).mean for refit in refits]
        figures = judge.figures(name, test.runs, found, runs.Y)
        judged[name] = figures | interval_figures(test.runs, found, np.array(again))
    return {"seconds": seconds, "judged": judged}


def interval_figures(runs: Runs, found: Prediction, again: Array) -> dict[str, float]:
    """Level, widths, interval score, and coverage of gains by refits' means (R, n, M), in %."""
    off = (found.mean - runs.Y).mean(axis=0) / runs.Y.mean(axis=0)
    half = Z * found.sd
    outside = np.maximum(np.abs(runs.Y - found.mean) - half, 0.0)
    pick = int(np.argmin(found.mean.mean(axis=1)))
    others = np.arange(len(runs.Y)) != pick
    gain, true, drawn = (
        np.asarray(y - y[..., pick : pick + 1, :])[..., others, :]
        for y in (found.mean, runs.truth, again)
    )
    wide = stats.t.ppf(0.95, len(again)) * np.sqrt(np.mean((drawn - gain) ** 2, axis=0))
    return {
        "level": 100 * float(np.abs(off).mean()),
        "width": 100 * float((half / runs.Y).mean()),
        "score": 100 * float(((2 * half + 20 * outside) / runs.Y).mean()),
        "gains": 100 * float((np.abs(gain - true) <= wide).mean()),
        "gain_width": 100 * float((wide / runs.Y[others]).mean()),
    }


def cell_draws(name: str, case: Callable[[int], ScaleDraw], floor: Array, **limits: Any) -> Any:
    """A cell of a scaling law: the figures of every draw, or why there are none."""
    try:
        law = of_few_sizes(build("scaling", name))
    except CuveeError as error:
        return {"refused": str(error)}
    return drawn_within(lambda draw: one_draw(law, case(draw), floor, draw), **limits)


def of_few_sizes(law: Any) -> Any:
    """The law where it takes as few sizes as a table has, which in a study it refuses."""
    if isinstance(law, AverageScaling):
        return replace(law, laws=tuple(map(of_few_sizes, law.laws)))
    return replace(law, least=1) if isinstance(law, EquationScaling) else law
