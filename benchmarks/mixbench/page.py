"""The page of results, written from the figures of one run."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from mixbench.contestants import HELD
from mixbench.searched import BEST_RUN
from mixbench.splits import SPLITS
from mixbench.truths import TRUTH

Row = Mapping[str, Any]
SMALL = 64  # rows of the first table
COMMAND = "make mixbench"
INTRO = """# MixBench: every law on tables of several sources

`make mixbench` runs every registered law, scaling law and search on RegMix's tables, four Pile
domains, AutoScale's runs, this project's own sweeps and worlds whose truth is known. Public tables
that nobody may redistribute are read from a folder beside the repository and are no part of it.

How rows are parted:

* **random**: rows drawn from a table's pool, judged on its tests; tables without tests are judged
  on five folds, drawn anew, so that every run is predicted once. All rows of RegMix are one fit,
  whose draws are random halves of the tests.
* **far**: of nine tenths of the pool the quarter of the mixtures farthest from the rest is never
  fitted; it is judged on them, or on the same quarter of the tests.

All laws see the same rows in the same draw. **Rank** is Spearman's correlation x 100, in the mean
over targets. **Close pairs**: of two mixtures 1 to 3 noise floors apart, how often the better is
predicted, in %. **Regret**: how much worse the predicted best of the tested mixtures is than their
best, in nats or bits; **missed**: the same as a share of what the best gains over the mean. Where
no mixture was run twice, the floor is the median residual of a process that is no contestant, and
holds what that cannot explain. Brackets hold 95 % intervals over draws.
"""
CHOSEN = """A law's shortfall in a cell is how far its rank is below the best law's there, counted
up to 5 points; a source's is the mean over its cells, random and far, of all numbers of rows. For
each source the law of the least shortfall on the other sources, which count alike, and what it
does there.
"""
BEYOND = """Fitted to the smaller sizes, judged at larger ones; on worlds at 2 and 4 times the
largest in parameters and tokens. Level is how far off the mean of a size is. `single_scale`
predicts the level of the size that it saw. Gains are of the mixture that a law would pick over each
other; what the figures are stands in `benchmarks/mixbench/scales.py`.
"""
SEARCHED = """Regret of what each search finds under one law of 64 runs, against the optimum.
"""
BY_ROWS = """What is fitted at 1M, judged at 1M and at 60M. More rows should never be worse.
"""
MATRICES = (  # title, split, metric, digits, whether of few rows
    ("Rank from 64 rows, or all where there are fewer; random", "random", "rank", 2, True),
    ("Rank from all rows; random", "random", "rank", 2, False),
    ("Rank from all rows; far mixtures", "far", "rank", 2, False),
    ("Close pairs, %; all rows, random", "random", "close", 1, False),
    ("Missed gain of the pick, %; all rows, random", "random", "missed", 1, False),
    ("Median error, %; all rows, random", "random", "error", 2, False),
    ("Mean error, %; all rows, far mixtures", "far", "error_mean", 2, False),
    ("Predictions more than one observed range outside, %; far", "far", "beyond", 2, False),
    ("Coverage of 90 % intervals, %; all rows, random", "random", "coverage", 1, False),
    ("Coverage of 90 % intervals, %; all rows, far", "far", "coverage", 1, False),
    ("Seconds of a fit to all rows", "random", "seconds", 2, False),
)


def written(whole: Row) -> str:
    """The page as Markdown."""
    rows = [row for row in whole["cells"] if "judged" in row]
    laws = [row for row in rows if row["kind"] == "law"]
    about = whole["conditions"]
    parts = [
        INTRO,
        f"> Measured: {about['date']}, in commit `{about['commit']}`.  \n"
        f"> Machine: {about['machine']}, beside other work.  \n"
        f"> Command: `{COMMAND}` (up to {about['draws']} draws a cell, none begun after "
        f"{about['limit']:g} s of it).\n",
        *_tables_used(whole["tables"]),
        *_chosen(whole["chosen_elsewhere"]),
        *_ranks(laws),
        *_by_rows(laws),
        *_against(laws, about["reference"]),
        *_scaling([row for row in rows if row["kind"] == "scaling"]),
        *_searches([row for row in rows if row["kind"] == "search"]),
        *_fewer(rows, about["draws"]),
        *_refused([row for row in whole["cells"] if "refused" in row]),
    ]
    return "\n".join(parts)


def grid(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table in Markdown."""
    names = list(header)
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"


