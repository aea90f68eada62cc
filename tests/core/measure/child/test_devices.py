"""The devices of this machine, and how a trial is shown one of them."""

from __future__ import annotations

from typing import Any

import pytest

from core.measure.child import devices as places
from core.measure.child.devices import absent, device_environment, devices
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


def test_a_gpu_of_another_machine_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = {"gpus": [{"name": "NVIDIA H200", "memory_bytes": 1}], "versions": {"torch": "2.11.0"}}
    monkeypatch.setattr(places, "environment", lambda: ("e", facts))
    assert absent(target()) is None
    assert absent(target(kind="cpu")) is None
    monkeypatch.setattr(places, "environment", lambda: ("e", {"versions": {"torch": "2.13+cpu"}}))
    assert "has no GPU" in str(absent(target()))
    # What is not here at all is measured on this processor and projected.
    assert absent(target(local=False)) is None
