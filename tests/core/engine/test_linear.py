"""One matrix in every format: what it multiplies with, what it weighs."""

from __future__ import annotations

import pytest
import torch

from core.engine.linear import DENSE, FORMATS, Linear
from core.errors import BadInput


@pytest.mark.parametrize("rows", [1, 5, 40])
@pytest.mark.parametrize("format", FORMATS)
def test_the_product_is_that_with_the_dense_matrix(format: str, rows: int) -> None:
    dtype = DENSE.get(format, torch.bfloat16)
    weight, bias = torch.randn(70, 128), torch.randn(70)
    linear = Linear.from_dense(weight, bias, format, dtype)
    x = torch.randn(rows, 128).to(dtype)
    exact = x.double() @ linear.dense().double().T + linear.bias.double()
    bound = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}[dtype]
    got = linear(x)
    assert got.dtype == dtype
    assert (got.double() - exact).abs().max() <= bound * exact.abs().max()
    residual = torch.randn(rows, 70).to(dtype)
    out = residual.clone()
    step = linear.prepare(x, out, residual=out)
    step()
    assert (out.double() - exact - residual.double()).abs().max() <= bound * exact.abs().max()
    # One group of 128 columns is a whole row.
    named = format.removesuffix("-g128")
    assert (linear.in_features, linear.out_features, linear.format) == (128, 70, named)


def test_bytes_are_those_resident() -> None:
    weight = torch.randn(64, 128)
    assert Linear.from_dense(weight, format="fp32").nbytes == 64 * 128 * 4
    assert Linear.from_dense(weight, format="bf16").nbytes == 64 * 128 * 2
    int8 = Linear.from_dense(weight, format="int8", dtype=torch.bfloat16)
    assert int8.nbytes == sum(one.nbytes for one in int8.tensors())
    assert 64 * 128 + 64 * 2 <= int8.nbytes <= 1.05 * 64 * 128
    int4 = Linear.from_dense(weight, format="int4-g32", dtype=torch.bfloat16)
    assert 64 * 128 // 2 + 64 * 4 * 3 <= int4.nbytes <= 64 * 128 * 0.7


def test_rounding_errors_stay_within_half_a_step() -> None:
    weight = torch.randn(32, 64)
    int8 = Linear.from_dense(weight, format="int8", dtype=torch.float32)
    # The step is rounded to fp16, and the side opposite to the largest value ends a step earlier.
    step = weight.abs().amax(1, keepdim=True) / 128
    assert ((int8.dense() - weight).abs() <= (1 + 128 / 2048) * step).all()
    assert ((int8.dense() - weight).abs() <= 0.57 * step).float().mean() > 0.98
    again = int8.to_format("fp32").to_format("int8")
    torch.testing.assert_close(again.dense(), int8.dense(), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("format", ["int9", "int0-g32", "int4-g0", "q4", "int4-g", "", "nf4-64"])
def test_an_unknown_format_is_refused_with_the_known_ones(format: str) -> None:
    with pytest.raises(BadInput, match="neither one of fp32, bf16, fp16 nor written as int4-g32"):
        Linear.from_dense(torch.randn(4, 4), format=format)
