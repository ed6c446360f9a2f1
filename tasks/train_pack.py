"""One pack from specs to outcomes: what a worker process runs.

Imports neither Prefect nor MLflow nor Ray: a worker starts fast and knows nothing of who called it.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from cuvee.evaluation.scores import PackScores, score_pack, untrained_baseline
from cuvee.mixtures.runs.run_results import Failed, Outcome, RunResult
from cuvee.mixtures.runs.run_spec import RunSpec
from cuvee.proxies import ladder
from cuvee.proxies.data.prepared_corpus import Corpus
from cuvee.proxies.interfaces import (
    NO_EVALUATIONS,
    IntermediateEvaluations,
    Progress,
    Trained,
    TrainedRun,
)
from cuvee.proxies.model.likelihood import PackLikelihood
from cuvee.proxies.train import probe, reference_model
from cuvee.proxies.train.batching import PackTrial
from cuvee.proxies.train.trainer import Training, train_pack
from cuvee.tasks.pack_job import PackJob


def run_pack(job: PackJob, report: Callable[[Progress], None]) -> tuple[Outcome, ...]:
    """Train a pack and score it.

    Returns:
        One outcome per spec, in their order; none where a trunk was trained. Divergence is an
        outcome; anything else that goes wrong raises.
    """
    job = job.here()
    job.check_scoring()
    corpus = Corpus.open(job.corpus, again=False).seen_by(job.specs[0])
    references = {
        spec.fingerprint: reference_model.train_reference_model(
            spec, corpus, job.models, device=job.device, starts=job.branch.starts
        )
        for spec in job.references
    }
    trained = train_pack(
        job.specs,
        corpus,
        device=job.device,
        checkpoints=job.checkpoints or None,
        report=report,
        references=references,
        branch=job.branch,
        evaluations=_evaluations(job, corpus) if job.points else NO_EVALUATIONS,
    )
    if job.models:
        _keep_sources(job, trained)
    if trained.likelihood is None:
        return tuple(run for run in trained.runs if isinstance(run, Failed))
    began = time.perf_counter()
    scored = _scores_as_planned(job, corpus, trained.likelihood)
    seconds = (time.perf_counter() - began) / len(scored)
    scores = iter(scored)
    return tuple(
        run if isinstance(run, Failed) else _outcome(run, next(scores), seconds)
        for run in trained.runs
    )


def _scores_as_planned(
    job: PackJob, corpus: Corpus, likelihood: PackLikelihood
) -> list[PackScores]:
    scored = _scorer(job, corpus)(likelihood, suite=job.suite)
    corpus.check()
    job.check_scoring()
    return scored


def _scorer(job: PackJob, corpus: Corpus) -> Callable[..., list[PackScores]]:
    """Scores a pack on held-out text of every domain and on the tasks of the `suite` given."""
    shards = {domain.name: corpus.valid(domain.name) for domain in corpus.domains}
    texts = {n: (np.asarray(one.tokens), one.offsets, one.bytes) for n, one in shards.items()}
    return partial(
        score_pack,
        tokenizer_path=corpus.tokenizer_path,
        valid=texts,
        limits=job.limits,
        eot=corpus.eot,
    )


def _evaluations(job: PackJob, corpus: Corpus) -> IntermediateEvaluations:
    """Held-out text of every domain, scored at the comparable steps of the pack's runs."""
    first, score, nothing = job.specs[0], _scorer(job, corpus), replace(job.suite, tasks=())
    plan = ladder.training_plan(
        first.size, first.tokens, corpus.vocabulary, schedule=first.schedule, rate=first.rate
    )

    def measure(likelihood: PackLikelihood) -> list[dict[str, float]]:
        scored = score(likelihood, suite=nothing)
        return [{name: score.value for name, score in one.scores.items()} for one in scored]

    return IntermediateEvaluations(plan.comparable(job.points), measure)


def _keep_sources(job: PackJob, trained: Trained) -> None:
    """Keep the models of runs on single domains, which methods mix."""
    for k, run in enumerate(trained.runs):
        if (
            isinstance(run, TrainedRun)
            and reference_model.is_source(run.spec)
            and trained.likelihood
        ):
            reference_model.keep_source_model(run.spec, trained.likelihood.model, k, job.models)


def untrained_scores(job: PackJob) -> dict[str, float]:
    """What proxies of this size and seed score before training: scores and details by name."""
    job = job.here()
    job.check_scoring()
    corpus = Corpus.open(job.corpus, again=False).seen_by(job.specs[0])
    begun = _begun(job, job.specs)
    scored = _scores_as_planned(job, corpus, PackLikelihood(begun.model))
    return {name: score.value for name, score in untrained_baseline(scored).items()}


def training_speed(job: PackJob) -> float:
    """Tokens per second that one core, or a device, trains a pack with, tried for a while here."""
    with single_thread():
        return probe.step_rate(_begun(job, job.specs))


def probe_packs(
    job: PackJob, most: int, check: Callable[[], None] = lambda: None
) -> tuple[PackTrial, ...]:
    """How fast packs of the job's first run are, of one model and of more, tried here.

    Args:
        job: says where, and on what.
        most: models that the device has memory for.
        check: called between packs; raises where the work was told to stop.
    """
    first = job.specs[0]
    with single_thread():
        return probe.try_packs(
            lambda models: _begun(job, [replace(first, seed=k) for k in range(models)]),
            most,
            check=check,
        )


def _begun(job: PackJob, specs: Sequence[RunSpec]) -> Training:
    corpus = Corpus.open(job.corpus, again=False).seen_by(job.specs[0])
    return Training(specs, corpus, device=job.device, references={}, branch=job.branch)


@contextmanager
def single_thread() -> Iterator[None]:
    """One thread for what torch computes in this one, as in workers: more give other roundings."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _outcome(run: TrainedRun, scored: PackScores, seconds: float) -> Outcome:
    if scored.problem:
        return Failed(run.spec, scored.problem)
    return RunResult(
        scores=scored.scores,
        details=scored.details,
        units=scored.units,
        scoring_seconds=seconds,
        **vars(run),
    )
