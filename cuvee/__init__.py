"""Cuvée: finds the data mixture for a large language-model training run.

From two tables, of mixtures and of scores, to a mixture under constraints:

>>> import cuvee
>>> tables = cuvee.load_tables(
...     "examples/fit_from_csv/mixtures.csv", "examples/fit_from_csv/scores.csv"
... )
>>> best = cuvee.recommend(
...     tables,
...     objective={"domain/legal": 2, "domain/encyclopedia": 2, "task/mmlu": 1},
...     constraints={"bounds": {"code_python": (0.02, 1)}},
... )
>>> [name for name, share in best.weights.items() if share > 0.25]
['encyclopedia', 'legal']
>>> best.grade, best.verdict.partition(".")[0]
('strong', 'No fresh run has confirmed it yet')
>>> shares, picture = best.to_frame(), best.plot()
>>> law = cuvee.fit(tables, law="log_linear")
>>> said = law.predict({"encyclopedia": 0.5, "legal": 0.5})
>>> law["task/mmlu"].rank_correlation > 0.7
True

In a notebook each of them shows itself; `cuvee.run` runs a whole study from its recipe and
`cuvee.open_study` reads one that is finished.

Nothing is imported until it is used, so that this costs no time and threads and environment
variables can be set first. The rooms of the house are its sub-packages.
"""

TYPE_CHECKING = False  # which `typing` has too, but takes time to import
if TYPE_CHECKING:
    from cuvee.flows.api.extending import register
    from cuvee.flows.api.fitting import LawFit, PredictedScores, fit
    from cuvee.flows.api.recommending import RecommendedMixture, recommend
    from cuvee.flows.api.studies import StudyResult, open_study, run
    from cuvee.flows.api.tables import LoadedTables, load_tables
    from cuvee.mixtures.errors import (
        ApprovalError,
        BudgetError,
        ConstraintError,
        CorruptError,
        CuveeError,
        DataError,
        EvidenceError,
        ExportError,
        HandoffError,
        MissingExtra,
        NewerError,
        RecipeError,
        ServiceError,
        StorageError,
        TrainingError,
        UnknownName,
    )

    __version__: str

_ERRORS = "cuvee.mixtures.errors"  # of all names that stand in no other place
_PLACES = {
    "cuvee.flows.api.extending": ("register",),
    "cuvee.flows.api.fitting": ("LawFit", "PredictedScores", "fit"),
    "cuvee.flows.api.recommending": ("RecommendedMixture", "recommend"),
    "cuvee.flows.api.studies": ("StudyResult", "open_study", "run"),
    "cuvee.flows.api.tables": ("LoadedTables", "load_tables"),
}
__all__ = [
    "ApprovalError",
    "BudgetError",
    "ConstraintError",
    "CorruptError",
    "CuveeError",
    "DataError",
    "EvidenceError",
    "ExportError",
    "HandoffError",
    "LawFit",
    "LoadedTables",
    "MissingExtra",
    "NewerError",
    "PredictedScores",
    "RecipeError",
    "RecommendedMixture",
    "ServiceError",
    "StorageError",
    "StudyResult",
    "TrainingError",
    "UnknownName",
    "fit",
    "load_tables",
    "open_study",
    "recommend",
    "register",
    "run",
]


def __getattr__(name: str) -> object:
    import importlib  # which a fresh Python need not have either

    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("cuvee")
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = next((place for place, names in _PLACES.items() if name in names), _ERRORS)
    found: object = getattr(importlib.import_module(module), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
