"""Blocks of README.md and docs/: found, and run in a folder as a reader would run them.

Nothing in a block is replaced but by name: recipes of the repository stand in the folder as tiny
ones of the same names, a recipe that a page prints is shrunk by `SHRUNK`, and `data/` holds a
little text of the standard library. So the commands are those that the reader types.
"""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import types
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import tiny_study
import yaml
import zstandard
from markdown_it import MarkdownIt

from cuvee.flows.recipe.load import build_recipe
from cuvee.mixtures import registry

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    name
    for name in subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "README.md", "docs"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split()
    if name.endswith(".md")
)  # fmt: skip
MEASURED = "docs/results/"  # whose commands are checked and not run: they take minutes to hours
NUMBER = re.compile(r"(?<![\w.])\d+\.\d+(?![\w.]*\w)")  # with decimals: no count, name or version
LAST, NEAR = 2, Decimal("0.02")  # by how much two numbers that are printed may differ
TINY = {  # what a recipe of the repository is in a test
    "quickstart": {},
    "attribution": {
        "method": "{name: attribution, runs: 8, seeds: 2, folds: 2, refits: 10, "
        "laws: [log_linear], trials: 2, pairs: 1}",
        "confirm": "null",
    },
    "base": {"method": "{name: static, choose: best, trials: 2}", "confirm": "null"},
    "continual": {
        "corpus": "{heldout_bytes: 20000, domains: {code: {path: text/code.jsonl}, "
        "prose: {path: text/prose.jsonl}, tables: {path: text/tables.jsonl}}}",
        "proxy": "{size: 0.3M, tokens: 50000, start: .cuvee/base}",
        "continual": "{old: [code], replay: 0.1, forget: 0.5}",
        "method": "{name: regmix, runs: 8, seeds: 2, folds: 2, refits: 10, laws: [log_linear]}",
    },
}
SHRUNK = {  # what a recipe that a page prints is in a test, by dotted name
    "corpus.vocabulary": 512,
    "corpus.heldout_bytes": 20_000,
    "proxy.size": "0.3M",
    "proxy.tokens": 50_000,
    "evaluation.heldout_tokens": 2048,
    "full_scale.tokens": 1_000_000,
    "method.runs": 9,
    "method.laws": ["log_linear"],
    "method.folds": 3,
    "method.refits": 10,
    "confirm.seeds": 2,
    "confirm.sizes": [{"size": "0.3M", "tokens": 60_000}],
}
BASE = {  # what a part of a recipe is printed of
    "name": "part",
    "corpus": {
        "domains": {
            name: {"path": name} for name in ("web", "code", "encyclopedia", "speeches", "legal")
        }
    },
    "objective": {"name": "mean", "weights": {"domain/legal": 1}},
    "full_scale": {"tokens": 1000},
    "method": {"name": "regmix"},
}


@dataclass(frozen=True)
class Block:
    """A block of code of a page.

    Attributes:
        page: the file, from the repository's root.
        line: where it begins.
        language: of its fence; "" where it has none.
        text: what stands in it.
        reason: why it is not run, if the page says so: `<!-- not run: REASON -->` before it.
        file: what a reader saves it as, if the page says so: `<!-- file: NAME -->` before it.
    """

    page: str
    line: int
    language: str
    text: str
    reason: str
    file: str

    @property
    def place(self) -> str:
        """Where it stands, for a message."""
        return f"{self.page}:{self.line}"


def blocks_of(page: str) -> list[Block]:
    """The blocks of a page, fenced or indented, also within lists."""
    made, said = [], {}
    for token in MarkdownIt().parse((ROOT / page).read_text(encoding="utf-8")):
        if token.type == "html_block":
            said |= dict(re.findall(r"<!-- (not run|file): (.+?) -->", token.content))
        elif token.type in ("fence", "code_block"):
            reason, file = said.get("not run", ""), said.get("file", "")
            place = (page, (token.map or [0])[0] + 1)
            made.append(Block(*place, token.info.strip(), token.content, reason, file))
            said = {}
        elif token.type not in ("list_item_open", "list_item_close"):
            said = {}
    return made


def recipe_of(block: Block) -> dict[str, Any]:
    """What a block of YAML says as a whole recipe: itself, or with what it is a part of."""
    content = yaml.safe_load(block.text)
    if "name" in content and "method" in content:
        return content
    others = {name: BASE[name] for name in BASE if name != "corpus" or "tables" not in content}
    if "tables" in content:
        others["objective"] = {"name": "mean", "weights": {"loss_code": 1}}
    return others | content


def check_yaml(block: Block) -> None:
    """Read a recipe, or a part of one.

    Raises:
        CuveeError: it would be refused.
    """
    build_recipe(recipe_of(block), block.place)


def shrunk(text: str) -> str:
    """A recipe that a page prints, as small as a test can pay; what it asks for is kept."""
    content = yaml.safe_load(text)
    for name, value in SHRUNK.items():
        part, field = name.split(".")
        if part in ("full_scale", "method", "proxy", "corpus", "evaluation") or part in content:
            content.setdefault(part, {})[field] = value
    return yaml.safe_dump(content, sort_keys=False)


