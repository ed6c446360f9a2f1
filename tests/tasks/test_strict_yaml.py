"""Recipes as the world writes them: no value, however strange, ends in a traceback or runs away."""

import math

import pytest
import yaml

from cuvee.flows.console import printable
from cuvee.flows.recipe import load, olmix
from cuvee.flows.scheduling import schedule
from cuvee.mixtures.errors import CuveeError, RecipeError
from cuvee.tasks import strict_yaml
from cuvee.tasks.tracking import fields

REST = """
corpus: {domains: {a: {path: a.txt}, b: {path: b.txt}}}
objective: {name: mean, weights: {domain/a: 1}}
full_scale: {tokens: 20M}
method: {name: regmix, runs: 4}
"""


def refused(text: str) -> str:
    with pytest.raises(CuveeError) as caught:
        load.parse(text)
    said = str(caught.value)
    assert "\n" not in said and len(said) < 2100 and "Input should" not in said
    return said


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("seed: " + "1" * 5000, "5,000 digits"),
        ("seed: !!int twelve", "'twelve' is no whole number"),
        ("seed: !!bool maybe", "'maybe'"),
        ("seed: !!float", "'' is no number"),
        ("seed: !!timestamp x", "timestamp"),
        ("seed: !!binary x", "binary"),
        ("seed: !!float [1]", "not YAML"),
        ("seed: &a [*a]", "*a holds itself"),
        ("seed: " + "[" * 3000, "deep"),
        ("seed: " + "{a: " * 3000, "deep"),
        ("<<: 5", "merging"),
        ("? [a, b]\n: 1", "unhashable"),
        ('"\\e[31mred": 1', "control character"),
        ("seed: |\n  " + "x" * 2_000_000, "characters"),
    ],
    ids=lambda text: text[:20],
)
def test_hostile_scalars_are_refused_in_a_sentence(tmp_path, line, words):
    """Catches constructors of PyYAML that raise other than YAMLError, in both readers."""
    assert words in refused(f"name: x\n{line}{REST}")
    path = tmp_path / "fit.yaml"
    path.write_text(f"swarm: x\n{line}\n")
    assert not olmix.detect(path)
    with pytest.raises(RecipeError):
        load.load_recipe(path)


@pytest.mark.parametrize("levels", [3, 4, 6, 9])
@pytest.mark.parametrize("where", ["seed: *last", "proxy: *last", "method: {laws: *last}"])
def test_what_aliases_share_is_counted_as_often_as_it_is_used(levels, where):
    """Catches a message that prints 9 to the power of 9 values: no end, and 39 MB before that."""
    lines = ["    - &b0 [" + ", ".join(["lol"] * 9) + "]"]
    lines += [f"    - &b{i} [{', '.join([f'*b{i - 1}'] * 9)}]" for i in range(1, levels)]
    text = "name: x\nlimits:\n" + "\n".join(lines) + f"\n{where.replace('last', f'b{levels - 1}')}"
    head = REST if "method" not in where else REST[: REST.index("method")]
    said = refused(f"{text}{head}")
    assert ("aliases" in said) == (levels >= 6)


def test_many_mistakes_make_one_short_message():
    """Catches a message as long as the recipe is wrong."""
    bounds = ", ".join(f"d{i}: [{i}, x, y]" for i in range(3000))
    said = refused(f"name: x\nconstraints: {{bounds: {{{bounds}}}}}{REST}")
    assert "and 2994 more" in said or "more" in said


def test_names_are_read_as_they_are_written():
    """Catches Norway read as false, a year as a number, and a study's date as a date."""
    text = "name: 2026-02-30" + REST.replace(
        "{a: {path: a.txt}", "{no: {path: a}, 2024: {path: a}, 1e3: {path: a}, ~: {path: a}"
    ).replace("domain/a", "domain/no")
    given = load.parse(text)
    assert given.corpus is not None and given.name == "2026-02-30"
    assert list(given.corpus.domains) == ["no", "2024", "1e3", "~", "b"]


def test_numbers_are_read_as_they_are_meant():
    """Catches 1e-3 read as text, 010 as eight, 1:30 as ninety."""
    text = "{a: 1e-3, b: 010, c: '1:30', d: 1:30, e: 1_000, f: .5, g: 1.e2, h: 0x1F, i: -.inf}"
    assert strict_yaml.load_yaml(text) == {
        "a": 0.001, "b": 10, "c": "1:30", "d": "1:30", "e": 1000, "f": 0.5, "g": 100.0, "h": 31,
        "i": -math.inf,
    }  # fmt: skip


