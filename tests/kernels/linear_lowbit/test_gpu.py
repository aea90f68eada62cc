"""The Triton kernels in its interpreter; the variable must be set before triton is imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import kernels
from kernels import calls, choice, registry
from kernels.linear_lowbit import LowBitWeight, codes, quantize
from kernels.linear_lowbit.gpu import layout as gpu_layout
from tests.kernels.gpu import products

ROOT = Path(kernels.__file__).parents[1]
START = """
import json, sys, torch
from kernels import calls
from kernels.linear_lowbit import LowBitWeight, quantize, reference
torch.use_deterministic_algorithms(True)  # fresh memory holds NaN
torch.manual_seed(0)
def off(y, exact, k):
    return ((y.double() - exact).abs() / (exact.abs() + k ** 0.5)).max().item()
"""
PRODUCTS = """
FORMS = (("int", 4, True, "fp16"), ("int", 4, False, "fp32"), ("int", 8, True, "fp16"),
         ("int", 8, False, "fp16"), ("int", 3, True, "fp32"), ("int", 2, False, "fp16"),
         ("int", 5, False, "fp16"), ("nf4", 4, True, "u8"), ("fp4", 4, True, "fp16"),
         ("e4m3", 8, True, "fp16"), ("e5m2", 8, True, "fp16"), ("ternary", 2, True, "fp16"),
         ("binary", 1, True, "fp16"))
SHAPES = ((1, 1, 5, 32), (2, 33, 100, 24), (3, 40, 150, 64), (17, 17, 70, 1 << 20))
DTYPES = (torch.bfloat16, torch.float16, torch.float32)
found = {}
for turn, (kind, bits, symmetric, scales) in enumerate(FORMS):
    for shape, (rows, n, k, group) in enumerate(SHAPES):
        dtype = DTYPES[(turn + shape) % 3]
        form = quantize(torch.randn(n, k), bits, group, kind, symmetric, scales)
        bias, x = torch.randn(n).to(dtype), torch.randn(rows, k).to(dtype)
        weight = LowBitWeight(form, bias, dtype, "triton")
        exact = reference.linear(x, form, bias)
        errors = [off(weight(x), exact, k)]
        if k > 100:  # more than one block
            out = torch.empty(rows, n, dtype=dtype)
            errors += [off(weight._product.run(x, out, split=3), exact, k)]
        back = weight.form()
        same = all((torch.equal(back.codes, form.codes), torch.equal(back.scale, form.scale),
                    torch.equal(back.zeros(), form.zeros()), back.format == form.format))
        found[f"{kind}{bits} {shape} {dtype}"] = [max(errors), same]
print(json.dumps([found, calls.snapshot()]))
"""
FUSED = """
found = []
for rows, few in ((1, True), (5, True), (5, False)):
    form = quantize(torch.randn(24, 96), 4, 32)
    bias, x = torch.randn(24), torch.randn(rows, 96)
    weight = LowBitWeight(form, bias, torch.float32, "triton")
    exact = reference.linear(x, form, bias)
    gate, up = exact.chunk(2, dim=1)
    for split in (1, 2):
        out = torch.empty(rows, 12)
        weight._product.run(x, out, gated=True, split=split, few=few)
        found.append(off(out, torch.nn.functional.silu(gate) * up, 96))
        side = torch.randn(rows, 24)
        wanted = side.double() + exact
        weight._product.run(x, side, residual=side, split=split, few=few)
        found.append(off(side, wanted, 96))
    out, side = torch.empty(rows, 24), torch.randn(rows, 24)
    weight.bind(x, out, side)()
    found.append(off(out, side + exact, 96))
print(json.dumps([found, calls.snapshot()]))
"""
HOSTILE = """
form = quantize(torch.cat((torch.zeros(2, 40), torch.full((2, 40), -3.0))), 4, 32)
weight = LowBitWeight(form, None, torch.float32, "triton")
x = torch.randn(3, 40)
x[0, 7], x[1, 33] = float("inf"), float("nan")
for few in (True, False):
    y = weight._product.run(x, torch.empty(3, 4), few=few)
    exact = reference.linear(x, form)
    assert torch.equal(y.isnan(), exact.isnan()), (y, exact)
    assert (y[2].double() - exact[2]).abs().max() < 1e-4
print(json.dumps(True))
"""
TUNED = """
import triton
from kernels import tuning
from kernels.linear_lowbit import gpu
from kernels.linear_lowbit.gpu.kernels import few_rows, many_rows
few_rows.configs = [triton.Config(dict(BLOCK_N=n, BLOCKS=2, WAVES=4)) for n in (16, 64)]
many_rows.configs = [
    triton.Config(dict(BLOCK_N=n, BLOCKS=b, WAVES=4, BLOCK_M=16)) for n, b in ((16, 1), (64, 2))]
form = quantize(torch.randn(40, 96), 4, 32)
weight = LowBitWeight(form, None, torch.float32, "triton")
found = []
for rows, kernel in ((1, few_rows), (5, many_rows)):
    for known in (False, True):
        # As if blocks had been chosen on an output of its own: what goes wrong without.
        kernel.cache.clear()
        for turn in range(2):
            x, side = torch.randn(rows, 96), torch.randn(rows, 40)
            wanted = side.double() + reference.linear(x, form)
            if not known:
                tuning.tuned.clear()
            weight.bind(x, side, side)()
            found.append(off(side, wanted, 96))
        assert len(kernel.cache) == 1 and kernel.best_config in kernel.configs
