"""What `cuvee init` makes of folders and tables, as the real loader, planner and fit take it."""

import csv
import gzip
import io
import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command import inside
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from cuvee.flows.console import Display
from cuvee.flows.init import language
from cuvee.flows.init.draft import write_draft
from cuvee.flows.init.init import draft_recipe
from cuvee.flows.init.recipe_text import commented_recipe, scalar
from cuvee.flows.init.text_folder import LEAST, MOST, look_at_text
from cuvee.flows.plan import print_plan
from cuvee.flows.recipe.json_schema import schema_text
from cuvee.flows.recipe.load import load_recipe, parse
from cuvee.flows.recipe.schema import Recipe
from cuvee.flows.study.recipe_sources import recipe_files
from cuvee.flows.study.table_problem import from_tables
from cuvee.flows.workspace import Workspace
from cuvee.mixtures.errors import CuveeError, DataError, RecipeError
from cuvee.proxies.data.files import file_digest
from cuvee.tasks import strict_yaml

NAMES = st.text(
    st.characters(blacklist_characters="/\x00", blacklist_categories=["Cs"]),
    min_size=1,
    max_size=20,
).filter(lambda name: name not in (".", "..") and name[0] != "." and len(name.encode()) < 200)


def documents(seed: int, size: int = LEAST + 20_000) -> list[str]:
    """Texts of unlike words, of so many bytes together."""
    rng = np.random.default_rng(seed)
    words = ["".join(rng.choice(list("abcdefghij"), 5)) for _ in range(300)]
    texts, total = [], 0
    while total < size:
        texts.append(" ".join(rng.choice(words, 200)))
        total += len(texts[-1])
    return texts


def rows(path: Path, seed: int, field: str = "text") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"id": i, field: text}) for i, text in enumerate(documents(seed))]
    opened = gzip.open(path, "wt") if path.suffix == ".gz" else path.open("w")
    with opened as file:
        file.write("\n".join(lines) + "\n")


def drafted(folder: Path, to: Path) -> Recipe:
    """The recipe for a folder, written and read back by the loader."""
    write_draft(draft_recipe([], folder, here=folder, to=to), to, force=True)
    return load_recipe(to)[0]


def test_a_folder_of_many_kinds(tmp_path):
    """Catches fields that are not the text's, shards that are lost, and notes taken for text."""
    data = tmp_path / "data"
    rows(data / "web-00001-of-00002.jsonl.gz", 1, "content")
    rows(data / "web-00002-of-00002.jsonl.gz", 2, "content")
    (data / "books").mkdir()
    for i, text in enumerate(documents(3)):
        (data / "books" / f"{i}.txt").write_text(text)
    pq.write_table(
        pa.table({"id": ["x"] * 200, "body": documents(4)[:100] * 2}), data / "law.parquet"
    )
    (data / "notes.md").write_text("how this was made")
    to = tmp_path / "recipe.yaml"
    draft = draft_recipe([], data, here=tmp_path, to=to)
    write_draft(draft, to, force=False)
    recipe, text = load_recipe(to)
    assert {n: s.field for n, s in recipe.corpus.domains.items()} == {
        "web": "content", "books": "text", "law": "body",
    }  # fmt: skip
    files = recipe_files(recipe, Workspace(tmp_path), file_digest, None)
    assert [p.name for p in files["web"].files] == [
        f"web-0000{i}-of-00002.jsonl.gz" for i in (1, 2)
    ]
    assert any("notes.md" in line for line in draft.said)
    assert text.count("# ") > 10 and "CHANGE THIS FIRST" in text
    assert text.startswith("# yaml-language-server: $schema=recipe.schema.json\n")


