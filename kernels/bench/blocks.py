"""Benchmark cases and checks of the small operations of a decoder's step, in bf16.

Attention over a cache, RMS norm with its residual, SwiGLU: prepared once, then repeated, as in the
decode loop. Compared with torch's way of doing the same step.
"""

from collections.abc import Callable, Iterator

import torch

from kernels.bench.case import BenchCase, Contender, is_own, name_of, only, runnable
from kernels.kv_codes import KVFormat
from kernels.registry import KernelInfo

DTYPE = torch.bfloat16
TOLERANCE = 0.02
BASELINES = {"attention": "torch-sdpa", "rms_norm": "torch", "swiglu": "torch"}
EPS = 1e-5
# (rows, tokens in the cache or columns) of each case.
SIZES = {
    "attention": ((1, 128), (1, 1024), (8, 128)),
    "rms_norm": ((1, 576), (8, 576), (1, 4096)),
    "swiglu": ((1, 576), (8, 576), (1, 4096)),
}


def cases(op: str, device: str) -> Iterator[BenchCase]:
    """The cases of attention, rms_norm or swiglu, one at a time."""
    infos = runnable(op, device)
    wrong = {info: check(info, device) for info in infos}
    for rows, size in SIZES[op]:
        contenders = []
        for info in infos:
            torch.manual_seed(0)
            with only(info):
                step, _, moved = _step(info, rows, size, device)
            contenders.append(
                Contender(name_of(info), moved, step, own=is_own(info), wrong=wrong[info])
            )
        label = f"{size} tokens" if op == "attention" else str(size)
        yield BenchCase(op, label, rows, f"{op}={BASELINES[op]}", tuple(contenders))


def check(info: KernelInfo, device: str) -> str | None:
    """None when one prepared step agrees with torch's fp64 arithmetic on odd sizes."""
    for rows, size in ((1, 33), (3, 100)):
        torch.manual_seed(rows)
        with only(info):
            step, results, _ = _step(info, rows, size, device, exact=True)
        step()
        got, exact = results()
        error = ((got.cpu().double() - exact).abs() / (exact.abs() + 1)).max().item()
        if not error <= TOLERANCE:
            return (
                f"{name_of(info)} is off by {error:.3g} (allowed {TOLERANCE}) "
                f"from its reference at {rows} x {size}"
            )
    return None


def _step(
    info: KernelInfo, rows: int, size: int, device: str, exact: bool = False
) -> tuple[Callable[[], object], Callable[[], tuple[torch.Tensor, torch.Tensor]], int]:
    """The prepared step, (output, fp64 reference of it) after one step, and the bytes it moves."""
    if info.op == "attention":
        if "-kv" in info.name:
            return _attention_codes(rows, size, device, exact, int(info.name[-1]))
        return _attention(rows, size, device, exact)
    if info.op == "rms_norm":
        return _rms_norm(rows, size, device)
    return _swiglu(rows, size, device)


def _attention(
    rows: int, size: int, device: str, exact: bool
) -> tuple[Callable[[], object], Callable[[], tuple[torch.Tensor, torch.Tensor]], int]:
    from kernels import attention
    from kernels.attention import reference

    heads, kv_heads, dim = 9, 3, 64
    angles = torch.outer(torch.arange(size + 1.0), 1e4 ** -(torch.arange(dim / 2) * 2 / dim))
    fixed = attention.Heads(heads, kv_heads, dim, angles.cos().to(device), angles.sin().to(device))
    qkv = torch.randn(rows, 1, (heads + 2 * kv_heads) * dim, device=device, dtype=DTYPE)
    keys = torch.randn(rows, kv_heads, size + 1, dim, device=device, dtype=DTYPE)
    values = torch.randn_like(keys)
    out = torch.empty(rows, 1, heads * dim, device=device, dtype=DTYPE)
    wanted = reference.attention(qkv.cpu(), keys.cpu(), values.cpu(), size, fixed) if exact else out
    step = attention.prepare(qkv, keys, values, torch.full((rows,), size), fixed, out)
    return step, lambda: (out, wanted), keys.nbytes + values.nbytes + qkv.nbytes + out.nbytes


def _attention_codes(
    rows: int, size: int, device: str, exact: bool, bits: int
) -> tuple[Callable[[], object], Callable[[], tuple[torch.Tensor, torch.Tensor]], int]:
    """As `_attention`, over a cache in codes that attention itself filled."""
    from kernels.attention import Heads, quantized, reference
    from kernels.kv_codes.codes import allocate

    heads, kv_heads, dim, form = 9, 3, 64, KVFormat(bits, 32, 0)
    angles = torch.outer(torch.arange(size + 1.0), 1e4 ** -(torch.arange(dim / 2) * 2 / dim))
    fixed = Heads(heads, kv_heads, dim, angles.cos().to(device), angles.sin().to(device))
    text = torch.randn(rows, size + 1, (heads + 2 * kv_heads) * dim, device=device, dtype=DTYPE)
    cache = allocate(form, (rows, kv_heads), dim, size + 1, DTYPE, device)
    quantized.attention(text[:, :size], cache, 0, fixed)
    qkv = text[:, size:].contiguous()
    out = torch.empty(rows, 1, heads * dim, device=device, dtype=DTYPE)
    wanted = reference.quantized(text.cpu(), form, fixed)[:, size:] if exact else out
    step = quantized.prepare(qkv, cache, torch.full((rows,), size), fixed, out)
    moved = int(rows * kv_heads * form.read_bytes(dim, size + 1)) + qkv.nbytes + out.nbytes
    return step, lambda: (out, wanted), moved


def _rms_norm(
    rows: int, size: int, device: str
) -> tuple[Callable[[], object], Callable[[], tuple[torch.Tensor, torch.Tensor]], int]:
    from kernels import rms_norm
    from kernels.rms_norm import reference

    x = torch.randn(rows, size, device=device, dtype=DTYPE)
    delta = torch.randn_like(x)
    weight = torch.randn(size, device=device, dtype=DTYPE)
    out = torch.empty_like(x)
    step = rms_norm.prepare(x, weight, EPS, out, delta)
    # x holds the rounded sum after the step, so the reference starts from there.
    return (
        step,
        lambda: (out, reference.rms_norm(x.cpu().double(), weight.cpu().double(), EPS)),
        4 * x.nbytes + weight.nbytes,
    )


def _swiglu(
    rows: int, size: int, device: str
) -> tuple[Callable[[], object], Callable[[], tuple[torch.Tensor, torch.Tensor]], int]:
    from kernels import swiglu
    from kernels.swiglu import reference

    gate_up = torch.randn(rows, 2 * size, device=device, dtype=DTYPE)
    out = torch.empty(rows, size, device=device, dtype=DTYPE)
    step = swiglu.prepare(gate_up, out)
    return (
        step,
        lambda: (out, reference.swiglu(gate_up.cpu().double())),
        gate_up.nbytes + out.nbytes,
    )
