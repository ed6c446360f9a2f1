"""What a study's corpus holds, and what held a document: `cuvee corpus`."""

import contextlib
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from rich.table import Table

from cuvee.flows.console import Display
from cuvee.flows.recipe.schema import Recipe
from cuvee.flows.study import prepare as preparing
from cuvee.flows.workspace import Workspace
from cuvee.mixtures.errors import CuveeError
from cuvee.mixtures.runs.run_results import RunResult
from cuvee.proxies.data.objects import is_remote
from cuvee.proxies.data.prepared_corpus import HELD_KEYS, Corpus
from cuvee.tasks.store.results import Store
from cuvee.tasks.study import finished

SHOWN = 12  # characters of a hash


def show_corpus(
    recipe: Recipe, home: Workspace, display: Display, *, new_tokenizer: bool = False
) -> dict[str, Any]:
    """Prepare a study's corpus, unless it is there, and print what it holds.

    Args:
        recipe: names the sources.
        home: where corpora lie.
        display: prints.
        new_tokenizer: train another tokenizer, which makes every domain another one.

    Raises:
        CuveeError: what is wrong with the recipe or its data.
    """
    corpus = preparing.prepare(recipe, home, new_tokenizer=new_tokenizer).corpus
    display.close()
    body = corpus.manifest
    table = Table("domain", *COLUMNS, "identity")
    for column in table.columns[1:-1]:
        column.justify = "right"
    rows = [_figures(entry) for entry in body["domains"]]
    for row in rows:
        numbers = (f"{row[name]:,}" for name in COLUMNS.values())
        table.add_row(row["name"], *numbers, row["identity"][:SHOWN])
    display.console.print(table)
    keys = corpus.root / HELD_KEYS
    held = keys.stat().st_size // 16 if keys.exists() else 0
    display.say(f"Corpus: {corpus.root}")
    display.say(
        f"Tokenizer: {body['tokenizer'][:SHOWN]}, {corpus.vocabulary:,} ids; the study keeps it, "
        f"and the keys of {held:,} documents that it has held out"
    )
    return {
        "study": recipe.name,
        "corpus": str(corpus.root),
        "tokenizer": body["tokenizer"],
        "vocabulary": corpus.vocabulary,
        "domains": rows,
    }


COLUMNS = {
    "tokens": "tokens",
    "documents": "documents",
    "bytes": "bytes",
    "held out": "heldout_documents",
    "doubled": "duplicates",
    "contaminated": "contaminated",
    "skipped": "skipped",
}


def _figures(entry: dict[str, Any]) -> dict[str, Any]:
    """A domain of a manifest, for a table and for programs."""
    counts = entry["counts"]
    return {
        "name": entry["name"],
        "identity": entry["identity"],
        "heldout": entry.get("heldout", ""),
        **{what: entry["train"][what] for what in ("tokens", "documents", "bytes")},
        "heldout_documents": entry["valid"]["documents"],
        "duplicates": sum(counts.get(kind, 0) for kind in preparing.DUPLICATES),
        "contaminated": counts["documents_dropped"] + counts["documents_cut"],
        "skipped": counts.get("skipped", 0) + counts.get("filtered", 0),
        "notices": entry.get("notices", []),
    }


def find_document(home: Workspace, display: Display, wanted: str) -> dict[str, Any]:
    """Print which shards, runs and recommendations held a document; nothing is changed.

    All corpora of the home are looked through, and all runs and finished studies of the store.

    Args:
        home: where corpora lie.
        display: prints.
        wanted: its id, or words that stand in it.
    """
    from cuvee.tasks.corpus.find_document import find_documents  # the core has no tokenizers

    places = [place for corpus in _corpora(home) for place in find_documents(corpus, wanted)]
    trained = {place.identity for place in places if place.split == "train"}
    scored = {place.identity for place in places if place.split == "valid"}
    store = Store(home.store, read_only=True)
    runs, held = [], []
    for run in store.outcomes():
        if isinstance(run, RunResult):
            drawn = {
                identity
                for stage in run.spec.stages
                for identity, share in zip(run.spec.identities, stage.weights, strict=True)
                if share > 0 or run.spec.controller
            }
            runs += [run.spec.fingerprint] if drawn & trained else []
            texts = set(run.spec.heldout or run.spec.identities)  # version 1 has one for both
            held += [run.spec.fingerprint] if texts & scored else []
    studies = [
        {"study": one.name, "recommendation": one.fingerprint}
        for key in store.keys(finished.CARDS)
        if (one := finished.finished_by_identity(store, key))
        and {*one.domains.identities, *one.domains.heldout} & (trained | scored)
    ]
    for place in places:
        known = f" (id {place.id})" if place.id else ""
        display.say(
            f"{place.corpus}: domain {place.domain}, {place.split}, document {place.number}{known}"
        )
    display.say(
        f"Documents: {len(places)}. Runs that drew from text which holds one: {len(runs)}; that "
        f"were scored on such text: {len(held)}"
    )
    if is_remote(home.store):
        display.say(f"Only the corpora of this home were looked through ({home.corpora})")
    for name, prints in (("trained on it", runs), ("scored on it", held)):
        if prints:
            display.say(f"Runs that may have been {name}: {', '.join(p[:SHOWN] for p in prints)}")
    for answer in studies:
        display.say(f"Recommendation {answer['recommendation'][:SHOWN]} of study {answer['study']}")
    return {
        "documents": [asdict(place) for place in places],
        "runs": runs,
        "scored": held,
        "recommendations": studies,
    }


def _corpora(home: Workspace) -> Iterator[Corpus]:
    """All prepared corpora of a home that can be opened."""
    for manifest in sorted(home.corpora.glob("*/manifest.json")):
        with contextlib.suppress(CuveeError):
            yield Corpus.open(manifest.parent, verify=False)
