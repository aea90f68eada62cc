"""Static batching: the workload is reshaped, the run loop is told, the sizes are bounded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from core.deployment import Deployment
from core.plan import Case
from core.techniques.batch.static import StaticBatch


@pytest.mark.parametrize(
    ("size", "concurrency", "served"), [(1, 1, 1), (4, 1, 4), (4, 4, 4), (4, 10, 10), (16, 3, 16)]
)
def test_at_least_a_batch_of_requests_arrives_together(
    size: int, concurrency: int, served: int, case: Case
) -> None:
    before = replace(case.workload, concurrency=concurrency)
    assert StaticBatch(size).reshape(before) == replace(before, concurrency=served)


def test_the_run_loop_is_told_the_size(
    deploy: Callable[..., tuple[Deployment, list[str]]],
) -> None:
    deployment, _ = deploy(object())
    assert deployment.batch == 1
    StaticBatch(8).apply(deployment)
    assert deployment.batch == 8


@pytest.mark.parametrize("size", [0, -1, 1025])
def test_sizes_without_sense_are_refused(size: int) -> None:
    with pytest.raises(ValueError, match="between 1 and 1024"):
        StaticBatch(size)


def test_the_curve_of_batch_sizes_is_proposed(case: Case) -> None:
    assert [one.size for one in StaticBatch.candidates(case)] == [1, 2, 4, 8, 16]  # type: ignore[attr-defined]
