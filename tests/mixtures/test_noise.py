"""Noisy targets: flagged below the stated ratio, left out of the objective only when asked."""

import functools
import io

import numpy as np
import pytest
from rich.console import Console

from cuvee.flows.console import print_study
from cuvee.flows.recipe import load
from cuvee.flows.study.confirm import compared_schedules, confirm, fresh_seeds
from cuvee.flows.study.refit import refit
from cuvee.flows.study.table_problem import from_tables
from cuvee.flows.workspace import Workspace
from cuvee.mixtures import worlds
from cuvee.mixtures.errors import EvidenceError, RecipeError
from cuvee.mixtures.inference.screening import Screened, drop_targets
from cuvee.mixtures.loop import generator
from cuvee.mixtures.loop import search as searched
from cuvee.mixtures.methods.mixing_laws import MixingLaws
from cuvee.mixtures.objectives import WeightedMean, Worst

METHOD = MixingLaws(runs=12, refits=10, seeds=3, folds=3)
QUIET, LOUD = "target/0", "target/1"


class OneLoud(worlds.Noisy):
    """A world in which one target drowns in noise over seeds."""

    def noise(self, W):
        return np.tile([0.002, 2.0, 0.002], (len(W), 1))


WORLD = OneLoud(world=worlds.Additive(size=4, count=3), sd=0.002)
BOTH = worlds.world_problem(WORLD, objective=WeightedMean({QUIET: 1.0, LOUD: 3.0}))
ALONE = worlds.world_problem(WORLD, objective=WeightedMean({QUIET: 1.0}))


@functools.cache
def search(method, problem):
    """A method's answer on the world and its history, made once for all tests."""
    return searched(method, problem, WORLD, seed=0)


def test_a_dropped_target_has_no_say():
    """The answer is that for the quiet target alone, to the bit: catches a target that is only
    named, or one that is dropped from the search but not from the choice of the law."""
    left, history = search(Screened(METHOD, drop=True), BOTH)
    alone, same = search(METHOD, ALONE)
    assert [run.spec for run in history] == [run.spec for run in same]
    assert left.stages == alone.stages and left.gains == alone.gains
    assert left.warnings[0].startswith("left out of the objective as mostly noise")
    assert LOUD in left.warnings[0] and QUIET not in left.warnings[0]
    assert {n.target for n in left.noise} == {*BOTH.targets, "objective"}  # still shown


def test_what_is_left_out_has_no_say_in_the_confirmation_either():
    """From the recipe to the confirmed gain: catches a confirmation by the full objective, whose
    noise is a thousand times that of what the answer is for, and a target that it forgets."""
    text = (
        "name: noisy\ntables: {mixtures: m.csv, scores: s.csv}\n"  # whose names are not known yet
        "objective: {name: mean, weights: {target/0: 1, target/1: 3}}\nfull_scale: {tokens: 1M}\n"
        "method: {name: mixing_laws, runs: 12, refits: 10, seeds: 3, folds: 3}\n"
        "confirm: {seeds: 4}\nlimits: {drop_noisy: true}\n"
    )
    recipe = load.parse(text)
    method = recipe.build_method()
    answer, history = search(method, BOTH)
    problem = method.problem(BOTH, history)

    def trainings(specs, _title, _role):
        return WORLD(specs)

    found = confirm(
        problem,
        compared_schedules(problem, answer, recipe.confirm),
        trainings,
        seeds=fresh_seeds(0, recipe.confirm.seeds),
    )
    quiet, loud = (BOTH.targets.index(name) for name in (QUIET, LOUD))
    for name in ("natural", "uniform"):
        gain = found.objective[name]
        alone = found.targets[name][quiet]
        assert (gain.gain, gain.low, gain.high) == pytest.approx(
            (alone.gain, alone.low, alone.high)
        )
        assert gain.high - gain.low < 0.05
        assert found.targets[name][loud].high - found.targets[name][loud].low > 1
    assert found.objective["uniform"].low > 0  # and the quiet target alone was worth a mixture


def test_nothing_is_dropped_unless_the_recipe_says_so():
    """Catches dropping as the default: the flag must come without a change of the answer."""
    flagged, history = search(Screened(METHOD), BOTH)
    plain, _ = search(METHOD, BOTH)
    assert flagged.stages == plain.stages and flagged.candidates == plain.candidates
    assert [w for w in flagged.warnings if "mostly noise" in w and LOUD in w]
    assert not [w for w in flagged.warnings if "left out" in w]
    assert Screened(METHOD).problem(BOTH, history) is BOTH


def test_the_stated_ratio_is_what_counts():
    """Catches a threshold that is fixed: quiet targets fall below a high one, none below 0."""
    _, history = search(METHOD, BOTH)
    rng = generator(0, len(history))
    strict = Screened(METHOD, least_signal=1e6).recommend(BOTH, history, rng)
    (line,) = [w for w in strict.warnings if "mostly noise" in w]  # and not the usual one as well
    assert "1e+06" in line and QUIET in line and LOUD in line
    lax = Screened(METHOD, least_signal=0).recommend(BOTH, history, generator(0, len(history)))
    assert not [w for w in lax.warnings if "mostly noise" in w]
    names = [n.target for n in Screened(METHOD).noisy(BOTH, history)]
    assert names == [LOUD]


def test_an_objective_of_noise_alone_is_an_error_that_says_so():
    """Catches an empty objective, or a silent return to the full one."""
    with pytest.raises(EvidenceError, match="nothing is left of the objective.*least_signal"):
        search(Screened(METHOD, least_signal=1e6, drop=True), BOTH)


