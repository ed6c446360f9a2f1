"""Near-duplicates of whole corpora: what is dropped, what is held out, and what domains share."""

import hashlib
import json
import pickle
from itertools import count

import numpy as np
import pytest

from cuvee.mixtures.errors import DataError
from cuvee.proxies.data import tokenizer as tokenizers
from cuvee.proxies.data.prepared_corpus import Corpus
from cuvee.proxies.data.sources.text_files import Files
from cuvee.tasks.corpus.corpus_settings import CorpusSettings
from cuvee.tasks.corpus.corpus_state import StateStore
from cuvee.tasks.corpus.pipeline import deduplicate_split, near_bands, read_parts
from cuvee.tasks.corpus.pipeline.near_bands import band_bits
from cuvee.tasks.corpus.prepare import prepare_corpus
from cuvee.tasks.store.results import Store

NEAR = CorpusSettings(
    vocabulary=300, valid_share=0.1, valid_bytes=20_000, min_tokens=50, tokenizer_bytes=20_000,
    deduplicate="near",
)  # fmt: skip
RNG = np.random.default_rng(0)
WORDS = [f"w{i}" for i in range(2000)]


def pages(seed, count, words=120):
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, words)) for _ in range(count)]


def nearly(documents, seed=1):
    """Documents of which one word in 120 is another, so that each is nearly what it was."""
    rng = np.random.default_rng(seed)
    found = []
    for text in documents:
        words = text.split()
        words[rng.integers(len(words))] = f"other{rng.integers(10**6)}"
        found.append(" ".join(words))
    return found


FOLDERS = count()


def prepared(tmp_path, given, settings=NEAR, **more) -> Corpus:
    """A corpus of lists of documents by domain, each in two files."""
    sources = {}
    for name, documents in given.items():
        folder = tmp_path / f"text-{next(FOLDERS)}"
        folder.mkdir(parents=True)
        for i in range(2):
            lines = (json.dumps({"text": text}) + "\n" for text in documents[i::2])
            (folder / f"{i}.jsonl").write_text("".join(lines))
        sources[name] = Files(str(folder))
    return prepare_corpus(sources, tmp_path / "corpora", benchmarks={}, settings=settings, **more)


def texts(corpus, name, split):
    """Every document of a split."""
    tokenizer = tokenizers.load_tokenizer(corpus.tokenizer_path)
    shard = getattr(corpus, split)(name)
    ids = [shard.document(i).tolist()[:-1] for i in range(len(shard))]
    return [tokenizer.decode(row, skip_special_tokens=False) for row in ids]


def shards(corpus):
    """Digests of tokens and indexes, by domain."""
    found = {}
    for path in corpus.root.rglob("*"):
        if path.suffix in (".bin", ".npz"):
            found[str(path.relative_to(corpus.root))] = hashlib.sha256(
                path.read_bytes()
            ).hexdigest()
    return found


def entries(corpus):
    return {entry["name"]: entry for entry in corpus.manifest["domains"]}


SMALL, LARGE = pages(1, 40), pages(2, 80)
COPIES = nearly(SMALL[:30])
GIVEN = {"crawl": LARGE + COPIES + SMALL[:5] + nearly(LARGE[:10], 2), "chosen": SMALL}


def test_of_near_duplicates_the_small_domain_keeps_its_own(tmp_path):
    """Catches near-duplicates that stay, that go in the domain which is to keep them, or that are
    counted as equal texts; and one that is found where only equal texts are asked for."""
    corpus = prepared(tmp_path / "near", GIVEN)
    left = {name: texts(corpus, name, "train") + texts(corpus, name, "valid") for name in GIVEN}
    assert sorted(left["chosen"]) == sorted(SMALL)
    assert len(left["crawl"]) == 80 and not set(left["crawl"]) & {*COPIES, *SMALL}
    counts = entries(corpus)["crawl"]["counts"]
    assert (counts["near_duplicates"], counts["duplicates_elsewhere"]) == (40, 5)
    exact = prepared(
        tmp_path / "exact", GIVEN, CorpusSettings(**vars(NEAR) | {"deduplicate": "exact"})
    )
    assert entries(exact)["crawl"]["train"]["documents"] > 100
    assert entries(exact)["crawl"]["counts"]["near_duplicates"] == 0


def test_what_domains_share_is_counted_of_each(tmp_path):
    """Of 125 texts the crawl has 30 nearly and 5 of them also word for word; the chosen domain is
    contained in it by three quarters, and that is told. Catches shares of the other domain, and
    texts that are counted both ways."""
    found = entries(prepared(tmp_path, GIVEN))
    assert {name: one["distinct"] for name, one in found.items()} == {"crawl": 125, "chosen": 40}
    assert found["chosen"]["shared"] == {"crawl": {"exact": 5, "near": 30}}
    assert found["crawl"]["shared"] == {"chosen": {"exact": 5, "near": 35}}
    assert found["chosen"]["notices"] == [
        "75% of the texts of chosen are also in crawl, word for word (12%) or nearly; each stays "
        "in one of the two"
    ]


