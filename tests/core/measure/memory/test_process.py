"""Resident memory against what the operating system's other books say."""

from __future__ import annotations

import mmap
import sys
from pathlib import Path

import psutil
import pytest

from core.measure.memory import process as memory

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's /proc")
SIZE = 96 << 20


def touched(size: int) -> mmap.mmap:
    """Anonymous memory with every page written."""
    block = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for at in range(0, size, mmap.PAGESIZE):
        block[at] = 1
    return block


def test_resident_memory_is_psutils() -> None:
    ours = memory.resident_bytes()
    assert ours == pytest.approx(psutil.Process().memory_info().rss, rel=0.05)


def test_resident_memory_grows_by_what_is_touched_and_shrinks_again() -> None:
    before = memory.resident_bytes()
    block = touched(SIZE)
    during = memory.resident_bytes()
    block.close()
    after = memory.resident_bytes()
    assert before is not None
    assert during is not None
    assert after is not None
    assert during - before == pytest.approx(SIZE, rel=0.1)
    assert during - after == pytest.approx(SIZE, rel=0.1)


def test_the_peak_remembers_memory_that_is_gone_until_it_is_reset() -> None:
    touched(SIZE).close()
    peak, now = memory.peak_resident_bytes(), memory.resident_bytes()
    assert peak is not None
    assert now is not None
    assert peak >= now + 0.9 * SIZE
    if not memory.reset_peak():
        pytest.skip("this kernel does not let a process reset its high-water mark")
    fresh = memory.peak_resident_bytes()
    assert fresh is not None
    assert fresh < peak - 0.9 * SIZE


def test_unknown_is_none_and_never_zero(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_STATUS", tmp_path / "status")
    assert memory.resident_bytes() is None
    for text in ("", "Name:\tpython\n", "VmRSS:\n", "VmRSS:\tmany kB\n"):
        (tmp_path / "status").write_text(text)
        assert memory.resident_bytes() is None
        assert memory.peak_resident_bytes() is None
    (tmp_path / "status").write_text("VmHWM:\t     20 kB\nVmRSS:\t   12 kB\n")
    assert memory.resident_bytes() == 12 * 1024
    assert memory.peak_resident_bytes() == 20 * 1024
