"""Near-duplicates: which are found, which one stays, and that nothing depends on order."""

import hashlib
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

from cuvee.evaluation.ngrams import Powers
from cuvee.tasks.corpus.pipeline import near_duplicates
from cuvee.tasks.corpus.pipeline.near_duplicates import (
    BANDS,
    FROZEN,
    HOLDER,
    RECORD,
    NearGraph,
    band_records,
    shared_documents,
    shingle_hashes,
)

ROOT = next(p for p in Path(__file__).parents if (p / "pyproject.toml").exists())
NONE = np.zeros(0, np.uint64)


def keys_of(texts):
    digests = (hashlib.blake2b(text.encode(), digest_size=16).digest() for text in texts)
    return np.array([int.from_bytes(digest[:8], "big") for digest in digests], np.uint64)


def records_of(*domains):
    """Records of domains in the order of ranks, and the domain of each record."""
    found = [band_records(texts, keys_of(texts), Powers()) for texts in domains]
    ranks = np.repeat(np.arange(len(found)), [len(records) for records in found])
    return np.concatenate(found), ranks


def kept_texts(*domains, frozen=()):
    """What is left of every domain."""
    graph = NearGraph.of_records(*records_of(*domains), range(len(domains)), keys_of(frozen))
    stays, _ = graph.resolve()
    gone = set(graph.keys[~stays].tolist())
    return [
        [t for t, key in zip(texts, keys_of(texts).tolist(), strict=True) if key not in gone]
        for texts in domains
    ]


@pytest.fixture(scope="module")
def real_texts():
    """Documents of real text: this project's own prose and code, 150 words each."""
    files = sorted([*ROOT.glob("docs/**/*.md"), *ROOT.glob("mixtures/**/*.py")])
    words = [word for path in files for word in path.read_text(encoding="utf-8").split()]
    texts = [" ".join(words[i : i + 150]) for i in range(0, len(words) - 150, 150)]
    return list(dict.fromkeys(texts))[:600]


def edited(text, share, rng):
    """A text of whose words a share is replaced."""
    words = text.split()
    for i in rng.choice(len(words), round(share * len(words)), replace=False):
        words[i] = f"word{rng.integers(10**6)}"
    return " ".join(words)


EDITS = [(0.007, 0.97, 1), (0.02, 0.9, 1), (0.1, 0, 0.08), (0.4, 0, 0)]


@pytest.mark.parametrize(("share", "least", "most"), EDITS)
def test_planted_edits_go_by_how_much_they_share(real_texts, share, least, most):
    """An edited word spoils five runs: of about 200 words, one edit leaves J = 0.95, three 0.86,
    found at 98 %; a tenth of the words leaves 0.45, found at 2 %. Bands of 4 rows would take a
    third of those, bands of 16 would miss a third of the three edits."""
    rng = np.random.default_rng(0)
    copies = [edited(text, share, rng) for text in real_texts]
    first, second = kept_texts(real_texts, copies)
    found = 1 - len(second) / len(copies)
    assert least <= found <= most
    assert len(first) >= 0.97 * len(real_texts)
    (within,) = kept_texts(real_texts + copies)
    assert len(within) == pytest.approx(len(first) + len(second), abs=3)


def test_pairs_agree_with_exact_jaccard_on_real_text():
    """Precision and recall against the Jaccard similarity of all pairs, on files of code and prose
    with edits of every strength. Signatures of something else than runs of five words would fail
    either bound."""
    rng = np.random.default_rng(1)
    files = sorted([*ROOT.glob("mixtures/**/*.py"), *ROOT.glob("tests/mixtures/**/*.py")])
    texts = [path.read_text(encoding="utf-8")[:6000] for path in files]
    texts = [text for text in texts if len(text.split()) > 100][:120]
    shares = (0.001, 0.005, 0.01, 0.02, 0.03, 0.05, 0.08, 0.12)
    texts += [edited(text, shares[i % len(shares)], rng) for i, text in enumerate(texts * 4)]
    texts = list(dict.fromkeys(texts))
    hashes, counts = shingle_hashes(texts, Powers())
    runs, columns = np.unique(hashes, return_inverse=True)
    places = np.unique(np.stack([np.repeat(np.arange(len(texts)), counts), columns]), axis=1)
    table = csr_array((np.ones(places.shape[1], int), tuple(places)), (len(texts), len(runs)))
    both = (table @ table.T).toarray()
    jaccard = both / (both.diagonal()[:, None] + both.diagonal() - both)
    records = np.sort(records_of(texts)[0], order="band")
    index = {key: i for i, key in enumerate(keys_of(texts).tolist())}
    found = np.zeros(jaccard.shape, bool)
    for band in np.split(records, np.flatnonzero(np.diff(records["band"])) + 1):
        for i, one in enumerate(band):  # every pair of a band, not the first with each
            rest = band[i + 1 :]
            alike = near_duplicates.alike(np.repeat(one[None], len(rest)), rest)
            there = [index[key] for key in rest["key"][alike].tolist()]
            found[index[int(one["key"])], there] = found[there, index[int(one["key"])]] = True
    upper = np.triu(np.ones(jaccard.shape, bool), 1)
    assert (jaccard[found & upper] < 0.5).mean() <= 0.01  # precision
    sure, likely = upper & (jaccard >= 0.9), upper & (jaccard >= 0.8)
    assert sure.sum() > 100 and found[sure].mean() >= 0.98
    assert found[likely].mean() >= 0.93