def test_no_near_duplicate_of_held_out_text_is_trained_on(tmp_path):
    """The study's held-out documents stay, in the same domains, when longer copies of them come to
    the domain that comes first, and to their own. Without their rank, the copies would win: one is
    trained on what it is scored by."""
    states = StateStore(Store(str(tmp_path / "store")), "study", tmp_path / "cache")
    first = prepared(tmp_path / "a", {"one": SMALL, "two": LARGE}, states=states)
    held = {name: texts(first, name, "valid") for name in ("one", "two")}
    longer = {name: [f"{text} and more words" for text in some] for name, some in held.items()}
    given = {"one": SMALL + longer["two"] + longer["one"], "two": LARGE}
    second = prepared(tmp_path / "b", given, states=states)
    for name in given:
        assert texts(second, name, "valid") == held[name]
        assert not set(texts(second, name, "train")) & {*longer["one"], *longer["two"]}
    for old, new in zip(first.domains, second.domains, strict=True):
        assert (old.heldout, old.identity) == (new.heldout, new.identity)


class Backwards:
    """A pool whose tasks end in the opposite order, and travel there and back as bytes."""

    workers, shared = 3, None

    def map(self, work, items):
        """The last item first."""
        sent = pickle.dumps(work)
        for i in reversed(range(len(items))):
            yield i, pickle.loads(pickle.dumps(pickle.loads(sent)(items[i])))


def test_pools_partitions_and_runs_change_no_byte(tmp_path, monkeypatch):
    """Catches a cluster that depends on which partition came first, and records of a run that are
    lost between runs."""
    whole = shards(prepared(tmp_path / "a", GIVEN))
    assert len(whole) == 8
    monkeypatch.setattr(near_bands, "PARTITION", 5000)
    monkeypatch.setattr(near_bands, "JOINED", 3)
    monkeypatch.setattr(deduplicate_split, "PARTITION", 10_000)
    monkeypatch.setattr(read_parts, "GROUP", 3000)
    monkeypatch.setattr(read_parts, "RUN", 9000)
    assert band_bits(165) > 4
    assert shards(prepared(tmp_path / "b", GIVEN, pool=Backwards())) == whole
    turned = {name: GIVEN[name][::-1] for name in reversed(GIVEN)}
    assert shards(prepared(tmp_path / "c", turned)) == whole


@pytest.mark.slow
def test_two_workers_of_ray_find_the_same(tmp_path, monkeypatch, ray_cluster):
    """Catches a graph or a writer of bands that cannot travel, and what only one process knows."""
    from cuvee.flows.execution.ray_pool import RayPool

    whole = prepared(tmp_path / "a", GIVEN)
    monkeypatch.setattr(near_bands, "PARTITION", 20_000)
    other = prepared(tmp_path / "b", GIVEN, pool=RayPool(lambda: None))
    assert shards(other) == shards(whole)
    for name in GIVEN:
        one, two = (corpus.attributes(name).read_bytes() for corpus in (whole, other))
        assert one == two


def test_clusters_are_counted_with_their_copies(tmp_path):
    """What is kept carries how many documents it stands for: three equal texts and two nearly so
    are five. Catches different texts that are counted in place of documents."""
    given = {"one": [*SMALL, SMALL[0], SMALL[0], *nearly(SMALL[:1] * 2, 5)], "two": LARGE}
    found = {}

    class Looking(Backwards):
        """Keeps the rows that stay."""

        def map(self, work, items):
            """As before, and what was kept so far."""
            yield from super().map(work, items)
            if hasattr(work, "kept") and hasattr(work, "near"):
                rows = deduplicate_split.read_kept(work.kept, 0)
                found.update(zip(rows["high"].tolist(), rows["cluster"].tolist(), strict=True))

    prepared(tmp_path, given, pool=Looking())
    assert len(found) == 120
    assert sorted(found.values()) == [1] * 119 + [5]


def test_a_domain_that_another_holds_whole_is_refused_with_the_reason(tmp_path):
    """Catches an error that says no more than how few documents are left."""
    longer = [f"{text} and more" for text in nearly(SMALL)]
    reason = (
        r"'copy' has 0 usable documents of 40 read.*100% of the texts of copy are also in small"
    )
    with pytest.raises(DataError, match=reason):
        prepared(tmp_path, {"copy": longer, "small": SMALL})


@pytest.mark.parametrize("documents", [0, 80_000, 200_000, 10**9])
def test_partitions_of_bands_are_neither_tiny_nor_more_than_their_places_tell(documents):
    """Catches one task for all, and partitions that no place in a file of bands marks."""
    bits = band_bits(documents)
    assert bits == {0: 0, 80_000: 0, 200_000: 2, 10**9: 10}[documents]
