"""lm-eval on packs against lm-eval's own HFLM on the same models."""

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path

os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from cuvee.evaluation import benchmarks, lm_eval_tasks, scores, suites
from cuvee.evaluation import metrics as judge
from cuvee.evaluation.likelihood import AnswerRow, answer_totals
from cuvee.mixtures.errors import DataError, EvidenceError, RecipeError, UnknownName
from cuvee.proxies.ladder import model_size
from cuvee.proxies.model.likelihood import PackLikelihood
from cuvee.proxies.model.transformer import PackModel
from cuvee.proxies.train import checkpoint

CONTEXT = 48
QUESTIONS = (
    [
        {
            "query": f"Question {i}: what does the {animal} say?\nAnswer:" + " " * (i % 3),
            "choices": [f"the {animal} says {'so ' * (i % 4)}", "nothing at all", f"no {i}"][
                : 2 + i % 2
            ],
            "gold": i % 2,
        }
        for i, animal in enumerate(
            ["cat", "dog", "owl", "fox", "hen", "ox", "na\u00efve \u718a"] * 3
        )
    ]
    + [{"query": "", "choices": ["empty context", "is allowed"], "gold": 0}]
    + [{"query": "much too long for the context " * 9, "choices": ["and", "so on"], "gold": 1}]
)
TEXTS = [{"text": f"def f{i}(x):\n    return x + {i}  # caf\u00e9\n" * (1 + i)} for i in range(6)]


class Stack:
    """A pack made of transformers models, answering one model after another."""

    def __init__(self, members: Sequence[torch.nn.Module], context: int = CONTEXT) -> None:
        self.members, self.models, self.context = members, len(members), context
        self.tokens = 0

    @torch.inference_mode()
    def answer(self, contexts, answers):
        """Every answer alone after its context, without padding: slow and plain."""
        nats, greedy = [], []
        for member in self.members:
            for context, some in zip(contexts, answers, strict=True):
                for answer in some:
                    whole = torch.tensor([*context, *answer])
                    assert len(whole) <= self.context + 1
                    self.tokens += len(answer)
                    log_p = torch.log_softmax(member(whole[None, :-1]).logits[0].float(), dim=-1)
                    log_p, right = log_p[len(context) - 1 :], whole[len(context) :]
                    nats.append(log_p.gather(-1, right[:, None]).double().sum())
                    greedy.append((log_p.argmax(-1) == right).all())
        shape = (self.models, -1)
        return torch.stack(nats).view(shape), torch.stack(greedy).view(shape)


def write(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def tokenizer_path(tmp_path_factory):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([json.dumps(QUESTIONS), json.dumps(TEXTS)], trainer)
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    tokenizer.save(str(path))
    return path


def llama(seed: int, tokenizer_path: Path) -> torch.nn.Module:
    """A small model of random weights, large enough that answers differ clearly."""
    torch.manual_seed(seed)
    from transformers import LlamaConfig, LlamaForCausalLM  # seconds, for a worker without it

    config = LlamaConfig(
        vocab_size=Tokenizer.from_file(str(tokenizer_path)).get_vocab_size(),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=CONTEXT,
        initializer_range=0.3,
        bos_token_id=None,
        eos_token_id=0,
    )
    return LlamaForCausalLM(config).eval()


@pytest.fixture(scope="module")
def members(tokenizer_path):
    return [llama(seed, tokenizer_path) for seed in (1, 2)]


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    data = tmp_path_factory.mktemp("data")
    given = {"questions": QUESTIONS, "texts": TEXTS}
    own = {
        n: benchmarks.adopt_benchmark(write(data / f"{n}.src", rows), data, n)
        for n, rows in given.items()
    }
    return suites.suite([], data, own=own)


def own(name: str, path: Path) -> suites.Suite:
    """A suite of one benchmark file."""
    return suites.suite([], path.parent, own={name: path})


def hflm(suite: suites.Suite, member: torch.nn.Module, tokenizer_path: Path) -> dict:
    """lm-eval's own results, samples included."""
    from lm_eval.evaluator import evaluate
    from lm_eval.models.huggingface import HFLM
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(tokenizer_path), eos_token="<|endoftext|>"
    )
    tasks = {name: lm_eval_tasks._load(suite, name)[0] for name in suite.tasks}
    model = HFLM(pretrained=member, tokenizer=tokenizer, batch_size=4)
    return evaluate(model, {"tasks": tasks, "groups": {}}, bootstrap_iters=0)


