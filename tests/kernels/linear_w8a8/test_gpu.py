"""The Triton kernels in Triton's interpreter, whose variable is read when triton is imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import kernels

ROOT = Path(kernels.__file__).parents[1]
PROGRAM = """
import json, torch
from kernels import calls
from kernels.linear_w8a8 import W8A8Weight, gpu, quantize, reference
from kernels.linear_w8a8.codes import quantize_rows
torch.use_deterministic_algorithms(True)
torch.manual_seed(0)
found = {}
apart = torch.tensor([0, 3], dtype=torch.int32)
for dtype in (torch.bfloat16, torch.float16, torch.float32):
    for rows, n, k, x_scale, columns in (
        (1, 1, 5, None, None), (1, 33, 300, None, apart), (3, 17, 200, 0.02, None),
        (17, 65, 96, None, apart), (33, 5, 260, 0.01, apart)):
        form = quantize(torch.randn(n, k), x_scale, columns)
        x, bias = torch.randn(k, rows).to(dtype).t(), torch.randn(n).to(dtype)
        weight = W8A8Weight(form, bias, dtype, "triton")
        kept = x if columns is None else x.index_fill(1, columns.long(), 0)
        codes, scales = quantize_rows(kept, x_scale)
        exact = reference.linear(codes, scales, form, bias)
        product = weight._product
        inner = x if columns is None else x[:, form.kept_columns()]
        q, s = product.quantized(inner)
        wide = codes if columns is None else codes[:, form.kept_columns()]
        same = torch.equal(q[:, :inner.shape[1]], wide) and torch.equal(s, scales)
        padded = not q[:, inner.shape[1]:].any()
        back = torch.equal(weight.form().codes, form.codes)
        errors = []
        for y in (weight(x), product(x.contiguous(), split=2)):
            errors.append(((y.double() - exact).abs() / (exact.abs() + 1)).max().item())
        found[f"{dtype} {rows} {n} {k}"] = [max(errors), same, padded, back]
form = quantize(torch.randn(4, 6))
x = torch.randn(3, 6)
x[0, 1], x[1], x[2, 5] = float("nan"), 0, float("-inf")
y = W8A8Weight(form, None, torch.float32, "triton")(x)
print(json.dumps([found, calls.snapshot(), y.isnan().any(1).tolist(), y[1].tolist()]))
"""
# The interpreter cuts fp32 off to bf16 where a GPU rounds.
TOLERANCE = {"torch.float32": 2e-6, "torch.bfloat16": 2**-7, "torch.float16": 2**-11}


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
    found, counted, broken, zeros = json.loads(done.stdout)
    assert len(found) == 15
    for case, (error, same_codes, padded_with_zero, same_form) in found.items():
        assert error < TOLERANCE[case.split()[0]], case
        assert same_codes, case
        assert padded_with_zero, case
        assert same_form, case
    assert counted == [{"op": "linear_w8a8", "name": "triton", "calls": 16}]
    assert broken == [True, False, True]
    assert zeros == [0.0] * 4
