"""Quality numbers against fp64 arithmetic written out here, on tiny random decoders."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import special

from core.data.passages import Windows
from core.engine.decoder import Decoder
from core.engine.load.load import random_engine
from core.files.config.decoder_config import DecoderConfig
from core.measure.quality.floor import FLOOR_METRICS
from core.measure.quality.text import TEXT_METRICS, no_quality, text_quality
from core.measurement import Measurement
from core.metrics import metric

pytestmark = pytest.mark.usefixtures("one_thread")
CONFIG = DecoderConfig(
    family="llama",
    vocab_size=61,
    hidden_size=32,
    num_layers=2,
    num_heads=2,
    num_kv_heads=1,
    head_dim=16,
    intermediate_sizes=(32, 32),
    max_positions=64,
    tied_embeddings=False,
)


def engine(seed: int, dtype: str = "fp32") -> Decoder:
    """A random decoder whose logits are not all alike."""
    found = random_engine(CONFIG, dtype, seed)
    assert isinstance(found.head.weight, torch.Tensor)
    found.head.weight *= 40
    return found


def windows(rows: int = 7, length: int = 33) -> Windows:
    random = torch.Generator().manual_seed(5)
    ids = torch.randint(0, CONFIG.vocab_size, (rows, length + 1), generator=random)
    return Windows(ids, tuple(60 + 17 * i for i in range(rows)), "made up, pinned")


def logits64(one: Decoder, row: torch.Tensor) -> np.ndarray:
    return one.forward(row[None, :-1])[0].double().numpy()


def by_name(found: list[Measurement]) -> dict[str, Measurement]:
    return {one.metric: one for one in found}


def test_perplexity_is_the_exponential_of_the_mean_over_all_tokens() -> None:
    own, data = engine(1), windows()
    nats = [
        -special.log_softmax(logits64(own, row), axis=-1)[np.arange(33), row[1:].numpy()]
        for row in data.ids
    ]
    found = by_name(text_quality(own, None, data))["perplexity"]
    assert found.value == pytest.approx(math.exp(np.concatenate(nats).mean()), rel=1e-5)
    assert found.samples == pytest.approx([math.exp(one.mean()) for one in nats], rel=1e-5)
    assert found.bounds is not None
    assert found.bounds[0] < found.value < found.bounds[1]
    assert found.unit == ""


def test_nats_per_byte_are_all_nats_over_all_bytes() -> None:
    own, data = engine(1), windows()
    sums = np.array(
        [
            -special.log_softmax(logits64(own, row), axis=-1)[np.arange(33), row[1:].numpy()].sum()
            for row in data.ids
        ]
    )
    found = by_name(text_quality(own, None, data))["nats_per_byte"]
    assert found.value == pytest.approx(sums.sum() / sum(data.row_bytes), rel=1e-5)
    assert found.samples == pytest.approx(sums / np.mean(data.row_bytes), rel=1e-5)
    assert np.mean(found.samples) == pytest.approx(found.value, rel=1e-12)
    assert found.bounds is not None
    assert found.bounds[0] < found.value < found.bounds[1]


def test_kl_is_from_the_baseline_to_the_candidate_in_nats_per_token() -> None:
    candidate, baseline, data = engine(1), engine(2), windows()
    rows = []
    for row in data.ids:
        p = special.softmax(logits64(baseline, row), axis=-1)
        q = special.softmax(logits64(candidate, row), axis=-1)
        rows.append(special.rel_entr(p, q).sum(-1).mean())
    found = by_name(text_quality(candidate, baseline, data))["kl_nats"]
    assert found.value == pytest.approx(np.mean(rows), rel=1e-9)
    assert found.samples == pytest.approx(rows, rel=1e-9)
    other_way = by_name(text_quality(baseline, candidate, data))["kl_nats"]
    assert other_way.value != pytest.approx(found.value, rel=1e-2)


def test_agreement_counts_equal_first_choices() -> None:
    candidate, baseline, data = engine(1), engine(1), windows()
    assert isinstance(candidate.head.weight, torch.Tensor)
    candidate.head.weight += 0.3 * torch.randn(candidate.head.weight.shape)
    same = [
        logits64(candidate, row).argmax(-1) == logits64(baseline, row).argmax(-1)
        for row in data.ids
    ]
    found = by_name(text_quality(candidate, baseline, data))["top1_agreement"]
    assert 0 < np.mean(same) < 1
    assert found.value == pytest.approx(np.mean(same), abs=1e-6)


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_a_copy_of_the_baseline_differs_from_it_by_nothing(dtype: str) -> None:
    found = by_name(text_quality(engine(3, dtype), engine(3, dtype), windows()))
    assert found["kl_nats"].value == 0.0
    assert found["kl_nats"].bounds == (0.0, 0.0)
    assert found["top1_agreement"].value == 1.0


def test_the_baseline_agrees_with_itself_by_definition_and_says_so() -> None:
    found = by_name(text_quality(engine(3), None, windows()))
    assert found["kl_nats"].value == 0.0
    assert found["top1_agreement"].bounds == (1.0, 1.0)
    assert "by definition" in found["kl_nats"].method
    assert set(found) == {*TEXT_METRICS, *FLOOR_METRICS}


def test_every_number_names_its_data_and_is_measured() -> None:
    for one in text_quality(engine(1), engine(2), windows()):
        assert one.origin == "measured"
        assert one.method.startswith("made up, pinned")
        assert one.unit == metric(one.metric).unit


def test_quality_that_cannot_be_had_says_why() -> None:
    found = by_name(no_quality("random weights"))
    assert set(found) == set(TEXT_METRICS)
    assert all(one.value is None and one.method == "random weights" for one in found.values())
