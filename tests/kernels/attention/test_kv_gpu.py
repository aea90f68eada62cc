"""The Triton kernels of attention over codes against kv_torch and float64: in Triton's interpreter,
and on a GPU.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from kernels import calls
from kernels.attention import Heads, kv_torch, reference
from kernels.kv_codes import KVFormat
from kernels.kv_codes.codes import KVCodes, allocate
from tests.kernels import interpreter
from tests.kernels.attention.test_gpu import dtypes, moved, processors

# Triton's interpreter cuts fp32 off to bf16 where a GPU rounds.
TOLERANCE = {torch.float32: 3e-6, torch.bfloat16: 1.6e-2, torch.float16: 3e-3}
# Rows of which some complete a block and some do not.
SHAPES: dict[str, dict[str, Any]] = {
    "groups of three": {
        "heads": 6, "kv_heads": 2, "dim": 64, "tokens": 1, "starts": (68, 0, 69),
        "format": (4, 32, 6), "processors": 8, "also": "float32",
    },
    "a short last group of channels": {
        "heads": 4, "kv_heads": 1, "dim": 80, "tokens": 5, "starts": (95, 33, 60),
        "format": (2, 32, 0), "processors": 2, "also": "float16",
    },
    "narrow heads, norms, window over a block": {
        "heads": 4, "kv_heads": 2, "dim": 24, "tokens": 2, "starts": (98, 7), "window": 70,
        "norms": True, "format": (8, 32, 5), "processors": 40,
    },
    "window in the ring": {
        "heads": 2, "kv_heads": 1, "dim": 40, "tokens": 5, "starts": (90, 3), "window": 7,
        "format": (4, 64, 0),
    },
    "large groups": {
        "heads": 2, "kv_heads": 1, "dim": 128, "tokens": 2, "starts": (127,),
        "format": (8, 64, 1), "processors": 8,
    },
    "nothing in codes yet": {
        "heads": 2, "kv_heads": 1, "dim": 16, "tokens": 3, "starts": (9, 0), "format": (2, 32, 32),
    },
    "many heads a group": {
        "heads": 40, "kv_heads": 1, "dim": 16, "tokens": 2, "starts": (69,), "format": (2, 64, 5),
    },
}  # fmt: skip
# Only on a GPU: too much for the interpreter.
LARGE: dict[str, dict[str, Any]] = {
    f"8B, {bits} bit, {tokens} tokens": {
        "heads": 32, "kv_heads": 8, "dim": 128, "tokens": tokens, "starts": (380, 65),
        "format": (bits, 32, 32),
    }
    for bits in (8, 4, 2)
    for tokens in (1, 16)
}  # fmt: skip


def make(
    dtype: torch.dtype,
    heads: int,
    kv_heads: int,
    dim: int,
    tokens: int,
    starts: tuple[int, ...],
    window: int | None = None,
    norms: bool = False,
) -> tuple[Tensor, Heads]:
    """Random tokens from position 0 on. Quarter turns make rotated keys exact, so that codes are
    the same numbers in every arithmetic.
    """
    total = max(starts) + tokens
    angles = torch.randint(0, 4, (total, dim // 2)) * (torch.pi / 2)
    fixed = Heads(
        heads, kv_heads, dim, angles.cos().round(), angles.sin().round(), window=window, eps=1e-5,
        query_norm=torch.rand(dim).to(dtype) if norms else None,
        key_norm=torch.rand(dim).to(dtype) if norms else None,
    )  # fmt: skip
    return torch.randn(len(starts), total, (heads + 2 * kv_heads) * dim).to(dtype), fixed


def filled(
    form: KVFormat, text: Tensor, starts: tuple[int, ...], capacity: int, heads: Heads
) -> KVCodes:
    """A cache on the CPU that holds each row's first tokens, and NaN where nothing may be read."""
    cache = allocate(form, (len(text), heads.kv_heads), heads.dim, capacity, text.dtype)
    for tensor in (cache.keys, cache.values, cache.key_scale, cache.value_scale):
        tensor.fill_(float("nan"))
    for row, start in enumerate(starts):
        if start:
            at = slice(row, row + 1)
            out = text.new_empty(1, start, heads.heads * heads.dim)
            kv_torch.run(text[at, :start], cache.rows(at), 0, heads, out)
    return cache


def on(cache: KVCodes, device: str) -> KVCodes:
    """A copy."""
    tensors = (tensor.clone().to(device) for tensor in cache.tensors())
    return KVCodes(cache.format, cache.capacity, *tensors)


def same(own: KVCodes, other: KVCodes) -> list[bool]:
    """Tensor by tensor; every NaN is one."""
    return [
        torch.equal(a.cpu().nan_to_num(7), b.nan_to_num(7))
        for a, b in zip(own.tensors(), other.tensors(), strict=True)
    ]


def exact(text: Tensor, form: KVFormat, starts: tuple[int, ...], heads: Heads) -> Tensor:
    """What float64 makes of each row's tokens from its start on, as many as fit the shortest."""
    tokens = text.shape[1] - max(starts)
    rows = [
        reference.quantized(text[row : row + 1, : at + tokens], form, heads)[:, at:]
        for row, at in enumerate(starts)
    ]
    return torch.cat(rows)


