"""README.md and docs/: what stands in them runs, and links lead somewhere."""

import re
import shutil
import tomllib
from collections import Counter

import docs_blocks
import pytest
import recommended_study
from docs_blocks import MEASURED, PAGES, ROOT, Block, blocks_of

from cuvee.flows.workspace import open_workspace

BLOCKS = [block for page in PAGES for block in blocks_of(page)]
NOT_RUN = {  # why a block is not run -> how many there may be
    "calls somebody": 1,
    "fails where the machine lacks something": 1,
    "installs packages": 4,
    "needs a file that only the reader writes": 5,
    "needs a team's servers": 14,
    "serves until it is stopped": 2,
    "shows a layout": 4,
}
RUN = {"bash", "console", "python"}
READ = {"yaml": docs_blocks.check_yaml, "toml": lambda block: tomllib.loads(block.text)}
SHELL = sorted(
    {
        block.page
        for block in BLOCKS
        if block.language in ("bash", "console") and not block.reason
        if not block.page.startswith(MEASURED)
    }
)
PYTHON = sorted({block.page for block in BLOCKS if block.language == "python"} - {*SHELL})
FINISHED = "docs/how-to/approve-and-export.md"  # begins where a study is done


@pytest.fixture
def sandbox(shared, tmp_path):
    """A folder like a clone with tiny recipes and a little text, for one page."""
    made = shared("docs-sandbox", docs_blocks.fill_sandbox)
    return shutil.copytree(made, tmp_path / "clone", symlinks=True)


def test_every_block_is_covered():
    """Catches a block in a language, indented, or marked with a reason, that no test looks at."""
    ours = [block for block in BLOCKS if not block.page.startswith(MEASURED)]
    lost = [
        block.place
        for block in ours
        if not (block.reason or block.file or block.language in {*RUN, *READ})
    ]
    assert lost == [], "blocks that nothing runs or reads"
    reasons = Counter(block.reason for block in ours if block.reason)
    assert set(reasons) <= set(NOT_RUN)
    assert {why: n for why, n in reasons.items() if n > NOT_RUN[why]} == {}
    assert len(SHELL) >= 5 and len(PYTHON) >= 4, "the pattern finds nothing"


@pytest.mark.parametrize(
    "block", [b for b in BLOCKS if b.language in READ and not b.reason], ids=lambda b: b.place
)
def test_what_a_recipe_or_project_says_is_read(block: Block):
    """Catches a documented field, name or value that is refused."""
    READ[block.language](block)


@pytest.mark.parametrize("page", PYTHON)
def test_python_of_a_page_runs(page, sandbox):
    """Catches a name that moved, and an example that raises."""
    assert docs_blocks.run_page(page, sandbox, ("python",))


PRINTED = """┃ domain  ┃ shares ┃  interval ┃
│ legal   │  53.0% │ 9.9-20.8% │
│ code-v1.2.3 │   0.7% │  0.0-1.2% │
└─────────┴────────┴───────────┘
Draw 53.0% from legal and 0.7% from 3 others of 0.6M, in 12 s.
"""
SAME = {  # what another machine may print
    "53.0%": "53.9%",
    "0.7%": "0.9%",
    "│ 9.9-20.8%": "│ 10.1-20.8%",
    "12 s": "1 min",
}
OTHER = {  # what is a fault of the page
    "53.0%": "54.2%",
    "  53.0%": "  35.0%",
    "0.7%": "1.0%",
    "0.0-1.2%": "0.3-1.2%",
    "legal ": "Legal ",
    "3 others": "4 others",
    "0.6M": "0.61M",
    "v1.2.3": "v1.2.4",
    "9.9-20.8%": "9.90-20.8%",
    "┴────────┴": "┴───────┴",
    "│ legal   │  53.0% │ 9.9-20.8% │\n": "",
}


@pytest.mark.parametrize("wanted", [PRINTED, PRINTED.replace(PRINTED.splitlines()[2], "...")])
def test_what_is_printed_is_compared_but_for_rounding(wanted):
    """Catches digits of one processor that fail on another, and a tolerance by which a wrong
    share, name, count, row or line of a table would stand in a page."""
    for old, new in SAME.items():
        assert docs_blocks.prints_as(wanted, PRINTED.replace(old, new)), new
    for old, new in OTHER.items():
        if old in wanted:
            assert not docs_blocks.prints_as(wanted, PRINTED.replace(old, new)), new


@pytest.mark.slow
@pytest.mark.parametrize("page", SHELL)
def test_a_page_can_be_followed(page, sandbox):
    """Catches a command or option that is gone, steps that do not follow from each other, and
    printed output that is not what is printed."""
    if page == FINISHED:
        source, home = sandbox / "text", open_workspace(sandbox / ".cuvee")
        recommended_study.make(source, home, name="quickstart")
        text = recommended_study.text(source, name="quickstart")
        (sandbox / "recipes" / "quickstart.yaml").write_text(text, encoding="utf-8")
    assert docs_blocks.run_page(page, sandbox, ("bash", "console", "python"))


NAMED = r"(?:python (?:-m )?|make |\.venv/bin/python )[\w./-]+[^`\n;,)]*"
MEASUREMENTS = sorted(
    {
        (page, command.strip().removeprefix(".venv/bin/"))
        for page in PAGES
        for text in [(ROOT / page).read_text(encoding="utf-8").replace("\\\n", " ")]
        for command in re.findall(rf"(?:`|^ {{4}})({NAMED})", text, re.MULTILINE)
    }
)


@pytest.mark.parametrize(("page", "command"), MEASUREMENTS)
def test_programs_and_targets_that_are_named_are_there(page, command):
    """Catches a program, an option or a target that a page names and that is there no more."""
    program, name, *words = command.split()
    if program == "make":
        assert re.search(rf"^{name}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
    else:
        file = ROOT / name
        files = sorted(file.glob("*.py")) if file.is_dir() else [file]
        text = "".join(one.read_text(encoding="utf-8") for one in files)
        options = [word for word in words if word.startswith("--")]
        assert [option for option in options if f'"{option}"' not in text] == []


def test_every_page_is_in_the_navigation():
    """Catches a page that no reader of the site finds, which a strict build lets pass."""
    nav = str(tomllib.loads((ROOT / "zensical.toml").read_text())["project"]["nav"])
    pages = [page.removeprefix("docs/") for page in PAGES if page.startswith("docs/")]
    assert [page for page in pages if f"'{page}'" not in nav] == []


def test_links_of_the_readme_lead_somewhere():
    """Catches a link to a page or heading that moved; those of docs/ are checked by its build."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)]+)\)|(?:src|srcset|href)=\"([^\"]+)\"", text)
    lost = []
    for link in filter(None, sum(links, ())):
        name, _, anchor = link.partition("#")
        file = ROOT / (name or "README.md")
        if link.startswith("http"):
            continue
        if not file.exists() or (anchor and anchor not in anchors(file.read_text())):
            lost.append(link)
    assert lost == []


def anchors(text: str) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    heads = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}
