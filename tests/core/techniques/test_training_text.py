"""What techniques learn from: the user's part, the bundled text, or what the model writes."""

from __future__ import annotations

import json
import random
import string
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from core.catalogue import models
from core.catalogue.zoo import corpus
from core.data import passages
from core.data.files import read_datasets
from core.engine.load.load import load_engine, load_tokenizer
from core.errors import Refused
from core.files.special_ids import SpecialIds
from core.measurement import Measurement
from core.plan import Case
from core.target import Target
from core.techniques import training_text
from core.techniques.deployment import Deployment
from core.techniques.solve.calibration import CalibrationSet, calibration_ids, calibration_images
from core.workload import Workload

TARGET = Target("local", "here", "cpu", "local", 10**9, None, (), local=True)
WORKLOAD = Workload("w", "W", "text", 8, 8)


class Chain:
    """A model that goes from each token to the next by a table [V, V] of probabilities."""

    device, max_positions = "cpu", 64

    def __init__(self, table: torch.Tensor, ids: SpecialIds) -> None:
        self.table, self.special_ids, self.vocab_size = table, ids, len(table)

    def new_cache(self, batch: int, capacity: int) -> None:
        return None

    def forward(self, ids: torch.Tensor, cache: Any = None, last_only: bool = False) -> Any:
        return self.table.log()[ids[:, -1:]]


def chain(ids: SpecialIds, end: float = 0.05) -> Chain:
    """Ten tokens: 0 starts, 1 ends with the chance `end`, and 2 to 9 go up by one or by two."""
    table = torch.zeros(10, 10)
    for token in range(10):
        at = max(token, 2) - 2
        table[token, 2 + (at + 1) % 8] = (1 - end) * 0.75
        table[token, 2 + (at + 2) % 8] = (1 - end) * 0.25
        table[token, 1] += end
    return Chain(table, ids)


def around(engine: Any, source: str = "folder", **fields: Any) -> Deployment:
    model = replace(models.resolve("pycode-small"), source=source)
    return Deployment(Case(model, TARGET, WORKLOAD), engine, lambda: engine, **fields)


def pieces(ids: Sequence[int], start: int = 0) -> list[list[int]]:
    found: list[list[int]] = []
    for token in ids:
        if token == start:
            found.append([])
        else:
            found[-1].append(token)
    return found


def test_the_model_writes_as_it_says_it_would() -> None:
    deployment = around(chain(SpecialIds(0, (1,), prefix=(0,))), seed=3)
    ids = training_text.sampled(deployment, 6000)
    assert 6000 <= len(ids) < 6000 + 32 * 64
    texts = pieces(ids)
    assert not any(1 in text for text in texts)
    steps = [(b - a) % 8 for text in texts for a, b in pairwise(text)]
    assert set(steps) == {1, 2}
    # Four standard errors of a share of 0.25.
    assert np.mean(np.array(steps) == 2) == pytest.approx(
        0.25, abs=4 * (0.1875 / len(steps)) ** 0.5
    )
    lengths = [len(text) for text in texts if len(text) < 63]
    assert 10 < np.mean(lengths) < 20
    assert ids == training_text.sampled(around(deployment.engine, seed=3), 6000)
    assert ids != training_text.sampled(around(deployment.engine, seed=4), 6000)


def test_without_a_start_token_some_other_stands_in_for_it() -> None:
    stopping = training_text.sampled(around(chain(SpecialIds(None, (1,)))), 500)
    assert not {0, 1} & set(stopping)
    # Nothing is known at all: any token begins a text.
    unknown = training_text.sampled(around(chain(SpecialIds())), 500)
    assert 1 in unknown


def test_a_model_that_ends_at_once_is_not_asked_when_to_stop() -> None:
    ids = training_text.sampled(around(chain(SpecialIds(0, (1,), prefix=(0,)), end=1.0)), 300)
    assert len(ids) >= 300


def test_answers_that_are_no_numbers_teach_nothing() -> None:
    engine = chain(SpecialIds(0, (1,), prefix=(0,)))
    engine.table *= float("nan")
    with pytest.raises(Refused, match="not finite, so there is nothing to learn"):
        training_text.stream(around(engine), 100)


def test_the_unchanged_model_writes_even_behind_a_technique() -> None:
    engine = chain(SpecialIds(0, (1,), prefix=(0,)))
    broken = chain(SpecialIds(0, (1,), prefix=(0,)), end=1.0)
    deployment = replace(around(engine), engine=broken)
    found = training_text.stream(deployment, 500)
    assert found.source == "sampled"
    assert max(map(len, pieces(found.ids))) > 5
    assert "the unchanged model wrote itself (there is no data of yours)" in found.words


