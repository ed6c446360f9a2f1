"""Threads: one for the linear algebra of a fit, whatever the process that asks for it has set.

The matrices of a fit are small: many threads that wait for each other make it up to ten times as
slow beside other work. So each fit is computed with one, and after it the caller's are as before.
A large fit's parts, such as its targets, are computed beside each other, each with one: numpy lets
go of the interpreter meanwhile.
"""

import functools
import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import threadpoolctl

C = TypeVar("C", bound=type)
Part = TypeVar("Part")
Made = TypeVar("Made")
CORES = min(os.cpu_count() or 1, 8)  # that the parts of one large fit are computed on
ALONE = {"law": ("fit",), "scaling": ("fit",), "method": ("ask", "recommend")}  # by kind
_lock = threading.Lock()
_depth = 0
_limits: Any = None


def one_thread(work: Callable[..., Any]) -> Callable[..., Any]:
    """A function that is computed with one thread of each library of linear algebra.

    The limit is the process's, so that of several that overlap or call each other the first sets it
    and the last lifts it.
    """

    @functools.wraps(work)
    def computed(*args: Any, **options: Any) -> Any:
        global _depth, _limits
        with _lock:
            if _depth == 0:
                _limits = threadpoolctl.threadpool_limits(1)
            _depth += 1
        try:
            return work(*args, **options)
        finally:
            with _lock:
                _depth -= 1
                if _depth == 0:
                    _limits.restore_original_limits()

    return computed


def fit_on_one_thread(kind: str, cls: C) -> C:
    """A registered class, whose fits are computed with one thread."""
    for name in ALONE.get(kind, ()):
        if hasattr(cls, name):
            setattr(cls, name, one_thread(getattr(cls, name)))
    return cls


def each_part(work: Callable[[Part], Made], parts: Iterable[Part], large: bool) -> list[Made]:
    """What `work` makes of each part, in their order; on all cores where the work is large."""
    if not large or CORES == 1:
        return [work(part) for part in parts]
    with ThreadPoolExecutor(CORES) as pool:
        return list(pool.map(work, parts))
