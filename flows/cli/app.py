"""The program `cuvee` without its commands: options that all of them have, and what a person meets.

Exit codes: 0 done; 1 looked and found something to mend, or a fault of Cuvee's own; 2 a mistake in
what was typed or given, or a step that failed, in one sentence; 130 stopped.
"""

import contextlib
import functools
import inspect
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from cuvee.flows.cli.options import SET, SHARED
from cuvee.tasks.escape import printable, without_secrets

if TYPE_CHECKING:  # what takes time to import is imported by the command that uses it
    from cuvee.flows.console import Display
    from cuvee.flows.recipe.schema import Recipe
    from cuvee.flows.workspace import Workspace

LONGEST = 10_000  # characters of an error
FOUND, MISTAKE, INTERRUPTED = 1, 2, 130  # exit codes; the last is 128 + SIGINT, as shells have it
EXITS = {
    0: "done",
    FOUND: "looked and found something to mend, or a fault of Cuvee's own",
    MISTAKE: "a mistake in what was typed or given, or a step that failed, in one sentence",
    INTERRUPTED: "stopped by Ctrl-C or SIGTERM: finished proxies are kept",
}
JSON_KEYS = (
    "With --json every object has `command` (`cuvee` where none was typed) and `exit`, and after a "
    "failure `error`, `kind` and, where it says more, `log`. No password or key stands in it."
)
PUZZLING = ("TrainingError", "ServiceError", "StorageError", "HandoffError")  # the log says more

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    epilog="Exit codes: "
    + " ".join(f"{code} {meaning}." for code, meaning in EXITS.items())
    + f"\n\n{JSON_KEYS}",
    help="Finds the data mixture for language-model training, and says how sure it is.",
)


@dataclass
class Session:
    """One call of a command: how it speaks, and where it works.

    Attributes:
        command: its name.
        display: what a person sees.
        root: of the home.
        changes: of the recipe, as `--set` gives them.
        exit: the code that the command ends with.
        log: file of the home's log, once it is open.
    """

    command: str
    display: "Display"
    root: Path
    changes: Sequence[str] = ()
    exit: int = 0
    log: Path | None = None

    def say(self, text: str) -> None:
        """A line for the person, without passwords."""
        self.display.say(without_secrets(text))

    def load(self, path: Path) -> "tuple[Recipe, str]":
        """A recipe with its changes, and its text; errors as `load_recipe`."""
        from cuvee.flows.recipe import load

        given, text = load.load_recipe(path)
        if self.changes:
            changed, text = load.apply_changes(text, load.recipe_changes(self.changes), path.parent)
            given = changed.located(path.parent)
        load.say_doubled_paths(given, self.say)
        return given, text

    def load_or_translate(self, path: Path) -> "tuple[Recipe, str]":
        """A recipe, or one made of a fit file of Olmix, and its text."""
        from cuvee.flows.recipe import olmix
        from cuvee.mixtures.errors import RecipeError

        if not olmix.detect(path):
            return self.load(path)
        if self.changes:
            raise RecipeError(f"--set changes recipes; {path} is a fit file of Olmix: edit it")
        given, text, notes = olmix.load_olmix(path)
        for note in notes:
            self.say(note)
        return given, text

    def open_home(self, *, hub: bool = False) -> "Workspace":
        """The home, made where it is not there yet; from here on the log is written."""
        from cuvee.flows.cli import log_file
        from cuvee.flows.workspace import open_workspace

        place = open_workspace(self.root, self.display, hub=hub)
        self.log = self.log or log_file.write_log(place.root)
        log_file.LOG.info("cuvee %s, in %s", " ".join(sys.argv[1:]), os.getcwd())
        return place

    def find_home(self) -> "Workspace":
        """The home as it is, of which nothing is made or changed."""
        from cuvee.flows.workspace import find_workspace

        return find_workspace(self.root, self.display)

    def open_training(self, path: Path, cores: int | None) -> "tuple[Recipe, str, Workspace]":
        """How a command that trains begins: the recipe, its text and the home; cores are bound."""
        given, text = self.load(path)
        limit_cores(cores)
        return given, text, self.open_home(hub=given.hub)

    def open_finished(self, path: Path) -> "tuple[Recipe, str, Workspace]":
        """How a command on a finished study begins; the recipe may be a fit file of Olmix."""
        given, text = self.load_or_translate(path)
        return given, text, self.open_home(hub=given.hub)


Work = Callable[..., "Mapping[str, Any] | None"]


