"""The report as a browser shows it: widths of tables, what folds, colors, print."""

import html
import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from strangers import missing
from synthetic_study import explored_study

from cuvee.mixtures.recommendation import Compromise, Front
from cuvee.tasks.report.page import write_report
from cuvee.tasks.study.study import DomainFigures

LONG = "a-domain-whose-name-is-as-long-as-people-make-them/english/filtered"
WIDTHS = {"desk": 1280, "telephone": 400}
PROBE = """<script>
  const seen = (e) => e.checkVisibility() && e.getBoundingClientRect().height > 1;
  const look = (page) => ({
    over: page.documentElement.scrollWidth - page.documentElement.clientWidth,
    cut: [...page.querySelectorAll('th, td, p, li, dd')].filter((e) => seen(e)
      && !e.closest('.wide') && e.scrollWidth > e.clientWidth + 1).length,
    tables: [...page.querySelectorAll('.wide')].filter(seen).map((e) => ({
      head: e.querySelector('th').textContent, over: e.scrollWidth - e.clientWidth,
      said: seen(e.querySelector('.sideways')), width: e.getBoundingClientRect().width,
      rows: [...e.querySelectorAll('tbody tr')].filter(seen).length,
    })),
    contents: [...page.querySelectorAll('nav')].filter(seen).map((e) => ({
      place: getComputedStyle(e).position, links: [...e.querySelectorAll('a')].filter(seen).length,
    })),
    first: [...page.querySelectorAll('.answers dd')].map((e) => e.getBoundingClientRect().bottom),
  });
  addEventListener('load', () => {
    const found = {};
    for (const frame of document.querySelectorAll('iframe')) {
      const page = frame.contentDocument;
      found[frame.id] = look(page);
      page.defaultView.scrollTo(0, 3000);
      const nav = [...page.querySelectorAll('nav')].find(seen);
      found[frame.id].top = nav ? nav.getBoundingClientRect().top : null;
    }
    document.title = 'SAID' + JSON.stringify(found) + 'END';
  });
</script>"""


