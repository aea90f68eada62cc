"""A report as Markdown: the same content as the HTML page, in tables. Stored text cannot become
markup.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from app.reports import words
from app.reports.content import Block, ReportContent, content_of
from core import format, metrics
from core.report import Report
from core.verdict.method_notes import method_notes

_SPECIAL = re.compile(r"([\\`*_\[\]<>|~&$!]|^[-+#=])")


def render(report: Report) -> str:
    """The whole document, ending in one line end."""
    content = content_of(report)
    parts = [
        *_head(content),
        *_advice(content),
        *_asked(content),
        *_comparison(content),
        *_tradeoff(content),
        *_evidence(content),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def escape(text: object) -> str:
    """One line of text in which no character means markup or HTML."""
    plain = " ".join(str(text).split())
    return _SPECIAL.sub(r"\\\1", plain)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A pipe table of cells that are escaped already."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _head(content: ReportContent) -> list[str]:
    report = content.report
    facts = (
        f"Version {report.version}, {content.created}, study {report.study.id}, report {report.id}"
    )
    return [f"# {escape(report.title)}", escape(facts), escape(report.note)]


def _advice(content: ReportContent) -> list[str]:
    parts = [f"## {content.heading}"]
    if content.advice.trial_id:
        parts.append(f"**{escape(content.chosen)}** ({escape(content.advice.trial_id)})")
    parts.append("\n".join(f"- {escape(sentence)}" for sentence in content.advice.because))
    if content.rejected:
        rows = [
            [escape(title), escape(trial_id), escape(why)]
            for trial_id, title, why in content.rejected
        ]
        beside = "The other trials that nothing beats on every axis of the priorities."
        parts += ["## Why not the others", beside, table(["Plan", "Trial", "Why not"], rows)]
    return parts


def _asked(content: ReportContent) -> list[str]:
    rows = [[escape(label), escape(text)] for label, text in content.asked]
    weights = ", ".join(f"{word} {format.plain(weight)}" for word, weight in content.weights)
    rows.append(["Priorities", escape(weights or "none")])
    rows.append(["Hard limits", escape(", ".join(content.limits) or "none")])
    return ["## What was asked", table(["Asked", "Answer"], rows)]


def _comparison(content: ReportContent) -> list[str]:
    parts = ["## Side by side"]
    parts.append(
        "\n".join(f"- Warning: {escape(warning)}" for warning in content.comparison.warnings)
    )
    parts += [_block(block) for block in content.blocks]
    if content.same:
        same = [[escape(label), escape(text)] for label, text in content.same]
        parts += ["Alike in every trial:", table(["Setting", "Value"], same)]
    if content.missing:
        missing = [
            [escape(label), escape(why or "no reason was recorded")]
            for label, why in content.missing
        ]
        parts += ["Not known of any trial:", table(["Metric", "Why"], missing)]
    return parts


def _block(block: Block) -> str:
    heads = [escape(words.heading(column)) for column in block.columns]
    rows = [["Trial", *(escape(column.trial_id) for column in block.columns)]]
    for row in block.rows:
        cells = []
        for cell in row.cells:
            spread = words.spread(cell, row)
            parts = [
                cell.text,
                f"[{spread}]" if spread else "",
                words.change(cell, row),
                words.verdict(cell),
                words.source(cell),
            ]
            cells.append("<br>".join(escape(part) for part in parts if part))
        rows.append([escape(row.label), *cells])
    return table(["", *heads], rows)


def _tradeoff(content: ReportContent) -> list[str]:
    if content.axes is None:
        return []
    x, y = (metrics.metric(name) for name in content.axes)
    rows = [
        [
            escape(mark.title),
            escape(mark.trial_id),
            escape(mark.x.text),
            escape(mark.y.text),
            escape(mark.role),
        ]
        for mark in content.marks
    ]
    heads = ["Plan", "Trial", escape(x.label), escape(y.label), "Role"]
    return ["## Trade-off", table(heads, rows)]


def _evidence(content: ReportContent) -> list[str]:
    parts = []
    if content.kernels:
        rows = [
            [escape(title), escape(run.op), escape(run.name), f"{run.calls:,}"]
            for title, runs in content.kernels
            for run in runs
        ]
        parts += ["## Kernels that ran", table(["Plan", "Operation", "Kernel", "Calls"], rows)]
    if content.unfinished:
        rows = [
            [escape(trial.plan.title), trial.state, escape(trial.reason or "none was recorded")]
            for trial in content.unfinished
        ]
        parts += ["## Trials that did not finish", table(["Plan", "State", "Reason"], rows)]
    for identifier, facts in content.environments:
        rows = [[escape(key), escape(text)] for key, text in facts]
        parts += [f"## Environment {escape(identifier)}", table(["Fact", "Value"], rows)]
    rows = [
        [escape(metric.label), metric.better, escape(metric.meaning), escape(method)]
        for metric, method in content.definitions
    ]
    parts += ["## Definitions", table(["Metric", "Better", "Meaning", "How"], rows)]
    parts += ["## Method", "\n".join(f"- {escape(note)}" for note in method_notes())]
    return parts
