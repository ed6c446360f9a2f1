"""The Python API: its examples, its numbers, what it refuses, and what importing it costs."""

import doctest
import inspect
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import cuvee
from cuvee.flows.api import frames
from cuvee.flows.recipe.load import parse
from cuvee.flows.study.refit import refit
from cuvee.flows.workspace import Workspace
from cuvee.mixtures import registry

ROOT = Path(__file__).parents[2]
PUBLIC = [name for name in cuvee.__all__ if not name.endswith(("Error", "Name", "Extra"))]
RNG = np.random.default_rng(0)
W = RNG.dirichlet(np.ones(3), 16)
Y = np.column_stack([2 - W[:, 0] + W[:, 0] ** 2 + 0.01 * RNG.normal(size=16), 1 + W[:, 1]])
NAMES, TARGETS = ["web", "code", "<script>alert(1)</script>"], ["math", "prose"]
FAST = {"name": "regmix", "laws": ["log_linear"], "search": "auto", "refits": 10}


@pytest.fixture(scope="module")
def pair():
    """The same runs as data frames, with their ids in the index."""
    ids = pd.Index([f"r{i}" for i in range(16)], name="run")
    return pd.DataFrame(W, ids, NAMES), pd.DataFrame(Y, ids, TARGETS)


def test_importing_costs_nothing_and_finds_everything():
    """Catches a name that is offered and not there, and an import that brings numpy along."""
    program = (
        "import sys, time; begin = time.perf_counter(); import cuvee; "
        "spent = time.perf_counter() - begin; names = set(dir(cuvee)); "
        "heavy = {'numpy', 'pandas', 'scipy', 'torch', 'ray', 'prefect', 'mlflow', 'typing'}; "
        "print(heavy & {n.split('.')[0] for n in sys.modules} - before, "
        "set(cuvee.__all__) <= names, spent < 0.05)"
    )
    program = f"import sys; before = set(sys.modules); {program}"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["set()", "True", "True"]
    for name in cuvee.__all__:
        assert getattr(cuvee, name).__module__.startswith("cuvee."), name
    assert cuvee.__version__
    with pytest.raises(AttributeError, match="no attribute 'fitt'"):
        cuvee.fitt  # noqa: B018


