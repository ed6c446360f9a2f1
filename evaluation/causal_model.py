"""Any causal language model of transformers, as what answers: its weights, tokenizer and context.

Scores equal those of lm-eval's `HFLM` (0.4.13) within rounding. As there, the beginning-of-text
token of the tokenizer, or the end-of-text token where it has none, stands before a text without
context; a tokenizer that begins a text of its own accord does so in tasks; no chat template is
applied. Held-out text is scored without what a tokenizer adds: the one token stands before it and
is not scored, as with HFLM's `add_bos_token=False`. What is longer than the context goes by windows
as in lm-eval's rolling likelihood: each token is scored once, all but the first and last windows
see the one token before them, and the last sees as much as the context holds.

Logits are float32 in whatever type the model computes.
"""

import copy
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer
from torch import Tensor
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from cuvee.evaluation.checkpoint_files import check_tokenizer_files, checkpoint_weights
from cuvee.evaluation.lm_eval_tasks import plain_tokenizer
from cuvee.evaluation.requests import RequestEncoder
from cuvee.mixtures.errors import DataError

CONTEXTS = ("n_positions", "max_position_embeddings", "n_ctx")  # in the order of lm-eval's look
USUAL_CONTEXT = 2048  # of a model that names none, as in lm-eval
CPU_BATCH, BATCH = 1 << 11, 1 << 14  # tokens that are computed at once
LOGITS = {"cpu": 1 << 25, "": 1 << 29}  # of them at once
TYPES = ("auto", "float32", "bfloat16", "float16")
log = logging.getLogger(__name__)
PROBE = 16  # tokens by which a model shows that it is causal


@dataclass(frozen=True)
class CheckpointReading:
    """How a checkpoint is read.

    Attributes:
        device: "auto" for a GPU where there is one, or a name of torch's.
        dtype: "auto" for the type that it was saved in, or one of `TYPES`.
        tokenizer: folder of its tokenizer; None for its own.
        context: longest input in tokens; None for its own.
    """

    device: str = "auto"
    dtype: str = "auto"
    tokenizer: Path | None = None
    context: int | None = None

    def __post_init__(self) -> None:
        if self.dtype not in TYPES:
            raise DataError(f"the type of the numbers is one of {', '.join(TYPES)}; got "
                            f"{self.dtype!r}")  # fmt: skip
        if self.context is not None and self.context < 2:
            raise DataError(f"a context is at least 2 tokens; got {self.context}")


