"""Reports: frozen, versioned, the same bytes twice, and harmless whatever the stored text says."""

from __future__ import annotations

import csv
import html
import io
import json
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from app.cli.compare import comparison_text
from app.reports import export, new_report
from app.services import Services
from core.errors import BadInput
from core.report import Report
from core.study import Study
from core.verdict.compare import compare
from core.verdict.documents import study_document

HOSTILE = (
    "<script>alert(1)</script>",
    "</script><img src=x onerror=alert(1)>",
    '"><svg onload=alert(1)>',
    "[click](javascript:alert(1))",
    "| cell | `code` **bold** ![i](http://x/y.png)",
    '=HYPERLINK("http://x","y")',
    "{{ 7 * 7 }}{% raw %}",
    "a\nb\n# not a heading",
)


def report_of(study: Study, title: str = "INT8 or INT4", note: str = "why") -> Report:
    done = tuple(trial.id for trial in study.done())
    assert study.baseline is not None
    facts = json.dumps({"cpu": "Test CPU", "flags": ["avx2"], "note": note})
    at, environments = "2026-11-21T10:30:00.000", (("env-7f3a", facts),)
    return Report("r-1", 2, title, study, done, study.baseline.id, at, note, environments)


class Page(HTMLParser):
    """Collects what a page would load or run, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.handlers: list[str] = []
        self.tags: list[str] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "action", "data", "srcset"):
                self.loads.append(value or "")
            if name.startswith("on"):
                self.handlers.append(f"{tag} {name}")

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.mark.parametrize("format_", ["html", "md", "csv", "json"])
def test_a_report_exports_to_the_same_bytes_twice(synthetic_study: Study, format_: str) -> None:
    report = report_of(synthetic_study)
    assert export(report, format_) == export(report, format_)


def test_an_unknown_format_names_the_known_ones(synthetic_study: Study) -> None:
    with pytest.raises(BadInput, match="html, md, csv, json"):
        export(report_of(synthetic_study), "docx")


def test_the_page_loads_nothing_and_forbids_every_request(synthetic_study: Study) -> None:
    page = Page(export(report_of(synthetic_study), "html").decode())
    assert [one for one in page.loads if not one.startswith(("#", "data:"))] == []
    assert page.handlers == []
    text = export(report_of(synthetic_study), "html").decode()
    assert "default-src 'none'" in html.unescape(text)
    assert text.count('http-equiv="Content-Security-Policy"') == 1


@pytest.mark.parametrize("payload", HOSTILE)
def test_hostile_text_comes_out_as_text(synthetic_study: Study, payload: str) -> None:
    calm = Page(export(report_of(synthetic_study), "html").decode())
    trials = tuple(
        replace(trial, reason=payload, notes=(payload,)) for trial in synthetic_study.trials
    )
    hostile = report_of(synthetic_study.with_trials(trials), payload, payload)
    page = Page(export(hostile, "html").decode())
    assert page.handlers == []
    assert page.tags.count("script") == calm.tags.count("script")
    assert "svg" not in page.tags
    assert [one for one in page.loads if "javascript" in one or "//" in one] == []
    markdown = export(hostile, "md").decode()
    assert "<script" not in markdown.replace("\\<script", "")
    assert "](javascript" not in markdown.replace("\\](javascript", "")
    lines = markdown.splitlines()
    assert lines[0].startswith("# ")
    assert "# not a heading" not in lines
    json.loads(export(hostile, "json"))


def test_csv_has_one_row_per_trial_and_metric_and_no_formula(synthetic_study: Study) -> None:
    report = report_of(synthetic_study)
    rows = list(csv.DictReader(io.StringIO(export(report, "csv").decode())))
    metrics = {row["metric"] for row in rows}
    assert len(rows) == len(metrics) * len(report.trial_ids)
    for trial in report.trials():
        for row in rows:
            if row["trial"] == trial.id:
                value = trial.value(row["metric"])
                assert row["value"] == ("" if value is None else str(value))
    formula = replace(report, id="=1+1")
    for line in csv.reader(io.StringIO(export(formula, "csv").decode())):
        assert not line[0].startswith("=")


def test_json_holds_the_documented_document(synthetic_study: Study) -> None:
    report = report_of(synthetic_study)
    found = json.loads(export(report, "json"))
    facts = {key: json.loads(text) for key, text in report.environments}
    documented = json.loads(json.dumps(study_document(synthetic_study, facts)))
    assert [machine["name"] for machine in documented["machines"]] == ["Test CPU"]
    assert {key: found[key] for key in documented} == documented
    assert found["report"]["version"] == 2


def test_the_same_title_makes_the_next_version(filled: Services, synthetic_study: Study) -> None:
    store, study = filled.store, synthetic_study
    first = new_report(store, study.id, "Which one?")
    second = new_report(store, study.id, " Which  one? ")
    other = new_report(store, study.id, "Another")
    assert (second.id, second.version) == (first.id, 2)
    assert other.id != first.id
    assert store.report(first.id, 1) == first
    with pytest.raises(BadInput, match="title"):
        new_report(store, study.id, "  ")
    with pytest.raises(BadInput, match="t-none"):
        new_report(store, study.id, "x", ("t-none",))
    with pytest.raises(BadInput, match="s-none"):
        new_report(store, "s-none", "x")


@pytest.mark.parametrize("format_", ["html", "md", "csv", "json"])
def test_every_format_warns_of_unlike_environments_and_names_what_differs(
    synthetic_study: Study, format_: str
) -> None:
    first, second, *rest = synthetic_study.trials
    moved = tuple(replace(one, environment="env-b") for one in second.measurements)
    study = synthetic_study.with_trials((first, replace(second, measurements=moved), *rest))
    facts = (("env-7f3a", '{"compiler": "gcc 12"}'), ("env-b", '{"compiler": "gcc 14"}'))
    report = replace(report_of(study), environments=facts)
    text = html.unescape(export(report, format_).decode())
    assert "unlike environments" in text
    assert "compiler (gcc 12 / gcc 14)" in text
    if format_ == "csv":
        assert all("gcc 14" in row["warning"] for row in csv.DictReader(io.StringIO(text)))
    alike = replace(report, environments=(facts[0], ("env-b", facts[0][1])))
    assert "unlike environments" not in export(alike, format_).decode()


def test_the_baselines_column_is_named_once(synthetic_study: Study) -> None:
    first, second = synthetic_study.trials[:2]
    for chosen, wanted in ((first, "baseline"), (second, f"{second.plan.title} (baseline)")):
        found = compare((first, second), chosen.id)
        assert "baseline (baseline)" not in comparison_text(found, "table")
        assert wanted in comparison_text(found, "md").replace("\\", "")


@pytest.mark.parametrize("format_", ["table", "md", "csv", "json"])
def test_compare_warns_in_every_format(synthetic_study: Study, format_: str) -> None:
    first, second = synthetic_study.trials[:2]
    moved = tuple(replace(one, environment="env-b") for one in second.measurements)
    facts = {"env-7f3a": {"kernel": "6.1"}, "env-b": {"kernel": "6.18"}}
    found = compare((first, replace(second, measurements=moved)), first.id, facts)
    assert "kernel (6.1 / 6.18)" in comparison_text(found, format_).replace("\\", "")
