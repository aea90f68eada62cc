"""Attention whose `start` lies on the device: nothing may wait for it on the host.

Tensors on the device "meta" have shapes and a device but no numbers: whoever reads one on the host
raises, and so does whoever mixes two devices. That is as near to CUDA as a machine without comes.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from kernels import attention as op
from kernels import calls, registry
from kernels.attention import Heads, reference, sdpa


@pytest.fixture(autouse=True)
def _no_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(4)
    monkeypatch.delenv(registry.ENVIRONMENT, raising=False)


def make(window: int | None, batch: int = 3, tokens: int = 2) -> tuple[Tensor, Tensor, Heads]:
    """qkv, a cache [2, batch, kv_heads, capacity, dim] of keys and values, and the fixed part."""
    angles = torch.rand(20, 12)
    heads = Heads(
        4, 2, 24, angles.cos(), angles.sin(), torch.rand(24), torch.rand(24), 1e-5, window
    )
    return torch.randn(batch, tokens, 8 * 24), torch.randn(2, batch, 2, 20, 24), heads


def moved(heads: Heads, device: str) -> Heads:
    """The same with its tensors on a device."""
    tensors = {name: value.to(device) for name, value in vars(heads).items()
               if isinstance(value, Tensor)}  # fmt: skip
    return replace(heads, **tensors)


@pytest.mark.parametrize("window", [None, 5])
def test_masking_the_whole_capacity_gives_the_reference(window: int | None) -> None:
    qkv, cache, heads = make(window)
    starts = (0, 18, 7)
    want = torch.cat(
        [
            reference.attention(qkv[i : i + 1], *cache[:, i : i + 1], start, heads)
            for i, start in enumerate(starts)
        ]
    )
    out = sdpa._from_each(qkv, cache[0], cache[1], torch.tensor(starts), 20, heads)
    assert (out.double() - want).abs().max() <= 3e-6 * want.abs().max()


@pytest.mark.parametrize("window", [None, 5])
def test_torchs_step_reads_no_number_of_a_start_on_the_device(window: int | None) -> None:
    qkv, cache, heads = make(window)
    keys, values = cache.to("meta")
    out = torch.empty(3, 2, 96, device="meta")
    start = torch.zeros(3, dtype=torch.int64, device="meta")
    with pytest.raises((RuntimeError, NotImplementedError)):
        op.common(start)
    step = sdpa.prepare(qkv.to("meta"), keys, values, start, moved(heads, "meta"), out)
    calls.reset()
    step()
    assert calls.snapshot() == [{"op": "attention", "name": "torch-sdpa", "calls": 1}]


def test_which_kernels_read_it_there(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not op.reads_start_on_device("cpu", "int4")
    monkeypatch.setenv(registry.ENVIRONMENT, "attention=torch-sdpa")
    assert op.reads_start_on_device("cpu", "bf16")
    monkeypatch.setenv(registry.ENVIRONMENT, "attention=torch-kv4")
    assert not op.reads_start_on_device("cpu", "int4")


def test_a_start_elsewhere_is_refused() -> None:
    qkv, cache, heads = make(None)
    start = torch.zeros(3, dtype=torch.int64, device="meta")
    with pytest.raises(ValueError, match=r"start must be int64 \[batch\] on the CPU\."):
        op.prepare(qkv, cache[0], cache[1], start, heads, torch.empty(3, 2, 96))
    op.check_starts(start, 3, torch.device("meta"))
    with pytest.raises(ValueError, match="on the CPU or on meta"):
        op.check_starts(start, 2, torch.device("meta"))
