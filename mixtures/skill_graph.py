"""Skill graph: which training skill helps which evaluated one, estimated from runs.

Skill-It's code does not learn its graph. What follows is its paper's definition (Chen et al. 2023,
arXiv 2307.14430, section 3 and appendix) and the rule that Aioli's authors coded for it
(`mixing_law_fitting.py`, `skills_graph`). Skills are a study's domains (which may be sources,
topics or clusters); what is evaluated is any of its targets, held-out text or task groups.

* `single`: one run on each domain alone. `A_ij = (L_j(start) - L_j(i alone)) / L_j(start)`. No run
  measures the start; in its place stands the loss of the domain that helps j least. That moves each
  column of A by a constant, which a softmax over rows does not see, and divides it by less.
* `pairwise`: for each pair also one run on both in equal parts. `A_ij` is the part of j's loss,
  when trained alone, that training half on i saves, at least 0; the diagonal is that of `single`.
  It needs targets that are the domains' own held-out text, in their order.
* `continual`: as pairwise, but i first and then j, each for half of the run.
"""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, permutations

import numpy as np

from cuvee.mixtures.domains import Array
from cuvee.mixtures.errors import EvidenceError, RecipeError
from cuvee.mixtures.problem import Problem
from cuvee.mixtures.runs.run_results import History, RunResult, finished_runs
from cuvee.mixtures.runs.run_spec import RunSpec, Stage

KINDS = ("single", "pairwise", "continual")
SHOWN = 0.25  # edges between skills below this part of the strongest are left out of a drawing


@dataclass(frozen=True)
class SkillGraph:
    """How much each training skill helps each evaluated one; larger is more.

    Attributes:
        rows: training skills (K names).
        columns: evaluated skills (M names).
        edges: A (K, M).
    """

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    edges: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        table = np.array(self.edges, dtype=np.float64)
        if table.shape != (len(self.rows), len(self.columns)) or not np.all(np.isfinite(table)):
            raise EvidenceError(
                f"a skill graph of {len(self.rows)} by {len(self.columns)} skills needs as many "
                f"finite edges; got {table.shape}"
            )

    @property
    def ordering(self) -> tuple[str, ...]:
        """Training skills from the one that helps the others most to the one that helps least.

        By the sum of a row without the skill's own target; ties keep their order.
        """
        table = np.array(self.edges)
        for i, name in enumerate(self.rows):
            if f"domain/{name}" in self.columns:
                table[i, self.columns.index(f"domain/{name}")] = 0.0
        order = np.argsort(-table.sum(axis=1), kind="stable")
        return tuple(self.rows[i] for i in order)

    @property
    def nodes(self) -> tuple[str, ...]:
        """Every skill once: the training skills, then targets that are none of them."""
        targets = (name.removeprefix("domain/") for name in self.columns)
        return tuple(dict.fromkeys((*self.rows, *targets)))

    @property
    def strong(self) -> tuple[tuple[str, str, float], ...]:
        """(from, to, strength) of the edges between different skills that a drawing shows."""
        found = [
            (row, column.removeprefix("domain/"), self.edges[i][j])
            for i, row in enumerate(self.rows)
            for j, column in enumerate(self.columns)
            if column.removeprefix("domain/") != row
        ]
        top = max((edge for *_, edge in found), default=0.0)
        return tuple(item for item in found if item[2] > 0 and item[2] >= SHOWN * top)

    def text(self) -> str:
        """The graph as JSON, with the order of its skills."""
        content = {
            "rows": self.rows,
            "columns": self.columns,
            "edges": self.edges,
            "ordering": self.ordering,
        }
        return json.dumps(content, indent=1) + "\n"

    def dot(self) -> str:
        """The graph in Graphviz's language: an edge's width is its strength."""
        top = max((edge for *_, edge in self.strong), default=1.0)
        lines = ["digraph skills {", "  rankdir=LR;"]
        lines += [f"  {_quoted(name)} [shape=box];" for name in self.nodes]
        lines += [
            f"  {_quoted(row)} -> {_quoted(target)} "
            f'[penwidth={4 * edge / top:.2f}, label="{edge:.3f}"];'
            for row, target, edge in self.strong
        ]
        return "\n".join([*lines, "}"]) + "\n"


