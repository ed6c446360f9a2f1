"""The shape of a proxy: any Llama, from its fields, its text in a run's spec, or a config.json.

A size with no name on the ladder is named by its shape, such as
`w576_l30_h9_kv3_c1024_mlp1536_rope100000_tied`: that text is the size of its runs, and all that a
worker needs. Fields that say what a name would say, too, are left out of it. No torch here.
"""

import json
import math
import re
import reprlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cuvee.mixtures.errors import RecipeError, UnknownName
from cuvee.mixtures.units import count_text

VOCABULARY = 4096  # tokens that the names of sizes count
ROPE, EPSILON = 10_000.0, 1e-5  # of rotary positions and of the norms, in the names of sizes
MOST = 1 << 20  # of a width or a count, beyond which it is a slip
CONFIG = {  # our field by theirs
    "hidden_size": "width", "num_hidden_layers": "layers", "num_attention_heads": "heads",
    "max_position_embeddings": "context", "intermediate_size": "mlp",
    "num_key_value_heads": "kv_heads", "tie_word_embeddings": "tied", "rms_norm_eps": "epsilon",
    "rope_theta": "rope",
}  # fmt: skip
ABSENT = {"tie_word_embeddings": False, "rms_norm_eps": 1e-6}  # transformers' own, where not given
PLAIN = {  # what else a Llama may say in its config.json, and the only values that are built here
    "model_type": "llama", "hidden_act": "silu", "attention_bias": False, "mlp_bias": False,
}  # fmt: skip
COUNT, NUMBER = r"([0-9]{1,9})", r"([0-9]+(?:[.][0-9]+)?(?:e[+-]?[0-9]+)?)"
SHAPE = (  # a shape as a text: `PARTS` in their order
    rf"w{COUNT}_l{COUNT}_h{COUNT}(?:_kv{COUNT})?_c{COUNT}(?:_mlp{COUNT})?"
    rf"(?:_rope{NUMBER})?(?:_eps{NUMBER})?(_tied)?"
)
PARTS = {
    "width": int, "layers": int, "heads": int, "kv_heads": int, "context": int, "mlp": int,
    "rope": float, "epsilon": float, "tied": bool,
}  # fmt: skip
REQUIRED = ("width", "layers", "heads", "context")


@dataclass(frozen=True)
class ModelSize:
    """The shape of a proxy.

    Attributes:
        size: its name; of a shape without one what `shape_text` gives.
        width: of the residual stream.
        layers: transformer blocks.
        heads: attention heads.
        context: tokens of a training sequence.
        kv_heads: heads of keys and values, each shared by as many queries; 0 for as many as heads.
        mlp: hidden width of the SwiGLU layer; 0 for 8/3 of the width, rounded up to 32.
        tied: whether the head is the embedding.
        rope: base of the rotary positions.
        epsilon: of the norms.
    """

    size: str
    width: int
    layers: int
    heads: int
    context: int
    kv_heads: int = 0
    mlp: int = 0
    tied: bool = False
    rope: float = ROPE
    epsilon: float = EPSILON

    def __post_init__(self) -> None:
        for name in ("width", "layers", "heads", "context", "kv_heads", "mlp"):
            value, least = getattr(self, name), int(name not in ("kv_heads", "mlp"))
            if not (type(value) is int and least <= value <= MOST):
                raise RecipeError(
                    f"{name} of a shape is a whole number from {least} to {MOST:,}; got {value!r}"
                )
        object.__setattr__(self, "kv_heads", self.kv_heads or self.heads)
        object.__setattr__(self, "mlp", self.mlp or self._usual_mlp)
        for name, most in (("rope", 1e12), ("epsilon", 0.1)):
            value = getattr(self, name)
            if type(value) not in (int, float) or not 0 < value <= most:
                raise RecipeError(
                    f"{name} of a shape is a number above 0, at most {most:g}; got {value!r}"
                )
            object.__setattr__(self, name, float(value))
        if type(self.tied) is not bool:
            raise RecipeError(f"tied of a shape is true or false; got {self.tied!r}")
        if self.width % (2 * self.heads):
            raise RecipeError(
                f"a width of {self.width} has no {self.heads} heads of one even width: the width "
                "is divided by twice the heads without a remainder"
            )
        if self.heads % self.kv_heads:
            raise RecipeError(
                f"{self.heads} heads cannot share {self.kv_heads} of keys and values in groups of "
                "one size: kv_heads divides heads"
            )
        object.__setattr__(self, "size", self.size or shape_text(self))

    @property
    def _usual_mlp(self) -> int:
        """Step 2 of the ladder."""
        return 32 * math.ceil(self.width * 8 / 3 / 32)

    @property
    def head_width(self) -> int:
        """Of one head."""
        return self.width // self.heads

    @property
    def keys_width(self) -> int:
        """Of all keys of a token, and of all its values."""
        return self.kv_heads * self.head_width

    @property
    def body(self) -> int:
        """Matrix parameters without embeddings and head."""
        attention = 2 * self.width * (self.width + self.keys_width)
        return self.layers * (attention + 3 * self.width * self.mlp)

    def parameters(self, vocabulary: int) -> int:
        """All parameters: embedding, head unless tied, blocks and gains of the norms."""
        gains = (2 * self.layers + 1) * self.width
        return (1 if self.tied else 2) * vocabulary * self.width + self.body + gains

    def counts(self, vocabulary: int) -> dict[str, int]:
        """Parameters of the body and of all, for programs."""
        every = self.parameters(vocabulary)
        return {"body": self.body, "all": every, "vocabulary": vocabulary}

    def describe(self, vocabulary: int) -> str:
        """The size in words: parameters of the body and of all."""
        return (
            f"a proxy of size {self.size} has {count_text(self.body)} in its body and "
            f"{count_text(self.parameters(vocabulary))} in all, with "
            f"{'one matrix for embeddings and head' if self.tied else 'embeddings and head'} of "
            f"{vocabulary:,} tokens"
        )

    def law_parameters(self, vocabulary: int) -> int:
        """What laws over sizes take for the number of parameters (step 9 of the ladder)."""
        return self.parameters(min(vocabulary, VOCABULARY))

    def flops(self, tokens: int, vocabulary: int) -> float:
        """Floating-point operations of training on `tokens` tokens (step 8 of the ladder)."""
        matrices = self.body + vocabulary * self.width
        attention = 12 * self.layers * self.width * self.context / 2
        return float(tokens) * (6.0 * matrices + attention)


