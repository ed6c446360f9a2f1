"""Exports, read back as the trainer reads them: the tokens that each file makes a trainer draw.

The readers (`export_readers.py`) follow the trainers' documented grammar.
`test_export_trainers.py` does the same with the trainers' own libraries, where they are installed.
"""

import ast
import dataclasses
import json

import pytest
import yaml
from export_readers import (
    DOMAINS,
    FIXED,
    PATHS,
    READERS,
    STAGED,
    TOKENS,
    by_path,
    constants,
    held_out,
    levanter,
    mosaic,
    once,
)
from export_readers import megatron_phase as phase

from cuvee.mixtures.domains import DomainSet
from cuvee.mixtures.errors import CuveeError, DataError, ExportError, UnknownName
from cuvee.mixtures.runs.run_spec import Stage
from cuvee.tasks import export
from cuvee.tasks.export import ExportSpec

ROUGH = {"mixtera": 0.01, "levanter": 0.002}  # what dealing out in chunks and blocks costs


@pytest.mark.parametrize("name", export.format_names())
def test_a_trainer_draws_the_recommended_tokens(name):
    """Catches weights in the wrong unit, lost domains, kept zeros, sums and repeats gone wrong."""
    blend = once(FIXED) if name == "mixtera" else FIXED  # which reads data once
    drawn = READERS[name](export.render_export(export.build_format(name), blend), blend)
    want = {"web": 0.5, "code": 0.3, "chat: short": 0.2}
    assert set(drawn) == set(want)
    for domain, share in want.items():
        assert drawn[domain] == pytest.approx(share * blend.tokens, rel=ROUGH.get(name, 2e-4))


def test_staged_formats_change_the_mixture_where_the_stage_begins():
    """Catches stages averaged away, or begun at a token where a step or a sequence is meant."""
    want = {"web": 0.6 * 0.75 + 0.2 * 0.25, "code": 0.3, "chat: short": 0.1 * 0.75 + 0.5 * 0.25}
    seen = []
    for name in export.format_names():
        if not export.build_format(name).staged or name == "megatron":
            continue
        blend = once(STAGED) if name == "mixtera" else STAGED
        drawn = READERS[name](export.render_export(export.build_format(name), blend), blend)
        for domain, share in want.items():
            assert drawn[domain] == pytest.approx(share * blend.tokens, rel=0.01), (name, domain)
        seen.append(name)
    assert {"levanter", "nanotron", "mixtera", "mosaic", "json", "csv", "yaml"} == set(seen)


def test_megatron_has_a_blend_per_phase_and_the_iterations_between_them():
    """Catches phases at tokens, an off-by-one in the iteration of the transition, and a length in
    iterations: Megatron-LM looks for the present phase among samples, `--train-samples` last, and
    ends with a TypeError where that is not given (`get_train_valid_test_num_samples`)."""
    files = export.render_export(export.build_format("megatron"), STAGED)
    one = dataclasses.replace(STAGED, sequence=1)
    first, second = phase(files, one, "-1", 60_000), phase(files, one, "-2", 20_000)
    assert first == pytest.approx({"web": 36_000, "code": 18_000, "chat: short": 6_000})
    assert second == pytest.approx({"web": 4_000, "code": 6_000, "chat: short": 10_000})
    words = files["arguments-2.txt"].split()
    flags = dict(zip(words[::2], words[1::2], strict=True))
    assert flags["--phase-transition-iterations"] == "3750"  # of 5,000 of 16 x 512 tokens
    assert flags["--train-samples"] == "80000" and "--train-iters" not in flags
    assert flags["--data-args-path"] == "blend-2.txt"


PLACED = {  # formats whose trainer takes validation sets
    *("megatron", "olmo_core", "mosaic", "levanter", "torchtitan", "axolotl", "json", "yaml"),
    "automodel",
}


@pytest.mark.parametrize("name", export.format_names())
def test_validation_sets_travel_where_the_trainer_takes_them(name):
    """Catches sets that are lost or joined, those of a domain that is not drawn, and shares moved.

    The readers hold each to its trainer's grammar: Megatron-LM takes no split beside them.
    """
    held = {"web": ("/held/w.jsonl",), "unused": ("/held/u1.jsonl", "/held/u2.jsonl")}
    bare = once(FIXED) if name == "mixtera" else FIXED
    blend, form = dataclasses.replace(bare, validation=held), export.build_format(name)
    files, before = export.render_export(form, blend), export.render_export(form, bare)
    assert READERS[name](files, blend) == READERS[name](before, bare)
    assert (files != before) == (name in PLACED)
    if name in PLACED:
        found = held_out(name, files)
        assert [path for paths in found.values() for path in paths] == [
            *held["web"],
            *held["unused"],
        ]
        labels = [label.removeprefix("study/").removesuffix("/validation") for label in found]
        assert labels in (["web", "unused"], [""])
    with pytest.raises(DataError, match="no domain 'wbe'"):
        dataclasses.replace(bare, validation={"wbe": ("/x",)})
    for empty in ((), ("",), ("/x", "")):
        with pytest.raises(ExportError, match="export.validation names nothing for web"):
            dataclasses.replace(bare, validation={"web": empty})


