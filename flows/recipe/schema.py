"""The recipe: what a person writes. YAML, checked whole before anything is spent.

Unknown fields are refused with a suggestion; numbers may carry a suffix (20M, 4B, 1.5T). The
methods, designs, laws and searches named in it are built by `mixtures.registry`, so that a new one
needs no change here.
"""

import glob
import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, PrivateAttr

from cuvee.flows.recipe.aim_parts import ConfirmPart, ConstraintsPart, FullScalePart, LimitsPart
from cuvee.flows.recipe.corpus_parts import CorpusPart
from cuvee.flows.recipe.evidence_parts import EvaluationPart, ProxyPart, TablesPart
from cuvee.flows.recipe.parts import (
    BudgetPart,
    ContinualPart,
    ExportPart,
    HandoffPart,
    Part,
    SchedulePart,
)
from cuvee.mixtures import registry
from cuvee.mixtures.constraints import Constraints, Group, constrain
from cuvee.mixtures.constraints.kept_ratios import keep_ratios
from cuvee.mixtures.domains import DomainSet
from cuvee.mixtures.inference.screening import Screened
from cuvee.mixtures.methods import Method
from cuvee.mixtures.objectives import Objective
from cuvee.mixtures.runs.run_spec import canonical_json
from cuvee.proxies.data.sources.source_files import is_url
from cuvee.tasks.study.finished import Purpose

FREE = (  # what no recommendation depends on: who trains, what tests it, what becomes of it
    "confirm", "export", "handoff", "schedule", "budget", "proxy.pack", "limits.failed_share",
    "evaluation.audit.longest_match", "evaluation.held_out_targets",
    *(f"proxy.trainer.{name}" for name in
      ("cpus", "gpus", "memory", "nodes", "timeout", "retries", "environment", "folder")),
)  # fmt: skip
LONGEST = 200  # characters of a study's name: files are named by it, and add to it
NAME_RULE = (  # what a refusal says that a name must be
    f"made of at most {LONGEST} letters, digits, ., _ and -, the first a letter or a digit"
)


