"""What a study's answer is for and must satisfy, how it is tested, and when a study gives up."""

from pydantic import Field

from cuvee.flows.recipe.parts import Count, Part, Share, Size
from cuvee.mixtures.errors import RecipeError
from cuvee.mixtures.inference.evidence_grade import RATIO
from cuvee.mixtures.recommendation import REFERENCE, START
from cuvee.proxies import ladder
from cuvee.tasks.validation.paired import AVERAGE, BASELINES, BEST, RECOMMENDED


class GroupPart(Part):
    """A sum of shares held between two values."""

    domains: list[str] = Field(
        description="Domains whose shares are added up.", examples=[["code", "math"]]
    )
    at_least: Share = Field(
        default=0.0, description="Least share of them together, from 0 to 1.", examples=[0.1]
    )
    at_most: Share = Field(
        default=1.0, description="Most share of them together, from 0 to 1.", examples=[0.4]
    )


class ConstraintsPart(Part):
    """What every candidate and the answer satisfy."""

    bounds: dict[str, tuple[Share, Share]] = Field(
        default={},
        description="Least and most share by domain, from 0 to 1 (30 % is 0.3).",
        examples=[{"code": [0.02, 0.3]}],
    )
    groups: list[GroupPart] = Field(
        default=[],
        description="Sums of shares of several domains, held between two values.",
        examples=[[{"domains": ["code", "math"], "at_least": 0.1}]],
    )
    required: dict[str, Share] = Field(
        default={},
        description="Least share above 0 by domain: a domain that every mixture must have.",
        examples=[{"code": 0.05}],
    )
    epochs: float | dict[str, float] | None = Field(
        default=None,
        description="Passes over a domain's text in the run at full scale, at most: one number for "
        "all domains or numbers by domain; null for no cap.",
        examples=[4, {"legal": 2}],
    )
    most_domains: int | None = Field(
        default=None,
        ge=1,
        description="Domains with a share above 0, at most; null for no limit.",
        examples=[5],
    )
    most_kl: float | None = Field(
        default=None,
        ge=0,
        description="Distance from the natural mixture at most, KL divergence in nats; null for no "
        "limit.",
        examples=[0.5],
    )
    ratios: list[dict[str, float]] = Field(
        default=[],
        description="Proportions of domains, each group held as an earlier study found them; only "
        "what a group gets together is searched.",
        examples=[[{"web": 0.6, "books": 0.3}]],
    )


class FullScalePart(Part):
    """The run for which the mixture is chosen; 0 where it is not known."""

    tokens: Count = Field(
        default=0,
        description="Training tokens of the run at full scale. Needed with `corpus`; with `tables` "
        "left out where it is not known.",
        examples=["300B"],
    )
    parameters: Count = Field(
        default=0,
        description="Parameters of the model at full scale; without them the answer of a ladder is "
        "for the largest model it trained.",
        examples=["7B"],
    )


class SizePart(Part):
    """A size of proxies and the tokens of each training at which a claim is tested."""

    size: Size = Field(
        description="Size of the proxies: a name of the ladder, or a shape as in `proxy.size`.",
        examples=["2M"],
    )
    tokens: Count = Field(description="Training tokens of each of them.", examples=["40M"])


class ConfirmPart(Part):
    """Fresh runs that test the recommendation."""

    seeds: int = Field(
        default=3,
        ge=2,
        le=1000,
        description="Runs of each mixture, under seeds that the search did not see; gains are "
        "paired by seed.",
        examples=[5],
    )
    wanted_gain: float | None = Field(
        default=None,
        gt=0,
        description="A gain in the objective, in bits per byte, that is worth showing: once it "
        "knows the noise, `cuvee plan` says how many seeds show it in 4 of 5 confirmations.",
        examples=[0.01],
    )
    sizes: list[SizePart] = Field(
        default=[],
        description="Sizes at which `cuvee confirm` tests the claim; `cuvee run` tests it at the "
        "study's own.",
        examples=[[{"size": "2M", "tokens": "40M"}]],
    )
    mixtures: dict[str, dict[str, float]] = Field(
        default={},
        description="Further mixtures to be compared, by name: shares by domain that sum to 1.",
        examples=[{"ours": {"web": 0.7, "code": 0.3}}],
    )
    best_observed: bool = Field(
        default=True,
        description="Compare with the best mixture that was trained, too.",
        examples=[False],
    )

    def check(self) -> None:
        """Hold sizes and names to what can be trained and told apart.

        Raises:
            RecipeError: a size that cannot be trained or stands twice, or a name that is taken.
        """
        places = [(part.size, part.tokens) for part in self.sizes]
        for size, tokens in places:
            ladder.training_plan(size, tokens, vocabulary=1)  # which changes no step
        twice = next((place for place in places if places.count(place) > 1), None)
        if twice:
            raise RecipeError(f"confirm.sizes names {twice[0]} with {twice[1]:,} tokens twice")
        taken = {RECOMMENDED, BEST, AVERAGE, REFERENCE, START, *BASELINES} & set(self.mixtures)
        if taken:
            raise RecipeError(
                f"confirm.mixtures cannot bear the name {min(taken)!r}, which another mixture "
                "of an answer has already; choose another"
            )


class LimitsPart(Part):
    """When to give up, and which targets are too noisy to be trusted."""

    failed_share: float = Field(
        default=0.2,
        ge=0,
        le=1,
        description="Share of trainings that may fail, from 0 to 1, before the study stops.",
        examples=[0.5],
    )
    least_signal: float = Field(
        default=RATIO,
        ge=0,
        description="Spread of a target over mixtures, in spreads over seeds, below which the "
        "target is flagged as mostly noise.",
        examples=[3],
    )
    drop_noisy: bool = Field(
        default=False,
        description="Recommend without the targets that are flagged; for objective `mean` alone.",
        examples=[True],
    )
