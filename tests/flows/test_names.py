"""Mistakes that a recipe's names and numbers show are told when it is read, all of them at once."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_study
import yaml

from cuvee.flows.recipe.load import parse
from cuvee.flows.workspace import open_workspace
from cuvee.mixtures.errors import RecipeError

NOWHERE = Path("/nowhere")  # nothing is read from disk: the text need not be there


def told(**changes: str) -> str:
    with pytest.raises(RecipeError) as caught:
        parse(tiny_study.recipe(NOWHERE, **changes))
    return str(caught.value)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"objective": "{name: mean, weights: {domain/proze: 1}}"}, "did you mean 'domain/prose'?"),
        ({"objective": "{name: mean, weights: {task/mmlu: 1}}"}, "unknown target 'task/mmlu'"),
        ({"objective": "{name: worst, members: [domain/code, domain/c]}"}, "unknown target"),
        ({"constraints": "{bounds: {cod: [0, 0.5]}}"}, "bounds: unknown domain 'cod'; did you"),
        ({"constraints": "{bounds: {code: [0.5, 0.2]}}"}, r"bounds of 'code' must be"),
        ({"constraints": "{groups: [{domains: [code, x], at_most: 0.5}]}"}, "unknown domain 'x'"),
        ({"constraints": "{required: {cod: 0.1}}"}, "required: unknown domain 'cod'"),
        ({"constraints": "{epochs: {cod: 2}}"}, "epochs: unknown domain 'cod'"),
        ({"constraints": "{epochs: {code: -2}}"}, "epoch cap of 'code'"),
        ({"constraints": "{bounds: {code: [0.6, 1], prose: [0.6, 1]}}"}, "code at least 0.6"),
        ({"constraints": "{ratios: [{code: 1, x: 2}]}"}, "lacks x"),
        ({"confirm": "{mixtures: {ours: {code: 0.5, x: 0.5}}}"}, "unknown domain 'x'"),
        ({"confirm": "{mixtures: {ours: {code: 0.5, prose: 0.2}}}"}, "mixtures.ours: .*0.7"),
        ({"proxy": "{size: 0.3M, tokens: 1k}"}, "give at least 40,960 tokens"),
        ({"evaluation": "{suite: quick}"}, "suites: quickstart, offline; `suite: null` for none"),
        ({"evaluation": "{suite: none}"}, "`suite: null` for none"),
        ({"evaluation": "{suite: null, held_out_targets: [domain/cod]}"},
         "held_out_targets: unknown target"),
        ({"objective": "{name: mean, weights: {domain/code: 1}}",
          "evaluation": "{suite: null, held_out_targets: [domain/code]}"},
         "reads 'domain/code'; held out"),
        ({"evaluation": "{suite: null, tasks: [../qa]}"}, "is a path"),
        ({"export": "{paths: {cod: /data}}"}, "export.paths: unknown domain 'cod'"),
        ({"export": "{validation: {cod: /d}}"}, "export.validation: unknown domain 'cod'"),
    ],
)  # fmt: skip
def test_a_wrong_name_is_told_before_anything_is_read(changes, why):
    """Catches names that are first looked up when the whole corpus has been tokenized."""
    assert re.search(why, told(**changes)), told(**changes)


def test_all_mistakes_are_told_at_once():
    """Catches a check that stops at the first, so that each costs another attempt."""
    found = told(
        objective="{name: mean, weights: {domain/proze: 1}}",
        constraints="{bounds: {cod: [0, 1]}, required: {table: 0.1, coda: 0.1}}",
        proxy="{size: 0.3M, tokens: 1k}",
    )
    assert all(word in found for word in ("'domain/proze'", "'cod'", "'table'", "'coda'", "40,960"))


def test_a_domain_alone_has_nothing_to_mix_with():
    """Catches a study of one domain that is prepared first and refused then."""
    values = yaml.safe_load(tiny_study.recipe(NOWHERE))
    values["corpus"]["domains"] = {"prose": {"path": "x"}}
    with pytest.raises(RecipeError, match="nothing to mix it with"):
        parse(yaml.safe_dump(values))


def test_what_is_right_is_let_through():
    """Catches a check that refuses tasks of a suite, families, epoch caps or kept ratios."""
    parse(
        tiny_study.recipe(
            NOWHERE,
            evaluation="{tasks: [arc_easy], custom: {qa: qa.jsonl}}",
            objective="{name: mean, weights: {tasks: 1, domain/code: 1, task/qa: 1}, "
            "families: {tasks: [task/piqa, task/arc_easy]}}",
            constraints="{epochs: {code: 0.1}, most_kl: 0.5, ratios: [{code: 1, prose: 2}]}",
            confirm="{mixtures: {ours: {code: 0.5, prose: 0.5}}}",
        )
    )


@pytest.mark.parametrize(("hub", "offline"), [(True, None), (False, "1")])
def test_only_what_is_shipped_keeps_away_from_the_network(monkeypatch, tmp_path, hub, offline):
    """Catches a switch that is thrown for the tasks of a user's choice too, in an empty cache."""
    names = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_HOME")
    for name in names:
        monkeypatch.setenv(name, "x")  # so that it is put back, whatever becomes of it
        monkeypatch.delenv(name)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    open_workspace(tmp_path / "home", hub=hub)
    home = None if hub else str(tmp_path / "home" / "huggingface")
    assert [os.environ.get(name) for name in names] == [offline, offline, home]
    recipe = tiny_study.recipe(
        NOWHERE, evaluation=f"{{tasks: [{'arc_easy' if hub else 'boolq_offline'}]}}"
    )
    assert parse(recipe).hub == hub


@pytest.mark.slow
def test_the_message_names_what_forbids_the_network(tmp_path):
    """Catches advice to have a network or the data, where a variable forbids the one and another
    hides the other."""
    tiny_study.write_corpus(tmp_path / "corpus")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        tiny_study.recipe(tmp_path / "corpus", evaluation="{suite: null, tasks: [arc_easy]}")
    )
    environment = {n: v for n, v in os.environ.items() if not n.startswith("HF_")}
    environment |= {"HF_HUB_OFFLINE": "1", "HOME": str(tmp_path / "user")}
    found = subprocess.run(
        [sys.executable, "-m", "cuvee.flows", "plan", str(recipe),
         "--home", str(tmp_path / "home")],
        capture_output=True, text=True, check=False, env=environment,
    )  # fmt: skip
    assert found.returncode == 2
    assert "HF_HUB_OFFLINE=1 in the environment forbid" in found.stderr
    assert str(tmp_path / "user" / ".cache" / "huggingface") in found.stderr
