"""Mutants: how many small faults in the mathematics do the tests notice?

    python benchmarks/mutants.py [--files FILE ...] [--count 40] [--seed 0]

Each mutant is one file of `mixtures` with one fault: a comparison, sign, number, condition or
extreme that is another. The tests that concern the file run on it, in a copy of what git tracks,
until one fails. Survivors are printed with their lines: a fault that no test sees, or one that
changes nothing. Every mutant runs in a process that is forked before the package is imported, so
that it pays for its tests alone; one that takes more processor time than `MOST` counts as noticed.
"""

import argparse
import ast
import copy
import os
import random
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
MOST = 150  # seconds of processor time for the tests of one mutant
LAWS = "tests/mixtures/test_laws.py tests/mixtures/test_contracts_laws.py tests/test_versions.py"
TESTS = {  # the quickest first
    "mixtures/simplex.py": "tests/mixtures/test_simplex.py tests/mixtures/test_constraints.py",
    "mixtures/constraints/__init__.py": "tests/mixtures/test_constraints.py "
    "tests/mixtures/test_searches.py",
    "mixtures/inference/paired_trial.py": "tests/mixtures/test_trials.py "
    "tests/mixtures/test_moving_methods.py",
    "mixtures/inference/optimum.py": "tests/mixtures/test_optimum.py "
    "tests/mixtures/test_evidence.py",
    "mixtures/inference/evidence_grade.py": "tests/mixtures/test_evidence_grade.py "
    "tests/mixtures/test_evidence.py",
    "mixtures/laws/kriging.py": f"{LAWS} -k kriging",
}
SWAPS: dict[type, tuple[type, ...]] = {
    ast.Lt: (ast.LtE, ast.Gt), ast.LtE: (ast.Lt, ast.GtE), ast.Gt: (ast.GtE, ast.Lt),
    ast.GtE: (ast.Gt, ast.LtE), ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,), ast.In: (ast.NotIn,), ast.NotIn: (ast.In,), ast.Add: (ast.Sub,),
    ast.Sub: (ast.Add,), ast.Mult: (ast.Div,), ast.Div: (ast.Mult,), ast.Pow: (ast.Mult,),
    ast.And: (ast.Or,), ast.Or: (ast.And,), ast.BitAnd: (ast.BitOr,), ast.BitOr: (ast.BitAnd,),
}  # fmt: skip
NAMES = {"min": "max", "max": "min", "minimum": "maximum", "maximum": "minimum", "any": "all",
         "all": "any", "mean": "sum", "low": "high", "high": "low", "zeros": "ones"}  # fmt: skip


def changes(node: ast.AST) -> Iterator[tuple[str, object]]:
    """Fields of a node and what else they could hold; a field `*` stands for the node."""
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        yield from (("ops", [other()]) for other in SWAPS.get(type(node.ops[0]), ()))
    elif isinstance(node, ast.BinOp | ast.AugAssign | ast.BoolOp):
        text = any(isinstance(n, ast.JoinedStr) for n in ast.walk(node))
        yield from (("op", other()) for other in SWAPS.get(type(node.op), ()) if not text)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
        yield "*", node.operand
    elif isinstance(node, ast.Constant) and type(node.value) in (int, float, bool):
        value = node.value
        yield "value", not value if value is True or value is False else value + 1
        if isinstance(value, float) and value:
            yield "value", value * 2
    elif isinstance(node, ast.IfExp | ast.If):
        yield from (("test", ast.Constant(value)) for value in (True, False))
    elif isinstance(node, ast.Attribute | ast.Name):
        name = "attr" if isinstance(node, ast.Attribute) else "id"
        if getattr(node, name) in NAMES and isinstance(node.ctx, ast.Load):
            yield name, NAMES[getattr(node, name)]


def places(tree: ast.Module) -> Iterator[tuple[int, str, object]]:
    """Every change, with the number of its node in `ast.walk`; none in words and annotations."""
    silent = set()
    for node in ast.walk(tree):
        quiet = [node] if isinstance(node, ast.Raise | ast.JoinedStr) else []
        quiet += [getattr(node, key, None) for key in ("annotation", "returns")]
        silent |= {id(inner) for part in quiet if part for inner in ast.walk(part)}
    for i, node in enumerate(ast.walk(tree)):
        if id(node) not in silent:
            yield from ((i, field, value) for field, value in changes(node))


def mutant(source: str, place: tuple[int, str, object]) -> tuple[str, str]:
    """The source with one change, and the change in words."""
    tree = ast.parse(source)
    number, field, value = place
    node = list(ast.walk(tree))[number]
    before, line = ast.unparse(copy.deepcopy(node)), getattr(node, "lineno", 0)
    if field == "*":
        for parent in ast.walk(tree):
            for name, child in ast.iter_fields(parent):
                if child is node:
                    setattr(parent, name, value)
                elif isinstance(child, list) and node in child:
                    child[child.index(node)] = value
        node = value  # type: ignore[assignment]
    else:
        setattr(node, field, value)
    after = ast.unparse(ast.fix_missing_locations(copy.deepcopy(node)))
    words = (text.splitlines()[0][:90] for text in (before, after))
    return ast.unparse(ast.fix_missing_locations(tree)), f"{line}: {' -> '.join(words)}"


def noticed(folder: Path, tests: str) -> bool:
    """Whether a test fails in the folder, tried in a process of its own."""
    child = os.fork()
    if not child:
        import pytest

        os.chdir(folder)
        sys.path.insert(0, str(folder))
        resource.setrlimit(resource.RLIMIT_CPU, (MOST, MOST))
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        os._exit(int(pytest.main(["-x", "-p", "no:cacheprovider", *tests.split()])))
    return os.waitpid(child, 0)[1] != 0


def copy_tracked(folder: Path) -> None:
    """What git tracks, links as links."""
    packed = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, capture_output=True, check=True)
    subprocess.run(["tar", "-x", "-C", str(folder)], input=packed.stdout, check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", nargs="+", default=list(TESTS), choices=list(TESTS))
    parser.add_argument("--count", type=int, default=40, help="mutants of each file")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    sys.dont_write_bytecode = True
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    import hypothesis  # noqa: F401
    import pytest  # noqa: F401
    import scipy.optimize
    import scipy.stats  # noqa: F401

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        copy_tracked(folder)
        for name in asked.files:
            report(name, folder, asked.count, random.Random(f"{asked.seed} {name}"))


def processor_seconds() -> float:
    """Of the mutants so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def report(name: str, folder: Path, count: int, rng: random.Random) -> None:
    file, began = folder / name, processor_seconds()
    source = file.read_text(encoding="utf-8")
    if noticed(folder, TESTS[name]):
        raise SystemExit(f"the tests of {name} fail without a fault: {TESTS[name]}")
    every = list(places(ast.parse(source)))
    drawn, survivors = rng.sample(every, min(count, len(every))), []
    for place in drawn:
        text, words = mutant(source, place)
        file.write_text(text, encoding="utf-8")
        seen = noticed(folder, TESTS[name])
        survivors += [] if seen else [words]
        print("noticed " if seen else "SURVIVED", f"{name}:{words}", flush=True)
    file.write_text(source, encoding="utf-8")
    minutes = (processor_seconds() - began) / 60
    killed = f"{len(drawn) - len(survivors)} of {len(drawn)} noticed"
    print(f"{name}: {killed}, of {len(every)} possible, in {minutes:.1f} min of a core")


if __name__ == "__main__":
    main()
