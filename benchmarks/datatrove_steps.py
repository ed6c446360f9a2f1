"""The steps of a corpus by datatrove, for `corpus.py`, which runs this in a venv with datatrove.

    python benchmarks/datatrove_steps.py ROWS TOKENIZER OUT [TEXTS]

Reads rows of JSON, drops documents that share 13 words with one of TEXTS (a JSON object of lists of
texts; its own filter and its own index, without the words of a question's label, which it asks
lighteval for), tokenizes, shuffles and writes. The last line is JSON.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
from datatrove.pipeline.decont.n_grams import NGramsDecontConfig, NGramsDecontFilter
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.tokens import DocumentTokenizer
from datatrove.utils.text import ngrams, simplify_text

WORDS = 13


def write_index(texts: dict[str, list[str]], folder: Path) -> NGramsDecontFilter:
    """The index of `NGramsDecontIndexer`, which itself must have lighteval; and its filter."""
    folder.mkdir(parents=True)
    config = NGramsDecontConfig(n_grams=WORDS)
    step = NGramsDecontFilter(str(folder), config)
    for name, each in texts.items():
        found: set[int] = set()
        for text in each:
            words = step.tokenizer.word_tokenize(simplify_text(text, config.norm_config))
            found.update(map(step.hash_func, map(" ".join, ngrams(words, WORDS))))
        hashes = np.array(sorted(found), dtype=config.hash_config.np_descr)
        hashes.tofile(folder / f"{name}.index.hashes")
    return step


def main(rows: str, tokenizer: str, out: str, texts: str = "") -> None:
    steps = [JsonlReader(rows, doc_progress=False)]
    if texts:
        steps.append(write_index(json.loads(Path(texts).read_text()), Path(out, "index")))
    steps.append(DocumentTokenizer(str(Path(out, "tokens")), tokenizer, batch_size=1000, seed=0))
    began = time.process_time()
    data = None
    for step in steps:
        data = step.run(data, 0, 1) if data is not None else step.run(None, 0, 1)
    seconds = time.process_time() - began
    print(json.dumps({"cpu": seconds, "tokens": steps[-1].stats["tokens"].total}))


if __name__ == "__main__":
    main(*sys.argv[1:])
