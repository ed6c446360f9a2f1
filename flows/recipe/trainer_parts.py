"""The part of a recipe on a program of others that trains the proxies."""

import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from cuvee.flows.recipe.parts import DAY, Count, Part
from cuvee.mixtures.errors import RecipeError
from cuvee.mixtures.runs.run_spec import RunSpec
from cuvee.proxies.data.objects import is_remote
from cuvee.tasks.trainer import program
from cuvee.tasks.trainer.program import TrainerProgram

if TYPE_CHECKING:
    from cuvee.flows.recipe.schema import Recipe

SHARE_DIGITS = 4  # of a share of a resource, in Ray


class TrainerPart(Part):
    """Your own program, which trains each run in the place of the built-in trainer.

    It is told of a run in a `run.json` and leaves a `result.json`: the trainer contract.
    """

    command: list[str] = Field(
        min_length=1,
        description="Program by its full path, with its arguments and without a shell; the path of "
        "run.json comes last, or where `{run}` stands. `{folder}`, `{cpus}`, `{gpus}`, `{nodes}`, "
        "`{node_rank}`, `{master_address}` and `{master_port}` are filled in, too. The operator "
        "allows it in CUVEE_TRAINER_COMMANDS.",
        examples=[["/opt/train/bin/python", "/opt/train/train.py"]],
    )
    name: str = Field(
        default="",
        max_length=100,
        description="What the trainer is called; empty takes the name of its file.",
        examples=["megatron"],
    )
    version: str = Field(
        default="",
        max_length=200,
        description="What tells it from an earlier one, whose runs are other evidence: a version, "
        "a commit, the digest of a container. Empty takes a hash of the files that `command` "
        "names.",
        examples=["2026.11"],
    )
    settings: dict[str, Any] = Field(
        default={},
        description="Free values that run.json hands on; other values are another trainer.",
        examples=[{"tensor_parallel": 2}],
    )
    metrics: dict[str, str] = Field(
        default={},
        description="For `cuvee collect`: which metric of its logs is which target, where they are "
        "called differently; other metrics are another trainer.",
        examples=[{"domain/web": "eval_web_loss"}],
    )
    cpus: float = Field(
        default=1.0, gt=0, description="Cores that a run gets on each node.", examples=[8]
    )
    gpus: float = Field(
        default=0.0,
        ge=0,
        description="GPUs that a run gets on each node; below 1, the share of one.",
        examples=[0.25, 8],
    )
    memory: Count | None = Field(
        default=None,
        description="Bytes of memory that a run gets on each node, 64B for 64 GB; null asks for "
        "none.",
        examples=["64B"],
    )
    nodes: int = Field(
        default=1,
        ge=1,
        le=10_000,
        description="Nodes that train one run together; the command is run on each.",
        examples=[2],
    )
    timeout: float | None = Field(
        default=None,
        gt=0,
        le=365 * DAY,
        description="Seconds after which a run is ended, and begun again; null for no limit.",
        examples=[7200],
    )
    retries: int = Field(
        default=2,
        ge=0,
        le=100,
        description="How often a run whose trainer failed is begun again, from what it kept.",
        examples=[0],
    )
    environment: dict[str, str] = Field(
        default={},
        description="Variables for the trainer; `$NAME` takes the value that NAME has where "
        "`cuvee` is called. Secrets are given so alone, and stand in no file.",
        examples=[{"WANDB_API_KEY": "$WANDB_API_KEY", "NCCL_DEBUG": "INFO"}],
    )
    folder: str | None = Field(
        default=None,
        min_length=1,
        description="Where run directories lie, on a disk that all nodes share; null takes the "
        "home.",
        examples=["/shared/trainings"],
    )

    def check(self, recipe: "Recipe") -> None:
        """Refuse what no such program can be asked for; nothing is looked for on disk.

        Raises:
            RecipeError: all of it, in one message.
        """
        program.check_command(self.command)
        program.check_environment(self.environment)
        program.check_settings(self.settings)
        if problems := [*self._unplaceable(), *_unfit(recipe)]:
            raise RecipeError("; ".join(problems))

    def _unplaceable(self) -> Iterator[str]:
        """Which resources Ray could not give, in sentences."""
        for name, amount in (("cpus", self.cpus), ("gpus", self.gpus)):
            if round(amount, SHARE_DIGITS) != amount:
                yield (
                    f"proxy.trainer.{name} is {amount}, and Ray divides a node into ten "
                    f"thousandths: take a number with at most {SHARE_DIGITS} decimals"
                )
        if self.gpus > 1 and self.gpus % 1:
            yield (
                f"proxy.trainer.gpus is {self.gpus}, and above 1 a run gets whole GPUs: "
                f"take {math.ceil(self.gpus)}, or a share below 1"
            )

    @property
    def identity(self) -> str:
        """What tells the trainer from others, in the specs of its runs.

        Raises:
            RecipeError: nothing does.
        """
        return self._named[1]

    @property
    def _named(self) -> tuple[str, str]:
        return program.trainer_identity(
            self.command, self.name, self.version, self.settings, self.metrics
        )

    def program(self, folder: str, *, elsewhere: bool = False) -> TrainerProgram:
        """The trainer, which the operator allows, with the values of its variables.

        Args:
            folder: of run directories, where the recipe names none.
            elsewhere: it is not run here, and need neither be allowed nor have its variables,
                which stay as the recipe has them.

        Raises:
            RecipeError: it may not be run, or a variable is not set.
        """
        if not elsewhere:
            program.check_allowed(self.command)
        named = self._named
        values, secrets = (
            (self.environment, ()) if elsewhere else program.environment_of(self.environment)
        )
        return TrainerProgram(
            command=tuple(self.command),
            name=named[0],
            identity=named[1],
            version=self.version,
            settings=self.settings,
            metrics=self.metrics,
            cpus=self.cpus,
            gpus=self.gpus,
            memory=self.memory or 0,
            nodes=self.nodes,
            timeout=self.timeout or math.inf,
            retries=self.retries,
            folder=os.path.abspath(os.path.expanduser(self.folder or folder)),
            environment=values,
            secrets=secrets,
        )


