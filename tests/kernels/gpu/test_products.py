"""The linear kernels of a GPU against fp64: in Triton's interpreter, and on a GPU, captured too.

On a GPU blocks are pinned (the fixture `pinned`): compiling is what the time goes to, about half a
second for each of a handful of variants a format.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import kernels
from kernels import calls, choice
from kernels.linear_fp8 import Fp8Weight
from kernels.linear_w8a8 import W8A8Weight
from kernels.registry import ENVIRONMENT
from tests.kernels.gpu import products

ROOT = Path(kernels.__file__).parents[1]
INTERPRETED = """
import json, torch
from kernels.linear_lowbit.gpu import tiles
from tests.kernels.gpu import products
torch.use_deterministic_algorithms(True)  # fresh memory holds NaN
dtypes = (torch.bfloat16, torch.float16, torch.float32)
found = {}
for turn, name in enumerate(("int4-g32", "int4-g128 with zeros", "nf4-g64 double", "e4m3")):
    found[name] = products.check(name, 33, 104, (1, 3, 17), dtypes[turn % 3], "triton", "cpu")
for turn, name in enumerate(("w8a8", "w8a8-static", "w8a8 apart", "fp8-fp8")):
    found[name] = products.check(name, 33, 100, (1, 17), dtypes[turn % 3], "triton", "cpu")
tiled = ("int4-g32", "int4-g128 with zeros", "int3-g64", "nf4-g64 double", "e4m3", "binary-g64")
for name in tiled:
    dtype = dtypes[len(found) % 3]
    found[f"{name} tiles"] = products.check(name, 33, 104, (3,), dtype, "triton-tiles", "cpu")
tiles.TILE_BYTES = 7 * 104 * 4  # several tiles, the last one short
found["short tiles"] = products.check(
    "int4-g32", 33, 104, (3,), torch.float32, "triton-tiles", "cpu")
print(json.dumps(found))
"""
SCALED = """
import json, torch
from kernels.linear_fp8 import gpu, torch_scaled_mm
from tests.kernels.gpu import products
found = []
for n, k, dtype in ((33, 100, torch.bfloat16), (48, 64, torch.float16)):
    found.append(products.check("fp8-fp8", n, k, (1, 17), dtype, "torch-scaled-mm", "cpu"))
form = products.form_of("fp8-fp8", 48, 60)
weight = products.weight_of(form, None, torch.bfloat16, "torch-scaled-mm", "cpu")
back = torch.equal(weight.form().codes, form.codes)
other = gpu.Product(form, torch.bfloat16, torch.randn(48).bfloat16())
shared = torch_scaled_mm.over(other)
x = torch.randn(5, 60).bfloat16()
same = products.off(shared(x), other(x).double(), 60) < 8e-3
lies = shared._codes.data_ptr() == other.codes.data_ptr()
odd = gpu.Product(products.form_of("fp8-fp8", 33, 60), torch.bfloat16, None)
print(json.dumps([found, back, same, lies, torch_scaled_mm.over(odd) is None]))
"""
INT_MM = """
import json, torch
from kernels.linear_w8a8 import gpu, gpu_rows, torch_int_mm
from tests.kernels.gpu import products
torch_int_mm._gpu_rows = lambda codes: gpu_rows  # as on a GPU
found = []
for name, n, k in (("w8a8", 40, 100), ("w8a8-static", 40, 64), ("w8a8 apart", 8, 96)):
    form, bias = products.form_of(name, n, k), torch.randn(n)
    ours = gpu.Product(form, torch.float32, bias)
    shared = torch_int_mm.over(ours)
    for rows in (1, 17, 33):
        x, side = torch.randn(rows, k), torch.randn(rows, n)
        wanted = products.exact(form, x, bias) + side.double()
        shared.into(x, side, side)
        found.append(products.off(side, wanted, k))
    assert shared._codes.data_ptr() == ours.codes.data_ptr()
    assert torch.equal(shared.undo().codes, form.codes)
odd = gpu.Product(products.form_of("w8a8", 33, 100), torch.float32, None)
print(json.dumps([found, torch_int_mm.over(odd) is None]))
"""
TUNED = """
import json, torch, triton
from kernels import tuning
from kernels.linear_OP import gpu, quantize
from tests.kernels.gpu import products
kernel = gpu.product_kernel
blocks = dict(BLOCK_M=16, BLOCK_K=128, WAVES=4)
kernel.configs = [triton.Config(blocks | dict(BLOCK_N=n)) for n in (16, 32)]
form = quantize(torch.randn(40, 96))
product = gpu.Product(form, torch.float32, torch.randn(40))
found = []
for known in (False, True):
    # As if blocks had been chosen on an output of its own: what goes wrong without.
    kernel.cache.clear()
    for turn in range(2):
        x, side = torch.randn(5, 96), torch.randn(5, 40)
        wanted = side.double() + products.exact(form, x, product.bias)
        if not known:
            tuning.tuned.clear()
        product.into(x, side, side)
        found.append(products.off(side, wanted, 96))
