"""The program that trains runs in the place of the built-in trainer: what it is, and may be.

A recipe alone runs nothing: whoever operates Cuvée names in the environment which programs may be
run, as for handoffs. What tells a trainer from another is part of the fingerprint of its runs: its
name, its version (or else what its files hold), its command without folders, and its settings.
"""

import hashlib
import math
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cuvee.mixtures.errors import RecipeError
from cuvee.mixtures.runs.run_spec import canonical_json

ALLOWED = "CUVEE_TRAINER_COMMANDS"
LARGEST = 1 << 24  # bytes of a file whose content tells its trainer from another
VARIABLE = re.compile(r"\$\{?([A-Za-z_][A-Za-z0-9_]*)\}?")
SECRET = re.compile(
    r"(^|_)(TOKEN|API_?KEY|KEYS?|SECRETS?|PASS|CREDENTIALS?|AUTH)(_|$)|PASSW", re.IGNORECASE
)
SHORT_VALUE = 8  # characters; a shorter value is hidden only where its name is a secret's
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
LOADS_CODE = re.compile(  # names of variables that decide which code a program loads
    r"PATH|HOME|PYTHON(?!UNBUFFERED$|HASHSEED$).*|((LD|DYLD|GIT|CUVEE|LUA)_|RUBY|PERL5).*|PERLLIB"
    r"|GCONV_PATH|GLIBC_TUNABLES|BASH_ENV|BASH_FUNC.*|BASHOPTS|SHELLOPTS|ENV|PS4|IFS"
    r"|NODE_(OPTIONS|PATH)|CLASSPATH|(JAVA_TOOL|_JAVA|JDK_JAVA)_OPTIONS|CC|CXX|CUDACXX|CUDA_HOME"
    r"|TRITON_\w*PATH|CUDA_INJECTION\w*|OPENSSL_(CONF|ENGINES|MODULES)|\w+_(PLUGIN|TOOL_LIBRARIES)"
)
CONFIGS = (".json", ".yaml", ".yml", ".toml")
FILE = re.compile(r"\.(py|sh|json|ya?ml|toml)$")
PLACES = ("run", "folder", "cpus", "gpus", "nodes", "node_rank", "master_address", "master_port")


@dataclass(frozen=True)
class TrainerProgram:
    """A trainer, and what each of its runs is given.

    Attributes:
        command: the program by its full path, and its arguments.
        name: what people call it.
        identity: canonical JSON of what tells it from other trainers.
        version: as the recipe says it; empty where its files stand for one.
        settings: free values for it.
        metrics: by target, what its logs call it, where it is something else.
        cpus, gpus, memory: of each node: cores, devices (shares of one too), bytes.
        nodes: that train one run together.
        timeout: seconds that a run may take; infinite without a limit.
        retries: how often a run that failed is begun again.
        folder: of the run directories.
        environment: variables beside those of the machine.
        secrets: values among them that must stand in no file.
    """

    command: tuple[str, ...]
    name: str
    identity: str
    version: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, str] = field(default_factory=dict)
    cpus: float = 1.0
    gpus: float = 0.0
    memory: int = 0
    nodes: int = 1
    timeout: float = math.inf
    retries: int = 2
    folder: str = ""
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)

    def check_unchanged(self, identity: str) -> None:
        """See that the trainer's files are those that the fingerprint of a run stands for.

        Args:
            identity: of the trainer, in the spec of the run.

        Raises:
            RecipeError: they were edited since, or are others on this machine.
        """
        same = (self.command, self.name, self.version, self.settings, self.metrics)
        if trainer_identity(*same)[1] != identity:
            raise RecipeError(
                f"the files of the trainer {self.name} are not those that this study began with: "
                "they were edited since, or are others on this machine. Its runs would pass for "
                "those of the earlier trainer: bring the files back, or call `cuvee run` again, "
                "which takes the trainer as it is now for another one"
            )

    def words(self, run: Path, place: Mapping[str, object]) -> list[str]:
        """The command for a run.json; it is the last word where no other one names it.

        Args:
            run: path of run.json.
            place: what stands for the other `PLACES` in braces.
        """
        known = {"run": run, "folder": run.parent, "cpus": max(1, math.floor(self.cpus))}
        known |= {"gpus": math.ceil(self.gpus), "nodes": self.nodes, **place}
        named = any("{run}" in word or "{folder}" in word for word in self.command)
        words = [_filled(word, known) for word in self.command]
        return words if named else [*words, str(run)]


