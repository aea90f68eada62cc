"""Fixtures of the supervisor's tests: a store in memory, and supervisors whose worker misbehaves as
it is told (tests/evidence/jobs/failing_worker.py).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from app.jobs.supervisor import Supervisor
from core.measure.child.spawn import Spawned
from store import open_store
from store.interface import Store
from tests.evidence.jobs import failing_worker

SCRIPT = Path(failing_worker.__file__)
Make = Callable[..., Supervisor]


@pytest.fixture
def store() -> Store:
    return open_store("memory:")


@pytest.fixture
def make(store: Store, tmp_path: Path) -> Iterator[Make]:
    """Supervisors over the store whose worker behaves as it is told; closed at the end."""
    made: list[Supervisor] = []

    def new(kind: str = "none", listener=None, folder: Path = tmp_path) -> Supervisor:
        starter = partial(Spawned, command=(sys.executable, str(SCRIPT), kind))
        made.append(Supervisor(store, folder, listener, starter))
        return made[-1]

    yield new
    for one in made:
        one.close()
