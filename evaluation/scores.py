"""What a proxy is worth: the scores of every proxy of a pack, from one pass over everything.

For a task with choices, ll(c) is the log-likelihood of a choice and |c| its UTF-8 bytes, both with
the blank before it. Over items i with gold answers g:

    value        sum -log2 p(g_i) / sum |g_i|            bits per byte, lower is better
    probability  mean of exp ll(g) / sum_c exp ll(c)
    margin       mean of ll(g)/|g| - max_{c != g} ll(c)/|c|      nats per byte
    accuracy     lm-eval's "acc", and "acc_norm" as accuracy_norm; other averaged metrics as named
    chance       mean of 1 / number of choices

The value is micro-averaged, so a long answer weighs more than a short one: its error is that of a
ratio (see perplexity), and it is less noisy than a mean of ratios over answers of one word.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from cuvee.evaluation import held_out, metrics
from cuvee.evaluation.held_out import Text
from cuvee.evaluation.likelihood import Likelihood, answer_totals
from cuvee.evaluation.membership import LEAK, token_frequency
from cuvee.evaluation.membership_audit import TokenLikelihood, audit_items
from cuvee.evaluation.requests import RequestEncoder, TaskRequests
from cuvee.evaluation.suites import Limits, Suite, short_name
from cuvee.mixtures.errors import DataError, EvidenceError
from cuvee.mixtures.runs.run_results import Score
from cuvee.mixtures.runs.unit_scores import UnitScores

END_OF_TEXT = "<|endoftext|>"
Floats = NDArray[np.float64]
USUAL = Limits()
Units = dict[str, UnitScores]
Grade = tuple[Score, dict[str, Score], Units]  # value and details of a task; "" has the value's


@dataclass(frozen=True)
class PackScores:
    """One proxy's scores.

    Attributes:
        scores: "domain/<name>" and "task/<name>", in bits per byte.
        details: what is shown but not optimised, "task/<name>/accuracy" and others.
        units: both by document or item; details that are no mean over all items have none.
        problem: why there are no scores, or "". A proxy with non-finite likelihoods has none; its
            neighbors in the pack are not touched.
    """

    scores: dict[str, Score] = field(default_factory=dict)
    details: dict[str, Score] = field(default_factory=dict)
    units: Units = field(default_factory=dict, compare=False, repr=False)
    problem: str = ""


BROKEN = PackScores(problem="its likelihood of the text it is scored on is not a finite number")


def score_pack(
    likelihood: Likelihood,
    *,
    tokenizer_path: Path,
    valid: Mapping[str, Text],
    suite: Suite,
    limits: Limits = USUAL,
    eot: int | None = None,
) -> list[PackScores]:
    """Score every proxy of a pack on held-out text and on a suite of tasks.

    Args:
        likelihood: the pack.
        tokenizer_path: its tokenizer.
        valid: held-out tokens (n,), document starts (D+1,) and bytes (D,), by domain.
        suite: tasks.
        limits: how much text is scored, and by which detectors items are audited.
        eot: id of the token that ends a document; None: that of <|endoftext|>.

    Returns:
        one per proxy, in the pack's order.

    Raises:
        DataError: a task or a domain cannot be scored; `check_tasks` finds most of it beforehand.
    """
    eot = end_of_text_id(tokenizer_path) if eot is None else eot
    context = likelihood.context
    exams: tuple[TaskRequests, ...] = ()
    if suite.tasks:
        from cuvee.evaluation import lm_eval_tasks  # lm-eval takes seconds to import

        exams = lm_eval_tasks.task_requests(
            suite, tokenizer_path=tokenizer_path, eot=eot, context=context
        )
    samples = held_out.held_out_samples(
        valid, tokenizer_path=tokenizer_path, eot=eot, context=context, limit=limits.tokens
    )
    scored = score_requests(likelihood, samples, exams)
    if limits.detectors and suite.tasks and isinstance(likelihood, TokenLikelihood):
        definition = tokenizer_path.read_text(encoding="utf-8")
        encoder = RequestEncoder(lm_eval_tasks.plain_tokenizer(definition), eot, context)
        text = np.concatenate([np.zeros(0, np.int64), *(tokens for tokens, _, _ in valid.values())])
        frequency = token_frequency(text, 1 + max(encoder.tokenizer.get_vocab().values()))
        for name in filter(suite.file, suite.tasks):  # what a task of lm-eval asks has no such form
            items = list(lm_eval_tasks.chosen_items(suite, name).values())
            told = audit_items(
                likelihood, items, encoder=encoder, frequency=frequency, names=limits.detectors
            )
            key = f"task/{short_name(name)}{LEAK}"
            for one, values in zip(scored, told, strict=True):
                if not one.problem:
                    one.details.update({key + n: mean_score(v) for n, v in values.items()})
    return scored


def score_requests(
    likelihood: Likelihood,
    samples: Mapping[str, held_out.HeldOutSample],
    exams: Sequence[TaskRequests],
) -> list[PackScores]:
    """Score every model of a pack on what was built for its tokenizer and context, in one pass."""
    parts = [sample.rows for sample in samples.values()] + [exam.rows for exam in exams]
    nats, greedy = answer_totals(likelihood, [row for part in parts for row in part])
    sound = [bool(np.isfinite(line).all()) for line in nats]
    if not any(sound):
        return [BROKEN] * likelihood.models
    ends = np.cumsum([len(part) for part in parts])[:-1]
    answers = list(
        zip(np.split(nats[sound], ends, 1), np.split(greedy[sound], ends, 1), strict=True)
    )
    graded = [
        _exam(exam, *exam.answers(*answer))
        for exam, answer in zip(exams, answers[len(samples) :], strict=True)
    ]
    texts = [nats for nats, _ in answers[: len(samples)]]
    scored = iter(
        _proxy(samples, exams, [n[k] for n in texts], [grades[k] for grades in graded])
        for k in range(sum(sound))
    )
    return [next(scored) if whole else BROKEN for whole in sound]


def _proxy(
    samples: Mapping[str, held_out.HeldOutSample],
    exams: Sequence[TaskRequests],
    nats: Sequence[Floats],
    grades: Sequence[Grade],
) -> PackScores:
    """The scores of one proxy from its nats on each sample (rows,) and its grade in each exam."""
    result = PackScores()
    for (name, sample), line in zip(samples.items(), nats, strict=True):
        result.scores[f"domain/{name}"] = sample.score(line)
        result.units[f"domain/{name}"] = sample.units(line)
    for exam, (value, details, units) in zip(exams, grades, strict=True):
        result.scores[f"task/{exam.name}"] = value
        result.details.update({f"task/{exam.name}/{name}": d for name, d in details.items()})
        result.units.update(
            {f"task/{exam.name}{name and '/'}{name}": u for name, u in units.items()}
        )
    return result


def end_of_text_id(tokenizer_path: Path) -> int:
    """Id of the end-of-text token.

    Raises:
        DataError: the tokenizer has none.
    """
    eot = Tokenizer.from_file(str(tokenizer_path)).token_to_id(END_OF_TEXT)
    if eot is None:
        raise DataError(f"the tokenizer {tokenizer_path} has no {END_OF_TEXT} token")
    return int(eot)


def _exam(exam: TaskRequests, nats: Floats, greedy: NDArray[np.bool_]) -> list[Grade]:
    """The value and the details of a task for each model, from all answers (K, requests)."""
    starts = np.cumsum([0] + [len(item.instances) for item in exam.items[:-1]])
    gold = starts + np.array([item.gold for item in exam.items])
    sizes = np.array([float(size) for item in exam.items for size in item.sizes])
    details: dict[str, Floats] = {}
    choices = np.array([item.choices for item in exam.items])
    if (choices > 1).all():
        details["probability"], details["margin"] = _choices(nats, sizes, starts, choices, gold)
        details["chance"] = np.tile(1.0 / choices, (len(nats), 1))
    names = {"acc": "accuracy", "acc_norm": "accuracy_norm"}
    for name, values in metrics.score_answers(exam, nats, greedy).items():
        details[names.get(name, name)] = values
    grades = []
    whole = [n for n, v in details.items() if n != "chance" and v.shape[1] == len(exam.items)]
    for k, line in enumerate(nats):
        bits, ones = -line[gold] / np.log(2), np.ones(len(gold))
        value = held_out.bits_per_byte(bits, sizes[gold])
        units = {"": UnitScores(exam.keys, bits, sizes[gold])}
        units |= {name: UnitScores(exam.keys, details[name][k], ones) for name in whole}
        scores = {name: mean_score(values[k]) for name, values in details.items()}
        if "chance" in scores:
            scores["chance"] = Score(scores["chance"].value, 0.0, len(choices))
        if exam.left_out:
            scores["left_out"] = Score(float(exam.left_out), 0.0, len(exam.items) + exam.left_out)
        grades.append((value, scores, units))
    return grades


def _choices(
    nats: Floats,
    sizes: Floats,
    starts: NDArray[np.int64],
    counts: NDArray[np.int64],
    gold: NDArray[np.int64],
) -> tuple[Floats, Floats]:
    """Normalised probability and margin in nats per byte of the gold answers, (K, items) each."""
    width = int(counts.max())
    where = starts[:, None] + np.arange(width)
    real = np.arange(width) < counts[:, None]
    where = np.where(real, where, 0)
    logs = np.where(real, nats[:, where], -np.inf)
    top = logs.max(axis=-1, keepdims=True)
    probability = np.exp(nats[:, gold] - top[..., 0]) / np.exp(logs - top).sum(axis=-1)
    others = real & (where != gold[:, None])
    best = np.where(others, nats[:, where] / sizes[where], -np.inf).max(axis=-1)
    return probability, nats[:, gold] / sizes[gold] - best


def mean_score(values: Floats) -> Score:
    """Mean over items with its standard error."""
    error = float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0
    return Score(float(np.mean(values)), error, len(values))


def untrained_baseline(scored: Sequence[PackScores]) -> dict[str, Score]:
    """What proxies score before training: the baseline beside every score.

    Args:
        scored: `score_pack` of an untrained pack, one per initialization.

    Returns:
        every score and detail, averaged over the pack: its error is over initializations where
        there are several, else over items.

    Raises:
        EvidenceError: none of them has scores.
    """
    kept = [{**one.scores, **one.details} for one in scored if not one.problem]
    if not kept:
        raise EvidenceError("no untrained proxy could be scored")
    if len(kept) == 1:
        return kept[0]
    result = {}
    for name, first in kept[0].items():
        over = mean_score(np.array([one[name].value for one in kept]))
        result[name] = Score(over.value, over.stderr, first.n)
    return result
