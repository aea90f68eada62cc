"""The Triton kernels of a decode step compile for an H200 without one: what the machine code says
of loads, registers and shared memory at the shapes that matter.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import kernels

ROOT = Path(kernels.__file__).parents[1]
PROGRAM = """
import json, os, re, subprocess, tempfile, triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from kernels.attention import device, gpu, kv_device, kv_encode, kv_gpu
from kernels.kv_codes import KVFormat
from kernels.rms_norm import gpu as rms_norm
from kernels.swiglu import gpu as swiglu

BIN = os.path.join(os.path.dirname(triton.__file__), "backends/nvidia/bin")

def compiled(jit, pointers, warps=4, stages=3, fusion=True, floats=("scale", "eps"), **meta):
    names = jit.arg_names
    types = {name + "_ptr": kind for name, kind in pointers.items()}
    types = {name: kind for name, kind in types.items() if name in names}
    types |= dict.fromkeys(floats, "fp32")
    source = ASTSource(
        jit,
        signature={n: "constexpr" if n in meta else types.get(n, "i32") for n in names},
        constexprs={(names.index(name),): value for name, value in meta.items()},
        attrs={(i,): [["tt.divisibility", 16]] for i, n in enumerate(names) if n[-4:] == "_ptr"},
    )
    options = {"num_warps": warps, "num_stages": stages, "enable_fp_fusion": fusion}
    code = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    ptx = code.asm["ptx"]
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(code.asm["cubin"])
        file.flush()
        usage = subprocess.run([BIN + "/cuobjdump", "-res-usage", file.name], capture_output=True,
                               text=True).stdout
    stack = re.search(r"STACK:(\\d+)", usage)
    return {
        "shared": code.metadata.shared,
        "stack": int(stack[1]) if stack else None,
        "copies": len(re.findall(r"cp\\.async\\.cg\\.shared\\.global .*0x10", ptx)),
        "small copies": len(re.findall(r"cp\\.async\\.ca", ptx)),
        "wide loads": ptx.count("ld.global.v4.b32"),
        "matrix": "mma.sync" in ptx or "wgmma.mma_async" in ptx,
        "fma": "fma.rn.f32" in ptx,
    }

NEW = dict(qkv="*bf16", cos="*fp32", sin="*fp32", query_norm="*bf16", key_norm="*bf16",
           start="*i64")
OUT = dict(out="*bf16", part="*fp32", sum="*fp32")
NORMS = dict(QUERY_NORM=True, KEY_NORM=True)
CODES = dict(key_codes="*u8", key_scale="*fp16", value_codes="*u8", value_scale="*fp16",
             keys="*bf16", values="*bf16")
made = {}
for dim, rows, n in ((64, 16, 64), (128, 16, 64), (80, 16, 64), (128, 64, 64), (256, 16, 32)):
    made[f"attend {dim} {rows}"] = compiled(
        device.attend, OUT | NEW | dict(keys="*bf16", values="*bf16"), 8 if dim > 128 else 4,
        fusion=False, ONE=False,
        FP32_DOT=False, GROUP=4, DIM=dim, BLOCK_M=rows, BLOCK_N=n, BLOCK_D=gpu.tile_width(dim),
        **NORMS)
for bits, size, dim in ((8, 32, 128), (4, 32, 128), (2, 32, 128), (4, 64, 128), (4, 32, 64),
                        (4, 32, 80)):
    wide = max(size, gpu.tile_width(dim))
    warps, stages = kv_gpu.launch_of(KVFormat(bits, size), wide, 2)
    made[f"codes {bits} {size} {dim}"] = compiled(
        kv_device.attend_codes, OUT | NEW | CODES, warps, stages, ONE=False, FP32_DOT=False,
        GROUP=4, BITS=bits, SIZE=size, DIM=dim, BLOCK_M=16, BLOCK_D=wide, QUERY_NORM=True)
made["bring in"] = compiled(
    kv_encode.bring_in, NEW | CODES, fusion=False, GROUP=4, BITS=4, SIZE=32, DIM=128, BLOCK_D=128,
    BLOCK_B=64, KEY_NORM=True)
parts = OUT | dict(start="*i64")
made["combine"] = compiled(device.combine, parts, 2, DIM=128, BLOCK_N=64, BLOCK_D=128)
made["combine codes"] = compiled(kv_device.combine_codes, parts, 2, SIZE=32, DIM=128, BLOCK_D=128)
norm = dict(out="*bf16", x="*bf16", delta="*bf16", weight="*bf16")
for size, block in ((4096, 4096), (14336, 16384)):
    made[f"norm {size}"] = compiled(rms_norm.norm_kernel, norm, min(16, block // 512), SIZE=size,
                                    DELTA=True, BLOCK=block)
made["gate"] = compiled(swiglu.gate_kernel, dict(out="*bf16", gate_up="*bf16"), swiglu.WARPS,
                        SIZE=14336, BLOCK=swiglu.BLOCK)
print(json.dumps(made))
"""
# A multiprocessor of compute capability 9.0 has 228 KiB, of which it keeps one for each program.
SHARED, KEPT = 228 * 1024, 1024


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    triton = pytest.importorskip("triton")
    tools = Path(triton.__file__).parent / "backends/nvidia/bin"
    if not all((tools / name).exists() for name in ("ptxas", "cuobjdump")):
        pytest.skip("this Triton comes without ptxas and cuobjdump")
    kept = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM],
        cwd=ROOT,
        env=kept | {"TRITON_CACHE_DIR": str(tmp_path_factory.mktemp("triton"))},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    kernels: dict[str, dict[str, Any]] = json.loads(done.stdout)
    return kernels


def test_nothing_spills(made: dict[str, dict[str, Any]]) -> None:
    assert {name: code["stack"] for name, code in made.items()} == dict.fromkeys(made, 0)


def test_at_least_two_programs_find_room_on_a_multiprocessor(
    made: dict[str, dict[str, Any]],
) -> None:
    assert [name for name, code in made.items() if 2 * (code["shared"] + KEPT) > SHARED] == []


def test_keys_and_values_come_by_16_bytes_and_ahead_of_time(
    made: dict[str, dict[str, Any]],
) -> None:
    for name in ("64 16", "128 16", "80 16", "128 64", "256 16"):
        code = made[f"attend {name}"]
        assert code["copies"] >= 24, name
        assert code["small copies"] == 0, name
        assert code["matrix"], name


def test_codes_come_by_16_bytes_where_a_group_has_as_many(made: dict[str, dict[str, Any]]) -> None:
    # 24 of the ring, three of keys each; what is not copied ahead is loaded ahead.
    for name in ("8 32 128", "4 32 128", "4 64 128"):
        code = made[f"codes {name}"]
        assert code["small copies"] == 0, name
        assert code["copies"] >= 18, name
    assert all(made[name]["matrix"] for name in made if name.startswith("codes"))


def test_what_must_equal_torch_bit_for_bit_contracts_nothing(
    made: dict[str, dict[str, Any]],
) -> None:
    assert not made["attend 128 16"]["fma"]


def test_norms_and_gates_load_16_bytes(made: dict[str, dict[str, Any]]) -> None:
    assert min(made[name]["wide loads"] for name in ("norm 4096", "norm 14336", "gate")) >= 2
