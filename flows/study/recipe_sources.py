"""What a recipe says of text, as sources that are read: own files, token files, and samples."""

import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from cuvee.flows.console import Bar
from cuvee.flows.recipe.corpus_parts import CorpusPart, SourcePart
from cuvee.flows.recipe.schema import Recipe
from cuvee.flows.study import continual
from cuvee.flows.workspace import Workspace
from cuvee.mixtures.errors import DataError, RecipeError
from cuvee.mixtures.units import bytes_text, count_text
from cuvee.proxies.data.files import Digests, sampled_digest
from cuvee.proxies.data.objects import is_remote
from cuvee.proxies.data.sources.documents import COARSEST, Sample, SampledSource, TextSource
from cuvee.proxies.data.sources.source_files import file_origin, is_url
from cuvee.proxies.data.sources.text_files import Files

if TYPE_CHECKING:
    from cuvee.proxies.data.sources.token_files import TokenFiles
    from cuvee.proxies.data.tokenizer import TokenizerFile

SHOWN = 3  # places of one domain's files that are named
MOST_LISTED = 20  # domains whose text is told one by one
LISTED = 5000  # files of a domain from which their listing is shown


def recipe_files(
    recipe: Recipe, home: Workspace, digests: Digests, tokenizer: "TokenizerFile | None"
) -> "dict[str, Files | TokenFiles]":
    """A user's own files by domain; empty where a study uses the quickstart's text."""
    part, taken = recipe_corpus(recipe), wanted_samples(recipe)
    found: dict[str, Files | TokenFiles] = {}
    for name, given in part.domains.items():
        if given.token_format:
            found[name] = _token_files(recipe, home, name, tokenizer, digests)
            continue
        found[name] = dataclasses.replace(
            domain_files(recipe, given, _paths(recipe, given)),
            digest=partial(sampled_digest, digests) if name in taken else digests,
            part_bytes=taken[name].part_bytes if name in taken else COARSEST,
        )
    return found


def domain_files(recipe: Recipe, given: SourcePart, paths: tuple[str, ...]) -> Files:
    """A domain's own files, read as the recipe says, wherever they lie."""
    return Files(
        paths,
        given.field,
        separator=given.separator,
        skip=recipe_corpus(recipe).on_error == "skip",
        id=given.id or "",
        attributes=tuple(given.attributes),
        format="" if given.token_format else given.format or "",
        glob=tuple(given.glob),
        filter=given.filter or "",
    )


def _token_files(
    recipe: Recipe,
    home: Workspace,
    name: str,
    tokenizer: "TokenizerFile | None",
    digests: Digests,
) -> "TokenFiles":
    """The token files of a domain, and what made them.

    Raises:
        DataError: nobody says which tokenizer that was.
    """
    from cuvee.proxies.data.sources.token_files import TokenFiles  # the core has no tokenizers

    part = recipe_corpus(recipe)
    given, corpus_tokenizer = part.domains[name], tokenizer
    if given.tokens_of:
        tokenizer = _named_tokenizer(recipe, home, given.tokens_of)
    if tokenizer is None:
        raise DataError(
            f"domain {name!r} holds token files, and nobody says what their ids mean: name the "
            f"tokenizer that made them, `corpus: {{tokenizer: FOLDER}}` for all text, or "
            f"`tokens_of: FOLDER` in the domain for these files alone"
        )
    return TokenFiles(
        _paths(recipe, given),
        given.token_format,
        tokenizer,
        skip=part.on_error == "skip",
        digest=digests,
        part_bytes=given.take.sample.part_bytes if given.take else COARSEST,
        view=corpus_tokenizer is not None and corpus_tokenizer.content == tokenizer.content,
    )


def wanted_samples(recipe: Recipe) -> dict[str, Sample]:
    """What is wanted of the domains of which not all is read."""
    given = recipe_corpus(recipe).domains.items()
    return {name: one.take.sample for name, one in given if one.take}


def sampled_sources(
    sources: Mapping[str, TextSource], taken: Mapping[str, Sample]
) -> dict[str, TextSource]:
    """Sources, of which those that are large are read in part."""
    return {n: SampledSource(s, taken[n]) if n in taken else s for n, s in sources.items()}


