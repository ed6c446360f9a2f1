"""The plan of a study: what it would train and cost, before anything is trained.

Data are fetched and prepared if they are not there yet, since the design depends on how many tokens
each domain has; no proxy is trained.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.table import Table

from cuvee.evaluation.benchmarks import read_benchmark
from cuvee.evaluation.membership import item_text
from cuvee.flows import plan_ladder, plan_power, plan_size
from cuvee.flows.console import Display
from cuvee.flows.execution.budget import forecast
from cuvee.flows.plan_speed import expected_speed, measure_rate, memory_sentences
from cuvee.flows.recipe.schema import Recipe
from cuvee.flows.recipe.trainer_parts import check_controllers, study_program
from cuvee.flows.study import continual, superseded_runs
from cuvee.flows.study import prepare as preparing
from cuvee.flows.study.confirm import confirmation_count
from cuvee.flows.workspace import Workspace
from cuvee.mixtures import loop, simplex
from cuvee.mixtures.errors import RecipeError
from cuvee.mixtures.methods import RemainingRuns
from cuvee.mixtures.multiscale.steps import LadderStep
from cuvee.mixtures.problem import Problem
from cuvee.mixtures.runs.run_spec import RunSpec
from cuvee.mixtures.units import count_text, duration_text, error_text
from cuvee.proxies import ladder
from cuvee.tasks.store.results import Store
from cuvee.tasks.study import finished
from cuvee.tasks.study.prepared import Prepared


def print_plan(recipe: Recipe, home: Workspace, display: Display) -> dict[str, Any]:
    """Print the design, tokens, epochs, FLOPs and expected minutes of a study.

    Returns:
        The same figures for programs; see `plan_figures`.

    Raises:
        CuveeError: what is wrong with the recipe or its data.
    """
    store = Store(home.store)  # before text is read: a store that cannot be opened is told at once
    prepared = preparing.prepare(recipe, home, planned=True)
    display.close()
    problem, screened = preparing.pose_problem(recipe, prepared), recipe.build_method()
    specs = screened.ask(problem, (), loop.generator(recipe.seed, 0))
    say, climbing = display.say, 0.0
    say(study_sentence(recipe.name, problem))
    for line in superseded_runs.superseded_sentences(store, problem, home.corpora, specs):
        say(line)
    display.console.print(design_table(problem, specs))
    begun = continual.start_sentences(recipe, prepared)
    for line in (*sample_sentences(problem), *repeated_run_sentences(specs), *begun):
        say(line)
    if steps := screened.method.steps(problem):
        tables, climbing = rung_tables(recipe, steps, prepared.corpus.vocabulary)
        for table in (*tables, plan_ladder.hindsight_table(finished.latest_studies(store))):
            if table is not None:
                display.console.print(table)
    proxy, vocabulary = recipe.proxy, prepared.corpus.vocabulary
    ladder_plan = ladder.training_plan(
        proxy.size, proxy.tokens, vocabulary, schedule=proxy.schedule, rate=proxy.rate
    )
    extra, more = confirmation_count(recipe.confirm), screened.method.remaining(problem)
    tried = measure_rate(recipe, prepared, problem, home, store)
    rate, source = expected_speed(store, ladder_plan, vocabulary, tried, problem.proxy.trainer)
    units = plan_size.unit_figures(recipe, prepared, problem, ladder_plan.model_size.context)
    planned = Runs(len(specs), len(store.missing(specs)), more, extra, climbing)
    seconds = planned.train * ladder_plan.tokens / rate / 2 if rate else None
    power = plan_power.power_figures(recipe.confirm, problem, store)
    for line in (
        *plan_size.size_sentences(screened, problem, specs, ladder_plan),
        *plan_size.model_sentences(recipe, prepared, ladder_plan.model_size),
        *memory_sentences(recipe, problem, vocabulary, steps or ()),
        *cost_sentences(ladder_plan, planned, rate, source),
        *scoring_sentences(recipe, prepared, ladder_plan),
        *plan_size.unit_sentences(units, problem),
        *larger_size_sentences(recipe, store, vocabulary, tried, problem.proxy.trainer),
        *trainer_sentences(recipe, home, specs),
        *plan_power.power_sentences(recipe.confirm, power),
        *forecast(recipe.budget, planned.train * ladder_plan.flops + climbing, seconds),
    ):
        say(line)
    return {
        "study": recipe.name,
        **domain_figures(problem),
        **plan_figures(ladder_plan, planned, rate),
        "parameters": ladder_plan.model_size.counts(vocabulary),
        "speed_from": source,
        "power": power,
        "units": units,
    }


def study_sentence(name: str, problem: Problem) -> str:
    """What is searched for what."""
    domains, targets = len(problem.domains), problem.targets
    return f"Study {name}: {domains} domains; {len(targets)} targets: {', '.join(targets)}"


def scoring_sentences(recipe: Recipe, prepared: Prepared, plan: ladder.TrainingPlan) -> list[str]:
    """Sentences on what scoring runs on their way costs, and detectors, if the recipe asks.

    A forward pass is a third of a training step's FLOPs per token.
    """
    steps, audit = plan.comparable(recipe.evaluation.curve), detector_sentences(prepared, plan)
    if not steps:
        return audit
    tokens = len(steps) * len(prepared.corpus.domains) * recipe.evaluation.heldout_tokens
    cost = tokens * plan.flops / plan.tokens / 3
    return [
        f"On the way of every run, held-out text is scored after {', '.join(map(str, steps))} "
        f"steps: {tokens:,} tokens and {cost:.2e} FLOPs a run at most, "
        f"{cost / plan.flops:.0%} of its training",
        *audit,
    ]


def detector_sentences(prepared: Prepared, plan: ladder.TrainingPlan) -> list[str]:
    """A sentence on what detectors of membership cost, if the recipe asks for any."""
    names, suite = prepared.limits.detectors, prepared.suite
    if not names:
        return []
    read = 0.0
    for path in filter(None, map(suite.file, suite.tasks)):
        items = read_benchmark(path)
        sizes = [len(item_text(i).encode()) * len(i["choices"]) for i in items if "choices" in i]
        read += sum(sizes) * min(1.0, (suite.limit or len(items)) / len(items))
    domains = prepared.corpus.domains
    tokens = read * sum(d.tokens for d in domains) / sum(d.bytes for d in domains)
    return [
        f"Detectors of membership ({', '.join(names)}) read every item in each order of its "
        f"choices: {count_text(tokens)} tokens a run, {tokens / plan.tokens / 3:.0%} of its "
        "training. They see leaks of many copies alone"
    ]


def trainer_sentences(recipe: Recipe, home: Workspace, specs: tuple[RunSpec, ...]) -> list[str]:
    """What a plan says of a trainer of others: what its runs get, and whether it may be run."""
    part = recipe.proxy.trainer
    if part is None:
        return []
    check_controllers(recipe, specs)
    lines = [
        f"Each run is trained by {part.command[0]}, on {part.nodes} "
        f"{'nodes' if part.nodes > 1 else 'node'} with {part.cpus:g} cores and {part.gpus:g} GPUs; "
        "steps, rate and FLOPs above are the built-in trainer's of this size, which it is told"
    ]
    try:
        study_program(recipe, home.trainings, home.shared)
    except RecipeError as error:
        lines.append(f"`cuvee run` will refuse, `cuvee export --swarm` will not: {error}")
    return lines


def larger_size_sentences(
    recipe: Recipe, store: Store, vocabulary: int, tried: float, trainer: str
) -> list[str]:
    """A sentence for each size of `cuvee confirm`: runs, tokens, FLOPs and time."""
    part, lines = recipe.confirm, []
    total = 0.0
    for step in part.sizes if part else ():
        plan = ladder.training_plan(
            step.size,
            step.tokens,
            vocabulary,
            schedule=recipe.proxy.schedule,
            rate=recipe.proxy.rate,
        )
        runs = confirmation_count(part)
        base = ladder.model_size(recipe.proxy.size).flops(1, vocabulary)
        scaled = tried * base / plan.model_size.flops(1, vocabulary)
        rate, source = expected_speed(store, plan, vocabulary, scaled, trainer)
        total += runs * plan.flops
        time = f"time is {source}"
        if rate:
            seconds = runs * plan.tokens / rate
            halved = duration_text(seconds / 2)
            time = f"{duration_text(seconds)} on one core, {halved} on two ({source})"
        lines.append(
            f"`cuvee confirm` at {step.size}: {runs} runs of {plan.tokens / 1e6:.1f}M tokens, "
            f"{runs * plan.flops:.2e} FLOPs; {time}"
        )
    if len(lines) > 1:
        lines.append(f"`cuvee confirm` in all: {total:.2e} FLOPs")
    return lines


def rung_tables(
    recipe: Recipe, steps: tuple[LadderStep, ...], vocabulary: int
) -> tuple[tuple[Table, Table], float]:
    """What every rung trains, other splits of its FLOPs, and the FLOPs above the first rung."""
    extra = steps[0].repeats
    how = {"schedule": recipe.proxy.schedule, "rate": recipe.proxy.rate}
    spent = plan_ladder.rung_costs(steps, vocabulary, extra, **how)  # type: ignore[arg-type]
    shown = plan_ladder.rung_table(steps, vocabulary, extra, **how)  # type: ignore[arg-type]
    return (shown, plan_ladder.split_proposals(steps, spent, extra)), sum(spent[1:])


def design_table(problem: Problem, specs: tuple[RunSpec, ...]) -> Table:
    """Per domain: what exists, how the design spreads, epochs in a proxy and at full scale."""
    weights = np.stack([spec.weights for spec in specs])
    domains = problem.domains
    low, high = problem.constraints.bounds
    errors = domains.natural_errors
    table = Table(title=f"Design: {len(specs)} runs, {simplex.count_mixtures(weights)} mixtures")
    table.add_column("domain", no_wrap=True)
    sampled = any(domain.sampled for domain in domains)
    headings = ("design", "allowed", "epochs, proxy", "epochs, full")
    for heading in ("tokens", *(["on disk"] if sampled else []), "natural", *headings):
        table.add_column(heading, justify="right", overflow="fold")
    for i, domain in enumerate(domains):
        most = weights[:, i].max()
        table.add_row(
            domain.name,
            f"{domain.tokens / 1e6:.2f}M{error_text(domain.tokens_error)}",
            *([f"{domain.stored / 1e6:.2f}M"] if sampled else []),
            f"{domains.natural[i]:.1%}" + (f" ± {e:.1%}" if (e := errors[i]) else ""),
            f"{weights[:, i].min():.0%} to {most:.0%}",
            f"{low[i]:.0%} to {high[i]:.0%}",
            f"{most * problem.proxy.tokens / domain.stored:.2f}",
            f"{most * problem.full_tokens / domain.tokens:.2f}",
        )
    return table


def domain_figures(problem: Problem) -> dict[str, Any]:
    """For programs: tokens that exist by domain, of samples what lies on disk, and targets."""
    return {
        "domains": {domain.name: domain.tokens for domain in problem.domains},
        "samples": {
            domain.name: {"tokens": domain.stored, "error": domain.tokens_error}
            for domain in problem.domains
            if domain.sampled
        },
        "targets": list(problem.targets),
    }


def sample_sentences(problem: Problem) -> list[str]:
    """How many tokens exist of what is sampled, how well that is known, and what is too small."""
    return [
        f"{d.name} is a sample: {count_text(d.stored)} of {count_text(d.tokens)}"
        f"{error_text(d.tokens_error)} tokens are on disk, and proxies draw from these. Natural "
        "shares, caps and epochs at full scale are those of all"
        + ("; ± is one standard error of the estimate" if d.tokens_error else "")
        for d in problem.domains
        if d.sampled
    ] + [*problem.size_notes]


def repeated_run_sentences(specs: tuple[RunSpec, ...]) -> list[str]:
    """A sentence on mixtures that run more than once; a recipe's `runs` counts no repeats."""
    seen = Counter(tuple(spec.weights.tolist()) for spec in specs)
    often = [count for count in seen.values() if count > 1]
    if not often:
        return []
    return [
        f"Of the {len(specs)} runs, {sum(often)} are of {len(often)} mixtures that run more than "
        "once, to measure the noise (method.anchors, seeds, crossed, repeats); method.runs counts "
        "the mixtures of the design alone"
    ]