def fill_sandbox(folder: Path) -> None:
    """A folder like a clone, in which commands of any page can run: tiny recipes, a little text."""
    source = folder / "text"
    tiny_study.write_corpus(source)
    (folder / "recipes").mkdir()
    for name, changes in TINY.items():
        text = tiny_study.recipe(source, name=name, **changes)
        (folder / "recipes" / f"{name}.yaml").write_text(text, encoding="utf-8")
    if (ROOT / "examples").exists():
        shutil.copytree(ROOT / "examples", folder / "examples")
    _own_text(source, folder / "data")
    shutil.copy(ROOT / "Makefile", folder)
    (folder / "infra").mkdir()
    (folder / ".venv").mkdir()
    for name in ("infra/constraints.txt", "pyproject.toml", ".venv/.ready"):
        (folder / name).touch()  # the last is the youngest: nothing is installed
    (folder / ".venv" / "bin").symlink_to(Path(sys.executable).parent)


def _own_text(source: Path, data: Path) -> None:
    """Text as the pages say that a reader has it: packed rows, a table, a folder of files."""
    rows = {name: (source / f"{name}.jsonl").read_bytes() for name in ("prose", "code", "tables")}
    for name in ("web", "code", "docs"):
        (data / name).mkdir(parents=True)
    (data / "web" / "0.jsonl.zst").write_bytes(zstandard.compress(rows["prose"]))
    code = [yaml.safe_load(line)["text"] for line in rows["code"].decode().splitlines()[:40]]
    pyarrow.parquet.write_table(pyarrow.table({"content": code}), data / "code" / "0.parquet")
    for i, line in enumerate(rows["tables"].decode().splitlines()):
        (data / "docs" / f"{i}.txt").write_text(yaml.safe_load(line)["text"], encoding="utf-8")


def run_shell(text: str, folder: Path) -> str:
    """What commands print, standard error included.

    Raises:
        AssertionError: one of them failed; with what it said.
    """
    ours = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "USER": "reader"}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text],
        cwd=folder,
        env={**os.environ, **ours, "COLUMNS": "100", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def check_console(block: Block, folder: Path) -> None:
    """Run what stands after `$ `, and hold what it prints to what stands below it.

    A line of three dots stands for any lines.

    Raises:
        AssertionError: it prints something else.
    """
    for command, wanted in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n?)*)", block.text, re.MULTILINE):
        printed = run_shell(command, folder)
        assert prints_as(wanted, printed), f"{block.place}: {command} prints\n{masked(printed)}"


def prints_as(wanted: str, printed: str) -> bool:
    """Whether a text is what a page says is printed, a line of three dots standing for any lines.

    Numbers with decimals may be off a little, since processors round otherwise: by `LAST` units of
    their last printed digit or by `NEAR` of them, whichever is more. All else is compared exactly.
    """
    pieces = re.split(r"^\.\.\.$", masked(wanted), flags=re.MULTILINE)
    pattern = ".*".join(
        re.sub(r"(?:\\ )+\(", r" +(", f"({NUMBER.pattern})".join(map(re.escape, parts)))
        for parts in map(NUMBER.split, pieces)
    )  # blanks before a number may be more or fewer: a column is aligned at its right
    same = re.fullmatch(pattern, masked(printed), re.DOTALL)
    shown = [text for piece in pieces for text in NUMBER.findall(piece)]
    return same is not None and all(map(_near, shown, same.groups()))


def _near(shown: str, found: str) -> bool:
    """Whether two numbers, as they are printed, are the same but for rounding."""
    decimals = [len(text.partition(".")[2]) for text in (shown, found)]
    off = abs(Decimal(found) - Decimal(shown))
    most = max(LAST * Decimal(1).scaleb(-decimals[0]), NEAR * abs(Decimal(shown)))
    return decimals[0] == decimals[1] and off <= most


def masked(text: str) -> str:
    """A text without what differs from run to run: durations, blanks at the ends of lines."""
    text = re.sub(r"\d+(\.\d+)? ?(s|ms|min|minutes?|seconds?|h)\b", "# time", text)
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


@contextlib.contextmanager
def registered_for_a_while() -> Any:
    """What is registered within is forgotten after."""
    before = {kind: set(registry.names(kind)) for kind in registry.FOLDERS}
    try:
        yield
    finally:
        for kind, names in before.items():
            for name in set(registry.names(kind)) - names:
                registry.forget(kind, name)


def run_python(text: str, folder: Path, within: types.ModuleType) -> None:
    """Run a block in a module that all blocks of its page share; the folder is the working one."""
    sys.modules[within.__name__] = within  # dataclasses look their module up
    with contextlib.chdir(folder):
        exec(compile(text, within.__name__, "exec"), within.__dict__)


def run_page(page: str, folder: Path, languages: tuple[str, ...]) -> int:
    """Run the blocks of a page in their order; how many were run.

    Args:
        page: from the repository's root.
        folder: as `fill_sandbox` left it.
        languages: of blocks that are run; files are written whatever theirs is.
    """
    module, count = types.ModuleType(f"page_{abs(hash(page))}"), 0
    with registered_for_a_while():
        for block in blocks_of(page):
            if block.file:
                text = shrunk(block.text) if block.language == "yaml" else block.text
                (folder / block.file).write_text(text, encoding="utf-8")
            if block.reason or block.language not in languages:
                continue
            count += 1
            if block.language == "console":
                check_console(block, folder)
            elif block.language == "bash":
                run_shell(block.text, folder)
            elif not block.file:
                run_python(block.text, folder, module)
    sys.modules.pop(module.__name__, None)
    return count
