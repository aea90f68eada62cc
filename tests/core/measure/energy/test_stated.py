"""The estimate from stated watts."""

from __future__ import annotations

import pytest

from core.errors import BadInput
from core.measure.energy import stated
from core.measure.energy.stated import VARIABLE, StatedReader, find
from core.target import Target

HERE = Target("local", "here", "cpu", "local", 1, None, (), power_w=65.0, local=True)
AWAY = Target("epyc", "there", "cpu", "cloud", 1, None, (), power_w=280.0)


def test_joules_are_watts_times_the_share_of_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    used, now = [10.0], [100.0]
    monkeypatch.setattr(stated, "_processor_seconds", lambda: used[0])
    monkeypatch.setattr(stated.time, "perf_counter", lambda: now[0])
    reader = StatedReader(50.0, 8, "said so")
    reader.start()
    used[0], now[0] = 14.0, 102.0
    lap = reader.lap()
    # 4 of 16 core seconds, of 0.8 x 50 W over 2 s.
    assert lap.total == pytest.approx(0.8 * 50 * 2 * 4 / 16)
    assert lap.seconds == 2.0
    assert reader.origin == "estimated"
    assert not reader.draws_idle


def test_processor_seconds_grow_with_work() -> None:
    before = stated._processor_seconds()
    sum(i * i for i in range(300_000))
    assert stated._processor_seconds() > before


def test_the_variable_comes_before_the_target(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, " 12.5 ")
    reader, why = find(HERE)
    assert reader is not None
    assert why == ""
    assert "12.5 W (TRIMTAB_CPU_WATTS says so)" in reader.name


def test_this_machines_stated_power_is_used_and_anothers_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    reader, _ = find(HERE)
    assert reader is not None
    assert "65 W (stated for this machine)" in reader.name
    for target in (AWAY, None):
        reader, why = find(target)
        assert reader is None
        assert "set TRIMTAB_CPU_WATTS" in why


@pytest.mark.parametrize("text", ["0", "-3", "many", "nan", "inf", "1e9"])
def test_what_is_no_number_of_watts_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, text)
    with pytest.raises(BadInput, match="TRIMTAB_CPU_WATTS must be a number of watts"):
        find(HERE)