def test_without_a_repeated_seed_nothing_is_known_and_nothing_is_dropped():
    """Catches noise of 0 or NaN taken for a ratio below the limit."""
    single = MixingLaws(runs=12, refits=10, seeds=1, folds=3)
    answer, history = search(Screened(single, 1e6, drop=True), BOTH)
    assert answer.noise == () and Screened(single, 1e6, True).problem(BOTH, history) is BOTH
    assert Screened(single, 1e6, drop=True).noisy(BOTH, ()) == ()


def test_a_family_keeps_its_weight_until_none_of_it_is_left():
    """(a + b) / 2 x 2 + c without b is 2 a + c: catches a weight that shrinks with its family."""
    mean = WeightedMean({"f": 2.0, "c": 1.0}, {"f": ("a", "b")})
    assert list(drop_targets(mean, ("b",)).linear(["a", "b", "c"])) == pytest.approx(
        [2 / 3, 0, 1 / 3]
    )
    assert list(drop_targets(mean, ("a", "b")).linear(["a", "b", "c"])) == [0, 0, 1]
    assert drop_targets(mean, ("c",)).targets == ("a", "b")
    with pytest.raises(RecipeError, match="Worst"):
        drop_targets(Worst(("a", "b")), ("a",))


RECIPE = """\
name: tables
tables: {mixtures: MIXTURES, scores: SCORES}
objective: {name: mean, weights: {target/0: 1, target/1: 3}}
full_scale: {tokens: 1M}
method: {name: mixing_laws, runs: 12, refits: 10, folds: 3}
"""


def tables(folder):
    """The world's runs as two tables; returns the recipe's text."""
    _, history = search(METHOD, BOTH)
    names = BOTH.domains.names
    mixtures, scores = [",".join(("run", *names))], [",".join(("run", *BOTH.targets))]
    for i, run in enumerate(history):
        mixtures.append(",".join([str(i), *(repr(float(w)) for w in run.spec.weights)]))
        scores.append(",".join([str(i), *(repr(run.scores[t].value) for t in BOTH.targets)]))
    (folder / "mixtures.csv").write_text("\n".join(mixtures) + "\n")
    (folder / "scores.csv").write_text("\n".join(scores) + "\n")
    text = RECIPE.replace("MIXTURES", str(folder / "mixtures.csv"))
    return text.replace("SCORES", str(folder / "scores.csv"))


@pytest.fixture(scope="module")
def fitted(tmp_path_factory, quick_pictures_everywhere):
    """The folder of the study of the tables under given limits."""
    folder = tmp_path_factory.mktemp("noise")
    text = tables(folder)

    @functools.cache
    def fit(limits):
        given = f"{text}limits: {limits}\n"
        return refit(load.parse(given), given, Workspace(folder / limits.strip("{}")))

    return fit


def test_the_recipe_the_report_and_the_command_line_agree(fitted):
    """Catches a limit that stops at the recipe: the report and the terminal must say it first."""
    seen = {}
    for name, limits in (("plain", "{least_signal: 2}"), ("dropped", "{drop_noisy: true}")):
        folder = fitted(limits)
        out = io.StringIO()
        print_study(Console(file=out, width=200), folder, "")
        told = (folder / "report.md").read_text(encoding="utf-8"), out.getvalue()
        seen[name] = [page.replace("Left out", "left out") for page in told]
    for page in seen["dropped"]:
        assert "left out of the objective" in page
        first = page.index("left out of the objective")
        later = [page.find(text) for text in ("lies beyond", "was not confirmed", "mostly noise (")]
        assert all(first < place for place in later if place >= 0)
    assert not any("left out of the objective" in page for page in seen["plain"])
    assert "The objective is 1 target/0." in seen["dropped"][0]
    assert "0.75 target/1" in seen["plain"][0]


def test_the_flag_of_the_report_follows_the_recipe(fitted):
    """Catches a table that flags by a ratio of its own."""
    flags = {}
    for ratio in (0, 2, 1000000):
        page = (fitted(f"{{least_signal: {ratio}}}") / "report.md").read_text(encoding="utf-8")
        rows = [
            line for line in page.splitlines() if line.startswith("|") and "mostly noise" in line
        ]
        flags[ratio] = sum("target/" in row for row in rows)
    assert flags == {0: 0, 2: 1, 1000000: 3}


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ("{least_signal: -1}", "least_signal"),
        ("{least_signal: .nan}", "least_signal"),
        ("{least_signals: 2}", "least_signal"),
        ("{drop_noisy: perhaps}", "drop_noisy"),
    ],
)
def test_limits_are_checked_before_anything_is_spent(limits, words):
    """Catches a ratio that can never be met or a misspelled field that is ignored."""
    with pytest.raises(RecipeError, match=words):
        load.parse(RECIPE + f"limits: {limits}\n")


def test_only_a_mean_can_do_without_a_target():
    """Catches the mistake found after hours of training: it must be found with the recipe."""
    text = RECIPE.replace(
        "name: mean, weights: {target/0: 1, target/1: 3}", "name: worst, members: [target/0]"
    )
    load.parse(text)
    with pytest.raises(RecipeError, match="drop_noisy.*Worst"):
        load.parse(text + "limits: {drop_noisy: true}\n")


def test_tables_know_their_noise(tmp_path):
    """Catches repeats of a mixture in a table that are not taken for seeds."""
    given = load.parse(tables(tmp_path))
    problem, history = from_tables(given)
    assert [n.target for n in given.build_method().noisy(problem, history)] == [LOUD]