def _quoted(name: str) -> str:
    """A name as Graphviz reads it."""
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def graph_runs(problem: Problem, kind: str, seed: int) -> tuple[RunSpec, ...]:
    """The runs that a graph is estimated from.

    Raises:
        RecipeError: an unknown kind.
    """
    if kind not in KINDS:
        raise RecipeError(f"a skill graph is one of {', '.join(KINDS)}; got {kind!r}")
    corners = np.eye(len(problem.domains))
    found = [problem.spec(corner.tolist(), seed) for corner in corners]
    if kind == "pairwise":
        pairs = combinations(range(len(corners)), 2)
        found += [problem.spec(((corners[i] + corners[j]) / 2).tolist(), seed) for i, j in pairs]
    if kind == "continual":
        orders = permutations(range(len(corners)), 2)
        found += [_one_then_other(problem, corners[i], corners[j], seed) for i, j in orders]
    return tuple(found)


def _one_then_other(problem: Problem, first: Array, then: Array, seed: int) -> RunSpec:
    stages = tuple(Stage(tuple(map(float, w)), 0.5) for w in (first, then))
    return dataclasses.replace(problem.spec(((first + then) / 2).tolist(), seed), stages=stages)


def estimate_graph(
    problem: Problem, history: History, kind: str, targets: Sequence[str], seed: int
) -> SkillGraph:
    """The graph over a study's domains and some of its targets.

    Raises:
        EvidenceError: a run that it needs did not finish.
        RecipeError: a kind that needs the domains' own targets got others.
    """
    known = {run.spec.fingerprint: run for run in finished_runs(history)}
    wanted = graph_runs(problem, kind, seed)
    size = len(problem.domains)
    absent = [s for s in wanted if s.fingerprint not in known]
    if absent:
        raise EvidenceError(
            f"the skill graph lacks {len(absent)} of {len(wanted)} runs, the first on "
            f"{_named(problem, absent[0])}: train them again, or lower proxy.rate if they diverge"
        )
    runs = [known[spec.fingerprint] for spec in wanted]
    alone = _values(runs[:size], targets)
    worst = alone.max(axis=0)
    table = (worst - alone) / worst
    if kind != "single":
        if len(targets) != size:
            raise RecipeError(
                f"a {kind} skill graph evaluates the {size} domains themselves; got "
                f"{len(targets)} targets: {', '.join(targets)}"
            )
        table = np.diag(np.diag(table)) + _saved(kind, alone, _values(runs[size:], targets))
    edges = tuple(tuple(map(float, row)) for row in table)
    return SkillGraph(problem.domains.names, tuple(targets), edges)


def _saved(kind: str, alone: Array, joint: Array) -> Array:
    """Off-diagonal edges (K, K) from runs on two skills, in the order of `graph_runs`."""
    size = len(alone)
    saved = np.zeros((size, size))
    if kind == "pairwise":
        for (i, j), row in zip(combinations(range(size), 2), joint, strict=True):
            for a, b in ((i, j), (j, i)):
                saved[a, b] = max(0.0, (alone[b, b] - row[b]) / alone[b, b])
    else:
        for (i, j), row in zip(permutations(range(size), 2), joint, strict=True):
            saved[i, j] = max(0.0, (alone[j, j] - row[j]) / alone[j, j])
    return saved


def _values(runs: Sequence[RunResult], targets: Sequence[str]) -> Array:
    """Scores (n, M) of runs; they must be positive, as losses are."""
    values = np.array([[run.scores[t].value for t in targets] for run in runs], dtype=np.float64)
    if np.any(values <= 0):
        raise EvidenceError("a skill graph divides by losses, and one of them is not positive")
    return values


def _named(problem: Problem, spec: RunSpec) -> str:
    pairs = zip(problem.domains.names, spec.weights, strict=True)
    return " and ".join(name for name, weight in pairs if weight > 0)