def shown(frames: dict[str, tuple[int, str]], folder: Path) -> dict[str, dict]:
    """What Chromium makes of pages, each in a frame of a width, without a network."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
    if browser is None:
        missing("Chromium")
    inner = "".join(
        f'<iframe id="{name}" width="{width}" height="900" srcdoc="{html.escape(page)}"></iframe>'
        for name, (width, page) in frames.items()
    )
    (folder / "frames.html").write_text(f"<!doctype html>{PROBE}{inner}", encoding="utf-8")
    command = [str(browser), "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    command += [f"--user-data-dir={folder}/profile", "--host-resolver-rules=MAP * ~NOTFOUND"]
    command += ["--window-size=1400,1000", (folder / "frames.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    found = re.search("<title>SAID(.*?)END", done.stdout)
    assert found, "the page's frames did not load"
    return json.loads(html.unescape(found.group(1)))


@pytest.fixture(scope="module")
def pages(tmp_path_factory, quick_pictures_everywhere):
    """A study with long names, a front of 24 points and 30 benchmarks, at both widths, and as it
    is printed."""
    folder = tmp_path_factory.mktemp("browser")
    study, _ = explored_study()
    weights = study.recommendation.candidates[0].weights
    points = tuple(Compromise(weights, 1 + i / 100, 0.5 - i / 50) for i in range(24))
    front = Front("domain/legal", LONG, points, (Compromise(weights, 1.3, 0.4, "natural"),))
    many = {f"benchmark-{i:02}": i for i in range(30)}
    names = study.problem.domains.names
    corpus = {name: DomainFigures(10**6, 10**9, 10**8, 5, many) for name in names}
    ours = replace(study.recommendation, front=front, warnings=(f"{LONG * 3} is long",))
    text = write_report(replace(study, recommendation=ours, corpus=corpus), folder)[0].read_text()
    frames = {name: (width, text) for name, width in WIDTHS.items()}
    frames["print"] = (720, text.replace("@media print", "@media all"))
    return shown(frames, folder)


@pytest.mark.parametrize("name", WIDTHS)
def test_the_page_and_its_tables_fit_the_screen(pages, name):
    """Catches a table that is cut off, or that widens the page; and one that scrolls in silence."""
    page = pages[name]
    assert page["over"] == 0 and page["cut"] == 0
    assert len(page["tables"]) > 10
    assert all(table["width"] <= WIDTHS[name] for table in page["tables"])
    scrolls = [table for table in page["tables"] if table["over"] > 1]
    assert [table["head"] for table in scrolls] == (["domain"] if name == "desk" else [])
    assert [table for table in page["tables"] if table["said"]] == scrolls


def test_the_four_answers_stand_on_the_first_screen(pages):
    """Catches answers below figures and warnings: a reader would have to scroll for them."""
    assert len(pages["desk"]["first"]) == 4
    assert max(pages["desk"]["first"]) < 500 and max(pages["telephone"]["first"]) < 900


def test_the_contents_stay_beside_a_wide_page_and_fold_on_a_narrow_one(pages):
    """Catches contents that scroll away on a desk, or that fill the first screen of a telephone."""
    (beside,) = pages["desk"]["contents"]
    assert beside["place"] == "sticky" and beside["links"] >= 12
    assert 0 <= pages["desk"]["top"] < 10
    (on_top,) = pages["telephone"]["contents"]
    assert on_top["links"] == 0


def test_a_long_front_folds_and_is_printed_whole(pages):
    """Catches twenty rows of which hardly any is read, and paper that lacks what was folded."""
    rows = {
        name: [t["rows"] for t in page["tables"] if t["head"] == "mixture"]
        for name, page in pages.items()
    }
    assert rows["desk"][-1] == rows["telephone"][-1] == 8
    assert rows["print"][-2:] == [8, 17]
    targets = [t for t in pages["print"]["tables"] if t["head"] == "target"]
    assert targets and all(table["over"] <= 1 for table in targets)
    assert pages["print"]["contents"] == [] or pages["print"]["contents"][0]["links"] == 0


def test_text_can_be_read_on_light_and_dark_pages():
    """Catches a color that is pretty and too faint: WCAG asks for a contrast of 4.5."""
    style = (Path(write_report.__code__.co_filename).parent / "templates/report.css").read_text()
    schemes = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    assert len(schemes) == 2
    for scheme in schemes:
        colors = dict(re.findall(r"--(\w+): (#\w+);", scheme))
        for name in ("ink", "soft", "good", "caution", "bad", "link"):
            for ground in ("paper", "raised"):
                assert contrast(colors[name], colors[ground]) >= 4.5, (name, ground)


def contrast(one: str, other: str) -> float:
    """The ratio of two colors after WCAG 2.2, between 1 and 21."""

    def luminance(color: str) -> float:
        digits = color[1:] if len(color) == 7 else "".join(2 * c for c in color[1:])
        parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_pictures_say_what_one_sees_and_headings_stand_in_order(tmp_path, quick_pictures):
    """Catches a caption in the place of a finding, and a heading that skips a level."""
    study, _ = explored_study()
    page, twin = write_report(study, tmp_path)
    text, marked = page.read_text(), twin.read_text()
    findings = [html.unescape(said) for said in re.findall(r'role="img" aria-label="(.*?)"', text)]
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", text)
    assert len(findings) == len(captions) == 6
    assert "legal up from 6.0% to 36.0%, code down from 20.5% to 5.0%" in findings[0]
    assert all(re.search(r"\d", said) and said.endswith(".") for said in findings)
    assert all(said not in captions for said in findings)
    assert len(re.findall(r"!\[[^]]{30,}\]\(plots/", marked)) == 6
    assert re.findall(r"<h(\d)", text)[:2] == ["1", "2"]
    assert set(re.findall(r"<h(\d)", text)) == {"1", "2"}