def figure(found: Row | None, digits: int, *, interval: bool = False) -> str:
    """A mean, with its interval where that is asked for."""
    if not found:
        return ""
    mean = f"{found['mean']:.{digits}f}"
    if not interval or "low" not in found:
        return mean
    return f"{mean} ({found['low']:.{digits}f} to {found['high']:.{digits}f})"


def _tables_used(tables: Mapping[str, Row]) -> list[str]:
    rows = []
    for name, table in tables.items():
        tests = ", ".join(f"{n}{_at(key)}" for key, n in table["tests"].items()) or "held-out folds"
        sizes = (str(table[key]) for key in ("runs", "domains", "targets"))
        rows.append([name, *sizes, tests, table["floor"], table["note"]])
    header = ("table", "runs", "domains", "targets", "judged on", "noise floor", "note")
    return ["## Tables\n", grid(header, rows)]


def _at(test: str) -> str:
    return " others" if test == TRUTH else f" at {test}"


def _chosen(report: Mapping[str, Row]) -> list[str]:
    rows = []
    for source, row in report.items():
        both = [f"{row[key]:.2f}" for key in ("shortfall", "best_shortfall")]
        rows.append([source, f"`{row['chosen']}`", both[0], f"`{row['best']}`", both[1]])
    header = ("source", "chosen elsewhere", "its shortfall", "best there", "its shortfall")
    return ["## Leave one source out\n", CHOSEN, grid(header, rows)] if rows else []


def _places(laws: list[Row], split: str, small: bool) -> list[tuple[str, int]]:
    """Tables of a split, each with the number of rows that a matrix shows of it."""
    sizes: dict[str, set[int]] = {}
    for row in laws:
        if row["split"] == split:
            sizes.setdefault(row["table"], set()).add(row["rows"])
    pick: Callable[[set[int]], int] = max
    if small:
        pick = lambda found: min((n for n in found if n >= SMALL), default=max(found))  # noqa: E731
    return [(name, pick(found)) for name, found in sizes.items()]


def matrix(laws: list[Row], split: str, metric: str, digits: int, *, small: bool = False) -> str:
    """A metric of every law (rows) on what every table is judged on (columns)."""
    columns: dict[tuple[str, int, str], dict[str, Row]] = {}
    for place in _places(laws, split, small):
        for row in laws:
            if (row["table"], row["rows"], row["split"]) != (*place, split):
                continue
            for judged, found in row["judged"].items():
                if metric in found:
                    columns.setdefault((*place, judged), {})[row["law"]] = found[metric]
    order = sorted({row["law"] for row in laws}, key=lambda law: _standing(law, columns, metric))
    header = [f"{name}{_short(judged)}, {rows}" for name, rows, judged in columns]
    lines = [[f"`{law}`", *(figure(c.get(law), digits) for c in columns.values())] for law in order]
    return grid(("law", *header), lines)


def _short(judged: str) -> str:
    return "" if judged in (HELD, TRUTH) else f" {judged}"


def _standing(law: str, columns: Mapping[Any, Mapping[str, Row]], metric: str) -> float:
    """By which laws are sorted, best first."""
    sign = -1.0 if metric in ("rank", "close") else 1.0
    values = [sign * c[law]["mean"] if law in c else 1e3 for c in columns.values()]
    return sum(values) / max(len(values), 1)


def _ranks(laws: list[Row]) -> list[str]:
    parts = []
    for title, split, metric, digits, small in MATRICES:
        if any(row["split"] == split for row in laws):
            parts += [f"### {title}\n", matrix(laws, split, metric, digits, small=small)]
    return ["## Laws\n", *parts] if parts else []


