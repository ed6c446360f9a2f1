"""Scale evidence: for which scale a recommendation is made, and how far the evidence carries."""

from dataclasses import dataclass

PLAIN = "observed"  # the trial that ranks mixtures by what they scored at the next smaller size
SINGLE = "single_scale"
AVERAGE = "average"  # of the laws of scale, by back-tested weight


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
        forecasts: what each law that can be fitted says of the candidates at the scale asked for,
            and what they say together.
        weights: share of each law in the average, (name, share) pairs; empty where none was tested.
        level: half-width of the 90 % interval of a score at that scale, relative.
        order: half-width of the 90 % interval of a difference between two mixtures there, relative
            to a score, by errors of the laws that no run at smaller sizes shows.
        untested: why no back-test says how far the laws err, and so no interval is given.
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
    weights: tuple[tuple[str, float], ...] = ()
    level: float = 0.0
    order: float = 0.0
    untested: str = ""

    @property
    def used(self) -> tuple[str, ...]:
        """The laws that the recommendation rests on."""
        if self.chosen != AVERAGE or not self.weights:
            return (self.chosen,)
        return tuple(name for name, _ in self.weights)

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

    @property
    def certainty(self) -> str:
        """What the extrapolation costs in certainty, in words; empty where it goes nowhere."""
        if max(self.factors) <= 1:
            return ""
        by = "these laws" if self.beats else "ranking"
        known = (
            f"a score there is known to +-{self.level:.1%} by the laws of scale",
            f"differences of mixtures may be off by +-{self.order:.1%} of a score by {by}",
        )
        given = (self.level, self.order)
        pairs = zip(known, given, strict=True)
        told = ", and ".join(text for text, half in pairs if half)
        lines = [
            f"What that costs in certainty, by back-tests (90%): {told}. Runs at "
            "a size between would narrow it."
        ]
        if not self.level:
            lines.append(
                "No interval is given for scores at that scale, for no back-test can speak of it "
                f"({self.untested or 'none was made'}): train mixtures at one more size."
            )
        return " ".join(lines if told else lines[1:])
