"""What a notebook shows of an answer: small tables in HTML, and pictures of the report.

HTML inherits the page's colors, so that it can be read in light and in dark; whatever a user named
is escaped.
"""

import html
from collections.abc import Callable, Iterable, Sequence

import matplotlib
from matplotlib.figure import Figure

from cuvee.tasks.report.plots import style

TABLE = "border-collapse:collapse;font-variant-numeric:tabular-nums"
CELL = "text-align:{};padding:2px 10px;border-bottom:1px solid rgba(128,128,128,0.35)"


def html_block(
    title: str,
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    below: Iterable[str] = (),
) -> str:
    """A table under a line, with sentences below it; the first column is of names."""

    def line(cells: Sequence[str], tag: str) -> str:
        made = []
        for i, cell in enumerate(cells):
            how = CELL.format("right" if i else "left")
            made.append(f'<{tag} style="{how}">{html.escape(cell)}</{tag}>')
        return f"<tr>{''.join(made)}</tr>"

    body = "".join(line(row, "td") for row in rows)
    said = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in below)
    return (
        f'<div><p>{html.escape(title)}</p><div style="overflow-x:auto"><table style="{TABLE}">'
        f"<thead>{line(head, 'th')}</thead><tbody>{body}</tbody></table></div>"
        f"{f'<ul>{said}</ul>' if said else ''}</div>"
    )


def shown_figure(plot: Callable[[], Figure]) -> Figure:
    """A figure in the look of the report, which a notebook shows without pyplot."""
    with matplotlib.rc_context(style.SETTINGS):
        figure = plot()

    def picture() -> bytes:
        with matplotlib.rc_context(style.SETTINGS):
            return style.figure_png(figure)

    figure._repr_png_ = picture  # type: ignore[attr-defined]  # which IPython asks for
    return figure
