"""The trainer contract: the files by which a program of others is told of a run, and answers.

A run directory holds

    run.json        what to train: written by Cuvee, read by the trainer
    result.json     scores by target: written by the trainer, whole, as its last act
    checkpoint/     the model in the format of Hugging Face, in the place of scores or beside them
    progress.jsonl  a line {"tokens": ..., "loss": ...} now and then, appended by the trainer
    state/          what the trainer keeps to go on from when it is started again

Here they are written, read and checked. A result that belongs to another run, lacks a target, is
not finite, or was given before with other values is refused in a sentence, and never used.
"""

import contextlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cuvee.mixtures.errors import TrainingError
from cuvee.mixtures.runs.run_results import Score
from cuvee.mixtures.runs.run_spec import canonical_json
from cuvee.proxies.data.files import create_file, replace_file
from cuvee.proxies.model_size import EPSILON, ROPE

VERSION = 1  # of the contract; raised when a trainer of an earlier one would misread it
RUN, RESULT, PROGRESS, CHECKPOINT, STATE = (
    *("run.json", "result.json", "progress.jsonl"),
    *("checkpoint", "state"),
)
ACCEPTED = "accepted.json"  # the scores of the result that was read first
SPENT = "spent.json"  # seconds of the attempts so far, and whether the last one ended well
LONGEST = 1 << 24  # bytes of a file of JSON that is read
MOST = 1 << 62  # tokens or items that anyone counts
SHOWN = 5  # names in a message

Content = TypeVar("Content", bound=BaseModel)
Point = tuple[int, float]  # tokens seen, training loss


class RefusedResult(TrainingError):
    """What a trainer left is no result of its run: it is never used, nor tried again by itself."""


class RefusedHere(RefusedResult):
    """What this machine cannot do, by no fault of the trainer: its run directory stays."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")  # later versions may add fields


class ContractTokens(_Part):
    """One split of a domain: token ids in one file, documents one after the other."""

    path: str = Field(description="File of token ids, without a header.")
    index: str = Field(
        description="File of numpy's npz format: `offsets`, where documents start in tokens (one "
        "more than there are documents), and `bytes`, the UTF-8 bytes of each."
    )
    tokens: int = Field(
        ge=0, description="Ids to use, the first ones of the file: the run may draw no others."
    )


class ContractDomain(_Part):
    """Where a domain's text lies."""

    train: ContractTokens = Field(description="Text to train on.")
    valid: ContractTokens = Field(description="Text to score on, and never to train on.")


class ContractStage(_Part):
    """A stretch of training at fixed shares."""

    tokens: int = Field(gt=0, description="Training tokens of the stage.")
    shares: dict[str, float] = Field(
        description="Share of these tokens by domain; they sum to 1, and 0 means none at all."
    )


class ContractModel(_Part):
    """The size of the model: a name, and the shape that the built-in trainer would give it."""

    name: str = Field(description="The size as the recipe has it.")
    parameters: int = Field(description="All of them, embeddings and head included.")
    width: int = Field(description="Of the residual stream.")
    layers: int = Field(description="Transformer blocks.")
    heads: int = Field(description="Attention heads.")
    mlp: int = Field(description="Hidden width of the gated feed-forward layer.")
    kv_heads: int = Field(
        default=0, description="Heads of keys and values, shared by queries; 0 for as many."
    )
    tied: bool = Field(default=False, description="Whether the head is the embedding.")
    rope: float = Field(default=ROPE, description="Base of the rotary positions.")
    epsilon: float = Field(default=EPSILON, description="Of the norms.")


class ContractSchedule(_Part):
    """How the built-in trainer would train the size; a trainer may have its own way."""

    steps: int = Field(description="Optimizer steps.")
    batch: int = Field(description="Sequences of a step.")
    sequence_length: int = Field(description="Tokens of a sequence.")
    kind: str = Field(description="Of the learning rate: `wsd`, `cosine` or `constant`.")
    rate: float = Field(description="Peak learning rate.")
    warmup: int = Field(description="Steps of linear warm-up.")
    decay: int = Field(description="Last steps, over which `wsd` falls as 1 - sqrt.")
    average: float = Field(description="Share of the last steps whose weights are averaged.")
    precision: str = Field(description="Of the matrix products: `float32` or `bfloat16`.")


