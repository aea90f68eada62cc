"""The Triton kernel of SwiGLU against float64: in Triton's interpreter, and on a GPU."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from kernels import calls
from kernels.swiglu import reference
from tests.kernels import interpreter

# Triton's interpreter cuts fp32 off to bf16 where a GPU rounds.
TOLERANCE = {torch.float32: 1e-6, torch.bfloat16: 1.6e-2, torch.float16: 2e-3}
SHAPES = ((1, 1), (1, 1536), (3, 77), (16, 512), (2, 14336), (5, 1025))


def bound(device: str, shape: tuple[int, int]) -> None:
    """A bound step and a whole prompt are right and written everywhere."""
    from kernels.swiglu import gpu

    torch.manual_seed(0)
    for dtype, tolerance in TOLERANCE.items():
        gate_up = (3 * torch.randn(shape[0], 2 * shape[1])).to(dtype)
        out = torch.full(shape, float("nan"), dtype=dtype, device=device)
        here = gate_up.to(device)
        calls.reset()
        gpu.prepare(here, out)()
        whole = gpu.swiglu(here[None])
        assert calls.snapshot() == [{"op": "swiglu", "name": "triton", "calls": 2}]
        want = reference.swiglu(gate_up.double())
        assert ((out.cpu().double() - want).abs() <= tolerance * want.abs() + 1e-6).all(), dtype
        assert torch.equal(whole[0], out), dtype


def hostile(device: str) -> None:
    """Large gates saturate and a NaN is kept."""
    from kernels.swiglu import gpu

    gate = torch.tensor([[-1e4, -90.0, 90.0, 1e4, float("nan"), 0.0]])
    out = gpu.swiglu(torch.cat((gate, torch.full((1, 6), 2.0)), dim=1).to(device)).cpu()
    assert out[0, 2:4].tolist() == [180.0, 20000.0]
    assert (out[0, :2].abs() < 1e-30).all()
    assert out[0, 4].isnan()
    assert out[0, 5] == 0
    assert gpu.swiglu(torch.zeros(0, 8, device=device)).shape == (0, 4)


CASES: interpreter.Cases = {
    **{f"bound {rows} x {size}": partial(bound, shape=(rows, size)) for rows, size in SHAPES},
    "hostile": hostile,
}


@pytest.fixture(scope="module")
def interpreted() -> dict[str, str]:
    pytest.importorskip("triton")
    return interpreter.failures("tests.kernels.swiglu.test_gpu")


@pytest.mark.parametrize("case", CASES)
def test_it_is_right_in_the_interpreter(case: str, interpreted: dict[str, str]) -> None:
    assert interpreted[case] == ""


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("case", CASES)
def test_it_is_right_on_a_gpu(case: str) -> None:
    CASES[case]("cuda")