@dataclass(frozen=True)
class Runs:
    """Runs of a study.

    Attributes:
        design: asked for first.
        missing: of these, not in the store.
        more: what may be asked for after them.
        confirmation: of the confirmation.
        climbing: FLOPs of a ladder's larger rungs.
    """

    design: int
    missing: int
    more: RemainingRuns
    confirmation: int
    climbing: float = 0.0

    @property
    def train(self) -> float:
        """Runs that are trained, of one rung."""
        return self.missing + self.more.runs + self.confirmation


def plan_figures(plan: ladder.TrainingPlan, runs: Runs, rate: float) -> dict[str, Any]:
    """What a study would cost, for programs: runs, tokens, FLOPs, and seconds of one core.

    `train` counts runs that the store lacks; tokens and FLOPs are of all, as the sentences say it.
    """
    rest = runs.more.runs + runs.confirmation
    return {
        "proxy": {
            "size": plan.model_size.size,
            "steps": plan.steps,
            "tokens": plan.tokens,
            "flops": plan.flops,
        },
        "runs": {
            "design": runs.design,
            "stored": runs.design - runs.missing,
            "more": runs.more.runs,
            "confirmation": runs.confirmation,
            "train": runs.train,
        },
        "tokens": round((runs.design + rest) * plan.tokens),
        "flops": (runs.design + rest) * plan.flops + runs.climbing,
        "core_seconds": runs.train * plan.tokens / rate if rate else None,
        "tokens_per_second_and_core": rate or None,
    }


