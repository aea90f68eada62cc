"""Reports: freeze a comparison, and export it as HTML, Markdown, CSV or JSON.

The same report exports to the same bytes; nothing is fetched and no clock is read on export.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from json import dumps

from app.reports import csv_rows, json_document, markdown_page
from core.errors import BadInput
from core.ids import new_id, now
from core.report import Report
from core.study import Study
from core.verdict.recommend import recommend
from store.interface import Store

FORMATS = ("html", "md", "csv", "json")
MEDIA_TYPES = {
    "html": "text/html",
    "md": "text/markdown",
    "csv": "text/csv",
    "json": "application/json",
}
TITLE_LIMIT = 200
NOTE_LIMIT = 20_000


def new_report(
    store: Store,
    study_id: str,
    title: str,
    trial_ids: Sequence[str] | None = None,
    baseline_id: str | None = None,
    note: str = "",
    who: str = "",
) -> Report:
    """Freeze a study's comparison in the store.

    Without `trial_ids` all finished trials are compared, the recommended and the frontier first;
    without `baseline_id` the study's own baseline judges them. The same title on the same study
    makes the next version of the same report. BadInput names an unknown study or trial, or a bad
    title.
    """
    study = store.study(study_id)
    if study is None:
        raise BadInput(f"unknown study {study_id!r}: `trimtab studies` lists them")
    title = " ".join(title.split())
    if not title:
        raise BadInput("a report needs a title: give one with --title")
    for name, text, limit in (("title", title, TITLE_LIMIT), ("note", note, NOTE_LIMIT)):
        if len(text) > limit:
            raise BadInput(
                f"the report's {name} has {len(text):,} characters: at most {limit:,} are kept"
            )
    chosen = tuple(trial_ids) if trial_ids else _default_trials(study)
    baseline_id = baseline_id or (study.baseline.id if study.baseline else chosen[0])
    chosen = (baseline_id, *(choice for choice in dict.fromkeys(chosen) if choice != baseline_id))
    for trial_id in chosen:
        if study.trial(trial_id) is None:
            raise BadInput(
                f"trial {trial_id!r} is not in study {study.id}: `trimtab show {study.id}`"
            )
    environments = _environments(store, study, chosen)
    saved = (report for report in store.reports() if report.study.id == study.id)
    last = next((report for report in saved if report.title == title), None)
    report = Report(
        id=new_id("r") if last is None else last.id,
        version=1 if last is None else last.version + 1,
        title=title,
        study=study,
        trial_ids=chosen,
        baseline_id=baseline_id,
        created_at=now(),
        note=note,
        environments=environments,
        who=who,
    )
    store.save_report(report)
    return report


def export(report: Report, format: str) -> bytes:
    """The report as `html` (one file, opens offline), `md`, `csv` or `json`; else BadInput."""
    writers: dict[str, Callable[[Report], str]] = {
        "html": _html,
        "md": markdown_page.render,
        "csv": csv_rows.render,
        "json": json_document.render,
    }
    if format not in writers:
        raise BadInput(f"unknown report format {format!r}: choose one of {', '.join(FORMATS)}")
    # Lone surrogates cannot be written as UTF-8; a name that carries one must not stop the export.
    return writers[format](report).encode("utf-8", "replace")


def file_name(report: Report, format: str) -> str:
    """A harmless name for the exported file: `int8-or-int4-v2.html`."""
    words = "".join(
        letter if letter.isascii() and letter.isalnum() else " " for letter in report.title
    )
    stem = "-".join(words.lower().split())[:60].strip("-") or "report"
    return f"{stem}-v{report.version}.{format}"


def _default_trials(study: Study) -> tuple[str, ...]:
    done = [trial.id for trial in study.done()]
    if not done:
        raise BadInput(f"study {study.id} has no finished trial yet: there is nothing to report")
    advice = recommend(study)
    first = [trial_id for trial_id in (advice.trial_id, *advice.frontier) if trial_id in done]
    return tuple(dict.fromkeys([*first, *done]))


def _environments(
    store: Store, study: Study, trial_ids: Sequence[str]
) -> tuple[tuple[str, str], ...]:
    environments: dict[str, str] = {}
    for trial in study.trials:
        if trial.id in trial_ids:
            for key in trial.environments:
                if key not in environments:
                    facts = store.environment(key)
                    environments[key] = dumps(facts or {}, sort_keys=True, default=str)
    return tuple(environments.items())


def _html(report: Report) -> str:
    from app.reports.html_page import render

    return render(report)
