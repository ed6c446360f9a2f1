"""What a study's corpus holds, and what held a document: `cuvee corpus`."""

from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

from rich.table import Table

from cuvee.flows.console import Display
from cuvee.flows.recipe.schema import Recipe
from cuvee.flows.study import prepare as preparing
from cuvee.flows.workspace import Workspace
from cuvee.mixtures.errors import CuveeError
from cuvee.mixtures.runs.run_results import RunResult
from cuvee.proxies.data.objects import ObjectFolder, is_remote
from cuvee.proxies.data.prepared_corpus import HELD_KEYS, Corpus
from cuvee.tasks.store.results import Store
from cuvee.tasks.store.shared_inputs import CORPORA, stored_name
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

    All corpora of the home and of a remote store are looked through, and all runs and studies of
    the store.

    Args:
        home: where corpora lie; of those in a remote store, this node keeps copies.
        display: prints.
        wanted: its id, or words that stand in it.
    """
    from cuvee.tasks.corpus.find_document import find_documents  # the core has no tokenizers

    places, searched, unread = [], [], []
    for urls, opened in _corpora(home, display):
        if isinstance(opened, CuveeError):
            unread.append(f"{urls[0]} ({opened})")
            continue
        searched += urls
        here = list(find_documents(opened, wanted))
        places += [replace(place, corpus=url) for url in urls for place in here]
    trained = {place.identity for place in places if place.split == "train"}
    scored = {place.identity for place in places if place.split == "valid"}
    store = Store(home.store, read_only=True)
    runs, held = _runs_resting_on(store, trained, scored)
    studies = [
        {"study": one.name, "recommendation": one.fingerprint}
        for key in store.keys(finished.CARDS)
        if (one := finished.finished_by_identity(store, key))
        and {*one.domains.identities, *one.domains.heldout} & (trained | scored)
    ]
    answer = {
        "documents": [asdict(place) for place in places],
        "runs": runs,
        "scored": held,
        "recommendations": studies,
        "states": _states_resting_on(store, trained, scored),
        "searched": searched,
        "not_searched": unread,
    }
    _tell_document(answer, home, display)
    return answer


def _tell_document(found: dict[str, Any], home: Workspace, display: Display) -> None:
    """Print what `find_document` found."""
    for place in found["documents"]:
        known = f" (id {place['id']})" if place["id"] else ""
        display.say(
            f"{place['corpus']}: domain {place['domain']}, {place['split']}, "
            f"document {place['number']}{known}"
        )
    display.say(
        f"Places that hold one: {len(found['documents'])}. Runs that drew from text which holds "
        f"one: {len(found['runs'])}; that were scored on such text: {len(found['scored'])}"
    )
    away = sum(map(is_remote, found["searched"]))
    told = f"Searched: {len(found['searched']) - away} corpora in {home.corpora}"
    if is_remote(home.store):
        told += (
            f" and {away} in {home.store}; not what another home has prepared and not trained on, "
            "nor the copies that other nodes keep"
        )
    display.say(told)
    for what in found["not_searched"]:
        display.say(f"Could not be searched: {what}")
    for name in ("runs", "scored"):
        if prints := ", ".join(one[:SHOWN] for one in found[name]):
            verb = "trained" if name == "runs" else "scored"
            display.say(f"Runs that may have been {verb} on it: {prints}")
    for one in found["recommendations"]:
        display.say(f"Recommendation {one['recommendation'][:SHOWN]} of study {one['study']}")
    for state in found["states"]:
        own = ", ".join(one[:SHOWN] for one in state["tokenizers"]) or "none"
        display.say(
            f"Study {state['study']} goes on with what it keeps of this text: the hashes of what "
            f"it holds out ({state['heldout'][:SHOWN]}), tokenizers trained on it ({own})"
        )


def _runs_resting_on(
    store: Store, trained: set[str], scored: set[str]
) -> tuple[list[str], list[str]]:
    """Runs that drew from training text, and those that were scored on held-out text."""
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
    return runs, held


def _states_resting_on(store: Store, trained: set[str], scored: set[str]) -> list[dict[str, Any]]:
    """What studies keep of their corpora, where a domain of them held the document."""
    from cuvee.tasks.corpus.corpus_state import RECORDS, CorpusState  # the core has no tokenizers

    return [
        {"study": study, "heldout": state.heldout, "tokenizers": sorted(state.tokenizers.values())}
        for study in store.objects.names(RECORDS)
        for key in store.keys(f"{RECORDS}/{study}")
        if (state := CorpusState.from_json(store.recall(f"{RECORDS}/{study}", key)))
        and any(one.identity in trained or one.heldout in scored for one in state.ranks)
    ]


def _corpora(home: Workspace, display: Display) -> Iterator[tuple[list[str], Corpus | CuveeError]]:
    """All prepared corpora of a home and of a remote store, and where each lies; or why not."""
    remote = is_remote(home.store)
    stored = ObjectFolder(home.shared).names(CORPORA) if remote else ()
    left = {name: f"{home.shared}/{CORPORA}/{name}" for name in stored if name[0] != "."}
    places = [manifest.parent for manifest in sorted(home.corpora.glob("*/manifest.json"))]
    for place in places:
        try:
            corpus = Corpus.open(place, verify=False)
            also = left.pop(stored_name(corpus), None)
            yield [str(place), *([also] if also else [])], corpus
        except CuveeError as error:
            yield [str(place)], error
    for url in left.values():
        display.say(f"Reading {url}, of which this node keeps a copy in its cache")
        try:
            yield [url], Corpus.open(url)
        except CuveeError as error:
            yield [url], error
