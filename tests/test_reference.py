"""The reference: made from the code, whole, with links that lead somewhere."""

import json
import re
from pathlib import Path

import pytest
import typer
import write_reference

from cuvee.flows.cli.main import app
from cuvee.flows.recipe.json_schema import recipe_schema
from cuvee.flows.upkeep.clean import KINDS
from cuvee.flows.upkeep.disk_layout import STORE_FOLDERS, STUDY_FILES
from cuvee.mixtures import registry

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def pages():
    return write_reference.pages()


def test_every_field_of_a_recipe_has_its_row(pages):
    """Catches a part that the page does not reach, and a description or a default left out."""
    schema = recipe_schema()
    for part in (schema, *(one for name, one in schema["$defs"].items() if "Part" in name)):
        for name, field in part["properties"].items():
            rows = [row for row in pages["recipe.md"].splitlines() if f"| `{name}`{{#" in row]
            assert any(field["description"] in row for row in rows), name
            if isinstance(field.get("default"), int):
                shown = f"| `{json.dumps(field['default'])}` |"
                assert any(shown in row for row in rows), (name, shown)
    assert "true or false from" not in pages["recipe.md"]  # bounds of 0 and 1, its other spelling


def test_every_registered_class_has_a_part_with_its_fields(pages):
    """Catches a kind without a page, a class without its equation, its guidance or a field."""
    definitions = recipe_schema()["$defs"]
    titles = {kind: title for title, kind in write_reference.KINDS.items()}
    assert set(titles) == {kind for kind in registry.FOLDERS if kind != "world"}
    for kind, title in titles.items():
        for name in registry.names(kind):
            part = pages[f"{title}.md"].partition(f"\n## {name} {{#{name}}}\n")[2]
            part = part.partition("\n## ")[0]
            assert "**Take it" in part, (kind, name)
            for field in set(definitions[f"{kind}.{name}"]["properties"]) - {"name"}:
                assert f"| `{field}`{{#" in part, (kind, name, field)
    assert "`L_m(r) = c_m + k_m exp(sum_j t_mj r_j)`" in pages["laws.md"]
    assert "arXiv 2403.16952" in pages["laws.md"] and "laws: [kriging]" in pages["methods.md"]


def test_every_command_option_and_exit_code_is_there(pages):
    """Catches a command or an option that only --help knows."""
    text = pages["commands.md"]
    for name, command in typer.main.get_command(app).commands.items():
        part = text.partition(f"## cuvee {name} {{#{name}}}")[2].partition("\n## ")[0]
        for param in command.params:
            shown = param.metavar or param.name.upper()
            wanted = shown if param.param_type_name == "argument" else param.opts[0]
            assert f"`{wanted}`" in part, (name, wanted)
    assert re.findall(r"^\| (\d+) \|", text, re.MULTILINE) == ["0", "1", "2", "130"]


def test_links_and_anchors_lead_somewhere(pages):
    """Catches a link to a page or a part that is not made, and two parts of one name on a page."""
    anchors = {name: re.findall(r"\{#([^}]+)\}", text) for name, text in pages.items()}
    for name, text in pages.items():
        assert len(anchors[name]) == len(set(anchors[name])), name
        for page, anchor in re.findall(r"\]\(([\w-]+\.md)?(?:#([\w.-]+))?\)", text):
            assert (page or name) in pages
            assert not anchor or anchor in anchors[page or name], (name, page, anchor)


def test_tables_have_as_many_cells_as_heads(pages):
    """Catches a bar in a type or a default that breaks its table."""
    for name, text in pages.items():
        width = 0
        for line in text.splitlines():
            cells = len(re.findall(r"(?<!\\)\|", line)) if line.startswith("|") else 0
            assert not (width and cells and cells != width), (name, line)
            width = cells


def test_what_lies_on_disk_is_what_the_page_says():
    """Catches a folder of the store, or a file of a study, that nothing writes or nobody told."""
    words = json.loads((ROOT / "tests/golden/words.json").read_text(encoding="utf-8"))["disk"]
    roots = {word.split(".")[0] for word in words} - {"fit", "format"}  # a study's; the marker
    assert roots <= set(STORE_FOLDERS)
    others = [path for room in ("tasks", "flows") for path in (ROOT / room).rglob("*.py")]
    code = "\n".join(path.read_text("utf-8") for path in others if path.name != "disk_layout.py")
    for name in (*STORE_FOLDERS, *(one for files in STUDY_FILES for one in files.split(", "))):
        assert re.search(rf"[\"/]{re.escape(name.rstrip('/'))}[\"/]", code), name
    assert {"store", "studies", "mlflow"} <= {
        place for k in KINDS.values() for place in (one.split("/")[0] for one in k.places)
    }
