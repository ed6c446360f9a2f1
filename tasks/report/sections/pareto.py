"""What one aim costs another: the report's section on the Pareto front of a recommendation."""

from collections.abc import Iterable
from functools import partial

from cuvee.tasks.report.blocks import Block, Paragraph, Picture, ReportTable
from cuvee.tasks.report.plots import study as plots
from cuvee.tasks.report.sections.headline import UNIT
from cuvee.tasks.study.study import Study

LARGEST = 3  # domains that the table names for each mixture
SMALL = 0.0005  # shares below it would be shown as 0.0 %


def pareto_blocks(study: Study) -> Iterable[Block]:
    """The front as a picture and a table; nothing where a recommendation has none."""
    found = study.recommendation.front
    if found is None:
        return
    unit = "nats of KL(w || natural)" if found.distance else UNIT
    aims = f"{found.first} ({UNIT}) and {found.second} ({unit})"
    if len(found.points) < 2:
        yield Paragraph(f"One mixture is predicted to be best in both {aims}: they do not compete.")
        return
    yield Paragraph(
        f"A Pareto front: {len(found.points)} feasible mixtures of which none is predicted to be "
        f"beaten in both {aims}. Lower is better in both. The law is the chosen one, fitted anew "
        "to these scores alone; points have no intervals, so that small steps between them may be "
        "nothing. The recommended mixture may lie off the front: it serves the whole objective, "
        "and its search may put a price on leaving the natural mixture."
    )
    caption = f"Front between {found.first} and {found.second}, with the mixtures compared"
    yield Picture("front", caption, partial(plots.pareto_figure, study))
    rows = tuple(
        (
            point.name or f"front {i + 1}",
            f"{point.first:.4f}",
            f"{point.second:.4f}",
            _largest(study.recommendation.domains, point.weights),
        )
        for i, point in enumerate((*found.points, *found.marks))
    )
    yield ReportTable(("mixture", found.first, found.second, "largest shares"), rows, words=(3,))


def _largest(names: tuple[str, ...], weights: tuple[float, ...]) -> str:
    order = sorted(range(len(names)), key=lambda i: -weights[i])[:LARGEST]
    return ", ".join(f"{names[i]} {weights[i]:.1%}" for i in order if weights[i] >= SMALL)
