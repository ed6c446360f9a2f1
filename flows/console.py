"""What the command line prints of a finished study."""

import json
import os
import shlex
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cuvee.flows.progress_bars import duration_text
from cuvee.mixtures import recommendation
from cuvee.mixtures.recommendation import Recommendation


def print_study(console: Console, folder: Path, record: str) -> None:
    """Print the recommendation as a table, what is known of it, and where the rest is.

    Args:
        console: where to print.
        folder: of the study's files.
        record: where the record is, or "" if none was kept.
    """
    answer = recommendation.from_json(
        json.loads((folder / "recommendation.json").read_text(encoding="utf-8"))
    )
    digest = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    console.print()
    console.print(shares_table(answer))
    for line in _findings(answer, digest):
        console.print(line, markup=False, emoji=False)
    console.print()
    console.print(f"report:   {folder / 'report.html'}", markup=False)
    console.print(f"summary:  {folder / 'summary.json'}", markup=False)
    if record:
        console.print(f"record:   {record}{review_hint(record)}", markup=False)


def review_hint(record: str | Path) -> str:
    """How a local record is opened from here; nothing for that of a server."""
    if not Path(record).is_dir():
        return ""
    home, default = Path(record).parent, Path(os.environ.get("CUVEE_HOME") or ".cuvee")
    option = "" if home == default.resolve() else f" --home {shlex.quote(str(home))}"
    return f" (open it with: cuvee review{option})"


def shares_table(answer: Recommendation) -> Table:
    """Shares of tokens: recommended with its interval, and what it stands beside."""
    table = Table(title="Recommended shares of tokens (90 % interval over refits)")
    table.add_column("domain", overflow="fold", min_width=min(24, max(map(len, answer.domains))))
    others = [c for c in answer.candidates if c.name != "recommended"]
    for column in ("shares", "interval", *(c.name for c in others), "epochs"):
        table.add_column(column, justify="right", no_wrap=True)
    for i, name in enumerate(answer.domains):
        low, high = answer.intervals[i]
        table.add_row(
            Text(name),  # a plain string would turn "web:art:high" into a picture
            f"{answer.weights[i]:.1%}",
            f"{100 * low:.1f}-{100 * high:.1f}%",
            *(f"{c.weights[i]:.1%}" for c in others),
            f"{answer.epochs[i]:.2f}" if answer.epochs else "unknown",
        )
    return table


def _findings(answer: Recommendation, digest: dict[str, Any]) -> list[str]:
    lines = [f"Verdict: {digest['verdict']}"]
    lines += [f"Warning: {warning}" for warning in answer.warnings]
    for name, pair in digest["confirmation"].items():
        lines.append(
            f"Confirmed against {name}: {pair['gain']:+.4f} bits per byte better "
            f"({pair['low']:+.4f} to {pair['high']:+.4f}, {pair['n']} pairs of seeds)"
        )
    lines += [step["said"] for step in digest["larger_sizes"]]
    if digest["card"]:
        lines += _predicted(digest["card"])
    if digest["rank_correlation"] is not None:
        lines.append(
            f"Held-out rank correlation of the objective: {digest['rank_correlation']:.3f}"
        )
    lines.append(
        f"{digest['proxies']} proxies ({digest['trained_now']} trained now, {digest['failed']} "
        f"failed) in {duration_text(60 * digest['minutes'])}"
    )
    return lines


def _predicted(card: dict[str, Any]) -> list[str]:
    known = [one for one in card["predictions"] if one["predicted"] and not one["trained_before"]]
    late = sum(bool(one["trained_before"]) for one in card["predictions"])
    lines = [f"Prediction card {card['sha256'][:16]}, written {card['written']}"]
    if known:
        lines[0] += (
            f": {sum(one['inside'] for one in known)} of {len(known)} gains inside their "
            f"interval, {sum(one['sign'] for one in known)} with the predicted sign"
        )
    if late:
        lines.append(f"{late} gains had runs before the card was written: these are no predictions")
    return lines + [f"Warning: {sentence}" for sentence in card["changed_cards"]]
