"""Bytes and FLOPs against the engine's own tensors and against counting by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from core import techniques
from core.catalogue import workloads
from core.machine import targets
from core.model import DecoderShape, Model
from core.plan import Case, Plan
from core.predict.account import account, weights_by_format
from core.predict.effects import effects
from core.predict.work import decoder_work
from core.study import Study
from core.techniques.base import Base
from core.techniques.effects import Effects
from core.techniques.prune.width import MULTIPLE, kept_width
from kernels.lowbit_bytes import LowBitBytes

SHAPE = DecoderShape(128, 3, 4, 2, 32, 352, 512, 256)


def plan(study: Study, text: str, shape: DecoderShape = SHAPE, concurrency: int = 1) -> Plan:
    model = replace(study.case.model, shape=shape)
    workload = replace(study.case.workload, concurrency=concurrency)
    chosen = tuple(techniques.parse(part) for part in text.split())
    return Plan(replace(study.case, model=model, workload=workload), chosen)


def engine_bytes(text: str, tied: bool) -> int:
    """Bytes of a real decoder of SHAPE after the techniques, summed over its tensors."""
    import torch

    from core.engine.decoder import Decoder
    from core.files.config.hf_config import from_hf
    from core.techniques.deployment import Deployment

    config = from_hf(
        {
            "model_type": "llama",
            "vocab_size": SHAPE.vocabulary,
            "hidden_size": SHAPE.hidden,
            "intermediate_size": SHAPE.intermediate,
            "num_hidden_layers": SHAPE.layers,
            "num_attention_heads": SHAPE.heads,
            "num_key_value_heads": SHAPE.kv_heads,
            "head_dim": SHAPE.head_dim,
            "max_position_embeddings": SHAPE.context,
            "tie_word_embeddings": tied,
        }
    )
    wide, kv, mlp = (
        SHAPE.heads * SHAPE.head_dim,
        SHAPE.kv_heads * SHAPE.head_dim,
        SHAPE.intermediate,
    )
    rows = {
        "self_attn.q_proj": (wide, SHAPE.hidden),
        "self_attn.k_proj": (kv, SHAPE.hidden),
        "self_attn.v_proj": (kv, SHAPE.hidden),
        "self_attn.o_proj": (SHAPE.hidden, wide),
        "mlp.gate_proj": (mlp, SHAPE.hidden),
        "mlp.up_proj": (mlp, SHAPE.hidden),
        "mlp.down_proj": (SHAPE.hidden, mlp),
    }
    random = torch.Generator().manual_seed(0)
    tensors = {"model.embed_tokens.weight": torch.randn(512, 128, generator=random)}
    tensors["model.norm.weight"] = torch.ones(128)
    for i in range(SHAPE.layers):
        for name, size in rows.items():
            tensors[f"model.layers.{i}.{name}.weight"] = torch.randn(size, generator=random)
        for name in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"model.layers.{i}.{name}.weight"] = torch.ones(128)
    if not tied:
        tensors["lm_head.weight"] = torch.randn(512, 128, generator=random)
    engine = Decoder.from_tensors(config, tensors)
    # Random tokens to learn from: what matters are the bytes.
    model = Model("shape:tiny", "llama", "shape", "r1", SHAPE)
    case = Case(model, targets.resolve("h100-sxm"), workloads.resolve("chat"))
    deployment = Deployment(case=case, engine=engine, load_baseline=lambda: None)
    for part in text.split():
        techniques.parse(part).apply(deployment)
    return engine.weight_bytes()


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
    "text",
    [
        "",
        "weight-int8",
        "weight-int4",
        "prune-mlp:sparsity=0.25",
        "prune-mlp:sparsity=0.5 weight-int4",
    ],
)
def test_the_predicted_bytes_are_those_of_the_engine(
    synthetic_study: Study, text: str, tied: bool
) -> None:
    work = decoder_work(plan(synthetic_study, text, replace(SHAPE, tied=tied)))
    assert sum(weights_by_format(work).values()) == engine_bytes(text, tied)


def test_pruned_widths_are_those_of_the_technique() -> None:
    for width in (32, 64, 352, 704, 1536, 4096):
        for share in (0.01, 0.1, 0.25, 0.5, 0.73, 0.99):
            if width > MULTIPLE:
                shape = Effects(sparsity=(share,)).shape(replace(SHAPE, intermediate=width))
                assert shape.intermediate == kept_width(width, share), (width, share)


def test_every_registered_technique_has_a_stated_effect() -> None:
    for technique in techniques.TECHNIQUES:
        assert technique.effect is not Base.effect, technique.name


def test_an_unknown_technique_claims_nothing(synthetic_study: Study) -> None:
    class Magic(Base):
        name = "magic"
        kind = "cache"

    one = replace(plan(synthetic_study, "weight-int8"), techniques=(Magic(),))  # type: ignore[arg-type]
    found = effects(one)
    assert found.unknown == ("magic",)
    assert replace(found, unknown=()) == effects(plan(synthetic_study, ""))


def test_effects_read_the_fields(synthetic_study: Study) -> None:
    found = effects(plan(synthetic_study, "prune-mlp:sparsity=0.5 weight-int4:group_size=64"))
    assert found.stored == LowBitBytes(4, 64, zero="int8")
    assert found.sparsity == (0.5,)
    found = effects(
        plan(
            synthetic_study,
            "speculative:tokens=5,draft=pycode-small static-batch:size=8",
            concurrency=8,
        )
    )
    assert (found.draft, found.draft_tokens, found.batch) == ("pycode-small", 5, 8)


def test_a_step_reads_every_weight_once_and_every_cache(synthetic_study: Study) -> None:
    shape = SHAPE
    work = decoder_work(plan(synthetic_study, ""))
    weights = shape.layers * (128 * 128 + 2 * 64 * 128 + 128 * 128 + 3 * 128 * 352) + 512 * 128
    assert work.step(1, 1, 0).bytes == 2 * weights
    assert work.step(1, 1, 10).bytes == 2 * weights + 10 * 2 * (2 * 3 * 2 * 32)
    assert work.step(4, 4, 10).bytes == 2 * weights + 4 * 10 * 2 * (2 * 3 * 2 * 32)
    assert work.step(4, 4, 0).flops == 4 * (2 * weights + 4 * 3 * 4 * 32)


def test_memory_adds_up_by_hand(synthetic_study: Study) -> None:
    need = account(plan(synthetic_study, "static-batch:size=4", concurrency=4))
    assert need.kv == 4 * (128 + 64) * (2 * 3 * 2 * 32) * 2
    assert need.total == need.weights + need.kv + need.workspace
    alone = account(plan(synthetic_study, ""))
    assert need.weights == alone.weights
    # Rotary tables for 256 positions do not grow with the batch.
    tables = 2 * 4 * 16 * 256
    assert need.workspace - tables == 4 * (alone.workspace - tables)
    # SwiGLU: hidden 128, projections 256, gate and up and two results of 352, 2 bytes each.
    assert alone.workspace - tables == 128 * 2 * (128 + 256 + 4 * 352)
