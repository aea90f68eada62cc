"""Attention over keys and values in codes: both kernels against plain float64 over what the codes
mean, whatever the passes are.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from kernels import attention as op
from kernels import calls, registry
from kernels.attention import Heads, kv_cpu, kv_torch, quantized, reference
from kernels.kv_codes import BITS, PASS_TOKENS, KVFormat
from kernels.kv_codes.codes import KVCodes, allocate, encode_keys, encode_values

TOLERANCE = {torch.float32: 3e-6, torch.bfloat16: 1.2e-2}
SHAPES: dict[str, dict[str, Any]] = {
    "groups of three": {"heads": 6, "kv_heads": 2, "dim": 64, "tokens": 133},
    "a batch, narrow heads": {"heads": 3, "kv_heads": 3, "dim": 10, "tokens": 100, "batch": 2},
    "wide heads": {"heads": 2, "kv_heads": 1, "dim": 128, "tokens": 99},
    "a short last group of channels": {"heads": 4, "kv_heads": 1, "dim": 80, "tokens": 99},
    "norms on heads": {"heads": 2, "kv_heads": 2, "dim": 24, "tokens": 99, "norms": True},
    "window over a block": {"heads": 4, "kv_heads": 2, "dim": 16, "tokens": 130, "window": 70},
    "window in the ring": {"heads": 2, "kv_heads": 1, "dim": 16, "tokens": 100, "window": 7},
    "smallest": {"heads": 1, "kv_heads": 1, "dim": 2, "tokens": 65},
    "many heads a group": {"heads": 40, "kv_heads": 1, "dim": 16, "tokens": 97},
}
FORMATS = {
    "g32": {"group_size": 32, "residual": 32},
    "g64, nothing in 16 bit": {"group_size": 64, "residual": 0},
    "g32, odd residual": {"group_size": 32, "residual": 5},
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
    window: int | None = None,
    norms: bool = False,
) -> tuple[Tensor, Heads]:
    """Random input. Quarter turns make rotated keys exact, so that codes are the same numbers in
    every arithmetic; bf16 with norms and any angle is allowed a code more or less.
    """
    angles = torch.randint(0, 4, (tokens, dim // 2)) * (torch.pi / 2)
    cos, sin = angles.cos().round(), angles.sin().round()
    if norms:
        cos, sin = (angles + 0.3).cos(), (angles + 0.3).sin()
    fixed = Heads(
        heads, kv_heads, dim, cos, sin, window=window, eps=1e-5,
        query_norm=torch.rand(dim).to(dtype) if norms else None,
        key_norm=torch.rand(dim).to(dtype) if norms else None,
    )  # fmt: skip
    return torch.randn(batch, tokens, (heads + 2 * kv_heads) * dim).to(dtype), fixed


def cache_of(form: KVFormat, qkv: Tensor, heads: Heads, capacity: int = 0) -> KVCodes:
    """An empty cache whose ring holds NaN where nothing may be read."""
    capacity = capacity or qkv.shape[1]
    made = allocate(form, (qkv.shape[0], heads.kv_heads), heads.dim, capacity, qkv.dtype)
    made.keys.fill_(float("nan"))
    made.values.fill_(float("nan"))
    return made


def stepped(
    qkv: Tensor, cache: KVCodes, heads: Heads, sizes: tuple[int, ...], isa: int = 2
) -> Tensor:
    """As many bound passes of these sizes in turn as the tokens need."""
    outs, at, turn = [], 0, 0
    start = torch.zeros(len(qkv), dtype=torch.int64)
    while at < qkv.shape[1]:
        part = qkv[:, at : at + sizes[turn % len(sizes)]].contiguous()
        out = part.new_full((*part.shape[:2], heads.heads * heads.dim), float("nan"))
        start.fill_(at)
        kv_cpu.prepare(part, cache, start, heads, out, isa)()
        outs.append(out)
        at, turn = at + part.shape[1], turn + 1
    return torch.cat(outs, dim=1)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_prompt_equals_the_reference(shape: str, dtype: torch.dtype, bits: int) -> None:
    qkv, heads = make(dtype, **SHAPES[shape])
    form = KVFormat(bits)
    want = reference.quantized(qkv, form, heads)
    tolerance = TOLERANCE[torch.bfloat16 if SHAPES[shape].get("norms") else dtype]
    calls.reset()
    got = quantized.attention(qkv, cache_of(form, qkv, heads), 0, heads)
    passes = -(-qkv.shape[1] // PASS_TOKENS)
    assert calls.snapshot() == [{"op": "attention", "name": f"cpp-kv{bits}", "calls": passes}]
    assert (got.double() - want).abs().max() <= tolerance * want.abs().max()
    other = torch.empty_like(got)
    kv_torch.run(qkv, cache_of(form, qkv, heads), 0, heads, other)
    assert (other.double() - want).abs().max() <= tolerance * want.abs().max()


@pytest.mark.parametrize("kernel", ["bound", "call", "torch"])
@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("starts", [(0, 64, 7), (95, 33), (31, 32, 90, 1)])
def test_rows_at_positions_of_their_own_equal_the_reference(
    starts: tuple[int, ...], bits: int, kernel: str
) -> None:
    form, tokens = KVFormat(bits, 32, 5), 9
    for name in ("groups of three", "a short last group of channels"):
        sizes = SHAPES[name] | {"batch": len(starts), "tokens": max(starts) + tokens}
        text, heads = make(torch.float32, **sizes)
        cache = cache_of(form, text, heads)
        qkv, want = [], []
        for row, at in enumerate(starts):
            one = slice(row, row + 1)
            if at:
                quantized.attention(text[one, :at], cache.rows(one), 0, heads)
            qkv.append(text[one, at : at + tokens])
            want.append(reference.quantized(text[one, : at + tokens], form, heads)[:, at:])
        read, start = torch.cat(qkv), torch.tensor(starts)
        out = torch.full_like(torch.cat(want).float(), float("nan"))
        if kernel == "torch":
            kv_torch.run(read, cache, start, heads, out)
        elif kernel == "call":
            out = quantized.attention(read, cache, start, heads)
        else:
            quantized.prepare(read, cache, start, heads, out)()
        expected = torch.cat(want)
        assert (out.double() - expected).abs().max() <= 3e-6 * expected.abs().max()


@pytest.mark.parametrize("isa", [0, 1, 2])
@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("form", FORMATS)
def test_every_instruction_set_keeps_the_same_codes_and_equals_the_reference(
    form: str, bits: int, isa: int
) -> None:
    made = KVFormat(bits, **FORMATS[form])
    for shape in ("groups of three", "a short last group of channels"):
        qkv, heads = make(torch.float32, **SHAPES[shape])
        mine, theirs = (cache_of(made, qkv, heads) for _ in range(2))
        got = stepped(qkv, mine, heads, (16,), isa)
        want = reference.quantized(qkv, made, heads)
        assert (got.double() - want).abs().max() <= 3e-6 * want.abs().max()
        kv_torch.run(qkv, theirs, 0, heads, torch.empty_like(got))
        for own, other in zip(mine.tensors(), theirs.tensors(), strict=True):
            assert torch.equal(own.nan_to_num(7), other.nan_to_num(7))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("form", FORMATS)
def test_any_cut_into_passes_gives_exactly_the_prompts_result(
    form: str, dtype: torch.dtype, threads: int
) -> None:
    made = KVFormat(4, **FORMATS[form])
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for shape in ("groups of three", "a batch, narrow heads", "window over a block"):
            qkv, heads = make(dtype, **SHAPES[shape])
            whole = quantized.attention(qkv, cache_of(made, qkv, heads), 0, heads)
            for sizes in ((1,), (3, 16, 7)):
                parts = stepped(qkv, cache_of(made, qkv, heads), heads, sizes)
                assert torch.equal(parts, whole)
    finally:
        torch.set_num_threads(before)


def test_the_codes_are_those_of_the_ring_when_the_block_is_complete() -> None:
    form = KVFormat(4, 32, 8)
    qkv, heads = make(torch.bfloat16, 4, 2, 20, 41)
    cache = cache_of(form, qkv, heads)
    quantized.attention(qkv[:, :39], cache, 0, heads)
    assert not cache.key_codes.any()
    keys, values = cache.keys[:, :, :32].clone(), cache.values[:, :, :32].clone()
    quantized.attention(qkv[:, 39:], cache, 39, heads)
    for kept, made in (
        ((cache.key_codes, cache.key_scale), encode_keys(keys, form)),
        ((cache.value_codes, cache.value_scale), encode_values(values, form)),
    ):
        assert torch.equal(kept[0][:, :, 0], made[0])
        assert torch.equal(kept[1][:, :, 0], made[1])


def test_nothing_old_is_read_in_16_bit() -> None:
    form = KVFormat(2, 32, 0)
    qkv, heads = make(torch.float32, 2, 1, 16, 64)
    cache = cache_of(form, qkv, heads, capacity=200)
    quantized.attention(qkv[:, :63], cache, 0, heads)
    # Slots 16 to 31 of 48 hold the tokens of these numbers, which are codes since token 31.
    cache.keys[:, :, 16:32] = cache.values[:, :, 16:32] = float("nan")
    out = quantized.attention(qkv[:, 63:], cache, 63, heads)
    assert out.isfinite().all()
    cache.key_scale[:, :, 0] = float("nan")
    again = quantized.attention(qkv[:, 63:], cache, 63, heads)
    assert again.isnan().any()


def test_fewer_bits_are_further_from_exact_attention() -> None:
    qkv, heads = make(torch.float32, **SHAPES["groups of three"])
    shape = (1, heads.kv_heads, qkv.shape[1], heads.dim)
    exact = op.attention(qkv, torch.zeros(shape), torch.zeros(shape), 0, heads)
    errors = []
    for bits in BITS:
        cache = cache_of(KVFormat(bits, 32, 0), qkv, heads)
        errors.append(float((quantized.attention(qkv, cache, 0, heads) - exact).pow(2).mean()))
    assert 0 < errors[0] * 30 < errors[1]
    assert errors[1] * 5 < errors[2]


def test_a_constant_a_zero_and_a_huge_cache_are_attended_to() -> None:
    for value in (0.0, 3.0, 60000.0):
        qkv, heads = make(torch.float32, 2, 1, 16, 80)
        qkv[..., 32:] = value
        want = reference.quantized(qkv, KVFormat(4), heads)
        got = quantized.attention(qkv, cache_of(KVFormat(4), qkv, heads), 0, heads)
        assert (got.double() - want).abs().max() <= 1e-5 * max(value, 1.0)


def test_a_number_that_is_none_shows_in_the_result() -> None:
    qkv, heads = make(torch.float32, 2, 1, 16, 80)
    qkv[0, 3, 50] = float("inf")
    out = quantized.attention(qkv, cache_of(KVFormat(4), qkv, heads), 0, heads)
    assert out[0, :3].isfinite().all()
    assert out[0, 70:].isnan().any(dim=-1).all()


def test_a_kernel_named_for_another_width_is_no_silent_choice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    qkv, heads = make(torch.float32, 2, 1, 16, 40)
    cache = cache_of(KVFormat(4), qkv, heads)
    monkeypatch.setenv(registry.ENVIRONMENT, "attention=torch-kv4")
    calls.reset()
    quantized.attention(qkv, cache, 0, heads)
    assert calls.snapshot() == [{"op": "attention", "name": "torch-kv4", "calls": 1}]
    monkeypatch.setenv(registry.ENVIRONMENT, "attention=cpp-kv8")
    with pytest.raises(registry.KernelUnavailable, match="cpp-kv8 takes int8"):
        quantized.attention(qkv, cache, 0, heads)


def test_half_precision_runs_through_torch() -> None:
    qkv, heads = make(torch.float16, 2, 1, 16, 70)
    want = reference.quantized(qkv, KVFormat(4), heads)
    calls.reset()
    got = quantized.attention(qkv, cache_of(KVFormat(4), qkv, heads), 0, heads)
    assert [one["name"] for one in calls.snapshot()] == ["torch-kv4"]
    assert (got.double() - want).abs().max() <= 5e-3 * want.abs().max()


def test_shapes_that_do_not_fit_are_refused() -> None:
    qkv, heads = make(torch.float32, 2, 1, 16, 40)
    cache = cache_of(KVFormat(4), qkv, heads)
    out = torch.empty(1, 40, 32)
    with pytest.raises(ValueError, match=r"qkv must be \[batch, tokens, 64\]"):
        quantized.attention(qkv[..., 1:], cache, 0, heads)
    with pytest.raises(ValueError, match="do not fit into the cache"):
        quantized.attention(qkv, cache, 1, heads)
    with pytest.raises(ValueError, match="at most 16 tokens"):
        quantized.prepare(qkv, cache, torch.zeros(len(qkv), dtype=torch.int64), heads, out)
    with pytest.raises(ValueError, match="out must be"):
        quantized.prepare(qkv[:, :2], cache, torch.zeros(len(qkv), dtype=torch.int64), heads, out)
    with pytest.raises(ValueError, match="share one dtype"):
        quantized.attention(qkv.double(), cache, 0, heads)
    with pytest.raises(ValueError, match="one layer's"):
        quantized.attention(qkv, cache, 0, replace(heads, kv_heads=2, heads=0))
