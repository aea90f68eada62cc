"""Trials whose kernels were replaced by slower ones say so, and only those."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from core.engine.passes.graph import Graphs
from core.measure import fallbacks
from core.study import KernelCalls
from kernels.linear_fp8 import cpu as fp8
from kernels.linear_lowbit import cpp, quantize
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
    return [caution.line for caution in fallbacks.notes("cpu", {formats}, counted)]


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
        ("fp32", ("linear_dense=torch", "linear_dense=gemv-float")),
        ("fp16", ("attention=torch-sdpa", "attention=cpp")),
    ],
)
def test_what_our_kernels_would_not_have_done_is_no_fallback(
    formats: str, ran: tuple[str, ...]
) -> None:
    assert said(formats, *ran) == []


@pytest.mark.parametrize(
    "ran",
    ["rms_norm=torch", "linear_w8a8=torch-int-mm", "linear_dense=torch", "linear_lowbit=torch"],
)
def test_what_they_do_in_fp32_is_one(ran: str) -> None:
    assert len(said("fp32", ran)) == 1


@pytest.mark.parametrize(
    ("formats", "ran", "op"),
    [
        ("fp16", "linear_w8a8=torch-int-mm", "linear_w8a8"),
        ("fp16", "attention=torch-kv4", "attention"),
        ("fp32", "linear_fp8=torch", "linear_fp8"),
    ],
)
def test_a_step_that_ours_do_not_take_in_this_format_is_said(
    formats: str, ran: str, op: str
) -> None:
    (sentence,) = said(formats, ran)
    assert sentence.startswith(
        f"caution fallback: {op} ran without our kernels: none of ours takes {formats} there"
    )


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
    on_a_gpu = [op for op in ops if op != "linear_dense"]
    assert {reason: sorted(found) for reason, found in fallbacks.lost("cuda").items()} == {
        REASON: sorted(on_a_gpu)
    }


def test_the_kernels_over_codes_take_what_they_say() -> None:
    form = quantize(torch.ones(16, 64), 4, 32, "int", symmetric=False)
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    for op, module in (("linear_lowbit", cpp), ("linear_fp8", fp8), ("linear_w8a8", w8a8)):
        taken = {
            name
            for name, dtype in dtypes.items()
            if module.refuse(form, dtype) is None  # type: ignore[arg-type]
        }
        assert taken == fallbacks.TAKES.get(op, fallbacks.MOST_TAKE)


def test_each_reason_why_steps_were_not_captured_is_a_caution_once() -> None:
    class Held:
        def __init__(self, *reasons: str) -> None:
            self.graphs = Graphs("cuda:0")
            self.graphs.reasons += reasons
            self.lean: Held | None = self

    class Other:
        lean = None

    target, draft, clean, other = Held("a", "b"), Held("b"), Held(), Other()
    engines: list[Any] = [target, draft, clean, other]
    assert [caution.line for caution in fallbacks.uncaptured(engines)] == [
        f"caution uncaptured: {reason}: each kernel of a step was launched from Python, and the"
        " times include that"
        for reason in "ab"
    ]
    assert fallbacks.uncaptured([clean, other]) == []  # type: ignore[list-item]


def test_kernels_of_a_gpu_that_run_but_were_slower_than_torchs_are_no_fallback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        fallbacks, "kernels_available", lambda device: [(info, None) for info in KERNELS]
    )
    for formats in ("bf16", "fp16", "fp32"):
        ran = [KernelCalls("linear_w8a8", "torch-int-mm", 1)]
        assert fallbacks.notes("cuda", {formats}, ran) == []
