"""A report as one HTML file that opens offline: no address is fetched, only its own scripts run.

The page's policy forbids every request and allows scripts by their digest alone, so that even text
that escaped the escaping could not run.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from app.figures import charts
from app.reports import words
from app.reports.content import ReportContent, content_of
from core import format, metrics
from core.report import Report
from core.verdict.method_notes import method_notes

TEMPLATES = Path(__file__).parent / "templates"


def render(report: Report) -> str:
    """The whole page."""
    content = content_of(report)
    script = _read("report.js")
    figures = _figures(content)
    library = _library() if figures else ""
    sources = [_digest(text) for text in ((library, script) if figures else ())]
    return (
        _environment()
        .get_template("report.html")
        .render(
            c=content,
            report=report,
            style=Markup(_read("report.css")),
            script=Markup(script),
            library=Markup(library),
            figures=figures,
            policy=_policy(sources),
            alt=_alt(content),
            metric=metrics.metric,
            format=format,
            words=words,
            method_notes=method_notes(),
        )
    )


def _policy(scripts: list[str]) -> str:
    """Nothing from anywhere; Plotly writes style attributes and saves images through data and
    blob.
    """
    allowed = " ".join(f"'{source}'" for source in scripts) or "'none'"
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _figures(content: ReportContent) -> Markup:
    """The trade-off chart in both themes as JSON that cannot end its script element."""
    if content.axes is None:
        return Markup("")
    report = content.report
    titles = {mark.trial_id: mark.title for mark in content.marks}
    shown = [
        replace(point, title=titles.get(point.trial_id, point.title))
        for point in charts.points(report.trials(), *content.axes)
    ]
    both = {
        name: charts.pareto(
            shown,
            *content.axes,
            frontier=content.frontier,
            baseline_id=report.baseline_id,
            recommended_id=content.advice.trial_id if content.advice.proven else None,
            limits=report.study.priorities.limits,
            dark=dark,
        ).to_plotly_json()
        for name, dark in (("light", False), ("dark", True))
    }
    text = json.dumps({**both, "config": charts.CONFIG}, default=_plain, sort_keys=True)
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)


def _plain(value: object) -> object:
    """Plotly's own objects (the template) as plain data."""
    return value.to_plotly_json()  # type: ignore[attr-defined]


def _alt(content: ReportContent) -> str:
    """What the chart shows, for those who cannot see it."""
    if content.axes is None:
        return ""
    x, y = (metrics.metric(name) for name in content.axes)
    known = sum(mark.x.value is not None and mark.y.value is not None for mark in content.marks)
    text = f"Scatter of {y.label} over {x.label} for {known} trials, {len(content.frontier)} on "
    return text + "the frontier. The table below holds the same numbers."


@lru_cache(maxsize=1)
def _library() -> str:
    return str(get_plotlyjs()).replace("\r\n", "\n")


def _read(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


@lru_cache(maxsize=1)
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
