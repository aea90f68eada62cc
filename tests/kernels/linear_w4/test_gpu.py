"""The Triton kernel in Triton's interpreter; the variable must be set before triton is imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import kernels

ROOT = Path(kernels.__file__).parents[1]
PROGRAM = """
import json, torch
from kernels import calls
from kernels.linear_w4 import gpu, lay_out, linear, quantize, reference
torch.use_deterministic_algorithms(True)
torch.manual_seed(0)
found = {}
for dtype in (torch.bfloat16, torch.float16, torch.float32):
    for rows, n, k, group in ((1, 1, 5, 32), (1, 33, 100, 32), (1, 70, 300, 64), (3, 17, 200, 128),
                              (17, 65, 96, 32), (33, 5, 512, 256)):
        form = quantize(torch.randn(n, k).to(dtype), group)
        packed = lay_out(form, "triton-w4a16")
        codes = form.codes()[:, :k]
        weight = reference.dequantize(codes, form.scale, form.zero, group)
        x, bias = torch.randn(k, rows).to(dtype).t(), torch.randn(n).to(dtype)
        exact = reference.linear(x, weight)
        back = packed.unpack()
        same = torch.equal(back.codes()[:, :k], codes) and torch.equal(back.scale, form.scale)
        split = gpu.matmul(x, packed.packed, packed.scale_zero, group, split=3)
        errors = []
        for y in (linear(x, packed, bias).double() - bias.double(), split.double()):
            errors.append(((y - exact).abs() / (exact.abs() + k ** 0.5)).max().item())
        fits = list(split.shape) == [rows, n]
        found[f"{dtype} {rows} {n} {k} {group}"] = [max(errors), same, fits]
print(json.dumps([found, calls.snapshot()]))
"""
TOLERANCE = {"torch.float32": 2e-6, "torch.bfloat16": 8e-3, "torch.float16": 1e-3}


def test_the_triton_kernels_agree_with_fp64_in_the_interpreter() -> None:
    pytest.importorskip("triton")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM],
        cwd=ROOT,
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found, counted = json.loads(done.stdout)
    assert len(found) == 18
    for case, (error, same_codes, same_shape) in found.items():
        assert error < TOLERANCE[case.split()[0]], case
        assert same_codes, case
        assert same_shape, case
    assert counted == [{"op": "linear_w4", "name": "triton-w4a16", "calls": 18}]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("rows", [1, 3, 17, 200])
def test_the_triton_kernels_agree_with_fp64_on_a_gpu(rows: int) -> None:
    from kernels.linear_w4 import lay_out, linear, quantize, reference

    for n, k, group in ((33, 100, 32), (1000, 4096, 128), (70, 512, 256)):
        form = quantize(torch.randn(n, k, device="cuda").bfloat16(), group)
        weight = reference.dequantize(
            form.codes()[:, :k].cpu(), form.scale.cpu(), form.zero.cpu(), group
        )
        x = torch.randn(rows, k, device="cuda").bfloat16()
        exact = reference.linear(x.cpu(), weight)
        y = linear(x, lay_out(form)).cpu().double()
        assert ((y - exact).abs() / (exact.abs() + k**0.5)).max() < 8e-3