print(json.dumps(found))
"""
GPU = "NOT YET RUN ON A GPU: needs a CUDA device"
BF16, FP16, FP32 = torch.bfloat16, torch.float16, torch.float32


def interpreted(program: str) -> object:
    pytest.importorskip("triton")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        cwd=ROOT,
        env=os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def test_the_triton_kernels_agree_with_fp64_in_the_interpreter() -> None:
    found = interpreted(INTERPRETED)
    assert isinstance(found, dict)
    assert len(found) == 15
    assert max(found.values()) < 1


def scales_each_row() -> bool:
    """Whether this torch's processor product takes scales for rows: 2.11 takes one for all."""
    rows, ones = torch.ones(16, 16).to(torch.float8_e4m3fn), torch.ones(16, 1)
    try:
        torch._scaled_mm(rows, rows.t(), scale_a=ones, scale_b=ones.t(), out_dtype=BF16)
    except RuntimeError:
        return False
    return True


@pytest.mark.skipif(not scales_each_row(), reason="this torch scales no rows on a CPU")
def test_torch_scaled_mm_agrees_with_fp64_and_shares_the_codes() -> None:
    found, back, same, lies_there, none_for_odd = interpreted(SCALED)  # type: ignore[misc]
    assert max(found) < 1
    assert all((back, same, lies_there, none_for_odd))


def test_int_mm_between_our_rounding_and_scaling_agrees_and_shares_the_codes() -> None:
    found, none_for_odd = interpreted(INT_MM)  # type: ignore[misc]
    assert len(found) == 9
    assert max(found) < 2e-6
    assert none_for_odd


@pytest.mark.parametrize("dtype", [BF16, FP16, FP32])
@pytest.mark.parametrize("bias", [True, False])
def test_torchs_dense_product_writes_to_the_output(dtype: torch.dtype, bias: bool) -> None:
    from kernels.linear_dense import cuda

    torch.manual_seed(0)
    weight, x = torch.randn(33, 100).to(dtype), torch.randn(5, 100).to(dtype)
    added = torch.randn(33).to(dtype) if bias else None
    for residual in (False, True):
        y = torch.randn(5, 33).to(dtype)
        wanted = products.exact(weight, x, added) + (y.double() if residual else 0)
        cuda.bound(weight, added, x, y, y if residual else None)()
        assert products.off(y, wanted, 100) < products.ALLOWED[dtype]


@pytest.mark.parametrize("op", ["w8a8", "fp8"])
def test_choosing_blocks_does_not_touch_an_output_that_is_the_residual(op: str) -> None:
    found: list[float] = interpreted(TUNED.replace("linear_OP", f"linear_{op}"))  # type: ignore[assignment]
    right, chosen_already, wrong, after = found
    assert max(right, chosen_already, after) < 2e-6
    # The test would see it: blocks chosen on the output itself add the residual each time.
    assert wrong > 1e-3


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason=GPU)


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize(("format_", "dtype"), [("bf16", BF16), ("fp16", FP16), ("fp32", FP32)])
def test_dense_agrees_with_fp64_on_a_gpu(format_: str, dtype: torch.dtype) -> None:
    for n, k in ((33, 100), (576, 1536)):
        products.check(format_, n, k, (1, 3, 17, 130), dtype, "torch", "cuda", 8e-3)


@pytest.mark.gpu
@needs_gpu
@pytest.mark.usefixtures("pinned")
@pytest.mark.parametrize("kernel", ["triton", "torch-int-mm"])
@pytest.mark.parametrize("format_", ["w8a8", "w8a8-static", "w8a8 apart"])
def test_w8a8_agrees_with_fp64_on_a_gpu(format_: str, kernel: str) -> None:
    products.check(format_, 33, 100, (1, 17), FP16, kernel, "cuda")
    products.check(format_, 576, 1536, (1, 8, 130), BF16, kernel, "cuda")


@pytest.mark.gpu
@needs_gpu
@pytest.mark.usefixtures("pinned")
@pytest.mark.parametrize("kernel", ["triton", "torch-scaled-mm", "torch"])
def test_fp8_agrees_with_fp64_on_a_gpu(kernel: str) -> None:
    products.check("fp8-fp8", 33, 100, (1, 17), FP16, kernel, "cuda", 1e-2)
    products.check("fp8-fp8", 576, 1536, (1, 8, 130), BF16, kernel, "cuda", 1e-2)


@pytest.mark.gpu
@needs_gpu
@pytest.mark.usefixtures("pinned")
def test_torchs_tiles_can_be_captured_on_a_gpu() -> None:
    products.check("int4-g32", 33, 104, (1, 17), BF16, "torch", "cuda", 2e-2)


@pytest.mark.gpu
@needs_gpu
@pytest.mark.usefixtures("pinned", "own_cache", "fresh")
def test_the_kernels_of_one_layout_are_compared_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    choice.forget()
    for kind, format_, other in (
        (W8A8Weight, "w8a8", "torch-int-mm"),
        (Fp8Weight, "fp8-fp8", "torch-scaled-mm"),
    ):
        form = products.moved(products.form_of(format_, 512, 1024), "cuda")
        weight = kind(form)
        assert weight.kernel == "triton"
        x = torch.randn(128, 1024, device="cuda").bfloat16()
        weight(x)
        (kept,) = (answer for answer in choice.here() if answer.question.format == format_)
        assert set(kept.seconds()) == {"triton", other}
        assert not kept.failed
        assert calls.snapshot() == [{"op": form.op, "name": kept.name, "calls": 1}]
        calls.reset()
        # A kernel that is asked for by name is never replaced.
        for name in ("triton", other):
            monkeypatch.setenv(ENVIRONMENT, f"{form.op}={name}")
            kind(form)(x)
            assert calls.snapshot() == [{"op": form.op, "name": name, "calls": 1}]
            calls.reset()
        monkeypatch.delenv(ENVIRONMENT)
    choice.forget()
