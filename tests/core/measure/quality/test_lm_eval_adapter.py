"""The adapter under requests shaped like lm-eval's, and what its results may be."""

from __future__ import annotations

import builtins
import importlib.util
import sys
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest
import torch

from core.catalogue.zoo import corpus
from core.dataset import Dataset
from core.engine.load.load import load_engine, load_tokenizer
from core.errors import BadInput
from core.measure.quality import lm_eval_adapter
from core.measure.quality.lm_eval_adapter import Adapter, documents, task_quality

pytestmark = pytest.mark.usefixtures("one_thread")
TASK = Dataset("lm-eval:made_up:3", "lm-eval", "", "", 3, 0)


@dataclass
class Instance:
    """What lm-eval hands over, as far as a model reads it."""

    args: tuple[Any, ...]


@pytest.fixture(scope="module")
def adapter() -> Adapter:
    return Adapter(load_engine("pycode-small", dtype="fp32"), load_tokenizer("pycode-small"), (0,))


def whole_likelihood(adapter: Adapter, text: str) -> float:
    ids = torch.tensor([0, *adapter.tokenizer.encode(text, add_special_tokens=False).ids])
    table = torch.log_softmax(adapter.engine.forward(ids[None, :-1])[0].double(), -1)
    return float(table.gather(-1, ids[1:, None]).sum())


def test_a_likelihood_and_its_rest_make_the_whole(adapter: Adapter) -> None:
    context, continuation = "def f(self,", " other):\n    return"
    (total, greedy), (first, _) = adapter.loglikelihood(
        [Instance((context, continuation)), Instance(("", context))]
    )
    assert total + first == pytest.approx(whole_likelihood(adapter, context + continuation), 1e-4)
    assert not greedy
    said = adapter.generate_until([Instance((context, {"until": [], "max_gen_toks": 5}))])[0]
    assert adapter.loglikelihood([Instance((context, said))])[0][1]


def test_rolling_sums_the_whole_text_in_windows(adapter: Adapter) -> None:
    text = corpus.held_out_set().texts[0][:500]
    short, empty = adapter.loglikelihood_rolling([Instance((text,)), Instance(("",))])
    assert short == pytest.approx(whole_likelihood(adapter, text), rel=1e-5)
    assert empty == 0.0
    long = corpus.held_out_set().texts[0][:9000]
    windows = list(adapter._rolling(long))
    count = len(adapter.tokenizer.encode(long, add_special_tokens=False).ids)
    assert count > adapter.engine.max_positions
    assert sum(scored for _, scored in windows) == count
    assert {len(ids) for ids, _ in windows} == {adapter.engine.max_positions + 1}


def test_generation_stops_where_it_is_asked_to(adapter: Adapter) -> None:
    def text(asked: dict[str, Any]) -> str:
        return adapter.generate_until([Instance(("import os\nimport", asked))])[0]

    whole = text({"until": None, "max_gen_toks": 12})
    assert "\n" in whole
    assert text({"until": "\n", "max_gen_toks": 12}) == whole.split("\n")[0]
    assert (
        text({"until": ["", "\n"], "do_sample": False, "max_gen_toks": 12})
        == (whole.split("\n")[0])
    )
    for drawn in ({"do_sample": True}, {"temperature": 0.7}):
        with pytest.raises(BadInput, match="only greedy"):
            text(drawn)


def sample(document: int, **results: Any) -> dict[str, Any]:
    return {"doc_id": document, "arguments": (), **results}


def test_documents_are_counted_once_and_in_order() -> None:
    samples = [
        sample(2, acc=1.0, acc_norm=0.0),
        sample(0, acc=0.0, acc_norm=1.0),
        sample(2, acc=1.0, acc_norm=0.0),
    ]
    assert documents(samples, TASK) == [(0, False, True), (2, True, False)]
    assert documents([sample(0, exact_match=1)], TASK) == [(0, True, None)]


