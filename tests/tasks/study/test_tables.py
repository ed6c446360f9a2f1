"""Tables are joined by run id, and what does not fit is named."""

from dataclasses import replace

import numpy as np
import pytest

from cuvee.flows.recipe.evidence_parts import TablesPart
from cuvee.mixtures.errors import DataError, EvidenceError
from cuvee.tasks.study import tables


def write(folder, name, text):
    path = folder / name
    path.write_text(text)
    return path


MIX = "run,name,index,web,code\nr1,x,0,0.25,0.75\nr2,y,1,0.5,0.5\nr3,z,2,1,0\n"
LOSS = "run,name,index,math,qa\nr1,x,0,1.5,2.5\nr2,y,1,1.25,2.25\nr3,z,2,1.0,3.0\n"


def test_row_order_does_not_matter(tmp_path):
    """Catches pairing by position: the second table comes in another order."""
    head, *rows = LOSS.strip().split("\n")
    shuffled = "\n".join([head, rows[2], rows[0], rows[1]]) + "\n"
    mixtures = write(tmp_path, "a.csv", MIX)
    straight = tables.read_tables(mixtures, write(tmp_path, "b.csv", LOSS))
    turned = tables.read_tables(mixtures, write(tmp_path, "c.csv", shuffled))
    assert turned.ids == ("r1", "r2", "r3")
    assert turned.domains == ("web", "code") and turned.targets == ("math", "qa")
    np.testing.assert_array_equal(straight.Y, turned.Y)
    np.testing.assert_array_equal(turned.Y[2], [1.0, 3.0])


