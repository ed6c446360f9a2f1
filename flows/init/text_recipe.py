"""A first recipe for a folder of text, which `cuvee plan` accepts as it stands."""

from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from cuvee.flows.init.draft import RecipeDraft, path_in_recipe, recipe_head, study_name
from cuvee.flows.init.recipe_text import commented_recipe
from cuvee.flows.init.study_size import ANCHORS, EPOCHS, SEEDS, first_study
from cuvee.flows.init.text_folder import TextDomain, TextFolder
from cuvee.flows.recipe.load import parse
from cuvee.mixtures.units import bytes_text, count_text, duration_text
from cuvee.proxies.data.sources.heads import TEXT
from cuvee.tasks.escape import printable

READING = 3.3e6  # bytes of text a second that a preparation reads and tokenizes, on one core
LONG = 3_600.0  # seconds of a preparation from which it is told


def recipe_for_text(found: TextFolder, to: Path) -> RecipeDraft:
    """A recipe for the domains of a folder; `to` is its path."""
    size = first_study(len(found.domains), found.text)
    damaged = [domain for domain in found.domains if domain.damaged]
    corpus: dict[str, Any] = {"domains": {d.name: _source(d, to) for d in found.domains}}
    if damaged:
        corpus["on_error"] = "skip"
    values: dict[str, Any] = {
        "name": study_name(found.path),
        "seed": 42,
        "corpus": corpus,
        "objective": {
            "name": "mean",
            "weights": {f"domain/{domain.name}": 1 for domain in found.domains},
        },
        "full_scale": {"tokens": count_text(size.full)},
        "constraints": {"epochs": EPOCHS},
        "proxy": {"size": size.proxy, "tokens": count_text(size.tokens)},
        "evaluation": {"suite": None},
        "method": {
            "name": "regmix", "runs": size.runs, "laws": ["kriging", "log_linear"],
            "search": "auto", "anchors": list(ANCHORS), "seeds": SEEDS,
        },
        "confirm": {"seeds": SEEDS},
    }  # fmt: skip
    text = commented_recipe(values, _notes_for_text(found), recipe_head(to, "plan"))
    parse(text, str(to))  # by the loader itself: what it refuses is a mistake of ours
    said = [*found.left_out]
    said += [f"{d.name}: {printable(d.damaged)[:300]}; such rows are skipped" for d in damaged]
    said.append(
        f"Study: {size.trained} proxies of {count_text(size.tokens)} tokens, about "
        f"{duration_text(size.seconds)} on {size.cores} cores at the pace of a machine without "
        "bfloat16; `cuvee plan` measures this one"
    )
    if found.text / READING > LONG:
        said.append(
            f"To read and tokenize {bytes_text(found.text)} takes about "
            f"{duration_text(found.text / READING)} first; put an even sample of every domain into "
            "another folder for a quicker first study"
        )
    return RecipeDraft(text, _text_table(found), tuple(said), "plan")


def _source(domain: TextDomain, to: Path) -> dict[str, Any]:
    paths = [path_in_recipe(path, to) for path in domain.paths]
    source: dict[str, Any] = {"path": paths if len(paths) > 1 else paths[0]}
    if domain.field not in ("", TEXT):
        source["field"] = domain.field
    if domain.separator:
        source["separator"] = domain.separator
    return source


def _notes_for_text(found: TextFolder) -> dict[str, str]:
    names = [domain.name for domain in found.domains]
    return {
        "objective": f"CHANGE THIS FIRST. Held-out text of all {len(names)} domains counts alike "
        "here, for which a mixture near uniform is often the answer already; name the few that "
        "matter, and weigh them. Benchmarks are named task/NAME, once `evaluation` measures them.",
        "full_scale": "CHANGE THIS TOO: the tokens of the run that the mixture is for. Here about "
        "as many as the text has.",
        "proxy": "Larger and longer proxies are nearer to the run that the mixture is for, and "
        "cost in proportion.",
        "evaluation": "Held-out text alone, which needs no download. `suite: quickstart` adds "
        "six benchmarks (20 MB are fetched once).",
        "method": "For a first study take regmix with kriging. Four mixtures per domain rank "
        "unseen ones well; what is weak is mended by more `runs`, or by longer proxies.",
        "constraints": "`bounds` holds shares of domains, as in"
        f" bounds: {{{names[0]}: [0.05, 0.5]}}.",
    }


def _text_table(found: TextFolder) -> Table:
    table = Table(title=f"Text in {printable(str(found.path))}")
    table.add_column("domain", overflow="fold")
    for heading in ("files", "text, about"):
        table.add_column(heading, justify="right", no_wrap=True)
    languages = any(domain.language for domain in found.domains)
    for heading in ("kind", "field", *(["language"] if languages else [])):
        table.add_column(heading, overflow="fold")
    for d in found.domains:
        row = [d.name, f"{d.files:,}", bytes_text(d.text), ", ".join(d.kinds), d.field or "-"]
        row += [d.language or "-"] if languages else []
        table.add_row(*(Text(printable(cell)) for cell in row))
    return table
