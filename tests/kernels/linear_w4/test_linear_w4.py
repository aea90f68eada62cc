from __future__ import annotations

import dataclasses

import pytest
import torch

from kernels import calls
from kernels.linear_w4 import PackedW4, cpu, lay_out, linear, pack, quantize, reference
from kernels.registry import KernelUnavailable

pytestmark = pytest.mark.usefixtures("poisoned", "fresh")

TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 8e-3, torch.float16: 1e-3}
SHAPES = [(1, 5, 32), (33, 100, 32), (64, 128, 64), (17, 200, 128), (70, 512, 256), (130, 32, 32)]


def exact_weight(form: object) -> torch.Tensor:
    codes = form.codes()[:, : form.k]  # type: ignore[attr-defined]
    return reference.dequantize(codes, form.scale, form.zero, form.group_size)  # type: ignore[attr-defined]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("rows", [1, 3, 17])
def test_the_product_agrees_with_fp64(dtype: torch.dtype, rows: int) -> None:
    torch.manual_seed(rows)
    for n, k, group in SHAPES:
        form = quantize(torch.randn(n, k).to(dtype), group)
        packed, bias = lay_out(form), torch.randn(n).to(dtype)
        for x in (torch.randn(rows, k).to(dtype), torch.randn(k, rows).to(dtype).t()):
            exact = reference.linear(x, exact_weight(form), bias)
            y = linear(x, packed, bias)
            assert y.dtype is dtype
            assert y.shape == (rows, n)
            worst = ((y.double() - exact).abs() / (exact.abs() + k**0.5)).max()
            assert worst < TOLERANCE[dtype], (n, k, group)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize(("n", "k", "group"), SHAPES)
def test_packing_can_be_undone_exactly(n: int, k: int, group: int, symmetric: bool) -> None:
    form = quantize(torch.randn(n, k).bfloat16(), group, symmetric=symmetric)
    back = lay_out(form).unpack()
    assert torch.equal(back.codes()[:, :k], form.codes()[:, :k])
    assert torch.equal(back.scale, form.scale)
    assert torch.equal(back.zero, form.zero)
    assert torch.allclose(lay_out(form).dequantize().double(), exact_weight(form), atol=1e-6)


def test_large_weights_are_packed_in_chunks_with_the_same_bytes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    form = quantize(torch.randn(300, 64))
    whole = lay_out(form)
    monkeypatch.setattr(cpu, "CHUNK_ROWS", 128)
    assert torch.equal(lay_out(form).packed, whole.packed)


@pytest.mark.parametrize("symmetric", [False, True])
def test_codes_are_the_nearest_to_the_weight(symmetric: bool) -> None:
    weight = torch.randn(20, 90)
    form = quantize(weight, 32, symmetric=symmetric)
    error = (form.dequantize() - weight).abs()
    step = form.scale.abs().repeat_interleave(32, dim=1)[:, :90]
    # Symmetric codes end at +7 steps on the side away from the largest value.
    assert (error <= step * (1.0001 if symmetric else 0.5001)).all()
    assert error.norm() / weight.norm() < 0.13


def test_symmetric_codes_keep_zeros_and_the_largest_value() -> None:
    weight = torch.randn(4, 64)
    weight[:, ::3] = 0
    found = quantize(weight, 32, symmetric=True).dequantize()
    assert (found[:, ::3] == 0).all()
    largest = weight.view(4, 2, 32).abs().amax(dim=2)
    assert torch.allclose(found.view(4, 2, 32).abs().amax(dim=2), largest)


@pytest.mark.parametrize("symmetric", [False, True])
def test_constant_and_zero_groups_stay_what_they_are(symmetric: bool) -> None:
    weight = torch.randn(3, 64).bfloat16()
    weight[1] = 0
    weight[2, :32] = 0.5
    packed = pack(weight, symmetric=symmetric)
    assert (packed.dequantize()[1] == 0).all()
    assert (packed.dequantize()[2, :32] == 0.5).all()
    y = linear(torch.randn(2, 64).bfloat16(), packed)
    assert y.isfinite().all()
    assert (y[:, 1] == 0).all()


def test_a_last_group_that_is_not_full_is_not_widened_by_padding() -> None:
    weight = torch.full((2, 33), 5.0)
    weight[:, 32] = 3.0
    assert torch.equal(quantize(weight).dequantize(), weight)


def test_only_the_packed_form_stays_in_memory() -> None:
    packed = pack(torch.randn(64, 128).bfloat16())
    assert packed.nbytes == 64 * 128 // 2 + 64 * 4 * 2 * 2
    held = [getattr(packed, field.name) for field in dataclasses.fields(packed)]
    tensors = [one for one in held if isinstance(one, torch.Tensor)]
    assert sum(one.untyped_storage().nbytes() for one in tensors) == packed.nbytes


def test_the_packed_kernel_is_counted_and_no_float_copy_is_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def forbidden(_: object) -> None:
        raise AssertionError("dequantized")

    monkeypatch.setattr(PackedW4, "dequantize", forbidden)
    monkeypatch.setattr(PackedW4, "unpack", forbidden)
    packed = pack(torch.randn(8, 32))
    assert linear(torch.randn(2, 3, 32), packed).shape == (2, 3, 8)
    assert linear(torch.randn(32).requires_grad_(), packed).shape == (8,)
    assert linear(torch.randn(0, 32), packed).shape == (0, 8)
    assert calls.snapshot() == [{"op": "linear_w4", "name": "torch-int4pack", "calls": 2}]


def test_the_gpu_kernel_on_the_cpu_needs_the_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(KernelUnavailable, match="TRITON_INTERPRET=1"):
        pack(torch.ones(4, 32), kernel="triton-w4a16")


@pytest.mark.parametrize(
    ("weight", "group", "words"),
    [
        (torch.ones(4), 32, r"weight must be \[N, K\]"),
        (torch.ones(4, 0), 32, "N, K >= 1"),
        (torch.ones(4, 4).int(), 32, "takes floats"),
        (torch.ones(4, 4), 48, "one of 32, 64, 128, 256, not 48"),
        (torch.full((4, 4), float("nan")), 32, "NaN or infinite"),
        (torch.full((4, 4), -float("inf")), 32, "NaN or infinite"),
    ],
)
def test_a_weight_that_cannot_be_packed_is_refused(
    weight: torch.Tensor, group: int, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        pack(weight, group)


@pytest.mark.parametrize(
    ("x", "bias", "words"),
    [
        (torch.ones(1, 31), None, r"x must be \[\.\.\., 32\]"),
        (torch.ones(1, 32).half(), None, "float16"),
        (torch.ones(()), None, "x must be"),
        (torch.ones(1, 32), torch.ones(3), r"bias must be \[8\]"),
        (torch.ones(1, 32, device="meta"), None, "meta"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(
    x: torch.Tensor, bias: torch.Tensor | None, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        linear(x, pack(torch.ones(8, 32)), bias)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"nibbles": torch.zeros(8, 15, dtype=torch.uint8)}, r"nibbles must be uint8 \[8, 16\]"),
        ({"nibbles": torch.zeros(8, 16)}, "nibbles must be uint8"),
        ({"scale": torch.zeros(8, 2)}, r"scale must be floats \[8, 1\]"),
        ({"zero": torch.zeros(8, 1).int()}, "zero must be floats"),
        ({"zero": torch.zeros(8, 1).half()}, "scale is torch.float32 but zero is torch.float16"),
        ({"group_size": 31}, "not 31"),
    ],
)
def test_codes_from_elsewhere_are_checked(change: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(quantize(torch.ones(8, 32)), **change)