@pytest.mark.parametrize(
    ("samples", "words"),
    [
        ([], "gave no documents"),
        ([sample(0, bleu=0.3)], "no result that is right or wrong"),
        ([sample(0, acc=0.5)], "no result that is right or wrong"),
    ],
)
def test_a_task_without_right_and_wrong_is_refused(samples: Any, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        documents(samples, TASK)


def test_both_models_are_paired_document_by_document(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {
        "ours": [sample(n, acc=float(n < 3), acc_norm=float(n > 1)) for n in range(5)],
        "theirs": [sample(n, acc=float(n < 4), acc_norm=1.0) for n in range(5)],
    }
    monkeypatch.setattr(lm_eval_adapter, "run_task", lambda adapter, dataset: given[adapter.engine])
    found = {one.metric: one for one in task_quality("ours", "theirs", None, (0,), TASK)}
    assert found["task_accuracy"].samples == (1, 1, 1, 0, 0)
    assert found["task_accuracy"].reference == (1, 1, 1, 1, 0)
    assert found["task_accuracy_norm"].reference == (1, 1, 1, 1, 1)
    assert found["flips"].value == 0.2
    given["theirs"] = given["theirs"][1:]
    with pytest.raises(BadInput, match="different documents"):
        task_quality("ours", "theirs", None, (0,), TASK)
    alone = {one.metric: one for one in task_quality("ours", None, None, (0,), TASK)}
    assert alone["task_accuracy"].reference == ()


def fake_lm_eval(monkeypatch: pytest.MonkeyPatch, evaluate: Any) -> None:
    """A package that has what the adapter imports."""
    top, api, model = (ModuleType(name) for name in ("lm_eval", "lm_eval.api", "lm_eval.api.model"))

    class LM:
        def __init__(self) -> None:
            self.rank = 0

    top.simple_evaluate, model.LM = evaluate, LM  # type: ignore[attr-defined]
    for module in (top, api, model):
        monkeypatch.setitem(sys.modules, module.__name__, module)


def test_the_task_runs_on_the_adapter_with_its_limit(
    monkeypatch: pytest.MonkeyPatch, adapter: Adapter
) -> None:
    def evaluate(**asked: Any) -> Any:
        assert asked["tasks"] == ["made_up"]
        assert asked["limit"] == 3
        assert asked["model"].rank == 0
        assert len(asked["model"].loglikelihood([Instance(("import", " os"))])) == 1
        return {"samples": {"made_up": [sample(0, acc=1.0)]}}

    fake_lm_eval(monkeypatch, evaluate)
    found = task_quality(adapter.engine, None, adapter.tokenizer, (0,), TASK)
    assert [one.metric for one in found] == ["task_accuracy", "flips"]


def test_what_lm_eval_cannot_do_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, adapter: Adapter
) -> None:
    def unreachable(**asked: Any) -> Any:
        raise ConnectionError("no route to the data\nand a traceback")

    fake_lm_eval(monkeypatch, unreachable)
    with pytest.raises(BadInput, match=r"data cannot be reached \(ConnectionError: no route") as it:
        lm_eval_adapter.run_task(adapter, TASK)
    assert "\n" not in str(it.value)
    fake_lm_eval(monkeypatch, lambda **asked: {"samples": {"a": [], "b": []}})
    with pytest.raises(BadInput, match="group of tasks: name one of a, b"):
        lm_eval_adapter.run_task(adapter, TASK)


def test_without_lm_eval_the_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, adapter: Adapter
) -> None:
    real = builtins.__import__

    def refuse(name: str, *rest: Any) -> Any:
        if name.startswith("lm_eval"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(BadInput, match=r"pip install 'trimtab\[eval\]'"):
        lm_eval_adapter.run_task(adapter, TASK)


@pytest.mark.skipif(importlib.util.find_spec("lm_eval") is None, reason="lm-eval is not installed")
def test_lm_evals_own_abstract_methods_are_all_there() -> None:
    from lm_eval.api.model import LM

    assert set(LM.__abstractmethods__) <= set(dir(Adapter))
