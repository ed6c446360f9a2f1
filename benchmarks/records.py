"""What 10,000 recorded proxies cost: to open a study, to refit it and to plan it.

One store and one MLflow server (a process of its own on 127.0.0.1, on PostgreSQL) hold studies of
100, 1,000 and 10,000 proxies. Results are synthetic scores of the real specs. The first hundred
proxies of each study are recorded through the product; the others are copies of their rows under
fingerprints of their own, made in the database. Then each command runs as a person calls it, a
process of its own, imports included:

* `cuvee plan`: the design, and what the store holds of it;
* `cuvee fit`: every result read, the law fitted, the report written;
* `cuvee run` of the concluded study, twice: the second is what opening it costs, when the fits are
  remembered and nothing is trained.

Usage: python benchmarks/records.py [--sizes 100 1000 10000]. The last line is JSON: seconds by
size, `open_10000_seconds`, and `growth`, by how much each grows from the smallest to the largest.
Needs PostgreSQL's programs and psycopg2.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fault_servers import local
from sweep import synthetic, write_corpus

from cuvee.flows.recipe import load
from cuvee.flows.study import prepare as preparing
from cuvee.flows.workspace import Workspace
from cuvee.mixtures import loop
from cuvee.mixtures.problem import Problem
from cuvee.mixtures.runs.run_results import RunResult
from cuvee.tasks.store.results import Store
from cuvee.tasks.tracking.fields import study_params
from cuvee.tasks.tracking.mlflow import open_backend
from cuvee.tasks.tracking.study_tracker import StudyTracker

SIZES = (100, 1_000, 10_000)
RECORDED = 100  # proxies of a study that are recorded by the product itself
ROOT = Path(__file__).resolve().parent.parent
RECIPE = """\
name: records-{count}
seed: {count}
corpus:
  vocabulary: 512
  heldout_bytes: 20000
  domains:
    code: {{path: {folder}/code.jsonl}}
    tests: {{path: {folder}/tests.jsonl}}
    manual: {{path: {folder}/manual.jsonl}}
    figures: {{path: {folder}/figures.jsonl}}
proxy: {{size: 0.3M, tokens: 300000, precision: float32}}
evaluation: {{suite: null}}
objective: {{name: mean, weights: {{domain/manual: 2, domain/code: 1}}}}
full_scale: {{tokens: 10M}}
method: {{name: mixing_laws, runs: {runs}, seeds: 3, folds: 2, refits: 10}}
"""
ANCHORED = 6  # runs of the two anchors, three seeds each
COPY = "create temporary table copies (source varchar(32), made varchar(32), print varchar(64))"


def command(word: str, recipe: Path, home: Workspace) -> float:
    """Wall seconds of a command of the product, a process of its own."""
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "cuvee.flows", word, str(recipe), "--home", str(home.root)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    seconds = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(f"cuvee {word} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    steps = [line for line in done.stdout.splitlines() if "100% in" in line]
    print(f"  cuvee {word}: {seconds:.1f} s ({'; '.join(steps)})", flush=True)
    return seconds


def record(problem: Problem, recipe: Path, runs: Sequence[RunResult], home: Workspace) -> str:
    """Begin the record of a study and record some of its proxies; returns the record's id."""
    given, text = load.load_recipe(recipe)
    recorder = StudyTracker(open_backend(home.record))
    parent = recorder.start_study(given.name, study_params(text, problem, given.seed), {})
    for run in runs:
        recorder.start_run(run.spec, {"role": "design"})
        recorder.finish_run(run, 2.0)
    return parent


