"""The doctor: what of a store cannot be trusted, by hashes that are computed anew."""

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from cuvee.evaluation import benchmarks, suites
from cuvee.evaluation.suites import scoring_identity
from cuvee.flows.recipe.load import parse
from cuvee.flows.workspace import Workspace
from cuvee.mixtures.errors import CuveeError, StorageError
from cuvee.proxies.data.objects import ObjectFolder, is_remote
from cuvee.tasks.store import doctor, shared_inputs
from cuvee.tasks.store.results import Store


def examine(home: Workspace, urls: Sequence[str]) -> tuple[list[str], str]:
    """What is wrong with stores, a sentence each, and a sentence on what was read.

    Args:
        home: whose studies say which benchmarks are known, and whose store is read by default.
        urls: of the stores to read instead.

    Raises:
        StorageError: there is no store.
    """
    wanted = tuple(urls) or (home.store,)
    for url in wanted:
        if Path(url).is_file():
            raise StorageError(
                f"{url} is a file, and doctor takes stores, or nothing for this machine; what a "
                f"recipe would do says `cuvee plan {url}`"
            )
        place = ObjectFolder(url)
        if not place.files.exists(place.root):
            raise StorageError(f"there is no store at {url}: give its home (--home) or its URL")
    known = {scoring_identity(*found): found for found in _studies(home)}
    problems, count = doctor.examine_stores([Store(url) for url in wanted], known)
    corpora = 0
    for url in wanted:
        wrong, there = shared_inputs.corpus_problems(url.rstrip("/")) if is_remote(url) else ([], 0)
        problems, corpora = [*problems, *wrong], corpora + there
    left = "cannot be trusted as it is" if problems else "nothing speaks against it"
    read = f"{count} records{f' and {corpora} corpora' if corpora else ''}"
    return problems, f"{read} of {', '.join(wanted)}: {left}; nothing was changed"


def _studies(home: Workspace) -> Iterator[tuple[list[object], str, int]]:
    """What the studies of a home are scored on, where their benchmarks are still there."""
    for path in sorted(home.root.glob("studies/*/recipe.yaml")):
        with contextlib.suppress(CuveeError), tempfile.TemporaryDirectory() as scratch:
            recipe = parse(path.read_text(encoding="utf-8"))
            part, folder = recipe.evaluation, Path(scratch)  # nothing is written into the home
            own = {
                n: benchmarks.adopt_benchmark(Path(given), folder, n)
                for n, given in part.custom.items()
            }
            suite = suites.suite(part.names, home.benchmarks, part.limit, own=own)
            if recipe.corpus:
                yield suite.contents, part.limits.identity, part.curve
