"""Fixtures for the kernels: memory that was not written reads as NaN, and clean selections."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from kernels import calls, registry, tuning


@pytest.fixture
def poisoned() -> Iterator[None]:
    """Fresh memory holds NaN, so an output that a kernel forgot to write is seen."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(before)


@pytest.fixture
def pinned(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Autotuners take their first blocks, which fit any number of rows, and measure nothing: odd
    shapes would cost seconds each on a GPU.
    """
    from kernels.linear_fp8 import gpu as fp8
    from kernels.linear_lowbit import gpu as lowbit
    from kernels.linear_w8a8 import gpu as w8a8

    device_code = lowbit.device_code
    tuners = (device_code.few_rows, device_code.many_rows, fp8.product_kernel, w8a8.product_kernel)
    for tuner in tuners:
        monkeypatch.setattr(tuner, "configs", tuner.configs[:1])
    before = set(tuning.tuned)
    yield
    # With all of its blocks, an autotuner has still to choose for these calls.
    tuning.tuned.clear()
    tuning.tuned.update(before)


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No kernel is named from outside, nothing is remembered, nothing is counted yet."""
    monkeypatch.delenv(registry.ENVIRONMENT, raising=False)
    registry.reset()
    calls.reset()
    yield
    registry.reset()
    calls.reset()
