"""Published rates of devices that are not here against our bands: every row is inside, near the
middle of a narrow band, or marked with the reason; few are marked, and none is mixed with ours."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import cache

import pytest

from core.catalogue import published, targets
from core.catalogue.classes import MOST_SPREAD, classes
from core.catalogue.published import PublishedRow
from core.machine import targets as chosen
from core.machine.calibrate import Calibration
from core.predict import predict
from core.predict.published import plan_of, predicted
from core.predict.roofline import Span
from core.predict.typical import device_class

WIDEST, NEAR, MOST_MISSES = 3.0, 0.25, 0.1
ROWS = published.rows()
# The table "Published rates at batch 1" that this began with: row, published value.
FIRST_TABLE = {
    "a100-8b-bf16": 95.64, "a100-8b-int8": 153.03, "a100-8b-int4": 180.80, "4090-8b-f16": 54.84,
    "4090-8b-f16-pp512": 9382.0, "m4-8b-q4km": 20.87, "sd8g3-1b-bf16": 19.2,
    "sd8g3-1b-bf16-memory": 3.34e9, "h7a3-st-resnet8": 0.0408,
}  # fmt: skip


@cache
def span_of(row: PublishedRow) -> Span:
    span = predicted(row)
    assert span is not None, row.id
    return span


def holds(row: PublishedRow) -> bool:
    span = span_of(row)
    return span.low <= row.value <= span.high and abs(span.value / row.value - 1) <= NEAR


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_a_published_rate_is_in_a_narrow_band_near_its_middle_or_marked(row: PublishedRow) -> None:
    span = span_of(row)
    assert span.high / span.low <= WIDEST
    assert span.low <= span.value <= span.high
    assert holds(row) != bool(row.miss), (row.value, span)


def test_at_most_a_tenth_of_the_rows_is_marked_of_those_held_out_too() -> None:
    marked = [row for row in ROWS if row.miss]
    assert len(marked) <= MOST_MISSES * len(ROWS)
    outside = [row for row in ROWS if not span_of(row).low <= row.value <= span_of(row).high]
    assert len(outside) <= 0.03 * len(ROWS)


def test_more_rows_are_held_out_than_fitted_and_most_of_them_hold() -> None:
    held = [row for row in ROWS if row.use == "held-out"]
    assert len(held) > len(ROWS) / 2
    assert sum(map(holds, held)) / len(held) > 0.85


def test_the_first_table_holds_without_a_mark() -> None:
    rows = {row.id: row for row in ROWS}
    for name, value in FIRST_TABLE.items():
        assert rows[name].value == pytest.approx(value, rel=0.002)
        assert not rows[name].miss
        assert holds(rows[name])


def test_every_class_with_published_rows_has_more_rows_than_a_device() -> None:
    """Numbers belong to classes: no class has more numbers than the file of rows can speak to."""
    rows = Counter(
        entry.device_class for row in ROWS if (entry := targets.entry(row.target)) is not None
    )
    assert set(rows) <= set(classes().ids())
    assert rows["gpu-hbm"] > 20
    assert rows["gpu-geforce"] > 20
    assert rows["apple-gpu"] > 20
    assert all(device.spread <= MOST_SPREAD for device in classes().devices)


def test_every_target_of_the_catalogue_has_a_class() -> None:
    for entry in targets.entries():
        assert entry.device_class, entry.target.id


def test_a_device_that_is_not_listed_has_the_class_of_its_kind_and_place() -> None:
    known = {
        "h100-sxm": "gpu-hbm", "l4": "gpu-gddr", "rtx-4090": "gpu-geforce",
        "ryzen-ai-9-hx370": "cpu-soc", "ryzen-9-7950x": "cpu-client",
        "radxa-orion-o6": "cpu-soc", "ryzen-ai-5-340": "cpu-client",
        "snapdragon-8-elite": "cpu-phone",
        "graviton3-c7g": "cpu-server", "raspberry-pi-5": "cpu-board",
    }  # fmt: skip
    for target_id, class_id in known.items():
        unlisted = replace(chosen.resolve(target_id), id="mine")
        found = device_class(unlisted)
        assert found is not None
        assert found.id == class_id
    here = replace(chosen.resolve("l4"), local=True)
    assert device_class(here) is None
    assert device_class(replace(chosen.resolve("l4"), id="mine", place="local")) is None


def test_a_calibration_is_better_than_what_is_typical() -> None:
    """A machine's own calibration replaces the class: the numbers do not depend on it."""
    row = next(row for row in ROWS if row.id == "xeon-qwen7b-q4")
    own = Calibration("env", "2026-11-30T10:00:00.000", "cpu", 200e9, (("bf16", 50e12),))
    found = {each.metric: each for each in predict(plan_of(row), own)}["tpot_s"]
    assert "typically" not in found.method
    assert "measured here on 2026-11-30" in found.method


def test_published_rows_say_so_and_name_program_date_and_source() -> None:
    row = ROWS[0].measurement()
    assert row.origin == "published"
    assert row.value == ROWS[0].value
    assert ROWS[0].program in row.method
    assert ROWS[0].dated in row.method
    assert "github.com/pytorch/ao" in row.method
