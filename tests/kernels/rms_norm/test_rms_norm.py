"""RMS norm with its residual addition, against float64."""

from __future__ import annotations

import pytest
import torch

from kernels import calls
from kernels import rms_norm as op

TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 8e-3, torch.float16: 1e-3}


def exact(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """x / sqrt(mean(x^2) + eps) * weight in float64."""
    x = x.double()
    return x / torch.sqrt((x * x).mean(-1, keepdim=True) + eps) * weight.double()


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", [(1, 1), (1, 576), (3, 41), (16, 2049), (70, 512)])
def test_the_bound_step_adds_and_norms(shape: tuple[int, int], dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x, delta = torch.randn(shape).to(dtype), torch.randn(shape).to(dtype)
    weight = torch.randn(shape[1]).to(dtype)
    out = torch.full_like(x, float("nan"))
    sum_before = (x.float() + delta.float()).to(dtype)
    op.prepare(x, weight, 1e-5, out, delta)()
    assert torch.equal(x, sum_before)
    want = exact(x, weight, 1e-5)
    assert (out.double() - want).abs().max() <= TOLERANCE[dtype] * want.abs().max()
    assert calls.snapshot() == [{"op": "rms_norm", "name": "cpp", "calls": 1}]
    again = torch.full_like(x, float("nan"))
    op.prepare(x, weight, 1e-5, again)()
    assert torch.equal(x, sum_before)
    assert (again.double() - want).abs().max() <= TOLERANCE[dtype] * want.abs().max()


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_the_call_through_torch_equals_it_too(dtype: torch.dtype) -> None:
    x, weight = torch.randn(2, 5, 33).to(dtype), torch.randn(33).to(dtype)
    want = exact(x, weight, 1e-6)
    got = op.rms_norm(x, weight, 1e-6)
    assert got.dtype == dtype
    assert (got.double() - want).abs().max() <= 2 * TOLERANCE[dtype] * want.abs().max()


def test_zeros_tiny_numbers_and_nan_come_out_as_they_should() -> None:
    weight, out = torch.ones(9), torch.empty(3, 9)
    x = torch.stack((torch.zeros(9), torch.full((9,), 1e-20), torch.full((9,), float("nan"))))
    op.prepare(x, weight, 1e-5, out)()
    assert torch.equal(out[0], torch.zeros(9))
    torch.testing.assert_close(out[1], torch.full((9,), 1e-20 / 1e-5**0.5))
    assert out[2].isnan().all()


def test_what_does_not_match_is_refused() -> None:
    x, weight = torch.zeros(2, 4), torch.ones(4)
    with pytest.raises(ValueError, match="out must have the shape and dtype of x"):
        op.prepare(x, weight, 1e-5, torch.zeros(2, 5))
    with pytest.raises(ValueError, match="delta must have the shape and dtype of x"):
        op.prepare(x, weight, 1e-5, torch.zeros(2, 4), torch.zeros(2, 4).double())
    with pytest.raises(ValueError, match="weight must have the size"):
        op.prepare(x, torch.ones(3), 1e-5, torch.zeros(2, 4))
