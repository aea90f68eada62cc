"""Static batching: the server is told, the sizes are bounded, and what is asked never changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from core.plan import Case, Plan
from core.predict.effects import effects
from core.techniques.batch.static import StaticBatch
from core.techniques.deployment import Deployment


def asking(case: Case, concurrency: int) -> Case:
    return replace(case, workload=replace(case.workload, concurrency=concurrency))


@pytest.mark.parametrize(
    ("size", "concurrency", "together"), [(1, 1, 1), (4, 1, 1), (4, 4, 4), (4, 10, 4), (16, 3, 3)]
)
def test_no_more_sequences_go_together_than_are_asked_for(
    size: int, concurrency: int, together: int, case: Case
) -> None:
    plan = Plan(asking(case, concurrency), (StaticBatch(size),))
    assert plan.batch == size
    assert effects(plan).batch == together


def test_the_server_is_told_the_size(
    deploy: Callable[..., tuple[Deployment, list[str]]],
) -> None:
    deployment, _ = deploy(object())
    assert deployment.serving.batch == 1
    StaticBatch(8).apply(deployment)
    assert deployment.serving.batch == 8


@pytest.mark.parametrize("size", [0, -1, 1025])
def test_sizes_without_sense_are_refused(size: int) -> None:
    with pytest.raises(ValueError, match="between 1 and 1024"):
        StaticBatch(size)


@pytest.mark.parametrize(
    ("concurrency", "sizes"),
    [(1, []), (2, [2]), (3, [2, 3]), (8, [2, 4, 8]), (100, [2, 4, 8, 16, 100])],
)
def test_sizes_that_the_workload_fills_are_proposed(
    concurrency: int, sizes: list[int], case: Case
) -> None:
    proposed = StaticBatch.proposals(asking(case, concurrency))
    assert [one.technique.sequences for one in proposed] == sizes
