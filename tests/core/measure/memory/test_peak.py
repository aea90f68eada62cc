"""Peaks of work whose size is known."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from core.engine.load.load import random_engine
from core.engine.serve.generate import generate
from core.files.config.decoder_config import DecoderConfig
from core.measure.memory.peak import captured_bytes, page_peak, tensor_peak

SIZE = 48 << 20


def test_tensors_are_counted_to_the_byte() -> None:
    kept = torch.zeros(1000)

    def run() -> None:
        a = torch.zeros(1 << 20, dtype=torch.uint8)
        b = torch.zeros(3 << 20, dtype=torch.uint8)
        del a
        c = torch.zeros(2 << 20, dtype=torch.uint8)
        del b, c
        kept.add_(1)

    assert tensor_peak(run) == 5 << 20


def test_work_without_tensors_takes_none() -> None:
    assert tensor_peak(lambda: sum(range(100))) == 0


def test_one_request_after_another_takes_no_more_than_one() -> None:
    """A cache and its bound steps go with their request, not with the garbage collector."""
    engine = random_engine(DecoderConfig("llama", 61, 64, 2, 2, 1, 32, (96, 96), max_positions=64))
    prompt = torch.zeros(1, 20, dtype=torch.int64)
    generate(engine, prompt, 4)

    def several(count: int) -> None:
        for _ in range(count):
            generate(engine, prompt, 4)

    assert tensor_peak(lambda: several(6)) == tensor_peak(lambda: several(1))


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's /proc")
def test_the_peak_by_page_is_what_was_touched() -> None:
    def run() -> None:
        torch.ones(SIZE, dtype=torch.uint8)

    run()
    found = page_peak(run)
    assert found is not None
    if not found.fresh:
        pytest.skip("this kernel does not let a process reset its high-water mark")
    assert found.peak - found.rest == pytest.approx(SIZE, rel=0.05)


# In a process of its own: a heap that has gaps already keeps what fits them.
FREEING = """
import torch
from core.engine.allocator import freed_at_once
from core.measure.memory import resident_bytes
with freed_at_once() as works:
    before = resident_bytes()
    blocks = [torch.ones(8 << 20, dtype=torch.uint8) for _ in range(6)]
    during = resident_bytes()
    # Every second one: a heap would keep all of it.
    del blocks[::2]
    print(int(works), before, during, resident_bytes())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's /proc")
def test_freed_memory_leaves_the_process_at_once() -> None:
    run = [sys.executable, "-c", FREEING]
    printed = subprocess.run(run, capture_output=True, text=True, check=True).stdout
    works, before, during, after = map(int, printed.split())
    if not works:
        pytest.skip("this allocator has no mallopt")
    assert during - before == pytest.approx(SIZE, rel=0.1)
    assert during - after == pytest.approx(SIZE / 2, rel=0.1)


def test_what_captured_steps_keep_is_what_of_their_pools_is_no_tensor() -> None:
    """As torch.cuda.memory_snapshot has it: the first segment is everybody's."""
    segments = [
        {"segment_pool_id": (0, 0), "total_size": 1 << 30, "allocated_size": 1 << 20},
        {"segment_pool_id": (0, 1), "total_size": 20 << 20, "allocated_size": 5 << 20},
        {"segment_pool_id": (0, 1), "total_size": 2 << 20, "allocated_size": 2 << 20},
    ]
    assert captured_bytes(segments) == 15 << 20
    assert captured_bytes([]) == 0
