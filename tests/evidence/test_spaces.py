"""The spaces that are measured whole: their plans, and a row of each that can be gone on with."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from core.target import Target
from tests.evidence.planner import record, spaces

TARGET = Target("local", "", "cpu", "local", 8 << 30, 2e10, (("bf16", 1e11),), local=True)


@pytest.mark.parametrize(
    ("name", "least"), [("pycode-chat", 300), ("small-batch", 300), ("digits", 150)]
)
def test_a_space_begins_with_the_unchanged_model_and_has_no_plan_twice(
    name: str, least: int
) -> None:
    plans = spaces.SPACES[name].plans(TARGET)
    assert len(plans) >= least
    assert plans[0].techniques == ()
    assert len({spaces.spelled(plan) for plan in plans}) == len(plans)


@pytest.mark.slow
def test_recording_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = spaces.Space("digits-cnn", "sensor-frame", (("", "rtn:bits=8"), ("", "rtn:bits=4")))
    monkeypatch.setitem(spaces.SPACES, "digits", small)
    out = tmp_path / "digits.jsonl"
    options = argparse.Namespace(space="digits", out=out, rounds=6, seconds=0.0)
    assert record.main(options) == 1
    (unchanged,) = record.rows(out)
    assert unchanged["plan"] == ""
    # A kill in the middle of a line.
    out.write_text(out.read_text() + '{"plan": "rtn:bi')
    options.seconds = 600.0
    assert record.main(options) == 0
    rows = {row["plan"]: row for row in record.rows(out)}
    assert len(record.rows(out)) == len(rows) == 3
    metrics = rows["rtn"]["metrics"]
    assert metrics["examples_per_s"]["ratio"] > 0
    assert metrics["model_bytes"]["value"] < rows[""]["metrics"]["model_bytes"]["value"]
    assert rows[""] == unchanged