@pytest.mark.parametrize(
    ("scores", "error", "words"),
    [
        (LOSS.replace("r2,y,1,1.25,2.25\n", ""), EvidenceError, "no row for 1 runs.*r2"),
        (LOSS + "r9,q,3,1,1\n", EvidenceError, "no row for 1 runs.*r9"),
        (LOSS + "r2,y,1,1.3,2.2\n", EvidenceError, "more than once: r2"),
        (LOSS.replace("2.25", ""), DataError, "'qa' has no number for run r2"),
        (LOSS.replace("2.25", "nan"), DataError, "'qa' has no number for run r2"),
        (LOSS.replace("run", "job").replace("index", "i"), DataError, "share no id column"),
        (LOSS.replace("math,qa", "qa,qa"), DataError, "columns that stand more than once: qa"),
        (LOSS.replace("2.25", "2.25,7"), DataError, "not a CSV table: [^\n]+$"),
        (LOSS.replace("r2,", '"r\n2",'), EvidenceError, "^[^\n]+no row for[^\n]+$"),
        ("run,math\n", DataError, "no rows"),
        ("", DataError, "not a CSV table"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, scores, error, words):
    """Catches rows that are dropped, filled or paired wrongly in silence."""
    with pytest.raises(error, match=words):
        tables.read_tables(write(tmp_path, "a.csv", MIX), write(tmp_path, "b.csv", scores))


@pytest.mark.parametrize("row", ["r3,z,2,0.9,0.0", "r3,z,2,1.2,-0.2"])
def test_shares_that_are_no_mixture_are_named(tmp_path, row):
    """Catches a reader that renormalizes whatever it finds."""
    broken = MIX.replace("r3,z,2,1,0", row)
    with pytest.raises(DataError, match="r3"):
        tables.read_tables(write(tmp_path, "a.csv", broken), write(tmp_path, "b.csv", LOSS))


def test_rounded_shares_are_divided_by_their_sum_and_counted(tmp_path):
    """Catches shares that still miss 1, which every later check would refuse."""
    rounded = MIX.replace("0.25,0.75", "0.251,0.75")
    joined = tables.read_tables(write(tmp_path, "a.csv", rounded), write(tmp_path, "b.csv", LOSS))
    assert joined.rescaled == 1
    np.testing.assert_allclose(joined.W.sum(axis=1), 1, atol=1e-12)


def test_sizes_must_cover_the_domains(tmp_path):
    """Catches a domain whose size is silently taken as zero or one."""
    assert tables.domain_tokens(("web", "code"), {}) == {"web": 10**9, "code": 10**9}
    assert tables.domain_tokens(("web", "code"), {"web": 6e8, "code": 4e8})["web"] == 600_000_000
    shares = tables.domain_tokens(("web", "code"), {"web": 0.6, "code": 0.4})
    assert shares["web"] / shares["code"] == pytest.approx(1.5)
    with pytest.raises(DataError, match="code"):
        tables.domain_tokens(("web", "code"), {"web": 1.0})
    with pytest.raises(DataError, match="wob"):
        tables.domain_tokens(("web", "code"), {"wob": 1.0, "web": 1, "code": 1})


def pair(folder, mixtures, scores, **reading):
    """Two tables, read; bytes or text."""
    paths = [folder / "m.csv", folder / "s.csv"]
    for path, content in zip(paths, (mixtures, scores), strict=True):
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return tables.read_tables(*paths, tables.TableReading(**reading))


SMALL = "{key},en,{odd},de\nr1,0.9,0.01,0.09\nr2,0.6,0.019,0.381\nr3,0.2,0.002,0.798\n"
LOW = "{key},{odd},x\nr1,1.25,2.5\nr2,1.5,2.5\nr3,1.75,2\n"


@pytest.mark.parametrize("odd", ["id", "name", "index", "run"])
@pytest.mark.parametrize("said", [True, False])
def test_domains_and_scores_may_be_called_as_ids_are(tmp_path, odd, said):
    """Catches a list of names that takes Indonesian for an id: the domain and the score vanish."""
    key = "run_id" if odd == "run" else "run"
    joined = pair(
        tmp_path, SMALL.format(key=key, odd=odd), LOW.format(key=key, odd=odd),
        key=key if said else None,
    )  # fmt: skip
    assert joined.domains == ("en", odd, "de") and joined.targets == (odd, "x")
    np.testing.assert_allclose(joined.W[1], [0.6, 0.019, 0.381])
    np.testing.assert_array_equal(joined.Y[:, 0], [1.25, 1.5, 1.75])


def test_a_domain_called_index_is_no_key_and_row_numbers_are_no_domain(tmp_path):
    """Catches names that decide alone: here `index` holds shares once, and row numbers once."""
    joined = pair(tmp_path, "id,index,en\na,0.25,0.75\nb,1,0\n", "id,index,l\nb,7,1\na,8,2\n")
    assert joined.ids == ("a", "b") and joined.domains == ("index", "en")
    np.testing.assert_array_equal(joined.Y[:, -1], [2, 1])
    numbered = pair(
        tmp_path, "run,index,a,b\nx,0,1,0\ny,1,0.5,0.5\n", "run,index,l\nx,0,1\ny,1,2\n"
    )
    assert numbered.domains == ("a", "b") and numbered.targets == ("l",)


def test_many_columns_without_a_name_cost_nothing(tmp_path):
    """Catches every choice of them being tried, 2**18 here, and zeros that are taken for shares."""
    head = "run,a,b" + "," * 18
    rows = [f"r{i},{a},{1 - a}" + ",0" * 18 for i, a in enumerate((0.25, 0.5, 1))]
    joined = pair(tmp_path, "\n".join([head, *rows]), "run,l\nr0,1\nr1,2\nr2,3\n")
    assert joined.domains == ("a", "b")


def test_a_lost_domain_is_not_taken_for_rounding(tmp_path):
    """Catches shares renormalized by 1.9 % in silence: written to the last digit, none may miss."""
    rows = [(0.9, 0.081), (0.6, 0.381), (0.2, 0.781)]
    text = "run,en,de\n" + "".join(f"r{i},{a!r},{b!r}\n" for i, (a, b) in enumerate(rows))
    with pytest.raises(DataError, match="sum to 1.*r0.*0.981"):
        pair(tmp_path, text, "run,l\nr0,1\nr1,2\nr2,3\n")
    few = "run,a,b,c\nr0,0.33,0.33,0.33\nr1,0.5,0.25,0.25\n"
    joined = pair(tmp_path, few, "run,l\nr0,1\nr1,2\n")
    assert joined.missed == pytest.approx(0.01) and joined.rescaled == 1


def test_percent_are_named_as_such(tmp_path):
    """Catches a sum of 100 without a word of what it is."""
    with pytest.raises(DataError, match="percent"):
        pair(tmp_path, "run,a,b\nr0,30,70\nr1,50,50\n", "run,l\nr0,1\nr1,2\n")


def test_columns_of_text_are_left_out_and_named(tmp_path):
    """Catches advice to remove every run because of the column State, and one without a word."""
    mixtures = "run,State,web,code\nr0,finished,0.5,0.5\nr1,finished,0.25,0.75\n"
    scores = "run,State,Notes,l\nr0,finished,,1\nr1,crashed,,2\n"
    joined = pair(tmp_path, mixtures, scores)
    assert joined.domains == ("web", "code") and joined.targets == ("l",)
    assert joined.unread == ("State", "Notes")
    with pytest.raises(DataError, match="'State' has no number in any row.*tables.targets"):
        pair(tmp_path, mixtures, scores, targets=("l", "State"))
    with pytest.raises(DataError, match="'l' has no number for run r1"):
        pair(tmp_path, mixtures, scores.replace(",2\n", ",\n"))


def test_one_wide_table_holds_both(tmp_path):
    """Catches other columns of shares counted into the sum, and an id column that is empty."""
    wide = (
        "key,run_id,scale,p0_a,p0_b,x_a,x_b,bpb\n"
        "k0,,60m,0.1,0.9,0.5,0.5,1.5\nk1,,60m,0.3,0.7,0.25,0.75,2.5\n"
    )
    joined = pair(tmp_path, wide, wide, key="key", only=("x_a", "x_b"), targets=("bpb",))
    np.testing.assert_array_equal(joined.W, [[0.5, 0.5], [0.25, 0.75]])
    assert joined.targets == ("bpb",) and not joined.aside
    with pytest.raises(DataError, match="run_id is empty in all rows.*key"):
        pair(tmp_path, wide, wide)
    with pytest.raises(DataError, match="'run_id' is empty in all 2 rows.*key"):
        pair(tmp_path, wide, wide, key="run_id")
    with pytest.raises(DataError, match="'run' is empty in row 3"):
        pair(tmp_path, "run,a,b\nr0,1,0\n,0,1\n", "run,l\nr0,1\n,2\n")


@pytest.mark.parametrize("divider", [";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_tables_are_read_as_spreadsheets_write_them(tmp_path, divider, encoding):
    """Catches a table that is read as one column, and 0,25 read as 25 or refused."""
    mixtures = f"run;web;code{divider}\nr0;0,25;0,75{divider}\n\nr1;1;0{divider}\n;;{divider}\n"
    mixtures = mixtures.replace(";", divider)
    scores = "run;l\nr0;1,5\nr1;2\n".replace(";", divider).replace("\n", "\r\n")
    joined = pair(tmp_path, mixtures.encode(encoding), scores.encode(encoding))
    assert joined.domains == ("web", "code")
    np.testing.assert_array_equal(joined.W, [[0.25, 0.75], [1, 0]])
    np.testing.assert_array_equal(joined.Y[:, 0], [1.5, 2])


@pytest.mark.parametrize(
    ("mixtures", "words"),
    [
        ("run,a,b\nr0,0.5,0.5,0.1\nr1,1,0\n", "row 2 has 4 cells and the header 3"),
        ("run,a,b\nr0,0.5,0.5\nr1,1\n", "row 3 has 2 cells"),
        ('run,a,b\nr0,"0,5",0.5\nr1,1,0\n', "found '0,5'.*decimal point"),
        ("run;a;b\nr0;1.000,5;0,5\nr1;1;0\n", "no number for run r0"),
        ("run,a,b\nr0,\x1f0.5,0.5\nr1,1,0\n", "no number for run r0"),
        ("run,a,\nr0,0.5,0.5\nr1,1,0\n", "without a name holds shares"),
        ('run,"a\x1b[2J",b\nr0,0.5,0.5\nr1,1,0\n', "control characters"),
        (b"run,a,b\nr0,0.5,0.5\nr1,1,\xff0\n", "UTF-8"),
        (b"\x1f\x8b\x08\x00", "not a CSV table|columns|header"),
        ('run,a,b\nr0,0.5,"0.5\n', "unexpected end"),
    ],
)
def test_what_no_reader_can_know_is_refused(tmp_path, mixtures, words):
    """Catches rows that are cut or shifted, where an extra cell makes the id a share."""
    with pytest.raises(DataError, match=words) as caught:
        pair(tmp_path, mixtures, "run,l\nr0,1\nr1,2\n")
    assert "\n" not in str(caught.value)


def test_errors_name_the_field_that_was_given():
    """Catches tables.sizes blamed for what stands in tables.token_counts."""
    with pytest.raises(DataError, match="^tables.token_counts names wob"):
        tables.domain_tokens(("web",), {"wob": 1.0, "web": 1}, field="tables.token_counts")


def test_bounds_are_declared_or_known_by_the_metric(tmp_path):
    """Catches bounds that are not turned with their scores, lost in a family's mean, taken of
    percent for shares, and a score outside what was declared that nobody is told of."""
    (tmp_path / "m.csv").write_text("run,a,b\n1,0.5,0.5\n2,1,0\n")
    (tmp_path / "s.csv").write_text(
        "run,qa/accuracy,pct/accuracy,own,loss\n1,0.5,50,3,2\n2,1,60,4,2\n"
    )
    paths = tmp_path / "m.csv", tmp_path / "s.csv"
    reading = tables.TableReading(higher_is_better=("qa/accuracy",), bounds=(("own", 0.0, 5.0),))
    found = tables.read_tables(*paths, reading)
    assert found.limits == (("qa/accuracy", -1.0, 0.0), ("own", 0.0, 5.0))
    family = replace(reading, families=(("all", ("qa/accuracy", "own")),))
    assert tables.read_tables(*paths, family).limits == (("all", -0.5, 2.5),)
    with pytest.raises(DataError, match=r"'own' is declared to lie between 0 and 3.5, and run 2"):
        tables.read_tables(*paths, replace(reading, bounds=(("own", 0.0, 3.5),)))
    with pytest.raises(DataError, match="no column of scores 'owm'; did you mean 'own'"):
        tables.read_tables(*paths, replace(reading, bounds=(("owm", 0.0, 5.0),)))
    part = TablesPart.model_validate({"mixtures": "m", "scores": "s", "bounds": {"own": [0, 5]}})
    assert part.reading.bounds == (("own", 0.0, 5.0),)
