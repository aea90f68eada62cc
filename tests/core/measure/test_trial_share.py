"""A trial under a stored calibration says its share of the limits and its conditions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from core.catalogue import models
from core.machine import calibrate
from core.machine.calibrate import Calibration, Rate
from core.machine.share import NAMES, UNCALIBRATED
from core.measure import trial
from core.measure.steps import share
from core.measurement import Measurement
from core.plan import Case, Plan
from core.planner.presets import PRESETS, Preset
from core.target import Target
from core.workload import Workload

pytestmark = pytest.mark.usefixtures("one_thread")
TARGET = Target("local", "here", "cpu", "local", 10**9, None, (), local=True)
SHORT = Workload("short", "Short", "text", 16, 4)


@pytest.fixture(autouse=True)
def _brief(monkeypatch: pytest.MonkeyPatch, own_cache: Path) -> None:
    monkeypatch.setitem(PRESETS, "quick", Preset("quick", 3, 0.001, 3, 32, 1, 0.0, 60.0))


def run() -> tuple[dict[str, Measurement], list[str]]:
    events: list[tuple[str, dict[str, Any]]] = []
    plan = Plan(Case(models.resolve("pycode-small"), TARGET, SHORT))
    trial.run_trial(plan, "quick", "env-1", lambda kind, **body: events.append((kind, body)))
    sent = [body["measurement"] for kind, body in events if kind == "measurement"]
    notes = [body["text"] for kind, body in events if kind == "note"]
    return {one.metric: one for one in sent if not one.condition}, notes


BEST = 1e10
READ = Rate("read", "B/s", BEST, BEST, BEST, BEST, 5, 1 << 28, 1)


def limits(environment: str) -> Calibration:
    at = "2026-11-21T10:00:00.000"
    return Calibration(environment, at, "cpu", BEST, (("bf16", 1e12),), (READ,))


def test_the_first_trial_measures_the_limits_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(share, "ensure", lambda: limits("env-1"))
    found, notes = run()
    assert found["mbu"].origin == "measured"
    assert any("limits were not known" in note for note in notes)
    assert any(note.startswith("machine before the timed work: ") for note in notes)


def test_limits_of_another_environment_are_no_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(share, "ensure", lambda: limits("env-2"))
    found, _ = run()
    assert {found[name].method for name in NAMES} == {UNCALIBRATED}


def test_with_one_each_time_gives_a_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(share, "ensure", lambda: pytest.fail("they are known"))
    calibrate.store(limits("env-1"))
    found, _ = run()
    mbu, tpot = found["mbu"], found["tpot_s"]
    assert mbu.origin == found["mfu"].origin == "measured"
    assert mbu.environment == "env-1"
    assert mbu.n == tpot.n
    # The model shares its table with the head: a step reads all weights, and some cache.
    size = found["model_bytes"].samples[0]
    shares = [
        share * seconds * BEST for share, seconds in zip(mbu.samples, tpot.samples, strict=True)
    ]
    assert shares == pytest.approx([shares[0]] * len(shares))
    assert size < shares[0] < 1.1 * size
