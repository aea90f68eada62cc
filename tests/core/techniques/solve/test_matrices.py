"""The linear layers of models that run through transformers: found, replaced, or spoken of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from core.engine.matrices import of_module
from core.engine.modules import KernelLinear
from core.engine.transformers_engine import TransformersEngine
from core.techniques.deployment import Deployment
from core.techniques.quantize.fp8 import Fp8
from core.techniques.quantize.gptq import Gptq
from core.techniques.quantize.w8a8 import W8A8
from core.techniques.quantize.weight_int import WeightInt8
from core.techniques.solve.matrices import left_alone, matrices

Deploy = Callable[..., tuple[Deployment, list[str]]]
IDS = {"vocab_size": 97, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None}
PLAIN = {"hidden_size": 128, "num_hidden_layers": 1, "num_attention_heads": 4}


def engine_of(family: str, **fields: Any) -> TransformersEngine:
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **(IDS | fields))
    model = AutoModelForCausalLM.from_config(config)
    for name, weight in model.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(weight, std=0.1)
    return TransformersEngine(model)


def gpt2() -> TransformersEngine:
    return engine_of("gpt2", n_embd=128, n_layer=1, n_head=4, n_positions=64)


def mixtral() -> TransformersEngine:
    sizes = {"intermediate_size": 160, "num_local_experts": 4, "num_key_value_heads": 4}
    return engine_of("mixtral", **PLAIN, **sizes)


def test_conv1d_is_a_linear_layer_whose_weight_lies_the_other_way(deploy: Deploy) -> None:
    engine = gpt2()
    deployment, _ = deploy(engine)
    found = {one.name: one for one in matrices(deployment)}
    block = engine.model.transformer.h[0]
    assert [(name.rpartition("h.0.")[2], one.n, one.k) for name, one in found.items()] == [
        ("attn.c_attn", 384, 128),
        ("attn.c_proj", 128, 128),
        ("mlp.c_fc", 512, 128),
        ("mlp.c_proj", 128, 512),
        ("lm_head", 97, 128),
    ]
    one = found["transformer.h.0.mlp.c_fc"]
    x = torch.randn(3, 128)
    assert one.bias is not None
    torch.testing.assert_close(x @ one.dense().T + one.bias, block.mlp.c_fc(x))
    assert one.dense().is_contiguous()


@pytest.mark.parametrize("technique", [WeightInt8(), Fp8(), W8A8(smooth=0)])
def test_a_quantized_gpt2_computes_nearly_the_same_in_fewer_bytes(
    technique: Any, deploy: Deploy
) -> None:
    engine, ids = gpt2(), torch.randint(0, 97, (2, 9))
    before, size = engine.forward(ids), engine.weight_bytes()
    technique.apply(deploy(engine)[0])
    assert not of_module(engine.model)
    made = [name for name, part in engine.model.named_modules() if isinstance(part, KernelLinear)]
    assert len(made) == 5
    assert engine.weight_bytes() < 0.45 * size
    assert (engine.forward(ids) - before).abs().max() < 0.1 * before.abs().max()


def test_gptq_sees_the_inputs_of_conv1d(deploy: Deploy, monkeypatch: pytest.MonkeyPatch) -> None:
    from core.techniques.solve import calibration

    def ids(*_: object) -> torch.Tensor:
        return torch.randint(0, 97, (8, 32), generator=torch.Generator().manual_seed(0))

    monkeypatch.setattr(calibration, "calibration_ids", ids)
    engine, probe = gpt2(), torch.randint(0, 97, (2, 9))
    before = engine.forward(probe)
    Gptq(bits=8).apply(deploy(engine)[0])
    assert not of_module(engine.model)
    assert (engine.forward(probe) - before).abs().max() < 0.1 * before.abs().max()


def test_falcons_own_linear_layer_is_found() -> None:
    engine = engine_of("falcon", **PLAIN)
    assert [one.name.rpartition(".")[2] for one in of_module(engine.model)] == [
        "query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h", "lm_head",
    ]  # fmt: skip


MIXTURES = {
    "mixtral": {"num_local_experts": 4},
    "qwen2_moe": {"num_experts": 4, "moe_intermediate_size": 96,
                  "shared_expert_intermediate_size": 64, "num_experts_per_tok": 2},
    "qwen3_moe": {"num_experts": 4, "moe_intermediate_size": 96, "num_experts_per_tok": 2,
                  "head_dim": 32},
}  # fmt: skip


@pytest.mark.parametrize("family", MIXTURES)
def test_experts_are_matrices_that_compute_what_they_did(family: str, deploy: Deploy) -> None:
    sizes = {"intermediate_size": 160, "num_key_value_heads": 4, **MIXTURES[family]}
    engine, ids = engine_of(family, **PLAIN, **sizes), torch.randint(0, 97, (2, 9))
    before, size = engine.forward(ids), engine.weight_bytes()
    deployment, _ = deploy(engine)
    found = [one for one in matrices(deployment) if ".experts." in one.name]
    assert len(found) == 4 * 2
    assert engine.weight_bytes() == size
    torch.testing.assert_close(engine.forward(ids), before, rtol=1e-5, atol=1e-5)
    WeightInt8().apply(deployment)
    assert left_alone(deployment) == ""
    assert engine.weight_bytes() < 0.45 * size
    assert (engine.forward(ids) - before).abs().max() < 0.1 * before.abs().max()


def test_what_is_in_no_linear_layer_is_told(deploy: Deploy) -> None:
    engine = mixtral()
    deployment, _ = deploy(engine)
    engine.model.extra = nn.Parameter(torch.zeros(200, 1000))
    assert left_alone(deployment) == ""
    WeightInt8().apply(deployment)
    assert "of the weights are not in linear layers and stay in 32 bit" in left_alone(deployment)


def test_an_expert_that_no_token_chose_is_rounded_all_the_same(
    deploy: Deploy, monkeypatch: pytest.MonkeyPatch
) -> None:
    from core.techniques.solve import calibration

    monkeypatch.setattr(
        calibration, "calibration_ids", lambda *_: torch.zeros(1, 1, dtype=torch.long)
    )
    engine = mixtral()
    deployment, notes = deploy(engine)
    Gptq(bits=4).apply(deployment)
    assert not of_module(engine.model)
    assert any(
        "4 of 13 matrices, of experts that no calibration token chose" in one for one in notes
    )


@pytest.mark.parametrize("make", [gpt2, lambda: engine_of("falcon", **PLAIN)])
def test_norms_and_embeddings_are_no_news(
    make: Callable[[], TransformersEngine], deploy: Deploy
) -> None:
    deployment, _ = deploy(make())
    WeightInt8().apply(deployment)
    assert left_alone(deployment) == ""


def test_a_matrix_that_a_technique_chose_to_keep_is_no_news(deploy: Deploy) -> None:
    engine = gpt2()
    deployment, _ = deploy(engine)
    one = matrices(deployment)[0]
    one.replace(_int8_of(one))
    assert left_alone(deployment) == ""


def _int8_of(one: Any) -> Any:
    from kernels.forms import weight_of
    from kernels.linear_lowbit import quantize

    return weight_of(quantize(one.dense(), 8, one.k), one.bias, one.dtype)


def test_a_lean_decoder_has_nothing_to_tell(deploy: Deploy, tiny: Callable[..., Any]) -> None:
    deployment, _ = deploy(tiny())
    WeightInt8().apply(deployment)
    assert left_alone(deployment) == ""
