"""Problem: what is to be chosen, from what, for what, within what."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from cuvee.mixtures import simplex
from cuvee.mixtures.constraints import Constraints
from cuvee.mixtures.domains import Array, DomainSet
from cuvee.mixtures.errors import RecipeError
from cuvee.mixtures.laws.bounds import Limits, score_limits
from cuvee.mixtures.objectives import Objective
from cuvee.mixtures.runs.run_spec import VERSION, RunSpec, Stage
from cuvee.mixtures.units import count_text

FIRST_SEED = 0  # of every design run and every trial: equal seeds make mixtures comparable in pairs


@dataclass(frozen=True)
class Proxy:
    """How the small models of a study are trained, as `RunSpec` has it; one dial each.

    Attributes:
        size: a step of the ladder, such as "0.6M".
        tokens: training tokens per proxy.
        schedule: "wsd", "cosine" or "constant".
        precision: "float32" or "bfloat16".
        rate: multiplier on the ladder's learning rate.
        repetition, average, start, trainer: see `RunSpec`.
    """

    size: str
    tokens: int
    schedule: str = "wsd"
    precision: str = "float32"
    rate: float = 1.0
    repetition: float = 1.0
    average: float = 0.0
    start: str = ""
    trainer: str = field(default="", repr=False)  # earlier fits are found by what repr gives


@dataclass(frozen=True)
class Problem:
    """A mixture to be found.

    Attributes:
        domains: the K domains, in the order of every weight vector.
        targets: the M scores that each run brings, in the order of every score matrix.
        objective: one number per row of scores; lower is better.
        constraints: what every candidate and the answer must satisfy.
        proxy: how candidates are tried.
        full_tokens: tokens of the run for which the mixture is chosen.
        scoring: hash of what proxies are scored on.
        full_parameters: of the model for which the mixture is chosen, embeddings included; 0 where
            the answer is for the largest model tried.
        sizes: (size, parameters) pairs of the ladder's steps, embeddings of at most 4096 tokens
            included, so that a size means the same under every tokenizer.
        limits: (target, least, most) of scores that can be no less or no more, such as accuracies.
        version: of its runs; an earlier one where a study of that version is gone on with.
    """

    domains: DomainSet
    targets: tuple[str, ...]
    objective: Objective
    constraints: Constraints
    proxy: Proxy
    full_tokens: int
    scoring: str = ""
    full_parameters: int = 0
    sizes: tuple[tuple[str, int], ...] = ()
    limits: Limits = field(default=(), repr=False)
    version: int = field(default=VERSION, repr=False)  # earlier fits are found by what repr gives

    def __post_init__(self) -> None:
        missing = [t for t in self.objective.targets if t not in self.targets]
        if missing:
            raise RecipeError(
                f"the objective asks for {', '.join(missing)}, which no run measures; "
                f"measured: {', '.join(self.targets)}"
            )

    @property
    def reference(self) -> Array:
        """The mixture (K,) that gains and floors of the objective are relative to."""
        return self.objective.reference_shares(self.domains)

    @property
    def score_limits(self) -> Array | None:
        """(M, 2) least and most that each target's score can be; None where none is declared."""
        return score_limits(self.targets, self.limits)

    def parameters(self, size: str) -> int:
        """Parameters of a model of a size, embeddings included.

        Raises:
            RecipeError: the problem does not know the size.
        """
        known = dict(self.sizes)
        if size not in known:
            raise RecipeError(
                f"this problem does not say how many parameters size {size!r} has; "
                f"it knows {', '.join(known) or 'none'}"
            )
        return known[size]

    @property
    def short_samples(self) -> dict[str, int]:
        """Domains whose sample a proxy may repeat more often than the run at full scale repeats the
        domain, with the tokens that a sample needs so that this cannot be.

        Drawn at a share w for t tokens, a proxy passes w t / S times over a sample of S tokens, the
        full run of T w T / U times over the domain of U: the sample is large enough where
        S >= U t / T, whatever w is. Passes below one repeat nothing.
        """
        most = self.proxy.tokens * self.constraints.bounds[1]
        wanted = np.minimum(
            most, self.domains.tokens * self.proxy.tokens / max(1, self.full_tokens)
        )
        return {
            domain.name: int(np.ceil(need))
            for domain, need in zip(self.domains, wanted, strict=True)
            if domain.sampled and domain.stored < need
        }

    @property
    def sample_warnings(self) -> tuple[str, ...]:
        """A sentence on each domain of `short_samples`."""
        return tuple(
            f"The sample of {name} has {count_text(self.domains.domains[i].stored)} tokens, and "
            f"proxies of {count_text(self.proxy.tokens)} may repeat it more often than the run at "
            f"full scale repeats the domain: take {count_text(need)} or more"
            for name, need in self.short_samples.items()
            for i in [self.domains.index(name)]
        )

    @property
    def size_notes(self) -> tuple[str, ...]:
        """What a reader must know of the domains' sizes, in sentences."""
        note = self.domains.natural_note
        return (*self.sample_warnings, *([note] if note else ()))

    def spec(
        self,
        weights: Sequence[float],
        seed: int,
        size: str | None = None,
        tokens: int | None = None,
    ) -> RunSpec:
        """The spec of a proxy trained at fixed shares; arguments as `staged`, weights (K,)."""
        shares = tuple(
            float(w) for w in simplex.check_mixture(np.asarray(weights), self.domains.names)
        )
        return self.staged((Stage(shares),), seed, size, tokens)

    def staged(
        self,
        stages: Sequence[Stage],
        seed: int,
        size: str | None = None,
        tokens: int | None = None,
    ) -> RunSpec:
        """The spec of a proxy whose mixture changes by stages.

        Args:
            stages: shares of tokens over time.
            seed: of initialisation and data order.
            size: another step of the ladder than the study's own.
            tokens: another number of training tokens than the study's own.
        """
        own = self.proxy
        proxy = replace(own, size=size or own.size, tokens=tokens or own.tokens)
        return RunSpec(
            domains=self.domains.names,
            identities=self.domains.identities,
            stages=tuple(stages),
            seed=seed,
            scoring=self.scoring,
            heldout=self.domains.heldout if self.version == VERSION else (),
            version=self.version,
            sampled=tuple((d.identity, d.stored / d.tokens) for d in self.domains if d.sampled)
            if proxy.repetition < 1
            else (),
            **vars(proxy),
        )