class CausalLikelihood:
    """One model of transformers that scores sequences in batches of about equal length.

    Args:
        model: causal, in evaluation mode.
        context: longest input, in tokens.
        batch: tokens that are computed at once.
        moved: called with the share that is done.
    """

    models = 1

    def __init__(
        self,
        model: Any,
        context: int,
        *,
        batch: int | None = None,
        moved: Callable[[float], None] = lambda _: None,
    ) -> None:
        self.model, self.context, self.moved = model, context, moved
        self._cpu = model.device.type == "cpu"
        self._batch = batch or (CPU_BATCH if self._cpu else BATCH)
        self.vocabulary = int(model.get_input_embeddings().weight.shape[0])

    @torch.inference_mode()
    def answer(
        self, contexts: Sequence[Sequence[int]], answers: Sequence[Sequence[Sequence[int]]]
    ) -> tuple[Tensor, Tensor]:
        """Log-likelihood of answers, each after its context; see `likelihood.Likelihood`.

        Raises:
            DataError: a token that the model has no embedding for, or a device that is too small.
        """
        asked: dict[tuple[int, ...], list[tuple[int, tuple[int, ...]]]] = {}
        total = 0
        for context, some in zip(contexts, answers, strict=True):
            for answer in some:
                whole = (*context, *answer)
                asked.setdefault(whole[:-1], []).append((total, tuple(answer)))
                total += 1
        highest = max((max(*row, *(a[-1] for _, a in some)) for row, some in asked.items()),
                      default=0)  # fmt: skip
        if highest >= self.vocabulary:
            raise DataError(
                f"the tokenizer gives token {highest}, and the model knows {self.vocabulary}: they "
                "do not belong together"
            )
        nats = torch.zeros(1, total, dtype=torch.float64)
        hits = torch.zeros(1, total, dtype=torch.bool)
        rows = sorted(asked, key=lambda row: (-len(row), row))
        done = 0
        while done < len(rows):
            some = rows[done : done + self._size(rows[done], asked[rows[done]])]
            try:
                for place, value, hit in self._scored(some, asked):
                    nats[0, place], hits[0, place] = value, hit
            except torch.OutOfMemoryError:
                if len(some) == 1:
                    raise DataError(
                        f"{self.model.device} is too small for {len(some[0])} tokens of this model:"
                        " score it with a smaller context, as bfloat16 or on another device"
                    ) from None
                self._batch = len(some) * len(some[0]) // 2
                torch.cuda.empty_cache()
                continue
            except Exception as error:
                what = self.model.name_or_path or "the model"
                raise DataError(_not_computed(what, self.model.device, error)) from error
            done += len(some)
            self.moved(done / len(rows))
        return nats, hits

    def _size(self, row: tuple[int, ...], some: Sequence[tuple[int, tuple[int, ...]]]) -> int:
        """How many rows that are no longer than this one are computed at once."""
        scored = max(len(answer) for _, answer in some) * self.vocabulary
        most = LOGITS["cpu" if self._cpu else ""]
        return max(1, min(self._batch // len(row), most // scored))

    def _scored(
        self,
        rows: Sequence[tuple[int, ...]],
        asked: dict[tuple[int, ...], list[tuple[int, tuple[int, ...]]]],
    ) -> list[tuple[int, float, bool]]:
        """(place, nats, greedy) of every answer of some rows; the first row is the longest."""
        width = len(rows[0])
        first = min(len(row) - len(a) for row in rows for _, a in asked[row])
        # what stands after a row is not seen by it, so that anything pads it
        tokens = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows])
        logits = self.model(
            tokens.to(self.model.device), use_cache=False, logits_to_keep=width - first
        ).logits
        logits = logits[:, -(width - first) :]
        found = []
        for line, row in zip(logits, rows, strict=True):
            for place, answer in asked[row]:
                part = line[len(row) - len(answer) - first : len(row) - first].float()
                # summed on the CPU: MPS has no float64
                targets = torch.tensor(answer, device=part.device)
                log_p = torch.log_softmax(part, -1).gather(-1, targets[:, None])
                hit = (part.argmax(-1) == targets).all()
                found.append((place, float(log_p.cpu().double().sum()), bool(hit)))
        return found


@dataclass(frozen=True)
class CausalCheckpoint:
    """A checkpoint that is loaded.

    Attributes:
        likelihood: what answers.
        encoder: of tasks, as HFLM encodes them.
        text_encoder: of held-out text, to which nothing is added.
    """

    likelihood: CausalLikelihood
    encoder: RequestEncoder
    text_encoder: RequestEncoder


def load_checkpoint(folder: Path, reading: CheckpointReading) -> CausalCheckpoint:
    """Load a checkpoint from safetensors, without running any code of its own.

    Raises:
        DataError: it cannot be loaded or scored; says why and what to do.
        CorruptError: a file is damaged.
    """
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    checkpoint_weights(folder)
    config = _configuration(folder)
    tokens = reading.tokenizer or folder
    check_tokenizer_files(tokens)
    tokenizer, prefix = _tokenizer(tokens)
    context = _context(folder, config, tokenizer, reading.context)
    model = _model(folder, config, reading)
    likelihood = CausalLikelihood(model, context)
    highest = max(tokenizer.backend_tokenizer.get_vocab(with_added_tokens=False).values())
    if max(highest, prefix) >= likelihood.vocabulary:
        raise DataError(
            f"the tokenizer in {tokens} has tokens up to {max(highest, prefix):,}, and the model "
            f"in {folder} has embeddings for {likelihood.vocabulary:,}: they do not belong together"
        )
    backend = copy.deepcopy(tokenizer.backend_tokenizer)
    backend.no_truncation()
    backend.no_padding()
    plain = plain_tokenizer(backend.to_str())
    plain.encode_special_tokens = True
    return CausalCheckpoint(
        likelihood,
        RequestEncoder(backend, prefix, context),
        RequestEncoder(plain, prefix, context),
    )


def _configuration(folder: Path) -> Any:
    """The configuration of a causal model.

    Raises:
        DataError: it is of another kind of model, or of code that the checkpoint brings.
    """
    try:
        config = transformers.AutoConfig.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # transformers raises of every kind
        own = "auto_map" in (folder / "config.json").read_text(encoding="utf-8", errors="replace")
        why = (
            "it names code of its own (auto_map), which is never run: convert it to a model that "
            "transformers has"
            if own
            else _first_line(error)
        )
        raise DataError(f"{folder}: no model that transformers has ({why})") from None
    kinds = tuple(config.architectures or ())
    causal = set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values())
    known = kinds[0] in causal if kinds else config.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    if not known or config.is_encoder_decoder:
        raise DataError(
            f"{folder} holds {kinds[0] if kinds else config.model_type}, which is no causal "
            "language model: it gives no probability of the next token, so that no text is scored "
            "by it"
        )
    return config


