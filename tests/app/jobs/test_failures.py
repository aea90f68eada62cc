"""A few of the ways in which a trial's process can fail, one of each sort; all of them are tried by
figure_failures.py.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from store import open_store

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


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parents[1] / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Its dataclasses look their module up by name.
    __import__("sys").modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    made = load("figure_failures").Bench(open_store("memory:"), tmp_path_factory.mktemp("trials"))
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
    assert set(load("failing_worker").KINDS) == set(load("figure_failures").NAMED)