def test_text_within_other_fields_is_found(tmp_path):
    """Catches a look at the top of rows alone, which takes the short title there for the text, or
    finds none; in rows of JSON and in columns of structs."""
    data = tmp_path / "data"
    data.mkdir()
    texts = documents(5)[:120]
    rows_ = [{"title": f"t{i}", "doc": {"id": i, "body": text}} for i, text in enumerate(texts)]
    (data / "web.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows_))
    bodies = [{"body": text, "n": i} for i, text in enumerate(texts)]
    pq.write_table(pa.table({"title": ["t"] * len(texts), "doc": bodies}), data / "law.parquet")
    recipe = drafted(data, tmp_path / "recipe.yaml")
    found = {name: domain.field for name, domain in recipe.corpus.domains.items()}
    assert found == {"web": "doc.body", "law": "doc.body"}


@pytest.mark.slow
def test_a_drafted_recipe_is_planned_as_it_stands(tmp_path):
    """Catches a study that the plan refuses: too little text, clashing constraints, few tokens."""
    for seed, name in enumerate(("a", "b", "c")):
        rows(tmp_path / "data" / name / "x.jsonl", seed, "content")
    recipe = drafted(tmp_path / "data", tmp_path / "recipe.yaml")
    said = io.StringIO()
    display = Display(Console(file=said))
    print_plan(recipe, Workspace(tmp_path / "home", display), display)
    assert "Study data: 3 domains" in said.getvalue() and "In all: " in said.getvalue()


@given(names=st.lists(NAMES, min_size=2, max_size=3, unique_by=str.casefold))
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_name_of_a_folder_is_read_back(names, tmp_path_factory):
    """Catches names that YAML takes for values, quotes and line ends, and domains of one name."""
    data = tmp_path_factory.mktemp("data")
    for i, name in enumerate(names):
        try:
            (data / name).mkdir()
        except OSError:
            return
        (data / name / "a.jsonl").write_text(json.dumps({"text": "word " * (LEAST // 4)}) + "\n")
        os.link(data / name / "a.jsonl", data / name / f"{i}.jsonl")
    recipe = drafted(data, data.parent / f"{data.name}.yaml")
    read = {
        path
        for source in recipe_files(recipe, Workspace(data), file_digest, None).values()
        for path in (Path(file.url) for file in source.files)
    }
    assert {path.parent.name for path in read} == set(names)


@given(st.text(st.characters(blacklist_categories=["Cs"]), max_size=30))
def test_any_text_is_a_scalar(text):
    """Catches a plain scalar that reads as a number, a flag, null or another text."""
    printed = f"x: [{scalar(text)}]"
    assert strict_yaml.load_yaml(printed) == {"x": [text]}


def test_a_flag_is_no_number():
    """Catches 1 that is written as true, which is equal to it in Python."""
    text = commented_recipe({"seed": 1, "corpus": None, "tables": {"every": True}}, {}, "")
    assert "seed: 1\n" in text and "corpus: null" in text and "every: true" in text


def test_what_cannot_be_used_is_left_out_and_named(tmp_path):
    """Catches binary, tiny, single and looping things that become domains, or end it all."""
    data = tmp_path / "data"
    for name in ("a", "b"):
        rows(data / name / "x.jsonl", ord(name))
    for name, content in (
        ("tiny", b"hello"), ("binary", b"\x00\xff" * LEAST), ("one", b"word " * LEAST),
        ("broken", b"{" * 2000),
    ):  # fmt: skip
        (data / name).mkdir()
        ending = "jsonl" if name == "broken" else "txt"
        (data / name / f"x.{ending}").write_bytes(content)
    (data / "damaged").mkdir()
    (data / "damaged" / "x.parquet").write_bytes(b"PAR1" + b"x" * 100)
    (data / "packed").mkdir()
    (data / "packed" / "x.jsonl.gz").write_bytes(b"\x1f\x8b\x08")
    (data / "loop").symlink_to(data)
    (data / "self").symlink_to("self")
    (data / "empty").mkdir()
    os.mkfifo(data / "pipe.jsonl")
    found = look_at_text(data)
    assert [domain.name for domain in found.domains] == ["a", "b"]
    for name in ("tiny", "binary", "one", "broken", "damaged", "packed", "loop"):
        assert any(name in line for line in found.left_out), name


def test_a_file_that_no_plan_gets_past_keeps_its_domain_out(tmp_path):
    """Catches a recipe with a damaged file, or a table without the column, among good ones."""
    for name in ("a", "b", "c", "d"):
        rows(tmp_path / "data" / name / "x.jsonl", ord(name))
    (tmp_path / "data" / "c" / "y.jsonl.gz").write_bytes(b"\x1f\x8b\x08 broken")
    pq.write_table(pa.table({"other": ["x" * 99] * 9}), tmp_path / "data" / "d" / "y.parquet")
    found = look_at_text(tmp_path / "data")
    assert [domain.name for domain in found.domains] == ["a", "b"]
    assert any("c is left out" in line and "y.jsonl.gz" in line for line in found.left_out)
    assert any("d is left out" in line and "no column 'text'" in line for line in found.left_out)


def test_a_row_too_long_for_a_look_is_no_damage(tmp_path, monkeypatch):
    """Catches `on_error: skip`, which would drop rows, for a file that is sound."""
    monkeypatch.setattr("cuvee.proxies.data.sources.heads.LONGEST_ROW", 1 << 16)
    for name in ("a", "b"):
        rows(tmp_path / "data" / name / "x.jsonl", ord(name))
    long = tmp_path / "data" / "a" / "long.jsonl"
    long.write_text(json.dumps({"text": "word " * 40_000}) + "\n")
    (tmp_path / "data" / "c").mkdir()
    (tmp_path / "data" / "c" / "x.jsonl").write_bytes(long.read_bytes())
    found = look_at_text(tmp_path / "data")
    assert [(domain.name, domain.damaged) for domain in found.domains] == [("a", ""), ("b", "")]
    assert any("c is left out" in line and "very long row" in line for line in found.left_out)


def test_rows_without_text_are_skipped(tmp_path):
    """Catches a recipe that its own plan refuses for a null row."""
    for name in ("a", "b"):
        rows(tmp_path / "data" / f"{name}.jsonl", ord(name))
    with (tmp_path / "data" / "a.jsonl").open("r+") as file:
        text = file.read()
        file.seek(0)
        file.write(json.dumps({"text": None}) + "\n" + text)
    assert drafted(tmp_path / "data", tmp_path / "r.yaml").corpus.on_error == "skip"


def test_a_text_of_many_documents_is_parted(tmp_path):
    """Catches files of one document each, of which nothing could be held out."""
    (tmp_path / "data").mkdir()
    for name in ("a", "b"):
        (tmp_path / "data" / f"{name}.txt").write_text("\n%\n".join(documents(ord(name))))
    recipe = drafted(tmp_path / "data", tmp_path / "r.yaml")
    assert {source.separator for source in recipe.corpus.domains.values()} == {"\n%\n"}


def test_the_only_folder_is_gone_into_and_splits_are_no_domains(tmp_path):
    """Catches train and test as two domains, and a folder of folders as one."""
    for name in ("x", "y"):
        rows(tmp_path / "top" / "data" / name / "train-00000.jsonl", ord(name))
    assert [d.name for d in look_at_text(tmp_path / "top").domains] == ["x", "y"]
    for name in ("train", "test"):
        rows(tmp_path / "splits" / f"{name}-00000-of-00001.jsonl", 1)
    with pytest.raises(DataError, match=r"makes one domain, 'splits'.*two or more"):
        look_at_text(tmp_path / "splits")


def test_too_many_domains_are_cut_with_a_sentence(tmp_path):
    """Catches a study of hundreds of domains, and one that drops text without a word."""
    rows(tmp_path / "source.jsonl", 0)
    for i in range(MOST + 3):
        (tmp_path / "data" / f"d{i}").mkdir(parents=True)
        os.link(tmp_path / "source.jsonl", tmp_path / "data" / f"d{i}" / "x.jsonl")
    found = look_at_text(tmp_path / "data")
    assert len(found.domains) == MOST and any(
        line.startswith("3 domains") for line in found.left_out
    )


def test_languages_are_told_roughly(tmp_path):
    """Catches figures and code that are given a language, and German that is taken for English."""
    german = "Der schnelle braune Fuchs springt über den faulen Hund und geht dann nach Hause. "
    assert language.text_language(german * 5) == "de"
    assert language.text_language("12 345; 67.8\n" * 50) == ""
    assert language.text_language("short") == ""


def write_csv(path: Path, header: list[str], body: list[list[object]], **how: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding=how.pop("encoding", "utf-8")) as file:
        csv.writer(file, **how).writerows([header, *body])


DOMAINS = ["web", "code", "a b"]
W = np.random.default_rng(0).dirichlet(np.ones(3), 24).round(4)
LOSS = 2 + np.exp(-1.5 * W[:, 1])


def fitted_tables(tables: list[Path], to: Path) -> tuple[Recipe, np.ndarray, np.ndarray]:
    """The recipe for tables, and the mixtures and scores that the fit then reads."""
    write_draft(draft_recipe(tables, None, here=to.parent, to=to), to, force=False)
    recipe = load_recipe(to)[0]
    problem, history = from_tables(recipe)
    shares = np.array(
        [[run.spec.weights[i] for i in range(len(problem.domains))] for run in history]
    )
    name = next(iter(recipe.objective["weights"]))
    return recipe, shares, np.array([run.scores[name].value for run in history])


def test_two_tables_and_sizes(tmp_path):
    """Catches settings taken for scores, accuracies for losses, and sizes that are not seen."""
    body = [[f"r{i}", *w, 1e9] for i, w in enumerate(W)]
    write_csv(tmp_path / "m.csv", ["exp", *DOMAINS, "tokens"], body)
    scored = [[f"r{i}", y, 1 - y / 9, 42, ""] for i, y in enumerate(LOSS)]
    write_csv(tmp_path / "s.csv", ["exp", "val_loss", "mmlu_acc", "seed", "note"], scored[:-2])
    write_csv(
        tmp_path / "sizes.csv", ["domain", "tokens"], [["a b", 1e9], ["web", 4e11], ["code", 7]]
    )
    recipe, shares, scores = fitted_tables([tmp_path], tmp_path / "r.yaml")
    assert recipe.tables.id == "exp" and recipe.tables.unmatched == "leave out"
    assert recipe.tables.higher_is_better == ["mmlu_acc"]
    assert recipe.tables.sizes == {"web": 4e11, "code": 7, "a b": 1e9}
    assert list(recipe.objective["weights"]) == ["val_loss"]
    assert np.allclose(shares, W[:-2] / W[:-2].sum(1, keepdims=True), atol=1e-6)
    assert np.allclose(scores, LOSS[:-2])


def test_one_table_of_percents_without_ids_as_a_spreadsheet_writes_it(tmp_path):
    """Catches percents read as shares, decimal commas lost in the copy, rows paired wrongly."""
    comma = [[*(f"{100 * x:.2f}".replace(".", ",") for x in w), f"{y:.6f}".replace(".", ",")]
             for w, y in zip(W, LOSS, strict=True)]  # fmt: skip
    write_csv(tmp_path / "all.csv", [*DOMAINS, "ppl"], comma, delimiter=";", encoding="utf-8-sig")
    before = (tmp_path / "all.csv").read_bytes()
    _, shares, scores = fitted_tables([tmp_path / "all.csv"], tmp_path / "r.yaml")
    assert np.allclose(shares, W / W.sum(1, keepdims=True), atol=1e-6)
    assert np.allclose(scores, LOSS, atol=1e-6)
    assert (tmp_path / "all.csv").read_bytes() == before
    with pytest.raises(RecipeError, match="r.mixtures.csv is there already"):
        (tmp_path / "r.yaml").unlink()
        fitted_tables([tmp_path / "all.csv"], tmp_path / "r.yaml")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "no table with shares of domains.*it is empty"),
        ("a,a\n1,2\n", "stand more than once"),
        ("run,web,code\n" + "1,nan,0.5\n" * 9, "an empty cell is written as 0"),
        ("run,web,code\n" + "".join(f"{i},0.5,0.5\n" for i in range(9)), "no table holds scores"),
        ("\x00\x01\xff", "no table with shares"),
        ("run,web,code,loss\n1,0.5,0.5,2\n2,0.4,0.6", "4 rows or more"),
    ],
)  # fmt: skip
def test_tables_that_make_no_study_are_told(content, said, tmp_path):
    """Catches a traceback, and a recipe that no fit could take."""
    (tmp_path / "x.csv").write_bytes(content.encode("latin-1"))
    with pytest.raises(DataError, match=said):
        draft_recipe([tmp_path], None, here=tmp_path, to=tmp_path / "r.yaml")


@given(
    header=st.lists(st.text(max_size=8), min_size=2, max_size=6),
    cells=st.lists(
        st.lists(st.sampled_from(["0", "0.5", "1", "nan", "", "50", "inf", "-1", "x", '"']),
                 min_size=6, max_size=6), max_size=8),
)  # fmt: skip
@settings(max_examples=30, deadline=None)
def test_any_table_is_drafted_or_told(header, cells, tmp_path_factory):
    """Catches anything but a recipe that reads its tables, or a sentence."""
    folder = tmp_path_factory.mktemp("tables")
    lines = [",".join(header), *(",".join(row[: len(header)]) for row in cells)]
    (folder / "t.csv").write_text("\n".join(lines), encoding="utf-8", errors="replace")
    try:
        draft = draft_recipe([folder], None, here=folder, to=folder / "r.yaml")
    except CuveeError:
        return
    write_draft(draft, folder / "r.yaml", force=False)
    from_tables(parse(draft.text))


def test_the_command_finds_what_is_there_and_overwrites_nothing(tmp_path):
    """Catches a working folder that is not looked at, a recipe or a schema that is
    lost, a schema that is named and not there, paths of elsewhere."""
    write_csv(tmp_path / "m.csv", ["run", *DOMAINS], [[i, *w] for i, w in enumerate(W)])
    write_csv(tmp_path / "s.csv", ["run", "loss"], [[i, y] for i, y in enumerate(LOSS)])
    home = tmp_path / "home"
    first = inside("init", home=home, folder=tmp_path)
    assert first.returncode == 0, first.stderr
    assert "Next: cuvee fit recipe.yaml" in first.stdout
    text = (tmp_path / "recipe.yaml").read_text()
    assert "mixtures: m.csv" in text
    schema = tmp_path / text.partition("\n")[0].partition("$schema=")[2]
    assert schema.read_text(encoding="utf-8") == schema_text() and str(schema.name) in first.stdout
    schema.write_text("{}", encoding="utf-8")
    again = inside("init", home=home, folder=tmp_path)
    assert again.returncode == 2 and "--force" in again.stderr
    assert (
        inside("init", "--force", "--from", "m.csv", "s.csv", home=home, folder=tmp_path).returncode
        == 0
    )
    assert (tmp_path / "recipe.yaml").read_text() == text
    assert schema.read_text(encoding="utf-8") == "{}"
    nothing = tmp_path / "nothing"
    nothing.mkdir()
    neither = inside("init", home=home, folder=nothing)
    assert neither.returncode == 2 and "--corpus FOLDER" in neither.stderr
    assert not list(nothing.iterdir())
