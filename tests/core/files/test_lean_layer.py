"""The lean decoder's layer is described once, and every description of it agrees."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from core.engine.decoder import Layer
from core.files import lean_layer
from core.files.architectures import FAMILIES, LEAN
from core.files.config.hf_config import from_hf
from core.files.config.shape import decoder_shape
from core.files.formats.layout import stacks

CONFIG: dict[str, Any] = {
    "vocab_size": 40, "hidden_size": 24, "intermediate_size": 56, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
    "max_position_embeddings": 64,
}  # fmt: skip


@pytest.mark.parametrize("family", LEAN)
def test_the_layer_has_the_modules_of_its_families(family: str) -> None:
    described = FAMILIES[family]
    modules = [part.module for matrix in lean_layer.MATRICES for part in matrix.parts]
    assert [name for name, *_ in (*described.attention, *described.mlp)] == modules


@pytest.mark.parametrize("family", LEAN)
def test_predictions_count_the_matrices_that_the_engine_stacks(family: str) -> None:
    config = CONFIG | {"model_type": family}
    engine = [(s.name, s.rows, s.columns) for s in stacks(from_hf(config))]
    counted = [(one.name, one.rows, one.columns) for one in decoder_shape(config).stacks(56)]
    assert counted == [(name.removeprefix("layers.0."), *size) for name, *size in engine[:4]]


def test_the_engine_holds_what_is_described() -> None:
    described = {*lean_layer.NAMES, *(norm.name for norm in lean_layer.NORMS)}
    assert {one.name for one in fields(Layer)} == described
    assert dict(lean_layer.NORMED).keys() <= set(lean_layer.NAMES)
    assert set(dict(lean_layer.NORMED).values()) <= described
