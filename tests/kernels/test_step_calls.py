"""The calls of a step's Triton kernels go the whole way from Python to machine code of an H200: the
JIT binds the arguments, chooses types and compiles, with a driver that only names its target.
"""

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
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

class Target:
    def get_current_device(self): return 0
    def get_current_stream(self, device=None): return 0
    def get_current_target(self): return GPUTarget("cuda", 90, 32)

driver.set_active(Target())
launched, whole = [], JITFunction.run

def run(self, *args, grid, warmup, **named):
    # Tensors lie on the CPU here, where the interpreter needs this.
    if "FP32_DOT" in named:
        named["FP32_DOT"] = False
    whole(self, *args, grid=grid, warmup=True, **named)
    launched.append([self.fn.__name__, *grid])

JITFunction.run = run
from kernels import cuda
cuda.processors = lambda device: 132
from kernels.attention import Heads, gpu, kv_gpu
from kernels.kv_codes import KVFormat
from kernels.kv_codes.codes import allocate
from kernels.rms_norm import gpu as rms_norm
from kernels.swiglu import gpu as swiglu

x, y, both = torch.randn(3, 4, 96).bfloat16()
rms_norm.prepare(x, x[0].clone(), 1e-5, y, both)()
rms_norm.rms_norm(x, x[0].clone(), 1e-5)
swiglu.prepare(both, both[:, :48].contiguous())()

def attention(heads, kv_heads, dim, batch, tokens, capacity, norms, codes):
    weight = torch.ones(dim) if norms else None
    turns = torch.ones(capacity, dim // 2)
    fixed = Heads(heads, kv_heads, dim, turns, turns, weight, weight)
    qkv = torch.zeros(batch, tokens, (heads + 2 * kv_heads) * dim).bfloat16()
    out, start = qkv.new_zeros(batch, tokens, heads * dim), torch.zeros(batch, dtype=torch.int64)
    if codes is None:
        keys = qkv.new_zeros(batch, kv_heads, capacity, dim)
        gpu.prepare(qkv, keys, keys.clone(), start, fixed, out)()
    else:
        cache = allocate(KVFormat(*codes), (batch, kv_heads), dim, capacity, qkv.dtype)
        kv_gpu.prepare(qkv, cache, start, fixed, out)()

attention(32, 8, 128, 1, 1, 8192, False, None)
attention(7, 1, 24, 3, 18, 300, True, None)
attention(32, 8, 128, 1, 1, 8192, False, (8, 32))
attention(32, 8, 128, 64, 1, 1024, False, (4, 64))
# No block of codes yet: their tensors are empty.
attention(4, 1, 80, 1, 5, 40, True, (2, 32))
print(json.dumps(launched))
"""
WANTED = [
    ["norm_kernel", 4], ["norm_kernel", 4], ["gate_kernel", 4, 1],
    ["attend", 8, 32, 1], ["combine", 32],
    ["attend", 3, 1, 2], ["attend", 3, 1, 2],
    ["bring_in", 8, 3], ["attend_codes", 8, 33, 1], ["combine_codes", 32],
    ["bring_in", 512, 5], ["attend_codes", 512, 1, 1],
    ["bring_in", 1, 1], ["attend_codes", 1, 1, 1],
]  # fmt: skip


def test_every_launch_of_a_step_compiles_as_it_is_called(tmp_path: Path) -> None:
    triton = pytest.importorskip("triton")
    if not (Path(triton.__file__).parent / "backends/nvidia/bin/ptxas").exists():
        pytest.skip("this Triton comes without ptxas")
    kept = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM],
        cwd=ROOT,
        env=kept | {"TRITON_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout) == WANTED
