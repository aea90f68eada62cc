"""One clock: what a time means does not depend on where it is read."""

from __future__ import annotations

import datetime as dt
import json
import os
import random
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from core.data.times import EPOCH, moment, nanoseconds, utc

ZONES = ("UTC", "America/New_York", "Asia/Kathmandu", "Pacific/Apia", "Australia/Lord_Howe")
SECOND = 10**9


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("2023-11-16 18:15:46", "2023-11-16T18:15:46Z"),
        ("2023-11-16 18:15:46 UTC", "2023-11-16T19:15:46+01:00"),
        ("2024-02-29T23:59:59-00:30", "2024-03-01T00:29:59"),
        ("2024-01-01T00:30:00+05:45", "2023-12-31T18:45:00"),
        ("2024-01-01 00:30:00 +0545", "2023-12-31T18:45:00"),
        ("2024-05-10 00:00:00.009930+00:00", "2024-05-10 00:00:00,00993"),
        ("2024-03-10T02:30:00", "2024-03-10T02:30:00+00:00"),  # a time that New York skipped
    ],
)
def test_times_that_are_the_same(text: str, same: str) -> None:
    assert nanoseconds(text) == nanoseconds(same)


@pytest.mark.parametrize("digits", ["5", "25", "625", "0625000", "680590012", "99999999949"])
@pytest.mark.parametrize("zone", ["", "Z", "+02:00", " UTC"])
def test_fractions_of_any_length_are_exact_to_a_nanosecond(digits: str, zone: str) -> None:
    at = f"2023-11-16 23:59:59.{digits}{zone}"
    shift = 7200 if "+" in zone else 0
    whole = nanoseconds("2023-11-16 23:59:59") - shift * SECOND
    assert nanoseconds(at) - whole == int(Fraction(f"0.{digits}") * SECOND)


@pytest.mark.parametrize("zone", ZONES)
def test_offsets_agree_with_the_calendar_of_each_zone(zone: str) -> None:
    draw = random.Random(zone)
    for _ in range(200):
        at = draw.randrange(0, 4_000_000_000)
        there = dt.datetime.fromtimestamp(at, ZoneInfo(zone)).isoformat()
        assert nanoseconds(there) == at * SECOND
        assert moment(there) == EPOCH + dt.timedelta(seconds=at)
        assert moment(utc(there)) == moment(there)


NO_TIMES = ["soon", "", "2023-13-01 00:00:00", "0001-01-01T00:00:00+23:00", "2023-02-30T00:00:00"]


@pytest.mark.parametrize("text", [*NO_TIMES, "23:59", "1e3", "Z", "+02:00"])
def test_what_is_no_time_is_refused_and_stays_what_it_is(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        nanoseconds(text)
    assert utc(text) == text


def test_a_time_in_utc_is_kept_to_the_letter() -> None:
    assert utc("2026-11-21T10:00:00.123456") == "2026-11-21T10:00:00.123456"
    assert utc("2026-11-21T01:00:00.5+02:00") == "2026-11-20T23:00:00.500"


SCRIPT = """
import json, sys, time
from datetime import datetime
from pathlib import Path
from app.reports.words import when
from app.parts import words
from core import ids
from core.data.arrivals import read_trace
from core.data.times import moment

trace = Path(sys.argv[1])
now = moment(ids.now())
stamps = ["2026-03-29T01:30:00.000", "2026-03-29T03:30:00.000+02:00", "2026-11-01T00:59:59-04:00"]
print(json.dumps([
    [one.at_s for one in read_trace(trace)],
    [when(at) for at in stamps],
    [words.ago(ids.now()), words.ago(ids.now() + "+00:00")],
    abs((now - datetime(1970, 1, 1)).total_seconds() - time.time()) < 60,
]))
"""


def test_every_zone_gives_one_answer(tmp_path: Path) -> None:
    trace = tmp_path / "azure.csv"
    # Across the hours that clocks skip and repeat, with and without offsets.
    trace.write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2026-03-08 01:59:59.9999999,1,1\n"
        "2026-03-08 03:00:00.0000000,1,1\n"
        "2026-03-29T01:30:00.5+01:00,1,1\n"
        "2026-03-29T03:30:00.5+02:00,1,1\n"
        "2026-11-01 00:30:00.0000001-05:00,1,1\n"
    )
    said = [
        subprocess.run(
            [sys.executable, "-c", SCRIPT, trace], capture_output=True, text=True, check=True,
            env=os.environ | {"TZ": zone},
        ).stdout
        for zone in ("UTC", "America/New_York", "Europe/Berlin", "Pacific/Apia")
    ]  # fmt: skip
    assert len(set(said)) == 1
    base = dt.datetime(2026, 3, 8, 1, 59, 59, 999999)
    wanted = [0.0]
    for at in ("2026-03-08T03:00:00", "2026-03-29T00:30:00.5", "2026-03-29T01:30:00.5",
               "2026-11-01T05:30:00"):  # fmt: skip
        wanted.append((dt.datetime.fromisoformat(at) - base).total_seconds())
    times, shown, ago, clock = json.loads(said[0])
    assert times == pytest.approx(wanted, abs=2e-6)
    assert shown == ["29 March 2026, 01:30 UTC"] * 2 + ["1 November 2026, 04:59 UTC"]
    assert ago == ["just now", "just now"]
    assert clock
