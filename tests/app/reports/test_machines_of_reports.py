"""Reports and the command line name the machines that the compared trials ran on."""

from __future__ import annotations

import csv
import html
import io
import json
from dataclasses import replace
from typing import Any

import pytest

from app.cli.compare import comparison_text
from app.reports import export
from core.report import Report
from core.study import Study
from core.verdict.compare import compare
from tests.app.reference.conftest import H200

HERE: dict[str, Any] = {"cpu": "Test CPU", "cores": 2, "versions": {"torch": "2.13.0"}}
LINES = (
    "Test CPU, 2 cores, torch 2.13.0, 2026-11-21",
    "NVIDIA H200, driver 580.95.05, torch 2.11.0+cu130, 2026-11-21",
)


@pytest.fixture
def report(synthetic_study: Study) -> Report:
    """Of a baseline that ran here and a candidate that ran on an H200."""
    first, second = synthetic_study.trials[:2]
    moved = tuple(replace(row, environment="env-b") for row in second.measurements)
    study = synthetic_study.with_trials((first, replace(second, measurements=moved)))
    facts = (("env-7f3a", json.dumps(HERE)), ("env-b", json.dumps(H200)))
    ids = tuple(trial.id for trial in study.trials)
    return Report("r-1", 1, "Two", study, ids, ids[0], "2026-11-21T10:30:00.000", "", facts)


@pytest.mark.parametrize("format_", ["html", "md"])
def test_a_report_says_where_each_trial_ran(report: Report, format_: str) -> None:
    text = html.unescape(export(report, format_).decode()).replace("\\", "")
    for line in LINES:
        assert line in text
    assert "on 2 machines" in text
    assert "weight-int8 · NVIDIA H200" in text
    assert "This machine" not in text


def test_a_report_of_one_machine_names_it_once(report: Report) -> None:
    study = report.study.with_trials(report.study.trials[:1])
    text = export(replace(report, study=study, trial_ids=report.trial_ids[:1]), "md").decode()
    assert LINES[0] in text.replace("\\", "")
    assert "NVIDIA" not in text.split("## Environment")[0]


def test_the_rows_of_the_csv_carry_the_machine(report: Report) -> None:
    rows = list(csv.DictReader(io.StringIO(export(report, "csv").decode())))
    machines = {row["trial"]: row["machine"] for row in rows}
    assert machines == {"t-0000": "Test CPU, 2 cores", "t-0001": "NVIDIA H200"}


def test_the_json_lists_machines_with_their_trials(report: Report) -> None:
    document = json.loads(export(report, "json"))
    assert [(entry["name"], entry["trials"]) for entry in document["machines"]] == [
        ("Test CPU, 2 cores", ["t-0000"]),
        ("NVIDIA H200", ["t-0001"]),
    ]
    columns = document["comparison"]["columns"]
    assert [column["machine"] for column in columns] == ["Test CPU, 2 cores", "NVIDIA H200"]


def test_the_command_lines_comparison_has_a_row_of_machines(report: Report) -> None:
    facts = {key: json.loads(text) for key, text in report.environments}
    comparison = compare(report.trials(), report.baseline_id, facts)
    (line,) = [
        line
        for line in comparison_text(comparison, "table").splitlines()
        if line.startswith("Machine")
    ]
    assert "NVIDIA H200" in line
    rows = list(csv.DictReader(io.StringIO(comparison_text(comparison, "csv"))))
    assert {row["machine"] for row in rows} == {"Test CPU, 2 cores", "NVIDIA H200"}