def test_training_asks_for_a_share_of_what_it_reads() -> None:
    deployment = around(chain(SpecialIds(0, (1,), prefix=(0,))))
    few = training_text.stream(deployment, 20_000)
    assert training_text.LEAST_SAMPLED <= len(few.ids) < 20_000
    # Asked again for a little more, nothing is written anew.
    assert training_text.stream(deployment, 4 * training_text.LEAST_SAMPLED).ids is few.ids


def story(seed: int, count: int = 120) -> str:
    draw = random.Random(seed)
    return " ".join("".join(draw.choices(string.ascii_letters, k=5)) for _ in range(count))


def bundled(words: Sequence[str] = ()) -> tuple[Deployment, list[str], list[Measurement]]:
    notes: list[str] = []
    kept: list[Measurement] = []
    model = models.resolve("pycode-small")
    case = Case(model, TARGET, WORKLOAD, read_datasets(words))
    engine = load_engine(model)
    made = Deployment(
        case, engine, lambda: engine, load_tokenizer(model), note=notes.append, keep=kept.append
    )
    return made, notes, kept


def test_a_bundled_model_learns_from_the_bundled_text_unless_there_is_data(tmp_path: Path) -> None:
    deployment, notes, kept = bundled()
    settings = CalibrationSet(samples=6, length=40)
    rows = calibration_ids(deployment, settings)
    texts = corpus.training_set(limit_bytes=400_000).texts
    whole, _ = passages.encode(deployment.tokenizer, texts, (), 4 * 6 * 40)
    runs = {tuple(whole[at : at + 40]) for at in range(len(whole) - 39)}
    assert {tuple(row) for row in rows.tolist()} <= runs
    assert notes == [
        "calibrated on 6 sequences of 40 tokens: the bundled training text (there is no data of"
        " yours)"
    ]
    assert [(one.metric, str(one.condition), one.value) for one in kept] == [
        ("learning_items", "calibration=bundled", 240.0)
    ]
    # Another draw is said only once.
    assert not torch.equal(calibration_ids(deployment, replace(settings, draw=1)), rows)
    assert len(notes) == len(kept) == 1


def test_the_users_text_is_learned_from_and_the_rest_is_judged(tmp_path: Path) -> None:
    file = tmp_path / "stories.jsonl"
    file.write_text("\n".join(json.dumps({"text": story(seed)}) for seed in range(80)))
    deployment, notes, kept = bundled([str(file)])
    rows = calibration_ids(deployment, CalibrationSet(samples=5, length=60))
    judged = " ".join(training_text.parts(deployment).judged["stories.jsonl"].texts)
    all_text = " ".join(story(seed) for seed in range(80))
    for row in rows.tolist():
        for text in deployment.tokenizer.decode(row).split()[1:-1]:
            assert text not in judged.split() or all_text.count(text) > 1
    assert notes == [
        "calibrated on 5 sequences of 60 tokens: your text (stories.jsonl), the part that nothing"
        " is judged on"
    ]
    assert str(kept[0].condition) == "calibration=data"


def test_data_that_cannot_be_parted_teaches_nothing_and_says_so(tmp_path: Path) -> None:
    file = tmp_path / "short.txt"
    file.write_text(story(1))
    deployment, notes, kept = bundled([str(file)])
    calibration_ids(deployment, CalibrationSet(samples=2, length=30))
    assert "bundled training text (your data is judged whole: it needs 40 kB" in notes[0]
    assert str(kept[0].condition) == "calibration=bundled"
    assert training_text.parts(deployment).judged["short.txt"].texts == (story(1),)


def test_images_are_the_users_where_there_are_enough(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    pixels = draw.random((500, 64), dtype=np.float32)
    file = tmp_path / "mine.npz"
    np.savez(file, pixels=pixels, labels=np.arange(500) % 10)
    model = models.resolve("digits-mlp")
    notes: list[str] = []
    case = Case(model, TARGET, replace(WORKLOAD, task="image"), read_datasets([str(file)]))
    found = calibration_images(Deployment(case, object(), object, note=notes.append))
    assert found.shape[1:] == (1, 8, 8)
    assert len(found) == 125
    given = {row.tobytes() for row in pixels}
    assert {row.numpy().tobytes() for row in found} <= given
    assert notes == [
        "calibrated on images: your images (mine.npz), the part that nothing is judged on"
    ]
    plain = Deployment(replace(case, data=()), object(), object)
    assert torch.equal(calibration_images(plain), passages.digits("train")[0])