def test_fitting_needs_no_orchestration(tmp_path):
    """Catches a way from frames to a recommendation that loads Prefect, Ray, MLflow or torch."""
    program = (
        "import sys, cuvee; t = cuvee.load_tables([[w / 7, 1 - w / 7] for w in range(8)],"
        "[2, 1.8, 1.5, 1.7, 1.6, 1.4, 1.3, 1.2], domains=['a', 'b']); "
        f"cuvee.recommend(t, method={FAST!r}); cuvee.fit(t, law='linear'); "
        "print({'prefect', 'ray', 'mlflow', 'torch', 'pandas'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout.strip() == "set()"


LONG = ("cuvee", "run")  # kriging fits of 14 targets; a report with its pictures


@pytest.mark.parametrize(
    "name", [*sorted({*PUBLIC} - {*LONG}), *(pytest.param(n, marks=pytest.mark.slow) for n in LONG)]
)
def test_every_example_runs(name, monkeypatch):
    """Catches an example that prints something else today, and a public name without one."""
    monkeypatch.chdir(ROOT)
    found = cuvee if name == "cuvee" else getattr(cuvee, name)
    cases = doctest.DocTestFinder(recurse=inspect.isclass(found)).find(found, name, globs={})
    assert "Example" in found.__doc__ or found is cuvee, f"{name} has no example"
    runner, said = doctest.DocTestRunner(), []
    for case in cases:
        runner.run(case, out=said.append)
    assert not runner.failures, "".join(said)
    registry.forget("law", "mean_of_runs")


def test_frames_give_the_numbers_of_the_command_line(pair, tmp_path):
    """Catches another order of rows, another generator, another default, a rounded cell."""
    mixtures, scores = pair
    mixtures.to_csv(tmp_path / "m.csv"), scores.iloc[::-1].to_csv(tmp_path / "s.csv")
    sizes = {"web": "30B", "code": 1e10, NAMES[2]: 5_000_000_000}
    values = {
        "name": "same",
        "tables": {
            "mixtures": str(tmp_path / "m.csv"),
            "scores": str(tmp_path / "s.csv"),
            "sizes": sizes,
            "higher_is_better": ["prose"],
        },
        "objective": {"name": "mean", "weights": {"math": 2, "prose": 1}},
        "constraints": {"epochs": 4, "bounds": {"code": [0.1, 0.5]}},
        "full_scale": {"tokens": "20B"},
        "method": FAST,
    }
    text = json.dumps(values)
    folder = refit(parse(text), text, Workspace(tmp_path / "home"))
    tables = cuvee.load_tables(*pair, sizes=sizes, higher_is_better=["prose"])
    best = cuvee.recommend(
        tables,
        objective={"math": 2, "prose": 1},
        constraints={"epochs": 4, "bounds": {"code": (np.float64(0.1), 0.5)}},
        full_tokens="20B",
        method=FAST,
    )
    assert (folder / "recommendation.json").read_text() == json.dumps(
        best.to_json(), indent=1
    ) + "\n"
    assert sum(best.epochs.values()) > 0
    assert best.verdict == json.loads((folder / "summary.json").read_text())["verdict"]
    assert best.grade == best.recommendation.verdict.partition(":")[0] != best.verdict


def test_a_fit_says_what_the_recommendation_says(pair):
    """Catches generators that differ, and scores of which more is better given back turned."""
    tables = cuvee.load_tables(*pair, higher_is_better=["prose"])
    best = cuvee.recommend(tables, method=FAST)
    law = cuvee.fit(tables, law="log_linear")
    said = law.predict(best.weights)
    for m, target in enumerate(TARGETS):
        sign = -1 if target == "prose" else 1
        assert said.mean[0, m] * sign == pytest.approx(best.predicted[target].mean, rel=1e-12)
    (chosen,) = best.evidence
    assert 1 + said.mean[0, 1] == pytest.approx(2 + best.weights["code"], abs=0.05)
    assert chosen.coverage == pytest.approx(np.mean([one.coverage for one in law.quality]))
    np.testing.assert_array_equal(tables.scores, Y)


def fitted_below(folder, pair, monkeypatch):
    """A study of two tables that lie beside its recipe, fitted from the folder above."""
    inner = folder / "inner"
    inner.mkdir()
    pair[0].to_csv(inner / "m.csv"), pair[1].to_csv(inner / "s.csv")
    values = {
        "name": "below",
        "tables": {"mixtures": "m.csv", "scores": "s.csv"},
        "objective": {"name": "mean", "weights": {"math": 1}},
        "method": FAST,
    }
    (inner / "recipe.yaml").write_text(json.dumps(values), encoding="utf-8")
    monkeypatch.chdir(folder)
    return inner, cuvee.run("inner/recipe.yaml", home=folder / "home")


def test_a_study_gives_the_tables_that_it_was_fitted_to(pair, tmp_path, monkeypatch, capsys):
    """Catches tables that are looked for in the caller's folder, others of the same name that are
    read in their place, by the fit or afterwards, and ones that were edited since."""
    pair[0].iloc[::-1].to_csv(tmp_path / "m.csv"), pair[1].to_csv(tmp_path / "s.csv")
    inner, done = fitted_below(tmp_path, pair, monkeypatch)
    said = " ".join(capsys.readouterr().out.split())
    assert f"recipe's folder {inner}" in said and "same name: m.csv, s.csv" in said
    monkeypatch.chdir(ROOT)
    for study in (done, cuvee.open_study("below", home=tmp_path / "home")):
        np.testing.assert_array_equal(study.tables.scores, Y)
        assert study.tables.runs[0] == "r0"
    pair[1].assign(math=pair[1]["math"] + 0.1).to_csv(inner / "s.csv")
    with pytest.raises(cuvee.EvidenceError, match="no longer hold the runs.*'below'"):
        done.tables  # noqa: B018
    (inner / "s.csv").unlink()
    with pytest.raises(cuvee.DataError, match="no table .*inner/s.csv"):
        done.tables  # noqa: B018


ROWS = {"run": ["a", "b", "c"], "web": [0.5, 0.25, 1.0], "code": [0.5, 0.75, 0.0]}
SCORES = {"run": ["a", "b", "c"], "math": [1.0, 2.0, 3.0]}


@pytest.mark.parametrize(
    ("mixtures", "scores", "error", "words"),
    [
        ({**ROWS, "code": [0.5, 0.7, 0.0]}, SCORES, cuvee.DataError, r"sum to 1.*b \(0.95\)"),
        ({**ROWS, "web": [50, 25, 100], "code": [50, 75, 0]}, SCORES, cuvee.DataError, "percent"),
        (
            ROWS,
            {**SCORES, "math": [1, float("nan"), 3]},
            cuvee.DataError,
            "'math' has no number.*b",
        ),
        (ROWS, {**SCORES, "run": ["a", "b", "d"]}, cuvee.EvidenceError, "no row for 1 runs.*c"),
        (ROWS, {**SCORES, "run": ["a", "b", "b"]}, cuvee.EvidenceError, "more than once: b"),
        ({"run": ["a"], "web": [1.0]}, {"run": ["a"], "x": [1]}, cuvee.DataError, "2 domains"),
        ({**ROWS, "web": [1, 2]}, SCORES, cuvee.DataError, "different lengths"),
        ({**ROWS, "web": "many"}, SCORES, cuvee.DataError, "list of values in column 'web'"),
        (W, Y, cuvee.DataError, "name of every column in `domains`; got shape .16, 3. and 0 names"),
        (ROWS, {"math": [1, 2]}, cuvee.DataError, "`id_column`"),
        ({"web": [1, 0.5], "code": [0, 0.5]}, {"x": [1, 2, 3]}, cuvee.DataError, "2 runs.*of 3"),
        (3, SCORES, cuvee.DataError, "a data frame, columns by name or an array.*int"),
        ("nowhere.csv", SCORES, cuvee.DataError, "no table nowhere.csv"),
    ],
)
def test_what_is_no_table_is_taught(mixtures, scores, error, words):
    """Catches rows paired by position where they have a key, and what is filled in in silence."""
    with pytest.raises(error, match=words):
        cuvee.load_tables(mixtures, scores)


def test_frames_are_paired_by_their_index():
    """Catches pairing by position of frames that were sorted or filtered."""
    mixtures = pd.DataFrame({"web": [0.5, 0.25, 1.0], "code": [0.5, 0.75, 0.0]})
    scores = pd.DataFrame({"math": [1.0, 2.0, 3.0]})
    turned = cuvee.load_tables(mixtures, scores.iloc[::-1])
    np.testing.assert_array_equal(turned.scores[:, 0], [1, 2, 3])
    with pytest.raises(cuvee.EvidenceError, match="no row for 1 runs.*0"):
        cuvee.load_tables(mixtures, scores.iloc[1:])
    with pytest.raises(cuvee.DataError, match="3 runs.*of 2"):
        cuvee.load_tables(mixtures, list(scores["math"])[:2])
    text = mixtures.assign(job=["x", "y", "z"]), scores.assign(job=["z", "y", "x"])
    with pytest.raises(cuvee.DataError, match="`id_column`"):  # whose order differs
        cuvee.load_tables(*text)
    named = cuvee.load_tables(*text, id_column="job")
    np.testing.assert_array_equal(named.scores[:, 0], [3, 2, 1])


def test_every_kind_of_table_is_read_alike(pair, tmp_path):
    """Catches a frame of another library, or single precision, that is read otherwise."""
    arrow = pytest.importorskip("pyarrow")
    mixtures, scores = pair
    plain = mixtures.reset_index().to_dict("list"), scores.reset_index().to_dict("list")
    made = [
        cuvee.load_tables(*plain),
        cuvee.load_tables(*map(arrow.table, plain)),
        cuvee.load_tables(W, Y, domains=NAMES, targets=TARGETS),
        cuvee.load_tables(W.tolist(), scores.reset_index(drop=True), domains=NAMES),
    ]
    mixtures.to_csv(tmp_path / "m.csv")
    made.append(cuvee.load_tables(tmp_path / "m.csv", scores))
    for tables in made:
        np.testing.assert_array_equal(tables.scores, Y)
        np.testing.assert_allclose(tables.weights, W, atol=1e-15)
        assert tables.domains == tuple(NAMES) and tables.targets == tuple(TARGETS)
    single = cuvee.load_tables(mixtures.astype("float32"), scores)
    np.testing.assert_allclose(single.weights, W, atol=1e-6)


def test_answers_are_frames_pictures_and_escaped_html(pair):
    """Catches the name of a domain that a notebook would run, and columns in another order."""
    best = cuvee.recommend(*pair, method=FAST)
    frame = best.to_frame()
    assert list(frame.index) == NAMES and frame["recommended"].sum() == pytest.approx(1)
    assert (frame["low"] <= frame["recommended"]).all()
    law = cuvee.fit(*pair, law="linear")
    for shown in (best, law, law.tables):
        page = shown._repr_html_()
        assert "<script" not in page and page.count("<table") == 1
    assert "&lt;script&gt;" in best._repr_html_()
    assert law.predict(pair[0]).to_frame().shape == (16, 4)
    assert list(law.to_frame().index) == TARGETS
    figure = best.plot()
    assert figure.axes and figure._repr_png_().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("mixture", "error", "words"),
    [
        ({"web": 0.5, "code": 0.6}, cuvee.ConstraintError, "sum to 1.1"),
        ({"web": 50, "code": 50}, cuvee.ConstraintError, "percent"),
        ({"wob": 1}, cuvee.DataError, "no domain wob"),
        ([0.5, 0.5], cuvee.DataError, "name of every column"),
        ({"web": [0.5, None], "code": [0.5, 1], NAMES[2]: [0, 0]}, cuvee.DataError, "no number"),
        (pd.DataFrame({"web": [1.0]}), cuvee.DataError, "no column of the domains code"),
    ],
)
def test_what_is_no_mixture_is_taught(pair, mixture, error, words):
    """Catches a prediction of what is no mixture."""
    with pytest.raises(error, match=words):
        cuvee.fit(*pair, law="linear").predict(mixture)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"objective": {"maths": 1}}, cuvee.RecipeError, "maths"),
        ({"constraints": {"bound": {}}}, cuvee.UnknownName, "did you mean"),
        ({"constraints": {"epochs": 4}}, cuvee.RecipeError, "counts in `sizes`"),
        ({"method": "regmixx"}, cuvee.UnknownName, "did you mean 'regmix'"),
        ({"full_tokens": "many"}, cuvee.RecipeError, "full_tokens|full_scale"),
        ({"objective": "math"}, cuvee.RecipeError, r"such as {'math': 1}.*got 'math'"),
        ({"objective": ["prose"]}, cuvee.RecipeError, r"such as {'prose': 1}.*got \['prose'\]"),
        ({"objective": [{"a": 1}]}, cuvee.RecipeError, r"such as {'math': 1, 'prose': 1}"),
        ({"objective": 3}, cuvee.RecipeError, "weights by target.*got 3"),
        ({"method": None}, cuvee.RecipeError, "method's name or its mapping.*got None"),
        ({"constraints": "epochs"}, cuvee.RecipeError, "constraints"),
        ({"seed": -1}, cuvee.RecipeError, "seed"),
    ],
)
def test_what_makes_no_sense_is_taught_in_the_words_of_the_call(pair, change, error, words):
    """Catches advice on fields of a recipe that the caller never wrote."""
    with pytest.raises(cuvee.CuveeError, match=words) as raised:
        cuvee.recommend(*pair, **{"method": FAST, **change})
    assert "tables." not in str(raised.value)