@pytest.mark.parametrize("name", sorted(PLACED))
@pytest.mark.parametrize(
    ("domains", "held", "refuse"),
    [
        (("web", "web/validation"), ("web",), {"torchtitan", "levanter"}),
        (("web", "code"), ("web", "Web"), {"torchtitan"}),
    ],
)
def test_no_validation_set_takes_another_s_place(name, domains, held, refuse):
    """Catches a held-out set that is trained on in the place of a domain of its name, and two sets
    of which one is lost, with names that the readers of exports cannot tell apart.
    """
    all_names = (*domains, *(one for one in held if one not in domains))
    known = DomainSet(tuple(dataclasses.replace(DOMAINS.domains[0], name=n) for n in all_names))
    shares = (0.5, 0.5, *(0.0 for _ in all_names[2:]))
    blend = dataclasses.replace(
        FIXED,
        domains=known,
        stages=(Stage(shares),),
        paths={n: (f"/data/{i}.jsonl",) for i, n in enumerate(domains)},
        validation={n: (f"/held/{i}.jsonl",) for i, n in enumerate(held)},
    )
    form = export.build_format(name)
    if name in refuse:
        with pytest.raises(ExportError, match="is called .*/validation.*rename one"):
            export.render_export(form, blend)
        return
    text = "".join(export.render_export(form, blend).values())
    assert all(f"/data/{i}" in text for i in range(2))
    assert all(f"/held/{i}" in text for i in range(len(held)))


def test_formats_without_stages_refuse_them_and_take_one_at_a_time():
    """Catches stages that are averaged or cut off without a word."""
    for name in export.format_names():
        form = export.build_format(name)
        if form.staged:
            continue
        with pytest.raises(ExportError, match=rf"{name} has no stages.*--stage N"):
            export.render_export(form, STAGED)
        drawn = READERS[name](export.render_export(form, STAGED.alone(2)), STAGED.alone(2))
        assert drawn["chat: short"] == pytest.approx(0.5 * TOKENS / 4, rel=1e-3)
    with pytest.raises(ExportError, match="no stage 3"):
        STAGED.alone(3)


@pytest.mark.parametrize("name", ["mosaic", "litdata"])
def test_streams_of_documents_are_weighed_by_documents(name):
    """Catches shares of tokens given to a loader whose samples are documents."""
    files = export.render_export(export.build_format(name, {"samples": "documents"}), FIXED)
    drawn = {"web": 0.5 / 500, "code": 0.3 / 4000, "chat: short": 0.2 / 50}
    want = {domain: share / sum(drawn.values()) for domain, share in drawn.items()}
    if name == "mosaic":
        data = yaml.safe_load(files["streams.yaml"])["train_loader"]["dataset"]
        given = {n: s["proportion"] for n, s in data["streams"].items()}
        assert data["epoch_size"] == round(TOKENS * sum(drawn.values()))
        counted = mosaic(files, FIXED, documents=True)
        assert counted == pytest.approx({n: s * TOKENS for n, s in FIXED.shares.items()}, rel=2e-3)
    else:
        values = constants(files["mixture.py"])
        given = {}
        for path, weight in zip(values["PATHS"], values["WEIGHTS"], strict=True):
            name = by_path(FIXED, path)
            given[name] = given.get(name, 0) + weight
    assert given == pytest.approx(want)


def test_mosaic_s_stages_are_a_curriculum_of_tokens_and_no_documents():
    """Catches durations in samples, a first stage that is scheduled twice, documents in stages."""
    files = export.render_export(export.build_format("mosaic"), STAGED)
    given = yaml.safe_load(files["streams.yaml"])
    changes = given["callbacks"]["curriculum_learning"]
    assert changes["duration"] == "30720000tok" and given["max_duration"] == "40960000tok"
    assert [mix["duration"] for mix in changes["schedule"]] == ["10240000tok"]
    assert given["train_loader"]["dataset"]["epoch_size"] == 60_000
    with pytest.raises(ExportError, match=r"counts stages in tokens.*--stage N"):
        export.render_export(export.build_format("mosaic", {"samples": "documents"}), STAGED)


def test_what_is_missing_is_named_with_the_field_that_gives_it():
    """Catches a guess in place of a path, a length or a count that nobody gave."""
    bare = dataclasses.replace(FIXED, paths={"web": ("/data/web",)})
    with pytest.raises(ExportError, match=r"export.paths names nothing for code, chat: short"):
        export.render_export(export.build_format("nanotron"), bare)
    with pytest.raises(ExportError, match=r"export.sequence_length"):
        export.render_export(
            export.build_format("mosaic"), dataclasses.replace(FIXED, sequence=None)
        )
    with pytest.raises(ExportError, match=r"export.sequence_length and export.batch"):
        export.render_export(
            export.build_format("nanotron"), dataclasses.replace(STAGED, sequence=None, batch=None)
        )
    with pytest.raises(ExportError, match=r"tables.token_counts"):
        export.render_export(
            export.build_format("olmo_core"), dataclasses.replace(FIXED, counted=False)
        )
    with pytest.raises(ExportError, match="weighs documents"):
        export.render_export(
            export.build_format("huggingface"), dataclasses.replace(FIXED, documented=False)
        )
    with pytest.raises(ExportError, match="several for web"):
        two = {**PATHS, "web": ("/data/a", "/data/b")}
        export.render_export(export.build_format("megatron"), dataclasses.replace(FIXED, paths=two))
    with pytest.raises(ExportError, match="holds a blank"):
        blank = {**PATHS, "web": ("/data/my web",)}
        export.render_export(
            export.build_format("megatron"), dataclasses.replace(FIXED, paths=blank)
        )
    with pytest.raises(DataError, match="no domain 'wbe'"):
        dataclasses.replace(FIXED, paths={"wbe": ("/x",)})
    with pytest.raises(UnknownName, match="did you mean 'megatron'"):
        export.build_format("megatrom")
    with pytest.raises(UnknownName, match="did you mean 'tokenizer'"):
        export.build_format("levanter", {"tokeniser": "x"})


