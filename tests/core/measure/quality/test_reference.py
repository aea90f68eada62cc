"""The quality numbers of a bundled model against transformers in fp32, written out plainly."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from core.catalogue.models import folder_of
from core.catalogue.zoo import corpus
from core.data.parsing import AnswerTask, ChoiceTask
from core.data.passages import held_out_windows, text_passages
from core.engine.load.load import load_engine, load_tokenizer
from core.measure.quality import tasks
from core.measure.quality.scores import encode_pair, greedy_text
from core.measure.quality.text import text_quality

pytestmark = pytest.mark.usefixtures("one_thread")
MODEL = "pycode-small"
PROMPTS = (
    "import",
    "def __init__(self,",
    "for key, value in",
    "    raise ValueError(",
    "with open(path,",
    "class Error(",
    "if __name__ ==",
    "return self.",
    "try:\n    import",
    "x = [i for i in",
)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return load_tokenizer(MODEL)


@pytest.fixture(scope="module")
def engine() -> Any:
    return load_engine(MODEL, dtype="fp32")


def transformers_model(scale: float = 1.0) -> Any:
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(str(folder_of(MODEL)), dtype=torch.float32)
    model = model.eval()
    if scale != 1.0:
        head = torch.nn.Parameter(model.lm_head.weight.detach().clone() * scale)
        model.lm_head.weight = head
    return model


@pytest.fixture(scope="module")
def theirs() -> Any:
    return transformers_model()


def log_softmax(model: Any, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return torch.log_softmax(model(ids[None]).logits[0].double(), dim=-1)


def test_perplexity_and_divergence_are_those_of_transformers(
    engine: Any, theirs: Any, tokenizer: Any
) -> None:
    windows = held_out_windows(tokenizer, (0,), 6, 96)
    candidate = load_engine(MODEL, dtype="fp32")
    # A tied head shares memory with the embedding: the candidate gets its own, scaled.
    candidate.head = type(candidate.head)(candidate.head.weight * 1.05)
    their_candidate = transformers_model(1.05)
    nats, divergence, same = [], [], []
    for row in windows.ids:
        ours = log_softmax(their_candidate, row[:-1])
        base = log_softmax(theirs, row[:-1])
        nats.append(-ours.gather(-1, row[1:, None]).mean().item())
        divergence.append((base.exp() * (base - ours)).sum(-1).mean().item())
        same.append((base.argmax(-1) == ours.argmax(-1)).double().mean().item())
    base_nats = [
        -log_softmax(theirs, row[:-1]).gather(-1, row[1:, None]).mean().item()
        for row in windows.ids
    ]
    found = {one.metric: one for one in text_quality(candidate, engine, windows)}
    assert found["perplexity"].value == pytest.approx(math.exp(np.mean(nats)), rel=1e-5)
    assert found["perplexity"].samples == pytest.approx(np.exp(nats), rel=1e-4)
    assert found["perplexity"].reference == pytest.approx(np.exp(base_nats), rel=1e-4)
    assert found["kl_nats"].value == pytest.approx(np.mean(divergence), rel=1e-3)
    assert found["kl_nats"].reference == (0.0,) * 6
    assert found["top1_agreement"].value == pytest.approx(np.mean(same), abs=1e-6)
    assert found["top1_agreement"].reference == (1.0,) * 6
    sizes = np.array(windows.row_bytes)
    per_byte = found["nats_per_byte"]
    assert per_byte.value == pytest.approx(np.sum(nats) * 96 / sizes.sum(), rel=1e-5)
    assert np.mean(per_byte.reference) == pytest.approx(
        np.sum(base_nats) * 96 / sizes.sum(), rel=1e-5
    )


def test_a_sliding_window_scores_as_the_guide_of_transformers_does(
    engine: Any, theirs: Any, tokenizer: Any
) -> None:
    """Strides from the guide's loop, each scored behind the tokens that the loop would give it."""
    text = corpus.held_out_set().texts[0][:6000]
    context = 128
    found = text_passages(tokenizer, (0,), (text,), "a module", context, 10**6)
    ids = [0, *tokenizer.encode(text, add_special_tokens=False).ids]
    nats = scored = 0
    for passage in found.passages:
        begin = 1 + scored
        end = begin + passage.scored
        inputs = torch.tensor([0, *ids[max(0, end - 1 - context) + 1 : end]])
        assert torch.equal(passage.ids, inputs)
        assert begin - max(0, end - 1 - context) >= min(begin, context // 2)
        targets = inputs.clone()
        targets[: -passage.scored] = -100
        with torch.no_grad():
            loss = theirs(inputs[None], labels=targets[None]).loss
        nats += loss.item() * passage.scored
        scored += passage.scored
    assert scored == len(ids) - 1
    measured = {one.metric: one for one in text_quality(engine, None, found)}
    assert measured["perplexity"].value == pytest.approx(math.exp(nats / scored), rel=1e-4)
    assert measured["nats_per_byte"].value == pytest.approx(nats / len(text.encode()), rel=1e-4)
    assert "context 128, stride 63: all 1," in measured["perplexity"].method


CHOICES = tuple(
    ChoiceTask(prompt, (" os", "x) -> None:\n        pass", "é", "  self"), 1) for prompt in PROMPTS
)


def plain_scores(model: Any, tokenizer: Any, task: ChoiceTask) -> list[float]:
    """lm-eval's recipe in a loop: tokenize together, score what lies beyond the context."""
    found = []
    for choice in task.choices:
        space = "" if task.prompt[-1].isspace() or choice[0].isspace() else " "
        whole = tokenizer.encode(task.prompt + space + choice, add_special_tokens=False).ids
        cut = len(tokenizer.encode(task.prompt.rstrip(), add_special_tokens=False).ids)
        ids = torch.tensor([0, *whole])
        table = log_softmax(model, ids)
        found.append(sum(table[at - 1, ids[at]].item() for at in range(1 + cut, len(ids))))
    return found


def test_choices_are_ranked_as_a_plain_loop_over_transformers_ranks_them(
    engine: Any, theirs: Any, tokenizer: Any
) -> None:
    scores = [plain_scores(theirs, tokenizer, task) for task in CHOICES]
    sizes = [[len(choice.encode()) for choice in task.choices] for task in CHOICES]
    best = [int(np.argmax(row)) for row in scores]
    by_length = [
        int(np.argmax(np.array(row) / size)) for row, size in zip(scores, sizes, strict=True)
    ]
    assert best != by_length
    for task, row, raw, norm in zip(CHOICES, scores, best, by_length, strict=True):
        ours = [
            tasks.continuation_score(
                engine,
                *encode_pair(tokenizer, (0,), task.prompt, tasks.joined(task.prompt, choice)),
            )[0]
            for choice in task.choices
        ]
        assert ours == pytest.approx(row, abs=2e-3)
        assert tasks.ranked(engine, tokenizer, (0,), task) == (raw == 1, norm == 1)
    found = {
        one.metric: one
        for one in tasks.choice_quality(engine, None, tokenizer, (0,), CHOICES, "ten")
    }
    assert found["task_accuracy"].samples == tuple(float(one == 1) for one in best)
    assert found["task_accuracy_norm"].samples == tuple(float(one == 1) for one in by_length)
    assert found["flips"].bounds == (0.0, 0.0)


def test_greedy_text_is_that_of_transformers(engine: Any, theirs: Any, tokenizer: Any) -> None:
    for prompt in PROMPTS:
        ids = [0, *tokenizer.encode(prompt, add_special_tokens=False).ids]
        with torch.no_grad():
            whole = theirs.generate(
                torch.tensor([ids]),
                attention_mask=torch.ones(1, len(ids), dtype=torch.int64),
                max_new_tokens=16,
                do_sample=False,
                pad_token_id=0,
            )[0, len(ids) :]
        text = tokenizer.decode(whole.tolist(), skip_special_tokens=True)
        expected = text.split("\n")[0]
        assert greedy_text(engine, tokenizer, ids, ("\n",), 16) == expected
        assert greedy_text(engine, tokenizer, ids, (), 16) == text


def test_an_answer_is_right_when_greedy_text_says_it(engine: Any, tokenizer: Any) -> None:
    made = []
    for prompt in PROMPTS:
        ids = [0, *tokenizer.encode(prompt, add_special_tokens=False).ids]
        text = greedy_text(engine, tokenizer, ids, ("\n",), 64)
        made.append(AnswerTask(prompt, "  ".join(text.split()) or "nothing"))
    made[3] = AnswerTask(PROMPTS[3], "something else")
    right = [
        bool(greedy_text(engine, tokenizer, [0, *tokenizer.encode(p).ids], ("\n",), 64).split())
        for p in PROMPTS
    ]
    right[3] = False
    found = tasks.answer_quality(engine, engine, tokenizer, (0,), made, "ten")
    assert found[0].samples == tuple(map(float, right))
    assert found[0].reference == found[0].samples
    assert sum(right) >= 5
    assert found[1].metric == "flips"
    assert found[1].value == 0