def test_pages_of_one_template_stay(monkeypatch):
    """Pages that are half a template are half like each other, J = 0.49. Bands alone join some
    pairs, and many pages by way of them; the sketches say that no pair is alike."""
    rng = np.random.default_rng(2)
    template = " ".join(f"menu{i}" for i in range(100))
    own = [" ".join(f"w{n}" for n in rng.integers(0, 10**6, 45)) for _ in range(200)]
    pages = [f"{template} {text}" for text in own]
    (kept,) = kept_texts(pages)
    assert len(kept) >= 198
    monkeypatch.setattr(near_duplicates, "SIMILAR", -1)
    (by_bands,) = kept_texts(pages)
    assert len(by_bands) < 150


LONG = " ".join(f"word{i}" for i in range(300))


def test_the_first_domain_in_rank_keeps_its_copy_however_short_it_is():
    """A rule that looks at lengths first would leave the second domain's."""
    short, long = LONG, f"{LONG} and some more"
    assert kept_texts([short], [long]) == [[short], []]
    assert kept_texts([long], [short]) == [[long], []]


def test_within_a_domain_the_longest_stays_and_of_equals_that_of_the_smallest_key():
    """A rule that keeps what comes first in a file would depend on the order of files."""
    long = f"{LONG} and some more"
    assert kept_texts([LONG, long]) == kept_texts([long, LONG]) == [[long]]
    equal = [LONG.replace("word7 ", f"wort{i} ") for i in range(5)]
    best = equal[int(np.argmin(keys_of(equal)))]
    assert kept_texts(equal) == kept_texts(equal[::-1]) == [[best]]


def test_a_held_out_document_stays_and_what_is_like_it_is_not_trained_on():
    """Wherever it is: in its own domain, in one before it, in one after it; longer or not. Without
    the frozen rank, the first two would win over the held-out text."""
    held = LONG
    longer, other, later = (f"{LONG} {word}" for word in ("a b", "c d", "e f"))
    kept = kept_texts([other], [held, longer], [later], frozen=[held])
    assert kept == [[], [held], []]


def test_two_held_out_documents_that_are_alike_both_stay():
    """They were drawn when near-duplicates were not looked for; scores must not move."""
    one, two = LONG, f"{LONG} x"
    assert kept_texts([one, two, f"{LONG} y"], frozen=[one, two]) == [[one, two]]


def test_texts_without_five_words_are_not_compared():
    """A signature of nothing would make all of them one."""
    assert len(band_records(["a b c d", ""], keys_of(["a b c d", ""]), Powers())) == 0
    assert len(band_records([], NONE, Powers())) == 0
    assert kept_texts(["a b c d", "e f"], ["e f g"]) == [["a b c d", "e f"], ["e f g"]]


def test_scripts_without_blanks_are_compared_by_characters():
    """As one word a Chinese text has no runs of five, and none of its copies are found."""
    rng = np.random.default_rng(3)
    letters = [chr(c) for c in range(0x4E00, 0x5E00)]
    text = "".join(rng.choice(letters, 400))
    assert len(band_records([text], keys_of([text]), Powers())) == BANDS
    assert kept_texts([text], [text[:200] + "中" + text[201:]], [text[::-1]]) == [
        [text], [], [text[::-1]]
    ]  # fmt: skip


