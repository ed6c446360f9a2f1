"""What proxies are asked: named suites of tasks, and what each task measures.

A task is one of three things. "piqa_offline" and the like are shipped here as lm-eval YAML and read
local files that `benchmarks.prepare_benchmarks` makes. A user's own benchmark is given with its
file (`benchmarks.adopt_benchmark`), which no name alone ever finds: what one study calls `qa` is
another's no longer. Any other name is a task or group of lm-eval itself, which works where its data
can be loaded. The target is "task/" and the name without "_offline".

Accuracy says nothing at proxy scale: it sits at chance, or at an artefact of answer lengths that
an untrained model shows as well. So the value of every task is continuous, bits per byte of the
gold answer (lower is better), and accuracy stands beside it with its chance level.
"""

import hashlib
import importlib.metadata
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from cuvee.mixtures.errors import DataError, RecipeError, UnknownName
from cuvee.mixtures.runs.run_spec import canonical_json

VERSION = 1  # raised by hand whenever the same tasks would give other scores
HELD_OUT_VERSION = 1  # the same of held-out text
TASKS = Path(__file__).with_name("tasks")
SUFFIX = "_offline"


BETWEEN: Mapping[str, tuple[float, float]] = MappingProxyType(  # what scores by a metric can be
    dict.fromkeys(
        ("acc", "acc_norm", "acc_bytes", "accuracy", "accuracy_norm", "exact_match", "probability"),
        (0.0, 1.0),
    )
)


@dataclass(frozen=True)
class Measure:
    """What an offline task measures.

    Attributes:
        about: what it asks, in a few words.
        chance: accuracy of guessing; nan where nothing is chosen.
        metric: what the target's value is.
        lower_is_better: the direction of that value.
    """

    about: str
    chance: float
    metric: str = "bits per byte of the gold answer"
    lower_is_better: bool = True


def _text(about: str) -> Measure:
    return Measure(about, float("nan"), metric="bits per byte of the text")


OFFLINE: Mapping[str, Measure] = {
    "asdiv_offline": _text("arithmetic word problems with their answers"),
    "bb_causal_offline": Measure("causal judgment after a short story", 1 / 2),
    "bb_disambiguation_offline": Measure("whom a pronoun means", 1 / 3),
    "bb_narrative_offline": Measure("the proverb that fits a story", 1 / 5),
    "boolq_offline": Measure("yes or no after a passage", 1 / 2),
    "commonsenseqa_offline": Measure("common sense", 1 / 5),
    "contracts_offline": Measure("yes or no after a clause of a contract", 1 / 2),
    "factual_pairs_offline": Measure("the summary that is true to its sentence", 1 / 2),
    "humaneval_offline": _text("Python functions with docstrings"),
    "logiqa_offline": Measure("deduction from a passage", 1 / 4),
    "medmcqa_offline": Measure("medical entrance examinations", 1 / 4),
    "medqa_offline": Measure("medical licensing examinations", 1 / 5),
    "mmlu_offline": Measure("school and university subjects", 1 / 4),
    "openbookqa_offline": Measure("elementary science", 1 / 4),
    "piqa_offline": Measure("how everyday things are done", 1 / 2),
    "pubmedqa_offline": Measure("yes, no or maybe after an abstract", 1 / 3),
    "siqa_offline": Measure("social situations", 1 / 3),
    "stereoset_inter_offline": Measure("the sentence that could follow", 1 / 2),
    "stereoset_intra_offline": Measure("the words that could complete a sentence", 1 / 2),
}


@dataclass(frozen=True)
class Selection:
    """A named suite: its tasks, and the items asked of each (None asks all)."""

    tasks: tuple[str, ...]
    limit: int | None


SUITES: Mapping[str, Selection] = {
    "quickstart": Selection(
        (
            "piqa_offline",
            "siqa_offline",
            "openbookqa_offline",
            "mmlu_offline",
            "bb_narrative_offline",
            "humaneval_offline",
        ),
        limit=100,
    ),
    "offline": Selection(tuple(OFFLINE), limit=None),
}


