"""The Triton kernels compile for an H200 without one: what the machine code must contain."""

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
import json, triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from kernels.linear_fp8 import gpu as fp8
from kernels.linear_fp8 import gpu_rows as fp8_rows
from kernels.linear_lowbit.gpu import kernels as lowbit
from kernels.linear_lowbit.gpu import tiles as lowbit_tiles
from kernels.linear_w8a8 import gpu as w8a8
from kernels.linear_w8a8 import gpu_rows as w8a8_rows

def compiled(kernel, pointers, numbers, config, **meta):
    jit = getattr(kernel, "fn", kernel) if hasattr(kernel, "configs") else kernel
    names = jit.arg_names
    types = pointers | dict.fromkeys(numbers, "i32")
    wide = [i for i, name in enumerate(names)
            if name in pointers and name != "x_scale" or name in ("n", "k", "padded")]
    meta |= config.kwargs
    source = ASTSource(
        jit,
        signature={name: types.get(name, "constexpr") for name in names},
        constexprs={(names.index(name),): value for name, value in meta.items()},
        attrs={(i,): [["tt.divisibility", 16]] for i in wide},
    )
    options = {"num_warps": config.num_warps, "num_stages": config.num_stages}
    return triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)

POINTERS = {name + "_ptr": kind for name, kind in dict(
    y="*bf16", partial="*fp32", x="*bf16", words="*i32", scale="*fp16", zero="*u8", step="*fp32",
    low="*fp32", table="*fp32", bias="*bf16", residual="*bf16").items()}
INT4 = dict(WIDTH=4, KIND=lowbit.INTEGER, CENTRE=8, GROUP=32, PARTS=2, ZERO=False, DOUBLE=False,
            PARTIAL=False, BIAS=True, RESIDUAL=True)
found = {}
few = compiled(lowbit.few_rows, POINTERS, ("rows", "n", "k", "blocks"), lowbit.FEW[0], ROWS=1,
               **INT4)
found["few"] = few.asm["ptx"]
many = compiled(lowbit.many_rows, POINTERS, ("rows", "n", "k", "blocks", "rows_bucket"),
                lowbit.MANY[0], PRECISION="tf32", FP32_DOT=False, **INT4)
found["many"] = many.asm["ptx"]
for config in fp8.product_kernel.configs[::-1]:
    both = compiled(fp8.product_kernel,
                {"y_ptr": "*bf16", "sums_ptr": "*fp32", "x_ptr": "*fp8e4nv", "w_ptr": "*fp8e4nv",
                 "scale_ptr": "*fp16", "x_scale_ptr": "*fp32", "bias_ptr": "*bf16",
                 "residual_ptr": "*bf16"},
                ("rows", "n", "padded", "rows_bucket"), config, FP32_DOT=False, BIAS=True,
                RESIDUAL=True)
found["fp8"] = both.asm["ptx"]
for config in w8a8.product_kernel.configs:
    both = compiled(w8a8.product_kernel,
                    {"y_ptr": "*bf16", "sums_ptr": "*i32", "x_ptr": "*i8", "w_ptr": "*i8",
                     "scale_ptr": "*fp32", "x_scale_ptr": "*fp32", "bias_ptr": "*bf16",
                     "residual_ptr": "*bf16"},
                    ("rows", "n", "padded", "rows_bucket"), config, BIAS=True, RESIDUAL=True)
    found[f"w8a8 {config}"] = both.asm["ptx"]
plain = triton.Config({})
compiled(fp8_rows._quantize_kernel,
         {"codes_ptr": "*fp8e4nv", "scale_ptr": "*fp32", "x_ptr": "*bf16"},
         ("k", "padded"), plain, LARGEST=448.0, TINY_MAX=1e-30, ROUND_FIRST=False, BLOCK_K=4096)
for fixed in (False, True):
    compiled(w8a8_rows._quantize_kernel,
             {"codes_ptr": "*i8", "scale_ptr": "*fp32", "x_ptr": "*bf16", "x_scale": "fp32"},
             ("k", "padded", "x_stride_row", "x_stride_k"), plain, FIXED=fixed, TINY_MAX=1e-30,
             BLOCK_K=4096)
for sums, scale in (("*i32", "*fp32"), ("*fp32", "*fp16")):
    compiled(w8a8_rows._finish_kernel,
             {"y_ptr": "*bf16", "sums_ptr": sums, "scale_ptr": scale, "x_scale_ptr": "*fp32",
              "bias_ptr": "*bf16", "residual_ptr": "*bf16"},
             ("n", "wide", "splits", "split_stride"), plain, BIAS=True, RESIDUAL=True, BLOCK=512)
tiles = {name: value for name, value in INT4.items() if name not in ("PARTIAL", "BIAS", "RESIDUAL")}
found["tiles"] = compiled(lowbit_tiles.unpack_rows, POINTERS, ("begin", "end", "n", "k", "blocks"),
    plain, BLOCK_N=lowbit_tiles.BLOCK_N, BLOCKS=lowbit_tiles.BLOCKS, **tiles).asm["ptx"]
compiled(lowbit.finish, POINTERS, ("rows", "n", "wide", "splits"), plain, BIAS=True, RESIDUAL=True,
         GATED=False, BLOCK=512)
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    triton = pytest.importorskip("triton")
    if not (Path(triton.__file__).parent / "backends/nvidia/bin/ptxas").exists():
        pytest.skip("this Triton comes without ptxas")
    kept = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM],
        cwd=ROOT,
        env=kept | {"TRITON_CACHE_DIR": str(tmp_path_factory.mktemp("triton"))},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, str] = json.loads(done.stdout)
    return found


def test_few_rows_load_codes_16_bytes_at_a_time_and_convert_nothing(code: dict[str, str]) -> None:
    assert "ld.global.v4.b32" in code["few"]
    # Codes become floats through their bits; only x and the sides may be converted.
    assert "cvt.rn.f32.u32" not in code["few"]
    assert "cvt.rn.f32.s32" not in code["few"]
    assert "mma" not in code["few"]


def test_many_rows_give_unpacked_codes_to_the_matrix_units(code: dict[str, str]) -> None:
    assert "wgmma.mma_async" in code["many"]
    assert "cp.async.cg.shared.global" in code["many"]
    assert "cvt.rn.bf16x2.f32" in code["many"]
    assert "cvt.rn.f32.s32" not in code["many"]


def test_tiles_are_read_16_bytes_and_written_8_bytes_at_a_time(code: dict[str, str]) -> None:
    assert "ld.global.v4.b32" in code["tiles"]
    assert "st.global.v2.b32" in code["tiles"]
    assert "cvt.rn.f32.s32" not in code["tiles"]


def test_int8_stays_int8_up_to_the_matrix_units(code: dict[str, str]) -> None:
    kinds = [name for name in code if name.startswith("w8a8")]
    assert len(kinds) > 1
    for name in kinds:
        assert "wgmma.mma_async" in code[name], name
        assert ".s32.s8.s8" in code[name], name
        assert "cp.async.cg.shared.global" in code[name], name


def test_fp8_stays_fp8_up_to_the_matrix_units(code: dict[str, str]) -> None:
    assert ".f32.e4m3.e4m3" in code["fp8"]
    assert "cp.async.cg.shared.global" in code["fp8"]
