"""What `python -m tests.evidence gpu` times of a decode step beside its products: attention over
caches in 16, 8, 4 and 2 bit, RMS norm, SwiGLU, at the shapes of llama-3.1-8b, beside torch's way.

NOT YET RUN ON A GPU. A pass goes over caches that are together larger than the GPU's last cache.
Attention is timed with 1, 2 and 4 programs wanted on each multiprocessor: so its context is split.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from kernels.attention import Heads, gpu, kv_gpu, kv_torch, sdpa
from kernels.bench.limits import interval
from kernels.bench.linear import WORKING_SET
from kernels.kv_codes import KVFormat
from kernels.kv_codes.codes import KVCodes, allocate
from kernels.rms_norm import gpu as rms_norm
from kernels.rms_norm import plain as torch_norm
from kernels.swiglu import gpu as swiglu
from kernels.swiglu import plain as torch_swiglu
from tests.evidence.kernels.gpu_grid import timed

HIDDEN, GATED = 4096, 14336
DTYPE = torch.bfloat16
MOST_COPIES = 32
PROGRAMS = (2, 1, 4)
# How far a result may be from torch's, in parts of its norm: bf16 on both sides.
ALLOWED = 0.02
Step = Callable[[], object]


@dataclass(frozen=True)
class Case:
    """Attention of one new token of `batch` rows that hold `length` tokens each, in 16 `bits` or
    in codes.
    """

    bits: int
    batch: int
    length: int
    heads: int = 32
    kv_heads: int = 8
    dim: int = 128


def cases(rehearsal: bool) -> list[Case]:
    """The most telling first."""
    if rehearsal:
        return [Case(bits, 1, 70, 2, 1, 32) for bits in (16, 4)]
    sizes = ((1, 8192), (1, 512), (64, 1024))
    return [Case(bits, *size) for size in sizes for bits in (16, 4, 8, 2)]


def timed_cases(
    device: torch.device, rehearsal: bool, seconds: float
) -> Iterator[list[dict[str, Any]]]:
    """The rows of a case after the other, as many as so many seconds allow; a case that fails is a
    row that says why.
    """
    began = time.monotonic()
    makers: list[tuple[dict[str, Any], Callable[[], Iterator[dict[str, Any]]]]] = [
        ({"op": "attention", **vars(case)}, partial(attention, case, device, rehearsal))
        for case in cases(rehearsal)
    ]
    makers.insert(2, ({"op": "rms_norm and swiglu"}, partial(others, device, rehearsal)))
    for facts, maker in makers:
        if time.monotonic() - began >= seconds:
            return
        try:
            yield list(maker())
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"[:400]
            yield [facts | {"kernel": "triton", "right": False, "failed": reason}]


def line(rows: list[dict[str, Any]]) -> str:
    """A case in one line."""
    told = []
    for row in rows:
        if "us" not in row:
            told.append(f"{row['kernel']} {row['failed']}")
            continue
        name = row["kernel"]
        if row["op"] != "attention":
            name = f"{row['op']} of {row['batch']} {name}"
        share = row.get("copy_share")
        shown = "" if share is None else f" {share:.0%} of copy"
        wrong = "" if row["right"] else f" WRONG ({row['off']})"
        told.append(f"{name}{wrong} {row['us']:.1f} us{shown}")
    first = rows[0]
    size = " ".join(f"{key} {first[key]}" for key in ("bits", "batch", "length") if key in first)
    head = f"attention {size}" if first["op"] == "attention" else "norms and gates"
    return f"{head}: {', '.join(told)}"


def attention(case: Case, device: torch.device, rehearsal: bool) -> Iterator[dict[str, Any]]:
    """A row for each way to attend; each is right when it is close to torch's."""
    heads, total = _heads(case, device), case.length + 1
    form = KVFormat(case.bits) if case.bits < 16 else None
    width = (case.heads + 2 * case.kv_heads) * case.dim
    qkv = torch.randn(case.batch, 1, width, device=device, dtype=DTYPE)
    start = torch.full((case.batch,), case.length, device=device)
    read = 4 * case.dim * total if form is None else int(form.read_bytes(case.dim, total))
    moved = case.batch * (case.kv_heads * read + 4 * case.heads * case.dim)
    copies = 2 if rehearsal else min(MOST_COPIES, max(2, -(-WORKING_SET["cuda"] // moved)))
    caches = [_cache(case, form, device) for _ in range(copies)]

    def bound(kernel: Any) -> list[tuple[Step, Tensor]]:
        outs = [qkv.new_empty(case.batch, 1, case.heads * case.dim) for _ in caches]
        return [
            (kernel.prepare(qkv, *cache, start, heads, out), out)
            for cache, out in zip(caches, outs, strict=True)
        ]

    ours, theirs = (gpu, sdpa) if form is None else (kv_gpu, kv_torch)
    ways = {}
    for programs in PROGRAMS[:1] if rehearsal else PROGRAMS:
        with mock.patch.object(gpu, "PROGRAMS", programs):
            ways[f"triton/{programs}"] = bound(ours)
    torchs = bound(theirs)
    torchs[0][0]()
    told = {}
    for label, steps in ways.items():
        steps[0][0]()
        told[label] = {"off": _off(steps[0][1], torchs[0][1])}
    if form is None:
        # The other asks the host where rows begin: no graph takes it.
        ways["torch-sdpa"], told["torch-sdpa"] = torchs, {"off": 0.0}
    passes = {label: [step for step, _ in steps] for label, steps in ways.items()}
    for label, samples in timed(passes, device, rehearsal).items():
        yield {"op": "attention", **vars(case), "kernel": label, **told[label]} | _facts(
            samples, moved, told[label]["off"]
        )


def others(device: torch.device, rehearsal: bool) -> Iterator[dict[str, Any]]:
    """A row for each way to norm a row of the hidden state, and to gate."""
    hidden, gated = (64, 96) if rehearsal else (HIDDEN, GATED)
    for batch in (1,) if rehearsal else (1, 64):
        x, out = (torch.randn(batch, hidden, device=device, dtype=DTYPE) for _ in range(2))
        weight, both = x[0].clone(), torch.randn(batch, 2 * gated, device=device, dtype=DTYPE)
        gate = both.new_empty(batch, gated)
        for op, moved, result, ways in (
            ("rms_norm", x.nbytes * 2 + weight.nbytes, out, {
                "torch": torch_norm.prepare(x, weight, 1e-5, out, None),
                "triton": rms_norm.prepare(x, weight, 1e-5, out, None),
            }),
            ("swiglu", both.nbytes + gate.nbytes, gate, {
                "torch": torch_swiglu.prepare(both, gate), "triton": swiglu.prepare(both, gate),
            }),
        ):  # fmt: skip
            ways["torch"]()
            wanted = result.clone()
            ways["triton"]()
            off = _off(result, wanted)
            often = 1 if rehearsal else MOST_COPIES
            passes = {name: [step] * often for name, step in ways.items()}
            times = timed(passes, device, rehearsal)
            for name, samples in times.items():
                yield {"op": op, "batch": batch, "kernel": name, "off": off} | _facts(
                    samples, moved, off
                )


def _heads(case: Case, device: torch.device) -> Heads:
    angles = torch.rand(case.length + 1, case.dim // 2, device=device) * 2 * math.pi
    return Heads(case.heads, case.kv_heads, case.dim, angles.cos(), angles.sin())


def _cache(
    case: Case, form: KVFormat | None, device: torch.device
) -> tuple[Tensor, Tensor] | tuple[KVCodes]:
    """A full cache of random numbers, with room for one token more."""
    outer, total = (case.batch, case.kv_heads), case.length + 1
    if form is None:
        shape = (*outer, total, case.dim)
        keys, values = (torch.randn(shape, device=device, dtype=DTYPE) for _ in range(2))
        return keys, values
    cache = allocate(form, outer, case.dim, total, DTYPE, device)
    for codes in (cache.key_codes, cache.value_codes):
        codes.random_(0, 256)
    for scale, axis in ((cache.key_scale, -2), (cache.value_scale, -2)):
        scale.select(axis, 0).fill_(4 / (2**form.bits - 1))
        scale.select(axis, 1).fill_(-2.0)
    return (replace(cache, keys=cache.keys.normal_(), values=cache.values.normal_()),)


def _off(out: Tensor, wanted: Tensor) -> float | None:
    """Distance in parts of the norm; None where it is not finite."""
    off = float((out.float() - wanted.float()).norm() / wanted.float().norm())
    return off if math.isfinite(off) else None


def _facts(samples: list[float], moved: int, off: float | None) -> dict[str, Any]:
    middle, low, high = interval(samples)
    return {
        "right": off is not None and off <= ALLOWED,
        "bytes": moved,
        "us": middle * 1e6,
        "us_low": low * 1e6,
        "us_high": high * 1e6,
        "samples_us": [round(value * 1e6, 3) for value in samples],
        "gb_per_s": moved / middle / 1e9,
    }