def test_merge_keys_give_way_to_what_is_written_and_are_no_doubles():
    """Catches a merged mapping that is used again and then seems to hold a field twice."""
    text = "a: &a {x: 1, y: 1}\nb: {<<: &q {<<: *a, x: 3}}\nc: *q\nd: {<<: [*a, *q], y: 4}"
    found = strict_yaml.load_yaml(text)
    assert found["b"] == found["c"] == {"x": 3, "y": 1} and found["d"] == {"x": 1, "y": 4}
    with pytest.raises(yaml.YAMLError, match="'x' stands twice"):
        strict_yaml.load_yaml("a: {b: [{x: 1, x: 2}]}")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("constraints: {epochs: .inf}", "constraints.epochs: .*finite.*leave it out"),
        ("constraints: {epochs: {a: .nan}}", "constraints.epochs.a: .*finite"),
        ("constraints: {most_kl: .inf}", "most_kl.*finite"),
        ("constraints: {bounds: {a: [0, .nan]}}", "bounds.a.1.*finite"),
        ("constraints: {ratios: [{a: .inf, b: 1}]}", "ratios.0.a.*finite"),
        ("confirm: {mixtures: {m: {a: .nan}}}", "mixtures.m.a.*finite"),
        ("proxy: {rate: .inf}", "rate.*finite"),
        ("proxy: {tokens: 1e400}", "tokens.*finite"),
        ("proxy: {tokens: 1e30}", "less than or equal to"),
        ("confirm: {seeds: 1000000000}", "less than or equal to 1,?000"),
        ("constraints: {bounds: {a: 0.2}}", r"bounds.a: must be two numbers, \[least, most\]"),
        ("constraints: {bounds: {a: [10, 20]}}", "30 % is 0.3"),
        ("constraints: {groups: [{domains: [a], at_least: 10%}]}", "30 % is 0.3"),
        ("constraints: {groups: [{domains: [no, a]}]}", "domains.0: must be text.*quotes.*False"),
        ("constraints: {epochs: {a: yes}}", "neither true nor false.*quotes"),
        ("constraints: {bounds: {a: [no, yes]}}", "neither true nor false"),
        ("seed: 0x_", "whole number"),
        ("proxy: {tokens: 50 thousand}", "tokens: must be a whole number, such as 400k, 20M"),
        ("proxy: {size: 300k}", "did you mean '0.3M'"),
        ("proxy: {size: 10000M}", "did you mean '1B'"),
        ("proxy: {schedule: cos}", "did you mean 'cosine'"),
        ("evaluation: {tasks: 3}", r"must be a list, \[a, b\]"),
        ("corpus: {domains: {a: a.txt}}", "a: must be a mapping with the fields path"),
        ("runs: 3", "'runs'; it belongs into 'method'"),
        ("at_least: 3", "it belongs into 'constraints.groups'"),
        ("proxy: {seed: 3}", "'proxy.seed'; it belongs higher up"),
        ("export: {paths: {a: 2024}}", "write it in quotes, '2024'"),
        ("continual: {old: []}", "continual.old: may not be empty"),
    ],
    ids=lambda text: text[:40],
)
def test_what_cannot_be_meant_is_refused_when_the_recipe_is_read(line, words):
    """Catches limits that are silently not there or fail after training, and pydantic's words."""
    key = f"{line.split(':')[0]}:"
    rest = "\n".join(row for row in REST.split("\n") if not row.startswith(key))
    with pytest.raises(RecipeError, match=words):
        load.parse(f"name: x\n{line}\n{rest}")
    assert refused(f"name: x\n{line}\n{rest}")


def test_true_and_false_remain_where_they_are_meant():
    """Catches a guard against Norway that takes the flags away."""
    given = load.parse(f"name: x\nproxy: {{match_repetition: yes}}{REST}")
    assert given.proxy.match_repetition is True


def test_names_cannot_command_the_terminal():
    """Catches a domain's name that colors, moves or clears what is shown."""
    assert printable("a\x1b[2Jb\x9b1mc\nd") == "a\\x1b[2Jb\\x9b1mc\nd"


def test_a_schedules_changes_and_the_record_read_a_recipe_as_the_recipe_was_read():
    """Catches a second reader: a date ends the record after all training, `no` becomes false."""
    text = "name: 2026-02-30" + REST.replace(
        "{a: {path: a.txt}", '{no: {path: "1e3"}, a: {path: a}'
    )
    _, changed = schedule.recipe_with_changes(text + "\n", {"seed": 7})
    given = load.parse(changed)
    assert given.corpus is not None and given.seed == 7 and given.name == "2026-02-30"
    assert list(given.corpus.domains) == ["no", "a", "b"]
    assert given.corpus.domains["no"].path == "1e3"
    assert fields._objective(text, None) == "{name: mean, weights: {domain/a: 1}}"  # type: ignore
    for value in ("1e3", "010", ".inf", "no", "2026-02-30", "1_0", "0x1F", "~", "-.5", "1:30"):
        assert strict_yaml.load_yaml(strict_yaml.dump_yaml({"a": value})) == {"a": value}
