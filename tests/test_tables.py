"""Tables are joined by run id, and what does not fit is named."""

import numpy as np
import pytest

from mixtures.errors import DataError, EvidenceError
from tasks import tables


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
    straight = tables.read(mixtures, write(tmp_path, "b.csv", LOSS))
    turned = tables.read(mixtures, write(tmp_path, "c.csv", shuffled))
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
        tables.read(write(tmp_path, "a.csv", MIX), write(tmp_path, "b.csv", scores))


@pytest.mark.parametrize("row", ["r3,z,2,0.9,0.0", "r3,z,2,1.2,-0.2"])
def test_shares_that_are_no_mixture_are_named(tmp_path, row):
    """Catches a reader that renormalizes whatever it finds."""
    broken = MIX.replace("r3,z,2,1,0", row)
    with pytest.raises(DataError, match="r3"):
        tables.read(write(tmp_path, "a.csv", broken), write(tmp_path, "b.csv", LOSS))


def test_rounded_shares_are_divided_by_their_sum_and_counted(tmp_path):
    """Catches shares that still miss 1, which every later check would refuse."""
    rounded = MIX.replace("0.25,0.75", "0.251,0.75")
    joined = tables.read(write(tmp_path, "a.csv", rounded), write(tmp_path, "b.csv", LOSS))
    assert joined.rescaled == 1
    np.testing.assert_allclose(joined.W.sum(axis=1), 1, atol=1e-12)


def test_sizes_must_cover_the_domains(tmp_path):
    """Catches a domain whose size is silently taken as zero or one."""
    assert tables.tokens(("web", "code"), {}) == {"web": 10**9, "code": 10**9}
    assert tables.tokens(("web", "code"), {"web": 6e8, "code": 4e8})["web"] == 600_000_000
    shares = tables.tokens(("web", "code"), {"web": 0.6, "code": 0.4})
    assert shares["web"] / shares["code"] == pytest.approx(1.5)
    with pytest.raises(DataError, match="code"):
        tables.tokens(("web", "code"), {"web": 1.0})
    with pytest.raises(DataError, match="wob"):
        tables.tokens(("web", "code"), {"wob": 1.0, "web": 1, "code": 1})
