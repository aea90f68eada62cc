"""The operation's face: choice of the kernel, checks, bound steps, and the form's own rules."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from kernels import calls
from kernels.linear_w8a8 import W8A8, W8A8Weight, cpu, quantize, reference
from kernels.linear_w8a8.codes import quantize_rows
from kernels.program import BoundCall, join
from kernels.registry import ENVIRONMENT, KernelUnavailable
from kernels.w8a8_bytes import W8A8Bytes

pytestmark = pytest.mark.usefixtures("poisoned", "fresh")
NO_CPP = cpu.available()
needs_cpp = pytest.mark.skipif(NO_CPP is not None, reason=NO_CPP or "")
DTYPES = [torch.bfloat16, torch.float32, torch.float16]
TOLERANCE = {torch.bfloat16: 2**-8, torch.float32: 1e-6, torch.float16: 2**-11}


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def error(got: torch.Tensor, x: torch.Tensor, form: W8A8, bias: torch.Tensor | None) -> float:
    """The largest error relative to the size that a sum of k products has."""
    rows = x.reshape(-1, form.k)
    codes, scales = quantize_rows(rows, form.x_scale)
    exact = reference.linear(codes, scales, form, bias)
    wrong = (got.reshape(-1, form.n).double() - exact).abs()
    return float((wrong / (exact.abs() + form.k**0.5 / 8)).max())


@pytest.mark.parametrize("kernel", [pytest.param("cpp", marks=needs_cpp), "torch-int-mm"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("x_scale", [None, 0.03])
def test_every_kernel_agrees_with_fp64(
    kernel: str, dtype: torch.dtype, x_scale: float | None
) -> None:
    if kernel == "cpp" and dtype is torch.float16:
        pytest.skip("cpp takes bf16 and fp32")
    torch.manual_seed(0)
    for n, k in ((1, 1), (3, 77), (65, 130)):
        form, bias = quantize(torch.randn(n, k), x_scale), torch.randn(n).to(dtype)
        weight = W8A8Weight(form, bias, dtype, kernel)
        assert weight.kernel == kernel
        x = torch.randn(k, 6).to(dtype).t().reshape(2, 3, k)
        y = weight(x)
        assert y.shape == (2, 3, n)
        assert y.dtype is dtype
        assert error(y, x, form, bias) < 2 * TOLERANCE[dtype]
        assert weight(x[0, 0]).shape == (n,)
        assert weight(x[:0]).shape == (0, 3, n)


@needs_cpp
def test_torch_and_cpp_give_the_same_codes_and_nearly_the_same_numbers() -> None:
    form, x = quantize(torch.randn(40, 300)), torch.randn(7, 300)
    x[3] = float("nan")
    a, b = (W8A8Weight(form, None, torch.float32, kernel)(x) for kernel in ("cpp", "torch-int-mm"))
    assert torch.allclose(a, b, rtol=1e-6, equal_nan=True)
    assert a[3].isnan().all()


def test_quantized_rows_are_those_of_the_reference() -> None:
    torch.manual_seed(3)
    x = torch.cat([torch.randn(6, 50), torch.zeros(1, 50)])
    for x_scale in (None, 0.01):
        codes, scales = quantize_rows(x, x_scale)
        wanted, exact = reference.quantize_rows(x, x_scale)
        # One multiplication by the inverse in fp32 may fall on the other side of a half.
        assert (codes.long() != wanted).float().mean() < 0.01
        assert (codes.long() - wanted).abs().max() <= 1
        assert torch.allclose(scales.double(), exact, rtol=1e-6)


@needs_cpp
@pytest.mark.parametrize("rows", [1, 2, 3, 16])
@pytest.mark.parametrize("threads", [1, 3])
def test_a_bound_step_does_what_a_call_does(rows: int, threads: int) -> None:
    torch.manual_seed(rows)
    before = torch.get_num_threads()
    form, back = quantize(torch.randn(200, 96)), quantize(torch.randn(96, 200))
    first, second = W8A8Weight(form), W8A8Weight(back, torch.randn(96).bfloat16())
    stream = torch.randn(rows, 96).bfloat16()
    wanted = (second(first(stream)).double() + stream.double()).bfloat16()
    x, wide = stream.clone(), torch.empty(rows, 200).bfloat16()
    steps = [first.bind(x, wide), second.bind(wide, x, x)]
    assert all(isinstance(step, BoundCall) for step in steps)
    torch.set_num_threads(threads)
    try:
        calls.reset()
        for step in join(steps):
            step()
    finally:
        torch.set_num_threads(before)
    assert calls.snapshot() == [{"op": "linear_w8a8", "name": "cpp", "calls": 2}]
    assert torch.allclose(x.float(), wanted.float(), rtol=2**-7, atol=2**-7)


def test_a_kernel_without_a_bound_form_still_binds() -> None:
    weight = W8A8Weight(quantize(torch.randn(6, 10)), None, torch.bfloat16, "torch-int-mm")
    x, out = torch.randn(2, 10).bfloat16(), torch.randn(2, 6).bfloat16()
    wanted = out + weight(x)
    weight.bind(x, out, out)()
    assert torch.equal(out, wanted)
    weight.bind(x, out)()
    assert torch.equal(out, weight(x))


@pytest.mark.parametrize(
    ("weight", "words"),
    [
        (torch.full((2, 3), float("nan")), "NaN or infinite"),
        (torch.tensor([[1.0, float("inf")]]), "NaN or infinite"),
        (torch.ones(3), r"floats \[n, k\]"),
        (torch.ones(0, 3), r"n, k >= 1"),
        (torch.ones(2, 3).int(), "floats"),
        (torch.ones(1, 65537), "65536 columns at most"),
    ],
)
def test_a_weight_that_cannot_be_quantized_is_refused(weight: torch.Tensor, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        quantize(weight)


def test_zero_and_constant_rows_are_exact() -> None:
    weight = torch.tensor([[0.0, 0, 0], [5, 5, 5], [-2, -2, -2], [1e-40, 0, 0]])
    form = quantize(weight)
    assert form.codes[:3].tolist() == [[0] * 3, [127] * 3, [-127] * 3]
    assert torch.allclose(form.dequantize()[:3], weight[:3])
    assert form.dequantize().isfinite().all()


def test_rounding_loses_half_a_step_at_most() -> None:
    weight = torch.randn(50, 70, generator=torch.Generator().manual_seed(1)).double()
    form = quantize(weight.float())
    wrong = (form.dequantize().double() - weight).abs()
    assert (wrong <= form.scale.double()[:, None] * 0.5001).all()


def codes(*shape: int) -> torch.Tensor:
    return torch.zeros(*shape, dtype=torch.int8)


def columns(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int32)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: W8A8(torch.zeros(2, 2), torch.ones(2)), "codes must be int8"),
        (lambda: W8A8(codes(2, 2), torch.ones(3)), r"scale must be fp32 \[2\]"),
        (lambda: W8A8(codes(2, 2), torch.tensor([1.0, float("nan")])), "scale has NaN"),
        (lambda: W8A8(codes(2, 2), torch.ones(2), 0.0), "x_scale must be a positive number"),
        (lambda: W8A8(codes(2, 2), torch.ones(2), float("nan")), "x_scale"),
        (lambda: W8A8(codes(2, 2), torch.ones(2), None, columns()), "ascending"),
        (lambda: W8A8(codes(2, 2), torch.ones(2), None, columns(1, 0)), "ascending"),
        (lambda: W8A8(codes(2, 2), torch.ones(2), None, columns(2)), "ascending"),
        (lambda: W8A8(codes(2, 2), torch.ones(2), None, columns(0, 1)), "not all"),
        (lambda: W8A8(codes(2, 2) + 1, torch.ones(2), None, columns(1)), "codes are 0"),
    ],
)
def test_parts_that_do_not_fit_are_refused(make: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()


def test_a_call_that_does_not_fit_is_refused_with_a_sentence() -> None:
    weight = W8A8Weight(quantize(torch.randn(3, 4)))
    x, out = torch.zeros(2, 4).bfloat16(), torch.zeros(2, 3).bfloat16()
    for bad in (torch.zeros(2, 5).bfloat16(), torch.zeros(2, 4), torch.tensor(1.0).bfloat16()):
        with pytest.raises(ValueError, match=r"x must be \[\.\.\., 4\]"):
            weight(bad)
    with pytest.raises(ValueError, match="x is on meta"):
        weight(x.to("meta"))
    with pytest.raises(ValueError, match="out must be contiguous"):
        weight.bind(x, out.float())
    with pytest.raises(ValueError, match="residual must be contiguous"):
        weight.bind(x, out, torch.zeros(1, 3).bfloat16())
    with pytest.raises(ValueError, match="bias must be"):
        W8A8Weight(quantize(torch.randn(3, 4)), torch.zeros(4).bfloat16())
    with pytest.raises(ValueError, match="dtype"):
        W8A8Weight(quantize(torch.randn(3, 4)), None, torch.float64)


def test_a_named_kernel_that_does_not_fit_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    form = quantize(torch.randn(3, 4))
    assert W8A8Weight(form, None, torch.float16).kernel == "torch-int-mm"
    with pytest.raises(KernelUnavailable, match="no kernel 'nope'"):
        W8A8Weight(form, kernel="nope")
    monkeypatch.setenv(ENVIRONMENT, "linear_w8a8=torch-int-mm")
    assert W8A8Weight(form).kernel == "torch-int-mm"
    if NO_CPP is None:
        with pytest.raises(KernelUnavailable, match="takes bf16 and fp32"):
            W8A8Weight(form, None, torch.float16, "cpp")


@needs_cpp
@pytest.mark.parametrize(("n", "k"), [(1, 1), (16, 4), (33, 577)])
@pytest.mark.parametrize("x_scale", [None, 0.5])
def test_the_predicted_bytes_are_those_kept(n: int, k: int, x_scale: float | None) -> None:
    weight = W8A8Weight(quantize(torch.randn(n, k), x_scale))
    predicted = W8A8Bytes(x_scale is not None)
    assert predicted.nbytes(n, k) == sum(tensor.nbytes for tensor in weight.tensors())
    assert predicted.format(k) == weight.format
