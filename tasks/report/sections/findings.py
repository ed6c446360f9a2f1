"""What one sees in each picture of the report, in a sentence: its text for who cannot see it."""

from collections import Counter
from collections.abc import Sequence

from cuvee.mixtures.recommendation import Estimate, Front, LawEvidence
from cuvee.mixtures.scale_evidence import ScaleEvidence
from cuvee.mixtures.skill_graph import SkillGraph
from cuvee.tasks.study.answers import UNIT, gain_sentence, size_text
from cuvee.tasks.study.study import Study
from cuvee.tasks.validation.paired import RECOMMENDED, Confirmation, Judgement

MOVES = 3  # domains named that gain or lose most


def shares_finding(study: Study) -> str:
    """Which domains the recommended mixture draws more from than natural, and from which less."""
    ours, natural = study.recommendation, study.problem.domains.natural
    moves = [
        (float(w - n), name, w, n)
        for name, w, n in zip(ours.domains, ours.weights, natural, strict=True)
    ]
    moves.sort(key=lambda move: -abs(move[0]))
    named = [
        f"{name} {'up' if by > 0 else 'down'} from {before:.1%} to {share:.1%}"
        for by, name, share, before in moves[:MOVES]
    ]
    return f"Against the natural mixture, the largest changes are {', '.join(named)}."


def objectives_finding(study: Study) -> str:
    """The order of the mixtures, the best first."""
    means = {c.name: c.objective.mean for c in study.recommendation.candidates}
    if study.confirmation:
        fresh = {name: study.confirmation.mean(name) for name in study.confirmation.mixtures}
        means |= {name: value for name, value in fresh.items() if value is not None}
    order = sorted(means, key=lambda name: means[name])
    return f"From the best: {', '.join(f'{name} {means[name]:.3f}' for name in order)} {UNIT}."


def gains_finding(found: Confirmation) -> str:
    """On how many targets the recommended mixture is better or worse beyond the noise."""
    parts = []
    for name, pairs in found.targets.items():
        count = Counter(pair.judgment for pair in pairs)
        parts.append(
            f"over {name}, {count[Judgement.BETTER]} of {len(pairs)} targets are better by more "
            f"than the noise and {count[Judgement.WORSE]} worse"
        )
    return _sentence("; ".join(parts) or "no single target is compared")


def trial_finding(gains: Sequence[tuple[str, Estimate]]) -> str:
    """The gains of a trial."""
    return f"In its trial the recommended mixture is {gain_sentence(gains)} {UNIT}."


def larger_sizes_finding(study: Study) -> str:
    """The gain over each baseline at the smallest and at the largest size."""
    steps = study.confirmations
    parts = []
    for name in dict.fromkeys(name for step in steps for name in step.objective):
        gains = [
            (size_text(study, s), s.objective[name].gain) for s in steps if name in s.objective
        ]
        (first, low), (last, high) = gains[0], gains[-1]
        parts.append(f"the gain over {name} is {low:+.3f} at {first} and {high:+.3f} at {last}")
    return _sentence("; ".join(parts) or "no gain is known")


def front_finding(found: Front) -> str:
    """What the whole way from one end of a front to the other gives and costs."""
    first, last = found.points[0], found.points[-1]
    return (
        f"Along the front {found.second} falls from {first.second:.3f} to {last.second:.3f} while "
        f"{found.first} rises from {first.first:.3f} to {last.first:.3f}."
    )


def laws_finding(laws: Sequence[LawEvidence]) -> str:
    """The rank correlation of each law."""
    parts = [f"{law.law} {law.spearman:.2f}{' (chosen)' if law.chosen else ''}" for law in laws]
    return f"Rank correlation of predicted and observed: {', '.join(parts)}."


def learning_curve_finding(laws: Sequence[LawEvidence]) -> str:
    """Whether more runs still help."""
    parts = [
        f"{law.law} goes from {law.learning_curve[0][1]:.2f} with {law.learning_curve[0][0]} runs "
        f"to {law.learning_curve[-1][1]:.2f} with {law.learning_curve[-1][0]}"
        for law in laws
        if law.learning_curve
    ]
    return _sentence("; ".join(parts))


def loss_curves_finding(study: Study) -> str:
    """Where the losses of all runs end."""
    ends = [run.curve[-1][1] for run in study.runs if run.curve]
    return (
        f"The training losses of {len(ends)} runs end between {min(ends):.2f} and {max(ends):.2f} "
        "nats per token."
    )


def trajectory_finding(
    domains: Sequence[str], trajectory: Sequence[tuple[int, tuple[float, ...]]]
) -> str:
    """The weights that moved most."""
    moves = zip(domains, trajectory[0][1], trajectory[-1][1], strict=True)
    most = sorted(moves, key=lambda move: -abs(move[2] - move[1]))[:MOVES]
    parts = [f"{name} goes from {before:.1%} to {after:.1%}" for name, before, after in most]
    return _sentence(", ".join(parts))


def skill_graph_finding(graph: SkillGraph) -> str:
    """The strongest edge between different skills."""
    edges = [
        (edge, row, column.removeprefix("domain/"))
        for row, values in zip(graph.rows, graph.edges, strict=True)
        for column, edge in zip(graph.columns, values, strict=True)
        if column.removeprefix("domain/") != row
    ]
    edge, row, column = max(edges, default=(0.0, "", ""))
    return f"Training on {row} helps {column} most, by {edge:.3f}." if row else "There is no edge."


def scales_finding(found: ScaleEvidence) -> str:
    """Whether the recommended order of mixtures stays over sizes, by the largest and smallest."""
    ends = [(c.name, c.points[0].objective, c.points[-1].objective) for c in found.curves]
    named = [end for end in ends if end[0] in (RECOMMENDED, "natural", "uniform")] or ends[:MOVES]
    parts = [f"{name} falls from {first:.3f} to {last:.3f}" for name, first, last in named]
    return _sentence(f"from the smallest to the largest size, {', '.join(parts)} {UNIT}")


def shared_text_finding(near: float, exact: float, _: int, name: str, other: str) -> str:
    """The domain that is most contained in another."""
    return (
        f"Most is shared of {name}: {near:.1%} of its documents are also in {other}, {exact:.1%} "
        "word for word."
    )


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."
