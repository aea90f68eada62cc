"""The memory account: sums, packed layouts by hand, and the pieces that other engines need."""

from __future__ import annotations

from dataclasses import replace

import pytest

from core import techniques
from core.catalogue import models, targets, workloads
from core.model import ClassifierShape, DecoderShape
from core.plan import Case, Plan
from core.predict.account import (
    account,
    classifier_workspace,
    decoder_workspace,
    rotary_tables,
    weights_by_format,
)
from core.predict.effects import Effects
from core.predict.work import DecoderWork

SHAPE = DecoderShape(100, 2, 5, 1, 20, 70, 333, 64)


def plan(model: str, text: str = "", workload: str = "chat") -> Plan:
    case = Case(models.resolve(model), targets.resolve("h100-sxm"), workloads.resolve(workload))
    return Plan(case, tuple(techniques.parse(part) for part in text.split()))


@pytest.mark.parametrize(
    ("model", "text", "workload"),
    [
        ("pycode", "", "chat"),
        ("pycode", "weight-int4:group_size=64", "batch"),
        ("pycode", "speculative", "chat"),
        ("digits-cnn", "", "sensor-frame"),
        ("shape:llama-3.1-8b", "prune-mlp:sparsity=0.5 weight-int8", "summarize"),
    ],
)
def test_the_parts_add_up_to_the_total(model: str, text: str, workload: str) -> None:
    found = account(plan(model, text, workload))
    assert sum(size for _, size in found.parts()) == found.total
    assert found.total == found.weights + found.kv + found.workspace
    assert all(size > 0 for _, size in found.parts())


def test_packed_layouts_round_up_rows_columns_and_groups() -> None:
    """SHAPE's sizes are no multiples of anything: counted by hand as the kernels lay them out."""
    dense = (333 * 100 + 100 * 5) * 2
    rows = [(140, 100), (100, 100), (140, 100), (100, 70)]
    int8 = 2 * sum(n * -(-k // 32) * 32 + 2 * n for n, k in rows) + 333 * 128 + 2 * 333
    work = DecoderWork(SHAPE, Effects(8.0, row_bytes=2.0, packed=True), 16.0)
    assert weights_by_format(work) == {"bf16": dense, "int8": int8}
    padded = [(144, 128), (112, 128), (144, 128), (112, 128)]
    int4 = 2 * sum(n * k / 2 + n * k / 64 * 4 for n, k in padded) + 336 * 64 + 336 * 2 * 4
    work = DecoderWork(SHAPE, Effects(4.0, group=64, group_bytes=4.0, packed=True), 16.0)
    assert weights_by_format(work) == {"bf16": dense, "int4-g64": int4}


def test_an_odd_shape_in_packed_formats_is_what_the_engine_holds() -> None:
    pytest.importorskip("torch")
    from core.engine.config import DecoderConfig
    from core.loading.load import random_engine
    from core.measure.memory.weights import by_format, stored

    config = DecoderConfig(
        "llama", 333, 100, 2, 5, 1, 20, (70, 70), max_positions=64, tied_embeddings=True
    )
    for format_, found in (
        ("int8", Effects(8.0, row_bytes=2.0, packed=True)),
        ("int4-g64", Effects(4.0, group=64, group_bytes=4.0, packed=True)),
    ):
        engine = random_engine(config)
        for layer in engine.layers:
            for name in ("qkv", "o", "gate_up", "down"):
                setattr(layer, name, getattr(layer, name).to_format(format_))
        engine.head = engine.head.to_format(format_)
        assert by_format(stored(engine)) == weights_by_format(DecoderWork(SHAPE, found, 16.0))


def test_biases_and_head_norms_are_weights() -> None:
    work = DecoderWork(replace(SHAPE, layer_vectors=180), Effects(16.0), 16.0)
    plain = DecoderWork(SHAPE, Effects(16.0), 16.0)
    more = sum(weights_by_format(work).values()) - sum(weights_by_format(plain).values())
    assert more == 2 * 2 * 180


def test_a_drafts_weights_and_cache_are_counted_beside() -> None:
    alone, beside = account(plan("pycode")), account(plan("pycode", "speculative"))
    draft = account(plan("pycode-small"))
    assert dict(beside.formats) == {"bf16": alone.weights, "draft bf16": draft.weights}
    assert beside.kv == alone.kv + draft.kv
    assert beside.kv_per_token == alone.kv_per_token + draft.kv_per_token


def test_the_widest_moment_depends_on_the_shape() -> None:
    # A wide MLP: 2 x (hidden 100 + projections 140 + 4 x 700) bytes a token.
    assert decoder_workspace(replace(SHAPE, intermediate=700), 1, 64, 2) == 64 * 2 * (240 + 2800)
    # A narrow one: the float32 copies of a norm.
    assert decoder_workspace(replace(SHAPE, intermediate=8), 1, 64, 2) == 64 * (480 + 10 * 100)
    # A short prompt: the logits.
    assert decoder_workspace(SHAPE, 3, 1, 2) == 3 * (480 + 333 * 6)


def test_rotary_tables_grow_in_powers_of_two() -> None:
    assert rotary_tables(SHAPE, 64) == 2 * 4 * 10 * 64
    assert rotary_tables(SHAPE, 65) == 2 * 4 * 10 * 128


def test_a_convolution_holds_its_result_three_times() -> None:
    dense = ClassifierShape(parameters=1000, macs=990, inputs=64, classes=10, activations=128)
    assert classifier_workspace(dense, 2) == 4 * 2 * 128
    assert classifier_workspace(replace(dense, macs=9000), 2) == 3 * 4 * 2 * 128
