"""A round of a study's runs as a folder that others train: `cuvee export RECIPE --swarm FORMAT`.

What the method asks for and the store lacks is written; nothing is trained, leased or counted
against a budget. Runs have the fingerprints that `cuvee run` would give them, so that one store
takes what either has trained. Once all of a round are collected, the next call writes the next
round of a method that learns from the last, then the confirmation, then nothing.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from cuvee.flows.external.asked_runs import asked_runs
from cuvee.flows.handoff.handoff import spec_of_stages
from cuvee.flows.recipe.schema import Recipe
from cuvee.flows.study.prepare import prepare
from cuvee.flows.workspace import Workspace
from cuvee.mixtures.errors import ExportError, RecipeError, StorageError
from cuvee.mixtures.runs.run_spec import RunSpec
from cuvee.proxies.data.files import replace_file
from cuvee.proxies.data.objects import is_remote
from cuvee.tasks import export as exports
from cuvee.tasks.pack_job import PackJob
from cuvee.tasks.store.results import Store
from cuvee.tasks.study.prepared import Prepared, remember_drawn
from cuvee.tasks.train_by_program import SHORT, describe_run
from cuvee.tasks.trainer import contract
from cuvee.tasks.trainer.contract import ContractRun
from cuvee.tasks.trainer.swarm_folder import (
    RUNS,
    SWARM,
    SwarmManifest,
    SwarmRun,
    read_swarm,
    write_swarm,
)
from cuvee.tasks.trainer.swarm_scripts import (
    SCRIPTS,
    TRAINER_ID,
    launch_scripts,
    trainer_id,
)

CONTRACT = "contract"  # the format without files of a trainer's own


def export_swarm(recipe: Recipe, home: Workspace, *, form: str, to: str) -> SwarmManifest | None:
    """Write the runs that a study needs next to a folder; None where it needs none.

    Args:
        recipe: of the study; its `proxy.trainer` trains.
        home: of the study.
        form: of each run's own files, or `contract` for run.json alone.
        to: the folder.

    Raises:
        RecipeError: the recipe names no trainer, or a method that needs the built-in one.
        ExportError: the trainer's format cannot express a run.
        StorageError: something else lies in the folder, or it cannot be written.
    """
    if recipe.proxy.trainer is None:
        raise RecipeError(
            "a swarm is trained by a program of yours, which tells its runs from those of others: "
            "name it in proxy.trainer, with `version` where it lies on the cluster alone"
        )
    folder = _folder(to, recipe)
    if form != CONTRACT:
        exports.build_format(form, recipe.export.formats.get(form))
    prepared = prepare(recipe, home)
    remember_drawn(Store(home.store), recipe.name, prepared.domains)
    asked = asked_runs(recipe, prepared, home).values()
    lacking = [run for run in asked if run.outcome is None]
    if not lacking:
        return None
    runs = [
        SwarmRun(
            fingerprint=run.spec.fingerprint,
            name=run.name,
            role=run.role,
            folder=f"{RUNS}/{run.spec.fingerprint[:SHORT]}",
            tokens=run.spec.tokens,
            size=run.spec.size,
        )
        for run in lacking
    ]
    manifest = SwarmManifest(study=recipe.name, recipe=recipe.digest, format=form, runs=runs)
    try:
        _write_folder(recipe, home, prepared, folder, manifest, [run.spec for run in lacking])
    except OSError as error:
        raise StorageError(
            f"cannot write the swarm to {folder} ({error.strerror}): name another folder in --to, "
            "on a disk that the cluster shares"
        ) from error
    return manifest


def _write_folder(
    recipe: Recipe,
    home: Workspace,
    prepared: Prepared,
    folder: Path,
    manifest: SwarmManifest,
    specs: Sequence[RunSpec],
) -> None:
    """Write run directories, then scripts, then the manifest."""
    assert recipe.proxy.trainer is not None
    form, corpus = manifest.format, prepared.corpus
    program = recipe.proxy.trainer.program(str(folder / RUNS), elsewhere=True)
    told: list[ContractRun] = []
    files: dict[str, str] = {}
    with home.display.step("Swarm") as bar:
        for number, (spec, run) in enumerate(zip(specs, manifest.runs, strict=True), 1):
            job = PackJob((spec,), str(corpus.root), prepared.suite, "",
                          limits=prepared.limits, program=program)  # fmt: skip
            told.append(describe_run(job, corpus.seen_by(spec), folder / run.folder))
            files[f"{run.folder}/{TRAINER_ID}"] = f"{trainer_id(spec.trainer)}\n"
            if form != CONTRACT:
                own = _own_files(recipe, prepared, form, spec, told[-1])
                files |= {f"{run.folder}/{name}": content for name, content in own.items()}
            bar.move(f"{number} of {len(specs)}", number / len(specs))
    listed = [run.folder for run in manifest.runs]
    files |= launch_scripts(program, folder, listed, name=recipe.name)
    for run, values in zip(manifest.runs, told, strict=True):
        contract.write_run(folder / run.folder, values)
    for name, content in files.items():
        replace_file(str(folder / name), content.encode())
        (folder / name).chmod(0o755 if name in SCRIPTS[:3] else 0o644)
    write_swarm(folder, manifest)


def _folder(to: str, recipe: Recipe) -> Path:
    """The folder of a swarm, which is this study's if it is there."""
    if not to or is_remote(to):
        raise RecipeError(
            "--swarm writes run directories, which trainers read and write: name in --to a folder "
            "on a disk that the cluster shares"
        )
    folder = Path(to).expanduser().absolute()
    if any("\udc80" <= letter <= "\udcff" for letter in str(folder)):
        raise RecipeError(
            f"{str(folder)!a} is not UTF-8, as scripts and run.json are: name a folder in --to "
            "whose name is"
        )
    if (folder / SWARM).exists() and (other := read_swarm(folder).study) != recipe.name:
        raise StorageError(f"{folder} has the swarm of {other}: name another folder in --to")
    if not (folder / SWARM).exists() and folder.is_dir():
        own = {RUNS, *SCRIPTS}  # which an export that was killed has left
        others = sorted(path.name for path in folder.iterdir() if path.name not in own)
        if others:
            raise StorageError(
                f"{folder} is no swarm and has {others[0]} in it: name another folder in --to"
            )
    return folder