@pytest.mark.parametrize("given", [{"seed": -1}, {"seed": "a"}, {"seed": 1.5}, {"folds": 1}])
def test_what_counts_nothing_is_taught(pair, given):
    """Catches the words of numpy for an argument of ours."""
    ((name, value),) = given.items()
    with pytest.raises(cuvee.RecipeError, match=f"`{name}` takes a whole number.*got {value!r}"):
        cuvee.fit(*pair, law="linear", **given)


def test_one_name_is_taken_whole_and_a_list_of_mixtures_row_by_row(pair):
    """Catches a name that is read letter by letter, and shares in the order of a mapping."""
    tables = cuvee.load_tables(*pair, targets="prose", higher_is_better="prose")
    assert [*tables.targets] == [*tables.part.higher_is_better] == ["prose"]
    law = cuvee.fit(tables, law="linear")
    rows = [{"code": 0.75, "web": 0.25}, {"web": 0.5, NAMES[2]: 0.5}]
    expected = law.predict([[0.25, 0.75, 0], [0.5, 0, 0.5]])
    np.testing.assert_array_equal(law.predict(rows).mean, expected.mean)
    with pytest.raises(cuvee.DataError, match="no domain wob"):
        law.predict([{"web": 1}, {"wob": 1}])
    with pytest.raises(cuvee.EvidenceError, match="is on web and no other domain"):
        cuvee.load_tables(*pair, domains="web")


