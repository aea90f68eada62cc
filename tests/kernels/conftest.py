"""Fixtures for the kernels: memory that was not written reads as NaN, and clean selections."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from kernels import calls, registry


@pytest.fixture
def poisoned() -> Iterator[None]:
    """Fresh memory holds NaN, so an output that a kernel forgot to write is seen."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(before)


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No kernel is named from outside, nothing is remembered, nothing is counted yet."""
    monkeypatch.delenv(registry.ENVIRONMENT, raising=False)
    registry.reset()
    calls.reset()
    yield
    registry.reset()
    calls.reset()
