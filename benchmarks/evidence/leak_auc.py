"""From how many copies on a proxy's likelihood tells that an item was in its training text.

Items of the quickstart's benchmarks are drawn at random, printed as pages print them
(`membership.item_text`), and planted among the documents of one domain: 1, 4, 16 or 64 copies of
each, 0 of others. A proxy trains on the domain, once over. Every item is scored by every detector:
members and others are drawn alike, so that an area under the ROC curve is due to training alone.
At 0 copies the others are split in two: that area is the detector's null. `raw` is the detector's
score; `excess` is that of the published order of choices over other orders (`order_excess`), which
needs no other items to compare with; `z` is its mean over the items in standard errors,
by which a whole benchmark is judged. Every replica has items, order and seed of its own; areas are
means over replicas, intervals DeLong's at 90 %. `recall` is the share of members above 95 % of the
others.
"""

import dataclasses
import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from cuvee.evaluation.benchmarks import read_benchmark
from cuvee.evaluation.membership import (
    detect,
    item_text,
    order_excess,
    token_frequency,
)
from cuvee.evaluation.membership_audit import score_texts
from cuvee.evaluation.requests import RequestEncoder
from cuvee.flows.recipe.load import load_recipe
from cuvee.flows.study import prepare as preparing
from cuvee.flows.workspace import Workspace
from cuvee.mixtures.domains import Domain
from cuvee.mixtures.runs.run_spec import RunSpec, Stage
from cuvee.proxies.data.prepared_corpus import Corpus
from cuvee.proxies.data.tokenizer import load_tokenizer
from cuvee.proxies.ladder import model_size
from cuvee.proxies.train.trainer import train_pack
from evidence.csv_rows import Row, append_rows, lacking, read_rows
from evidence.roc import RocArea, mean_area, roc_area

RECIPE = Path(__file__).parents[2] / "recipes" / "quickstart.yaml"
DOMAIN = "encyclopedia"
TASKS = ("siqa", "openbookqa", "mmlu")  # of 3 and 4 choices
PLANTED = {0: 200, 1: 100, 4: 100, 16: 60, 64: 24}  # copies -> items of a replica
SIZES = {"0.3M": 6, "0.6M": 4}  # replicas of each size
MINUTES = 30.0


@dataclasses.dataclass(frozen=True)
class PlantedText:
    """A corpus of one domain in memory: `proxies.interfaces.TrainingCorpus`."""

    tokens: NDArray[np.int64]
    vocabulary: int

    @property
    def domains(self) -> tuple[Domain, ...]:
        identity = hashlib.sha256(self.tokens.tobytes()).hexdigest()
        size = self.tokens.size
        return (Domain(DOMAIN, tokens=size, bytes=4 * size, identity=identity),)

    def train(self, _: str) -> "PlantedText":
        return self

    def check(self) -> None:
        """Memory does not change by itself."""


class Planting:
    """What is planted into what: items, text, tokenizer, reference frequencies."""

    def __init__(self, home: Path) -> None:
        prepared = preparing.prepare(load_recipe(RECIPE)[0], Workspace(home))
        self.corpus: Corpus = prepared.corpus
        tokenizer = load_tokenizer(self.corpus.tokenizer_path)
        self.encoder = RequestEncoder(tokenizer, self.corpus.eot, model_size("0.3M").context)
        paths = [prepared.suite.file(f"{task}_offline") for task in TASKS]
        every = [item for path in paths if path for item in read_benchmark(path)]
        self.items = [item for item in every if len(self.encoder.encode(item_text(item))) < 250]
        held = [np.asarray(self.corpus.valid(one.name).tokens) for one in self.corpus.domains]
        self.frequency = token_frequency(np.concatenate(held), self.corpus.vocabulary)

    def replica(self, size: str, number: int) -> Iterator[Row]:
        """Plant, train, detect: the rows of one proxy."""
        count, rng = sum(PLANTED.values()), np.random.default_rng([18, number])
        order = np.random.default_rng(18).permutation(len(self.items))  # no item is in two replicas
        chosen = [self.items[i] for i in order[number * count : (number + 1) * count]]
        copies = np.repeat(list(PLANTED), list(PLANTED.values()))
        text = self._text(chosen, copies, rng)
        (domain,) = text.domains
        spec = RunSpec(
            (DOMAIN,), (domain.identity,), (Stage((1.0,)),), size, len(text.tokens), number
        )
        likelihood = train_pack([spec], text).likelihood
        if likelihood is None:
            raise SystemExit(f"the proxy of {size}, replica {number}, diverged")
        turns = [range(len(item["choices"])) for item in chosen]
        texts = [item_text(item, t) for item, own in zip(chosen, turns, strict=True) for t in own]
        seen = iter(score_texts(likelihood, texts, self.encoder)[0])
        found = [detect([next(seen) for _ in own], self.frequency) for own in turns]
        for row in _areas(found, copies):
            yield {"size": size, "replica": number, **row}

    def _text(
        self, items: list[Any], copies: NDArray[Any], rng: np.random.Generator
    ) -> PlantedText:
        shard = self.corpus.train(DOMAIN)
        documents = [shard.document(i).astype(np.int64) for i in range(len(shard))]
        for item, times in zip(items, copies.tolist(), strict=True):
            ids = np.array([*self.encoder.encode(item_text(item)), self.corpus.eot])
            documents += [ids] * times
        shuffled = [documents[i] for i in rng.permutation(len(documents))]
        return PlantedText(np.concatenate(shuffled), self.corpus.vocabulary)