class Recipe(Part):
    """A study, whole."""

    name: Annotated[str, NAME_RULE] = Field(
        pattern=rf"^[A-Za-z0-9][A-Za-z0-9_.-]{{0,{LONGEST - 1}}}$",
        description="What the study is called: its folder in the home and its experiment in the "
        "record are named by it.",
        examples=["web-code-2026"],
    )
    seed: int = Field(
        default=42,
        ge=0,
        description="What every random draw derives from: designs, held-out text, starts of the "
        "proxies.",
        examples=[7],
    )
    corpus: CorpusPart | None = Field(
        default=None,
        description="The text that proxies are trained on; either this or `tables`.",
        examples=[{"domains": {"web": {"path": "data/web/"}, "code": {"path": "data/code/"}}}],
    )
    tables: TablesPart | None = Field(
        default=None,
        description="Runs that were trained elsewhere, to be fitted without training; either this "
        "or `corpus`.",
        examples=[{"mixtures": "ratios.csv", "scores": "metrics.csv"}],
    )
    proxy: ProxyPart = Field(
        default=ProxyPart(),
        description="The small models that are trained on candidate mixtures.",
        examples=[{"size": "1M", "tokens": "20M"}],
    )
    continual: ContinualPart | None = Field(
        default=None,
        description="Continual pretraining: what the checkpoint of `proxy.start` has seen and must "
        "not forget.",
        examples=[{"old": ["web"], "replay": 0.1, "forget": 0.02}],
    )
    evaluation: EvaluationPart = Field(
        default=EvaluationPart(),
        description="What proxies are scored on beside held-out text of every domain.",
        examples=[{"suite": None}, {"suite": "quickstart", "limit": 100}],
    )
    objective: dict[str, Any] = Field(
        description="What is minimized: a registered objective with its fields, over targets such "
        "as `domain/code` and `task/mmlu`, in bits per byte (lower is better).",
        examples=[{"name": "mean", "weights": {"domain/code": 2, "task/mmlu": 1}}],
    )
    constraints: ConstraintsPart = Field(
        default=ConstraintsPart(),
        description="What every candidate and the answer satisfy.",
        examples=[{"epochs": 4, "bounds": {"code": [0.02, 0.3]}}],
    )
    full_scale: FullScalePart = Field(
        default=FullScalePart(),
        description="The run for which the mixture is chosen.",
        examples=[{"tokens": "300B", "parameters": "7B"}],
    )
    method: dict[str, Any] = Field(
        description="How the mixture is found: a registered method with its fields. Take `regmix` "
        "with `laws: [kriging]` unless you know why not.",
        examples=[{"name": "regmix", "runs": 64, "laws": ["kriging"], "search": "auto"}],
    )
    confirm: ConfirmPart | None = Field(
        default=None,
        description="Fresh runs that test the recommendation against natural, uniform and the best "
        "observed; without them it stays a draft.",
        examples=[{"seeds": 3}],
    )
    limits: LimitsPart = Field(
        default=LimitsPart(),
        description="When to give up, and which targets are too noisy to be trusted.",
        examples=[{"failed_share": 0.3}],
    )
    budget: BudgetPart | None = Field(
        default=None,
        description="Ceilings on what one sweep newly spends; null for none.",
        examples=[{"minutes": 90}],
    )
    schedule: SchedulePart | None = Field(
        default=None,
        description="When `cuvee schedule` searches again, where, and who is told when it fails.",
        examples=[{"cron": "0 3 * * 1"}],
    )
    export: ExportPart = Field(
        default=ExportPart(),
        description="What a trainer must know to take the recommendation.",
        examples=[{"sequence_length": 4096, "batch": 1024, "paths": {"web": "s3://bucket/web"}}],
    )
    handoff: HandoffPart | None = Field(
        default=None,
        description="What happens once the recommendation is approved.",
        examples=[{"format": "megatron", "to": "s3://bucket/mixtures"}],
    )

    _folder: Path | None = PrivateAttr(default=None)  # no value of the recipe, nor hashed with it

    def located(self, folder: str | Path | None) -> "Recipe":
        """This recipe, which knows now in which folder its file lies."""
        self._folder = Path(folder).absolute() if folder else None
        return self

    @property
    def folder(self) -> Path | None:
        """Where its file lies; None where it came from no file."""
        return self._folder

    def source_path(self, path: str) -> str:
        """Where a path that the recipe reads from leads.

        A relative one is meant from the recipe's folder, so that a recipe and its data can be moved
        and used from anywhere; what is not there is looked for in the working directory. A URL is
        no path, and leads where it says.
        """
        if is_url(path):
            return path
        beside = str(self._folder / path) if self._folder else path
        same = Path(beside).resolve() == Path(path).resolve()
        return path if same or not _leads_somewhere(beside) else beside

    @property
    def doubled_paths(self) -> tuple[str, ...]:
        """Paths that it reads from and that lead elsewhere from the working directory."""
        return tuple(
            path
            for path in dict.fromkeys(self._written_paths())
            if self.source_path(path) != path and _leads_somewhere(path)
        )

    def _written_paths(self) -> Iterator[str]:
        """Every path that it reads from, as it is written."""
        for source in self.corpus.domains.values() if self.corpus else ():
            yield from source.paths
            yield from [source.dataset.name] if source.dataset else []
        if self.tables:
            yield from (self.tables.mixtures, self.tables.scores)
        yield from self._tokenizers()
        if self.proxy.start:
            yield self.proxy.start
        yield from self.evaluation.custom.values()

    def _tokenizers(self) -> Iterator[str]:
        """Every tokenizer that it names."""
        named = [source.tokens_of for source in self.corpus.domains.values()] if self.corpus else []
        yield from filter(None, [self.corpus.tokenizer if self.corpus else None, *named])

    @property
    def hub(self) -> bool:
        """Whether it names what may have to be fetched from Hugging Face."""
        sources = self.corpus.domains.values() if self.corpus else ()
        sets = [source.dataset.name for source in sources if source.dataset]
        if any(path.startswith("hf://") for source in sources for path in source.paths):
            return True
        if not all(_leads_somewhere(self.source_path(name)) for name in sets):
            return True
        return self.evaluation.hub or not all(
            re.fullmatch(r"[0-9a-f]{64}", name) or _leads_somewhere(self.source_path(name))
            for name in self._tokenizers()
        )

    @property
    def digest(self) -> str:
        """Hash of all that a recommendation depends on; a default may be written out or not."""
        return hashlib.sha256(canonical_json(self.determining()).encode()).hexdigest()

    @property
    def purpose(self) -> Purpose:
        """What a recommendation is approved for: the budget, and whom a handoff calls."""
        tokens = self.export.tokens or self.full_scale.tokens
        target = self.handoff.target if self.handoff else ""
        return Purpose(tokens, self.full_scale.parameters, target)

    def determining(self) -> dict[str, Any]:
        """The values that a recommendation depends on, where they are not defaults."""
        values = self.model_dump(mode="json", exclude_defaults=True)
        for name in FREE:
            *outer, last = name.split(".")
            inner = values
            for part in outer:
                inner = inner.get(part, {})
            inner.pop(last, None)
        for outside, part in ((values.get("evaluation", {}), "audit"), (values, "evaluation")):
            if not outside.get(part, True):  # as if absent: other parts keep their digests
                del outside[part]
        return values

    def build_method(self) -> Screened:
        """The method with its hyper-parameters, and with the limits on noise."""
        method: Method = registry.build("method", self.method)
        return Screened(method, self.limits.least_signal, self.limits.drop_noisy)

    def build_objective(self) -> Objective:
        """The objective with its hyper-parameters."""
        objective: Objective = registry.build("objective", self.objective)
        return objective.turned(self.tables.higher_is_better) if self.tables else objective

    def build_constraints(self, domains: DomainSet) -> Constraints:
        """The feasible set over a corpus's domains."""
        part = self.constraints
        groups = [Group(tuple(g.domains), g.at_least, g.at_most) for g in part.groups]
        if self.continual and self.continual.replay:
            groups.append(Group(tuple(self.continual.old), self.continual.replay))
        found = constrain(
            domains,
            full_tokens=self.full_scale.tokens,
            bounds=part.bounds,
            groups=groups,
            required=part.required,
            epochs=part.epochs,
            most_domains=part.most_domains,
            most_kl=part.most_kl,
        )
        for ratios in part.ratios:
            found = keep_ratios(found, ratios)
        return found


def _leads_somewhere(path: str) -> bool:
    """Whether a file, a folder or what matches a glob is there."""
    try:
        path = os.path.expanduser(path)
        return Path(path).exists() or any(glob.iglob(path, recursive=True))
    except (OSError, ValueError):
        return False
