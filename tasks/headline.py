"""What a reader must know first, in words: the four answers, and the warnings before them.

The report and the record open with the same sentences, so they are made here. Wording follows the
intervals: a gain whose interval includes zero is "within the noise", whatever its mean.
"""

from tasks.study import RECOMMENDED, Paired, Study

UNIT = "bits per byte"


def answers(study: Study) -> tuple[tuple[str, str], ...]:
    """(question, answer) pairs: what, how sure, against what, at what cost."""
    return (
        ("What is recommended", _what(study)),
        ("How sure", _sure(study)),
        ("Against what", _against(study)),
        ("At what cost", _cost(study)),
    )


def tone(study: Study) -> str:
    """`good` if confirmed beyond the noise against every baseline, `bad` if worse than one
    beyond the noise, else `caution`."""
    pairs = list(study.confirmation.objective.values()) if study.confirmation else []
    if any(pair.high < 0 for pair in pairs):
        return "bad"
    return "good" if pairs and all(pair.low > 0 for pair in pairs) else "caution"


def figures(study: Study) -> tuple[tuple[str, str, str], ...]:
    """(label, value, note) of the numbers that sum the study up."""
    found = []
    if study.confirmation:
        for name, pair in study.confirmation.objective.items():
            note = f"{UNIT}, {pair.low:+.3f} to {pair.high:+.3f}: {pair.judgment}"
            found.append((f"Confirmed gain over {name}", f"{pair.gain:+.3f}", note))
    else:
        for name, estimate in study.recommendation.gains:
            note = f"{UNIT}, {estimate.low:+.3f} to {estimate.high:+.3f}: not confirmed"
            found.append((f"Predicted gain over {name}", f"{estimate.mean:+.3f}", note))
    if study.law:
        note = f"of the objective, held out, by {study.law.law}"
        found.append(("Rank correlation", f"{study.law.spearman:.2f}", note))
    note = f"{study.trained_now} proxies trained now, {study.reused} reused"
    found.append(("Minutes", f"{study.minutes:.1f}", note))
    return tuple(found)


def warnings(study: Study) -> tuple[str, ...]:
    """The recommendation's own warnings, then what the confirmation and the failures add."""
    found = list(study.recommendation.warnings)
    for name, estimate in study.recommendation.gains:
        if estimate.high < 0:
            found.append(f"The law predicts that the {name} mixture is better than this one.")
    if study.confirmation is None:
        found.append(
            "The recommendation was not confirmed by training it: its gains are predicted."
        )
    else:
        for name, pair in study.confirmation.objective.items():
            if pair.low <= 0:
                found.append(f"Against the {name} mixture, the confirmed gain is {gain(pair)}.")
        found += _surprise(study)
    if study.failed:
        found.append(
            f"{len(study.failed)} of {study.proxies} proxies failed and are left out; "
            "they are listed below."
        )
    return tuple(found)


def _surprise(study: Study) -> list[str]:
    confirmed = study.confirmation.values(RECOMMENDED) if study.confirmation else {}
    if not confirmed:
        return []
    expected = study.recommendation.candidate(RECOMMENDED).objective
    mean = sum(confirmed.values()) / len(confirmed)
    if expected.low <= mean <= expected.high:
        return []
    return [
        f"The confirmed objective of the recommended mixture, {mean:.4f}, lies outside the "
        f"interval that the law predicted, {expected.low:.4f} to {expected.high:.4f}."
    ]


def gain(pair: Paired, level: float | None = None) -> str:
    """A paired gain in words, such as `+0.041 bits per byte (0.020 to 0.062): better ...`."""
    sure = f"{level:.0%} interval " if level else ""
    return (
        f"{pair.gain:+.4f} {UNIT} ({sure}{pair.low:+.4f} to {pair.high:+.4f}, "
        f"{pair.n} paired {'seed' if pair.n == 1 else 'seeds'}): {pair.judgment}"
    )


def _what(study: Study) -> str:
    ours = study.recommendation
    order = sorted(range(len(ours.domains)), key=lambda i: -ours.weights[i])
    shares = ", ".join(f"{ours.domains[i]} {ours.weights[i]:.1%}" for i in order)
    stages = f" in {len(ours.stages)} stages, on average" if len(ours.stages) > 1 else ""
    return f"Shares of training tokens{stages}: {shares}."


def _sure(study: Study) -> str:
    parts = []
    if study.confirmation:
        level = study.confirmation.level
        for name, pair in study.confirmation.objective.items():
            parts.append(f"Confirmed against {name}: {gain(pair, level)}.")
    else:
        parts.append("Predicted only; no fresh run has confirmed it.")
    if study.law:
        parts.append(
            f"The law {study.law.law} ordered runs that it had not seen with a rank correlation "
            f"of {study.law.spearman:.2f} in the objective."
        )
    return " ".join(parts)


def _against(study: Study) -> str:
    parts = [
        f"{name} {estimate.mean:+.4f} ({estimate.low:+.4f} to {estimate.high:+.4f})"
        for name, estimate in study.recommendation.gains
    ]
    if not parts:
        return "No baseline was predicted."
    return f"Predicted gain in the objective, {UNIT}, positive is better: {'; '.join(parts)}."


def _cost(study: Study) -> str:
    proxy, flops = study.problem.proxy, sum(run.flops for run in study.runs)
    if study.confirmation:
        flops += sum(run.result.flops for run in study.confirmation.runs)
    return (
        f"{study.proxies} proxies of size {proxy.size}, {proxy.tokens:,} tokens each: "
        f"{study.trained_now} trained now, {study.reused} reused, {len(study.failed)} failed; "
        f"{study.minutes:.1f} minutes, {flops:.2e} FLOPs in all, "
        f"{study.tokens_per_second:,.0f} tokens per second and core."
    )