@pytest.fixture(scope="module")
def reference(suite, members, tokenizer_path):
    return [hflm(suite, member, tokenizer_path) for member in members]


@pytest.mark.parametrize("pack", [[0], [1], [0, 1], [1, 0]])
def test_scores_equal_those_of_hflm(pack, reference, suite, members, tokenizer_path):
    """Catches a model axis mixed up, blanks not moved, a wrong prefix or truncation, and batches
    whose padding leaks into the answers."""
    likelihood = Stack([members[k] for k in pack])
    exams = lm_eval_tasks.task_requests(
        suite, tokenizer_path=tokenizer_path, eot=0, context=CONTEXT
    )
    scored = scores.score_pack(likelihood, tokenizer_path=tokenizer_path, valid={}, suite=suite)
    for place, k in enumerate(pack):
        expected = reference[k]
        for exam in exams:
            nats, greedy = answer_totals(likelihood, exam.rows)
            found, hits = exam.answers(nats[place], greedy[place])
            samples = sorted(expected["samples"][exam.name], key=lambda s: s["doc_id"])
            answers = [answer for sample in samples for answer in sample["filtered_resps"]]
            if exam.name == "questions":
                np.testing.assert_allclose(found, [a for a, _ in answers], atol=1e-4)
                assert hits.tolist() == [bool(b) for _, b in answers]
            else:
                np.testing.assert_allclose(found, answers, rtol=1e-5)
        questions = expected["results"]["questions"]
        details = scored[place].details
        assert details["task/questions/accuracy"].value == questions["acc,none"]
        assert details["task/questions/accuracy_norm"].value == questions["acc_norm,none"]
        whole = expected["results"]["texts"]["bits_per_byte,none"]
        assert scored[place].scores["task/texts"].value == pytest.approx(whole, rel=1e-5)


def test_units_give_the_scores_that_they_are_of(suite, members, tokenizer_path):
    """Catches values under another item's key, a detail that is none by item among the units, and
    keys that go by an item's place in its task."""
    (one,) = scores.score_pack(
        Stack(members[:1]), tokenizer_path=tokenizer_path, valid={}, suite=suite
    )
    every = {**one.scores, **one.details}
    assert every.keys() - one.units.keys() == {"task/questions/chance"}
    assert {f"task/questions{n}" for n in ("", "/accuracy", "/probability", "/margin")} <= (
        one.units.keys()
    )
    for name, units in one.units.items():
        assert units.value == pytest.approx(every[name].value, rel=1e-12)
        assert len(units) == every[name].n
    exams = lm_eval_tasks.task_requests(
        suite, tokenizer_path=tokenizer_path, eot=0, context=CONTEXT
    )
    exam = next(exam for exam in exams if exam.name == "questions")
    turned = dataclasses.replace(exam, items=exam.items[::-1])
    assert len(set(exam.keys.tolist())) == len(exam.items)
    assert turned.keys.tolist() == exam.keys.tolist()[::-1]
    assert exam.keys.tolist() == one.units["task/questions/accuracy"].keys.tolist()


def test_a_proxy_scores_as_hflm_does_its_exported_checkpoint(suite, tokenizer_path, tmp_path):
    """With grouped keys and values and a tied head, whose tensor is not in the file.

    Catches a checkpoint that loads with a head of random values, heads in another order, and a
    context or a rotary base that the config does not tell.
    """
    from transformers import AutoModelForCausalLM

    vocabulary = Tokenizer.from_file(str(tokenizer_path)).get_vocab_size()
    shape = model_size(f"w32_l2_h4_kv2_c{CONTEXT}_mlp64_rope500000_tied")
    model = PackModel(shape, vocabulary, [1, 2])
    model.parameters.matrices.mul_(4.0)  # so that answers differ clearly
    checkpoint.export_huggingface(model, 1, tmp_path, tokenizer=tokenizer_path)
    loaded, told = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(told.values())
    expected = hflm(suite, loaded, tokenizer_path)["results"]
    scored = scores.score_pack(
        PackLikelihood(model), tokenizer_path=tokenizer_path, valid={}, suite=suite
    )[1]
    assert scored.details["task/questions/accuracy"].value == expected["questions"]["acc,none"]
    whole = expected["texts"]["bits_per_byte,none"]
    assert scored.scores["task/texts"].value == pytest.approx(whole, rel=1e-5)


