"""The floor of KL and agreement against fp64 arithmetic over two passes of one engine."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import special

from core.data.passages import Passage, Passages, Windows
from core.engine.decoder import Decoder
from core.engine.load.load import random_engine
from core.files.config.decoder_config import DecoderConfig
from core.measure.quality.floor import FLOOR_METRICS, InParts
from core.measure.quality.text import text_quality
from core.measurement import Measurement

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


def engine(dtype: str) -> Decoder:
    """A random decoder whose logits are not all alike."""
    found = random_engine(CONFIG, dtype, 1)
    assert isinstance(found.head.weight, torch.Tensor)
    found.head.weight *= 40
    return found


def windows(rows: int = 7, length: int = 37) -> Windows:
    random = torch.Generator().manual_seed(5)
    ids = torch.randint(0, CONFIG.vocab_size, (rows, length + 1), generator=random)
    return Windows(ids, (90,) * rows, "made up")


def logits64(one: Decoder, ids: torch.Tensor, part: int) -> np.ndarray:
    cache = one.new_cache(1, len(ids))
    return torch.cat([one.forward(p[None], cache)[0] for p in ids.split(part)]).double().numpy()


def floors_of(one: object, text: object) -> dict[str, Measurement]:
    found = {row.metric: row for row in text_quality(one, None, text)}  # type: ignore[arg-type]
    return {name: found[name] for name in FLOOR_METRICS}


def test_the_floor_is_the_divergence_of_two_readings_of_one_model() -> None:
    own, data = engine("bf16"), windows()
    divergence, same = [], []
    for row in data.ids:
        p = special.log_softmax(own.forward(row[None, :-1])[0].double().numpy(), axis=-1)
        q = special.log_softmax(logits64(own, row[:-1], 16), axis=-1)
        divergence.append((np.exp(p) * (p - q)).sum(-1).mean())
        same.append((p.argmax(-1) == q.argmax(-1)).mean())
    found = floors_of(own, data)
    assert 0 < np.mean(divergence) < 1e-2
    assert found["kl_floor_nats"].samples == pytest.approx(divergence, rel=1e-9)
    assert found["kl_floor_nats"].value == pytest.approx(np.mean(divergence), rel=1e-9)
    assert found["agreement_floor"].value == pytest.approx(np.mean(same))


def test_in_float32_the_floor_is_below_what_float32_logarithms_could_show() -> None:
    found = floors_of(engine("fp32"), windows())
    assert 0 <= float(found["kl_floor_nats"].value or 0.0) < 1e-9
    assert found["agreement_floor"].value == 1.0


def test_only_the_unchanged_model_has_a_floor() -> None:
    names = {one.metric for one in text_quality(engine("bf16"), engine("bf16"), windows())}
    assert not names & set(FLOOR_METRICS)


@pytest.mark.parametrize("length", [1, 2, 15, 16, 17, 33, 48])
def test_parts_give_every_position_once(length: int) -> None:
    own = engine("fp32")
    ids = torch.arange(length)[None] % CONFIG.vocab_size
    assert torch.allclose(InParts(own).forward(ids), own.forward(ids), atol=1e-4)
    last = InParts(own).forward(ids, last_only=True)
    assert last.shape == (1, 1, CONFIG.vocab_size)
    assert torch.allclose(last, own.forward(ids, last_only=True), atol=1e-4)


def test_a_second_program_that_is_another_model_gives_no_floor() -> None:
    own = engine("fp32")

    class Forgetful:
        """An engine whose cache forgets: its second program is wrong."""

        vocab_size = CONFIG.vocab_size

        def new_cache(self, batch: int, capacity: int) -> None:
            """Nothing is kept."""

        def forward(
            self, ids: torch.Tensor, cache: None = None, last: bool = False
        ) -> torch.Tensor:
            """Logits without a past."""
            return own.forward(ids, last_only=last)

    found = floors_of(Forgetful(), windows())
    assert found["kl_floor_nats"].value is None
    assert "not this model" in found["kl_floor_nats"].method


def test_one_short_passage_has_a_floor_without_an_interval() -> None:
    text = Passages((Passage(torch.tensor([1, 2, 3]), 1, 4),), "one word")
    found = floors_of(engine("bf16"), text)
    assert found["kl_floor_nats"].bounds is None
    assert float(found["kl_floor_nats"].value or 0.0) >= 0