@dataclass(frozen=True)
class Suite:
    """Tasks to score proxies on.

    Attributes:
        tasks: names of tasks, in the order of the report.
        limit: items asked of each task, the first in a fixed pseudo-random order; None asks all.
        data: folder of the offline tasks' files.
        own: (task, file) pairs of a user's own benchmarks.
    """

    tasks: tuple[str, ...]
    limit: int | None
    data: Path
    own: tuple[tuple[str, Path], ...] = ()

    def __post_init__(self) -> None:
        short = [short_name(task) for task in self.tasks]
        doubled = sorted({name for name in short if short.count(name) > 1})
        if doubled:
            raise RecipeError(f"tasks that would share one target: {', '.join(doubled)}")
        if self.limit is not None and self.limit < 2:
            raise RecipeError(f"a task needs at least 2 items for an error; limit: {self.limit}")

    @property
    def archives(self) -> tuple[str, ...]:
        """The tasks that `benchmarks.prepare_benchmarks` makes files for."""
        return tuple(task for task in self.tasks if task in OFFLINE)

    def file(self, task: str) -> Path | None:
        """The benchmark file of a task; None for a task of lm-eval itself.

        Raises:
            DataError: a file of the suite is not there.
        """
        path = dict(self.own).get(task)
        if path is None and task not in OFFLINE:
            return None
        path = path or self.data / f"{task}.jsonl"
        if not path.exists():
            raise DataError(f"task {task!r} needs {path}, which is missing: prepare the benchmarks")
        return path

    @property
    def identity(self) -> str:
        """sha256 of the contents."""
        return _hash(canonical_json(self.contents).encode())

    @property
    def contents(self) -> list[Any]:
        """The version, the limit, and hashes of every task's definition and data, read anew.

        Assumption: a task of lm-eval itself is identified by its name and lm-eval's version; data
        that it loads are not hashed.
        """
        parts = {}
        for task in self.tasks:
            path = self.file(task)
            if path is None:
                parts[task] = importlib.metadata.version("lm_eval")
            else:
                parts[task] = _hash(task_definition(task)) + _hash(path.read_bytes())
        return [VERSION, self.limit, parts]


def suite(
    names: Sequence[str],
    data: Path,
    limit: int | None = None,
    *,
    own: Mapping[str, Path] = MappingProxyType({}),
) -> Suite:
    """A suite from names of suites and tasks.

    Args:
        names: suites ("quickstart", "offline") and tasks, in any mixture.
        data: folder of the offline tasks' files.
        limit: items asked of each task; None takes the smallest limit of the named suites.
        own: files of a user's own benchmarks by task; they are asked after the others.

    Raises:
        UnknownName: a name ends in "_offline" and no offline task is called so.
        RecipeError: a path in place of a name, or a name for two benchmarks.
    """
    tasks: dict[str, None] = {}
    for name in names:
        if "/" in name or "\\" in name or name.startswith("."):
            raise RecipeError(
                f"evaluation.tasks names tasks and no files, but {name!r} is a path: give your own "
                "questions as `evaluation: {custom: {name: path}}`"
            )
        if name.endswith(SUFFIX) and name not in OFFLINE:
            raise UnknownName("offline task", name, OFFLINE)
        tasks.update(dict.fromkeys(SUITES[name].tasks if name in SUITES else (name,)))
    both = sorted(tasks.keys() & own.keys())
    if both:
        raise RecipeError(
            f"{', '.join(both)}: both a task and a benchmark of your own (evaluation.custom); "
            "give yours another name"
        )
    limits = [SUITES[name].limit for name in names if name in SUITES]
    known = [value for value in limits if value is not None]
    asked = limit or (min(known) if known else None)
    return Suite((*tasks, *own), asked, data, tuple(own.items()))


def short_name(task: str) -> str:
    """The name of a task in targets: "piqa" for "piqa_offline"."""
    return task.removesuffix(SUFFIX)


def task_definition(task: str) -> bytes:
    """The YAML of an offline task, or that of a user's own questions or texts."""
    path = TASKS / f"{task}.yaml"
    return path.read_bytes() if path.exists() else b"own"


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@dataclass(frozen=True)
class Limits:
    """How much held-out text is scored, and what items are audited for.

    Attributes:
        tokens: per domain; 0 scores all of it.
        detectors: of membership, which every item is scored by.
    """

    tokens: int = 16_384
    detectors: tuple[str, ...] = ()

    @property
    def identity(self) -> str:
        """Canonical JSON of the limits and of the way of scoring."""
        values = {name: value for name, value in asdict(self).items() if value != ()}
        return canonical_json([HELD_OUT_VERSION, importlib.metadata.version("lm_eval"), values])


def scoring_identity(contents: Sequence[Any], limits: str, points: int = 0) -> str:
    """Hash of everything that decides a score beside the proxy itself; part of fingerprints.

    Args:
        contents: of the suite; see `Suite`.
        limits: identity of the limits.
        points: how often held-out text is scored on the way of a run.
    """
    suite = hashlib.sha256(canonical_json(contents).encode()).hexdigest()
    parts = [suite, limits, *([points] if points else [])]
    return hashlib.sha256(canonical_json(parts).encode()).hexdigest()