print(json.dumps(found))
"""
TOLERANCE = {"torch.float32": 2e-6, "torch.bfloat16": 8e-3, "torch.float16": 1e-3}


def interpreted(program: str) -> object:
    pytest.importorskip("triton")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", START + program],
        cwd=ROOT,
        env=os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def test_every_kind_of_codes_agrees_with_fp64_in_the_interpreter() -> None:
    found, counted = interpreted(PRODUCTS)
    assert len(found) == 52
    for case, (error, same) in found.items():
        assert error < TOLERANCE[case.split()[2]], case
        assert same, case
    assert counted == [{"op": "linear_lowbit", "name": "triton", "calls": 52}]


def test_bias_residual_and_gate_are_fused_right() -> None:
    found, counted = interpreted(FUSED)
    assert len(found) == 15
    assert max(found) < 2e-6
    assert counted == [{"op": "linear_lowbit", "name": "triton", "calls": 3}]


def test_choosing_blocks_does_not_touch_an_output_that_is_the_residual() -> None:
    for kernel in (found := interpreted(TUNED))[:4], found[4:]:
        right, chosen_already, wrong, after = kernel
        assert max(right, chosen_already, after) < 2e-6
        # The test would see it: blocks chosen on the output itself add the residual each time.
        assert wrong > 1e-3


def test_zero_rows_and_infinite_inputs_behave_as_in_the_reference() -> None:
    assert interpreted(HOSTILE) is True


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("scale_format", ["fp16", "fp32", "u8"])
def test_the_layout_gives_the_form_back(bits: int, scale_format: str) -> None:
    form = quantize(torch.randn(33, 70), bits, 32, "int", False, scale_format)
    layout = gpu_layout.lay_out(form)
    back = gpu_layout.undo(layout)
    assert torch.equal(back.codes, form.codes)
    assert torch.equal(back.dequantize(), form.dequantize())
    assert layout.words.shape == (-(-70 // (256 // layout.width)), 33, 8)
    assert layout.words.is_contiguous()


def test_a_position_of_eight_words_is_eight_neighbouring_columns() -> None:
    form = codes.LowBit(
        torch.arange(64, dtype=torch.uint8)[None] % 16, torch.ones(1, 2), None, 4, 32
    )
    words = gpu_layout.lay_out(form).words[0, 0]
    for place in range(8):
        nibbles = (words >> (4 * place)) & 15
        assert nibbles.tolist() == [(8 * place + i) % 16 for i in range(8)]


def test_forms_it_does_not_take_get_a_sentence() -> None:
    gpu = pytest.importorskip("kernels.linear_lowbit.gpu")
    odd = quantize(torch.randn(3, 40), 4, 12)
    assert "multiple of 8" in (gpu.refuse(odd, torch.bfloat16) or "")
    form = quantize(torch.randn(3, 40), 8, 40, "e4m3")
    assert gpu.refuse(form, torch.bfloat16) is None
    broken = form.codes.clone()
    broken[1, 3] = 0xFF
    bad = codes.LowBit(broken, form.scale, None, 8, 40, "e4m3")
    assert "e4m3" in (gpu.refuse(bad, torch.bfloat16) or "")


@pytest.mark.usefixtures("fresh")
def test_it_runs_on_the_cpu_only_when_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert LowBitWeight(quantize(torch.randn(3, 40), 4, 8)).kernel != "triton"
    monkeypatch.delenv("TRITON_INTERPRET")
    with pytest.raises(registry.KernelUnavailable, match="TRITON_INTERPRET=1"):
        LowBitWeight(quantize(torch.randn(3, 40), 4, 8), kernel="triton")


GPU = "NOT YET RUN ON A GPU: needs a CUDA device"
DTYPES = (torch.bfloat16, torch.float16, torch.float32)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason=GPU)
@pytest.mark.usefixtures("pinned")
@pytest.mark.parametrize(("turn", "format_"), list(enumerate(products.LOWBIT)))
def test_every_format_agrees_with_fp64_on_a_gpu(turn: int, format_: str) -> None:
    products.check(format_, 33, 104, (3, 17), DTYPES[turn % 3], "triton", "cuda")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason=GPU)
@pytest.mark.usefixtures("pinned")
@pytest.mark.parametrize("format_", ["int4-g32", "int4-g128 with zeros", "int8", "nf4-g64 double"])
def test_a_decoders_shape_agrees_with_fp64_on_a_gpu(format_: str) -> None:
    rows = (1, 8, 130)
    for kernel in ("triton", "triton-tiles"):
        products.check(format_, 576, 1536, rows, torch.bfloat16, kernel, "cuda")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason=GPU)
def test_choosing_blocks_does_not_add_the_residual_twice_on_a_gpu() -> None:
    # With every configuration: the one place where the autotuner itself is at work.
    products.check("int4-g32", 160, 1408, (1, 64), torch.float16, "triton", "cuda")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason=GPU)
@pytest.mark.usefixtures("pinned", "own_cache", "fresh")
def test_few_against_many_rows_is_measured_and_kept_on_a_gpu() -> None:
    choice.forget()
    form = products.moved(quantize(torch.randn(512, 1024), 4, 32), "cuda")
    weight = LowBitWeight(form)
    assert weight.kernel == "triton"
    weight(torch.randn(4, 1024, device="cuda").bfloat16())
    (kept,) = choice.here()
    assert kept.question == choice.Question("linear_lowbit", "int4-g32", (512, 1024), 4, "bf16")
    assert set(kept.seconds()) == {"triton/few", "triton/many"}
    assert not kept.failed
    assert calls.snapshot() == [{"op": "linear_lowbit", "name": "triton", "calls": 1}]
    choice.forget()