class ContractPlaces(_Part):
    """Where the trainer writes, all of it within the run directory."""

    result: str = Field(description="result.json, to be written beside its place and renamed.")
    checkpoint: str = Field(description="Folder for the model in the format of Hugging Face.")
    progress: str = Field(description="progress.jsonl, to be appended to.")
    state: str = Field(description="Folder for what the trainer needs to go on.")


class ContractRun(_Part):
    """run.json: all that a trainer must know of a run."""

    version: int = Field(default=VERSION, description="Of the contract.")
    fingerprint: str = Field(
        pattern=r"^[0-9a-f]{64}$", description="Names the run; result.json repeats it."
    )
    tokens: int = Field(gt=0, description="Training tokens in all.")
    stages: list[ContractStage] = Field(min_length=1, description="Mixtures, in their order.")
    seed: int = Field(description="Of the initial weights.")
    data_seed: int = Field(description="Of the order of the data.")
    model: ContractModel = Field(description="How large the model is.")
    schedule: ContractSchedule = Field(description="How it would be trained here.")
    settings: dict[str, Any] = Field(description="`proxy.trainer.settings` of the recipe.")
    domains: dict[str, ContractDomain] = Field(description="Every domain's text.")
    token_type: str = Field(description="numpy's name of the type of ids: `uint16` or `uint32`.")
    tokenizer: str = Field(description="tokenizer.json, of Hugging Face's tokenizers.")
    vocabulary: int = Field(description="Number of ids.")
    end_of_text: int = Field(description="Id that ends every document.")
    targets: list[str] = Field(description="Scores that result.json must have.")
    write: ContractPlaces = Field(description="Where to write what.")
    resume_from: str = Field(
        description="Folder of the state to go on from, which is `write.state`: empty at first."
    )


class ContractScore(_Part):
    """A measured score; lower is better unless the recipe says otherwise."""

    value: float = Field(description="The score, such as bits per byte.")
    stderr: float = Field(description="Its standard error over what was measured; 0 if unknown.")
    n: int = Field(ge=1, le=MOST, description="Documents or items measured.")


class ContractResult(_Part):
    """result.json: what a trainer answers. Scores, or a checkpoint that is scored here."""

    version: int = Field(default=VERSION, description="Of the contract.")
    fingerprint: str = Field(description="Of run.json.")
    scores: dict[str, ContractScore] | None = Field(
        default=None,
        description="By target, all of run.json's; more are kept as details. Without it the "
        "checkpoint is scored.",
    )
    checkpoint: str | None = Field(
        default=None,
        description="Folder of the model, where it is not `write.checkpoint`; a relative one is "
        "in the run directory.",
    )
    tokens: dict[str, Annotated[int, Field(ge=0, le=MOST)]] | None = Field(
        default=None, description="Tokens drawn by domain; else the run's shares are believed."
    )
    flops: float | None = Field(
        default=None,
        ge=0,
        allow_inf_nan=False,
        description="Of the training; else counted for the built-in size.",
    )


def contract_schema() -> dict[str, Any]:
    """The JSON schemas of the three files, by name."""
    point = {
        "type": "object",
        "required": ["tokens", "loss"],
        "properties": {
            "tokens": {"type": "integer", "minimum": 0, "description": "Trained on so far."},
            "loss": {"type": "number", "description": "Mean since the last line, nats per token."},
        },
    }
    return {
        RUN: ContractRun.model_json_schema(),
        RESULT: ContractResult.model_json_schema(),
        PROGRESS: point,
    }


def places_in(folder: Path) -> ContractPlaces:
    """Where a trainer writes in a run directory."""
    names = {"result": RESULT, "checkpoint": CHECKPOINT, "progress": PROGRESS, "state": STATE}
    return ContractPlaces(**{field: str(folder / name) for field, name in names.items()})


