"""The devices of this machine, and how a trial is shown one of them."""

from __future__ import annotations

from typing import Any

import pytest

from core.measure.child.devices import device_environment, devices
from core.target import Target


def target(**changes: Any) -> Target:
    given = {"id": "x", "title": "x", "kind": "cuda", "place": "local", "local": True, **changes}
    return Target(memory_bytes=1, bandwidth=None, peaks=(), **given)


def test_devices_are_those_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, 5")
    assert devices(target()) == ("cuda:3", "cuda:5")
    assert device_environment("cuda:5") == {"CUDA_VISIBLE_DEVICES": "5"}
    assert device_environment("cpu") == {}
    # What is not here is measured on this processor and projected.
    assert devices(target(local=False)) == devices(target(kind="cpu")) == ("cpu",)