def bound(device: str, sizes: dict[str, Any]) -> None:
    """A bound step gives what float64 and kv_torch give, and leaves the same bytes."""
    from kernels.attention import kv_gpu

    torch.manual_seed(3)
    sizes = dict(sizes)
    form, count = KVFormat(*sizes.pop("format")), sizes.pop("processors", None)
    also, slow = sizes.pop("also", None), sizes["heads"] * max(sizes["starts"]) > 5000
    starts, tokens = sizes["starts"], sizes["tokens"]
    for dtype in dtypes(device, also):
        tolerance = TOLERANCE[dtype]
        text, heads = make(dtype, **sizes)
        qkv = torch.stack([text[row, at : at + tokens] for row, at in enumerate(starts)])
        theirs = filled(form, text, starts, text.shape[1] + 5, heads)
        mine = on(theirs, device)
        torchs = torch.empty(len(starts), tokens, heads.heads * heads.dim, dtype=dtype)
        kv_torch.run(qkv, theirs, torch.tensor(starts), heads, torchs)
        out = torch.full(torchs.shape, float("nan"), dtype=dtype, device=device)
        start = torch.zeros(len(starts), dtype=torch.int64, device=device)
        calls.reset()
        with processors(count):
            step = kv_gpu.prepare(qkv.to(device), mine, start, moved(heads, device), out)
        start.copy_(torch.tensor(starts))
        step()
        assert calls.snapshot() == [
            {"op": "attention", "name": f"triton-kv{form.bits}", "calls": 1}
        ]
        # Norms are summed in another order: a code may be the next one.
        allowed = max(tolerance, 1.6e-2) if heads.key_norm is not None else tolerance
        # The reference takes minutes for a large case.
        for want in (torchs,) if slow else (torchs, exact(text, form, starts, heads)):
            off = (out.cpu().double() - want.double()).abs().max() / want.abs().max()
            assert off <= allowed, (dtype, off)
        if heads.key_norm is None:
            assert all(same(mine, theirs)), (dtype, same(mine, theirs))


def prompt(device: str) -> None:
    """A prompt in passes leaves the bytes and the result of kv_torch; half a pass at its end."""
    from kernels.attention import kv_gpu

    torch.manual_seed(5)
    text, heads = make(torch.float32, 3, 1, 16, 40, (0, 0))
    form = KVFormat(4, 32, 0)
    want, theirs = torch.empty(2, 40, 48), filled(form, text, (0, 0), 50, heads)
    kv_torch.run(text, theirs, 0, heads, want)
    mine = on(filled(form, text, (0, 0), 50, heads), device)
    out = torch.full((2, 40, 48), float("nan"), device=device)
    kv_gpu.run(text.to(device), mine, 0, moved(heads, device), out)
    assert all(same(mine, theirs))
    assert (out.cpu() - want).abs().max() <= 3e-6 * want.abs().max()


def hostile(device: str) -> None:
    """Constants, numbers beyond fp16, NaN and infinities become the codes of kv_torch."""
    from kernels.attention import kv_gpu

    torch.manual_seed(6)
    for bits in (8, 2):
        text, heads = make(torch.float32, 1, 1, 40, 1, (31,))
        # Keys are channels 40 to 79, values 80 to 119; some columns, some rows.
        text[0, :, 45] = 3.25
        text[0, :, 46] *= 1e6
        text[0, :, 47] *= 1e-7
        text[0, 3, 48], text[0, 4, 49], text[0, 5, 50] = float("nan"), float("inf"), -float("inf")
        text[0, 7, 80:] = -2.5
        text[0, 8, 80:] *= 1e6
        text[0, 9, 85], text[0, 10, 86], text[0, 11, 118] = float("nan"), float("inf"), 1e30
        text[0, 12, 81], text[0, 12, 82] = float("inf"), -float("inf")
        form = KVFormat(bits, 32, 0)
        heads = Heads(1, 1, 40, torch.ones(32, 20), torch.zeros(32, 20))
        theirs = filled(form, text, (31,), 40, heads)
        mine = on(theirs, device)
        out = torch.empty(1, 1, 40)
        kv_torch.run(text[:, 31:], theirs, 31, heads, out)
        start = torch.tensor([31], device=device)
        last = text[:, 31:].contiguous().to(device)
        kv_gpu.prepare(last, mine, start, moved(heads, device), out.to(device))()
        assert all(same(mine, theirs)), same(mine, theirs)


CASES: interpreter.Cases = {
    **{name: partial(bound, sizes=sizes) for name, sizes in SHAPES.items()},
    "prompt": prompt,
    "hostile": hostile,
}


@pytest.fixture(scope="module")
def interpreted() -> dict[str, str]:
    pytest.importorskip("triton")
    return interpreter.failures("tests.kernels.attention.test_kv_gpu")


@pytest.mark.parametrize("case", CASES)
def test_it_is_right_in_the_interpreter(case: str, interpreted: dict[str, str]) -> None:
    assert interpreted[case] == ""


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
def test_a_captured_step_goes_on_through_a_block_on_a_gpu() -> None:
    from kernels.attention import kv_gpu

    torch.manual_seed(7)
    text, heads = make(torch.bfloat16, 8, 2, 64, 40, (50, 0))
    form = KVFormat(4, 32, 8)
    theirs = filled(form, text, (50, 0), 100, heads)
    mine = on(theirs, "cuda")
    qkv = text[:, :1].contiguous().cuda()
    out, start = torch.empty(2, 1, 512, dtype=torch.bfloat16).cuda(), torch.zeros(2).long().cuda()
    step = kv_gpu.prepare(qkv, mine, start, moved(heads, "cuda"), out)
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
    for new, old in zip(mine.tensors(), on(theirs, "cuda").tensors(), strict=True):
        new.copy_(old)
    want = torch.empty(2, 1, 512, dtype=torch.bfloat16)
    for turn in range(40):
        starts = torch.tensor((50 + turn, turn))
        tokens = torch.stack((text[0, 50 + turn], text[1, turn]))[:, None]
        kv_torch.run(tokens, theirs, starts, heads, want)
        qkv.copy_(tokens)
        start.copy_(starts)
        graph.replay()
        assert (out.cpu().double() - want.double()).abs().max() <= 1.6e-2 * want.abs().max()
    assert all(same(mine, theirs))