def test_an_executor_is_looked_at_before_anything_is_done(tmp_path):
    """Catches a name that only a study that trains refuses, and a home that is made for it."""
    recipe = {"name": "x", "tables": {"mixtures": "m.csv", "scores": "s.csv"}}
    with pytest.raises(cuvee.UnknownName, match="executor 'inlne'; did you mean 'inline'"):
        cuvee.run(recipe, home=tmp_path / "home", executor="inlne")
    assert not (tmp_path / "home").exists()


def test_too_few_runs_are_said_with_how_many_are_needed(pair):
    """Catches a fold's count given as the caller's."""
    mixtures, scores = pair
    with pytest.raises(cuvee.EvidenceError, match="at least 8 runs for 3 domains.*of 7"):
        cuvee.fit(mixtures[:7], scores[:7])
    with pytest.raises(TypeError, match="scores"):
        cuvee.fit(mixtures)
    with pytest.raises(cuvee.UnknownName, match="kind of part 'lawe'; did you mean 'law'"):
        cuvee.register("lawe")


def test_a_frame_without_pandas_says_what_to_install(pair, monkeypatch):
    """Catches a traceback of an import."""

    def lacking(*_):
        raise cuvee.MissingExtra("pip install 'cuvee[notebook]'")

    monkeypatch.setattr(frames, "require", lacking)
    with pytest.raises(cuvee.MissingExtra, match="notebook"):
        cuvee.load_tables(*pair).to_frame()
