"""The folders are the architecture, and each says what it holds."""

import ast
import re
import subprocess
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parent.parent


def tracked() -> list[str]:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    return [name for name in listed if (ROOT / name).exists()]


ROOMS = ("flows", "tasks", "proxies", "evaluation", "mixtures")
SOURCES = [name for name in tracked() if name.startswith(ROOMS) and name.endswith(".py")]


def test_every_folder_of_code_says_what_it_holds():
    """Catches a chapter without an `__init__.py`, or one whose first line says nothing."""
    folders = {str(Path(name).parent) for name in SOURCES}
    texts = {name: Path(ROOT / name / "__init__.py") for name in folders}
    assert [name for name, file in texts.items() if not file.exists()] == []
    trees = {name: ast.parse(file.read_text(encoding="utf-8")) for name, file in texts.items()}
    lines = {name: (ast.get_docstring(tree) or "").split("\n")[0] for name, tree in trees.items()}
    assert [name for name, line in lines.items() if len(line.split()) < 4] == []
    assert len(set(lines.values())) == len(lines), "two folders say the same"


def test_results_say_when_where_and_how_they_were_measured():
    """Catches a page of figures without conditions, one that the summary does not name, and a
    readme of a folder that grows beyond a page again."""
    pages = [name for name in tracked() if re.fullmatch(r"docs/results/\w+\.md", name)]
    text = {Path(name).stem: (ROOT / name).read_text(encoding="utf-8") for name in pages}
    index = text.pop("index")
    assert len(text) > 8 and [name for name in text if f"({name}.md" not in index] == []
    for name, page in text.items():
        assert page.index("> Measured: ") < page.index("\n| "), f"{name}: figures come first"
        said = [page.count(f"> {word}: ") for word in ("Measured", "Machine", "Command")]
        assert said[0] == said[1] == said[2], f"{name}: a section lacks one of them"
    readmes = [name for name in tracked() if re.fullmatch(r"\w+/README\.md", name)]
    assert [n for n in readmes if len((ROOT / n).read_text().splitlines()) > 60] == []


def test_no_drawers_and_no_shadows():
    """Catches a module for everything, and a test package that would shadow a room."""
    names = [Path(name) for name in tracked() if name.endswith(".py")]
    drawers = {"utils.py", "common.py", "helpers.py", "misc.py", "base.py"}
    assert [str(p) for p in names if p.name in drawers] == []
    assert [str(p) for p in names if p.parts[0] == "tests" and p.name == "__init__.py"] == []


def test_no_two_classes_have_one_name():
    """Catches one word for two concepts: whoever searches for it finds the wrong file."""
    places = defaultdict(list)
    for name in SOURCES:
        for node in ast.parse((ROOT / name).read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(name)
    assert {word: found for word, found in places.items() if len(found) > 1} == {}


def test_no_function_is_longer_than_a_page():
    """Catches a story that nobody can read at once."""
    functions = [
        (name, node.name, node.end_lineno - node.lineno + 1)
        for name in SOURCES
        for node in ast.walk(ast.parse((ROOT / name).read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    assert [function for function in functions if function[2] > 60] == []


def test_files_and_modules_that_are_named_are_there():
    """Catches a table of files, or a docstring, that sends its reader to what has moved."""
    there, named = tracked(), rf"`(?:cuvee\.)?((?:{'|'.join(ROOMS)})(?:\.\w+)+)`"
    files = [f"/{name}" for name in there]
    lost = set()
    for name in [name for name in there if name.endswith(".md")] + SOURCES:
        text = (ROOT / name).read_text(encoding="utf-8")
        words = re.findall(r"`((?:[a-z_0-9]+/)*[a-z_0-9]+\.py)`", text)
        if name.endswith(".md"):  # docstrings cite files of other projects
            lost |= {(name, w) for w in words if not any(f.endswith(f"/{w}") for f in files)}
        dotted = re.findall(named, text)
        lost |= {(name, word) for word in dotted if not _resolves(word.split("."))}
    assert {word for _, word in lost} - OTHERS == set(), lost


OTHERS = {
    "tasks.py", "mixtures.csv",  # a user's own
    "mixtures/laws/root.py", "tasks/export/weights.py", "controllers/losses_first.py",  # examples
    "data_config.py", "mixture.py",  # what exports write
    "evaluation.curve",  # a field of recipes
}  # fmt: skip


def _resolves(words: list[str]) -> bool:
    """Whether a dotted name leads to a module, or to a name that a module holds."""
    place = ROOT
    for i, word in enumerate(words):
        if (place / word).is_dir():
            place /= word
            continue
        file = place / f"{word}.py"
        rest = words[i + 1 :] if file.exists() else words[i:]
        file = file if file.exists() else place / "__init__.py"
        text = file.read_text(encoding="utf-8") if file.exists() else ""
        return all(re.search(rf"\b{one}\b", text) for one in rest) and bool(text)
    return True
