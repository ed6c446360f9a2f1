"""Samples of large domains: what is read, how much there is, and that it stays what it was."""

import itertools
import json
import random
from pathlib import Path

import pytest

from cuvee.proxies.data.prepared_corpus import Corpus
from cuvee.proxies.data.sources.documents import Sample, SampledSource
from cuvee.proxies.data.sources.text_files import Files
from cuvee.tasks.corpus.corpus_settings import CorpusSettings
from cuvee.tasks.corpus.corpus_state import StateStore
from cuvee.tasks.corpus.prepare import prepare_corpus
from cuvee.tasks.store.results import Store

SMALL = CorpusSettings(vocabulary=512, valid_bytes=4_000, min_tokens=500, tokenizer_bytes=60_000)
WORDS = ("the of and to in is that it was for on are as with his they at be this from").split()  # noqa: SIM905


def _file(folder: Path, number: int, documents: int = 12) -> None:
    """A file of documents whose words are its own to some part, as those of a site are."""
    rng = random.Random(number)
    own = [f"w{rng.randrange(10_000)}" for _ in range(30)]
    odd = 0.1 + 0.5 * rng.random()
    rows = [
        {"text": " ".join(rng.choice(own if rng.random() < odd else WORDS) for _ in range(150))}
        for _ in range(documents)
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / f"{number:03}.jsonl").write_text(text)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("text")
    for name, files in (("web", 60), ("code", 10)):
        (root / name).mkdir()
        for number in range(files):
            _file(root / name, number + 1_000 * len(name))
    return root


def _prepared(text: Path, out: Path, sample: Sample | None, **more: object) -> Corpus:
    web = Files(str(text / "web"))
    sources = {"web": SampledSource(web, sample) if sample else web, "code": Files(f"{text}/code")}
    return prepare_corpus(sources, out, benchmarks={}, settings=SMALL, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("by", ["parts", "content"])
def test_a_sample_knows_the_size_of_the_whole(text: Path, tmp_path: Path, by: str) -> None:
    """Catches a size that is that of the sample, one that forgets what is held out, parts that are
    taken by name (they are alike within a site), and more read than is needed."""
    whole = _prepared(text, tmp_path / "whole", None).domains[0]
    corpus = _prepared(text, tmp_path / "sample", Sample(60_000, by))
    web, code = corpus.domains
    assert 0.95 * 60_000 < web.stored < 1.35 * 60_000 < 0.7 * whole.tokens
    assert web.tokens == pytest.approx(whole.tokens, abs=4 * web.tokens_error)
    assert 0 < web.tokens_error < 0.1 * whole.tokens
    assert web.bytes / web.tokens == pytest.approx(whole.bytes / whole.tokens, rel=0.05)
    assert (code.sampled, code.tokens_error) == (False, 0.0)
    said = corpus.manifest["domains"][0]
    assert (said["sampled"]["parts"] < 60) == (by == "parts") and "sample" in said["notices"][0]


def _contents(corpus: Corpus, name: str = "web") -> set[bytes]:
    shard = corpus.train(name)
    ends = shard.offsets
    return {shard.tokens[a:b].tobytes() for a, b in itertools.pairwise(ends)}


def test_a_grown_domain_keeps_its_sample_and_a_larger_sample_holds_it(tmp_path: Path) -> None:
    """Catches parts chosen anew when files are added, which would void every run; a size that does
    not grow with the domain; another sample for other names; and a rebuild that differs."""
    for name, files in (("web", 40), ("code", 10)):
        (tmp_path / name).mkdir()
        for number in range(files):
            _file(tmp_path / name, number + 1_000 * len(name))
    states = StateStore(Store(str(tmp_path / "store")), "study", tmp_path / "cache")
    first = _prepared(tmp_path, tmp_path / "a", Sample(40_000), states=states)
    for number in range(20):
        _file(tmp_path / "web", 5_000 + number)
    second = _prepared(tmp_path, tmp_path / "a", Sample(40_000), states=states)
    web, grown = first.domains[0], second.domains[0]
    assert (grown.identity, grown.heldout) == (web.identity, web.heldout)
    assert grown.tokens == pytest.approx(1.5 * web.tokens, rel=0.02)
    assert any("1.5 times as large" in line for line in second.manifest["domains"][0]["notices"])
    larger = _prepared(tmp_path, tmp_path / "a", Sample(90_000), states=states)
    assert _contents(second) < _contents(larger)
    again = _prepared(tmp_path, tmp_path / "b", Sample(90_000), states=states)
    assert again.domains[0] == larger.domains[0]


def test_a_sample_reads_on_while_duplicates_take_its_text(tmp_path: Path) -> None:
    """Catches tokens counted before duplicates are dropped: half of these files are copies."""
    for name in ("web", "code"):
        (tmp_path / name).mkdir()
    for number in range(60):
        _file(tmp_path / "web", number)
        copy = tmp_path / "web" / f"copy-{number}.jsonl"
        copy.write_text((tmp_path / "web" / f"{number:03}.jsonl").read_text())
    for number in range(10):
        _file(tmp_path / "code", 4_000 + number)
    web = _prepared(tmp_path, tmp_path / "out", Sample(40_000)).domains[0]
    assert 0.95 * 40_000 < web.stored < 1.5 * 40_000


def test_a_domain_that_is_smaller_than_its_sample_is_read_whole(text: Path, tmp_path: Path) -> None:
    """Catches an estimate with an error where nothing is estimated."""
    corpus = _prepared(text, tmp_path / "all", Sample(10**9))
    whole = _prepared(text, tmp_path / "whole", None)
    assert corpus.domains[0] == whole.domains[0] and not corpus.domains[0].sampled
    assert "sampled" not in corpus.manifest["domains"][0]