def _own_files(
    recipe: Recipe, prepared: Prepared, form: str, spec: RunSpec, run: ContractRun
) -> dict[str, str]:
    """What a trainer's format says of a run: file name -> content.

    Domains without `export.paths` are read from the token files of run.json.

    Raises:
        ExportError: the format cannot express it.
    """
    cut = [name for i, name in enumerate(spec.domains) if spec.usable(i) < 1]
    if cut:
        raise ExportError(
            f"a run may draw only the first tokens of {cut[0]} (proxy.match_repetition), which "
            "files of trainers do not say: export --swarm contract, or set match_repetition to "
            "false"
        )
    base = spec_of_stages(recipe, prepared.domains, spec.stages)
    given = {name: (domain.train.path,) for name, domain in run.domains.items()}
    told = dataclasses.replace(
        base,
        name=f"{recipe.name}-{spec.fingerprint[:12]}",
        tokens=spec.tokens,
        paths={**given, **base.paths},
        sources={name: one for name, one in base.sources.items() if name in base.paths},
        seed=spec.seed,
        sequence=run.schedule.sequence_length,
        batch=run.schedule.batch,
    )
    made = exports.build_format(form, recipe.export.formats.get(form))
    try:
        return exports.render_export(made, told)
    except ExportError as error:
        raise ExportError(
            f"run {spec.fingerprint[:12]}, of {spec.tokens:,} tokens: {error}. Of a swarm "
            "proxy.tokens is the length, and batch and sequence follow from proxy.size; `--swarm "
            "contract` leaves all of it to your trainer"
        ) from None
