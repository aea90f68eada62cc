"""Huge pages: the right memory is asked for, and what it holds stays."""

from __future__ import annotations

import pytest
import torch

from kernels import pages


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int, int]]:
    found: list[tuple[int, int, int]] = []

    def madvise(address: int, nbytes: int, advice: int) -> int:
        found.append((address, nbytes, advice))
        return 0

    monkeypatch.setattr(pages, "_advise", lambda: madvise)
    monkeypatch.setattr(pages.sys, "platform", "linux")
    return found


def test_every_page_that_holds_a_part_is_asked_for(asked: list[tuple[int, int, int]]) -> None:
    tensor = torch.zeros(5 << 20, dtype=torch.uint8)
    assert pages.make_huge(tensor) == len(asked) * pages.HUGE_BYTES
    assert asked[0][0] <= tensor.data_ptr()
    assert asked[-1][0] + pages.HUGE_BYTES >= tensor.data_ptr() + tensor.nbytes
    assert 3 <= len(asked) <= 4
    starts = [address for address, _, _ in asked]
    assert starts == list(range(starts[0], starts[-1] + 1, pages.HUGE_BYTES))
    assert all(start % pages.HUGE_BYTES == 0 for start in starts)


def test_an_older_system_is_asked_to_do_it_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def refuses(address: int, nbytes: int, advice: int) -> int:
        asked.append(advice)
        return -1

    monkeypatch.setattr(pages, "_advise", lambda: refuses)
    monkeypatch.setattr(pages.sys, "platform", "linux")
    assert pages.make_huge(torch.zeros(1 << 20, dtype=torch.uint8)) == 0
    assert asked[-1] == 14


def test_small_tensors_and_other_systems_are_left_alone(
    asked: list[tuple[int, int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert pages.make_huge(torch.zeros(100)) == 0
    monkeypatch.setattr(pages.sys, "platform", "darwin")
    assert pages.make_huge(torch.zeros(1 << 20)) == 0
    assert asked == []


def test_the_memory_keeps_what_it_holds() -> None:
    tensor = torch.arange(3 << 20, dtype=torch.int32)
    address = tensor.data_ptr()
    assert pages.make_huge(tensor) % pages.HUGE_BYTES == 0
    assert tensor.data_ptr() == address
    assert torch.equal(tensor, torch.arange(3 << 20, dtype=torch.int32))
