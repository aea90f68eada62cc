from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import kernels
from kernels import calls
from kernels.linear_fp8 import Fp8, Fp8Weight, codes, cpu, quantize, reference
from kernels.linear_lowbit import LowBitWeight
from kernels.linear_lowbit import quantize as lowbit
from kernels.program import BoundCall
from kernels.registry import KernelUnavailable

pytestmark = pytest.mark.usefixtures("fresh")

NO_COMPILER = cpu.available()
ROOT = Path(kernels.__file__).parents[1]
SHAPES = [(1, 1, 1), (2, 17, 33), (5, 33, 100), (17, 40, 272)]
INTERPRETED = """
import json, torch
from kernels import calls
from kernels.linear_fp8 import Fp8Weight, codes, quantize, reference
torch.use_deterministic_algorithms(True)  # fresh memory holds NaN
torch.manual_seed(0)
found = []
for rows, n, k in ((1, 1, 1), (2, 17, 33), (5, 33, 100), (17, 40, 272)):
    for dtype in (torch.float32, torch.bfloat16):
        form = quantize(torch.randn(n, k))
        bias, x = torch.randn(n).to(dtype), torch.randn(rows, k).to(dtype)
        weight = Fp8Weight(form, bias, dtype, "triton")
        torch_ = Fp8Weight(form, bias, dtype, "torch")(x).double()
        exact = reference.linear(*codes.quantize_rows(x), form, bias)
        for y in (weight(x), weight._product(x, split=2)):
            error = ((y.double() - exact).abs() / (exact.abs() + k ** 0.5)).max().item()
            apart = ((y.double() - torch_).abs() / (exact.abs() + k ** 0.5)).max().item()
            same = torch.equal(weight.form().codes, form.codes)
            found.append([str(dtype), error, apart, same])
x[3, 5], x[4, 6], x[2] = float("nan"), float("inf"), 0
y = weight(x)
broken = y.isnan().all(dim=1).tolist()
print(json.dumps([found, broken, torch.equal(y[2], bias), calls.snapshot()]))
"""