def test_long_documents_are_hashed_in_pieces_to_the_same_records(real_texts, monkeypatch):
    """A piece that cut a word, or lost the runs across its end, would give others."""
    text = " ".join(real_texts)
    texts = [text, text[: len(text) // 2], real_texts[0]]
    whole = band_records(texts, keys_of(texts), Powers())
    monkeypatch.setattr(near_duplicates, "PIECE", 1000)
    assert np.array_equal(whole, band_records(texts, keys_of(texts), Powers()))


def test_records_are_the_same_on_every_machine():
    """Markers of earlier preparations hold records: hashing that depends on a seed of the process,
    or another version of the library, would compare what cannot be compared."""
    records = band_records([LONG], keys_of([LONG]), Powers())
    assert records.itemsize == RECORD.itemsize == 52
    assert hashlib.sha256(records.tobytes()).hexdigest()[:16] == "dfb41995a23cb919"


def test_order_and_partitions_change_nothing(real_texts):
    """Records of any number of partitions, in any order within and between them. A cluster that
    depends on which pair came first would differ."""
    rng = np.random.default_rng(4)
    copies = [edited(text, rng.choice([0.007, 0.02, 0.03]), rng) for text in real_texts[:200] * 2]
    records, ranks = records_of(real_texts[:200], copies[:250], copies[250:])
    whole = NearGraph.of_records(records, ranks, range(3), NONE)
    stays, clusters = whole.resolve()
    assert 150 < (~stays).sum() < 400
    for bits in (1, 4):
        order = rng.permutation(len(records))
        part = records["band"][order] >> np.uint64(64 - bits)
        split = [order[part == p] for p in rng.permutation(1 << bits).tolist()]
        graphs = [NearGraph.of_records(records[i], ranks[i], range(3), NONE) for i in split]
        joined = NearGraph.joined(graphs)
        again, groups = joined.resolve()
        assert np.array_equal(joined.keys, whole.keys)
        assert np.array_equal(again, stays) and np.array_equal(groups, clusters)


def by_hand(graph):
    """Who stays, by the rule's own words: every cluster of every rank searched from anew."""
    better = sorted(range(len(graph.keys)), key=lambda i: (graph.ranks[i], -int(graph.sizes[i]),
                                                           graph.keys[i]))  # fmt: skip
    stays = np.ones(len(graph.keys), bool)
    for i in range(len(graph.keys)):
        seen, todo = {i}, [i]
        while todo:
            at = todo.pop()
            ends = {int(b) for a, b in [*graph.edges, *graph.edges[:, ::-1]] if a == at}
            new = {e for e in ends - seen if graph.ranks[e] <= graph.ranks[i]}
            seen |= new
            todo += new
        stays[i] = graph.ranks[i] == FROZEN or min(seen, key=better.index) == i
    return stays


@st.composite
def graphs(draw):
    V = draw(st.integers(2, 9))
    ends = st.integers(0, V - 1)
    edges = draw(st.lists(st.tuples(ends, ends).filter(lambda e: e[0] != e[1]), min_size=1))
    ranks = draw(st.lists(st.integers(0, 3), min_size=V, max_size=V))
    sizes = draw(st.lists(st.integers(5, 7), min_size=V, max_size=V))
    return NearGraph(
        np.arange(V, dtype=np.uint64) * np.uint64(3),
        np.array(ranks, np.int32), np.array(sizes, np.uint32), np.ones(V, np.uint32),
        np.array(edges, np.int64), np.zeros(0, HOLDER),
    )  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(graphs(), st.randoms())
def test_the_rule_holds_on_every_graph_and_survives_freezing_and_new_domains(graph, random):
    """Against a search by hand; and (1) a forest keeps all that the rule needs, (2) what was held
    out of what stayed changes nothing when it is frozen, (3) a domain that is added, last in rank,
    changes nothing before it. Clusters of the whole graph fail (3), frozen ones that lead fail (2),
    a spanning tree without ranks fails (1)."""
    stays, clusters = graph.resolve()
    assert np.array_equal(stays, by_hand(graph))
    assert all(clusters[a] == clusters[b] for a, b in graph.edges)
    small = graph.forest()
    assert set(small.keys[small.resolve()[0]]) == set(graph.keys[stays]) & set(small.keys)
    held = [i for i in np.flatnonzero(stays).tolist() if random.random() < 0.4]
    ranks = graph.ranks.copy()
    ranks[held] = FROZEN
    frozen = replace(graph, ranks=ranks)
    assert np.array_equal(frozen.resolve()[0], stays)
    early = graph.ranks < graph.ranks.max()
    edges = graph.edges[early[graph.edges].all(axis=1)]
    before = replace(graph, edges=edges)
    assert np.array_equal(before.resolve()[0][early], stays[early])


def test_shared_documents_are_counted_from_both_sides():
    """Two copies in one domain count twice there, and once seen from the other."""
    groups = np.array([0, 0, 0, 1, 1, 2, 3])
    domains = np.array([0, 0, 1, 1, 2, 2, 2])
    assert shared_documents(groups, domains, 3).toarray().tolist() == [
        [2, 2, 0],
        [1, 2, 1],
        [0, 1, 3],
    ]


def test_the_first_of_ranks_decides_for_a_text_that_several_domains_hold():
    """An exact copy is one document of the graph; a rank taken from the last copy would let the
    longer text of the middle domain win."""
    longer = f"{LONG} and more"
    graph = NearGraph.of_records(*records_of([LONG], [longer, longer], [LONG]), range(3), NONE)
    stays, _ = graph.resolve()
    order = np.argsort(keys_of([LONG, longer]))
    assert graph.ranks[np.argsort(order)].tolist() == [0, 1]
    assert stays[np.argsort(order)].tolist() == [True, False]
    assert graph.copies[np.argsort(order)].tolist() == [2, 2]
    key, other = keys_of([LONG, longer]).tolist()
    assert sorted(graph.holders.tolist()) == sorted([(key, 0), (key, 2), (other, 1)])


def test_neighbors_of_a_band_that_are_not_alike_are_left_apart():
    """Each record of a band is compared with the first, then with the first of what is left."""
    records = np.zeros(4, RECORD)
    records["key"] = [1, 2, 3, 4]
    records["size"] = [9, 8, 7, 6]
    records["sketch"][2:] = 0x55555555
    graph = NearGraph.of_records(records, np.zeros(4, np.int64), [0], NONE)
    assert sorted(map(tuple, graph.edges.tolist())) == [(0, 1), (2, 3)]
    assert all(a != b for a, b in pairwise(graph.keys.tolist()))
