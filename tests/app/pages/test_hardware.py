"""Hardware, and what a calibration and an environment say on the other pages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest
from streamlit.util import calc_hash

from app import services
from app.jobs import calibrator
from app.jobs.calibrator import CalibrationProgress
from app.views import hardware
from core.caution import Caution
from core.journal.events import event
from core.machine import calibrate
from core.machine.calibrate import Calibration, Rate
from core.machine.environment import environment
from core.machine.share import UNCALIBRATED
from core.measurement import Measurement, unavailable
from core.study import Study

MAIN = Path(__file__).parents[3] / "app" / "main.py"
MIB = 1 << 20
HOSTILE = "![x](http://evil.test/x.png) **b** :red[r] <script>alert(1)</script>"


class Fake:
    """Stands in for the calibrator: starts nothing."""

    def __init__(self) -> None:
        self.now = CalibrationProgress()
        self.started = 0

    def progress(self) -> CalibrationProgress:
        return self.now

    def start(self) -> bool:
        self.started += 1
        return True


@pytest.fixture(autouse=True)
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Fake:
    """No calibration is stored, and none is ever run."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    one = Fake()
    monkeypatch.setattr(hardware, "get_calibrator", lambda: one)
    monkeypatch.setattr(calibrator, "get_calibrator", lambda: one)
    return one


def rate(name: str, best: float, size: int = 0, format_: str = "", unit: str = "B/s") -> Rate:
    return Rate(name, unit, best, best * 0.9, best * 0.8, best * 0.95, 9, size, 2, format_, "loop")


def kept(others: float | None = 0.0) -> Calibration:
    """A calibration of this machine, stored."""
    found = Calibration(
        environment()[0],
        "2026-11-21T10:00:00.000",
        "cpu",
        1.5e10,
        (("fp32", 2e11), ("bf16", 8e11)),
        (
            rate("read", 9e10, MIB),
            rate("read", 2e10, 256 * MIB),
            rate("copy", 1.5e10, 256 * MIB),
            rate("peak", 8e11, 1, "bf16", "op/s"),
            rate("overhead", 6.5e-7, 0, "torch operation", "s"),
        ),
        24.0,
        others,
    )
    calibrate.store(found)
    return found


def show(page: str, **words: str) -> AppTest:
    at = AppTest.from_file(str(MAIN), default_timeout=30)
    for name, value in words.items():
        at.query_params[name] = value
    at._page_hash = calc_hash(page)
    at.run()
    assert not at.exception
    assert not at.error
    return at


def texts(at: AppTest) -> str:
    kinds = ("markdown", "caption", "warning", "metric")
    return "\n".join(str(one.value) for kind in kinds for one in at.get(kind))


def test_an_unmeasured_machine_has_facts_a_reason_and_one_button(
    opened: services.Services, fake: Fake
) -> None:
    at = show("hardware")
    assert "Not measured yet" in texts(at)
    assert not at.metric
    assert len(at.table) >= 3
    at.button(key="calibrate").click().run()
    assert fake.started == 1


def test_measured_limits_are_tiles_a_chart_and_a_table(opened: services.Services) -> None:
    kept()
    at = show("hardware")
    tiles = {one.label: one.value for one in at.metric}
    assert tiles == {
        "Reads memory": "20.0 GB/s",
        "Reads its caches": "90.0 GB/s",
        "Copies memory": "15.0 GB/s",
        "Multiplies bf16": "800 Gop/s",
        "Multiplies fp32": "200 Gop/s",
        "Starts an operation": "650 ns",
    }
    chart = at.get("plotly_chart")[0].proto
    assert chart.alt
    rates_, targets_ = (one.value for one in at.dataframe)
    assert list(rates_["Best"])[:2] == ["90.0 GB/s", "20.0 GB/s"]
    assert targets_["Bandwidth, GB/s"][0] == 15.0
    assert len(targets_) > 14
    assert not at.warning


def test_a_disturbed_calibration_and_a_running_study_are_warned_of(
    opened: services.Services,
) -> None:
    kept(others=1.4)
    opened.jobs.studies = ("s-1", "s-2", "s-3")  # type: ignore[attr-defined]
    at = show("hardware")
    said = [str(one.value) for one in at.warning]
    assert any("1 running, 2 queued" in one for one in said)
    assert at.button(key="calibrate").disabled
    assert any("1.4 cores" in one for one in said)


