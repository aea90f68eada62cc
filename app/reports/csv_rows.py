"""A report as CSV: one row per trial and metric. A cell that a spreadsheet would run as a formula
is made inert.
"""

from __future__ import annotations

import csv
import io

from app.reports.content import content_of
from core.report import Report

HEAD = (
    "report",
    "version",
    "trial",
    "plan",
    "state",
    "metric",
    "value",
    "low",
    "high",
    "n",
    "unit",
    "origin",
    "change",
    "ratio_low",
    "ratio_high",
    "verdict",
    "method",
    "warning",
    "machine",
)
# The last four are the wide forms, which spreadsheets set to Japanese read as the plain ones.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def render(report: Report) -> str:
    """The table with its head; lines end as RFC 4180 says."""
    comparison = content_of(report).comparison
    # On every line: one that is taken out of the table keeps it.
    warning = " ".join(comparison.warnings)
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(HEAD)
    for row in comparison.metrics():
        for column, cell in zip(comparison.columns, row.cells, strict=True):
            writer.writerow(
                inert(value)
                for value in (
                    report.id,
                    report.version,
                    column.trial_id,
                    column.title,
                    column.state,
                    row.key,
                    cell.value,
                    cell.low,
                    cell.high,
                    cell.n,
                    cell.unit,
                    cell.origin,
                    cell.change,
                    cell.ratio_low,
                    cell.ratio_high,
                    cell.verdict,
                    cell.method or cell.why,
                    warning,
                    column.machine,
                )
            )
    return out.getvalue()


def inert(value: object) -> object:
    """`value` for a CSV cell: unknown is empty, numbers stay numbers, text never starts a
    formula.
    """
    if value is None:
        return ""
    if isinstance(value, str) and value.startswith(_FORMULA):
        return "'" + value
    return value
