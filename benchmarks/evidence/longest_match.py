"""How fast benchmark items are looked for in the quickstart's training text, and what is found.

The corpus of the quickstart (CUVEE_HOME, else `home` in the folder given) is looked through for the
items that the quickstart asks (600), and for all items of its tasks. Figures: `longest_match`, MB
of text per second of one core's time (the most of those that time allows, at least one), and how
many items are suspicious. Rows: longest_match.csv, a task each.
"""

import os
import time
from pathlib import Path
from typing import Any

from cuvee.evaluation.longest_match import ItemIndex
from cuvee.flows.recipe.load import parse
from cuvee.flows.study import suspicious_items
from cuvee.flows.study.prepare import prepare
from cuvee.flows.workspace import QUIET, Workspace
from cuvee.tasks.corpus.benchmark_matches import CorpusMatcher, corpus_matches
from cuvee.tasks.corpus.pipeline.task_pool import InlinePool
from cuvee.tasks.study.suspicious_items import item_matches
from evidence.csv_rows import append_rows

MINUTES = 2.0
RECIPE = Path(__file__).parents[2] / "recipes" / "quickstart.yaml"
MB = 1e6


def run(out: Path, minutes: float) -> dict[str, Any]:
    """See above."""
    end = time.monotonic() + 60 * minutes
    os.environ |= QUIET
    home = Workspace(Path(os.environ.get("CUVEE_HOME", out / "home")))
    recipe = parse(RECIPE.read_text(encoding="utf-8"))
    (out / "longest_match.csv").unlink(missing_ok=True)
    figures = {}
    for asks, limit in (("asked", recipe.evaluation.limit), ("all", 10**6)):
        scored = recipe.evaluation.model_copy(update={"limit": limit})
        prepared = prepare(recipe.model_copy(update={"evaluation": scored}), home)
        asked = suspicious_items.asked_items(prepared)
        texts = [text for items in asked.values() for _, text in items]
        corpus, names = prepared.corpus, [domain.name for domain in prepared.corpus.domains]
        spent = []
        while not spent or (len(spent) < 3 and time.monotonic() < end):
            begin = time.process_time()
            work = CorpusMatcher(str(corpus.root), ItemIndex.build(texts))
            found = dict(corpus_matches(corpus, work, names, pool=InlinePool()))
            spent.append(time.process_time() - begin)
        matches = item_matches(asked, found)
        rows = []
        for task in asked:
            own = [one for one in matches if one.task == task]
            rows.append(
                {
                    "items": asks,
                    "task": task,
                    "count": len(own),
                    "longest": max(len(one.run) for one in own),
                    "suspicious": sum(bool(one.suspicious) for one in own),
                }
            )
        append_rows(out / "longest_match.csv", rows)
        size = sum(domain.bytes for domain in corpus.domains) / MB
        figures[asks] = {
            "items": len(texts),
            "mb": round(size, 1),
            "mb_per_core_second": round(size / min(spent), 1),
            "seconds": round(min(spent), 1),
            "suspicious": sum(bool(one.suspicious) for one in matches),
        }
    return {"longest_match": {"whole": True, **figures}}
