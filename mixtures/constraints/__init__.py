"""Constraints: what every candidate mixture and the recommended one must satisfy.

Bounds, group sums and epoch caps are all named linear limits `a . w <= b`, so that one report can
say which of them bind and which of them clash. Sparsity and a KL ball around a prior are kept
beside them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from cuvee.mixtures import simplex
from cuvee.mixtures.constraints import polytope
from cuvee.mixtures.domains import Array, DomainSet
from cuvee.mixtures.errors import ConstraintError

SLACK = 1e-6  # a limit that is passed by less than this share is kept


@dataclass(frozen=True)
class Limit:
    """A named linear inequality `coefficients . w <= bound`.

    Attributes:
        drawn: the bound at the sizes that the study's mixtures were drawn at; None: `bound`.
    """

    name: str
    coefficients: tuple[float, ...]
    bound: float
    drawn: float | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Group:
    """A sum of shares held between two values, such as "code at least 10 %"."""

    domains: tuple[str, ...]
    at_least: float = 0.0
    at_most: float = 1.0


@dataclass(frozen=True)
class Constraints:
    """The feasible set: limits on the simplex of K domains.

    Attributes:
        domains: names, in the order of every weight vector.
        limits: named linear inequalities.
        most_domains: at most this many domains above zero, or None.
        prior: centre of the KL ball (K,), or empty.
        most_kl: KL(w || prior) in nats at most, or None.
    """

    domains: tuple[str, ...]
    limits: tuple[Limit, ...] = ()
    most_domains: int | None = None
    prior: tuple[float, ...] = ()
    most_kl: float | None = None

    def __post_init__(self) -> None:
        for limit in self.limits:
            if len(limit.coefficients) != len(self.domains):
                raise ConstraintError(
                    f"limit {limit.name!r} has {len(limit.coefficients)} coefficients "
                    f"for {len(self.domains)} domains"
                )
        if self.most_domains is not None and self.most_domains < 1:
            raise ConstraintError(f"most_domains must be at least 1; got {self.most_domains}")
        if self.most_kl is not None and not 0 <= self.most_kl < np.inf:
            raise ConstraintError(
                f"most_kl is a finite distance of at least 0; got {self.most_kl}. Leave it out "
                "where there is no limit"
            )
        if not all(np.isfinite([limit.bound, *limit.coefficients]).all() for limit in self.limits):
            raise ConstraintError("limits must be finite numbers; leave out what is no limit")
        clash = self.clash()
        if clash:
            raise ConstraintError(
                "no mixture satisfies all constraints; these clash: "
                + "; ".join(clash)
                + ". Relax one of them"
            )

    @property
    def matrix(self) -> tuple[Array, Array]:
        """The limits as `A w <= b`, shapes (L, K) and (L,)."""
        size = len(self.domains)
        rows = np.array([limit.coefficients for limit in self.limits], dtype=np.float64)
        bounds = np.array([limit.bound for limit in self.limits], dtype=np.float64)
        return rows.reshape(-1, size), bounds

    @property
    def as_drawn(self) -> "Constraints":
        """The set that a design is drawn in: that of the sizes its natural shares go by."""
        if all(limit.drawn is None for limit in self.limits):
            return self
        limits = (
            limit if limit.drawn is None else replace(limit, bound=limit.drawn, drawn=None)
            for limit in self.limits
        )
        return replace(self, limits=tuple(limits))

    @property
    def bounds(self) -> tuple[Array, Array]:
        """The box around the feasible set that the single-domain limits give, two (K,) vectors."""
        low, high = np.zeros(len(self.domains)), np.ones(len(self.domains))
        for limit in self.limits:
            support = np.flatnonzero(limit.coefficients)
            if support.size == 1:
                i, a = int(support[0]), limit.coefficients[int(support[0])]
                if a > 0:
                    high[i] = min(high[i], limit.bound / a)
                else:
                    low[i] = max(low[i], limit.bound / a)
        return low, high

    def satisfied(self, weights: Array, slack: float = SLACK) -> np.ndarray:
        """Whether mixtures (..., K) lie in the feasible set, shape (...)."""
        w = np.atleast_2d(weights)
        rows, bounds = self.matrix
        ok = np.all(w >= -slack, axis=-1) & (np.abs(w.sum(axis=-1) - 1) <= slack * w.shape[-1])
        ok &= np.all(w @ rows.T <= bounds + slack, axis=-1)
        if self.most_domains is not None:
            ok &= (w > slack).sum(axis=-1) <= self.most_domains
        if self.most_kl is not None:
            ok &= self.divergence(np.maximum(w, 0.0)) <= self.most_kl + slack
        return np.asarray(ok.reshape(np.shape(weights)[:-1]), dtype=bool)

    def divergence(self, weights: Array) -> Array:
        """KL(w || prior) in nats of mixtures (..., K), shape (...)."""
        return simplex.kl(weights, self.prior)

    def nearest_to_prior(self) -> Array:
        """The mixture within the limits that has the least KL to the prior, shape (K,).

        Sparsity is ignored.
        """
        rows, bounds = self.matrix
        return polytope.least_kl(np.asarray(self.prior), rows, bounds)

    def active(self, weights: Array, slack: float = 1e-4) -> tuple[str, ...]:
        """Names of the limits that a mixture touches."""
        names = [
            limit.name
            for limit in self.limits
            if float(np.dot(limit.coefficients, weights)) >= limit.bound - slack
        ]
        if self.most_kl is not None and simplex.kl(weights, self.prior) >= self.most_kl - slack:
            names.append(self._ball)
        return tuple(names)

    def clash(self) -> tuple[str, ...]:
        """Names of a smallest set of constraints that no mixture satisfies; empty if feasible.

        A deletion filter: a constraint without which the rest is still infeasible is left out for
        good, so that every one that remains is needed for the contradiction.
        """
        everything: tuple[Limit | str, ...] = self.limits
        everything += (self._sparsity,) if self.most_domains is not None else ()
        everything += (self._ball,) if self.most_kl is not None else ()
        if self._feasible(everything):
            return ()
        core = list(everything)
        for part in everything:
            without = [other for other in core if other is not part]
            if not self._feasible(without):
                core = without
        return tuple(part if isinstance(part, str) else part.name for part in core)

    @property
    def _sparsity(self) -> str:
        return f"at most {self.most_domains} domains"

    @property
    def _ball(self) -> str:
        return f"KL to the prior at most {self.most_kl:g} nats"

    def _feasible(self, parts: Sequence[Limit | str]) -> bool:
        """Whether some mixture meets the parts; sparsity and the KL ball are judged apart.

        A set that is sparse and near the prior may still be empty where each alone is not; the
        searches then say so.
        """
        size = len(self.domains)
        limits = [part for part in parts if isinstance(part, Limit)]
        rows = np.array([limit.coefficients for limit in limits]).reshape(-1, size)
        bounds = np.array([limit.bound for limit in limits])
        most = self.most_domains if self.most_domains and self._sparsity in parts else size
        if not polytope.has_mixture(rows, bounds, most):
            return False
        if self.most_kl is None or self._ball not in parts:
            return True
        nearest = polytope.least_kl(np.asarray(self.prior), rows, bounds)
        return bool(self.divergence(nearest) <= self.most_kl + SLACK)

    def project(self, weights: Array) -> Array:
        """The feasible mixture nearest to a vector in Euclidean distance, shape (K,).

        Sparsity keeps the largest shares and projects again; it is a heuristic (assumption, not
        studied).

        Raises:
            ConstraintError: the solver found no feasible mixture.
        """
        target = np.asarray(weights, dtype=np.float64)
        if bool(self.satisfied(target)):
            return simplex.normalized(np.maximum(target, 0.0))
        found = self._nearest(target, np.ones(target.size))
        if self.most_domains is not None and int((found > SLACK).sum()) > self.most_domains:
            keep = np.zeros(target.size)
            keep[np.argsort(-found, kind="stable")[: self.most_domains]] = 1.0
            found = self._nearest(target, keep)
        if not bool(self.satisfied(found, slack=1e-4)):
            raise ConstraintError(
                "no feasible mixture was found near the requested one; "
                f"limits: {'; '.join(limit.name for limit in self.limits)}"
            )
        return found

    def _nearest(self, target: Array, ceiling: Array) -> Array:
        rows, bounds = self.matrix
        prior = np.asarray(self.prior)
        return polytope.nearest_point(target, ceiling, rows, bounds, ball=(prior, self.most_kl))


def constrain(
    domains: DomainSet,
    *,
    full_tokens: int,
    bounds: Mapping[str, Sequence[float]] | None = None,
    groups: Sequence[Group] = (),
    epochs: float | Mapping[str, float] | None = None,
    most_domains: int | None = None,
    most_kl: float | None = None,
    required: Mapping[str, float] | None = None,
) -> Constraints:
    """Constraints from what a recipe says.

    Args:
        domains: the K domains.
        full_tokens: tokens of the full-scale run, to which epoch caps refer.
        bounds: domain -> (least, most) share.
        groups: sums of shares.
        epochs: most passes over any domain at full scale, or domain -> passes.
        most_domains: sparsity.
        most_kl: KL(w || natural) in nats at most.
        required: domain -> least share above 0 that every mixture must have of it.

    Raises:
        ConstraintError: a bound is not a range within [0, 1], or the set is empty (the clash is
            named).
        DataError: a domain is not in the corpus.
    """
    limits: list[Limit] = []
    for name, pair in (bounds or {}).items():
        if len(pair) != 2 or not 0 <= pair[0] <= pair[1] <= 1:
            raise ConstraintError(
                f"bounds of {name!r} must be [least, most] within 0 and 1; got {list(pair)}"
            )
        limits += _range(domains, (name,), pair[0], pair[1], label=name)
    for group in groups:
        if not 0 <= group.at_least <= group.at_most <= 1:
            raise ConstraintError(
                f"group {'+'.join(group.domains)} needs 0 <= at_least <= at_most <= 1; "
                f"got {group.at_least} and {group.at_most}"
            )
        label = "+".join(group.domains)
        limits += _range(domains, group.domains, group.at_least, group.at_most, label=label)
    for name, least in (required or {}).items():
        if not 0 < least <= 1:
            raise ConstraintError(f"required {name!r} needs a share in (0, 1]; got {least}")
        limits += _range(domains, (name,), least, 1.0, label=f"required {name}")
    limits += _epoch_caps(domains, full_tokens, epochs)
    return Constraints(
        domains=domains.names,
        limits=tuple(limits),
        most_domains=most_domains,
        prior=tuple(map(float, domains.natural)) if most_kl is not None else (),
        most_kl=most_kl,
    )


def _range(
    domains: DomainSet, members: Sequence[str], low: float, high: float, *, label: str
) -> list[Limit]:
    row = domains.vector(dict.fromkeys(members, 1.0))
    limits = []
    if low > 0:
        limits.append(Limit(f"{label} at least {low:.4g}", tuple(map(float, -row)), -low))
    if high < 1:
        limits.append(Limit(f"{label} at most {high:.4g}", tuple(map(float, row)), high))
    return limits


def _epoch_caps(
    domains: DomainSet, full_tokens: int, epochs: float | Mapping[str, float] | None
) -> list[Limit]:
    if epochs is None:
        return []
    if full_tokens <= 0:
        raise ConstraintError("epoch caps need the token budget of the full-scale run")
    caps = epochs if isinstance(epochs, Mapping) else dict.fromkeys(domains.names, float(epochs))
    limits = []
    for name, passes in caps.items():
        if not passes > 0:
            raise ConstraintError(f"the epoch cap of {name!r} must be positive; got {passes}")
        domain = domains.domains[domains.index(name)]
        share, drawn = (passes * n / full_tokens for n in (domain.tokens, domain.natural_tokens))
        if min(share, drawn) < 1:
            label = f"{name} at most {passes:g} epochs (share {share:.4g})"
            row = tuple(map(float, domains.vector({name: 1.0})))
            limits.append(Limit(label, row, share, drawn if drawn != share else None))
    return limits
