"""A plan of sampled domains: what will be read, what exists, and what is too small."""

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tiny_study

from cuvee.evaluation.suites import Limits, Suite
from cuvee.flows.plan import design_table, domain_figures, sample_sentences
from cuvee.flows.plan_size import unit_figures, unit_sentences
from cuvee.flows.recipe.load import parse
from cuvee.flows.study.recipe_sources import reading_sentence
from cuvee.mixtures.constraints import constrain
from cuvee.mixtures.domains import Domain, DomainSet
from cuvee.mixtures.objectives import Floors, WeightedMean, Worst
from cuvee.mixtures.problem import Problem, Proxy
from cuvee.proxies.data.sources.documents import Sample
from cuvee.proxies.data.sources.text_files import Files

WEB = Domain("web", 8_000_000, 32_000_000, "w", shard_tokens=1_000_000, tokens_error=400_000.0)
DOMAINS = DomainSet((WEB, Domain("code", 2_000_000, 8_000_000, "c")))
PROBLEM = Problem(
    domains=DOMAINS,
    targets=("domain/web",),
    objective=WeightedMean({"domain/web": 1.0}),
    constraints=constrain(DOMAINS, full_tokens=16_000_000),
    proxy=Proxy("0.6M", 500_000),
    full_tokens=16_000_000,
)


def test_the_table_holds_what_exists_apart_from_what_lies_on_disk() -> None:
    """Catches epochs of a proxy over the whole domain (0.06), epochs of the full run over the
    sample (16), and natural shares without the error of what they are made of."""
    table = design_table(PROBLEM, (PROBLEM.spec([1.0, 0.0], 0), PROBLEM.spec([0.5, 0.5], 0)))
    rows = [[*column.cells] for column in table.columns]
    web = dict(zip((c.header for c in table.columns), (r[0] for r in rows), strict=True))
    assert (web["tokens"], web["on disk"]) == ("8.00M ± 400k", "1.00M")
    assert web["natural"] == "80.0% ± 0.8%"
    assert (web["epochs, proxy"], web["epochs, full"]) == ("0.50", "2.00")
    assert domain_figures(PROBLEM)["samples"] == {"web": {"tokens": 1_000_000, "error": 4e5}}


def test_a_sample_that_proxies_wear_out_is_named_with_what_would_do() -> None:
    """Catches a plan that is silent about repetition that the full run will not have."""
    longer = dataclasses.replace(PROBLEM, proxy=Proxy("0.6M", 4_000_000))
    said = sample_sentences(longer)
    assert len(sample_sentences(PROBLEM)) == 1 and len(said) == 2
    assert said[-1].endswith("take 2M or more")


def test_what_will_be_read_is_said_before_it_is(tmp_path: Path) -> None:
    """Catches the whole of a domain announced where a sample is read."""
    sources = {}
    for name, count in (("web", 40), ("code", 2)):
        (tmp_path / name).mkdir()
        for number in range(count):
            (tmp_path / name / f"{number}.txt").write_text("x" * 100_000)
        sources[name] = Files(str(tmp_path / name))
    said = reading_sentence(sources, {"web": Sample(250_000)})
    assert "prepared: 1.2 MB;" in said and "web about 1 MB of this machine" in said
    assert "250k tokens by parts out of 4 MB; code 200 KB of this machine" in said
    assert "about 4 MB" in reading_sentence(sources, {"web": Sample(250_000, "content")})


@pytest.mark.parametrize(
    ("documents", "limit", "said"),
    [
        (40, 0, ()),
        (40, 400, ()),
        (40, 90, ("web (9 of 40)", "evaluation.heldout_tokens: 1k for 30 where")),
        (12, 0, ("web (12 of 12)",)),
    ],
)
def test_a_gain_that_will_hold_for_no_new_documents_is_told_before(
    tmp_path: Path, documents: int, limit: int, said: tuple[str, ...]
) -> None:
    """Catches windows counted for documents, advice where all text is scored already, and a warning
    that every study gets. A document is one window of 10 tokens and its end."""
    text = SimpleNamespace(
        tokens=np.tile([*range(1, 11), 0], documents), offsets=np.arange(documents + 1) * 11
    )
    corpus = SimpleNamespace(valid={"web": text}.get, eot=0)
    suite = SimpleNamespace(tasks=())
    prepared = SimpleNamespace(corpus=corpus, limits=Limits(tokens=limit), suite=suite)
    recipe = parse(tiny_study.recipe(tmp_path, confirm="{seeds: 2}"))
    lines = unit_sentences(unit_figures(recipe, prepared, PROBLEM, 16), PROBLEM)
    assert len(lines) == len(said) and all(map(str.__contains__, lines, said))
    alone = parse(tiny_study.recipe(tmp_path, confirm="null"))
    assert unit_figures(alone, prepared, PROBLEM, 16) == {}


@pytest.mark.parametrize(
    ("count", "limit", "said"),
    [
        (40, None, ()),
        (40, 30, ()),
        (40, 20, ("of qa (20 of 40)", "evaluation.limit: 30 for 30 where")),
        (12, 20, ("of qa (12 of 12)",)),
    ],
)
def test_a_gain_that_will_hold_for_no_new_items_is_told_before(
    tmp_path: Path, count: int, limit: int | None, said: tuple[str, ...]
) -> None:
    """Catches items that nobody counts, a limit above what there is taken for items, advice that
    no limit can follow, and a warning for a task that has a floor and is in no gain."""
    items = [{"query": f"{i}?", "choices": ["a", "b"], "gold": 0} for i in range(count)]
    (tmp_path / "qa.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    tasks = dict.fromkeys(("qa", "floor"), tmp_path / "qa.jsonl")
    prepared = SimpleNamespace(suite=Suite(tuple(tasks), limit, tmp_path, tuple(tasks.items())))
    aim = Floors({"task/qa": 1.0}, {"task/floor": 0.1})
    asked = dataclasses.replace(PROBLEM, targets=("task/qa", "task/floor"), objective=aim)
    recipe = parse(tiny_study.recipe(tmp_path, confirm="{seeds: 2}"))
    units = unit_figures(recipe, prepared, asked, 16)
    assert [*units] == ["task/qa"] and units["task/qa"]["scored"] == min(count, limit or count)
    lines = unit_sentences(units, asked)
    assert len(lines) == len(said) and all(map(str.__contains__, lines, said))
    worst = dataclasses.replace(asked, objective=Worst(asked.targets))
    (line,) = unit_sentences(unit_figures(recipe, prepared, worst, 16), worst)
    assert "for new seeds alone, however much is scored" in line