def _tokenizer(folder: Path) -> tuple[Any, int]:
    """A tokenizer, and the token that stands before a text without context."""
    try:
        found = transformers.AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
        backend = found.backend_tokenizer
    except Exception as error:
        raise DataError(
            f"the tokenizer in {folder} cannot be loaded: {_first_line(error)}"
        ) from None
    if not isinstance(backend, Tokenizer):
        raise DataError(
            f"the tokenizer in {folder} has no tokenizer.json: write it with "
            "`AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)` of transformers"
        )
    prefix = found.bos_token_id if found.bos_token_id is not None else found.eos_token_id
    if prefix is None:
        raise DataError(
            f"the tokenizer in {folder} names neither bos_token nor eos_token, one of which stands "
            "before a text: name it in tokenizer_config.json"
        )
    return found, int(prefix)


def _context(folder: Path, config: Any, tokenizer: Any, asked: int | None) -> int:
    """The longest input in tokens, by the rules of lm-eval."""
    inner = getattr(config, "text_config", None) or config
    named = [getattr(inner, name, None) for name in CONTEXTS]
    own = next((int(n) for n in named if n is not None), None)
    if own is not None and asked is not None and asked > own:
        raise DataError(f"{folder} was made for {own:,} tokens; a context of {asked:,} is too long")
    said = tokenizer.model_max_length
    return asked or own or (int(said) if said < 1 << 60 else USUAL_CONTEXT)


def _model(folder: Path, config: Any, reading: CheckpointReading) -> Any:
    """A model on its device, all of whose weights are there and finite."""
    name = reading.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    kind = "auto" if reading.dtype == "auto" else getattr(torch, reading.dtype)
    try:
        model, info = transformers.AutoModelForCausalLM.from_pretrained(
            folder, config=config, dtype=kind, use_safetensors=True, local_files_only=True,
            trust_remote_code=False, output_loading_info=True,
        )  # fmt: skip
        missing = sorted(map(str, info["missing_keys"]))
        model = model.to(name).eval()
    except Exception as error:
        raise DataError(f"{folder} cannot be loaded on {name}: {_first_line(error)}") from None
    if missing:
        raise DataError(
            f"{folder} lacks {len(missing)} weights of its model, such as {missing[0]}, which "
            "would be random numbers: save the whole model"
        )
    try:
        _check_finite(model, folder)
        _check_causal(model, folder)
    except DataError:
        raise
    except Exception as error:
        raise DataError(_not_computed(folder, name, error)) from error
    spare = sorted(map(str, info["unexpected_keys"]))
    if spare:
        log.warning("%s: %d weights are no part of its model, such as %s; they are not used",
                    folder, len(spare), spare[0])  # fmt: skip
    return model


def _check_finite(model: Any, folder: Path) -> None:
    """See that all weights are finite.

    Raises:
        DataError: one is not.
    """
    for parameter, value in model.named_parameters():
        narrow = value.is_floating_point() and value.element_size() == 1  # has no isfinite
        if not bool(torch.isfinite(value.float() if narrow else value).all()):
            raise DataError(
                f"{folder}: {parameter} holds numbers that are not finite (a training that "
                "diverged, or a type that is too narrow): nothing can be scored by it"
            )


@torch.inference_mode()
def _check_causal(model: Any, folder: Path) -> None:
    """See that no token sees a later one, by changing the last of a few.

    Raises:
        DataError: one does, as in encoders that carry a head for the next token.
    """
    vocabulary = model.get_input_embeddings().weight.shape[0]
    tokens = torch.arange(PROBE, device=model.device).repeat(2, 1) % vocabulary
    tokens[1, -1] = 0
    one, other = model(tokens, use_cache=False).logits.float()
    changed = (one - other).abs().amax(-1)
    if changed[:-1].max() > 0.01 * changed[-1]:
        raise DataError(
            f"{folder}: its tokens see those that follow, as in an encoder; no text can be scored "
            "by it"
        )


def _not_computed(what: object, device: object, error: Exception) -> str:
    return f"{what} cannot be computed on {device}: {_first_line(error)}"


def _first_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {(lines or [''])[0].strip()[:300]}"