def _areas(found: list[dict[str, NDArray[Any]]], copies: NDArray[Any]) -> Iterator[Row]:
    """Areas by detector, form and copies; at 0 copies of one half of the others over the other."""
    for name in found[0]:
        forms = {
            "raw": np.array([one[name][0] for one in found]),
            "excess": np.array([order_excess(name, one[name]) for one in found]),
        }
        for form, values in forms.items():
            others = values[copies == 0]
            for times in PLANTED:
                members, rest = values[copies == times], others
                if times == 0:
                    members, rest = others[::2], others[1::2]
                one = roc_area(members, rest)
                recall = float((members > np.quantile(rest, 0.95)).mean())
                yield {
                    "detector": name,
                    "form": form,
                    "copies": times,
                    **dataclasses.asdict(one),
                    "recall": recall,
                    "z": _standard_errors(values[copies == times]),
                }


def _standard_errors(values: NDArray[Any]) -> float:
    """The mean in its own standard errors; 0 where nothing varies."""
    return float(values.mean() / stats.sem(values)) if values.std() > 0 else 0.0


def run(out: Path, minutes: float) -> dict[str, Any]:
    """Figures of all replicas that are there when the minutes are over; goes on where it stopped.

    Args:
        out: folder of `leak_auc.csv`.
        minutes: no replica is begun after them.
    """
    path, until = out / "leak_auc.csv", time.monotonic() + 60 * minutes
    cells = [{"size": s, "replica": float(n)} for s, most in SIZES.items() for n in range(most)]
    missing = lacking(path, cells)
    planting = Planting(Path(os.environ.get("CUVEE_HOME", ".cuvee"))) if missing else None
    for cell in missing:
        if planting is None or time.monotonic() > until:
            break
        began, (size, number) = time.monotonic(), (cell["size"], int(cell["replica"]))
        append_rows(path, list(planting.replica(size, number)))
        print(f"{size}, replica {number}: {time.monotonic() - began:.0f} s", flush=True)
    return {"leak_auc": {"whole": not lacking(path, cells), **summary(read_rows(path))}}


def summary(rows: list[Row]) -> dict[str, Any]:
    """By size, form, detector and copies: area, low, high; recall (mean), z (median)."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        key = (row["size"], row["form"], row["detector"], f"{row['copies']:.0f}")
        groups.setdefault(key, []).append(row)
    result: dict[str, Any] = {}
    for (size, form, detector, copies), some in groups.items():
        areas = [RocArea(r["area"], r["error"], int(r["members"]), int(r["others"])) for r in some]
        pooled = mean_area(areas)
        told = [np.mean([r["recall"] for r in some]), np.median([r["z"] for r in some])]
        place = result.setdefault(size, {}).setdefault(form, {}).setdefault(detector, {})
        place[copies] = [round(float(x), 3) for x in (pooled.area, *pooled.interval(), *told)]
    return result