def write_run(folder: Path, run: ContractRun) -> Path:
    """Write run.json; its path.

    Raises:
        RefusedResult: the directory is of another run.
    """
    path = folder / RUN
    if path.exists() and read_run(path).fingerprint != run.fingerprint:
        raise RefusedResult(
            f"{folder} is the directory of run {read_run(path).fingerprint[:12]}, and not of "
            f"{run.fingerprint[:12]}: move it away"
        )
    (folder / STATE).mkdir(parents=True, exist_ok=True)
    replace_file(str(path), f"{run.model_dump_json(indent=1)}\n".encode())
    return path


def read_run(path: Path) -> ContractRun:
    """run.json as a trainer reads it.

    Raises:
        RefusedResult: it is none, or of a later version of the contract.
    """
    return parse_contract_file(ContractRun, path)


def write_result(
    run: ContractRun, scores: Mapping[str, Mapping[str, float]], **more: Any
) -> ContractResult:
    """Write result.json, for trainers that have Cuvee: checked, and in one piece.

    Args:
        run: from `read_run`.
        scores: by target, each with value, stderr and n.
        more: other fields of result.json.

    Raises:
        RefusedResult: it would be refused, or there is another one.
    """
    values = {"fingerprint": run.fingerprint, "scores": {k: dict(v) for k, v in scores.items()}}
    path = Path(run.write.result)
    made = _validated(ContractResult, {**values, **more}, path)
    check_result(run, made, path)
    if path.exists() and _scores_text(read_result(path, run)) != _scores_text(made):
        raise RefusedResult(_written_twice(path))
    replace_file(str(path), f"{made.model_dump_json(indent=1)}\n".encode())
    return made


def read_result(path: Path, run: ContractRun) -> ContractResult:
    """result.json of a run.

    Raises:
        RefusedResult: it is no result of this run; says in what.
    """
    found = parse_contract_file(ContractResult, path)
    check_result(run, found, path)
    return found


def check_result(run: ContractRun, result: ContractResult, path: Path) -> None:
    """Hold a result against its run.

    Raises:
        RefusedResult: says what is wrong.
    """
    if result.fingerprint != run.fingerprint:
        raise RefusedResult(
            f"{path} belongs to run {result.fingerprint[:12]!r}, and not to "
            f"{run.fingerprint[:12]}: a trainer repeats the `fingerprint` of its run.json"
        )
    wrong = [
        name
        for name, one in (result.scores or {}).items()
        if not (math.isfinite(one.value) and math.isfinite(one.stderr) and one.stderr >= 0)
    ]
    if wrong:
        one = (result.scores or {})[wrong[0]]
        raise RefusedResult(
            f"{path}: the score of {_listed(wrong)} is not finite, or its standard error is below "
            f"0 (value {one.value}, stderr {one.stderr}); a run that diverged has no result: let "
            "the trainer end with a code other than 0"
        )
    unknown = [name for name in result.tokens or () if name not in run.domains]
    if unknown:
        raise RefusedResult(f"{path}: `tokens` names {_listed(unknown)}, no domain of the run")
    if result.scores is None:
        return
    lacking = [name for name in run.targets if name not in result.scores]
    if lacking:
        raise RefusedResult(
            f"{path} lacks the score of {_listed(lacking)}; it has {_listed(result.scores)}. The "
            "names are those of `targets` in run.json"
        )


def accept_result(folder: Path, run: ContractRun) -> ContractResult | None:
    """The result in a run directory, which from then on is the only one that its run can have.

    None where the trainer has left none.

    Raises:
        RefusedResult: it is no result of this run, or not the one that was accepted before.
    """
    path, accepted = folder / RESULT, folder / ACCEPTED
    if not path.exists():
        return None
    found = read_result(path, run)
    text = _scores_text(found).encode()
    with contextlib.suppress(FileExistsError):
        create_file(str(accepted), text)
    before = accepted.read_bytes()
    if not before.endswith(b"}"):  # whoever wrote it was killed on the way
        replace_file(str(accepted), text)
    elif before != text:
        raise RefusedResult(_written_twice(path))
    return found


