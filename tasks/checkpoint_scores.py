"""Score a Hugging Face checkpoint on a corpus's held-out text and on a suite of tasks.

Held-out text is decoded, cut into passages and scored by the checkpoint's own tokenizer, in bits
per byte over the same bytes for every checkpoint. A passage is scored as if it were a document; it
has at most a sixteenth of the tokens that the recipe asks for, so that many documents are seen, in
an order that their content fixes. What is scored is kept part by part (a domain, a task) under what
checkpoint, part and reading are, and is not scored again.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from cuvee.evaluation import lm_eval_tasks
from cuvee.evaluation.causal_model import CausalCheckpoint, CheckpointReading, load_checkpoint
from cuvee.evaluation.checkpoint_files import checkpoint_digest, tokenizer_files
from cuvee.evaluation.held_out import HeldOutSample, Passage, passage_sample
from cuvee.evaluation.requests import TaskRequests
from cuvee.evaluation.scores import PackScores, score_requests
from cuvee.evaluation.suites import Limits, Suite, short_name
from cuvee.mixtures.errors import DataError
from cuvee.mixtures.runs.run_results import Score
from cuvee.mixtures.runs.run_spec import canonical_json
from cuvee.mixtures.runs.unit_scores import UnitScores
from cuvee.proxies.data.files import file_digest
from cuvee.proxies.data.prepared_corpus import Corpus
from cuvee.proxies.data.tokenizer import check_tokenizer
from cuvee.tasks.store.results import Store

VERSION = 1  # raised by hand whenever the same checkpoint would get other scores
PARTS = "checkpoint-scores"  # folder of the store: by checkpoint, what each part of a scoring gave
SHARE = 16  # passages that the text of a domain has, at least
LEAST = 64  # tokens of a passage, unless there is little text
AS_IT_IS = CheckpointReading()
Part = tuple[str, str, list[Passage] | None]  # target, hash of what is asked, text of a domain


def score_checkpoint(
    folder: Path,
    corpus: Corpus,
    suite: Suite,
    limits: Limits,
    *,
    how: CheckpointReading = AS_IT_IS,
    store: Store | None = None,
    digest: Callable[[Path], str] = file_digest,
    progress: Callable[[str, float], None] = lambda _what, _share: None,
) -> PackScores:
    """The scores of a checkpoint: "domain/<name>" and "task/<name>", in bits per byte, and details.

    Args:
        folder: with config.json, safetensors and a tokenizer.
        corpus: whose held-out text is scored.
        suite: tasks.
        limits: how much held-out text is scored.
        how: the checkpoint is read.
        store: where each part is kept once it is scored; None keeps nothing.
        digest: sha256 of a file.
        progress: called with what is scored and the share of all that is done.

    Raises:
        DataError: the checkpoint cannot be scored; says why and what to do.
        CorruptError: a file of it is damaged.
    """
    parts = scored_parts(corpus, suite, limits)
    return score_parts(folder, parts, suite, how=how, store=store, digest=digest, progress=progress)


def score_parts(
    folder: Path,
    parts: Sequence[Part],
    suite: Suite,
    *,
    how: CheckpointReading = AS_IT_IS,
    store: Store | None = None,
    digest: Callable[[Path], str] = file_digest,
    progress: Callable[[str, float], None] = lambda _what, _share: None,
) -> PackScores:
    """The scores of a checkpoint on parts that are scored of many; see `score_checkpoint`."""
    place = f"{PARTS}/{checkpoint_digest(folder, digest)}"
    reading = [VERSION, how.dtype, how.context]
    reading += [[digest(path) for path in tokenizer_files(how.tokenizer)]] if how.tokenizer else []
    found, model = PackScores(), None
    for number, (target, asked, passages) in enumerate(parts):
        key = hashlib.sha256(canonical_json([*reading, asked]).encode()).hexdigest()
        kept = store.recall(place, key) if store else None
        if kept is None:
            progress(target, number / len(parts))
            model = model or _loaded(folder, how)

            def move(share: float, target: str = target, number: int = number) -> None:
                progress(target, (number + share) / len(parts))

            model.likelihood.moved = move
            kept = _score_part(model, target, passages, suite)
            if store:
                store.remember(place, key, kept)
        if passages is not None:  # it may have been scored when the domain had another name
            kept = {kind: dict(zip([target], p.values(), strict=False)) for kind, p in kept.items()}
        for scores, name in ((found.scores, "scores"), (found.details, "details")):
            scores.update({each: Score(*value) for each, value in kept[name].items()})
        for each, (keys, *rest) in kept.get("units", {}).items():  # an earlier version kept none
            found.units[each] = UnitScores(np.array(keys, np.uint64), *map(np.array, rest))
    return found


def scored_parts(corpus: Corpus, suite: Suite, limits: Limits) -> list[Part]:
    """What is scored one after the other; the text of a domain is cut here."""
    parts: list[Part] = []
    for domain in corpus.domains:
        passages = held_out_passages(corpus, domain.name, limits.tokens)
        text = canonical_json([dataclasses.astuple(passage) for passage in passages])
        parts.append((f"domain/{domain.name}", hashlib.sha256(text.encode()).hexdigest(), passages))
    for task in suite.tasks:
        alone = dataclasses.replace(suite, tasks=(task,))
        parts.append((f"task/{short_name(task)}", alone.identity, None))
    return parts


def held_out_passages(corpus: Corpus, name: str, limit: int) -> list[Passage]:
    """The passages of a domain's held-out text that are scored, the same for every tokenizer.

    A document is cut into passages of about equal length. They are taken in an order that goes by
    the content of their document until they hold `limit` tokens of the corpus's; 0 takes all. Even
    of little text there are two.
    """
    shard, bounds = corpus.valid(name), [int(at) for at in corpus.valid(name).offsets]
    documents = [np.asarray(shard.tokens[a:b]) for a, b in pairwise(bounds)]
    documents = [ids[:-1] if ids.size and ids[-1] == corpus.eot else ids for ids in documents]
    longest = max(1, sum(ids.size for ids in documents) // 2)
    if limit > 0:
        longest = min(longest, max(LEAST, limit // SHARE))
    order: list[tuple[str, int, int, int]] = []
    for number, ids in enumerate(documents):
        content, cuts = ids.astype("<u4").tobytes(), -(-ids.size // longest)
        order += [
            (hashlib.sha256(content + f"/{i}".encode()).hexdigest(), number, i, cuts)
            for i in range(cuts)
        ]
    order.sort()
    if limit > 0:
        seen = np.cumsum([documents[number].size / cuts for _, number, _, cuts in order])
        order = order[: max(2, int(np.searchsorted(seen, limit)) + 1)]
    tokenizer = Tokenizer.from_file(str(corpus.tokenizer_path))
    wanted = {number: documents[number].tolist() for _, number, _, _ in order}
    texts = tokenizer.decode_batch(list(wanted.values()), skip_special_tokens=False)
    by = dict(zip(wanted, texts, strict=True))
    cut = [(n, by[n][len(by[n]) * i // c : len(by[n]) * (i + 1) // c]) for _, n, i, c in order]
    return [Passage(number, text) for number, text in sorted(cut) if text]


def _loaded(folder: Path, how: CheckpointReading) -> CausalCheckpoint:
    model = load_checkpoint(folder, how)
    check_tokenizer(model.encoder.tokenizer, f"the tokenizer of {folder}")
    return model


def _score_part(
    model: CausalCheckpoint, target: str, passages: list[Passage] | None, suite: Suite
) -> dict[str, Any]:
    """The scores and the details of one domain or task, as they are kept."""
    samples: dict[str, HeldOutSample] = {}
    tasks: tuple[TaskRequests, ...] = ()
    name = target.partition("/")[2]
    if passages is not None:
        windows = lambda text: lm_eval_tasks.rolling_rows(model.text_encoder, text)  # noqa: E731
        samples = {name: passage_sample(name, passages, windows)}
    else:
        one = tuple(task for task in suite.tasks if short_name(task) == name)
        tasks = lm_eval_tasks.encoded_tasks(dataclasses.replace(suite, tasks=one), model.encoder)
    (scored,) = score_requests(model.likelihood, samples, tasks)
    if scored.problem:
        raise DataError(f"{target}: {scored.problem}")
    parts = {name: (one.keys, one.totals, one.sizes) for name, one in scored.units.items()}
    units = {name: [column.tolist() for column in part] for name, part in parts.items()}
    return {"scores": _values(scored.scores), "details": _values(scored.details), "units": units}


def _values(scores: Mapping[str, Score]) -> dict[str, list[float]]:
    return {name: [score.value, score.stderr, score.n] for name, score in scores.items()}