def _by_rows(laws: list[Row]) -> list[str]:
    """The table with a main target, by the number of rows: the mean and the main loss."""
    chosen = [r for r in laws if r["split"] == "random" and _has_main(r)]
    if not chosen:
        return []
    lines = []
    for row in sorted(chosen, key=lambda r: (r["law"], r["rows"])):
        for judged, found in row["judged"].items():
            cells = [figure(found.get(m), 2, interval=True) for m in ("rank", "main.rank")]
            about = [f"`{row['law']}`", str(row["rows"]), judged, str(row["draws"])]
            lines.append([*about, *cells, figure(found.get("close"), 1)])
    header = ("law", "rows", "judged", "draws", "rank, mean of losses", "rank, Pile-CC")
    return ["## RegMix by rows\n", BY_ROWS, grid((*header, "close pairs, %"), lines)]


def _has_main(row: Row) -> bool:
    return any("main.rank" in found for found in row["judged"].values())


def _against(laws: list[Row], reference: str) -> list[str]:
    """The better laws against the reference, paired by draw, on all rows."""
    places = {(*place, split) for split in SPLITS for place in _places(laws, split, False)}
    lines = []
    for row in laws:
        if (row["table"], row["rows"], row["split"]) not in places:
            continue
        for judged, found in row.get("against_reference", {}).items():
            rank = found.get("rank")
            if rank and rank.get("high", rank["mean"]) > 0:
                where = f"{row['table']}{_short(judged)}"
                both = [figure(found.get(m), 2, interval=True) for m in ("rank", "close")]
                lines.append([where, row["split"], str(row["rows"]), f"`{row['law']}`", *both])
    text = (
        f"Laws whose rank is not below that of `{reference}` beyond the noise, from all rows: the "
        f"difference,\npaired by draw and positive where the law is better. Any other law is worse "
        f"than `{reference}`.\n"
    )
    header = ("table", "split", "rows", "law", "rank x 100", "close pairs, %")
    return [f"## Against `{reference}`\n", text, grid(header, lines)] if lines else []


def _scaling(rows: list[Row]) -> list[str]:
    lines = []
    for row in rows:
        for judged, found in row["judged"].items():
            about = [row["table"], judged, f"`{row['law']}`", str(row["draws"])]
            figures = [figure(found.get(m), 2) for m in ("rank", "level", "error")]
            for metric in ("coverage", "gains"):
                wide = "width" if metric == "coverage" else "gain_width"
                covered = figure(found.get(metric), 1, interval=True)
                figures += [covered, figure(found.get(wide), 2)]
            lines.append([*about, *figures, figure(found.get("score"), 1)])
    header = ("case", "judged", "law", "draws", "rank", "level, %", "error, %", "coverage, %",
              "half-width, %", "gains covered, %", "half-width, %", "interval score")  # fmt: skip
    return ["## Beyond the largest size\n", BEYOND, grid(header, lines)] if lines else []


def _searches(rows: list[Row]) -> list[str]:
    lines = []
    for row in rows:
        for judged, found in row["judged"].items():
            name = judged if judged == BEST_RUN else f"`{judged}`"
            figures = figure(found.get("regret"), 4, interval=True), figure(found.get("seconds"), 2)
            lines.append([row["table"], f"`{row['law']}`", name, *figures])
    header = ("world", "law", "search", "regret", "seconds")
    return ["## Searches\n", SEARCHED, grid(header, lines)] if lines else []


def _fewer(rows: list[Row], asked: int) -> list[str]:
    """Which cells have fewer draws, since they take long: their intervals say little."""
    found: dict[str, list[str]] = {}
    for row in rows:
        if row["draws"] < asked:
            place = f"{row['table']} ({row['split']}, {row['rows']}): {row['draws']}"
            found.setdefault(row["law"], []).append(place)
    lines = [[f"`{law}`", ", ".join(places)] for law, places in found.items()]
    title = f"## Fewer than {asked} draws\n"
    return [title, grid(("law", "where: draws"), lines)] if lines else []


def _refused(rows: list[Row]) -> list[str]:
    """Which laws could not be fitted where, and why, in short."""
    found: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        place = f"{row['table']} ({row['split']}, {row['rows']})"
        found.setdefault((row["law"], row["refused"].split(";")[0]), []).append(place)
    lines = [[f"`{law}`", reason, ", ".join(places)] for (law, reason), places in found.items()]
    return ["## Refused\n", grid(("law", "reason", "where"), lines)] if lines else []
