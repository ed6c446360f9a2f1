"""Sizes of domains that are sampled: estimates that cover the truth, and what rests on them."""

import dataclasses
import json

import numpy as np
import pytest

from cuvee.mixtures.constraints import constrain
from cuvee.mixtures.domains import Domain, DomainSet
from cuvee.mixtures.errors import DataError
from cuvee.mixtures.objectives import WeightedMean
from cuvee.mixtures.problem import Problem, Proxy
from cuvee.mixtures.runs.run_records import outcome_from_json, outcome_to_json
from cuvee.mixtures.runs.run_results import Failed
from cuvee.mixtures.sampled_sizes import estimate_from_content, estimate_from_parts

DRAWS = 1_500


def _clusters(kind: str, parts: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Stored sizes and tokens of a domain's parts, whose text differs from part to part."""
    if kind == "files of every size":
        sizes = np.minimum(rng.lognormal(0, 1, parts), 1.5)  # larger files are read in parts
        rates = 0.25 * rng.lognormal(0, 0.2, parts)
    elif kind == "two kinds of site":
        sizes, rates = np.full(parts, 1.0), np.where(rng.random(parts) < 0.3, 0.1, 0.3)
    else:
        sizes, rates = rng.uniform(0.8, 1.2, parts), rng.normal(0.25, 0.03, parts)
    return sizes, sizes * rates


@pytest.mark.parametrize("kind", ["alike", "files of every size", "two kinds of site"])
@pytest.mark.parametrize(("parts", "read"), [(60, 12), (60, 45), (1000, 32)])
def test_intervals_of_parts_cover_the_truth(kind: str, parts: int, read: int) -> None:
    """Catches documents taken for independent (too narrow), the correction for a finite number of
    parts left out (too wide at 45 of 60), and a total that is scaled by parts and not by size."""
    rng = np.random.default_rng([17, parts, read])
    sizes, tokens = _clusters(kind, parts, rng)
    truth, hits, totals = tokens.sum(), 0, 0.0
    for _ in range(DRAWS):
        i = rng.permutation(parts)[:read]
        found = estimate_from_parts(tokens[i], sizes[i], size=sizes.sum(), parts=parts)
        low, high = found.interval(0.9)
        hits += low <= truth <= high
        totals += found.total / DRAWS
    assert 0.85 <= hits / DRAWS <= 0.95
    assert totals == pytest.approx(truth, rel=0.02)


@pytest.mark.parametrize("share", [0.01, 0.1, 0.6])
def test_intervals_of_a_sample_by_content_cover_the_truth(share: float) -> None:
    """Catches an error of the number of documents alone, without their lengths."""
    rng = np.random.default_rng(3)
    tokens = rng.lognormal(5, 1, 20_000)
    hits = 0
    for _ in range(DRAWS):
        y = tokens[rng.random(20_000) < share]
        low, high = estimate_from_content(y.sum(), (y**2).sum(), share).interval(0.9)
        hits += low <= tokens.sum() <= high
    assert 0.85 <= hits / DRAWS <= 0.95


def test_what_was_read_whole_has_no_error_and_one_part_says_nothing() -> None:
    """Catches an error of what is known, and one of 0 from a single part, whose spread is 0."""
    found = estimate_from_parts(np.array([3.0, 4.0]), np.array([9.0, 1.0]), size=10.0, parts=2)
    assert (found.total, found.error, found.interval()) == (7.0, 0.0, (7.0, 7.0))
    with pytest.raises(DataError, match="read at least two"):
        estimate_from_parts(np.array([3.0]), np.array([1.0]), size=9.0, parts=9)


def _domains() -> DomainSet:
    web = Domain("web", 8_000, 32_000, "w", shard_tokens=400, tokens_error=800.0)
    return DomainSet((web, Domain("code", 2_000, 8_000, "c")))


def test_shares_and_epochs_at_full_scale_are_of_what_exists() -> None:
    """Catches natural shares, caps and epochs of the sample: 17 % of web, and 20 epochs."""
    domains = _domains()
    assert domains.natural == pytest.approx([0.8, 0.2])
    assert domains.epochs(domains.uniform, 16_000) == pytest.approx([1.0, 4.0])
    assert domains.stored_epochs(domains.uniform, 800) == pytest.approx([1.0, 0.2])
    high = constrain(domains, full_tokens=16_000, epochs=4.0).bounds[1]
    assert high == pytest.approx([1.0, 0.5])
    assert domains.natural_errors == pytest.approx([0.2 * 0.08, 0.2 * 0.08])  # they sum to 1


def test_a_domain_is_no_smaller_than_what_was_read_of_it() -> None:
    """Catches `tokens: 1M` beside shards of two million, which would hide epochs."""
    with pytest.raises(DataError, match="'web' is said to have 1,000 tokens, and 2,000 lie"):
        Domain("web", 1_000, 4_000, "w", shard_tokens=2_000)


@pytest.mark.parametrize(
    ("tokens", "full", "short"),
    [
        (400, 8_000, {}),  # one pass over the sample at most: nothing repeats
        (800, 16_000, {}),  # two passes over the sample, two over the domain
        (800, 8_000, {"web": 800}),  # two passes over the sample, one over the domain
        (4_000, 40_000, {"web": 800}),  # ten and five; a tenth of the domain would do
    ],
)
def test_names_a_sample_that_proxies_repeat_more_often(
    tokens: int, full: int, short: dict[str, int]
) -> None:
    """Catches a rule that counts passes below one, and one that forgets the full run's own."""
    domains = _domains()
    problem = Problem(
        domains=domains,
        targets=("domain/web",),
        objective=WeightedMean({"domain/web": 1.0}),
        constraints=constrain(domains, full_tokens=full),
        proxy=Proxy("0.6M", tokens),
        full_tokens=full,
    )
    assert problem.short_samples == short
    whole = DomainSet(tuple(dataclasses.replace(d, shard_tokens=0) for d in domains))
    assert dataclasses.replace(problem, domains=whole).short_samples == {}


def test_a_matched_proxy_uses_as_much_of_a_sample_as_the_full_run_of_the_domain() -> None:
    """Catches a share of the sample where one of the domain is meant: a proxy of a fortieth of the
    tokens must repeat 200 tokens of web, half of its sample, and 50 of code; and a fingerprint
    that does not know it, or changes with the order of the domains."""
    domains = _domains()
    problem = Problem(
        domains=domains,
        targets=("domain/web",),
        objective=WeightedMean({"domain/web": 1.0}),
        constraints=constrain(domains, full_tokens=16_000),
        proxy=Proxy("0.6M", 400, repetition=1 / 40),
        full_tokens=16_000,
    )
    spec = problem.spec([0.5, 0.5], 0)
    assert [spec.usable(i) for i in (0, 1)] == pytest.approx([0.5, 0.025])
    whole = dataclasses.replace(spec, sampled=())
    assert whole.usable(0) == 0.025 and whole.fingerprint != spec.fingerprint
    turned = dataclasses.replace(problem, domains=DomainSet(tuple(domains)[::-1]))
    turned = dataclasses.replace(turned, constraints=constrain(turned.domains, full_tokens=16_000))
    assert turned.spec([0.5, 0.5], 0).fingerprint == spec.fingerprint
    off = dataclasses.replace(problem, proxy=Proxy("0.6M", 400))
    assert off.spec([0.5, 0.5], 0).sampled == ()
    outcome = Failed(spec, "why")
    assert outcome_from_json(json.loads(json.dumps(outcome_to_json(outcome)))) == outcome