def cost_sentences(plan: ladder.TrainingPlan, runs: Runs, rate: float, source: str) -> list[str]:
    """Sentences on tokens, FLOPs and time, at tokens per second and core from some source."""
    more, rest = runs.more.runs, runs.more.runs + runs.confirmation
    total, most = runs.design + rest, "at most " if runs.more.runs else ""
    first = " of the first rung and the confirmation" if runs.climbing else ""
    follow = f" then {runs.more.words}: the tokens of at most {more:.1f} runs;" if more else ""
    lines = [
        f"Proxy {plan.model_size.size}: {plan.steps} steps of {plan.batch} x "
        f"{plan.model_size.context} tokens, peak learning rate {plan.peak:.2g}, "
        f"{plan.flops:.2e} FLOPs",
        f"Runs: {runs.design} for the design,{follow} {runs.confirmation} for the confirmation; "
        f"{runs.design - runs.missing} of the design are in the store",
        f"In all: {most}{total * plan.tokens / 1e6:.1f}M tokens, {total * plan.flops:.2e} FLOPs"
        + (f"; {runs.climbing:.2e} FLOPs more on the larger rungs" if runs.climbing else ""),
    ]
    if not rate:
        return [*lines, f"Training time: {source}"]
    seconds = runs.train * plan.tokens / rate
    lines.append(
        f"Training{first}: {most}{duration_text(seconds)} on one core, "
        f"{duration_text(seconds / 2)} on two ({rate:,.0f} tokens per second and core, "
        f"{source}); scoring and fits come on top"
    )
    return lines
