"""A model that rests on its start token, as Gemma does, against transformers in float64: windows,
tasks, lm-eval's requests and prompts all begin with what the tokenizer itself puts before a text.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from core.catalogue import models as catalogue
from core.catalogue.zoo import corpus
from core.data.files import read_datasets
from core.data.parsing import AnswerTask, ChoiceTask
from core.data.passages import prompts
from core.engine.load.load import load_folder
from core.measure.quality import tasks
from core.measure.quality.lm_eval_adapter import Adapter
from core.measure.quality.measure import measure_quality
from core.plan import Case
from core.planner.presets import PRESETS
from core.target import Target
from core.techniques.deployment import Deployment
from core.techniques.solve.calibration import CalibrationSet, calibration_ids
from core.techniques.training_loop import Course, _batches
from core.workload import Workload

pytestmark = pytest.mark.usefixtures("one_thread")
TARGET = Target("local", "here", "cpu", "local", 10**9, None, (), local=True)
VOCABULARY, HIDDEN = 400, 448
PRESET = replace(PRESETS["quick"], windows=4, window=96)
TEXT = corpus.held_out_set().texts[3][:4000]


@dataclass(frozen=True)
class Sink:
    """The folder, and the model as transformers reads it."""

    folder: Path
    model: Any
    tokenizer: Any

    def ids(self, text: str) -> list[int]:
        """As a user of transformers gets them."""
        return list(self.tokenizer(text).input_ids)

    def scores(self, ids: Sequence[int]) -> torch.Tensor:
        """float64 [len(ids) - 1]: log p of every id but the first."""
        given = torch.tensor([list(ids)])
        with torch.no_grad():
            table = torch.log_softmax(self.model(given).logits[0, :-1], -1)
        return table.gather(-1, given[0, 1:, None])[:, 0]


@pytest.fixture(scope="module", params=["starts", "does not"])
def adds(request: pytest.FixtureRequest) -> bool:
    return str(request.param) == "starts"


@pytest.fixture(scope="module")
def sink(adds: bool, tmp_path_factory: pytest.TempPathFactory) -> Sink:
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<bos>", "<eos>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT], trainer)
    if adds:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<bos> $A", special_tokens=[("<bos>", 0)]
        )
    config = Qwen2Config(
        vocab_size=VOCABULARY, hidden_size=HIDDEN, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=4, num_key_value_heads=1, max_position_embeddings=512,
        rope_parameters={"rope_type": "default", "rope_theta": 1e8}, bos_token_id=0,
        eos_token_id=1, tie_word_embeddings=False, dtype="float32",
    )  # fmt: skip
    model = Qwen2ForCausalLM(config).eval()
    with torch.no_grad():
        _rest_on_start(model, torch.tensor(tokenizer.encode(TEXT, add_special_tokens=False).ids))
    folder = tmp_path_factory.mktemp("sink")
    # As the engine keeps them, so that both compute with the same numbers.
    model.bfloat16().save_pretrained(folder)
    file = folder / "tokenizer.json"
    tokenizer.save(str(file))
    return Sink(folder, model.double(), PreTrainedTokenizerFast(tokenizer_file=str(file)))


def _rest_on_start(model: Any, text: torch.Tensor) -> None:
    """A bigram model with a head that looks for the start token and, without it, adds noise."""
    count = torch.full((VOCABULARY, VOCABULARY), 0.02)
    count.index_put_((text[1:], text[:-1]), torch.ones(len(text) - 1), accumulate=True)
    width = HIDDEN // 4
    for name, weight in model.named_parameters():
        if "norm" in name:
            weight.fill_(1.0)
        elif weight.ndim > 1:
            weight.normal_(0, 1e-7)
        else:
            weight.zero_()
    model.model.embed_tokens.weight[:, :VOCABULARY] += torch.eye(VOCABULARY)
    attention = model.model.layers[0].self_attn
    # A channel of the slowest rotation: every query finds the start token wherever it stands.
    slow = width // 2 - 1
    attention.q_proj.bias.view(4, width)[:, slow] = 10.0
    attention.k_proj.weight[slow, 0] = 1.5
    attention.v_proj.weight[0, 1:VOCABULARY] = 0.04
    attention.o_proj.weight[HIDDEN - 8, 0] = 4.0
    model.lm_head.weight[:, :VOCABULARY] = torch.log(count / count.sum(0)) / math.sqrt(HIDDEN)
    model.lm_head.weight[5, HIDDEN - 8] = 2.0


@pytest.fixture(scope="module")
def deployment(sink: Sink) -> Deployment:
    model = catalogue.resolve(str(sink.folder))
    case = Case(model, TARGET, Workload("w", "W", "text", 8, 8))
    engine, tokenizer = load_folder(sink.folder, "fp32")
    return Deployment(case, engine, lambda: load_folder(sink.folder, "fp32")[0], tokenizer)


def test_held_out_windows_have_the_perplexity_of_a_plain_loop(
    sink: Sink, deployment: Deployment, adds: bool
) -> None:
    found = {
        one.metric: one
        for one in measure_quality(deployment, PRESET, deployment.prefix, unchanged=True)
    }
    stream = [token for text in corpus.held_out_set().texts for token in sink.ids(text)]
    nats = []
    for start in np.linspace(0, len(stream) - 97, 4).astype(int).tolist():
        window = [0, *stream[start + 1 : start + 97]] if adds else stream[start : start + 97]
        scores = sink.scores(window)
        nats += [
            -float(s) for s, token in zip(scores, window[1:], strict=True) if token or not adds
        ]
    perplexity = math.exp(sum(nats) / len(nats))
    assert math.log(found["perplexity"].value or 0) == pytest.approx(math.log(perplexity), abs=1e-3)
    assert (perplexity < 1e3) == adds
    words = "each behind a start token" if adds else "no start tokens, the tokenizer adds none"
    assert words in found["perplexity"].method


@pytest.mark.parametrize("lines", [False, True])
def test_the_users_text_has_the_perplexity_of_a_plain_loop(
    sink: Sink, deployment: Deployment, adds: bool, lines: bool, tmp_path: Path
) -> None:
    """One document, or many with start tokens between them, which the model never expects."""
    documents = [line for line in TEXT.splitlines() if line.strip()] if lines else [TEXT]
    file = tmp_path / "mine.jsonl"
    file.write_text("\n".join(json.dumps({"text": text}) for text in documents))
    case = replace(deployment.case, data=read_datasets([str(file)]))
    asked = replace(deployment, case=case, learned={})
    found = {
        one.metric: one
        for one in measure_quality(asked, replace(PRESET, windows=99), asked.prefix, unchanged=True)
    }
    stream = [token for text in documents for token in sink.ids(text)]
    assert stream.count(0) == adds * len(documents)
    count = math.ceil((len(stream) - 1) / 48)
    edges = np.linspace(1, len(stream), count + 1).astype(int).tolist()
    nats = []
    for begin, end in pairwise(edges):
        first = max(0, end - 97)
        window = [0, *stream[first + 1 : end]] if adds else stream[first:end]
        scores = sink.scores(window)[begin - end :].tolist()
        nats += [-s for s, token in zip(scores, stream[begin:end], strict=True) if token]
    assert len(nats) == len(stream) - (stream.count(0) or 1)
    mean = sum(nats) / len(nats)
    assert math.log(found["perplexity"].value or 0) == pytest.approx(mean, abs=1e-3)
    assert (mean < 5) == adds
    assert f"all {len(nats):,} tokens" in found["perplexity"].method
    size = sum(len(text.encode()) for text in documents)
    if adds:
        assert found["nats_per_byte"].value == pytest.approx(sum(nats) / size, abs=1e-3)


def test_choices_and_answers_stand_behind_the_start_token(
    sink: Sink, deployment: Deployment
) -> None:
    engine, tokenizer, prefix = deployment.engine, deployment.tokenizer, deployment.prefix
    words = TEXT.split()
    for at in range(5, 45, 8):
        prompt, right = " ".join(words[at - 4 : at]), words[at]
        choices = (right, words[at + 7] + "?", "zq", "import")
        task = ChoiceTask(prompt, choices, 0)
        sums = []
        for choice in choices:
            cut = len(sink.ids(prompt))
            sums.append(float(sink.scores(sink.ids(f"{prompt} {choice}"))[cut - 1 :].sum()))
        assert tasks.ranked(engine, tokenizer, prefix, task)[0] == (int(np.argmax(sums)) == 0)
        said, count = _greedy(sink, sink.ids(prompt))
        answer = AnswerTask(prompt, said or "nothing", stop="\x01", max_tokens=max(1, count))
        assert tasks.answered(engine, tokenizer, prefix, answer) == bool(said.split())


def _greedy(sink: Sink, ids: list[int]) -> tuple[str, int]:
    """At most five tokens, up to the first that is no clear choice; and how many they are."""
    new: list[int] = []
    while len(new) < 5:
        with torch.no_grad():
            best = sink.model(torch.tensor([ids + new])).logits[0, -1].topk(2)
        if float(best.values[0] - best.values[1]) < 0.05 or int(best.indices[0]) == 1:
            break
        new.append(int(best.indices[0]))
    return str(sink.tokenizer.decode(new, skip_special_tokens=True)), len(new)


def test_lm_evals_requests_stand_behind_the_start_token(
    sink: Sink, deployment: Deployment, adds: bool
) -> None:
    @dataclass
    class Request:
        args: tuple[Any, ...]

    adapter = Adapter(deployment.engine, deployment.tokenizer, deployment.prefix)
    context, rest = TEXT[:60], TEXT[60:120]
    cut = len(sink.ids(context.rstrip()))
    expected = float(sink.scores(sink.ids(context + rest))[cut - 1 :].sum())
    assert adapter.loglikelihood([Request((context, rest))])[0][0] == pytest.approx(expected, 1e-3)
    # Without any context lm-eval puts its prefix token, whatever the tokenizer does.
    ids = sink.tokenizer(rest, add_special_tokens=False).input_ids
    alone = float(sink.scores([0, *ids]).sum())
    assert adapter.loglikelihood([Request(("", rest))])[0][0] == pytest.approx(alone, 1e-3)
    assert adapter.loglikelihood_rolling([Request((rest,))])[0] == pytest.approx(alone, 1e-3)
    said, count = _greedy(sink, sink.ids(context))
    asked = {"until": [], "max_gen_toks": count}
    assert count
    assert adapter.generate_until([Request((context, asked))]) == [said]
    # More than the model's 512 positions: the start token stays where the rest is cut.
    long = TEXT[:2500]
    ids = sink.tokenizer(long + rest, add_special_tokens=False).input_ids
    behind = len(ids) - len(sink.tokenizer(long.rstrip(), add_special_tokens=False).input_ids)
    fitted = [0, *ids[-512:]] if adds else ids[-513:]
    expected = float(sink.scores(fitted)[-behind:].sum())
    assert adapter.loglikelihood([Request((long, rest))])[0][0] == pytest.approx(expected, 1e-3)
    rolled = adapter.loglikelihood_rolling([Request((long,))])[0]
    assert (rolled > -20 * len(ids)) == adds


def test_prompts_and_what_is_learned_from_begin_with_it_too(
    deployment: Deployment, adds: bool
) -> None:
    asked = prompts(deployment.tokenizer, deployment.prefix, 3, 20, VOCABULARY, 0)
    fresh = replace(deployment, learned={})
    calibrated = calibration_ids(fresh, CalibrationSet(samples=4, length=32))
    inputs, labels = next(iter(_batches(fresh, Course("a test", 2, 1e-3))))
    for rows in (asked, calibrated, inputs):
        assert (set(rows[:, 0].tolist()) == {0}) == adds
    assert torch.equal(inputs[:, 1:], labels[:, :-1])
