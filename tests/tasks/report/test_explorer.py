"""The explorer: a law as a surface, and the page's own arithmetic, run in a JavaScript engine."""

import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from py_mini_racer import MiniRacer
from synthetic_study import explored_study as study
from synthetic_study import synthetic_study

from cuvee.mixtures import recommendation, worlds
from cuvee.mixtures.constraints import Group, constrain
from cuvee.mixtures.loop import search
from cuvee.mixtures.objectives import Floors, Worst
from cuvee.mixtures.registry import build
from cuvee.tasks.report.explorer import explorer_values
from cuvee.tasks.report.page import write_report

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
PROGRAM = Path(write_report.__code__.co_filename).parent / "templates" / "explorer.js"


@pytest.fixture(scope="module")
def plain():
    return study()


def page(made):
    """The page's program with a study's values, ready to be asked."""
    engine = MiniRacer()
    engine.eval(PROGRAM.read_text(encoding="utf-8"))
    engine.eval(f"var given = {json.dumps(explorer_values(made))}; var model = Explorer(given);")

    def ask(expression, **names):
        for name, value in names.items():
            engine.eval(f"var {name} = {json.dumps(value)};")
        return json.loads(engine.eval(f"JSON.stringify({expression})"))

    return ask


def test_a_surface_passes_through_the_law_at_the_candidates(plain):
    """Catches a smoothed surface: its preset buttons would contradict the report's tables."""
    made, law = plain
    rows = np.array([c.weights for c in made.recommendation.candidates])
    assert made.recommendation.surface.predict(rows).mean == pytest.approx(
        law.predict(rows).mean, abs=1e-6
    )


def test_its_error_is_that_at_mixtures_it_has_not_seen(plain):
    """Catches an error measured at the centers, where it is always 0, and one left out of sd."""
    made, law = plain
    found = made.recommendation.surface
    W = np.random.default_rng(9).dirichlet(np.ones(8), 300)
    W = W[made.problem.constraints.satisfied(W)]
    rms = np.sqrt(((found.predict(W).mean - law.predict(W).mean) ** 2).mean(axis=0))
    assert np.all(rms < 3 * np.array(found.error)) and np.median(rms / found.error) > 0.2
    assert np.all(found.predict(W).sd >= np.array(found.error))


def test_the_page_predicts_what_python_predicts(plain):
    """Catches any difference between the two programs: a power, a kernel, a column, an sd."""
    made, _ = plain
    ask, found = page(made), made.recommendation.surface
    for w in np.random.default_rng(2).dirichlet(np.full(8, 0.4), 20):
        here, there = ask("model.predict(w)", w=w.tolist()), found.predict(w[None])
        assert here["mean"] == pytest.approx(there.mean[0], abs=1e-9)
        assert here["sd"] == pytest.approx(there.sd[0], rel=1e-9)


def test_the_page_knows_the_constraints_as_python_does():
    """Catches a limit, the ball or the sparsity ignored by the sliders."""
    domains = synthetic_study().problem.domains
    names = domains.names
    limits = constrain(
        domains,
        full_tokens=20_000_000,
        epochs=8.0,
        bounds={names[0]: (0.1, 0.4)},
        groups=[Group(names[3:5], 0.15, 0.5)],
        most_kl=0.8,
    )
    made, _ = study(constraints=limits)
    ask, rng = page(made), np.random.default_rng(4)
    seen = set()
    for w in rng.dirichlet(6 * domains.natural, 120):
        truth = bool(limits.satisfied(w))
        seen.add(truth)
        assert ask("model.feasible(w)", w=w.tolist()) is truth
    assert seen == {True, False}


def test_a_moved_share_stops_where_a_limit_binds(plain):
    """Catches a slider that walks out of the feasible set, or that moves a held share."""
    made, _ = plain
    ask, limits = page(made), made.problem.constraints
    legal = made.problem.domains.names.index("legal")
    start = [0.3, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1]
    found = np.array(ask("model.moved(w, k, 0.9, new Set([0]))", w=start, k=legal))
    assert bool(limits.satisfied(found)) and found[0] == pytest.approx(0.3)
    assert found[legal] == pytest.approx(8 * 900_000 / 20_000_000, abs=1e-4)
    assert any("legal" in name for name in ask("model.binding(w)", w=found.tolist()))
    free = found[2:] / found[2:].sum()
    assert free == pytest.approx(np.full(6, 1 / 6), abs=1e-6)


