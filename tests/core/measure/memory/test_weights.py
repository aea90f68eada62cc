"""The table of weights against the engine's own sum and against sharing made on purpose."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from core.engine.classifier import DigitsCNN, DigitsMLP
from core.engine.load.load import random_engine
from core.files.config.decoder_config import DecoderConfig
from core.measure.memory.weights import by_format, stored


def config(**fields: Any) -> DecoderConfig:
    given = {"max_positions": 64, "tied_embeddings": True, **fields}
    return DecoderConfig("llama", 61, 64, 2, 2, 1, 32, (96, 96), **given)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("format_", ["bf16", "int8", "int4-g32"])
def test_the_table_sums_to_what_the_engine_counts(format_: str, tied: bool) -> None:
    engine = random_engine(config(tied_embeddings=tied))
    if format_ != "bf16":
        engine.layers[1].gate_up = engine.layers[1].gate_up.to_format(format_)
    table = stored(engine)
    assert sum(one.nbytes for one in table) == engine.weight_bytes()
    assert len({one.name for one in table}) == len(table)
    packed = [one for one in table if one.name.startswith("layers.1.gate_up")]
    assert {one.format for one in packed} == {format_}
    if format_ != "bf16":
        assert by_format(table)[format_] == engine.layers[1].gate_up.nbytes


def test_a_tied_head_counts_once() -> None:
    table = {one.name: one.nbytes for one in stored(random_engine(config()))}
    assert table["embedding"] == 61 * 64 * 2
    assert table["head"] == 0


def test_a_view_counts_the_storage_that_it_keeps() -> None:
    engine = random_engine(config())
    before = by_format(stored(engine))["bf16"]
    kept = torch.zeros(100, 64, dtype=torch.bfloat16)
    engine.final_norm = kept[3]
    assert by_format(stored(engine))["bf16"] == before + (100 - 1) * 64 * 2


@pytest.mark.parametrize("engine", [DigitsCNN([4, 8]), DigitsMLP([16])])
def test_classifiers_are_modules(engine: Any) -> None:
    table = stored(engine)
    assert by_format(table) == {"fp32": engine.weight_bytes()}
    assert len(table) == len(list(engine.parameters()))


def test_tables_are_what_the_decoder_computed() -> None:
    engine = random_engine(config())
    assert engine.table_bytes() == 0
    engine.forward(torch.zeros(1, 33, dtype=torch.int64))
    assert engine.table_bytes() == 2 * 4 * 16 * 64
