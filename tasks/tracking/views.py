"""How MLflow's pages of the record are arranged: two saved views, kept as tags of the experiment.

MLflow's own pages keep an arrangement that is shared with others (columns, filter, charts) in a tag
`mlflow.sharedViewState.<key>`, and list those that have a name. There is no other way to arrange
them for whoever opens them: what a person arranges stays in that person's browser. A version of
MLflow without named views ignores the tags.
"""

import json
from collections.abc import Mapping
from typing import Any

KIND = {"mlflow.experimentKind": "custom_model_development"}  # opens the pages for trainings
SHARED = "mlflow.sharedViewState."
STUDIES, PROXIES = "cuvee-studies", "cuvee-proxies"  # the last part of an address that opens one
MINE = "cuvee"  # the section of these charts


def view_tags(now: int) -> dict[str, str]:
    """The tags of the views, by key.

    Args:
        now: milliseconds since 1970, shown as the time at which they were made.
    """
    return {
        f"{SHARED}{key}": json.dumps(
            {"name": name, "createdAt": now, "updatedAt": now, "state": json.dumps(state)}
        )
        for key, (name, state) in _VIEWS.items()
    }


def missing_tags(known: Mapping[str, str], now: int) -> dict[str, str]:
    """What an experiment with some tags lacks: its kind, where nobody chose one, and the views.

    A view that a person has saved anew, or written there by hand, is theirs and stays.
    """
    views = view_tags(now)
    return {
        **{name: value for name, value in KIND.items() if name not in known},
        **{
            name: view
            for name, view in views.items()
            if name not in known or _of_another_version(known[name], view)
        },
    }


def _of_another_version(known: str, view: str) -> bool:
    try:
        old, new = json.loads(known), json.loads(view)
        return bool(old["createdAt"] == old["updatedAt"] and old["state"] != new["state"])
    except (ValueError, KeyError, TypeError):
        return False


def _columns(widths: Mapping[str, int]) -> dict[str, Any]:
    """Columns in their order, `kinds.name` -> width in pixels, as MLflow's table takes them."""
    cells = {"attributes.Run Name": 190, **widths}
    named = {f"{kind}.`{name}`": cells[f"{kind}.{name}"] for kind, name in map(_halves, cells)}
    chosen = [name for name in named if not name.startswith("attributes")]
    return {"selectedColumns": chosen, "columnOrder": list(named), "columnWidths": named}


def _halves(column: str) -> tuple[str, str]:
    kind, _, name = column.partition(".")
    return kind, name


def _chart(metric: str, kind: str = "BAR") -> dict[str, Any]:
    lines = {"xAxisKey": "step", "scaleType": "linear", "lineSmoothness": 0}
    return {
        "type": kind,
        "uuid": f"cuvee-{metric}",
        "metricKey": metric,
        "metricSectionId": MINE,
        "runsCountToCompare": 10,
        "deleted": False,
        "isGenerated": False,
        **({"selectedMetricKeys": [metric], **lines} if kind == "LINE" else {}),
    }


def _view(
    kind: str, order: str, widths: Mapping[str, int], charts: list[dict[str, Any]]
) -> dict[str, Any]:
    section = {"uuid": MINE, "name": "First to look at", "display": True, "isReordered": False}
    return {
        "searchFilter": f"tags.`cuvee.kind` = '{kind}'",
        "orderByKey": order,
        "orderByAsc": kind != "study",
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        **_columns(widths),
        "isAccordionReordered": True,  # or sections are put into the order of the alphabet
        "compareRunCharts": charts,
        "compareRunSections": [{**section, "deleted": False, "isGenerated": False}],
    }


_VIEWS = {
    STUDIES: (
        "Studies: the four answers",
        _view(
            "study",
            "attributes.start_time",
            {
                "tags.cuvee.shares": 250,
                "tags.cuvee.grade": 105,
                "tags.cuvee.gain": 240,
                "tags.cuvee.cost": 220,
                "metrics.gain_over_natural": 140,
            },
            [
                _chart("gain_over_natural"),
                _chart("gain_over_uniform"),
                _chart("cost/evidence/core_seconds"),
            ],
        ),
    ),
    PROXIES: (
        "Proxies: losses and objectives",
        _view(
            "proxy",
            "metrics.`objective`",  # by their time, proxies would be folded below their studies
            {
                "tags.cuvee.role": 120,
                "tags.cuvee.mixture": 140,
                "params.size": 80,
                "params.seed": 100,
                "metrics.objective": 120,
            },
            [_chart("curve/loss", "LINE"), _chart("objective")],
        ),
    ),
}