@pytest.mark.parametrize("kind", ["worst", "floors"])
def test_objectives_other_than_means_keep_their_form(kind):
    """Catches a page that averages what the study takes the worst of, or forgets floors."""
    targets = synthetic_study().problem.targets
    objective = (
        Worst(targets[:3])
        if kind == "worst"
        else Floors({targets[0]: 1.0}, {targets[1]: 0.02, targets[4]: 0.02})
    )
    made, _ = study(objective=objective)
    ask = page(made)
    scalar = objective.scalarize(made.problem.targets, made.reference)
    scores = np.random.default_rng(5).normal(2.0, 0.05, (30, len(targets)))
    for row in scores:
        assert ask("model.level(given.objective, y)", y=row.tolist()) == pytest.approx(
            float(scalar.relaxed(row)), abs=1e-9
        )
        assert ask("model.broken(given.objective, y)", y=row.tolist()) is bool(
            np.isinf(scalar.value(row))
        )


def test_the_best_of_the_page_beats_every_mixture_tried(plain):
    """Catches a climb that leaves the feasible set, or that stops at its first start."""
    made, _ = plain
    ask, limits = page(made), made.problem.constraints
    found = np.array(ask("model.best(given.objective, [given.natural])"))
    scalar = made.problem.objective.scalarize(made.problem.targets, made.reference)
    law = made.recommendation.surface
    W = np.random.default_rng(6).dirichlet(np.full(8, 0.5), 4000)
    W = W[limits.satisfied(W)]
    assert bool(limits.satisfied(found, slack=1e-5))
    reached = scalar.relaxed(law.predict(found[None]).mean)[0]
    assert reached < scalar.relaxed(law.predict(W).mean).min() + 1e-4


def test_a_method_with_a_law_brings_its_surface_through_json():
    """Catches a surface lost on the way to a file, and older files refused."""
    world = worlds.Noisy(world=worlds.Additive(size=4, count=2), sd=0.002)
    method = build("method", {"name": "mixing_laws", "runs": 12, "seeds": 2, "refits": 10})
    found, _ = search(method, worlds.world_problem(world), world, 3)
    assert found.surface is not None
    assert recommendation.revive_recommendation(json.loads(json.dumps(found.to_json()))) == found
    old = {k: v for k, v in found.to_json().items() if k != "surface"}
    assert recommendation.revive_recommendation(old) == replace(found, surface=None)


def test_names_cannot_break_out_of_the_page(tmp_path, quick_pictures):
    """Catches a domain's name that ends the script element it stands in."""
    evil = "</script><b>&x"
    made, _ = study()
    other = synthetic_study(names=(evil, *made.problem.domains.names[1:]))
    found = replace(other.recommendation, surface=made.recommendation.surface)
    text = write_report(replace(other, recommendation=found), tmp_path)[0].read_text(
        encoding="utf-8"
    )
    island = re.search(r'id="explorer-values">(.*?)</script>', text, re.DOTALL)
    assert island and json.loads(island.group(1))["domains"][0] == evil


@pytest.mark.skipif(not BROWSER, reason="no Chromium is installed")
def test_the_sliders_work_in_a_browser_without_a_network(plain, tmp_path):
    """Catches a page that needs a server, throws, or does not follow its sliders."""
    made, _ = plain
    source = write_report(made, tmp_path)[0]
    text = source.read_text(encoding="utf-8")
    assert not re.findall(r"""(?:src|href)=["'](?!#)""", text)
    script = """<script>
      const out = [], say = () => document.querySelector('[data-part=say]').textContent;
      const move = (part, i, value) => {
        const input = document.querySelectorAll(`[data-part=${part}] input[type=range]`)[i];
        input.value = value; input.dispatchEvent(new Event('input'));
      };
      move('domains', 1, 0.1); out.push(say()); move('domains', 1, 0.9); out.push(say());
      move('targets', 4, 0.5); out.push(say());
      document.querySelector('[data-part=starts] button:nth-child(2)').click(); out.push(say());
      document.title = 'SAID' + JSON.stringify(out) + 'END';
    </script></body>"""
    copy = tmp_path / "moved.html"
    copy.write_text(text.replace("</body>", script), encoding="utf-8")
    shown = subprocess.run(
        [
            *(BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"),
            f"--user-data-dir={tmp_path}/profile",
            "--host-resolver-rules=MAP * ~NOTFOUND",
            copy.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    ).stdout
    found = re.search(r"SAID(.*?)END", shown)
    assert found, "the page's program stopped"
    first, bound, own, natural = json.loads(
        found.group(1).replace("&quot;", '"').replace("&amp;", "&")
    )
    assert "The recipe's objective" in first
    assert "Binding: legal at most 8 epochs" in bound and bound != first
    assert "Mean at your weights" in own
    assert "KL(mixture || natural) 0.000" in natural
