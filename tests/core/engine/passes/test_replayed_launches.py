"""A captured step of Triton kernels, in Triton's interpreter: launches are repeated as they were.

The variable must be set before triton is imported, so it runs in a process of its own.
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
SCRIPT = """
import json, os, sys
import torch
from torch.utils._python_dispatch import _disable_current_modes
from triton.runtime import interpreter
import tape
from tape import Recording, Tape
from transformers_models import lean, transformers_model
from kernels import calls
from kernels import linear_fp8 as fp8, linear_lowbit as lowbit, linear_w8a8 as w8a8
from kernels.kv_codes import KVFormat
from kernels.linear_fp8 import Fp8Weight
from kernels.linear_lowbit import LowBitWeight
from kernels.linear_w8a8 import W8A8Weight

torch.manual_seed(0)
torch.set_num_threads(1)
launch = interpreter.GridExecutor.__call__
recording = []

def recorded(self, *args, **kwargs):
    def again():
        # The interpreter is torch and numpy itself: a launch is one operation of a graph.
        with _disable_current_modes(), torch.inference_mode(False):
            launch(self, *args, **kwargs)
    for open_ in recording:
        open_.steps.append((lambda: again(), (), {}, []))
    again()

class Launches(Recording):
    def __enter__(self):
        recording.append(self)
        return super().__enter__()
    def __exit__(self, *error):
        recording.remove(self)
        return super().__exit__(*error)

interpreter.GridExecutor.__call__ = recorded
tape.Recording = Launches
variant, weights, bits = sys.argv[1], sys.argv[2], int(sys.argv[3])
plain = "attention=torch-sdpa,rms_norm=torch,swiglu=torch,linear_dense=torch"
codes = f"attention=triton-kv{bits},rms_norm=triton,swiglu=triton,linear_dense=torch"
triton = "attention=triton,rms_norm=triton,swiglu=triton,linear_dense=torch"
PACKED = {
    "int4-g32": ("linear_lowbit", lambda w: LowBitWeight(lowbit.quantize(w, 4, 32), None, w.dtype)),
    "w8a8": ("linear_w8a8", lambda w: W8A8Weight(w8a8.quantize(w), None, w.dtype)),
    "fp8": ("linear_fp8", lambda w: Fp8Weight(fp8.quantize(w), None, w.dtype)),
}
if weights:
    op, pack = PACKED[weights]
    triton += f",{op}=triton"
    plain += f",{op}=" + ("torch-int-mm" if weights == "w8a8" else "torch")
ids = torch.randint(0, 97, (2, 48))
cuts = [35, 1, 1, 1, 1, 3, 3, 3]

def read(captured):
    engine = lean(transformers_model(variant), "fp32")
    for matrix in engine.matrices() if weights else ():
        if matrix.name != "head":
            matrix.replace(pack(matrix.dense()))
    if captured:
        engine.graphs = Tape()
    if bits:
        engine.cache_format = KVFormat(bits, 32, 4)
    cache = engine.new_cache(2, 52)
    logits = [engine.forward(part, cache) for part in ids.split(cuts, dim=1)]
    cache.truncate([44, 40])
    logits += [engine.forward(ids[:, -3:], cache)]
    logits += [engine.choose(ids[:, -1:], cache).float() for _ in range(3)]
    return logits, engine.graphs

os.environ["TRIMTAB_KERNEL"] = plain if not bits else plain.replace("torch-sdpa", f"torch-kv{bits}")
want, _ = read(False)
os.environ["TRIMTAB_KERNEL"] = codes if bits else triton
calls.reset()
got, graphs = read(True)
off = max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(got[:9], want[:9]))
same = all(torch.equal(a, b) for a, b in zip(got[9:], want[9:]))
print(json.dumps([off, same, graphs.replays, graphs.reasons, calls.snapshot()]))
"""


@pytest.mark.parametrize(
    ("variant", "weights", "bits"),
    [
        ("qwen3", "int4-g32", 0),
        ("llama", "", 4),
        pytest.param("llama", "w8a8", 0, marks=pytest.mark.slow),
    ],
)
def test_launches_replayed_say_what_torch_says(variant: str, weights: str, bits: int) -> None:
    environment = os.environ | {
        "TRITON_INTERPRET": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(Path(__file__).parents[1])]),
    }
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT, variant, weights, str(bits)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    off, same, replays, reasons, ran = json.loads(ended.stdout.splitlines()[-1])
    # Codes at the edge between two steps may fall to either side, of keys and of inputs alike.
    assert off <= (0.05 if bits or weights == "w8a8" else 2e-5)
    assert same or bits or weights == "w8a8"
    assert reasons == []
    assert replays == 2 + 2 + 1
    names = {row["name"] for row in ran}
    assert (f"triton-kv{bits}" if bits else "triton") in names
    if weights:
        packed = {row["name"] for row in ran if row["op"] in ("linear_lowbit", "linear_w8a8")}
        assert packed == {"triton"}
