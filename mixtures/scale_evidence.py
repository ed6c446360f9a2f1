"""Scale evidence: for which scale a recommendation is made, and how far the evidence carries."""

from dataclasses import dataclass

PLAIN = "observed"  # the trial that ranks mixtures by what they scored at the next smaller size
SINGLE = "single_scale"


@dataclass(frozen=True)
class LawTrial:
    """How a scaling law, fitted to the smaller sizes, predicted the largest.

    Attributes:
        law: its name; "observed" ranks mixtures by their own score at the next smaller size.
        error: mean absolute error of the objective; of the level, which a ranking ignores.
        spearman: rank correlation of predicted and observed objective over mixtures.
        decision_accuracy: share of pairs of mixtures that were ordered rightly.
        gain: decision accuracy over that of single-scale ranking.
        low: lower end of the gain's 90 % interval, over resampled mixtures.
        high: its upper end.
        coverage: share of scores inside the law's 90 % interval, over all targets.
        held_out: (observed, predicted) objective per mixture.
        refused: why the law could not be tried; its figures are then 0.
    """

    law: str
    error: float = 0.0
    spearman: float = 0.0
    decision_accuracy: float = 0.0
    gain: float = 0.0
    low: float = 0.0
    high: float = 0.0
    coverage: float = 0.0
    held_out: tuple[tuple[float, float], ...] = ()
    refused: str = ""

    @property
    def regret(self) -> float:
        """Objective of the mixture that it predicts to be best, less the best observed."""
        if not self.held_out:
            return 0.0
        picked, _ = min(self.held_out, key=lambda pair: pair[1])
        return picked - min(observed for observed, _ in self.held_out)


@dataclass(frozen=True)
class ScalePoint:
    """The objective of one mixture at one scale.

    Attributes:
        parameters: of the model.
        tokens: trained on.
        objective: mean over seeds.
        runs: seeds.
    """

    parameters: int
    tokens: int
    objective: float
    runs: int


@dataclass(frozen=True)
class ScaleCurve:
    """One mixture over the scales at which it was trained.

    Attributes:
        name: "natural", "uniform", "best observed", or a number.
        weights: (K,).
        points: from the smallest scale up.
    """

    name: str
    weights: tuple[float, ...]
    points: tuple[ScalePoint, ...]


@dataclass(frozen=True)
class Forecast:
    """What a law, fitted to every size, says of a mixture's objective at the scale asked for.

    Attributes:
        law: its name.
        mixture: a candidate's name.
        mean: predicted objective.
        low: lower end of its 90 % interval.
        high: upper end.
    """

    law: str
    mixture: str
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class ScaleEvidence:
    """For which scale the answer is made, by which law, and how that law was tested.

    Attributes:
        parameters: of the model that the mixture is for.
        tokens: of its run.
        largest_parameters: of the largest model tried.
        largest_tokens: that it was trained on.
        predicted_parameters: of the model whose scores the candidates' predictions are of: those
            of the size ranked, where single-scale ranking is used.
        predicted_tokens: of its run.
        chosen: the law that the recommendation rests on.
        beats: whether it beat single-scale ranking.
        verdict: the comparison in words.
        trials: the back-test, one row per law.
        curves: objective by scale of the mixtures that were trained at several sizes.
        forecasts: what each law that can be fitted says of the candidates at the scale asked for.
    """

    parameters: int
    tokens: int
    largest_parameters: int
    largest_tokens: int
    predicted_parameters: int
    predicted_tokens: int
    chosen: str
    beats: bool
    verdict: str
    trials: tuple[LawTrial, ...] = ()
    curves: tuple[ScaleCurve, ...] = ()
    forecasts: tuple[Forecast, ...] = ()

    @property
    def factors(self) -> tuple[float, float]:
        """How far the answer extrapolates: in parameters and in tokens; 1 is not at all."""
        return self.parameters / self.largest_parameters, self.tokens / self.largest_tokens

    @property
    def statement(self) -> str:
        """The scale and the extrapolation in a sentence."""
        sizes, tokens = self.factors
        return (
            f"The answer is for {self.parameters:,} parameters and {self.tokens:,} tokens: "
            f"{sizes:,.3g} times the parameters and {tokens:,.3g} times the tokens of the "
            f"largest models tried ({self.largest_parameters:,} and {self.largest_tokens:,})."
        )
