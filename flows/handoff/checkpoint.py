"""A trained proxy as a Hugging Face checkpoint: what `cuvee checkpoint` writes.

Parameters of a study's runs are not kept. A run's spec determines them, so the proxy is trained
again here, on one core or the GPU of this process, and goes on where it was if it is stopped.
"""

from pathlib import Path

from cuvee.flows.recipe.schema import Recipe
from cuvee.flows.study import prepare as preparing
from cuvee.flows.study.finished import finished_study, prepare_as_studied, present_state
from cuvee.flows.workspace import Workspace
from cuvee.mixtures.errors import RecipeError, StorageError, TrainingError, UnknownName
from cuvee.mixtures.runs.run_results import Failed
from cuvee.mixtures.runs.run_spec import RunSpec, Stage
from cuvee.proxies.data.objects import remove_folder, within
from cuvee.proxies.interfaces import Progress
from cuvee.proxies.train.branching import BranchPlan
from cuvee.tasks.store.results import Store
from cuvee.tasks.study.finished import FinishedStudy
from cuvee.tasks.study.prepared import Prepared
from cuvee.tasks.study.validity import refuse_void, validity
from cuvee.tasks.validation.paired import BASELINES, RECOMMENDED


def write_checkpoint(
    recipe: Recipe, home: Workspace, mixture: str, to: Path
) -> tuple[Path, RunSpec]:
    """Train the proxy of a recipe on a mixture and write it with its tokenizer.

    Args:
        recipe: says on what text, at which size and how long; its seed is the run's.
        home: where the corpus is, and the checkpoint while it is trained.
        mixture: "natural", "uniform", "recommended" (of the finished study), or a name that the
            recipe's `confirm.mixtures` gives shares to.
        to: the folder; must be empty or absent.

    Returns:
        The folder, with config.json, model.safetensors and tokenizer.json, and what was trained.

    Raises:
        UnknownName: no such mixture.
        StorageError: the folder is not empty or cannot be written.
        TrainingError: the run diverged.
    """
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise StorageError(f"{to} is not an empty folder: a checkpoint replaces nothing")
    if recipe.proxy.trainer:
        raise RecipeError(
            "`cuvee checkpoint` trains with the built-in trainer, and the recipe names another one "
            f"(proxy.trainer): its checkpoints lie in the run directories in {home.trainings}"
        )
    study = finished_study(recipe, home) if mixture == RECOMMENDED else None
    prepared = prepare_as_studied(recipe, home, study)
    problem = preparing.pose_problem(recipe, prepared)
    spec = problem.staged(mixture_stages(recipe, prepared, home, study or mixture), recipe.seed)
    from cuvee.proxies.train import checkpoint  # torch, which no flow needs before
    from cuvee.proxies.train.trainer import train_pack

    corpus = prepared.corpus
    held = within(home.checkpoints, f"export-{spec.fingerprint[:16]}")
    with home.display.step("Training") as bar:

        def report(progress: Progress) -> None:
            bar.move(f"step {progress.step}", progress.step / progress.steps)

        trained = train_pack(
            [spec],
            corpus,
            checkpoints=held,
            report=report,
            branch=BranchPlan(starts=str(within(home.checkpoints, "starts"))),
        )
    run = trained.runs[0]
    if isinstance(run, Failed) or trained.likelihood is None:
        raise TrainingError(f"no checkpoint: the run {getattr(run, 'reason', 'gave no model')}")
    model, path = trained.likelihood.model, corpus.tokenizer_path
    checkpoint.export_huggingface(model, 0, to, tokenizer=path, eot=corpus.eot)
    remove_folder(held)
    return to, spec


def mixture_stages(
    recipe: Recipe, prepared: Prepared, home: Workspace, mixture: str | FinishedStudy
) -> tuple[Stage, ...]:
    """The stages of a mixture by its name, or a study's; see `write_checkpoint`."""
    domains = prepared.domains
    named = recipe.confirm.mixtures if recipe.confirm else {}
    if isinstance(mixture, FinishedStudy):
        now = present_state(recipe, home, prepared)
        reasons = validity(mixture, now, Store(home.store), code=False)
        refuse_void(mixture, reasons, "trained as a checkpoint")
        return mixture.answer.stages
    if mixture in named:
        shares = domains.vector(named[mixture])
    elif mixture in BASELINES:
        shares = domains.natural if mixture == "natural" else domains.uniform
    else:
        raise UnknownName("mixture", mixture, (RECOMMENDED, *BASELINES, *named))
    return (Stage(tuple(map(float, shares))),)
