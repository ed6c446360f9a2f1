"""The benchmarks of evidence: a part goes on where it stopped, and says whether it is whole."""

from evidence import coverage
from evidence.__main__ import HERE, measure, parts


def test_what_a_file_has_is_not_measured_again(tmp_path, monkeypatch):
    """Catches an hour that is spent twice, and figures of a part of the cells that read as all."""
    measured = []

    def cell_rows(cell):
        measured.append(cell["seeds"])
        share = {"coverage": cell["seeds"] / 10, "false": 0.05, "width": 3.0}
        return [{**cell, "interval": "weighted", **share}]

    monkeypatch.setattr(coverage, "cell_rows", cell_rows)
    for name, values in {"UNITS": (30,), "SHARES": (0.25,), "CROSSED": (0.0,)}.items():
        monkeypatch.setattr(coverage, name, values)
    monkeypatch.setattr(coverage, "SEEDS", (3,))
    first = coverage.run(tmp_path, 1.0)["coverage"]
    assert first["whole"] and first["weighted"]["least"] == 0.3
    monkeypatch.setattr(coverage, "SEEDS", (3, 5))
    stopped = coverage.run(tmp_path, -1.0)["coverage"]
    assert measured == [3, 3] and not stopped["whole"]
    again = coverage.run(tmp_path, 1.0)["coverage"]
    assert measured == [3, 3, 5, 5] and again["whole"] and again["weighted"]["mean"] == 0.4


def test_every_part_can_be_planned():
    """Catches a part that the runner would stop at, hours into the others, and one that never says
    whether it is whole."""
    assert {"coverage", "false_claims", "power", "tied_targets"} <= set(parts())
    for name in parts():
        text = (HERE / f"{name}.py").read_text(encoding="utf-8")
        assert "\nMINUTES = " in text and '"whole": ' in text, name


def test_no_minutes_are_none(tmp_path, monkeypatch):
    """Catches 0 minutes, which ask for the figures of what is there, read as the part's own, and a
    part of which some is missing called whole."""
    given = []
    said = {"coverage": {"whole": True}, "more": {"whole": False}}
    monkeypatch.setattr(coverage, "run", lambda out, minutes: given.append(minutes) or said)
    measure(("coverage",), tmp_path, 0.0)
    assert measure(("coverage",), tmp_path, None) == {"whole": {"coverage": False}, **said}
    assert given == [0.0, coverage.MINUTES]