def reading_sentence(
    sources: "Mapping[str, Files | TokenFiles]", taken: Mapping[str, Sample], store: str = ""
) -> str:
    """How many bytes will be read of each domain, and from where, before that is done.

    Args:
        sources: by domain.
        taken: samples that are wanted of them.
        store: where other nodes will find the corpus.
    """
    each: list[tuple[float, str]] = []
    for name, source in sources.items():
        files = source.files
        whole = sum(file.size for file in files)
        sample = taken.get(name)
        size = sample.stored_bytes(len(files), whole) if sample else whole
        places = sorted({file_origin(file.url) for file in files})
        told = f"{bytes_text(size)} of {', '.join(places[:SHOWN])}"
        if source.view:
            local = not all(is_url(file.url) for file in files)
            use = "copied into the store" if local and is_remote(store) else "used where they lie"
            told += f" (tokens, decoded once to be compared, and {use})"
        if sample:
            told = f"about {told}, for a sample of {count_text(sample.tokens)} tokens"
            told += f" by {sample.by} out of {bytes_text(whole)}"
        each.append((size, f"{name} {told}"))
    total, rest = sum(size for size, _ in each), len(each) - MOST_LISTED
    if rest > 0:
        each = sorted(each, key=lambda one: -one[0])[:MOST_LISTED]
    listed = [told for _, told in each] + ([f"{rest:,} smaller domains"] if rest > 0 else [])
    return f"Text to be read, unless it is prepared: {bytes_text(total)}; {'; '.join(listed)}"


def _paths(recipe: Recipe, given: SourcePart) -> tuple[str, ...]:
    """Where the files of a domain lie; of a data set, as its repository names them."""
    if given.dataset is None:
        return tuple(map(recipe.source_path, given.paths))
    from cuvee.proxies.data.sources.hub_datasets import dataset_files

    one = given.dataset
    return dataset_files(recipe.source_path(one.name), one.config, one.split, one.revision)


def look_at_sources(
    sources: "Mapping[str, Files | TokenFiles]", least: int, home: Workspace
) -> None:
    """See that every domain has files, and that they can hold enough, before anything is done.

    Raises:
        DataError: all that is missing or too small.
    """
    wrong = []
    for name, source in sources.items():
        try:
            with contextlib.ExitStack() as stack:
                source.list_files(_listing_progress(name, home, stack))
            most = source.most_tokens
        except DataError as error:
            wrong.append(f"domain {name!r}: {error}")
            continue
        if most < least:
            wrong.append(
                f"domain {name!r} has at most {most:,.0f} training tokens, and {least:,} are "
                "needed: add text, merge it with another domain, or lower corpus.min_tokens"
            )
    if wrong:
        raise DataError("; ".join(wrong))


def _listing_progress(
    name: str, home: Workspace, stack: contextlib.ExitStack
) -> Callable[[int], None]:
    """Shows how far a listing is, where it is so long that a person would wonder."""
    bars: list[Bar] = []

    def listed(count: int) -> None:
        if count >= LISTED and not bars:
            bars.append(stack.enter_context(home.display.step("Listing")))
        for bar in bars:
            bar.move(f"{name}: {count:,} files seen", 0.0)

    return listed


def recipe_corpus(recipe: Recipe) -> CorpusPart:
    """The part `corpus`.

    Raises:
        RecipeError: a recipe of tables, which has none.
    """
    if recipe.corpus is None:
        raise RecipeError("a recipe with `tables` has nothing to train on: use `cuvee fit`")
    return recipe.corpus


def recipe_tokenizer(recipe: Recipe, home: Workspace) -> "TokenizerFile | None":
    """The tokenizer of the checkpoint or of the recipe; None where one is trained on the text.

    Raises:
        DataError: there is none, or one that cannot be used; says why.
    """
    part = recipe_corpus(recipe)
    start = continual.start_folder(recipe)
    if start is None and part.tokenizer is None:
        return None
    return _named_tokenizer(recipe, home, str(start or part.tokenizer), part.end_of_text or "")


def _named_tokenizer(recipe: Recipe, home: Workspace, name: str, end: str = "") -> "TokenizerFile":
    from cuvee.tasks.corpus.given_tokenizer import find_tokenizer  # the core has no tokenizers

    cache = home.root / "tokenizers"
    return find_tokenizer(recipe.source_path(name), store=home.store, cache=cache, end=end)