def command(example: str, *, panel: str, name: str | None = None) -> Callable[[Work], Work]:
    """Decorator: makes a function a command, with the options that every command has.

    The function takes a `Session` first and then its own arguments; with one that is called
    `recipe` it gets `--set` too. What it returns is what `--json` prints, beside the keys `command`
    and `exit`.

    Args:
        example: one line that can be copied.
        panel: of `cuvee --help` under which it stands.
        name: by default the function's.
    """

    def enter(work: Work) -> Work:
        signature = inspect.signature(work, eval_str=True)
        own = list(signature.parameters.values())[1:]
        more = dict(SHARED) if "recipe" not in signature.parameters else {"changes": SET, **SHARED}
        added = [
            inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=value, annotation=kind)
            for key, (kind, value) in more.items()
        ]
        called = name or work.__name__.replace("_", "-")

        @functools.wraps(work)
        def call(**given: Any) -> None:
            shared = {key: given.pop(key) for key in more}
            _perform(work, called, given, **shared)

        asked = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in own]
        call.__signature__ = inspect.Signature([*asked, *added])  # type: ignore[attr-defined]
        call.__annotations__ = {one.name: one.annotation for one in (*asked, *added)}
        told = inspect.cleandoc(work.__doc__ or "").split(
            "\n\n"
        )  # of which typer keeps the line ends
        about = "\n\n".join(" ".join(part.split()) for part in told)
        entered = app.command(
            called, help=about, epilog=f"Example: {example}", rich_help_panel=panel
        )
        entered(call)
        return work

    return enter


def _perform(
    work: Work,
    name: str,
    given: Mapping[str, Any],
    *,
    home: Path,
    as_json: bool,
    quiet: bool,
    verbose: bool,
    changes: Sequence[str] | None = None,
) -> None:
    """Run a command: progress, errors in a sentence, a way on after Ctrl-C, and its result."""
    from rich.console import Console

    from cuvee.flows.cli import log_file
    from cuvee.flows.console import Display

    console = Console(stderr=as_json, quiet=quiet, highlight=False, soft_wrap=True)
    display = Display(console, quiet=quiet, lines=verbose)
    session = Session(name, display, home, changes or ())
    begin, answer = time.monotonic(), dict[str, Any]()
    with log_file.own_log(shown=verbose):
        try:
            aside = contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext()
            with _told(session, answer), aside:  # whoever prints: the object stands alone
                signal.signal(signal.SIGTERM, _terminate)  # until here `stop_early` answers
                signal.signal(signal.SIGINT, _terminate)  # which shells ignore in background jobs
                answer.update(work(session, **given) or {})
        finally:
            display.close()
            answer = {"command": name, "exit": session.exit} | answer
            log_file.LOG.info("end with %d after %.1f s", session.exit, time.monotonic() - begin)
            if as_json:
                print_answer(answer)
    if session.exit:
        raise typer.Exit(session.exit)


def print_answer(answer: Mapping[str, Any]) -> None:
    """Print what `--json` answers, in which no text holds a secret."""
    plain = json.loads(json.dumps(answer, default=str))
    print(json.dumps(_without_secrets(plain), indent=1))


def _without_secrets(value: Any) -> Any:
    """A value of JSON whose texts, but for the keys, went through `without_secrets`."""
    if isinstance(value, dict):
        return {key: _without_secrets(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_secrets(inner) for inner in value]
    return without_secrets(value) if isinstance(value, str) else value


@contextlib.contextmanager
def _told(session: Session, answer: dict[str, Any]) -> Iterator[None]:
    """Says what went wrong in a sentence, and puts it into the answer."""
    from cuvee.flows.cli.log_file import LOG, SAID
    from cuvee.mixtures.errors import CuveeError

    try:
        yield
    except typer.Exit as ended:
        session.exit = ended.exit_code
    except CuveeError as error:
        kind, text = type(error).__name__, without_secrets(printable(str(error)))[:LONGEST]
        SAID.error("%s", text)
        if kind in PUZZLING:
            LOG.error("where this %s arose", kind, exc_info=True)
        session.exit = MISTAKE
        answer |= {"error": text, "kind": kind, "exit": MISTAKE}
        more = ""
        if session.log and kind in PUZZLING:
            answer["log"] = str(session.log)
            more = f" (log: {session.log})"
        session.display.close()
        print(f"cuvee: error: {text}{more}", file=sys.stderr)
    except KeyboardInterrupt:
        text = "stopped. Finished proxies are kept; run the same command to go on."
        session.exit = INTERRUPTED
        answer |= {"error": text, "kind": "Interrupted", "exit": INTERRUPTED}
        session.display.close()
        print(f"\ncuvee: {text}", file=sys.stderr)
    except Exception as error:
        LOG.exception("a fault of Cuvee's own")
        session.exit = FOUND
        answer |= {"error": repr(error), "kind": type(error).__name__, "exit": FOUND}
        if session.log:
            answer["log"] = str(session.log)
            print(f"cuvee: a fault of Cuvee's own; log: {session.log}", file=sys.stderr)
        raise


def _terminate(_number: int, _frame: Any) -> None:
    with contextlib.suppress(OSError):  # nobody may read it any more
        os.write(2, b"\ncuvee: stopping ...\n")  # at once: to end workers takes seconds
    raise KeyboardInterrupt


def limit_cores(cores: int | None) -> None:
    """Keep this process, and all that it starts, to some of the cores that it may use."""
    from cuvee.mixtures.errors import RecipeError

    if cores is None:
        return
    if os.environ.get("RAY_ADDRESS"):
        raise RecipeError(
            "--cores limits the cores of this machine, and RAY_ADDRESS names a cluster with cores "
            "of its own: unset one of the two"
        )
    if not hasattr(os, "sched_setaffinity"):
        raise RecipeError(
            "--cores binds processes to cores, which this system does not do: leave it out"
        )
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
