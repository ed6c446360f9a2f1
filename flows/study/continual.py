"""Continual pretraining in a flow: a checkpoint that runs go on from, and what it scores at first.

The checkpoint is known by the hash of its weights, which stands in the spec of every run; the
corpus is tokenized by its own tokenizer, whose hash is part of every domain's identity. So runs
from other weights, or on other tokens, are other evidence. Before anything is trained, the
checkpoint is scored on every target, on one core of the flow's own process, and the scores are
remembered in the store: forgetting is what is worse than they are afterwards.
"""

import hashlib
from pathlib import Path

from cuvee.flows.recipe.schema import Recipe
from cuvee.flows.workspace import Workspace
from cuvee.mixtures.errors import DataError
from cuvee.mixtures.runs.run_spec import BY_NAMES, RunSpec, Stage, canonical_json
from cuvee.proxies.data.objects import within
from cuvee.proxies.train import device
from cuvee.proxies.train.branching import BranchPlan
from cuvee.tasks.pack_job import PackJob
from cuvee.tasks.store.results import Store
from cuvee.tasks.study.forgetting import ContinualStart, StartCheckpoint
from cuvee.tasks.study.prepared import Prepared

FILES = ("config.json", "model.safetensors", "tokenizer.json")
MAKE = "`cuvee checkpoint RECIPE --to FOLDER` trains a proxy and writes it so"


def start_folder(recipe: Recipe) -> Path | None:
    """The checkpoint that a recipe starts from, whose tokenizer is used; None if there is none.

    Raises:
        DataError: a file of the checkpoint is missing; says which.
    """
    if recipe.proxy.start is None:
        return None
    folder = Path(recipe.source_path(recipe.proxy.start))
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise DataError(
            f"proxy.start: no whole checkpoint in {folder}: {' and '.join(missing)} missing; it "
            f"needs {', '.join(FILES)}. {MAKE}"
        )
    return folder


def measure_start(recipe: Recipe, prepared: Prepared, home: Workspace) -> StartCheckpoint:
    """Keep the checkpoint for the workers, and score it; the scores are computed once.

    Raises:
        DataError: it is not of the recipe's size, or not of the proxies' family; says in what.
    """
    from cuvee.proxies.train import warm_start  # torch, which flows need not have for anything else
    from cuvee.tasks.train_pack import untrained_scores

    corpus, source = prepared.corpus, str(recipe.proxy.start)
    folder = within(home.checkpoints, "starts")
    content = warm_start.adopt_start_checkpoint(
        Path(recipe.source_path(source)), folder, recipe.proxy.size, corpus.vocabulary
    )
    domains, names = prepared.domains, prepared.domains.names
    spec = RunSpec(
        domains=names,
        identities=domains.identities,
        stages=(Stage(tuple(map(float, domains.uniform))),),
        size=recipe.proxy.size,
        tokens=recipe.proxy.tokens,
        seed=recipe.seed,
        scoring=prepared.scoring,
        precision=proxy_precision(recipe),
        start=content,
        heldout=domains.heldout,
        version=prepared.version,
    )
    parts = [content, spec.identities, spec.scoring, spec.precision]
    if spec.version != BY_NAMES:
        parts += [spec.domains, spec.contents]
    key = hashlib.sha256(canonical_json(parts).encode()).hexdigest()
    store = Store(home.store)
    scores = store.recall("beginnings", key)
    if scores is None:
        scores = untrained_scores(
            PackJob(
                specs=(spec,),
                corpus=str(corpus.root),
                suite=prepared.suite,
                checkpoints="",
                limits=prepared.limits,
                points=prepared.points,
                branch=BranchPlan(starts=str(folder)),
            )
        )
        store.remember("beginnings", key, scores)
    return StartCheckpoint(content, source, scores)


def proxy_precision(recipe: Recipe) -> str:
    """The arithmetic of a recipe's proxies."""
    part = recipe.proxy
    if part.trainer and part.precision == "auto":  # whose nodes this machine knows nothing of
        return "bfloat16" if part.device == "cuda" else "float32"
    return device.precision(part.device) if part.precision == "auto" else part.precision


def continual_start(recipe: Recipe, prepared: Prepared) -> ContinualStart | None:
    """What the report says of a continual study; None for a study that starts from nothing."""
    part = recipe.continual
    if part is None or prepared.start is None:
        return None
    return ContinualStart(prepared.start, tuple(part.old), part.replay, part.forget)


def start_sentences(recipe: Recipe, prepared: Prepared) -> list[str]:
    """What a plan says of the checkpoint, of replay and of the scores before training."""
    found = continual_start(recipe, prepared)
    if found is None:
        return []
    scores = ", ".join(
        f"{name} {found.start.scores[f'domain/{name}']:.3f}" for name in prepared.domains.names
    )
    lines = [
        f"Every run goes on from {found.start.source} (weights {found.start.content[:12]}), with "
        f"its tokenizer of {prepared.corpus.vocabulary:,} tokens and a fresh warm-up",
        f"Old domains, replayed: {', '.join(found.old)}; at least {found.replay:.0%} of the tokens",
        f"The checkpoint scores, bits per byte: {scores}",
    ]
    if found.forget is not None:
        lines.append(
            f"Floor: no old domain worse than the checkpoint by more than {found.forget:g} bits "
            "per byte"
        )
    return lines