def _filled(word: str, known: Mapping[str, object]) -> str:
    for name in PLACES:
        word = word.replace(f"{{{name}}}", str(known.get(name, "")))
    return word


def check_command(command: Sequence[str]) -> None:
    """Refuse a command that no operator could allow, or that would not find its files.

    Raises:
        RecipeError: says what is wrong.
    """
    if any("\0" in word for word in command):
        raise RecipeError("proxy.trainer.command has a zero byte, which no program can be given")
    if not os.path.isabs(command[0]):
        raise RecipeError(
            f"proxy.trainer.command begins with {command[0]!r}: name the program by its full path, "
            "such as /usr/bin/python3; no shell is used"
        )
    for word in command[1:]:
        elsewhere = os.path.isabs(word) or "://" in word or word.startswith(("-", "{"))
        if FILE.search(word) and not elsewhere:
            raise RecipeError(
                f"proxy.trainer.command names {word!r}, which no trainer would find: each runs in "
                f"the directory of its run. Give the full path, perhaps {os.path.abspath(word)}"
            )


def check_settings(settings: Mapping[str, Any]) -> None:
    """Refuse settings that no JSON holds.

    Raises:
        RecipeError: says why.
    """
    for name, value in settings.items():
        try:
            canonical_json({name: value})
        except (TypeError, ValueError) as error:
            raise RecipeError(
                f"proxy.trainer.settings.{name} cannot stand in run.json ({error}): take finite "
                "numbers, text, true or false, null, and lists and mappings of them"
            ) from None


def check_environment(given: Mapping[str, str]) -> None:
    """Refuse variables that would load other code than was allowed, and secrets in a recipe.

    Raises:
        RecipeError: names the variable, and never its value.
    """
    for name, value in given.items():
        if not NAME.fullmatch(name) or "\0" in value:
            raise RecipeError(
                f"proxy.trainer.environment has {name!r}, which is no variable: names have letters,"
                " digits and underscores alone, and values no zero byte"
            )
        if LOADS_CODE.fullmatch(name):
            raise RecipeError(
                f"proxy.trainer.environment.{name} decides which code is loaded, and a recipe alone"
                " runs nothing: take it out. Whoever operates this sets it where `cuvee` is called,"
                " or in a script that is allowed as the trainer"
            )
        if SECRET.search(name) and value and not VARIABLE.fullmatch(value):
            raise RecipeError(
                f"proxy.trainer.environment.{name} looks like a secret, and recipes are copied "
                f"into reports and records: set it in your own environment, and write `{name}: "
                f"${name}` here"
            )


