"""The memory account: sums, packed layouts by hand, and the pieces that other engines need."""

from __future__ import annotations

from dataclasses import replace

import pytest

from core import techniques
from core.catalogue import models, workloads
from core.machine import targets
from core.model import ClassifierShape, DecoderShape
from core.plan import Case, Plan
from core.predict.account import (
    account,
    classifier_workspace,
    decoder_workspace,
    rotary_tables,
    weights_by_format,
)
from core.predict.capacity import fit
from core.predict.work import DecoderWork, decoder_work
from core.techniques.effects import Effects
from kernels.lowbit_bytes import LowBitBytes

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
    rows = [(144, 128), (112, 128), (144, 128), (112, 96)]
    int8 = 2 * sum(n * k + 2 * n + 256 for n, k in rows) + 336 * 128 + 2 * 336 + 256
    work = DecoderWork(SHAPE, Effects(stored=LowBitBytes(8)))
    assert weights_by_format(work) == {"bf16": dense, "int8": int8}
    # 100 and 70 columns are two groups of 64.
    int4 = 2 * sum(n * k / 2 + n * 2 * 3 + 256 for n, k in rows) + 336 * (64 + 6) + 256
    work = DecoderWork(SHAPE, Effects(stored=LowBitBytes(4, 64, zero="int8")))
    assert weights_by_format(work) == {"bf16": dense, "int4-g64": int4}


def test_a_matrix_of_another_format_is_counted_under_its_own_name() -> None:
    mix = (("layers.1.down", LowBitBytes(8)), ("head", None))
    work = DecoderWork(SHAPE, Effects(stored=LowBitBytes(4, 64, zero="int8"), mix=mix))
    plain = weights_by_format(DecoderWork(SHAPE, Effects(stored=LowBitBytes(4, 64, zero="int8"))))
    found = weights_by_format(work)
    assert found["int8"] == 112 * 96 + 2 * 112 + 256
    down, head = 112 * (48 + 6) + 256, 336 * (64 + 6) + 256
    assert found["int4-g64"] == plain["int4-g64"] - down - head
    assert found["bf16"] == plain["bf16"], "a dense tied head is the embedding"


def test_an_odd_shape_in_packed_formats_is_what_the_engine_holds() -> None:
    pytest.importorskip("torch")
    from core.engine.load.load import random_engine
    from core.files.config.decoder_config import DecoderConfig
    from core.measure.memory.weights import by_format, stored

    config = DecoderConfig(
        "llama", 333, 100, 2, 5, 1, 20, (70, 70), max_positions=64, tied_embeddings=True
    )
    for format_, found in (
        ("int8", LowBitBytes(8)),
        ("int4-g64", LowBitBytes(4, 64, zero="int8")),
        ("int3-g32", LowBitBytes(3, 32, zero="int8")),
        ("nf4-g64", LowBitBytes(4, 64, kind="nf4")),
    ):
        engine = random_engine(config)
        for layer in engine.layers:
            for name in ("qkv", "o", "gate_up", "down"):
                setattr(layer, name, getattr(layer, name).to_format(format_))
        engine.head = engine.head.to_format(format_)
        if engine.head.kernel_weight.kernel != "cpp":
            pytest.skip(f"predictions are those of the kernel cpp: {engine.head.kernel_weight}")
        work = DecoderWork(SHAPE, Effects(stored=found))
        assert by_format(stored(engine)) == weights_by_format(work)


def test_biases_and_head_norms_are_weights() -> None:
    work = DecoderWork(replace(SHAPE, layer_vectors=180), Effects())
    plain = DecoderWork(SHAPE, Effects())
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


def test_many_rows_of_packed_weights_need_a_tile_of_them() -> None:
    plain = decoder_workspace(SHAPE, 1, 65, 2)
    packed = decoder_workspace(SHAPE, 1, 65, 2, packed=True)
    # Gate and up of 140 rows: the norm's result, their own, the tile and the product with it.
    assert packed == max(plain, 65 * 480 + 65 * 2 * (100 + 140) + 2 * 140 * (100 + 65))
    assert packed > plain
    assert decoder_workspace(SHAPE, 1, 24, 2, packed=True) == decoder_workspace(SHAPE, 1, 24, 2)


