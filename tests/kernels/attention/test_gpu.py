"""The Triton kernels of attention over 16-bit keys and values against one query at a time in
float64: in Triton's interpreter, and on a GPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor

from kernels import calls, cuda
from kernels.attention import Heads, reference
from tests.kernels import interpreter

# Triton's interpreter cuts fp32 off to bf16 where a GPU rounds.
TOLERANCE = {torch.float32: 3e-6, torch.bfloat16: 1.6e-2, torch.float16: 2e-3}
SHAPES: dict[str, dict[str, Any]] = {
    "one token": {
        "heads": 9, "kv_heads": 3, "dim": 64, "tokens": 1, "starts": (7,), "also": "float32",
    },
    "five tokens, norms, rows of their own": {
        "heads": 6, "kv_heads": 2, "dim": 24, "tokens": 5, "starts": (0, 70, 33), "norms": True,
        "processors": 8, "also": "float16",
    },
    "window of nine": {
        "heads": 4, "kv_heads": 1, "dim": 40, "tokens": 2, "starts": (100, 0, 64), "window": 9,
        "processors": 2,
    },
    "window over tiles": {
        "heads": 4, "kv_heads": 2, "dim": 80, "tokens": 1, "starts": (63, 64, 200), "window": 70,
        "processors": 40,
    },
    "window of one": {
        "heads": 2, "kv_heads": 2, "dim": 10, "tokens": 3, "starts": (5,), "window": 1,
    },
    "many heads a group": {"heads": 40, "kv_heads": 1, "dim": 16, "tokens": 3, "starts": (20,)},
    "wide heads, many parts": {
        "heads": 2, "kv_heads": 1, "dim": 256, "tokens": 1, "starts": (130,), "processors": 40,
    },
}  # fmt: skip
# Only on a GPU: too much for the interpreter.
LARGE: dict[str, dict[str, Any]] = {
    "8B, one row": {"heads": 32, "kv_heads": 8, "dim": 128, "tokens": 1, "starts": (4000,)},
    "8B, 16 tokens": {"heads": 32, "kv_heads": 8, "dim": 128, "tokens": 16, "starts": (190, 0)},
    "64 rows": {
        "heads": 4, "kv_heads": 1, "dim": 64, "tokens": 1, "starts": tuple(range(0, 320, 5)),
    },
}  # fmt: skip


def dtypes(device: str, also: str | None) -> list[torch.dtype]:
    """All in the interpreter; on a GPU, where each takes seconds to compile, bf16 and `also`."""
    if device == "cpu":
        return list(TOLERANCE)
    return [torch.bfloat16, *([getattr(torch, also)] if also else [])]


@contextmanager
def processors(count: int | None) -> Iterator[None]:
    """As on a device with so many multiprocessors, which the split of the context follows, with
    parts of one tile; None: as it is.
    """
    if count is None:
        yield
        return
    from kernels.attention import gpu

    with (
        mock.patch.object(cuda, "processors", return_value=count),
        mock.patch.object(gpu, "PART_TILES", 1),
    ):
        yield


def make(
    dtype: torch.dtype,
    heads: int,
    kv_heads: int,
    dim: int,
    tokens: int,
    starts: tuple[int, ...],
    window: int | None = None,
    norms: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Heads]:
    """Random input whose cache holds NaN where nothing may be read; an odd capacity."""
    capacity = max(starts) + tokens + 3
    angles = torch.rand(capacity, dim // 2) * 6
    fixed = Heads(
        heads, kv_heads, dim, angles.cos(), angles.sin(), window=window, eps=1e-5,
        query_norm=torch.rand(dim).to(dtype) if norms else None,
        key_norm=torch.rand(dim).to(dtype) if norms else None,
    )  # fmt: skip
    qkv = torch.randn(len(starts), tokens, (heads + 2 * kv_heads) * dim).to(dtype)
    keys, values = (torch.randn(len(starts), kv_heads, capacity, dim).to(dtype) for _ in range(2))
    for cache in (keys, values):
        for row, start in enumerate(starts):
            cache[row, :, start:] = float("nan")
            if window is not None:
                cache[row, :, : max(0, start + 1 - window)] = float("nan")
    return qkv, keys, values, fixed


def moved(heads: Heads, device: str) -> Heads:
    """The same with its tensors on a device."""
    tensors = {name: value.to(device) for name, value in vars(heads).items()
               if isinstance(value, Tensor)}  # fmt: skip
    return replace(heads, **tensors)


def wanted(
    qkv: Tensor, keys: Tensor, values: Tensor, starts: tuple[int, ...], heads: Heads
) -> Tensor:
    """The reference row by row."""
    return torch.cat(
        [
            reference.attention(
                qkv[at], keys[at].nan_to_num(), values[at].nan_to_num(), start, heads
            )
            for at, start in ((slice(row, row + 1), start) for row, start in enumerate(starts))
        ]
    )


def bound(device: str, sizes: dict[str, Any]) -> None:
    """A bound step is right, appends where it should and reads nothing else."""
    from kernels.attention import gpu

    torch.manual_seed(3)
    sizes = dict(sizes)
    count, also = sizes.pop("processors", None), sizes.pop("also", None)
    for dtype in dtypes(device, also):
        tolerance = TOLERANCE[dtype]
        qkv, keys, values, heads = make(dtype, **sizes)
        starts = sizes["starts"]
        want = wanted(qkv, keys, values, starts, heads)
        here = [tensor.to(device) for tensor in (qkv, keys, values)]
        out = torch.full(want.shape, float("nan"), dtype=dtype, device=device)
        start = torch.zeros(len(starts), dtype=torch.int64, device=device)
        calls.reset()
        with processors(count):
            step = gpu.prepare(*here, start, moved(heads, device), out)
        start.copy_(torch.tensor(starts))
        for _ in range(2):
            out.fill_(float("nan"))
            step()
            off = (out.cpu().double() - want).abs().max() / want.abs().max()
            assert off <= tolerance, (dtype, off)
        assert calls.snapshot() == [{"op": "attention", "name": "triton", "calls": 2}]
        for cache, before in ((here[1].cpu(), keys), (here[2].cpu(), values)):
            for row, at in enumerate(starts):
                end = at + qkv.shape[1]
                assert cache[row, :, at:end].isfinite().all()
                assert cache[row, :, end:].isnan().all()
                assert torch.equal(
                    cache[row, :, :at].nan_to_num(), before[row, :, :at].nan_to_num()
                )


def start_on_the_host(device: str) -> None:
    """A start on the CPU is read at each call, wherever the kernels run."""
    from kernels.attention import gpu

    torch.manual_seed(4)
    qkv, keys, values, heads = make(torch.float32, 2, 1, 16, 1, (3, 9))
    out = torch.empty(2, 1, 32, device=device)
    start = torch.zeros(2, dtype=torch.int64)
    here = [tensor.to(device) for tensor in (qkv, keys, values)]
    step = gpu.prepare(*here, start, moved(heads, device), out)
    start.copy_(torch.tensor((3, 9)))
    step()
    want = wanted(qkv, keys, values, (3, 9), heads)
    assert (out.cpu().double() - want).abs().max() <= 3e-6 * want.abs().max()


def huge_scores(device: str) -> None:
    """Neither overflow nor vanish, in one part and in several."""
    from kernels.attention import gpu

    torch.manual_seed(3)
    qkv, keys, values, heads = make(torch.float32, 4, 2, 16, 2, (150,))
    qkv, keys = qkv * 1e3, keys * 1e3
    want = wanted(qkv, keys, values, (150,), heads)
    for count in (1, 8):
        out = torch.empty(1, 2, 64, device=device)
        here = [tensor.clone().to(device) for tensor in (qkv, keys, values)]
        with processors(count):
            gpu.prepare(*here, torch.tensor([150]), moved(heads, device), out)()
        assert out.isfinite().all()
        assert (out.cpu().double() - want).abs().max() <= 2e-3 * want.abs().max()


def same_keys_as_torch(device: str) -> None:
    """Without norms the cache is that of torch-sdpa bit for bit."""
    from kernels.attention import gpu, sdpa

    torch.manual_seed(5)
    for dtype in (torch.float32, torch.float16):
        qkv, keys, values, heads = make(dtype, 4, 2, 24, 3, (5, 40))
        start, fixed = torch.tensor((5, 40)).to(device), moved(heads, device)
        out = torch.empty(2, 3, 96, dtype=dtype, device=device)
        caches = []
        for kernel in (gpu, sdpa):
            here = [tensor.nan_to_num(0).to(device) for tensor in (qkv, keys, values)]
            kernel.prepare(*here, start, fixed, out)()
            caches.append(here[1:])
        for own, other in zip(*caches, strict=True):
            assert torch.equal(own, other), dtype


CASES: interpreter.Cases = {
    **{name: partial(bound, sizes=sizes) for name, sizes in SHAPES.items()},
    "start on the host": start_on_the_host,
    "huge scores": huge_scores,
    "same keys as torch": same_keys_as_torch,
}


@pytest.fixture(scope="module")
def interpreted() -> dict[str, str]:
    pytest.importorskip("triton")
    return interpreter.failures("tests.kernels.attention.test_gpu")


@pytest.mark.parametrize("case", CASES)
def test_it_is_right_in_the_interpreter(case: str, interpreted: dict[str, str]) -> None:
    assert interpreted[case] == ""


@pytest.mark.parametrize(
    ("rows", "batch", "kv_heads", "capacity", "window", "parts"),
    [
        (1, 1, 8, 8192, None, 32),
        (1, 1, 8, 1 << 15, None, 33),
        (1, 64, 8, 8192, None, 1),
        (1, 8, 8, 8192, None, 4),
        (1, 1, 8, 256, None, 1),
        (1, 1, 8, 8192, 500, 2),
        (1, 1, 1, 1 << 17, None, 128),
    ],
)
def test_the_context_is_split_over_the_device_and_not_too_fine(
    rows: int, batch: int, kv_heads: int, capacity: int, window: int | None, parts: int
) -> None:
    gpu = pytest.importorskip("kernels.attention.gpu")
    heads = Heads(4 * kv_heads, kv_heads, 128, torch.ones(1), torch.ones(1), window=window)
    qkv = torch.empty(batch, rows, 1, dtype=torch.bfloat16)
    with mock.patch.object(cuda, "processors", return_value=132):
        assert gpu.tiles(qkv, heads, rows, 64, 128, capacity).parts == parts


def test_heads_that_are_too_wide_are_refused() -> None:
    gpu = pytest.importorskip("kernels.attention.gpu")
    for dim in (7, 640):
        with pytest.raises(gpu.KernelUnavailable, match=f"not {dim}; name others"):
            gpu.tile_width(dim)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("case", [*CASES, *LARGE])
def test_it_is_right_on_a_gpu(case: str) -> None:
    if case in LARGE:
        bound("cuda", LARGE[case])
    else:
        CASES[case]("cuda")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kernel", ["gpu", "sdpa"])
def test_a_captured_step_reads_the_start_of_each_replay_on_a_gpu(kernel: str) -> None:
    import importlib

    torch.manual_seed(6)
    module = importlib.import_module(f"kernels.attention.{kernel}")
    qkv, keys, values, heads = make(torch.bfloat16, 8, 2, 64, 1, (300, 300))
    here = [tensor.nan_to_num(0).cuda() for tensor in (qkv, keys, values)]
    out, start = torch.empty(2, 1, 512, dtype=torch.bfloat16).cuda(), torch.zeros(2).long().cuda()
    step = module.prepare(*here, start, moved(heads, "cuda"), out)
    step()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    for starts in ((300, 0), (17, 299), (64, 63)):
        start.copy_(torch.tensor(starts))
        want = wanted(qkv, here[1].cpu(), here[2].cpu(), starts, heads)
        graph.replay()
        assert (out.cpu().double() - want).abs().max() <= 1.6e-2 * want.abs().max()