@pytest.mark.parametrize("metrics", [("acc", "acc_norm"), ("acc_norm", "acc_bytes")])
def test_all_models_are_judged_as_lm_eval_judges_each(tmp_path, tokenizer_path, metrics):
    """Catches models or items mixed up, choices that are missing but win, ties that go to the last
    choice, lengths with the blank, and bytes taken for characters."""
    suite = own("questions", write(tmp_path / "questions.jsonl", QUESTIONS))
    (exam,) = lm_eval_tasks.task_requests(
        suite, tokenizer_path=tokenizer_path, eot=0, context=CONTEXT
    )
    items = [dataclasses.replace(item, averaged=frozenset(metrics)) for item in exam.items]
    for item in items:
        item.task._metric_fn_list = dict.fromkeys(metrics)
    plain, slow = (
        dataclasses.replace(
            exam, items=tuple(dataclasses.replace(item, own_verdict=own) for item in items)
        )
        for own in (True, False)
    )
    requests = sum(len(item.instances) for item in items)
    nats = np.random.default_rng(0).choice([-6.0, -4.0, -4.0, -2.0], (5, requests))
    found = judge.score_answers(plain, nats, nats > -3)
    expected = judge.score_answers(slow, nats, nats > -3)
    assert found.keys() == expected.keys() == set(metrics)
    for name in metrics:
        assert found[name].shape == (5, len(items))
        assert 0.1 < found[name].mean() < 0.9
        np.testing.assert_array_equal(found[name], expected[name])
    assert (found[metrics[0]] != found[metrics[1]]).any()


def test_reference_is_able_to_tell_models_apart(reference):
    """Catches a comparison that would pass for any model at all."""
    first, second = ([s["filtered_resps"] for s in r["samples"]["questions"]] for r in reference)
    gaps = [abs(a[0][0] - b[0][0]) for a, b in zip(first, second, strict=True)]
    assert min(gaps) > 1e-3
    assert np.median(gaps) > 1


def test_continuous_scores_by_hand(reference, suite, members, tokenizer_path):
    """Catches bytes without the blank or counted as characters, a log of the wrong base, a margin
    against the wrong answer, a softmax over all items."""
    scored = scores.score_pack(
        Stack(members[:1]), tokenizer_path=tokenizer_path, valid={}, suite=suite
    )[0]
    bits, sizes, probabilities, margins = [], [], [], []
    for sample in reference[0]["samples"]["questions"]:
        doc, lls = sample["doc"], [answer[0] for answer in sample["filtered_resps"]]
        blanks = len(doc["query"]) - len(doc["query"].rstrip())
        bytes_ = [blanks + 1 + len(choice.encode()) for choice in doc["choices"]]
        gold = doc["gold"]
        bits.append(-lls[gold] / np.log(2))
        sizes.append(bytes_[gold])
        probabilities.append(np.exp(lls[gold]) / np.exp(lls).sum())
        per_byte = [ll / size for ll, size in zip(lls, bytes_, strict=True)]
        margins.append(per_byte[gold] - max(m for i, m in enumerate(per_byte) if i != gold))
    value = scored.scores["task/questions"]
    assert value.value == pytest.approx(sum(bits) / sum(sizes), rel=1e-5)
    assert value.n == len(QUESTIONS)
    details = scored.details
    assert details["task/questions/probability"].value == pytest.approx(np.mean(probabilities))
    assert details["task/questions/margin"].value == pytest.approx(np.mean(margins), rel=1e-4)
    chance = np.mean([1 / len(q["choices"]) for q in QUESTIONS])
    assert details["task/questions/chance"].value == pytest.approx(chance)


def test_a_proxy_with_broken_weights_fails_alone(suite, members, tokenizer_path):
    """Catches NaN that reaches a neighbor, or that becomes a score."""
    broken = llama(3, tokenizer_path)
    broken.lm_head.weight.data[:] = float("nan")
    alone, pack = (
        scores.score_pack(Stack(p), tokenizer_path=tokenizer_path, valid={}, suite=suite)
        for p in (members, [members[0], broken, members[1]])
    )
    assert pack[1].problem
    assert not pack[1].scores
    assert [pack[0], pack[2]] == alone


def test_equal_rows_are_asked_once(members):
    """Catches work done again for requests that are equal, and answers given to other rows."""
    likelihood = Stack(members)
    rows = [
        AnswerRow((5, 6, 7, 8), 2),
        AnswerRow((9, 6), 1),
        AnswerRow((5, 6, 9), 1),
        AnswerRow((5, 6, 7, 8), 2),
    ]
    nats, _ = answer_totals(likelihood, rows)
    assert likelihood.tokens == len(members) * (2 + 1 + 1)
    assert np.array_equal(nats[:, 0], nats[:, 3])
    logits = members[0](torch.tensor([[5, 6, 7]])).logits.detach()
    log_p = torch.log_softmax(logits, dim=-1)[0]
    assert nats[0, 0] == pytest.approx(float(log_p[1, 7] + log_p[2, 8]), abs=1e-4)
    assert nats[0, 2] == pytest.approx(float(log_p[1, 9]), abs=1e-4)