def copy(database: str, parent: str, runs: Sequence[RunResult]) -> None:
    """Make records of more proxies from those that a study has, by copying their rows."""
    import psycopg2
    from psycopg2.extras import execute_values

    with psycopg2.connect(database) as connection, connection.cursor() as cursor:
        cursor.execute(COPY)
        cursor.execute(
            "select run_uuid from tags where key = 'mlflow.parentRunId' and value = %s", (parent,)
        )
        sources = [row[0] for row in cursor.fetchall()]
        rows = [
            (sources[i % len(sources)], uuid.uuid4().hex, run.spec.fingerprint)
            for i, run in enumerate(runs)
        ]
        execute_values(cursor, "insert into copies values %s", rows)
        for table in ("runs", "params", "tags", "metrics", "latest_metrics"):
            cursor.execute(
                "select column_name from information_schema.columns where table_name = %s", (table,)
            )
            names = [row[0] for row in cursor.fetchall()]
            taken = [_expression(table, name) for name in names]
            cursor.execute(
                f"insert into {table} ({', '.join(names)}) select {', '.join(taken)} "
                "from copies join " + table + " t on t.run_uuid = copies.source"
            )
        cursor.execute("drop table copies; analyze")


def _expression(table: str, column: str) -> str:
    if column == "run_uuid":
        return "copies.made"
    if table == "tags" and column == "value":
        return "case when t.key = 'cuvee.fingerprint' then copies.print else t.value end"
    return f"t.{column}"


def measure(count: int, folder: Path, home: Workspace, database: str) -> dict[str, float]:
    """The seconds of each command on a study of so many proxies."""
    recipe = folder / f"records-{count}.yaml"
    recipe.write_text(RECIPE.format(count=count, folder=folder, runs=count - ANCHORED))
    given, _ = load.load_recipe(recipe)
    problem = preparing.pose_problem(given, preparing.prepare(given, home))
    began = time.perf_counter()
    specs = given.build_method().ask(problem, (), loop.generator(given.seed, 0))
    drawn = time.perf_counter() - began
    results, store = synthetic(problem, specs), Store(home.store)
    if len(results) != count:
        raise SystemExit(f"the design has {len(results)} proxies, not {count}")
    for result in results:
        store.put(result)
    began = time.perf_counter()
    parent = record(problem, recipe, results[:RECORDED], home)
    each = (time.perf_counter() - began) / RECORDED
    if count > RECORDED:
        copy(database, parent, results[RECORDED:])
    print(f"{count:,} proxies (design drawn in {drawn:.1f} s; {1000 * each:.0f} ms to record one)")
    plan, fit = command("plan", recipe, home), command("fit", recipe, home)
    first, opened = command("run", recipe, home), command("run", recipe, home)
    summary = json.loads((home.study(given.name) / "summary.json").read_text())
    if (summary["proxies"], summary["trained_now"]) != (count, 0):
        raise SystemExit(f"of {count} proxies the study saw {summary['proxies']}")
    return {"plan": plan, "refit": fit, "first_run": first, "open": opened, "record_one": each}


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """An MLflow server on PostgreSQL that this process's commands use; yields the database."""
    with local().Topology(folder, servers=("postgres", "mlflow")) as team:
        wanted = ("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
        os.environ.update({name: team.environment[name] for name in wanted})
        yield team.database("mlflow", "psycopg2").replace("+psycopg2", "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    given = parser.parse_args()
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores")
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="cuvee-records-") as name:
        folder = Path(name)
        folder.chmod(0o711)  # PostgreSQL's user passes to its data, where this is run by root
        write_corpus(folder)
        home = Workspace(folder / "home")
        home.root.mkdir()
        with served(folder / "servers") as database:
            for count in given.sizes:
                times = measure(count, folder, home, database)
                found[str(count)] = {name: round(value, 3) for name, value in times.items()}
    smallest, largest = found[str(given.sizes[0])], found[str(given.sizes[-1])]
    growth = {name: round(largest[name] / value, 2) for name, value in smallest.items()}
    result: dict[str, Any] = {f"open_{count}_seconds": t["open"] for count, t in found.items()}
    print(json.dumps({**result, "seconds": found, "growth": growth}))


if __name__ == "__main__":
    main()