def test_progress_is_shown_and_the_button_waits(opened: services.Services, fake: Fake) -> None:
    fake.now = CalibrationProgress(running=True, stage="matrix peaks", share=0.5)
    at = show("hardware")
    assert at.button(key="calibrate").disabled
    assert "matrix peaks, 50%" in str(at.get("progress")[0].proto.text)


def test_a_failed_calibration_is_a_sentence(opened: services.Services, fake: Fake) -> None:
    fake.now = CalibrationProgress(error=f"the calibration failed: {HOSTILE}")
    at = AppTest.from_file(str(MAIN), default_timeout=30)
    at._page_hash = calc_hash("hardware")
    at.run()
    assert "the calibration failed" in at.error[0].value
    assert "![x]" not in at.error[0].value


def shared(one: Measurement, study: Study) -> Study:
    """The study with one more number in its second trial."""
    first, second, *rest = study.trials
    second = replace(second, measurements=(*second.measurements, one))
    return study.with_trials((first, second, *rest))


def test_a_trial_says_its_share_of_the_limit_in_a_sentence(
    fill: Callable[[Study], None], opened: services.Services, synthetic_study: Study
) -> None:
    one = Measurement("mbu", (0.71, 0.71, 0.71), "", "measured", "20 MB that memory holds", "e")
    fill(shared(one, synthetic_study))
    at = show("trial", trial="t-0001")
    (bar,) = at.get("progress")
    assert bar.proto.value == 71
    assert "71 % of what the machine's memory can deliver" in bar.proto.text.replace("\\", "")


def test_a_share_above_the_limit_is_named_a_bad_calibration(
    fill: Callable[[Study], None], opened: services.Services, synthetic_study: Study
) -> None:
    fill(shared(Measurement("mfu", (1.6,), "", "measured", "how", "e"), synthetic_study))
    at = show("trial", trial="t-0001")
    assert at.get("progress")[0].proto.value == 100
    assert "repeat it on a quiet machine" in texts(at)


def test_an_uncalibrated_trial_says_why_it_has_no_share(
    fill: Callable[[Study], None], opened: services.Services, synthetic_study: Study
) -> None:
    fill(shared(unavailable("mbu", "", UNCALIBRATED), synthetic_study))
    at = show("trial", trial="t-0001")
    assert not at.get("progress")
    assert "has not been calibrated" in texts(at)
    assert at.get("page_link")


@pytest.fixture
def elsewhere(
    fill: Callable[[Study], None], opened: services.Services, synthetic_study: Study
) -> None:
    """A store in which t-0001 ran elsewhere and was disturbed."""
    first, second, *rest = synthetic_study.trials
    moved = tuple(replace(one, environment="env-b") for one in second.measurements)
    note = Caution("load", f"other processes took 1.20 of 2 cores {HOSTILE}").line
    second = replace(second, measurements=moved, notes=(note,))
    facts: dict[str, Any] = {"cpu": HOSTILE, "kernel": "6.18", "cores": 2, "torch": "2.13"}
    opened.store.ingest([event("environment", "s-synthetic", environment="env-b", facts=facts)])
    fill(synthetic_study.with_trials((first, second, *rest)))


@pytest.mark.parametrize(
    ("page", "words", "disturbed"),
    [
        ("trial", {"trial": "t-0001"}, True),
        ("trials", {}, False),
        ("trials", {"trials": "t-0000,t-0001"}, False),
        ("tradeoffs", {"study": "s-synthetic"}, True),
        ("compare", {"study": "s-synthetic", "trials": "t-0000,t-0001"}, True),
    ],
)
def test_every_page_warns_of_unlike_environments(
    elsewhere: None, page: str, words: dict[str, str], disturbed: bool
) -> None:
    said = texts(show(page, **words)).replace("\\", "")
    assert "unlike environments" in said
    assert "kernel (not known / 6.18)" in said
    assert ("took 1.20 of 2 cores" in said) is disturbed


def test_alike_trials_are_not_warned_of(elsewhere: None) -> None:
    for page, words in (
        ("trials", {"trials": "t-0000,t-0002"}),
        ("compare", {"study": "s-synthetic", "trials": "t-0000,t-0002"}),
        ("trial", {"trial": "t-0002"}),
    ):
        assert "unlike environments" not in texts(show(page, **words))


def test_facts_from_elsewhere_speak_no_markdown(elsewhere: None) -> None:
    at = show("trial", trial="t-0001")
    for kind in ("markdown", "caption", "warning", "table"):
        for one in at.get(kind):
            assert "![x](" not in str(one.value)
            assert "**b**" not in str(one.value)
