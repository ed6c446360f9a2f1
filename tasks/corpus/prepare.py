"""Prepares a corpus: reads, deduplicates, decontaminates, splits, tokenizes and writes shards.

The bytes of a corpus depend on its sources, its settings and the study's state, and on nothing
else: not on the number of workers, nor on the order of anything. A prepared corpus is a folder
named by a hash of what determines it; asked for again, it is verified and returned. It is written
beside its place and renamed when it is whole. A preparation that was killed goes on: whatever task
had ended is not done again.
"""

import os
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from cuvee.mixtures.errors import CuveeError, DataError, StorageError
from cuvee.proxies.data import tokenizer as tokenizers
from cuvee.proxies.data.files import exclusive_lock
from cuvee.proxies.data.objects import ObjectFolder
from cuvee.proxies.data.prepared_corpus import HELD_KEYS, Corpus, read_manifest
from cuvee.proxies.data.sources.documents import TextSource
from cuvee.proxies.data.tokenizer import TokenizerFile
from cuvee.tasks.corpus.corpus_settings import DEFAULT, CorpusSettings
from cuvee.tasks.corpus.corpus_state import CorpusState, StateStore
from cuvee.tasks.corpus.download import ProgressReport, ignore_progress
from cuvee.tasks.corpus.pipeline.corpus_build import CorpusBuild
from cuvee.tasks.corpus.pipeline.corpus_request import CorpusRequest
from cuvee.tasks.corpus.pipeline.preparation_files import PreparationFiles
from cuvee.tasks.corpus.pipeline.task_pool import InlinePool, TaskPool

INLINE = InlinePool()
KEY = re.compile(r"[0-9a-f]{16}")  # of a corpus, which names its folder


def prepare_corpus(
    sources: Mapping[str, TextSource],
    out: Path,
    *,
    benchmarks: Mapping[str, Iterable[str]],
    settings: CorpusSettings = DEFAULT,
    progress: ProgressReport = ignore_progress,
    tokenizer: TokenizerFile | None = None,
    states: StateStore | None = None,
    pool: TaskPool = INLINE,
) -> Corpus:
    """The prepared corpus for these sources, made now or found where it was made before.

    Args:
        sources: by domain name; the order is the order of the domains.
        out: the folder under which prepared corpora lie, each named by its key.
        benchmarks: texts by benchmark; none of them may remain in the corpus.
        settings: see `CorpusSettings`.
        progress: called with a message and the fraction done.
        tokenizer: a team's own, or that of a model that goes on training; None: the one that the
            study has trained before, or one that is trained on the text now.
        states: what the study keeps of its corpora; None: nothing is kept, and nothing was.
        pool: where tasks run.

    Raises:
        DataError: a source that cannot be used, or a domain with too little text.
        CorruptError: a source that breaks off.
        StorageError: `out` cannot be written, or the disk is full.
    """
    _check_names(sources)
    if tokenizer is not None:  # before the text is read, which takes minutes
        tokenizers.load_tokenizer(tokenizer.path, tokenizer.end_of_text)
    asked = CorpusRequest.canonical(
        sources,
        {name: tuple(texts) for name, texts in benchmarks.items()},
        settings,
        tokenizer,
        states.load(settings) if states else CorpusState(),
    )
    out = Path(out)
    try:
        found = _found_or_made(asked, out, states, progress, pool)
        if states:
            _remember(asked, out, states, found)
    except CuveeError:
        raise
    except OSError as error:
        raise StorageError(
            f"cannot write the corpus under {out}: {error.strerror or error}; it needs about "
            "twice the size of the text"
        ) from error
    progress(f"the corpus is in {found.root}", 1.0)
    called = dict(zip(asked.sources, (domain.name for domain in found.domains), strict=True))
    return found.renamed({called[name]: name for name in sources})


def _found_or_made(
    asked: CorpusRequest,
    out: Path,
    states: StateStore | None,
    progress: ProgressReport,
    pool: TaskPool,
) -> Corpus:
    """The corpus in its folder, which one process at a time makes."""
    name = asked.key(asked.state)[:16]

    def waiting() -> None:
        progress("waiting for another process that prepares this corpus", 0.0)

    out.mkdir(parents=True, exist_ok=True)
    while True:
        root = _known_root(out, name)
        with exclusive_lock(out / f".{root.name}.lock", waiting):
            if root != _known_root(out, name):  # another has found, meanwhile, that it lies there
                continue
            found = _existing(root, progress)
            if found is None:
                with PreparationFiles(out, pool.shared) as files:
                    found = CorpusBuild(asked, root, states, progress, pool, files=files).make()
            return found


def _remember(asked: CorpusRequest, out: Path, states: StateStore, found: Corpus) -> None:
    """Keeps the study's state; asked for under it, the corpus is found where it is."""
    state = asked.state_after(read_manifest(found.root))
    keys = (found.root / HELD_KEYS).read_bytes()
    states.save(asked.settings, state, found.tokenizer_path, keys, before=asked.state)
    before, after = asked.key(asked.state), asked.key(state)
    if after != before:
        ObjectFolder(str(out)).replace(f".{after[:16]}.same", found.root.name.encode())


def _check_names(sources: Mapping[str, TextSource]) -> None:
    """Domain names stand in tables, records and exports, on one line."""
    if not sources:
        raise DataError("a corpus needs at least one domain; got none")
    for name in sources:
        if not name.isprintable() or not name or name != name.strip():
            raise DataError(
                f"domain {name!r} cannot be a name: use printable characters, and no blank at "
                "either end"
            )


def _known_root(out: Path, name: str) -> Path:
    """Where the corpus of a key lies: in its own folder, or in that of one with the same bytes."""
    try:
        said = (out / f".{name}.same").read_text(encoding="ascii", errors="replace").strip()
    except FileNotFoundError:
        said = ""
    return out / (said if KEY.fullmatch(said) else name)


def _existing(root: Path, progress: ProgressReport) -> Corpus | None:
    """The corpus if it is there and whole; a corrupt one is removed."""
    if not root.exists():
        return None
    try:
        found = Corpus.open(root, verify=True, again=False)
        os.utime(root)  # so that its age is the time since it was used
        return found
    except DataError as error:
        progress(f"{error}; doing so now", 0.0)
        shutil.rmtree(root)
        return None
