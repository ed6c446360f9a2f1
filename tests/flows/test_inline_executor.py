"""The executor without workers: what a pack raises, and what an interruption leaves behind."""

from types import SimpleNamespace

import pytest

from cuvee.flows.execution import inline_executor
from cuvee.flows.execution.executor import Interrupted
from cuvee.flows.execution.inline_executor import InlineExecutor
from cuvee.mixtures.errors import DataError, TrainingError

JOB = SimpleNamespace(name="one", device="cpu", program=None)


def raising(error):
    def run(*_):
        raise error

    return run


def test_a_pack_that_fails_is_counted_and_not_a_traceback(monkeypatch):
    """Catches an error of torch that ends a whole study here, where a worker's would be one pack's;
    and our own errors, which say more, hidden in another."""
    executor = InlineExecutor("cpu")
    for error, wanted, words in (
        (RuntimeError("out of memory"), TrainingError, "pack one failed.*out of memory"),
        (DataError("no such domain"), DataError, "^no such domain$"),
    ):
        monkeypatch.setattr(inline_executor, "run_pack", raising(error))
        with pytest.raises(wanted, match=words):
            executor.train(JOB, print)


def test_an_interrupted_executor_can_be_used_again(monkeypatch):
    """Catches a notebook in which every later study ends at once, without a word."""
    executor = InlineExecutor("cpu")
    monkeypatch.setattr(inline_executor, "run_pack", lambda *_: ("trained",))
    with executor:
        executor.cancel()
        with pytest.raises(Interrupted):
            executor.train(JOB, print)
    with executor:
        assert executor.train(JOB, print) == ("trained",)
