"""A finished study, read back: its recommendation, and whether its evidence still stands."""

import contextlib
import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cuvee.flows.progress_bars import current
from cuvee.flows.recipe.schema import FREE, ConfirmPart, Recipe, parse
from cuvee.flows.workspace import Workspace
from cuvee.mixtures import recommendation
from cuvee.mixtures.errors import CuveeError, EvidenceError, RecipeError, StorageError
from cuvee.mixtures.loop import Strategy
from cuvee.mixtures.problem import Problem
from cuvee.mixtures.recommendation import Recommendation
from cuvee.mixtures.runs import History, RunResult, RunSpec
from cuvee.tasks.store.results import Store
from cuvee.tasks.study.finished import FILE
from cuvee.tasks.study.study import recommendation_fingerprint

SHOWN = 3  # of what differs
EARLIER = "earlier"  # folder of a study's: what other recipes of its name left
SHARED = ("fit", "exports", "looks.jsonl")  # what each looks after itself


@dataclass(frozen=True)
class Finished:
    """What `cuvee run` left of a study.

    Attributes:
        recipe_text: the YAML that was run.
        answer: its recommendation.
        digest: its `summary.json`.
    """

    recipe_text: str
    answer: Recommendation
    digest: Mapping[str, Any]


@dataclass(frozen=True)
class Settled:
    """A method whose recommendation is known: it asks as it did, and fits nothing."""

    method: Strategy
    answer: Recommendation

    def ask(
        self, problem: Problem, history: History, rng: np.random.Generator
    ) -> tuple[RunSpec, ...]:
        """What the method asked for."""
        return self.method.ask(problem, history, rng)

    def recommend(
        self, problem: Problem, history: History, rng: np.random.Generator
    ) -> Recommendation:
        """The recommendation that was made."""
        return self.answer


def sizes(recipe: Recipe) -> ConfirmPart:
    """The part of a recipe that says at which sizes a claim is tested.

    Raises:
        RecipeError: it names none.
    """
    if recipe.confirm is None or not recipe.confirm.sizes:
        raise RecipeError(
            "the recipe names no sizes to confirm at; give larger ones than its own "
            f"({recipe.proxy.size}, {recipe.proxy.tokens:,} tokens), such as "
            "`confirm: {seeds: 3, sizes: [{size: 1M, tokens: 2M}]}`"
        )
    return recipe.confirm


def read(recipe: Recipe, home: Workspace) -> Finished:
    """The finished study of a recipe.

    Raises:
        EvidenceError: there is none, it was changed by hand, or the recipe is no longer its own.
    """
    folder = home.study(recipe.name)
    try:
        texts = {
            name: (folder / name).read_text(encoding="utf-8")
            for name in ("recommendation.json", "summary.json", "recipe.yaml")
        }
    except OSError as error:
        raise EvidenceError(
            f"there is no finished study {recipe.name!r} in {folder.parent} "
            f"({Path(str(error.filename)).name} is missing): `cuvee run` makes the recommendation "
            "that `cuvee confirm` tests"
        ) from error
    _unchanged(recipe, texts["recipe.yaml"])
    try:
        values, digest = json.loads(texts["recommendation.json"]), json.loads(texts["summary.json"])
        answer, mark = recommendation.from_json(values), str(digest["recommendation"])
    except (ValueError, KeyError, TypeError, EvidenceError) as error:
        raise EvidenceError(
            f"the files in {folder} are not those of a finished study ({error!r}); `cuvee run` "
            "writes them anew from the store"
        ) from error
    if recommendation_fingerprint(answer) != mark:
        raise EvidenceError(
            f"recommendation.json in {folder} is not the one that summary.json names "
            f"({recommendation_fingerprint(answer)[:12]} against {mark[:12]}): it was changed "
            "after it was made; `cuvee run` writes it anew from the store"
        )
    return Finished(texts["recipe.yaml"], answer, digest)


def set_aside(folder: Path, digest: str) -> None:
    """Keep what another recipe of the same name left in a study's folder, in a folder of its own.

    Args:
        folder: that a study is about to write to.
        digest: of its recipe.

    Raises:
        StorageError: it cannot be moved.
    """
    before = _digest(folder)
    if before in ("", digest):
        return
    place = folder / EARLIER / before[:12]
    try:
        if place.exists():
            shutil.rmtree(place)  # what the same recipe left there before
        place.mkdir(parents=True)
        for entry in sorted(folder.iterdir()):
            if entry.name not in (EARLIER, *SHARED):
                entry.rename(place / entry.name)
    except OSError as error:
        raise StorageError(
            f"cannot move the study of another recipe from {folder} to {place} ({error.strerror}): "
            "change the permissions, or give this recipe another name"
        ) from error
    current().say(f"{folder} held the study of another recipe of this name; it is now in {place}")


def _digest(folder: Path) -> str:
    """Digest of the recipe whose study lies in a folder; "" if none does."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return str(json.loads((folder / FILE).read_text(encoding="utf-8"))["recipe"])
    try:
        text = (folder / "recipe.yaml").read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""
    try:
        return parse(text).digest
    except CuveeError:
        return hashlib.sha256(text.encode()).hexdigest()


def _unchanged(recipe: Recipe, text: str) -> None:
    try:
        before = dict(_leaves(parse(text, "the recipe of the finished study").model_dump()))
    except CuveeError as error:
        raise EvidenceError(f"{error}; `cuvee run` makes the study anew") from error
    now = dict(_leaves(recipe.model_dump()))
    moved = [
        f"{name}: {before.get(name, 'absent')!r} before, {now.get(name, 'absent')!r} now"
        for name in sorted(before.keys() | now.keys())
        if before.get(name, "absent") != now.get(name, "absent")
        and not any(name == free or name.startswith(f"{free}.") for free in FREE)
    ]
    if moved:
        raise EvidenceError(
            "the recipe has changed since its recommendation was made, so that its evidence is "
            f"void ({'; '.join(moved[:SHOWN])}{' and others' if len(moved) > SHOWN else ''}): "
            "`cuvee run` makes a new one, or put back what was changed"
        )


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _leaves(inner, f"{name}.{key}" if name else str(key))
    else:
        yield name, value


def check_evidence(answer: Recommendation, problem: Problem, store: Store) -> None:
    """Hold the runs that a recommendation rests on against the data as they are now.

    Raises:
        EvidenceError: a domain's text, the tokenizer or the benchmarks have changed, or runs are no
            longer in the store.
    """
    runs = [store.get(name) for name in answer.evidence]
    gone = sum(not isinstance(run, RunResult) for run in runs)
    found = [run for run in runs if isinstance(run, RunResult)]
    again = "`cuvee run` trains what is missing and recommends anew"
    now = dict(zip(problem.domains.names, problem.domains.identities, strict=True))
    for run in found:
        then = dict(zip(run.spec.domains, run.spec.identities, strict=True))
        changed = [name for name in {**then, **now} if then.get(name) != now.get(name)]
        if changed:
            raise EvidenceError(
                "the evidence is void, since the text has changed under it: "
                f"{', '.join(sorted(changed))} (or the tokenizer) is not what the proxies were "
                f"trained on; {again}"
            )
        if run.spec.scoring != problem.scoring:
            raise EvidenceError(
                "the evidence is void: proxies are now scored on other benchmarks or held-out text "
                f"than the runs of the recommendation were; {again}"
            )
    if gone or not runs:
        raise EvidenceError(
            f"{gone} of {len(runs)} runs that the recommendation rests on are not in the store "
            f"{store.url}; {again}"
        )
