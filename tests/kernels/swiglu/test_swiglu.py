"""SwiGLU against float64."""

from __future__ import annotations

import pytest
import torch

from kernels import calls
from kernels import swiglu as op

TOLERANCE = {torch.float32: 5e-7, torch.bfloat16: 5e-3, torch.float16: 2e-3}


def exact(gate_up: torch.Tensor) -> torch.Tensor:
    """silu(gate) * up in float64."""
    gate, up = gate_up.double().chunk(2, dim=-1)
    return gate * torch.sigmoid(gate) * up


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", [(1, 1), (1, 1536), (3, 77), (16, 1536), (2, 31)])
def test_the_bound_step_equals_the_formula(shape: tuple[int, int], dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    gate_up = (3 * torch.randn(shape[0], 2 * shape[1])).to(dtype)
    out = torch.full(shape, float("nan"), dtype=dtype)
    op.prepare(gate_up, out)()
    want = exact(gate_up)
    assert ((out.double() - want).abs() <= TOLERANCE[dtype] * want.abs() + 1e-6).all()
    assert calls.snapshot() == [{"op": "swiglu", "name": "cpp", "calls": 1}]


def test_the_call_through_torch_equals_the_formula() -> None:
    gate_up = torch.randn(2, 3, 14)
    torch.testing.assert_close(op.swiglu(gate_up).double(), exact(gate_up), rtol=1e-5, atol=1e-6)


def test_large_gates_saturate_and_nan_is_kept() -> None:
    gate = torch.tensor([[-1e4, -90.0, 90.0, 1e4, float("nan"), 0.0]])
    out = torch.empty(1, 6)
    op.prepare(torch.cat((gate, torch.full((1, 6), 2.0)), dim=1), out)()
    assert out[0, 2:4].tolist() == [180.0, 20000.0]
    assert (out[0, :2].abs() < 1e-30).all()
    assert out[0, 4].isnan()
    assert out[0, 5] == 0


def test_what_does_not_match_is_refused() -> None:
    with pytest.raises(ValueError, match="out must be"):
        op.prepare(torch.zeros(2, 8), torch.zeros(2, 5))
    with pytest.raises(ValueError, match="out must be"):
        op.prepare(torch.zeros(2, 8), torch.zeros(2, 4).double())
