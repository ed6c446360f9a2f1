"""What the size of a study lets one expect: its own figures beside measured ones, in a plan."""

from collections.abc import Mapping, Sequence

import numpy as np

from cuvee.evaluation.benchmarks import read_benchmark
from cuvee.evaluation.suites import Suite, short_name
from cuvee.evaluation.windows import document_windows, limited_windows, tokens_to_reach
from cuvee.flows.recipe.schema import Recipe
from cuvee.mixtures import registry, simplex
from cuvee.mixtures.domains import Array
from cuvee.mixtures.inference.crossed_intervals import FEWEST
from cuvee.mixtures.inference.evidence_grade import MIXTURES
from cuvee.mixtures.inference.screening import Screened
from cuvee.mixtures.problem import Problem
from cuvee.mixtures.runs.run_spec import HELD_OUT, RunSpec
from cuvee.mixtures.units import count_text
from cuvee.proxies import ladder
from cuvee.tasks.study.next_steps import GOOD
from cuvee.tasks.study.prepared import Prepared

TREES = "lightgbm"
SHORT = 100  # steps of a proxy below which nothing was measured here
MEASURED = (
    "measured: kriging ranked unseen mixtures with a correlation of 0.99 from 64 mixtures of 17 "
    "domains (3.8 a domain, docs/results/laws.md) and from 26 of 8 (3.3 a domain, proxies of 0.6M "
    "and 500k tokens, docs/results/demo.md)"
)


def model_sentences(recipe: Recipe, prepared: Prepared, size: ladder.ModelSize) -> list[str]:
    """What a proxy holds, and in whose tokens, where these are given."""
    corpus = prepared.corpus
    lines = [f"Parameters: {size.describe(corpus.vocabulary)}"]
    if recipe.corpus and recipe.corpus.tokenizer:
        from tokenizers import Tokenizer  # here: the core has none

        end = Tokenizer.from_file(str(corpus.tokenizer_path)).id_to_token(corpus.eot)
        lines.append(
            f"Tokens are those of {recipe.corpus.tokenizer}; each document ends with {end} "
            "(corpus.end_of_text names another)"
        )
    return lines


def unit_figures(
    recipe: Recipe, prepared: Prepared, problem: Problem, context: int
) -> dict[str, dict[str, int | None]]:
    """By target that gains of the confirmation read: documents or items `scored`, how many are
    `there`, and what `wanted` of the recipe's field reaches `FEWEST`; None where that is unknown.

    Args:
        recipe: says how much is scored; nothing is said without a confirmation.
        prepared: has the held-out text and the benchmarks; items too long for a proxy are counted.
        problem: whose objective is confirmed.
        context: of the proxies, in tokens.
    """
    if recipe.confirm is None:
        return {}
    tasks = {f"task/{short_name(task)}": task for task in prepared.suite.tasks}
    return {
        target: _items(prepared.suite, tasks[target])
        if target in tasks
        else _documents(prepared, target.removeprefix(HELD_OUT), context)
        for target, read in zip(problem.targets, _rows(problem).T, strict=True)
        if read.any()
    }


def _rows(problem: Problem) -> Array:
    """(R, M) what the objective reads of the targets; it is the largest of the rows."""
    return problem.objective.scalarize(problem.targets, np.zeros(len(problem.targets))).rows


def _documents(prepared: Prepared, domain: str, context: int) -> dict[str, int | None]:
    text, eot = prepared.corpus.valid(domain), prepared.corpus.eot
    windows = document_windows(np.asarray(text.tokens), text.offsets, eot=eot, context=context)
    chosen = {document for document, _, _ in limited_windows(windows, prepared.limits.tokens)}
    wanted = tokens_to_reach(windows, FEWEST)
    return {"scored": len(chosen), "there": len(text.offsets) - 1, "wanted": wanted}


def _items(suite: Suite, task: str) -> dict[str, int | None]:
    path = suite.file(task)  # none of lm-eval's own tasks, which load their items
    there = len(read_benchmark(path)) if path else None
    known = [count for count in (there, suite.limit) if count is not None]
    wanted = FEWEST if there is None or there >= FEWEST else None
    return {"scored": min(known, default=None), "there": there, "wanted": wanted}


def unit_sentences(figures: Mapping[str, Mapping[str, int | None]], problem: Problem) -> list[str]:
    """For what the gains of the confirmation will hold, where that is new seeds alone.

    Args:
        figures: as `unit_figures` gives them.
        problem: whose objective is confirmed.
    """
    if figures and len(_rows(problem)) > 1:
        return [
            "The gain that is confirmed will hold for new seeds alone, however much is scored: "
            "the objective is the largest of several scores"
        ]
    few = {name: one for name, one in figures.items() if (one["scored"] or FEWEST) < FEWEST}
    named = [
        f"{name.partition('/')[2]} ({one['scored']} of {one['there'] or 'those that it has'})"
        for name, one in few.items()
    ]
    text = [one["wanted"] or 0 for name, one in few.items() if name.startswith(HELD_OUT)]
    items = [one["wanted"] for name, one in few.items() if not name.startswith(HELD_OUT)]
    fields = [f"evaluation.heldout_tokens: {-(-max(text) // 1000)}k"] if any(text) else []
    fields += [f"evaluation.limit: {FEWEST}"] if any(items) else []
    lines = [
        "The gain that is confirmed will hold for new seeds, and not for new documents and items: "
        f"fewer than {FEWEST} are scored of {', '.join(named)}",
        f"Set {' and '.join(fields)} for {FEWEST} where there are so many; runs that were scored "
        "otherwise are no evidence then",
    ]
    return lines[: bool(named) + bool(fields)]


def size_sentences(
    screened: Screened, problem: Problem, specs: Sequence[RunSpec], plan: ladder.TrainingPlan
) -> list[str]:
    """Two or three sentences on whether a study is large enough; none without a design.

    Args:
        screened: the method.
        problem: what is asked.
        specs: the first round's runs.
        plan: of one proxy.
    """
    if not screened.method.runs or not specs:
        return []
    domains = len(problem.domains)
    mixtures = simplex.count_mixtures(np.stack([spec.weights for spec in specs]))
    each = mixtures / domains
    lines = [f"Size: {mixtures} mixtures are {each:.1f} a domain; {MEASURED}"]
    if mixtures < MIXTURES * domains:
        lines.append(
            f"Fewer than {MIXTURES} a domain give a weak verdict whatever comes out: raise "
            f"method.runs to {GOOD * domains}, or merge domains"
        )
    elif each < GOOD - 1:
        lines.append(
            f"A domain asks for {MIXTURES} at least; {GOOD - 1} to {GOOD} are a good start: "
            f"method.runs: {GOOD * domains}"
        )
    described = registry.describe(screened.method)
    laws = {law["name"] for law in described.get("laws") or ()}
    if laws == {TREES}:
        lines.append(
            f"The law is {TREES} alone, which ranked from 512 mixtures as kriging did from 64 "
            "(docs/results/laws.md): name method.laws: [kriging], or train as many"
        )
    if plan.steps < SHORT:
        wanted = SHORT * plan.batch * plan.model_size.context
        lines.append(
            f"Proxies of {plan.steps} steps tell mixtures apart poorly, so that targets may be "
            f"mostly noise: raise proxy.tokens to {count_text(wanted)} or more"
        )
    return lines
