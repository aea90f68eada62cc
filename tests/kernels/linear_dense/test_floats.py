"""The fp32 and fp16 matrix-vector product against fp64, on odd shapes and odd numbers."""

from __future__ import annotations

import pytest
import torch

from kernels import calls
from kernels.linear_dense import linear, prepare
from kernels.linear_dense.floats import INSTRUCTION_SETS, Gemv, best_instruction_set
from kernels.linear_dense.reference import linear as exact

DTYPES = (torch.float32, torch.float16)
# Rounding of the output, and of fp32 sums.
TOLERANCE = {torch.float32: 2e-6, torch.float16: 6e-4}
SHAPES = ((1, 1), (3, 5), (4, 8), (5, 64), (7, 33), (64, 31), (130, 257), (16, 1024))
SETS = INSTRUCTION_SETS[: INSTRUCTION_SETS.index(best_instruction_set()) + 1]


def made(shape: tuple[int, int], rows: int, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(7)
    n, k = shape
    return tuple(torch.randn(size).to(dtype) for size in ((n, k), (rows, k), (n,), (rows, n)))


@pytest.mark.parametrize("instruction_set", SETS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rows", [1, 2, 3, 16])
def test_it_is_the_product_rounded_once(
    rows: int, shape: tuple[int, int], dtype: torch.dtype, instruction_set: str
) -> None:
    weight, x, bias, residual = made(shape, rows, dtype)
    out = torch.full_like(residual, float("nan"))
    gemv = Gemv(weight, bias, instruction_set)
    gemv.run(x, out, rows, residual)
    want = exact(x, weight, bias) + residual.double()
    close = TOLERANCE[dtype] * (want.abs().max() + shape[1] ** 0.5)
    assert (out.double() - want).abs().max() <= close
    gemv.bind(x, residual, rows, residual)()
    assert torch.equal(residual, out)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_engine_takes_it_for_few_rows_and_torch_for_many(dtype: torch.dtype) -> None:
    weight, x, bias, _ = made((40, 24), 17, dtype)
    made_ready = prepare(weight, bias)
    assert made_ready.kernel == "gemv-float"
    calls.reset()
    few, many = made_ready(x[:16]), made_ready(x)
    assert {one["name"] for one in calls.snapshot()} == {"gemv-float", "torch"}
    torch.testing.assert_close(few, many[:16], rtol=2e-3, atol=2e-3)
    torch.testing.assert_close(linear(x[:1], weight, bias), few[:1], rtol=0, atol=0)


def test_every_half_is_widened_as_torch_widens_it() -> None:
    """All finite numbers of fp16, subnormal ones too, times one."""
    halves = torch.arange(1 << 16, dtype=torch.int32).to(torch.uint16).view(torch.float16)
    halves = halves[halves.isfinite()]
    for name in SETS:
        out = torch.empty(1, len(halves), dtype=torch.float16)
        Gemv(halves[:, None], None, name).run(torch.ones(1, 1, dtype=torch.float16), out, 1)
        assert torch.equal(out[0], halves)


def test_what_fp16_cannot_hold_becomes_infinite_and_nan_stays() -> None:
    weight = torch.tensor([[60000.0], [float("nan")], [1.0]], dtype=torch.float16)
    out = torch.empty(1, 3, dtype=torch.float16)
    Gemv(weight, None).run(torch.full((1, 1), 2.0, dtype=torch.float16), out, 1)
    assert out[0, 0] == float("inf")
    assert out[0, 1].isnan()
    assert out[0, 2] == 2