def test_requests_are_built_once_per_process(suite, tokenizer_path, monkeypatch):
    """Catches requests built again for every pack."""
    fixed = {"tokenizer_path": tokenizer_path, "eot": 0, "context": CONTEXT}
    first = lm_eval_tasks.task_requests(suite, **fixed)
    monkeypatch.setattr(lm_eval_tasks, "_load", None)
    assert lm_eval_tasks.task_requests(suite, **fixed) is first


def test_requests_are_built_again_when_a_benchmark_changes(tmp_path, tokenizer_path):
    """Catches stale requests: a cache that looks at the path only."""
    fixed = {"tokenizer_path": tokenizer_path, "eot": 0, "context": CONTEXT}
    suite = own("own", write(tmp_path / "own.jsonl", QUESTIONS[:5]))
    before = suite.identity
    assert len(lm_eval_tasks.task_requests(suite, **fixed)[0].items) == 5
    write(tmp_path / "own.jsonl", QUESTIONS[:7])
    assert len(lm_eval_tasks.task_requests(suite, **fixed)[0].items) == 7
    assert suite.identity != before


def test_a_limit_takes_a_fixed_spread_subset(suite, tokenizer_path):
    """Catches a limit that takes the first rows of the file, or other rows for a larger limit."""
    fixed = {"tokenizer_path": tokenizer_path, "eot": 0, "context": CONTEXT}

    def asked(limit):
        chosen = dataclasses.replace(suite, tasks=("questions",), limit=limit)
        items = lm_eval_tasks.task_requests(chosen, **fixed)[0].items
        return [QUESTIONS.index(item.instances[0].doc) for item in items]

    few, more = asked(6), asked(12)
    assert len(few) == 6
    assert set(few) < set(more)
    assert few != list(range(6))


def test_items_that_do_not_fit_are_counted(tmp_path, members, tokenizer_path):
    """Catches an answer cut to the context, a crash, and a row dropped in silence."""
    long = {"query": "q", "choices": ["x y z " * 40, "b"], "gold": 0}
    suite = own("own", write(tmp_path / "own.jsonl", [*QUESTIONS[:4], long]))
    scored = scores.score_pack(Stack(members), tokenizer_path=tokenizer_path, valid={}, suite=suite)
    assert [one.details["task/own/left_out"].value for one in scored] == [1, 1]
    assert scored[0].scores["task/own"].n == 4


