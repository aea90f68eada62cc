"""Which data a trial is judged on, from files to paired measurements."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from core.catalogue import models
from core.data.files import read_datasets
from core.data.passages import digits
from core.dataset import Dataset
from core.engine.load.load import load_engine, load_tokenizer
from core.errors import BadInput
from core.margin import NON_INFERIOR, Margin, non_inferiority
from core.measure.quality import lm_eval_adapter
from core.measure.quality.measure import measure_quality
from core.measurement import Measurement
from core.metrics import metric
from core.plan import Case
from core.planner.presets import PRESETS
from core.target import Target
from core.techniques.deployment import Deployment
from core.workload import Workload

pytestmark = pytest.mark.usefixtures("one_thread")
TARGET = Target("local", "here", "cpu", "local", 10**9, None, (), local=True)
PRESET = replace(PRESETS["quick"], windows=6, window=48)
TEXT = "def add(a, b):\n    return a + b\n\n\nprint(add(1, 2))\n" * 6
CHOICES = [
    {"prompt": prompt, "choices": [" os", " zebra crossing"], "answer": 0}
    for prompt in ("import", "import sys,", "from typing import", "    import") * 3
]
ANSWERS = [{"prompt": "for key, value in", "answer": f"nothing {n}"} for n in range(10)]


def deployed(model: str, words: tuple[str, ...] = ()) -> Deployment:
    case = Case(
        models.resolve(model), TARGET, Workload("w", "W", "text", 8, 8), read_datasets(words)
    )
    text = model == "pycode-small"
    return Deployment(
        case,
        load_engine(model),
        lambda: load_engine(model),
        load_tokenizer(model) if text else None,
    )


def put(folder: Path, name: str, content: str | bytes) -> str:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def lines(items: list[dict[str, Any]]) -> str:
    return "\n".join(json.dumps(item) for item in items)


def by_metric(found: list[Measurement]) -> dict[tuple[str, str], Measurement]:
    keys = [(one.metric, str(one.condition)) for one in found]
    assert len(set(keys)) == len(keys)
    return dict(zip(keys, found, strict=True))


def test_without_data_the_bundled_text_is_taken_in_pairs() -> None:
    deployment = deployed("pycode-small")
    found = by_metric(measure_quality(deployment, PRESET, (0,), unchanged=False))
    assert {name for name, _ in found} == {
        "perplexity", "nats_per_byte", "kl_nats", "top1_agreement",
    }  # fmt: skip
    for one in found.values():
        assert len(one.reference) == one.n == 6
        assert "held-out modules" in one.method
    assert found["perplexity", ""].samples == found["perplexity", ""].reference
    alone = by_metric(measure_quality(deployment, PRESET, (0,), unchanged=True))
    assert all(one.reference == () for one in alone.values())


def test_text_tasks_and_answers_are_measured_beside_each_other(tmp_path: Path) -> None:
    words = (
        put(tmp_path, "code.txt", TEXT),
        put(tmp_path, "quiz.jsonl", lines(CHOICES)),
        put(tmp_path, "asked.jsonl", lines(ANSWERS)),
        put(tmp_path, "more.txt", TEXT.upper()),
    )
    deployment = deployed("pycode-small", words)
    assert isinstance(deployment.engine.head.weight, torch.Tensor)
    reported: list[float] = []
    deployment.report = reported.append
    found = by_metric(measure_quality(deployment, PRESET, (0,), unchanged=False))
    assert "code.txt, sha256" in found["perplexity", ""].method
    assert "more.txt" in found["perplexity", "data=more.txt"].method
    assert "held-out" not in "".join(one.method for one in found.values())
    quiz = found["task_accuracy", ""]
    assert quiz.n == len(quiz.reference) == 12
    assert "all 12 tasks of quiz.jsonl" in quiz.method
    assert "acc of lm-eval" in quiz.method
    assert quiz.value is not None
    assert quiz.value > 0.7
    assert found["task_accuracy_norm", ""].n == 12
    assert found["flips", ""].value == 0
    asked = found["task_accuracy", "data=asked.jsonl"]
    assert (asked.n, asked.value) == (10, 0.0)
    assert "exact match" in asked.method
    assert found["flips", "data=asked.jsonl"].n == 10
    assert reported[-1] == 1.0
    word, sentence = non_inferiority(metric("task_accuracy"), quiz, Margin("task_accuracy", 0.5))
    assert word == NON_INFERIOR
    assert "12 items" in sentence


def test_tasks_alone_leave_the_bundled_text_in_place(tmp_path: Path) -> None:
    words = (put(tmp_path, "quiz.jsonl", lines(CHOICES)),)
    found = by_metric(
        measure_quality(deployed("pycode-small", words), PRESET, (0,), unchanged=True)
    )
    assert "held-out modules" in found["perplexity", ""].method
    assert found["task_accuracy", ""].reference == ()


def test_more_tasks_than_the_preset_pays_for_are_sampled_evenly(tmp_path: Path) -> None:
    words = (put(tmp_path, "quiz.jsonl", lines(CHOICES * 10)),)
    small = replace(PRESET, windows=1)
    found = by_metric(measure_quality(deployed("pycode-small", words), small, (0,), unchanged=True))
    assert found["task_accuracy", ""].n == 25
    assert "25 of 120, evenly spread, tasks" in found["task_accuracy", ""].method


def test_a_changed_file_is_found_before_the_baseline_is_loaded(tmp_path: Path) -> None:
    words = (put(tmp_path, "code.txt", TEXT),)
    deployment = deployed("pycode-small", words)
    deployment.load_baseline = lambda: pytest.fail("loaded")
    put(tmp_path, "code.txt", TEXT + "#")
    with pytest.raises(BadInput, match=r"code\.txt has changed since the study was planned"):
        measure_quality(deployment, PRESET, (0,), unchanged=False)


def test_a_text_of_one_token_is_a_sentence(tmp_path: Path) -> None:
    deployment = deployed("pycode-small", (put(tmp_path, "a.txt", "a"),))
    with pytest.raises(BadInput, match="has 1 tokens for this model: at least 2"):
        measure_quality(deployment, PRESET, (0,), unchanged=True)


def test_a_users_images_take_the_place_of_the_bundled_ones(tmp_path: Path) -> None:
    pixels, labels = digits("held_out")
    stream = io.BytesIO()
    raw = (pixels[:40, 0] * 16).round().to(torch.uint8).numpy()
    np.savez(stream, pixels=raw, labels=labels[:40].numpy(), scale=16)
    words = (put(tmp_path, "own.npz", stream.getvalue()),)
    found = by_metric(measure_quality(deployed("digits-cnn", words), PRESET, (), unchanged=False))
    accuracy = found["accuracy", ""]
    assert accuracy.n == len(accuracy.reference) == 40
    assert "40 images of own.npz" in accuracy.method
    chosen = load_engine("digits-cnn")(pixels[:40]).argmax(-1)
    assert accuracy.samples == tuple((chosen == labels[:40]).float().tolist())
    assert found["flips", ""].value == 0
    bundled = by_metric(measure_quality(deployed("digits-cnn"), PRESET, (), unchanged=True))
    assert bundled["accuracy", ""].n == 450


def test_lm_eval_tasks_stand_beside_the_bundled_text(monkeypatch: pytest.MonkeyPatch) -> None:
    deployment = deployed("pycode-small")
    task = Dataset("lm-eval:made_up", "lm-eval", "", "", 0, 0)
    deployment.case = replace(deployment.case, data=(task,))
    samples = [{"doc_id": n, "acc": 1.0} for n in range(10)]
    monkeypatch.setattr(lm_eval_adapter, "run_task", lambda adapter, dataset: samples)
    found = by_metric(measure_quality(deployment, PRESET, (0,), unchanged=False))
    assert found["task_accuracy", ""].reference == (1.0,) * 10
    assert "held-out" in found["perplexity", ""].method


def test_random_weights_and_missing_tokenizers_have_no_quality_and_say_so() -> None:
    case = Case(models.resolve("shape:smollm2-135m"), TARGET, Workload("w", "W", "text", 8, 8))
    found = measure_quality(Deployment(case, object(), object), PRESET, (), unchanged=True)
    assert all(one.value is None and "random weights" in one.method for one in found)
    case = replace(case, model=models.resolve("pycode-small"))
    found = measure_quality(Deployment(case, object(), object), PRESET, (), unchanged=True)
    assert all(one.value is None and "no tokenizer.json" in one.method for one in found)


def test_every_number_says_on_which_data_it_was_judged(tmp_path: Path) -> None:
    word = put(tmp_path, "a.txt", TEXT)
    deployment = deployed("pycode-small", (word,))
    own = by_metric(measure_quality(deployment, PRESET, (0,), unchanged=True))
    again = by_metric(measure_quality(deployment, PRESET, (0,), unchanged=False))
    plain, few = deployed("pycode-small"), replace(PRESET, windows=3)
    bundled = by_metric(measure_quality(plain, PRESET, (0,), unchanged=True))
    fewer = by_metric(measure_quality(plain, few, (0,), unchanged=True))
    key = ("perplexity", "")
    assert len(own[key].data) == 16
    assert own[key].same_data(again[key])
    assert len({own[key].data, fewer[key].data, bundled[key].data}) == 3
