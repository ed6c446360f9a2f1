"""swarm.json: the runs of a sweep that is trained elsewhere, by fingerprint, and where each lies.

A swarm folder holds

    swarm.json      this manifest, written last
    runs/DIGITS/    a run directory of the trainer contract for each run
    runs.txt        the same folders in order, for the launch scripts alone
    array.slurm     trains them as a job array of Slurm
    run_all.sh      trains them one after the other

Whatever comes back is told apart by fingerprint, never by its place in a list.
"""

from collections import Counter
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from cuvee.proxies.data.files import replace_file
from cuvee.tasks.trainer.contract import RefusedResult, parse_contract_file

SWARM = "swarm.json"
RUNS = "runs"  # folder of the run directories
SWARM_VERSION = 1  # raised when an earlier Cuvée would misread the manifest


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")  # later versions may add fields


class SwarmRun(_Entry):
    """One run of a swarm."""

    fingerprint: str = Field(pattern=r"^[0-9a-f]{64}$", description="Names the run.")
    name: str = Field(description="As people see it in the record.")
    role: str = Field(
        pattern=r"^(design|anchor|seed|confirmation)$", description="Why it is trained."
    )
    folder: str = Field(
        pattern=r"^runs/[0-9a-f]{32}$", description="Its run directory, within the swarm folder."
    )
    tokens: int = Field(gt=0, description="Training tokens.")
    size: str = Field(description="Of the model, as the recipe has it.")


class SwarmManifest(_Entry):
    """swarm.json: one round of a study's runs."""

    version: int = Field(default=SWARM_VERSION, description="Of this manifest.")
    study: str = Field(description="Name of the study.")
    recipe: str = Field(description="Digest of the recipe.")
    format: str = Field(description="Of the trainer's own files, or `contract` for run.json alone.")
    runs: list[SwarmRun] = Field(min_length=1, description="Each once.")


def write_swarm(folder: Path, swarm: SwarmManifest) -> Path:
    """Write swarm.json; its path."""
    path = folder / SWARM
    folder.mkdir(parents=True, exist_ok=True)
    replace_file(str(path), f"{swarm.model_dump_json(indent=1)}\n".encode())
    return path


def read_swarm(folder: Path) -> SwarmManifest:
    """The manifest of a swarm folder.

    Raises:
        RefusedResult: it is none, names a run twice, or is of a later version.
    """
    path = folder / SWARM
    swarm = parse_contract_file(SwarmManifest, path, SWARM_VERSION)
    if twice := [one for one, n in Counter(r.fingerprint for r in swarm.runs).items() if n > 1]:
        raise RefusedResult(f"{path} names run {twice[0][:12]} twice: export the swarm again")
    return swarm
