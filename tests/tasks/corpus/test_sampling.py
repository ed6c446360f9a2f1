"""Samples of large domains: what is read, how much there is, and that it stays what it was."""

import json
import random
from pathlib import Path

import pytest

from cuvee.proxies.data.documents import Sample, SampledSource
from cuvee.proxies.data.prepared_corpus import Corpus
from cuvee.proxies.data.text_files import Files
from cuvee.tasks.corpus.deduplicate_split import CorpusSettings
from cuvee.tasks.corpus.prepare import prepare_corpus

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
