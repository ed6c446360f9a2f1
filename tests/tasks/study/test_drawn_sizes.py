"""The sizes that a study's mixtures were drawn at: how long they hold, and for which domains."""

from dataclasses import replace

import pytest

from cuvee.mixtures.constraints import constrain
from cuvee.mixtures.domains import Domain, DomainSet
from cuvee.tasks.store.results import Store
from cuvee.tasks.study.prepared import domains_as_drawn, recall_drawn, remember_drawn

FIRST = DomainSet(
    tuple(
        Domain(name, tokens, 4 * tokens, f"of {name}", heldout=f"held {name}")
        for name, tokens in (("web", 600_000), ("code", 300_200), ("math", 300_000))
    )
)


@pytest.fixture
def store(tmp_path):
    """A store in which a study has begun."""
    found = Store(str(tmp_path))
    remember_drawn(found, "mix", FIRST)
    return found


def grown(name, tokens):
    """The domains after one of them moved by some tokens, the largest first."""
    more = tuple(
        replace(d, tokens=d.tokens + tokens, identity=f"more {d.name}") if d.name == name else d
        for d in FIRST
    )
    return DomainSet(tuple(sorted(more, key=lambda d: -d.tokens)))


def test_shares_and_order_hold_while_no_domain_moves_by_more_than_a_hundredth(store):
    """Catches a design in the order of today's sizes, sizes that follow in small steps, and growth
    that is hidden: from a cap, from a reader, or from the next study."""
    now = grown("math", 2_900)
    assert now.names == ("web", "math", "code")
    seen = domains_as_drawn(now, recall_drawn(store, "mix"), 0.01)
    assert seen.names == FIRST.names and list(seen.natural) == list(FIRST.natural)
    assert seen.domains[2].tokens == 302_900 and seen.identities[2] == "more math"
    (cap,) = constrain(seen, full_tokens=10**7, epochs={"math": 2.0}).limits
    assert (cap.bound, cap.drawn) == (0.06058, 0.06)
    assert "math went from 300,000 to 302,900 tokens (24.9958% of all then," in seen.natural_note
    remember_drawn(store, "mix", seen)
    more = grown("math", 3_100)
    assert domains_as_drawn(more, recall_drawn(store, "mix"), 0.01) is more
    assert not more.natural_note and not FIRST.natural_note
    assert domains_as_drawn(more, recall_drawn(store, "mix"), 0.02).names == FIRST.names
    assert domains_as_drawn(now, recall_drawn(store, "another"), 0.01) is now


def test_a_domain_is_known_by_its_text_whatever_it_is_called(store):
    """Catches sizes that are found by name alone, and those of one domain taken for another's."""
    swapped = {"web": "web", "code": "math", "math": "code"}
    now = DomainSet(tuple(replace(d, name=swapped[d.name]) for d in FIRST))
    seen = domains_as_drawn(now, recall_drawn(store, "mix"), 0.01)
    assert seen.names == ("web", "math", "code") and not seen.natural_note
    called = DomainSet(tuple(replace(d, name=f"new {d.name}") for d in grown("code", 22)))
    assert domains_as_drawn(called, recall_drawn(store, "mix"), 0.01).names[1] == "new code"
    for other in (FIRST.domains[:2], (*FIRST, Domain("law", 9, 9, "of law"))):
        few = DomainSet(tuple(other))
        assert domains_as_drawn(few, recall_drawn(store, "mix"), 0.01) is few
