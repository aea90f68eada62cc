"""Attention over a cache: both kernels against one query at a time in float64."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from kernels import attention as op
from kernels import calls, registry
from kernels.attention import Heads, reference

TOLERANCE = {torch.float32: 3e-6, torch.bfloat16: 1.2e-2, torch.float16: 1.5e-3}
SHAPES = {
    "one token, groups of three": {"heads": 9, "kv_heads": 3, "dim": 64, "tokens": 1},
    "several tokens": {"heads": 6, "kv_heads": 2, "dim": 16, "tokens": 5},
    "a batch": {"heads": 4, "kv_heads": 2, "dim": 32, "tokens": 3, "batch": 3},
    "wide heads": {"heads": 2, "kv_heads": 1, "dim": 128, "tokens": 2},
    "odd half": {"heads": 3, "kv_heads": 3, "dim": 10, "tokens": 4},
    "smallest": {"heads": 1, "kv_heads": 1, "dim": 2, "tokens": 1},
    "norms on heads": {"heads": 4, "kv_heads": 2, "dim": 24, "tokens": 3, "norms": True},
    "window of four": {"heads": 4, "kv_heads": 2, "dim": 16, "tokens": 6, "window": 4},
    "window of one": {"heads": 2, "kv_heads": 2, "dim": 16, "tokens": 2, "window": 1},
    "empty cache": {"heads": 4, "kv_heads": 1, "dim": 16, "tokens": 3, "start": 0},
    "long cache": {"heads": 3, "kv_heads": 1, "dim": 64, "tokens": 1, "start": 900},
}


@pytest.fixture(autouse=True)
def _no_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(3)
    monkeypatch.delenv(registry.ENVIRONMENT, raising=False)


def make(
    dtype: torch.dtype,
    heads: int,
    kv_heads: int,
    dim: int,
    tokens: int,
    batch: int = 1,
    start: int = 7,
    window: int | None = None,
    norms: bool = False,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, int, Heads]:
    """Random input whose cache holds NaN where nothing may be read."""
    capacity = start + tokens + 3
    angles = torch.rand(capacity, dim // 2) * 6
    fixed = Heads(
        heads, kv_heads, dim, angles.cos(), angles.sin(), window=window, eps=1e-5,
        query_norm=torch.rand(dim).to(dtype) if norms else None,
        key_norm=torch.rand(dim).to(dtype) if norms else None,
    )  # fmt: skip
    qkv = torch.randn(batch, tokens, (heads + 2 * kv_heads) * dim).to(dtype)
    keys = torch.randn(batch, kv_heads, capacity, dim).to(dtype)
    values = torch.randn(batch, kv_heads, capacity, dim).to(dtype)
    keys[:, :, start:] = values[:, :, start:] = float("nan")
    if window is not None:
        unseen = max(0, start + 1 - window)
        keys[:, :, :unseen] = values[:, :, :unseen] = float("nan")
    return qkv, keys, values, start, fixed


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_bound_step_equals_the_reference(shape: str, dtype: torch.dtype, threads: int) -> None:
    qkv, keys, values, start, heads = make(dtype, **SHAPES[shape])
    want = reference.attention(qkv, keys.nan_to_num(), values.nan_to_num(), start, heads)
    out = torch.full(want.shape, float("nan"), dtype=dtype)
    position = torch.zeros(len(qkv), dtype=torch.int64)
    step = op.prepare(qkv, keys, values, position, heads, out)
    position.fill_(start)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        calls.reset()
        step()
    finally:
        torch.set_num_threads(before)
    assert calls.snapshot() == [{"op": "attention", "name": "cpp", "calls": 1}]
    assert (out.double() - want).abs().max() <= TOLERANCE[dtype] * want.abs().max()
    end = start + qkv.shape[1]
    assert keys[:, :, end:].isnan().all()
    assert keys[:, :, start:end].isfinite().all()


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_call_through_torch_equals_the_reference(shape: str, dtype: torch.dtype) -> None:
    qkv, keys, values, start, heads = make(dtype, **SHAPES[shape])
    keys, values = keys.nan_to_num(), values.nan_to_num()
    want = reference.attention(qkv, keys, values, start, heads)
    got = op.attention(qkv, keys, values, start, heads)
    assert (got.double() - want).abs().max() <= TOLERANCE[dtype] * want.abs().max()


@pytest.mark.parametrize("kernel", ["bound", "torch"])
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", [name for name in SHAPES if name != "long cache"])
@pytest.mark.parametrize("starts", [(0, 7, 3), (21, 1), (5, 5, 5), (0, 40, 39, 2, 11)])
def test_rows_at_positions_of_their_own_equal_the_reference(
    starts: tuple[int, ...], shape: str, dtype: torch.dtype, kernel: str
) -> None:
    batch, last = len(starts), max(starts)
    sizes = SHAPES[shape] | {"batch": batch, "start": last, "window": None}
    qkv, keys, values, _, heads = make(dtype, **sizes)
    heads = replace(heads, window=SHAPES[shape].get("window"))
    for cache in (keys, values):
        for row, start in enumerate(starts):
            # The torch kernel masks what lies behind a row's end, and 0 times NaN is NaN.
            cache[row, :, start:] = float("nan") if kernel == "bound" else 9.0
    want = torch.cat(
        [
            reference.attention(qkv[at], keys[at].nan_to_num(), values[at].nan_to_num(), one, heads)
            for at, one in ((slice(row, row + 1), start) for row, start in enumerate(starts))
        ]
    )
    start, end = torch.tensor(starts), last + qkv.shape[1]
    if kernel == "torch":
        keys, values = keys.nan_to_num(9.0), values.nan_to_num(9.0)
        out = op.attention(qkv, keys, values, start, heads)
    else:
        out = torch.full(want.shape, float("nan"), dtype=dtype)
        op.prepare(qkv, keys, values, start, heads, out)()
        for row, at in enumerate(starts):
            assert keys[row, :, at + qkv.shape[1] :].isnan().all()
    assert (out.double() - want).abs().max() <= TOLERANCE[dtype] * want.abs().max()
    assert end <= keys.shape[2]


def test_a_row_whose_tokens_do_not_fit_is_refused() -> None:
    qkv, keys, values, _, heads = make(torch.float32, **SHAPES["a batch"])
    for start in (torch.tensor([0, 11, 0]), torch.tensor([0, -1, 0])):
        with pytest.raises(ValueError, match="do not fit into the cache"):
            op.attention(qkv, keys, values, start, heads)
    with pytest.raises(ValueError, match=r"start must be int64 \[batch\] on the CPU"):
        op.attention(qkv, keys, values, torch.tensor([0]), heads)
    with pytest.raises(ValueError, match=r"start must be int64 \[batch\] on the CPU"):
        op.prepare(qkv, keys, values, torch.tensor([0]), heads, torch.empty(3, 3, 128))


def test_both_kernels_write_the_same_cache() -> None:
    qkv, keys, values, start, heads = make(torch.float32, **SHAPES["norms on heads"])
    keys, values = keys.nan_to_num(), values.nan_to_num()
    others = keys.clone(), values.clone()
    out = torch.empty(1, 3, 96)
    op.prepare(qkv, keys, values, torch.tensor([start]), heads, out)()
    op.attention(qkv, *others, start, heads)
    torch.testing.assert_close(keys, others[0], rtol=1e-5, atol=1e-6)
    assert torch.equal(values, others[1])


def test_huge_scores_neither_overflow_nor_vanish() -> None:
    qkv, keys, values, start, heads = make(torch.float32, **SHAPES["several tokens"])
    qkv, keys = qkv * 1e3, keys.nan_to_num() * 1e3
    values = values.nan_to_num()
    want = reference.attention(qkv, keys, values, start, heads)
    out = torch.empty(1, 5, 96)
    op.prepare(qkv, keys, values, torch.tensor([start]), heads, out)()
    assert out.isfinite().all()
    assert (out.double() - want).abs().max() <= 1e-3 * want.abs().max()


def test_shapes_that_do_not_fit_are_refused() -> None:
    qkv, keys, values, start, heads = make(torch.float32, **SHAPES["several tokens"])
    out = torch.empty(1, 5, 96)
    with pytest.raises(ValueError, match=r"qkv must be \[batch, tokens, 160\]"):
        op.attention(qkv[..., 1:], keys, values, start, heads)
    with pytest.raises(ValueError, match="do not fit into the cache"):
        op.attention(qkv, keys, values, 11, heads)
    with pytest.raises(ValueError, match="out must be"):
        op.prepare(qkv, keys, values, torch.tensor([0]), heads, out[:, 1:])
    with pytest.raises(ValueError, match="share one dtype"):
        op.attention(qkv, keys.double(), values, start, heads)
    with pytest.raises(ValueError, match="keys must be"):
        op.attention(qkv, keys[:, :1], values, start, heads)