def environment_of(given: Mapping[str, str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """The variables of a recipe with their values, and which of the values are secrets.

    Raises:
        RecipeError: the environment of this process lacks one.
    """
    values, secrets = {}, []
    for name, value in given.items():
        known = VARIABLE.fullmatch(value)
        if known and known[1] not in os.environ:
            raise RecipeError(
                f"proxy.trainer.environment.{name} takes the value of {known[1]}, which is not set "
                "in the environment of this command: set it, or take the line out"
            )
        values[name] = os.environ[known[1]] if known else value
        named = known and (SECRET.search(name) or SECRET.search(known[1]))
        if known and values[name] and (named or len(values[name]) >= SHORT_VALUE):
            secrets.append(values[name])
    return values, tuple(secrets)


def check_allowed(command: Sequence[str]) -> None:
    """See that whoever operates this lets a command be run.

    An entry of the list is a program by its full path, or one with its first arguments, which then
    are the only ones that it may begin with.

    Raises:
        RecipeError: it may not; says how it is allowed.
    """
    for entry in filter(None, os.environ.get(ALLOWED, "").split(os.pathsep)):
        try:
            words = shlex.split(entry)
        except ValueError as error:
            raise RecipeError(
                f"{ALLOWED} cannot be read: {entry!r} is no command ({error}); a quotation mark "
                "that belongs to a path stands in quotation marks itself"
            ) from None
        if words and list(command[: len(words)]) == words:
            return
    files = [word for word in command[1:2] if os.path.isabs(word)]
    raise RecipeError(
        f"{command[0]} may not be run: a recipe alone runs nothing. Whoever operates this sets "
        f"{ALLOWED} in the environment to the programs that may train, by full path and divided by "
        f"{os.pathsep!r}; with arguments behind it, a program may be run with these alone: "
        f"{ALLOWED}={shlex.quote(shlex.join([command[0], *files]))}"
    )


def trainer_identity(
    command: Sequence[str],
    name: str,
    version: str,
    settings: Mapping[str, Any],
    metrics: Mapping[str, str],
) -> tuple[str, str]:
    """What people call a trainer, and the canonical JSON of what tells it from others.

    Without a version, what the files that the command names hold stands for one; folders are no
    part of it, so that a trainer may be moved.

    Raises:
        RecipeError: there is neither a version nor a file that could stand for one.
    """
    called = name or _program_file(command, versioned=bool(version)).stem
    shown = [_without_folder(word) for word in command]
    if not version:
        digests = [bytes.fromhex(digest) for *_, digest in identity_files(command)]
        if not digests:
            raise RecipeError(
                f"nothing tells one version of the trainer {called!r} from another: its command "
                "names no file of this machine. Say it in proxy.trainer.version: a version, a "
                "commit, or the digest of its container"
            )
        version = hashlib.sha256(b"\n".join(digests)).hexdigest()
    parts = {"command": shown, "name": called, "settings": settings, "version": version}
    if metrics:
        parts["metrics"] = metrics
    return called, canonical_json(parts)


def _program_file(command: Sequence[str], *, versioned: bool) -> Path:
    """The file that a trainer is called by: the first of its arguments that is a program's.

    With a version that is the first with a suffix, since the name is part of what tells the trainer
    from others and must not follow from what lies on this machine.
    """
    for path in map(Path, filter(os.path.isabs, command[1:])):
        if path.suffix not in CONFIGS and (path.suffix if versioned else path.is_file()):
            return path
    return Path(command[0])


def identity_files(command: Sequence[str]) -> list[tuple[Path, int, str]]:
    """The files that tell a trainer without a version from others: each with the line from which
    its content counts, and the SHA-256 of that content.

    Raises:
        RecipeError: one cannot be read.
    """
    own = [path for path in map(_path, command[1:]) if path and path.is_file()]
    first = Path(command[0])
    try:
        found = [(path, 1, path.read_bytes()) for path in own if path.stat().st_size <= LARGEST]
        if first.is_file() and first.stat().st_size <= LARGEST and _script(first):
            content = first.read_bytes().partition(b"\n")[2]  # without its interpreter
            found.append((first, 2, content))
    except OSError as error:
        which = error.filename or " or ".join(map(str, own or [first]))
        raise RecipeError(
            f"{which}, which proxy.trainer.command names, cannot be read "
            f"({error.strerror}): make it readable, or say in proxy.trainer.version what tells "
            "this trainer from an earlier one"
        ) from None
    return [(path, line, hashlib.sha256(content).hexdigest()) for path, line, content in found]


def _path(word: str) -> Path | None:
    """The full path that a word of a command is, or that follows its `=`."""
    value = word if os.path.isabs(word) else word.partition("=")[2]
    return Path(value) if os.path.isabs(value) else None


def _without_folder(word: str) -> str:
    path = _path(word)
    if path is None:
        return word
    return path.name if os.path.isabs(word) else f"{word.partition('=')[0]}={path.name}"


def _script(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"#!"
