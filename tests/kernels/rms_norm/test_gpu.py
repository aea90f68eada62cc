"""The Triton kernel of RMS norm against float64: in Triton's interpreter, and on a GPU."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from kernels import calls
from kernels.rms_norm import reference
from tests.kernels import interpreter

# Triton's interpreter cuts fp32 off to bf16 where a GPU rounds.
TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 1.6e-2, torch.float16: 1.5e-3}
SHAPES = ((1, 1), (1, 576), (3, 41), (16, 2049), (2, 4096), (5, 80), (1, 16384), (2, 12288))


def bound(device: str, shape: tuple[int, int]) -> None:
    """With and without a residual before it: right, written everywhere, x the rounded sum."""
    from kernels.rms_norm import gpu

    torch.manual_seed(0)
    for dtype, tolerance in TOLERANCE.items():
        x, delta = (torch.randn(shape).to(dtype) for _ in range(2))
        weight = torch.randn(shape[1]).to(dtype)
        total = (x.float() + delta.float()).to(dtype)
        here = [tensor.to(device) for tensor in (x, weight, delta)]
        out = torch.full_like(here[0], float("nan"))
        calls.reset()
        gpu.prepare(here[0], here[1], 1e-5, out, here[2])()
        assert calls.snapshot() == [{"op": "rms_norm", "name": "triton", "calls": 1}]
        kept = here[0].cpu()
        if device == "cuda" or dtype is not torch.bfloat16:
            assert torch.equal(kept, total), dtype
        for step in (None, gpu.prepare(here[0], here[1], 1e-5, out, None)):
            if step is not None:
                out.fill_(float("nan"))
                step()
            want = reference.rms_norm(kept.double(), weight.double(), 1e-5)
            off = (out.cpu().double() - want).abs().max() / want.abs().max()
            assert off <= tolerance, (dtype, off)
            assert torch.equal(here[0].cpu(), kept), dtype


def prompt(device: str) -> None:
    """A whole prompt at once, from rows that do not lie together."""
    from kernels.rms_norm import gpu

    torch.manual_seed(1)
    x, weight = torch.randn(7, 3, 66).transpose(0, 1), torch.randn(66)
    got = gpu.rms_norm(x.to(device), weight.to(device), 1e-6)
    want = reference.rms_norm(x.double(), weight.double(), 1e-6)
    assert got.shape == x.shape
    assert (got.cpu().double() - want).abs().max() <= 4e-6 * want.abs().max()
    assert gpu.rms_norm(x[:0].to(device), weight.to(device), 1e-6).shape == (0, 7, 66)


def hostile(device: str) -> None:
    """Zeros, tiny numbers and a NaN come out as they should."""
    from kernels.rms_norm import gpu

    x = torch.stack((torch.zeros(9), torch.full((9,), 1e-20), torch.full((9,), float("nan"))))
    out = gpu.rms_norm(x.to(device), torch.ones(9, device=device), 1e-5).cpu()
    assert torch.equal(out[0], torch.zeros(9))
    torch.testing.assert_close(out[1], torch.full((9,), 1e-20 / 1e-5**0.5))
    assert out[2].isnan().all()


CASES: interpreter.Cases = {
    **{f"bound {rows} x {size}": partial(bound, shape=(rows, size)) for rows, size in SHAPES},
    "prompt": prompt,
    "hostile": hostile,
}


@pytest.fixture(scope="module")
def interpreted() -> dict[str, str]:
    pytest.importorskip("triton")
    return interpreter.failures("tests.kernels.rms_norm.test_gpu")


@pytest.mark.parametrize("case", CASES)
def test_it_is_right_in_the_interpreter(case: str, interpreted: dict[str, str]) -> None:
    assert interpreted[case] == ""


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("case", CASES)
def test_it_is_right_on_a_gpu(case: str) -> None:
    CASES[case]("cuda")