@pytest.mark.parametrize(("rows", "n", "k"), SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_product_agrees_with_fp64(rows: int, n: int, k: int, dtype: torch.dtype) -> None:
    torch.manual_seed(k)
    form = quantize(torch.randn(n, k))
    bias, x = torch.randn(n).to(dtype), torch.randn(rows, k).to(dtype)
    weight = Fp8Weight(form, bias, dtype)
    exact = reference.linear(*codes.quantize_rows(x), form, bias)
    allowed = {torch.float32: 1e-6, torch.bfloat16: 5e-3, torch.float16: 1e-3}[dtype]
    assert ((weight(x).double() - exact).abs() / (exact.abs() + k**0.5)).max() < allowed
    assert weight.kernel == ("cpp" if dtype is torch.bfloat16 and NO_COMPILER is None else "torch")
    assert weight.format == "fp8-fp8"
    assert torch.equal(weight.form().codes, form.codes)
    assert torch.equal(weight.dequantize(), form.dequantize())


def test_the_triton_kernel_agrees_in_the_interpreter() -> None:
    pytest.importorskip("triton")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", INTERPRETED],
        cwd=ROOT,
        env=os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found, broken, zero_row, counted = json.loads(done.stdout)
    assert len(found) == 16
    for dtype, error, apart, same in found:
        assert error < (1e-6 if dtype == "torch.float32" else 5e-3)
        assert apart < (1e-6 if dtype == "torch.float32" else 8e-3)
        assert same
    assert broken == [False, False, False, True, True, *[False] * 12]
    assert zero_row
    assert {"op": "linear_fp8", "name": "triton", "calls": 9} in counted


def test_rows_are_rounded_to_the_nearest_e4m3_number() -> None:
    x = torch.tensor([[448.0, 1.0, 17.0, 18.9, -0.001], [0.0, 0.0, 0.0, 0.0, 0.0]])
    found, scale = codes.quantize_rows(x)
    # With a scale of 1: 17 lies between 16 and 18 (even wins), 2^-9 is the smallest step.
    assert found[0].float().tolist() == [448.0, 1.0, 16.0, 18.0, -(2.0**-9)]
    assert scale.tolist() == [1.0, 0.0]
    assert not found[1].float().any()


def test_no_e4m3_number_is_nearer_than_the_chosen_one() -> None:
    torch.manual_seed(0)
    x = torch.cat((torch.randn(4, 300), torch.randn(2, 300) * 1e-4, torch.randn(1, 300) ** 5))
    found, scale = codes.quantize_rows(x)
    off = (found.double() * scale.double()[:, None] - x.double()).abs()
    assert bool((off <= reference.distance(x) + 1e-6 * x.abs().amax(dim=1, keepdim=True)).all())


def test_broken_rows_give_nan_and_others_stay() -> None:
    form = quantize(torch.randn(4, 20))
    x = torch.randn(3, 20)
    clean = Fp8Weight(form, None, torch.float32)(x)
    x[1, 3] = float("inf")
    y = Fp8Weight(form, None, torch.float32)(x)
    assert y[1].isnan().all()
    assert torch.equal(y[::2], clean[::2])


def test_a_bound_call_adds_the_residual() -> None:
    weight = Fp8Weight(quantize(torch.randn(6, 20)), None, torch.float32)
    x, side = torch.randn(3, 20), torch.randn(3, 6)
    wanted = side + weight(x)
    weight.bind(x, side, side)()
    assert torch.equal(side, wanted)
    assert calls.snapshot() == [{"op": "linear_fp8", "name": "torch", "calls": 2}]


def test_other_forms_and_inputs_get_a_sentence() -> None:
    with pytest.raises(ValueError, match="one scale a row, not e4m3-g8"):
        Fp8.of(lowbit(torch.randn(3, 20), 8, 8, "e4m3"))
    with pytest.raises(ValueError, match="not int8"):
        Fp8.of(lowbit(torch.randn(3, 20), 8, 20))
    form = quantize(torch.randn(3, 20))
    broken = form.codes.clone()
    broken[0, 0] = 0xFF
    with pytest.raises(ValueError, match="not a number"):
        Fp8(broken, form.scale, None, 8, 20, "e4m3")
    with pytest.raises(ValueError, match=r"x must be \[..., 20\]"):
        Fp8Weight(form)(torch.randn(2, 21).bfloat16())
    with pytest.raises(KernelUnavailable, match="TRITON_INTERPRET=1"):
        Fp8Weight(form, kernel="triton")


def test_weight_only_kernels_refuse_the_form() -> None:
    with pytest.raises(ValueError, match=r"linear_fp8 \(fp8-fp8\) is not one of linear_lowbit"):
        LowBitWeight(quantize(torch.randn(3, 20)))


@pytest.mark.skipif(NO_COMPILER is not None, reason=NO_COMPILER or "")
def test_the_cpp_kernel_rounds_every_bf16_number_as_torch_does() -> None:
    # All finite sizes of both signs; a row is scaled by its largest, so each meets several scales.
    bits = torch.arange(1 << 16, dtype=torch.int32).to(torch.int16).view(torch.bfloat16)
    finite = bits[bits.isfinite()]
    one = torch.zeros(1, len(finite))
    one[0, 0] = 1.0
    weight = Fp8Weight(quantize(one), None, torch.bfloat16, "cpp")
    for most in (448.0, 300.0, 1.0, 3e-3, 1e-20, 3e38):
        x = finite.clamp(-most, most)
        x[0] = most
        rounded = torch.empty(1, len(x), dtype=torch.bfloat16)
        scale = torch.empty(1)
        _round(weight, x[None], rounded, scale)
        wanted, wanted_scale = codes.quantize_rows(x[None])
        assert torch.equal(rounded.float(), wanted.float())
        assert torch.equal(scale, wanted_scale)


@pytest.mark.skipif(NO_COMPILER is not None, reason=NO_COMPILER or "")
@pytest.mark.parametrize("shares", [1, 3, 8])
def test_the_cpp_kernel_bound_is_the_same_and_adds_in_place(shares: int) -> None:
    torch.manual_seed(0)
    bias = torch.randn(40).bfloat16()
    weight = Fp8Weight(quantize(torch.randn(40, 100)), bias, torch.bfloat16, "cpp")
    x, side = torch.randn(5, 100).bfloat16(), torch.randn(5, 40).bfloat16()
    exact = reference.linear(*codes.quantize_rows(x), weight.form(), bias) + side.double()
    threads = torch.get_num_threads()
    torch.set_num_threads(shares)
    try:
        bound = weight.bind(x, side, side)
        bound()
    finally:
        torch.set_num_threads(threads)
    assert ((side.double() - exact).abs() / (exact.abs() + 10)).max() < 5e-3
    assert calls.snapshot() == [{"op": "linear_fp8", "name": "cpp", "calls": 1}]


def _round(weight: Fp8Weight, x: torch.Tensor, rounded: torch.Tensor, scale: torch.Tensor) -> None:
    bound = weight.bind(x, torch.empty(1, 1, dtype=torch.bfloat16))
    assert isinstance(bound, BoundCall)
    bound()
    rounded.copy_(bound.kept[-1][0])
    scale.copy_(bound.kept[-1][1])


def test_a_gpu_without_fp8_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = pytest.importorskip("kernels.linear_fp8.gpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (8, 0))
    assert "this GPU has 8.0" in (gpu.available() or "")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    assert gpu.available() is None
