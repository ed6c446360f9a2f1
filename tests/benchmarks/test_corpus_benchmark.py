"""The benchmark of corpora, at a tiny size: its text, and that contestants work on the same."""

import corpus
import corpus_text
from corpus_scale import proportional_size

from cuvee.proxies.data.tokenizer import train_tokenizer

TEXTS = [
    f"The {i}th paragraph of {i * i}.\n\nAnother one: it's {i}.\n\n  An end." for i in range(80)
]


def test_contestants_encode_the_same_text(tmp_path):
    """Catches a contestant that leaves out text or counts its ends: tokens are equal where nothing
    is doubled, and every megabyte a second is of the same megabytes."""
    size = corpus_text.write_rows(tmp_path / "rows" / "one", TEXTS, most=1000)
    assert size == sum(len(text.encode()) for text in TEXTS)
    assert len([*(tmp_path / "rows" / "one").iterdir()]) > 3
    (tmp_path / "benchmarks.json").write_text("{}")
    train_tokenizer(TEXTS, 400).save(str(tmp_path / "tokenizer.json"))
    corpus_text.forget(tmp_path)
    settings = corpus.CorpusSettings(min_tokens=1)
    ours = corpus.pipeline(tmp_path, tmp_path / "out", settings)
    theirs = corpus.encode_batch(tmp_path, tmp_path)
    assert ours["tokens"] == theirs["tokens"] > size / 10
    assert min(ours["cpu"], theirs["cpu"]) > 0


def test_recombined_text_is_the_same_for_the_same_seed():
    """Catches text that differs between two contestants, or that repeats its documents."""
    one, again, other = ([*corpus_text.recombined(TEXTS, 50_000, seed)] for seed in (1, 1, 2))
    assert one == again != other
    assert 50_000 <= sum(len(text.encode()) + 2 for text in one) < 60_000
    assert len(set(one)) == len(one) > 10


def test_memory_is_that_of_a_process_and_all_it_started():
    """Catches a figure that leaves out workers, or counts in kilobytes."""
    import os
    import subprocess
    import sys

    before = proportional_size(os.getpid())
    assert before > 10_000_000
    hold = "x = bytearray(b'x') * 200_000_000; print(1, flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        child.stdout.readline()
        grown = proportional_size(os.getpid()) - before
        child.communicate(b"\n")
    assert 180_000_000 < grown < 400_000_000