def generating(name: str, rows: list[dict]):
    """A task of lm-eval that asks for text, as its own tasks do."""
    import datasets
    from lm_eval.api.task import ConfigurableTask

    return ConfigurableTask(
        config={
            "task": name,
            "custom_dataset": lambda: {"test": datasets.Dataset.from_list(rows)},
            "test_split": "test",
            "output_type": "generate_until",
            "doc_to_text": "Q: {{query}}\nA:",
            "doc_to_target": "answer",
            "metric_list": [
                {"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}
            ],
        }
    )


def test_a_group_that_generates_is_scored_by_its_references(
    tmp_path, members, tokenizer_path, monkeypatch
):
    """Catches a group of which only the first task is asked, a reference scored without the blank
    before it, and exact match reported where nothing was generated."""
    parts = [
        [{"query": f"{name} {i}", "answer": f"it is {i * i}"} for i in range(4)]
        for name in ("one", "two")
    ]
    tasks = [generating(f"part{i}", rows) for i, rows in enumerate(parts)]
    monkeypatch.setattr(lm_eval_tasks, "_load", lambda suite, name: tasks)
    likelihood = Stack(members)
    stock = suites.Suite(("stock",), None, tmp_path)
    lm_eval_tasks.check_tasks(stock)
    scored = scores.score_pack(likelihood, tokenizer_path=tokenizer_path, valid={}, suite=stock)
    encode = Tokenizer.from_file(str(tokenizer_path)).encode
    for k in range(2):
        bits, size = 0.0, 0
        for row in parts[0] + parts[1]:
            context, answer = f"Q: {row['query']}\nA:", f" {row['answer']}"
            before = encode(context).ids
            after = encode(context + answer).ids[len(before) :]
            bits -= float(likelihood.answer([before], [[after]])[0][k, 0]) / np.log(2)
            size += len(answer)
        assert scored[k].scores["task/stock"].value == pytest.approx(bits / size, rel=1e-6)
        assert scored[k].scores["task/stock"].n == 8
        assert scored[k].details == {}


@pytest.mark.slow
def test_stock_tasks_are_reported_before_training(tmp_path):
    """Catches a traceback of lm-eval's, and a misspelled task that nobody explains."""
    with pytest.raises(DataError, match="'arc_easy' cannot be loaded"):
        lm_eval_tasks.check_tasks(suites.Suite(("arc_easy",), 2, tmp_path))
    with pytest.raises(UnknownName, match="did you mean 'arc_easy'"):
        lm_eval_tasks.check_tasks(suites.Suite(("arc_eazy",), 2, tmp_path))


def test_suites_refuse_what_makes_no_sense(tmp_path):
    """Catches two tasks on one target, limits without an error, and unknown offline tasks."""
    with pytest.raises(RecipeError, match="piqa"):
        suites.Suite(("piqa", "piqa_offline"), None, tmp_path)
    with pytest.raises(RecipeError, match="at least 2"):
        suites.Suite(("piqa_offline",), 1, tmp_path)
    with pytest.raises(UnknownName, match="did you mean 'piqa_offline'"):
        suites.suite(["pika_offline"], tmp_path)
    with pytest.raises(DataError, match="prepare the benchmarks"):
        lm_eval_tasks.check_tasks(suites.suite(["quickstart"], tmp_path))


def test_every_offline_task_is_defined_once():
    """Catches a task without YAML, source or catalog entry, and YAML that names another task."""
    found = {path.stem for path in suites.TASKS.glob("*.yaml")}
    assert found == set(suites.OFFLINE) == set(benchmarks.SOURCES)
    assert len(found) >= 12
    for name in found:
        text = (suites.TASKS / f"{name}.yaml").read_text()
        assert text.startswith(f"task: {name}\n")
        assert f"test: {name}.jsonl" in text


def test_untrained_baseline_averages_the_pack():
    """Catches the first model taken for all, and an error over items where models vary."""
    from cuvee.mixtures.runs.run_results import Score

    pack = [scores.PackScores({"task/a": Score(v, 0.5, 9)}) for v in (1.0, 3.0)]
    found = scores.untrained_baseline([*pack, scores.BROKEN])["task/a"]
    assert (found.value, found.n) == (2.0, 9)
    assert found.stderr == pytest.approx(1.0)  # sd sqrt(2) over sqrt(2) models
    with pytest.raises(EvidenceError):
        scores.untrained_baseline([scores.BROKEN])


def test_detectors_add_details_and_move_no_score(suite, tokenizer_path, tmp_path):
    """Catches an audit that changes what a proxy scores, gives its details to a neighbor, or runs
    unasked; details of tasks without choices, which have no null; and frequencies by the number of
    tokens, where ids have gaps: those of the first words here lie beyond it."""
    body = json.loads(tokenizer_path.read_text(encoding="utf-8"))
    used = set(Tokenizer.from_str(json.dumps(body)).encode(json.dumps(QUESTIONS[0])).ids)
    vocab = body["model"]["vocab"]
    body["model"]["vocab"] = {t: i + 400 * (i in used) for t, i in vocab.items()}
    tokenizer_path = tmp_path / "tokenizer.json"
    tokenizer_path.write_text(json.dumps(body), encoding="utf-8")
    pack = PackModel(model_size(f"w32_l2_h1_c{CONTEXT}_mlp96"), 400 + len(vocab), [1, 2])
    pack.parameters.named["head"].data[1] = torch.nan
    limits = suites.Limits(detectors=("dc_pdd", "option_order"))

    def score(limits):
        return scores.score_pack(
            PackLikelihood(pack), tokenizer_path=tokenizer_path, valid={}, suite=suite,
            limits=limits,
        )  # fmt: skip

    (plain, broken), (audited, again) = score(suites.Limits()), score(limits)
    assert broken.problem and not again.details and not broken.details
    assert audited.scores == plain.scores
    added = audited.details.keys() - plain.details.keys()
    assert added == {"task/questions/leak_dc_pdd", "task/questions/leak_option_order"}
    told = audited.details["task/questions/leak_option_order"]
    assert told.n == 11  # of 23: those whose orders all fit into the context
