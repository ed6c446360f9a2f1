"""What a trainer drew of each domain in the full run: its counters and logs, as running totals.

What trainers say of it, as read in the code of these versions:

* Megatron-LM, NeMo, Megatron-Bridge (core 0.16): the log has `consumed samples` of the whole run.
  From which prefix each is stands in the blend's index in the data cache (`--data-cache-path`),
  `...-BlendedDataset-train-dataset_index.npy` beside its `...-description.txt`
  (core/datasets/blended_dataset.py).
* OLMo-core 3.0: `Selected N tokens from SOURCE at PATH` for the run (data/source_mixture.py).
* torchtitan 0.3: nothing (a thing to do in hf_datasets/interleaved.py). The loader that the export
  `torchtitan` writes logs `cuvee drew {...}`, sequences of a rank; every rank deals alike.
* LLM Foundry with Streaming 0.13 (`time/token`) and Axolotl 0.19 (`total_num_tokens`): tokens of
  the whole run alone.

Where a trainer counts nothing by domain, a CSV does: `domain`, `tokens`, and perhaps `step`.
"""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

import numpy as np

from cuvee.mixtures.errors import DataError, UnknownName
from cuvee.tasks.export import ExportSpec
from cuvee.tasks.study.table_file import read_csv

INDEX, DESCRIPTION = "dataset_index.npy", "description.txt"
CUTS = 64  # places of an index at which its running total is taken
COLORS = re.compile(r"\x1b\[[0-9;]*m")
LINES = {  # what a line of a log says
    "samples": re.compile(r"\biteration +\d+/ *\d+ \|.*?consumed[ _]samples: +(\d+)"),
    "length": re.compile(r"^\W*seq_length \.+ (\d+)"),
    "selected": re.compile(r"\bSelected (\d+) tokens from (.+) at .+$|\bTotal tokens in mixture"),
    "drew": re.compile(r"\bcuvee drew (\{.*\})"),
    "tokens": re.compile(r"\b(?:time/token|total_num_tokens): *([\d_,]+)"),
}
Counts = Mapping[str, float]
Log = Mapping[str, list[re.Match[str]]]  # what LINES found, in order


@dataclass(frozen=True)
class DrawnTokens:
    """What a trainer drew.

    Attributes:
        points: tokens by domain so far, in the order of the run; the last is its end.
        said: where they come from.
        coarse: tokens by which a count may be off, where that is more than a sequence.
    """

    points: tuple[Counts, ...]
    said: str
    coarse: float = 0.0


def read_drawn_tokens(files: Sequence[Path], spec: ExportSpec) -> DrawnTokens:
    """What a trainer drew, from its logs, counters and tables.

    Args:
        files: several blends in the order of the run's phases; several tables are added, as of
            several ranks.
        spec: names the domains, their paths and the sequence.

    Raises:
        DataError: a file cannot be read, none counts by domain, or two count the same.
        UnknownName: a domain that is not of the study.
    """
    blends = [file for file in files if file.name.endswith(INDEX)]
    tables = [file for file in files if file.suffix.lower() in (".csv", ".tsv")]
    logs = [file for file in files if file not in (*blends, *tables)]
    log = _read_logs(logs)
    if (bool(blends) + bool(tables) + bool(log["selected"]) + bool(log["drew"])) > 1:
        raise DataError("blends, tables and logs count the same run twice: give one of them")
    if blends:
        return _blends_drawn(blends, max(_integers(log["samples"]), default=0), spec)
    return _tables_drawn(tables, spec) if tables else _log_drawn(log, logs, spec)


def _read_logs(files: Iterable[Path]) -> Log:
    found: Log = {kind: [] for kind in LINES}
    for file in files:
        try:
            with file.open(encoding="utf-8", errors="replace") as lines:
                for line in (COLORS.sub("", line.rstrip()) for line in lines):
                    for kind, pattern in LINES.items():
                        found[kind].extend(pattern.finditer(line))
        except OSError as error:
            raise DataError(f"cannot read {file}: {error}") from error
    return found


def _integers(found: Iterable[re.Match[str]]) -> list[int]:
    return [int(one[1].replace("_", "").replace(",", "")) for one in found]


def _log_drawn(log: Log, files: Sequence[Path], spec: ExportSpec) -> DrawnTokens:
    names = ", ".join(file.name for file in files) or "no file"
    length = max(_integers(log["length"]), default=spec.sequence or 0)
    total = max(
        (*_integers(log["tokens"]), *(n * length for n in _integers(log["samples"]))), default=0
    )
    if log["selected"]:
        lists: list[Counter[str]] = [Counter()]
        for one in log["selected"]:  # a run that starts anew lists all again
            if one[1]:
                lists[-1][one[2]] += int(one[1])
            else:
                lists.append(Counter())
        if not (closed := [one for one in lists[:-1] if one]):  # the last is that of a start
            raise DataError(
                f"{names}: what OLMo-core selected has no end, the line `Total tokens in mixture`: "
                "give the whole log"
            )
        return DrawnTokens((_by_domain(closed[-1], spec),), f"{names}: what OLMo-core selected")
    if log["drew"]:
        return _rank_drawn([one[1] for one in log["drew"]], names, spec)
    raise DataError(
        f"{names} counts no tokens by domain{f' ({total:,} in all)' if total else ''}: give what "
        f"does. Megatron-LM keeps *-BlendedDataset-train-{INDEX} under --data-cache-path; for "
        "others a CSV with the columns domain and tokens, as the how-to `approve-and-export` shows"
    )


