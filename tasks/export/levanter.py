"""Levanter and Marin: components and train weights, with stages.

`data.yaml` is the `data` part of a training configuration. Weights are of packed sequences, so
shares of tokens. A mixture is dealt out in blocks: of every `mixture_block_size` sequences each
component gets a whole number, rounded down, the largest the rest; a block that the run breaks off
is a random part of one. The block is chosen here so that the shares of the whole run are met, and
weights are moved, where that is needed, to be rounded to the nearest number. A
stage starts at a training step (Levanter multiplies by the batch) that must be at a block's start.
A short component starts anew (`stop_strategy: restart`). A validation set is a component without
a weight, which Levanter only evaluates, each with a loss of its own.

Source: marin-community/marin, lib/levanter: data/mixture.py, data/text (where
`rescale_mixture_schedule_for_batch_schedule` turns steps into sequences), docs/guides.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from cuvee.mixtures.errors import ExportError
from cuvee.mixtures.registry import register
from cuvee.proxies.data.sources.source_files import file_kind
from cuvee.tasks.export import KIND, SEQUENCES, ExportSpec
from cuvee.tasks.export.delivery import MORE, OFF, WAYS_OUT
from cuvee.tasks.export.documents import (
    BUILDERS,
    check_field,
    check_top_level,
    document_source,
)
from cuvee.tasks.export.literal import yaml_text

DEFAULT, LARGEST = 2048, 2**16 - 1  # sequences in a block
READ = (".jsonl", ".json", ".parquet")  # packed or not
HUB_LEFT = ("revision", "split")  # of a data set, which it cannot be told
NUDGE = 1e-4  # sequences over a whole number, so that rounding down gives that number
AT_ONCE = 2048  # blocks that are tried together
SURE = 4.0  # standard deviations of a block that breaks off: there are many blocks to choose from


@register(KIND)
@dataclass(frozen=True)
class Levanter:
    """The data part of a Levanter configuration.

    Take it for Levanter and Marin, with or without stages.

    Attributes:
        tokenizer: of the run, or "" to leave it to the configuration around.
        cache_dir: where Levanter keeps tokenized data, or "" likewise.
        field: the key of the text, or keys by domain; by default those of the study.
    """

    name: ClassVar[str] = "levanter"

    tokenizer: str = ""
    cache_dir: str = ""
    field: str | Mapping[str, str] = ""
    staged: ClassVar[bool] = True
    unit: ClassVar[str] = SEQUENCES
    needs: ClassVar[frozenset[str]] = frozenset({"paths", "filled"})

    def __post_init__(self) -> None:
        check_field("levanter", self.field)

    def delivered(self, spec: ExportSpec) -> dict[str, float]:
        dealing = _dealing(spec)
        if not spec.samples:
            return {name: drawn * (spec.tokens or 1) for name, drawn in dealing.drawn.items()}
        return spec.sequences.tokens(dealing.drawn)

    def files(self, spec: ExportSpec) -> dict[str, str]:
        shares = [spec.stage_shares(i) for i in range(len(spec.stages))]
        dealing = _dealing(spec)
        given = [_weights(stage, dealing.block) for stage in shares]
        weights: Any = given[0]
        if len(shares) > 1:
            steps = [start // (spec.batch or 1) for start in dealing.starts]
            weights = [[step, stage] for step, stage in zip(steps, given, strict=True)]
        components = {name: self._component(spec, name) for name in spec.shares}
        for name in spec.validation:
            if f"{name}/validation" in components:
                raise ExportError(
                    f"a domain is called {name}/validation, as Levanter's validation set of {name} "
                    "would be: rename one"
                )
            held = self._component(spec.held_out, name)
            if urls := held["source"].pop("train_urls", None):
                held["source"]["validation_urls"] = urls
            components[f"{name}/validation"] = held
        data: dict[str, Any] = {
            "components": components,
            "train_weights": weights,
            "stop_strategy": "restart",
            "mixture_block_size": dealing.block,
        }
        if self.tokenizer:
            data["tokenizer"] = self.tokenizer
        if self.cache_dir:
            data["cache_dir"] = self.cache_dir
        return {"data.yaml": yaml_text({"data": data})}

    def _component(self, spec: ExportSpec, name: str) -> dict[str, Any]:
        read, paths = document_source(spec, name, self.field), spec.paths[name]
        check_top_level("Levanter", spec, name, read)
        key = {} if read.field == "text" else {"format": {"type": "text", "text_key": read.field}}
        hub = paths[0].startswith("hf://") and not paths[0].startswith("hf://datasets/")
        urls, left = list(read.source.get("data_files", ())), ""
        if hub or not urls:
            left = " and ".join(f"{k} {read.source[k]}" for k in HUB_LEFT if k in read.source)
            source: dict[str, Any] = {"type": "hf", "id": paths[0].removeprefix("hf://")}
            source |= {"name": read.source["name"]} if "name" in read.source else {}
        elif read.source["path"] in BUILDERS.values():
            left = next((url for url in urls if file_kind(url)[0] not in READ), "")
            source = {"type": "url", "train_urls": urls}
        else:
            source = {"type": "url", "train_urls": list(paths)}
        if left:
            raise ExportError(
                f"the study of {name} read {left}, and Levanter reads files of {', '.join(READ)} "
                "by their names (of others it takes lines, or nothing) and the newest train split "
                "of a data set: write its documents as .jsonl and name that in "
                f"{spec.place}, or choose huggingface"
            )
        return {"source": source, **key}


@dataclass(frozen=True)
class _Dealing:
    """A block, where stages start, and what is drawn: sequences, or shares of an unknown length."""

    block: int
    starts: tuple[int, ...]
    drawn: Mapping[str, float]


def _dealing(spec: ExportSpec) -> _Dealing:
    """The smallest block, from the default, that meets every share over the whole run.

    Raises:
        ExportError: no block does; names the domain that the best one misses.
    """
    batch = (spec.batch or 1) if len(spec.stages) > 1 else 1
    spec.steps()  # refuses stages without the sizes that place them
    length = spec.samples // batch * batch
    want = np.array(list(spec.shares.values())) * (length or 1)
    allowed = np.maximum(OFF * want, 1.0 if length else 0.0)
    most = _most(spec)
    best: tuple[float, _Dealing, str] | None = None
    for blocks in _candidates(length, max(1, len(want) // 40)):
        drawn, noise, starts, kept = _dealt(spec, blocks, batch, length)
        kept &= drawn + SURE * noise <= most
        off = np.where(kept, (abs(drawn - want) + SURE * noise) / allowed, np.inf)
        worst = off.max(axis=1)
        met = np.flatnonzero(worst <= 1)
        at = int(met[0]) if met.size else int(np.argmin(worst))
        counts = dict(zip(spec.shares, drawn[at].tolist(), strict=True))
        name = list(spec.shares)[int(np.argmax(off[at]))]
        found = _Dealing(int(blocks[at]), tuple(int(x) for x in starts[:, at]), counts)
        if met.size:
            return found
        if best is None or worst[at] < best[0]:
            best = float(worst[at]), found, name
    raise ExportError(_refusal(spec, best))


def _most(spec: ExportSpec) -> np.ndarray:
    """Sequences (K) of each domain that its cap allows."""
    exist = spec.sequences.exist
    known = spec.counted and spec.samples
    caps = [spec.caps.get(name, np.inf) if known else np.inf for name in spec.shares]
    most = [MORE * cap * exist[name] + 1 for cap, name in zip(caps, spec.shares, strict=True)]
    return np.array(most)


def _candidates(length: int, step: int) -> list[np.ndarray]:
    """Blocks in the order in which they are tried; one that holds a short run first."""
    first = [length] if 0 < length < DEFAULT else []
    every = np.array([*first, *range(DEFAULT, LARGEST + 1, step)])
    return [every[i : i + AT_ONCE] for i in range(0, len(every), AT_ONCE)]


def _dealt(
    spec: ExportSpec, blocks: np.ndarray, batch: int, length: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """What each block draws: drawn, deviation (B, K), starts of stages (stages, B), kept (B, K).

    Without a length, shares; `kept` is whether every stage gives each of its domains a sequence.
    """
    unit = np.lcm(blocks, batch)
    places = [tokens // (spec.sequence or 1) for tokens in spec.starts]
    starts = np.array([unit * np.round(place / unit).astype(int) for place in places])
    ends = np.vstack([starts[1:], np.full_like(unit, length)])
    names = list(spec.shares)
    drawn = np.zeros((len(blocks), len(names)))
    noise, kept = np.zeros_like(drawn), np.ones_like(drawn, dtype=bool)
    for i in range(len(spec.stages)):
        given = spec.stage_shares(i)
        columns = [names.index(name) for name in given]
        counts = _counts(np.array(list(given.values())), blocks)
        part = counts / blocks[:, None]
        samples = (ends[i] - starts[i])[:, None] if length else np.ones((len(blocks), 1))
        broken = samples % blocks[:, None] if length else np.zeros_like(samples)
        drawn[:, columns] += samples * part
        left = 1 - broken / blocks[:, None]
        noise[:, columns] += broken * part * (1 - part) * left
        kept[:, columns] &= (counts > 0) & (samples > 0)
    return drawn, np.sqrt(noise), starts, kept


def _counts(shares: np.ndarray, blocks: np.ndarray) -> np.ndarray:
    """Sequences of each domain in each block (B, K): rounded to the nearest number, if weights can.

    Levanter rounds down and gives the rest to the largest, which must then be so by two.
    """
    rows = np.arange(len(blocks))
    exact = (shares / sum(shares.tolist())) * blocks[:, None]
    plain, nearest = np.trunc(exact), np.rint(exact)
    plain[rows, plain.argmax(axis=1)] += blocks - plain.sum(axis=1)
    top = int(np.argmax(shares))
    nearest[:, top] += blocks - nearest.sum(axis=1)
    others = np.delete(nearest, top, axis=1).max(axis=1, initial=0)
    return np.asarray(np.where((nearest[:, top] >= others + 2)[:, None], nearest, plain))


def _weights(shares: Mapping[str, float], block: int) -> dict[str, float]:
    """Weights that Levanter rounds down to these numbers: the shares themselves, if they do."""
    given, at = np.array(list(shares.values())), np.array([block])
    [counts], [exact] = _counts(given, at), np.trunc(given / sum(given.tolist()) * block)[None]
    exact[exact.argmax()] += block - exact.sum()
    if (exact == counts).all():
        return dict(shares)
    moved = (counts + NUDGE) / block
    top = int(np.argmax(given))
    moved[top] = 1 - np.delete(moved, top).sum()
    return dict(zip(shares, moved.tolist(), strict=True))


def _refusal(spec: ExportSpec, best: tuple[float, _Dealing, str] | None) -> str:
    for i in range(len(spec.stages)):
        for name, share in spec.stage_shares(i).items():
            if share * LARGEST < 1:
                return (
                    f"{name} has a share of {share:.3g}, less than one sequence of Levanter's "
                    f"largest block ({LARGEST}), which would drop it without a word: bound its "
                    "share from below, or to zero, in the recipe's constraints"
                )
    _, dealing, name = best or (0.0, None, "a domain")
    got, want = (dealing.drawn[name] if dealing else 0.0), spec.wanted[name]
    got *= (spec.sequence or 1) if spec.samples else (spec.tokens or 1)
    return (
        f"Levanter deals out whole sequences of a block, and no block up to {LARGEST} meets every "
        f"share: of {name} the best would deliver {got:,.6g} where {want:,.6g} are recommended. "
        f"{WAYS_OUT}"
    )