def shape_text(shape: ModelSize) -> str:
    """A shape as the size of a run; equal shapes have equal texts."""
    parts = [f"w{shape.width}", f"l{shape.layers}", f"h{shape.heads}"]
    parts += [f"kv{shape.kv_heads}"] if shape.kv_heads != shape.heads else []
    parts += [f"c{shape.context}"]
    parts += [f"mlp{shape.mlp}"] if shape.mlp != shape._usual_mlp else []
    parts += [f"rope{_number(shape.rope)}"] if shape.rope != ROPE else []
    parts += [f"eps{_number(shape.epsilon)}"] if shape.epsilon != EPSILON else []
    return "_".join([*parts, *(["tied"] if shape.tied else [])])


def _number(value: float) -> str:
    return str(int(value)) if value.is_integer() else repr(value)


def named_shape(text: str) -> ModelSize | None:
    """The shape that a size of a run spells out; None where it is no shape.

    Raises:
        RecipeError: no model has it.
    """
    found = re.fullmatch(SHAPE, text)
    if found is None:
        return None
    given = zip(PARTS.items(), found.groups(), strict=True)
    values: dict[str, Any] = {name: kind(part) for (name, kind), part in given if part is not None}
    return ModelSize("", **values)


def given_shape(given: Mapping[str, Any], path: Callable[[str], str]) -> ModelSize:
    """A shape from the fields that a person wrote, or those of a `config` with changes.

    Args:
        given: the fields of `ModelSize`, and `config`: the path of a config.json.
        path: where a path leads.

    Raises:
        UnknownName: a field that no shape has.
        RecipeError: no model has this shape, or the file is no config of a Llama.
    """
    for name in given:
        if name not in (*PARTS, "config"):
            raise UnknownName("field of a shape", str(name), (*PARTS, "config"))
    own = {name: value for name, value in given.items() if name != "config"}
    if "config" in given:
        own = read_config(Path(path(str(given["config"])))) | own
    missing = [name for name in REQUIRED if name not in own]
    if missing:
        raise RecipeError(f"a shape needs {', '.join(REQUIRED)}; {' and '.join(missing)} missing")
    return ModelSize("", **own)


def read_config(place: Path) -> dict[str, Any]:
    """The fields of a shape in a config.json of the Llama family, or in a folder that has one.

    Raises:
        RecipeError: it is not there, or of a model that the built-in trainer has not.
    """
    try:
        place = place / "config.json" if place.is_dir() else place
        config = json.loads(place.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        why = getattr(error, "strerror", None) or " ".join(str(error).split())[:200]
        raise RecipeError(f"the shape of {place} cannot be read: {why}") from None
    if not isinstance(config, dict):
        raise RecipeError(f"the shape of {place} cannot be read: it is no mapping")
    wrong = list(config_refusals(config))
    if wrong:
        raise RecipeError(
            f"the built-in trainer has no model as in {place}: {'; '.join(wrong)}. Train it with a "
            "program of yours (proxy.trainer), or give a shape of your own"
        )
    found = config_values(config)
    return {ours: found[theirs] for theirs, ours in CONFIG.items() if found.get(theirs) is not None}


def config_values(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a config.json of a Llama says, with what transformers takes where it says nothing."""
    inner = config.get("rope_parameters")  # where transformers 5 keeps the base of the positions
    deeper = inner.get("rope_theta") if isinstance(inner, Mapping) else None
    given = {name: value for name, value in config.items() if value is not None}
    heads = given.get("num_attention_heads")
    alike = {"num_key_value_heads": heads, "rope_theta": ROPE if deeper is None else deeper}
    return ABSENT | alike | given


def config_refusals(config: Mapping[str, Any]) -> Iterator[str]:
    """What a config.json asks for beyond shape, in words; nothing for a plain Llama."""
    for name, value in PLAIN.items():
        if config.get(name, value) != value or (name == "model_type" and name not in config):
            yield f"{name} is {reprlib.repr(config.get(name))}, wanted {value!r}"
    for name in ("intermediate_size", "num_key_value_heads"):
        if name in config and config[name] is not None and not config[name]:
            yield f"{name} is {config[name]!r}, wanted a whole number above 0"
    for name in ("rope_scaling", "rope_parameters"):
        kind = config.get(name) or "default"
        if isinstance(kind, dict):
            kind = kind.get("rope_type", kind.get("type", "default"))
        if kind != "default":
            yield f"{name} asks for positions of type {reprlib.repr(kind)}, not built here"
    width, heads, head = (
        config.get(name) for name in ("hidden_size", "num_attention_heads", "head_dim")
    )
    if head is not None and not (type(head) is type(heads) is int and head * heads == width):
        yield f"head_dim is {reprlib.repr(head)}, wanted hidden_size / num_attention_heads"