def study_program(recipe: "Recipe", home: Path, shared: str) -> TrainerProgram | None:
    """The program that trains a recipe's proxies; None where the built-in trainer does.

    Args:
        recipe: says which.
        home: where run directories lie, unless the recipe says where.
        shared: folder or URL that all nodes can read.

    Raises:
        RecipeError: it may not be run, a variable is not set, or its nodes share no disk.
    """
    part = recipe.proxy.trainer
    if part is None:
        return None
    if is_remote(shared) and not part.folder:
        raise RecipeError(
            f"the store {shared} is in object storage, and a trainer reads and writes files: name "
            "in proxy.trainer.folder a folder on a disk that all nodes share"
        )
    return part.program(str(home))


def check_controllers(recipe: "Recipe", asked: Iterable[RunSpec]) -> None:
    """See that runs can be trained by a trainer of others, if the recipe names one.

    Raises:
        RecipeError: the method moves shares while a run is trained.
    """
    if recipe.proxy.trainer and any(spec.controller or spec.reference for spec in asked):
        raise RecipeError(
            f"method {recipe.method['name']!r} moves the shares while a run is trained, which the "
            "built-in trainer alone can do: leave proxy.trainer out, or take a method of runs at "
            "fixed shares, such as regmix"
        )


def _unfit(recipe: "Recipe") -> Iterator[str]:
    """What of a recipe goes with the built-in trainer alone, in sentences."""
    whose = "is of the built-in trainer: leave it out with proxy.trainer"
    if recipe.tables:
        yield "runs in `tables` were trained elsewhere: proxy.trainer has no meaning"
    if recipe.proxy.start:
        yield f"proxy.start {whose}, and name the checkpoint in proxy.trainer.settings"
    if recipe.proxy.pack:
        yield f"proxy.pack {whose}"
    if recipe.evaluation.curve:
        yield f"evaluation.curve {whose}"
    if recipe.evaluation.audit.detectors:
        yield f"evaluation.audit.detectors {whose}"
