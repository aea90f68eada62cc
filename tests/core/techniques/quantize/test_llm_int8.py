"""LLM.int8(): the columns that calibration finds stay in floats, and both kernels run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from core.engine.decoder import Decoder
from core.engine.modules import KernelLinear
from core.model import ClassifierShape
from core.techniques import parse
from core.techniques.deployment import Deployment
from core.techniques.quantize.llm_int8 import LlmInt8
from core.techniques.quantize.w8a8 import W8A8
from core.techniques.solve import calibration
from kernels import calls
from kernels.linear_w8a8 import W8A8Weight
from kernels.linear_w8a8.outliers import OutlierWeight

pytestmark = pytest.mark.usefixtures("one_thread")
Deploy = Callable[..., tuple[Deployment, list[str]]]
PLANTED = [3, 41]


@pytest.fixture
def ids(monkeypatch: pytest.MonkeyPatch) -> torch.Tensor:
    """Calibration tokens, so that no text is needed."""
    random = torch.Generator().manual_seed(3)
    found = torch.randint(0, 131, (6, 24), generator=random)
    monkeypatch.setattr(calibration, "calibration_ids", lambda deployment, settings: found)
    return found


@pytest.fixture
def planted(tiny: Callable[..., Any]) -> Callable[[str], Decoder]:
    """Decoders whose norms make two columns of every qkv and gate_up a hundred times larger."""

    def make(dtype: str) -> Decoder:
        engine: Decoder = tiny(dtype, seed=2)
        for layer in engine.layers:
            for norm in (layer.attn_norm, layer.mlp_norm):
                norm[PLANTED] *= 100
        return engine

    return make


def logits_off(
    technique: Any, make: Callable[[str], Decoder], dtype: str, deploy: Deploy, ids: torch.Tensor
) -> tuple[Decoder, float, list[str]]:
    engine = make(dtype)
    before = make(dtype).forward(ids).double()
    deployment, notes = deploy(engine)
    technique.apply(deployment)
    return engine, float((engine.forward(ids) - before).norm() / before.norm()), notes


def test_planted_outliers_stay_in_floats_and_the_error_is_far_below_plain_int8(
    planted: Callable[[str], Decoder], deploy: Deploy, ids: torch.Tensor
) -> None:
    engine, wrong, notes = logits_off(LlmInt8(), planted, "fp32", deploy, ids)
    _, plain, _ = logits_off(W8A8(), planted, "fp32", deploy, ids)
    assert wrong < plain / 5
    for layer in engine.layers:
        for linear in (layer.qkv, layer.gate_up):
            assert isinstance(linear.kernel_weight, OutlierWeight)
            assert linear.kernel_weight.columns.tolist() == PLANTED
            assert linear.format == "llm-int8"
    kept = sum(
        len(linear.kernel_weight.columns)
        for _, linear in engine.linears()
        if isinstance(linear.kernel_weight, OutlierWeight)
    )
    assert f"{kept} of {2 * (3 * 64 + 96) + 64:,} columns" in notes[-1]
    assert f"to {engine.weight_bytes():,} bytes" in notes[-1]


def test_a_decode_step_runs_both_kernels_and_agrees_with_the_prompts(
    planted: Callable[[str], Decoder], deploy: Deploy, ids: torch.Tensor
) -> None:
    engine, _, _ = logits_off(LlmInt8(), planted, "bf16", deploy, ids)
    cache = engine.new_cache(1, 30)
    engine.forward(ids[:1, :20], cache, last_only=True)
    calls.reset()
    stepped = engine.forward(ids[:1, 20:22], cache)
    counts = {str(one["op"]): one["calls"] for one in calls.snapshot()}
    split = [isinstance(linear.kernel_weight, OutlierWeight) for _, linear in engine.linears()]
    assert 4 <= sum(split) < len(split)
    assert counts["linear_w8a8"] == len(split)
    assert counts["linear_dense"] == sum(split)
    whole = engine.forward(ids[:1, :22])[:, 20:]
    assert torch.allclose(stepped, whole, atol=0.1)


def test_a_high_threshold_is_plain_w8a8_and_a_low_one_leaves_matrices_whole(
    tiny: Callable[..., Any], deploy: Deploy, ids: torch.Tensor
) -> None:
    high, low = tiny("bf16"), tiny("bf16")
    LlmInt8(1e6).apply(deploy(high)[0])
    assert all(isinstance(linear.kernel_weight, W8A8Weight) for _, linear in high.linears())
    deployment, notes = deploy(low)
    LlmInt8(1e-9).apply(deployment)
    assert all(linear.format == "bf16" for _, linear in low.linears())
    assert torch.equal(low.forward(ids), tiny("bf16").forward(ids))
    assert "9 matrices wholly" in notes[-1]


def test_a_classifier_keeps_the_pixels_above_the_threshold(deploy: Deploy, case: Any) -> None:
    from dataclasses import replace

    from core.engine.classifier import DigitsMLP

    torch.manual_seed(0)
    module = DigitsMLP((24,)).eval()
    images = torch.rand(5, 1, 8, 8)
    before = module(images)
    shape = ClassifierShape(1800, 1800, 64, 10, 64)
    image_case = replace(case, model=replace(case.model, shape=shape, family="mlp"))
    LlmInt8(0.9).apply(deploy(module, image_case)[0])
    assert all(isinstance(one, KernelLinear) for one in module.linears)
    assert isinstance(module.linears[0].weight_of_kernel, OutlierWeight)
    assert torch.allclose(module(images), before, atol=0.03)


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan"), float("inf")])
def test_a_threshold_that_makes_no_sense_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="finite and above 0"):
        LlmInt8(bad)


def test_the_command_lines_words_are_read() -> None:
    assert parse("llm-int8:threshold=8") == LlmInt8(8.0)