def test_a_run_shorter_than_a_sequence_is_refused():
    """Catches a run that is exported as if nobody had said how long it is."""
    short = dataclasses.replace(FIXED, tokens=1000, sequence=4096)
    forms = [
        form
        for form in map(export.build_format, export.format_names())
        if form.unit == export.SEQUENCES
    ]
    assert len(forms) > 4
    for form in forms:
        with pytest.raises(ExportError, match="1,000 tokens is shorter than one of 4,096"):
            export.render_export(form, short)


def test_a_share_too_small_for_a_block_is_refused_not_dropped():
    """Catches a domain that Levanter or Mixtera would leave out with at most a warning."""
    thin = dataclasses.replace(FIXED, stages=(Stage((0.79999, 0.2, 0.0, 0.00001)),))
    with pytest.raises(ExportError, match=r"less than one sequence of Levanter's largest block"):
        export.render_export(export.build_format("levanter"), thin)
    code = dataclasses.replace(FIXED, stages=(Stage((0.5, 0.0005, 0.0, 0.4995)),))
    with pytest.raises(ExportError, match=r"chunk_size above"):
        export.render_export(export.build_format("mixtera"), code)


def test_levanter_s_block_grows_until_small_shares_are_met():
    """Catches the default block, in which 0.0014 of the sequences would be 0.00098."""
    small = dataclasses.replace(FIXED, stages=(Stage((0.5, 0.4986, 0.0, 0.0014)),))
    drawn = levanter(export.render_export(export.build_format("levanter"), small), small)
    assert drawn["chat: short"] == pytest.approx(0.0014 * TOKENS, rel=0.01)


def test_dust_is_dropped():
    """Catches weights of 1e-12 of an optimizer that trainers refuse or round in their own ways."""
    dust = dataclasses.replace(FIXED, stages=(Stage((0.5, 0.5 - 1e-9, 1e-9, 0.0)),))
    assert list(dust.shares) == ["web", "code"]  # 1e-9 of 40,960,000 tokens is none
    assert sum(dust.shares.values()) == pytest.approx(1, abs=1e-11)


@pytest.mark.parametrize("path", ['/d/"; import os; "', "/d/{x}", "/d/\\n'''", "/d/☃"])
def test_paths_and_names_stay_data_in_python_files(path):
    """Catches a path that becomes code, or breaks the file, where a trainer is set up in Python."""
    odd = dataclasses.replace(once(FIXED), paths={**PATHS, "web": (path,)})
    for name in ("huggingface", "litdata", "torchtitan", "mixtera"):
        [source] = export.render_export(export.build_format(name), odd).values()
        assert path in json.dumps(constants(source), ensure_ascii=False).replace(
            "\\\\", "\\"
        ).replace('\\"', '"')
        tree = ast.parse(source)
        calls = [
            n
            for n in tree.body
            if isinstance(n, ast.Expr) and not isinstance(n.value, ast.Constant)
        ]
        assert calls == [], f"{name} runs something at import"


def test_every_format_has_a_reader_here():
    """Catches a format that was added without a check of what its trainer would draw."""
    assert set(READERS) == set(export.format_names())
    for name in export.format_names():
        assert export.build_format(name).unit


def test_numbers_are_numbers_to_yaml():
    """Catches 1e-05, which YAML 1.1 reads as a word."""
    thin = dataclasses.replace(FIXED, stages=(Stage((0.5, 0.49998, 0.0, 0.00002)),))
    files = export.render_export(export.build_format("olmo_core"), thin)
    ratios = [s["target_ratio"] for s in yaml.safe_load(files["sources.yaml"])["sources"]]
    assert all(isinstance(ratio, float) for ratio in ratios)


def test_every_refusal_is_one_that_a_person_can_read():
    """Catches a KeyError or ZeroDivisionError from a blend with little in it."""
    poor = ExportSpec("poor", DOMAINS, STAGED.stages, 0, {}, counted=False, documented=False)
    for name in export.format_names():
        for blend in (poor, dataclasses.replace(poor, paths=PATHS)):
            try:
                assert export.render_export(export.build_format(name), blend)
            except CuveeError as error:
                assert len(str(error)) > 40
