"""A few of the ways in which a trial's process can fail, one of each sort; all of them are tried by
python -m tests.evidence failures.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from store import open_store
from tests.evidence.jobs import failing_worker, failures

SHORT = (
    "segfault",
    "memory-growth",
    "hang-with-the-interpreter",
    "fork-storm",
    "daemon",
    "disk-full",
    "journal-deleted",
    "hostile-exception",
    "garbage-on-stdout",
    "line-of-50-MB",
    "event-of-another-trial",
    "damaged-measurement",
)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    made = failures.Bench(open_store("memory:"), tmp_path_factory.mktemp("trials"))
    yield made
    made.supervisor.close()


@pytest.mark.parametrize("kind", SHORT)
def test_a_failing_trial_ends_with_a_reason_and_leaves_nothing_behind(
    bench: Any, kind: str
) -> None:
    found = bench.try_kind(kind)
    assert found.faults == ()
    assert found.orphans == 0


def test_every_kind_has_its_expected_reason() -> None:
    assert set(failing_worker.KINDS) == set(failures.NAMED)
