"""A study small enough for a test, on real text that every Python brings along.

Real components run: the corpus is prepared, proxies are trained by Ray, Prefect sees the tasks,
MLflow keeps the record. Only the sizes are small.
"""

import dataclasses
import json
import pydoc_data.topics
import textwrap
from pathlib import Path
from typing import Any

from cuvee.flows.recipe.load import parse
from cuvee.flows.study.confirm_larger import confirm_larger
from cuvee.flows.study.study import search_mixture
from cuvee.flows.workspace import Workspace
from cuvee.tasks.tracking.study_tracker import StudyTracker
from cuvee.tasks.tracking.tracker import MemoryBackend

STDLIB = Path(pydoc_data.__file__).parent.parent


def write_corpus(folder: Path) -> None:
    """Three unlike domains: Python code, documentation, and tables of figures."""
    folder.mkdir(parents=True, exist_ok=True)
    code = [path.read_text(encoding="utf-8") for path in sorted(STDLIB.glob("[a-d]*.py"))]
    prose = list(pydoc_data.topics.topics.values())
    tables = [
        "\n".join(f"{i} squared is {i * i}; {i} cubed is {i**3}." for i in range(k, k + 40))
        for k in range(0, 6000, 40)
    ]
    for name, documents in (("code", code), ("prose", prose), ("tables", tables)):
        rows = "\n".join(json.dumps({"text": text}) for text in documents)
        (folder / f"{name}.jsonl").write_text(rows + "\n", encoding="utf-8")


def recipe(folder: Path, **changes: str) -> str:
    """A recipe's text over the corpus in a folder; `changes` replaces whole top-level fields."""
    parts = {
        "name": "tiny",
        "seed": "3",
        "corpus": textwrap.dedent(f"""
          vocabulary: 512
          heldout_bytes: 20000
          domains:
            code: {{path: {folder}/code.jsonl}}
            prose: {{path: {folder}/prose.jsonl}}
            tables: {{path: {folder}/tables.jsonl}}
        """),
        "proxy": "{size: 0.3M, tokens: 60000}",
        "evaluation": "{suite: null, heldout_tokens: 2048}",
        "objective": "{name: mean, weights: {domain/prose: 1}}",
        "full_scale": "{tokens: 1M}",
        "method": "{name: mixing_laws, runs: 8, seeds: 2, folds: 2, refits: 10}",
        "confirm": "{seeds: 2}",
    } | changes
    lines = []
    for field, value in parts.items():
        block = textwrap.indent(value.strip("\n"), "  ") if "\n" in value else f" {value}"
        lines.append(f"{field}:{chr(10) if chr(10) in value else ''}{block}")
    return "\n".join(lines) + "\n"


def run(text: str, workspace: Workspace, api: Any) -> dict[str, Any]:
    """The study as `cuvee run` has it: a flow of Prefect, on Ray; its summary."""

    def search(executor: Any, within: Workspace) -> Any:
        return search_mixture(parse(text), executor, within, text=text)

    return _in_flow(search, text, workspace, api)


def confirm(text: str, workspace: Workspace, api: Any) -> dict[str, Any]:
    """The confirmation of a finished study as `cuvee confirm` has it; its summary."""

    def enlarge(executor: Any, within: Workspace) -> Any:
        return confirm_larger(parse(text), executor, within)

    return _in_flow(enlarge, text, workspace, api)


def _in_flow(work: Any, text: str, workspace: Workspace, api: Any) -> dict[str, Any]:
    from cuvee.flows.execution.prefect_session import prefect_step, run_as_flow
    from cuvee.flows.execution.ray_executor import RayExecutor

    executor = RayExecutor(workspace.root, device=parse(text).proxy.device)
    within = dataclasses.replace(workspace, step=prefect_step)
    summary: dict[str, Any] = run_as_flow(
        "tiny",
        lambda: work(executor, within),
        api,
        recipe_text=text,
        home=workspace.root,
        executor=executor,
    )
    return summary


def run_inline(text: str, workspace: Workspace) -> tuple[dict[str, Any], MemoryBackend]:
    """The study in this process, with a record in memory; its summary and the record."""
    from cuvee.flows.execution.inline_executor import InlineExecutor

    given, ledger = parse(text), MemoryBackend()
    tracker, executor = StudyTracker(ledger), InlineExecutor("cpu")
    return search_mixture(given, executor, workspace, text=text, tracker=tracker), ledger
