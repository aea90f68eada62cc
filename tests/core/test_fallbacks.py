"""Trials whose kernels were replaced by slower ones say so, and only those."""

from __future__ import annotations

import pytest
import torch

from core import fallbacks
from core.engine.linear import Linear
from core.engine.modules import KernelLinear
from core.study import KernelCalls
from kernels.linear_fp8 import cpu as fp8
from kernels.linear_lowbit import LowBitWeight, cpp, quantize
from kernels.linear_w8a8 import cpu as w8a8
from kernels.registry import ENVIRONMENT, KERNELS

REASON = "needs a C++ compiler, and there is none"


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which nothing that needs something runs."""
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    found = [(info, REASON if info.needs else None) for info in KERNELS]
    monkeypatch.setattr(fallbacks, "kernels_available", lambda device: found)


def said(formats: str, *ran: str) -> list[str]:
    counted = [KernelCalls(*one.split("="), 1) for one in ran]  # type: ignore[call-arg, arg-type]
    return fallbacks.notes("cpu", {formats}, counted)


def test_the_operations_with_one_reason_share_a_caution() -> None:
    assert said("bf16", "linear_lowbit=torch", "rms_norm=torch", "attention=torch-kv4") == [
        "caution fallback: linear_lowbit, attention, rms_norm ran without our kernels:"
        f" {REASON}; the times are those of the fallback"
    ]


@pytest.mark.parametrize(
    ("formats", "ran"),
    [
        ("bf16", ()),
        ("bf16", ("linear_dense=torch", "linear_dense=gemv-bf16")),
        ("fp32", ("linear_dense=torch",)),
        ("fp32", ("linear_lowbit=torch",)),
        ("fp16", ("rms_norm=torch", "linear_w8a8=torch-int-mm", "attention=torch-kv4")),
    ],
)
def test_what_our_kernels_would_not_have_done_is_no_fallback(
    formats: str, ran: tuple[str, ...]
) -> None:
    assert said(formats, *ran) == []


@pytest.mark.parametrize("ran", ["rms_norm=torch", "linear_w8a8=torch-int-mm"])
def test_what_they_do_in_fp32_is_one(ran: str) -> None:
    assert len(said("fp32", ran)) == 1


def test_a_kernel_that_was_asked_for_is_no_fallback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENVIRONMENT, "rms_norm=torch")
    assert said("bf16", "rms_norm=torch") == []


def test_nothing_is_built_for_a_trial_that_ran_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(fallbacks, "kernels_available")
    assert said("bf16", "rms_norm=cpp", "linear_dense=torch", "linear_dense=gemv-bf16") == []


def test_each_reason_has_the_operations_that_lost_a_kernel() -> None:
    ops = list(dict.fromkeys(info.op for info in KERNELS))
    assert {reason: sorted(found) for reason, found in fallbacks.lost("cpu").items()} == {
        REASON: sorted(ops)
    }
    assert fallbacks.lost("cuda") == {REASON: ["linear_lowbit", "linear_w8a8", "linear_fp8"]}


def test_the_kernels_that_take_bf16_alone_are_those_that_say_so() -> None:
    form = quantize(torch.ones(16, 64), 4, 32, "int", symmetric=False)
    refused = {
        op
        for op, module in (("linear_lowbit", cpp), ("linear_fp8", fp8), ("linear_w8a8", w8a8))
        if module.refuse(form, torch.float32) is not None  # type: ignore[arg-type]
    }
    assert refused == set(fallbacks.BF16_ALONE)


def test_the_formats_are_those_of_what_a_kernel_multiplies_with() -> None:
    plain = torch.nn.Sequential(torch.nn.Linear(64, 16))
    assert fallbacks.floats(plain) == set()
    form = quantize(torch.ones(16, 64), 4, 32, "int", symmetric=False)
    packed = KernelLinear(LowBitWeight(form, None, torch.float32))
    assert fallbacks.floats(torch.nn.Sequential(packed)) == {"fp32"}
    assert fallbacks.floats(Linear(torch.ones(4, 8, dtype=torch.bfloat16))) == {"bf16"}