def _rank_drawn(texts: Sequence[str], names: str, spec: ExportSpec) -> DrawnTokens:
    """Sequences of one rank as shares of all tokens: a rank does not say how many there are."""
    drawn, starts = Counter[str](), 0
    try:
        counts = [json.loads(text) for text in texts]
        if not all(type(n) is int and n >= 0 for one in counts for n in one.values()):
            raise ValueError("a count is no whole number")
    except ValueError as error:
        raise DataError(f"{names}: a count is torn ({error}): give one rank's log") from error
    for now, after in zip(counts, [*counts[1:], {}], strict=True):
        if sum(now.values()) > sum(after.values()):  # the last of a start, which deals anew
            drawn.update(now)
            starts += 1
    scale = float(spec.sequence or 1)
    if spec.tokens:
        scale = spec.tokens / max(1, sum(drawn.values()))
    scaled = {name: count * scale for name, count in _by_domain(drawn, spec).items()}
    of = "all tokens" if spec.tokens else "a run of unknown length"
    said = f"{names}: the shares of one rank's sequences, of {of}"
    return DrawnTokens((scaled,), said, scale * starts)


def _blends_drawn(files: Sequence[Path], consumed: int, spec: ExportSpec) -> DrawnTokens:
    """Samples of Megatron-LM's blends, up to those that a log says were consumed."""
    points, so_far, left = list[Counts](), Counter[str](), consumed
    for file in files:
        described = file.with_name(file.name.replace(INDEX, DESCRIPTION))
        try:
            parts = json.loads(described.read_text(encoding="utf-8"))["datasets"]
            names = [_domain_of(part["dataset_path"], spec) for part in parts]
            length = int(parts[0].get("sequence_length") or spec.sequence or "unknown")
            index = np.load(file, mmap_mode="r", allow_pickle=False)
            index = index[: left if consumed else None]
            for part in np.array_split(index, min(CUTS, max(1, len(index)))):
                numbers = np.bincount(part, minlength=len(names)).tolist()
                for name, number in zip(names, numbers, strict=True):
                    so_far[name] += number * length
                points.append(dict(so_far))
        except (OSError, ValueError, KeyError, TypeError, IndexError, EOFError) as error:
            raise DataError(
                f"{file} cannot be read as a blend of Megatron-LM, which keeps {described.name} "
                f"beside it: {error!r}"
            ) from error
        left -= len(index)
    if consumed and left > 0:
        raise DataError(
            f"the log says that {consumed:,} samples were consumed, and these blends hold "
            f"{consumed - left:,}: give the index of every phase"
        )
    said = "as many samples as the log says" if consumed else "whole: no log says how far it went"
    return DrawnTokens(tuple(points), f"{', '.join(file.name for file in files)}: {said}")


def _tables_drawn(files: Sequence[Path], spec: ExportSpec) -> DrawnTokens:
    """Running totals of tables; those of several files are added."""
    totals: dict[tuple[Path, str], dict[float, float]] = defaultdict(dict)  # by file and label
    named: dict[str, str] = {}
    for file in files:
        table = read_csv(file)
        if not {"domain", "tokens"} <= table.columns.keys():
            raise DataError(
                f"{file} needs the columns domain and tokens, and step where counts are running "
                f"totals; found {', '.join(table.columns)}"
            )
        steps = table.numbers("step") if "step" in table.columns else np.zeros(table.rows)
        labels, counts = table.columns["domain"], table.numbers("tokens").tolist()
        named |= {label: _domain_of(label, spec) for label in set(labels)}
        for label, step, tokens in zip(labels, steps.tolist(), counts, strict=True):
            known = totals[file, label].setdefault(step, tokens)
            if not (tokens >= 0 and step >= 0 and known == tokens):
                raise DataError(
                    f"{file} says no tokens, or several numbers, for {label} at step {step:g}: "
                    f"{tokens:,.0f}; give every rank a file of its own"
                )
    at = sorted({step for one in totals.values() for step in one})
    points = [Counter[str]() for _ in at]
    for (file, label), one in totals.items():
        mine = sorted(one)
        values = [0.0, *(one[step] for step in mine)]
        if values != sorted(values):
            raise DataError(
                f"the count of {label} in {file} falls: counts are running totals, with which a "
                "run that is resumed goes on"
            )
        for i, place in enumerate(np.searchsorted(mine, at, side="right").tolist()):
            points[i][named[label]] += values[place]
    return DrawnTokens(tuple(points), f"{', '.join(file.name for file in files)}: running totals")


def _by_domain(counts: Counts, spec: ExportSpec) -> Counts:
    found: Counter[str] = Counter()
    for label, count in counts.items():
        found[_domain_of(label, spec)] += count  # type: ignore[assignment]
    return found


def _domain_of(label: str, spec: ExportSpec) -> str:
    """The domain that a trainer means: by name, as exports name it, or by the end of its path."""

    def plain(path: str) -> str:
        return path.removesuffix(".bin").removesuffix(".idx")

    names = [domain.name for domain in spec.domains]
    known = {plain(path): name for name, paths in spec.paths.items() for path in paths}
    known |= {f"{spec.name}/{name}".lower(): name for name in names} | {n: n for n in names}
    end = PurePath(plain(label)).name
    ends = {name for path, name in known.items() if PurePath(path).name == end}
    if plain(label) in known or len(ends) == 1:
        return known.get(plain(label)) or ends.pop()
    raise UnknownName("domain", label, names)