def run_scores(run: ContractRun, result: ContractResult) -> tuple[dict[str, Score], ...]:
    """The scores of a run's targets, and what a result has besides."""
    every = {k: Score(v.value, v.stderr, v.n) for k, v in (result.scores or {}).items()}
    wanted = {name: every.pop(name) for name in run.targets if name in every}
    return wanted, every


class ProgressFile:
    """progress.jsonl as it grows: each call of `points` gives what was added since.

    A last line that is not whole waits for its end; one that says nothing is passed over, since
    progress is no evidence.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._read = path, 0

    def points(self) -> list[Point]:
        """(tokens, loss) pairs of new lines."""
        found: list[Point] = []
        if not self._path.is_file():  # a pipe would be waited for
            return found
        with contextlib.suppress(OSError), self._path.open("rb") as file:
            file.seek(self._read)
            for line in file:
                if line.endswith(b"\n"):
                    self._read += len(line)
                    found += _point(line)
        return found


def training_curve(points: Sequence[Point]) -> tuple[Point, ...]:
    """Points in the order of their tokens: what a trainer did again replaces what it had done."""
    curve: list[Point] = []
    for tokens, loss in points:
        while curve and curve[-1][0] >= tokens:
            curve.pop()
        curve.append((tokens, loss))
    return tuple(curve)


def _point(line: bytes) -> Iterator[Point]:
    """The point that a line of progress holds, if it holds one."""
    with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError, OverflowError):
        values = json.loads(line)
        tokens, loss = values["tokens"], float(values["loss"])
        if isinstance(tokens, int) and 0 <= tokens <= MOST and math.isfinite(loss):
            yield tokens, loss


def parse_contract_file(kind: type[Content], path: Path, newest: int = VERSION) -> Content:
    """A file of JSON that others wrote, as what it must be.

    Args:
        kind: of its content.
        path: where it lies.
        newest: version of the kind that is understood.

    Raises:
        RefusedResult: says what is wrong with it.
    """
    if path.exists() and not path.is_file():
        raise RefusedResult(f"{path} is no file, but a folder, a pipe or a device")
    try:
        with path.open("rb") as file:
            raw = file.read(LONGEST + 1)
    except OSError as error:
        raise RefusedResult(f"{path} cannot be read ({error.strerror})") from None
    if len(raw) > LONGEST:
        raise RefusedResult(f"{path} has more than {LONGEST >> 20} MiB: it is no file of a run")
    try:
        values = json.loads(raw, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise RefusedResult(
            f"{path} is not JSON ({error}): write it beside its place and rename it, so that it is "
            "there whole or not at all"
        ) from None
    return _validated(kind, values, path, newest)


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(k for i, (k, _) in enumerate(pairs) if k in dict(pairs[:i]))
        raise ValueError(f"{twice!r} stands there twice")
    return found


def _validated(kind: type[Content], values: Any, path: Path, newest: int = VERSION) -> Content:
    version = values.get("version", newest) if isinstance(values, dict) else newest
    if isinstance(version, int) and version > newest:
        raise RefusedResult(
            f"{path} is of version {version} of the trainer contract, and this Cuvee reads up to "
            f"{newest}: update cuvee"
        )
    try:
        return kind.model_validate(values, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise RefusedResult(
            f"{path}: {place or 'it'}: {first['msg'][:1].lower()}{first['msg'][1:]}"
        ) from None


def _written_twice(path: Path) -> str:
    return (
        f"{path} was written twice with other values: one run has one result. Two jobs have "
        "trained it, or its trainer gives other scores each time: remove the run directory to "
        "train it anew"
    )


def _scores_text(result: ContractResult) -> str:
    return canonical_json(result.model_dump(include={"fingerprint", "scores", "checkpoint"}))


def _listed(names: Any) -> str:
    every = list(names)
    more = f" and {len(every) - SHOWN} others" if len(every) > SHOWN else ""
    return ", ".join(every[:SHOWN]) + more if every else "none"
