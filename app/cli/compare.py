"""A comparison as text for the command line: table, Markdown, CSV or JSON."""

from __future__ import annotations

import csv
import dataclasses
import io
import json

from app.reports.csv_rows import inert
from app.reports.markdown_page import escape, table
from app.reports.words import change, heading, source, spread, verdict
from core.verdict.comparison import Cell, Comparison, Row


def comparison_text(comparison: Comparison, format_: str) -> str:
    """`table`, `md`, `csv` or `json`; rows that do not differ are left out of the table and
    Markdown.
    """
    if format_ == "json":
        return json.dumps(dataclasses.asdict(comparison), indent=2, default=str) + "\n"
    if format_ == "csv":
        return _csv(comparison)
    head = ["", *(column.trial_id for column in comparison.columns)]
    titles = ["techniques", *map(heading, comparison.columns)]
    rows = [head, titles] + [
        [row.label, *(_cell(cell, row) for cell in row.cells)]
        for row in comparison.rows
        if row.differs
    ]
    warnings = [f"warning: {warning}" for warning in comparison.warnings]
    if format_ == "md":
        cells = [[escape(cell) for cell in row] for row in rows]
        parts = [table(cells[0], cells[1:]), *map(escape, warnings)]
        return "\n\n".join(parts) + "\n"
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return "\n".join([*lines, *warnings]) + "\n"


def _cell(cell: Cell, row: Row) -> str:
    parts = [
        cell.text,
        f"[{spread(cell, row)}]" if spread(cell, row) else "",
        change(cell, row),
        verdict(cell),
        source(cell),
    ]
    return "  ".join(filter(None, parts))


def _csv(comparison: Comparison) -> str:
    """One line a trial and row, each with the warnings, so that a line taken out keeps them.

    A cell that a spreadsheet would run as a formula gets a leading apostrophe.
    """
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(
        [
            "trial",
            "techniques",
            "key",
            "value",
            "low",
            "high",
            "n",
            "unit",
            "origin",
            "change",
            "verdict",
            "warning",
            "machine",
        ]
    )
    warning = " ".join(comparison.warnings)
    for row in comparison.rows:
        for column, cell in zip(comparison.columns, row.cells, strict=True):
            values = [
                column.trial_id,
                column.title,
                row.key,
                cell.value,
                cell.low,
                cell.high,
                cell.n,
                cell.unit,
                cell.origin,
                cell.change,
                cell.verdict,
                warning,
                column.machine,
            ]
            writer.writerow([inert(value) for value in values])
    return out.getvalue()
