"""JSON, YAML and CSV: the whole recommendation for trainers that have no format here.

Shares are of tokens, per stage; shares of documents and bytes beside them where they are known,
with tokens, epochs and paths. Domains that are not drawn stay in, with zeros: a reader decides.
"""

import csv
import io
import json
from dataclasses import dataclass
from typing import Any, ClassVar

from cuvee.mixtures.registry import register
from cuvee.tasks.export import KIND, TOKENS, Blend
from cuvee.tasks.export.literal import yaml_text

COLUMNS = (
    "stage", "start_token", "stage_tokens", "domain", "weight", "document_weight", "tokens",
    "available_tokens", "epochs", "paths",
)  # fmt: skip
FORMULAS = ("=", "+", "-", "@", "\t", "\r", "\n")  # what a cell that is computed begins with


def content(blend: Blend) -> dict[str, Any]:
    """A blend as plain values."""
    return {
        "format": "cuvee-mixture",
        "version": 1,
        "name": blend.name,
        "unit": TOKENS,
        "target_tokens": blend.tokens or None,
        "seed": blend.seed,
        "stages": [_stage(blend, i) for i in range(len(blend.stages))],
    }


def _stage(blend: Blend, index: int) -> dict[str, Any]:
    stage, start = blend.stages[index], blend.starts[index]
    end = blend.starts[index + 1] if index + 1 < len(blend.stages) else blend.tokens
    return {
        "start_token": start,
        "tokens": (end - start) or None,
        "share": stage.share,
        "domains": _domains(blend, index, end - start),
    }


def _domains(blend: Blend, index: int, tokens: int) -> list[dict[str, Any]]:
    shares = blend.stage_shares(index)
    documents = blend.document_shares(shares) if blend.documented else {}
    rows = []
    for domain in blend.domains:
        share = shares.get(domain.name, 0.0)
        known = blend.counted and tokens
        rows.append(
            {
                "name": domain.name,
                "weight": share,
                "document_weight": documents.get(domain.name, 0.0) if blend.documented else None,
                "tokens": round(share * tokens) if tokens else None,
                "available_tokens": domain.tokens if blend.counted else None,
                "epochs": share * tokens / domain.tokens if known else None,
                "paths": list(blend.paths.get(domain.name, ())),
            }
        )
    return rows


class Whole:
    """What the formats of a whole recommendation have in common."""

    staged: ClassVar[bool] = True
    unit: ClassVar[str] = TOKENS
    needs: ClassVar[frozenset[str]] = frozenset()

    def delivered(self, blend: Blend) -> dict[str, float]:
        return blend.wanted


@register(KIND, "json")
@dataclass(frozen=True)
class Json(Whole):
    """The whole as JSON."""

    def files(self, blend: Blend) -> dict[str, str]:
        return {"mixture.json": json.dumps(content(blend), indent=1, allow_nan=False) + "\n"}


@register(KIND, "yaml")
@dataclass(frozen=True)
class Yaml(Whole):
    """The whole as YAML."""

    def files(self, blend: Blend) -> dict[str, str]:
        return {"mixture.yaml": yaml_text(content(blend))}


@register(KIND, "csv")
@dataclass(frozen=True)
class Csv(Whole):
    """A row per stage and domain; paths are a list in JSON.

    A name that a spreadsheet would take for a formula gets an apostrophe in front.
    """

    def files(self, blend: Blend) -> dict[str, str]:
        text = io.StringIO()
        rows = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        rows.writeheader()
        for number, stage in enumerate(content(blend)["stages"], start=1):
            place = {"start_token": stage["start_token"], "stage_tokens": stage["tokens"]}
            for domain in stage["domains"]:
                values = {k: v for k, v in domain.items() if k != "name"}
                values |= {"domain": _plain(domain["name"]), "paths": json.dumps(domain["paths"])}
                rows.writerow({"stage": number, **place, **values})
        return {"mixture.csv": text.getvalue()}


def _plain(name: str) -> str:
    return f"'{name}" if name[:1] in FORMULAS else name
