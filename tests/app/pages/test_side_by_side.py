"""The table of a comparison: nothing stored speaks HTML, every metric is explained, nothing that
cannot be judged is judged.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from app.parts import side_by_side
from core import metrics
from core.study import Study
from core.verdict.compare import compare

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.evidence.pages.hostile import PAYLOADS


class Seen(HTMLParser):
    """Tags with their attributes, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("details", [False, True])
def test_every_metric_has_its_meaning_and_the_first_column_a_heading(
    synthetic_study: Study, details: bool
) -> None:
    found = compare(synthetic_study.done(), "t-0000")
    seen = Seen(side_by_side.page(found.metrics(), found.columns, details, "Results"))
    told = {attrs["title"] for tag, attrs in seen.tags if tag == "th" and "title" in attrs}
    assert told == {metrics.metric(row.key).meaning for row in found.metrics()}
    heads = [attrs for tag, attrs in seen.tags if tag == "th" and attrs.get("scope") == "col"]
    assert len(heads) == 1 + len(found.columns)
    assert "Metric" in seen.text
    # A region that scrolls can be reached by the keyboard and has a name.
    assert seen.tags[0][1] | {"class": ""} == {
        "class": "",
        "tabindex": "0",
        "role": "region",
        "aria-label": "Results",
    }


@pytest.mark.parametrize("payload", PAYLOADS)
def test_stored_text_stays_text(synthetic_study: Study, payload: str) -> None:
    found = compare(synthetic_study.done()[:2], "t-0000")
    plain = Seen(side_by_side.page(found.rows, found.columns, True, "x"))
    columns = [replace(column, title=payload) for column in found.columns]
    rows = [
        replace(
            row,
            cells=tuple(
                replace(cell, text=payload, method=payload, why=payload) for cell in row.cells
            ),
        )
        for row in found.rows
    ]
    seen = Seen(side_by_side.page(rows, columns, True, payload))
    names = [tag for tag, _ in seen.tags]
    assert set(names) <= {tag for tag, _ in plain.tags}
    assert {key for _, attrs in seen.tags for key in attrs} <= {
        "class", "tabindex", "role", "aria-label", "scope", "colspan", "title",
    }  # fmt: skip


def test_one_reading_is_said_once_and_diagnostics_are_not_judged(synthetic_study: Study) -> None:
    found = compare(synthetic_study.done(), "t-0000")
    peak = found.row("peak_bytes")
    prepared = found.row("prepare_s")
    assert peak is not None
    assert prepared is not None
    said = Seen(side_by_side.page([peak], found.columns, False, "x")).text
    assert said.count("one reading, not judged") == 1
    assert "too few runs" not in said
    said = Seen(side_by_side.page([prepared], found.columns, True, "x")).text
    assert "too few runs" not in said


def test_a_number_that_was_not_measured_says_so_unasked(synthetic_study: Study) -> None:
    found = compare(synthetic_study.done(), "t-0000")
    row = found.row("tokens_per_s")
    assert row is not None
    said = Seen(side_by_side.page([row], found.columns, False, "x")).text
    assert said.count("projected") == sum(cell.origin == "projected" for cell in row.cells) > 0