def test_rotary_tables_grow_in_powers_of_two() -> None:
    assert rotary_tables(SHAPE, 64) == 2 * 4 * 10 * 64
    assert rotary_tables(SHAPE, 65) == 2 * 4 * 10 * 128


def test_a_convolution_holds_its_result_three_times() -> None:
    dense = ClassifierShape(parameters=1000, macs=990, inputs=64, classes=10, activations=128)
    assert classifier_workspace(dense, 2) == 4 * 2 * 128
    assert classifier_workspace(replace(dense, macs=9000), 2) == 3 * 4 * 2 * 128


MIXTRAL = models.decoder_shape(
    {"model_type": "mixtral", "vocab_size": 32000, "hidden_size": 4096, "num_hidden_layers": 32,
     "num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 14336,
     "num_local_experts": 8, "num_experts_per_tok": 2, "max_position_embeddings": 32768}
)  # fmt: skip


def test_a_mixture_holds_every_expert_and_reads_those_that_its_tokens_choose() -> None:
    """By hand: 46,702,792,704 weights; 2 of 8 experts of 3 x 4096 x 14336 a token and layer."""
    model = replace(models.resolve("shape:mistral-7b"), shape=MIXTRAL)
    case = Case(model, targets.resolve("rtx-4090"), workloads.resolve("chat"))
    assert account(Plan(case)).weights == 2 * 46_702_792_704
    assert "93.4 GB of weights" in (fit(Plan(case)) or "")
    work = decoder_work(Plan(case))
    expert = 3 * 4096 * 14336
    common = 32 * (2 * 4096 * 4096 + 2 * 4096 * 1024 + 8 * 4096) + 32000 * 4096
    assert work.read_bytes(1) == pytest.approx(2 * (common + 32 * 2 * expert))
    assert work.read_bytes(2) == pytest.approx(2 * (common + 32 * 3.5 * expert))
    assert work.read_bytes(4096) == pytest.approx(2 * (common + 32 * 8 * expert))
    assert work.step(1, 1, 0).flops == pytest.approx(
        2 * (common + 32 * 2 * expert) + 4 * 32 * 32 * 128
    )
    packed = account(Plan(case, (techniques.parse("weight-int4"),))).weights
    assert 0.25 < packed / (2 * 46_702_792_704) < 0.34


@pytest.mark.parametrize("family", ["gpt2", "falcon", "mixtral", "qwen2_moe", "opt"])
@pytest.mark.parametrize("text", ["", "weight-int4", "k-quant"])
def test_what_runs_through_transformers_weighs_what_the_engine_weighs(
    family: str, text: str
) -> None:
    """Parameters and packed buffers, tensor by tensor; tables that follow from positions apart."""
    import torch

    from core.engine.transformers_engine import TransformersEngine
    from core.techniques.deployment import Deployment
    from tests.core.files.config.test_architectures import ALL, built

    wide = dict.fromkeys(("hidden_size", "n_embd", "word_embed_proj_dim"), 64)
    given = {name: wide.get(name, value) for name, value in ALL[family][0].items()}
    model, saved = built(family, {**given, "tie_word_embeddings": True}, "cpu")
    engine = TransformersEngine(model.to(torch.bfloat16))
    found = replace(models.resolve("shape:mistral-7b"), shape=models.decoder_shape(saved))
    case = Case(found, targets.resolve("local"), workloads.resolve("chat"))
    chosen = tuple(techniques.parse(part) for part in text.split())
    deployment = Deployment(case=case, engine=engine, load_baseline=lambda: None)  # type: ignore[arg-type]
    tables = sum(one.nbytes for one in model.buffers())
    for one in chosen:
        one.apply(deployment)
    held = engine.weight_bytes() - tables
    assert sum(weights_by_format(decoder_work(Plan(case, chosen))).values()) == held
