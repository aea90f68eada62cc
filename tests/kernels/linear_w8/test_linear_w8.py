from __future__ import annotations

import pytest
import torch

from kernels import calls
from kernels.linear_w8 import linear, pack, reference

pytestmark = pytest.mark.usefixtures("poisoned", "fresh")

TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 5e-3, torch.float16: 7e-4}
SHAPES = [(1, 1), (3, 17), (17, 32), (33, 100), (64, 576), (130, 577)]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("rows", [1, 3, 17])
def test_the_product_agrees_with_fp64(dtype: torch.dtype, rows: int) -> None:
    torch.manual_seed(rows)
    for n, k in SHAPES:
        packed = pack(torch.randn(n, k).to(dtype))
        bias = torch.randn(n).to(dtype)
        for x in (torch.randn(rows, k).to(dtype), torch.randn(k, rows).to(dtype).t()):
            exact = reference.linear(x, packed.codes[:, :k], packed.scale, bias)
            y = linear(x, packed, bias)
            assert y.dtype is dtype
            assert y.shape == (rows, n)
            worst = ((y.double() - exact).abs() / (exact.abs() + k**0.5)).max()
            assert worst < TOLERANCE[dtype], (n, k)


def test_codes_are_the_nearest_to_the_weight() -> None:
    weight = torch.randn(20, 50)
    packed = pack(weight)
    codes, scale = reference.quantize(weight)
    assert torch.allclose(packed.scale.double(), scale, rtol=1e-6)
    assert (packed.codes[:, :50].double() - codes).abs().max() <= 1
    step = packed.scale[:, None] * 0.5001
    assert ((packed.dequantize() - weight).abs() <= step).all()
    assert packed.codes.min() >= -127


def test_all_zero_rows_and_padding_give_zeros() -> None:
    weight = torch.randn(5, 33).bfloat16()
    weight[2] = 0
    packed = pack(weight)
    y = linear(torch.randn(3, 33).bfloat16(), packed)
    assert (y[:, 2] == 0).all()
    assert y.isfinite().all()
    assert (packed.dequantize()[2] == 0).all()


def test_a_float_weight_may_serve_bf16_activations() -> None:
    packed = pack(torch.randn(8, 32), dtype=torch.bfloat16)
    assert packed.dtype is torch.bfloat16
    assert linear(torch.randn(2, 3, 32).bfloat16(), packed).shape == (2, 3, 8)
    assert linear(torch.randn(32).bfloat16(), packed).shape == (8,)
    assert linear(torch.randn(0, 32).bfloat16(), packed).shape == (0, 8)


def test_resident_bytes_are_one_a_weight_and_a_scale_a_row() -> None:
    assert pack(torch.randn(64, 128).bfloat16()).nbytes == 64 * 128 + 64 * 2


def test_the_packed_kernel_is_counted_and_no_float_copy_is_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from kernels.linear_w8 import PackedW8

    def forbidden(_: object) -> None:
        raise AssertionError("dequantized")

    monkeypatch.setattr(PackedW8, "dequantize", forbidden)
    packed = pack(torch.randn(8, 32))
    linear(torch.randn(1, 32), packed)
    linear(torch.randn(9, 32).requires_grad_(), packed)
    assert calls.snapshot() == [{"op": "linear_w8", "name": "torch-int8pack", "calls": 2}]


@pytest.mark.parametrize(
    ("weight", "words"),
    [
        (torch.ones(4), r"weight must be \[N, K\]"),
        (torch.ones(0, 4), "N, K >= 1"),
        (torch.ones(4, 4).int(), "takes floats"),
        (torch.ones(4, 4).double(), "takes floats"),
        (torch.full((4, 4), float("nan")), "NaN or infinite"),
        (torch.full((4, 4), float("inf")), "NaN or infinite"),
    ],
)
def test_a_weight_that_cannot_be_packed_is_refused(weight: torch.Tensor, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        pack(weight)


@pytest.mark.parametrize(
    ("x", "bias", "words"),
    [
        (torch.ones(1, 31), None, r"x must be \[\.\.\., 32\]"),
        (torch.ones(1, 32).bfloat16(), None, "bfloat16"),
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
