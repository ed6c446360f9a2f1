"""Laws, controllers, exporters and the like of one's own, by one decorator."""

import importlib
from collections.abc import Callable
from typing import TypeVar

from cuvee.mixtures import registry
from cuvee.mixtures.errors import UnknownName

C = TypeVar("C", bound=type)
ABOVE = ("cuvee.tasks.export",)  # rooms that admit kinds of their own as they are imported


def register(kind: str) -> Callable[[C], C]:
    """Class decorator: makes a frozen dataclass available to recipes and calls under its `name`.

    Its fields are its hyper-parameters. A package offers its own without being imported first by an
    entry point of the group `cuvee.<kind>`.

    Args:
        kind: "law", "method", "design", "search", "objective", "controller", "scaling", "world" or
            "export".

    Raises:
        UnknownName: no such kind.
        RecipeError: the class lacks a member of its kind's protocol, or its name is taken.

    Examples:
        >>> import dataclasses
        >>> import cuvee
        >>> import numpy as np
        >>> from cuvee.mixtures.laws import Law, Prediction
        >>> @dataclasses.dataclass(frozen=True)
        ... class Constant:
        ...     level: np.ndarray
        ...     def predict(self, W):
        ...         ones = np.ones((len(W), 1))
        ...         return Prediction(ones * self.level, 0.1 * ones * self.level)
        >>> @cuvee.register("law")
        ... @dataclasses.dataclass(frozen=True)
        ... class MeanLaw(Law):
        ...     name = "mean_of_runs"
        ...     def rows(self, domains):
        ...         return 1
        ...     def fit(self, W, Y, noise, rng):
        ...         return Constant(Y.mean(axis=0))
        >>> law = cuvee.fit(
        ...     {"web": [1, 0.5, 0.25, 0], "code": [0, 0.5, 0.75, 1]}, {"math": [1, 2, 3, 4]},
        ...     law="mean_of_runs", folds=2,
        ... )
        >>> law.predict({"web": 0.5, "code": 0.5}).mean
        array([[2.5]])
    """
    for room in ABOVE:
        importlib.import_module(room)
    if kind not in registry.FOLDERS:
        raise UnknownName("kind of part", kind, registry.FOLDERS)
    return registry.register(kind)
