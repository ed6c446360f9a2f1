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
from cuvee.tasks.export import KIND, TOKENS, ExportSpec
from cuvee.tasks.export.literal import yaml_text

COLUMNS = (
    "stage", "start_token", "stage_tokens", "domain", "weight", "document_weight", "tokens",
    "available_tokens", "epochs", "paths",
)  # fmt: skip
FORMULAS = ("=", "+", "-", "@", "\t", "\r", "\n")  # what a cell that is computed begins with


def portable_content(spec: ExportSpec) -> dict[str, Any]:
    """A specification as plain values."""
    held = {name: list(paths) for name, paths in spec.validation.items()}
    return {
        "format": "cuvee-mixture",
        "version": 1,
        "name": spec.name,
        "unit": TOKENS,
        "target_tokens": spec.tokens or None,
        "seed": spec.seed,
        "stages": [_stage(spec, i) for i in range(len(spec.stages))],
        **({"validation": held} if held else {}),
    }


def _stage(spec: ExportSpec, index: int) -> dict[str, Any]:
    stage, start = spec.stages[index], spec.starts[index]
    end = spec.starts[index + 1] if index + 1 < len(spec.stages) else spec.tokens
    return {
        "start_token": start,
        "tokens": (end - start) or None,
        "share": stage.share,
        "domains": _domains(spec, index, end - start),
    }


def _domains(spec: ExportSpec, index: int, tokens: int) -> list[dict[str, Any]]:
    shares = spec.stage_shares(index)
    documents = spec.document_shares(shares) if spec.documented else {}
    rows = []
    for domain in spec.domains:
        share = shares.get(domain.name, 0.0)
        known = spec.counted and tokens
        rows.append(
            {
                "name": domain.name,
                "weight": share,
                "document_weight": documents.get(domain.name, 0.0) if spec.documented else None,
                "tokens": round(share * tokens) if tokens else None,
                "available_tokens": domain.tokens if spec.counted else None,
                "epochs": share * tokens / domain.tokens if known else None,
                "paths": list(spec.paths.get(domain.name, ())),
            }
        )
    return rows


class Whole:
    """What the formats of a whole recommendation have in common."""

    staged: ClassVar[bool] = True
    unit: ClassVar[str] = TOKENS
    needs: ClassVar[frozenset[str]] = frozenset()

    def delivered(self, spec: ExportSpec) -> dict[str, float]:
        return spec.wanted


@register(KIND)
@dataclass(frozen=True)
class Json(Whole):
    """The whole as JSON.

    Take it for a trainer of your own: it holds everything that the others are made of.
    """

    name: ClassVar[str] = "json"

    def files(self, spec: ExportSpec) -> dict[str, str]:
        return {
            "mixture.json": json.dumps(portable_content(spec), indent=1, allow_nan=False) + "\n"
        }


@register(KIND)
@dataclass(frozen=True)
class Yaml(Whole):
    """The whole as YAML.

    Take it for a trainer of your own that is configured by YAML; it holds what `json` holds.
    """

    name: ClassVar[str] = "yaml"

    def files(self, spec: ExportSpec) -> dict[str, str]:
        return {"mixture.yaml": yaml_text(portable_content(spec))}


@register(KIND)
@dataclass(frozen=True)
class Csv(Whole):
    """A row per stage and domain; paths are a list in JSON.

    Take it for a spreadsheet, or a trainer that reads tables.

    A name that a spreadsheet would take for a formula gets an apostrophe in front.
    """

    name: ClassVar[str] = "csv"

    def files(self, spec: ExportSpec) -> dict[str, str]:
        text = io.StringIO()
        rows = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        rows.writeheader()
        for number, stage in enumerate(portable_content(spec)["stages"], start=1):
            place = {"start_token": stage["start_token"], "stage_tokens": stage["tokens"]}
            for domain in stage["domains"]:
                values = {k: v for k, v in domain.items() if k != "name"}
                values |= {"domain": _plain(domain["name"]), "paths": json.dumps(domain["paths"])}
                rows.writerow({"stage": number, **place, **values})
        return {"mixture.csv": text.getvalue()}


def _plain(name: str) -> str:
    return f"'{name}" if name[:1] in FORMULAS else name
