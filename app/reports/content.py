"""What a report says, independent of the format: HTML and Markdown lay out the same content.

Decides wording, order and grouping; judges nothing itself and escapes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from app.reports.axes import choose_axes
from app.reports.words import in_words, verdict, when
from core import format, metrics
from core.machine.stays import stays
from core.model import DecoderShape
from core.report import Report
from core.study import KernelCalls, Study, Trial
from core.verdict import utility
from core.verdict.anchor import anchored
from core.verdict.compare import compare
from core.verdict.comparison import ABSENT, Cell, Column, Comparison, Row, machine_names
from core.verdict.frontier import frontier
from core.verdict.recommend import Recommendation, recommend

# More columns than a printed page holds are split, each part with the baseline again.
CANDIDATES_PER_BLOCK = 4
# (label, text)
_Lines = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Tile:
    """A headline number of the recommended trial against the baseline."""

    label: str
    text: str
    before: str
    ratio: str
    verdict: str
    origin: str


@dataclass(frozen=True)
class Block:
    """Some of the compared columns, the baseline first, and the rows that differ anywhere."""

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class PointMark:
    """A trial in the trade-off chart's table."""

    trial_id: str
    title: str
    x: Cell
    y: Cell
    role: str


@dataclass(frozen=True)
class ReportContent:
    """A report in words and numbers; texts are raw and must be escaped by the format."""

    report: Report
    created: str
    asked: tuple[tuple[str, str], ...]
    weights: tuple[tuple[str, float], ...]
    limits: tuple[str, ...]
    advice: Recommendation
    heading: str
    chosen: str
    rejected: tuple[tuple[str, str, str], ...]
    tiles: tuple[Tile, ...]
    comparison: Comparison
    blocks: tuple[Block, ...]
    same: tuple[tuple[str, str], ...]
    missing: tuple[tuple[str, str], ...]
    axes: tuple[str, str] | None
    frontier: tuple[str, ...]
    marks: tuple[PointMark, ...]
    kernels: tuple[tuple[str, tuple[KernelCalls, ...]], ...]
    unfinished: tuple[Trial, ...]
    environments: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]
    facts: tuple[tuple[str, Mapping[str, Any]], ...]
    definitions: tuple[tuple[metrics.Metric, str], ...]


def content_of(report: Report) -> ReportContent:
    """Everything the report says, from the frozen snapshot alone."""
    report = replace(report, study=anchored(report.study))
    study, trials = report.study, report.trials()
    facts = {key: _facts(text) for key, text in report.environments}
    comparison = compare(trials, report.baseline_id, facts, study.priorities.margins)
    advice = recommend(study)
    titles = {trial.id: trial.plan.title for trial in study.trials}
    axes = choose_axes(trials, study.priorities)
    front = () if axes is None else tuple(trial.id for trial in frontier(trials, axes))
    missing = tuple(_missing(row) for row in comparison.metrics() if not _known(row))
    return ReportContent(
        report=report,
        created=when(report.created_at) + (f" by {report.who}" if report.who else ""),
        asked=(*_asked(study), *_measured_on(study, facts)),
        weights=tuple((word, weight) for word, weight in study.priorities.weights if weight > 0),
        limits=tuple(in_words(limit) for limit in study.priorities.limits),
        advice=advice,
        heading=_heading(advice),
        chosen=titles.get(advice.trial_id or "", ""),
        rejected=tuple((key, titles.get(key, key), why) for key, why in advice.rejected),
        tiles=_tiles(study, advice),
        comparison=comparison,
        blocks=_blocks(comparison),
        same=tuple((r.label, r.cells[0].text) for r in comparison.settings() if not r.differs),
        missing=missing,
        axes=axes,
        frontier=front,
        marks=_marks(comparison, axes, front, advice),
        kernels=tuple((trial.plan.title, trial.kernels) for trial in trials if trial.kernels),
        unfinished=tuple(trial for trial in study.trials if trial.state != "done"),
        environments=tuple((key, tuple(_flat(values))) for key, values in facts.items()),
        facts=tuple(facts.items()),
        definitions=tuple(_definition(row) for row in comparison.metrics()),
    )


def _heading(advice: Recommendation) -> str:
    """What stands over the choice: nothing reads as settled that is not proven."""
    if advice.trial_id is None:
        return "No recommendation"
    return "Recommended" if advice.proven else "Leading, not proven yet"


def _asked(study: Study) -> _Lines:
    case = study.case
    model, target, load = case.model, case.target, case.workload
    lines = [
        (
            "Model",
            f"{model.title or model.id}: {format.weights(model.params(), model.active_params())},"
            f" {model.bits} bit",
        )
    ]
    lines.append(("Weights", f"{model.source}, {model.revision or 'revision unknown'}"))
    if isinstance(model.shape, DecoderShape):
        shape = model.shape
        lines.append(
            (
                "Shape",
                f"{shape.layers} layers, hidden {shape.hidden}, vocabulary {shape.vocabulary:,}",
            )
        )
    memory = format.number(float(target.memory_bytes), "B")
    lines.append(("Target", f"{target.name or target.id}: {target.kind}, {memory}"))
    traffic = load.title or load.id
    if load.task == "text":
        traffic += f": {load.prompt_tokens:,} tokens in, {load.output_tokens:,} out"
    lines.append(("Workload", f"{traffic}, {load.concurrency:,} at a time"))
    effort = f"{study.preset} preset, seed {study.seed}"
    if study.budget_s is not None:
        effort += f", budget {format.number(study.budget_s, 's')}"
    lines.append(("Effort", effort))
    counts = [f"{len(study.trials)} trials"]
    for state in ("done", "failed", "refused", "cancelled", "running", "queued"):
        number = sum(trial.state == state for trial in study.trials)
        if number:
            counts.append(f"{number} {state}")
    return (*lines, ("Trials", ", ".join(counts)))


def _measured_on(study: Study, facts: Mapping[str, Mapping[str, Any]]) -> _Lines:
    """What the trials ran on, a line each machine; nothing where it was not recorded."""
    label = "Measured on" if study.case.target.local else "Ran on"
    return tuple((label, stay.line) for stay in stays(study.trials, facts))


def _tiles(study: Study, advice: Recommendation) -> tuple[Tile, ...]:
    """One headline a priority word, by the metric that decided where one did, most important first;
    none when the baseline is advised."""
    # The advice is judged by the unchanged model, whatever the report compares with.
    chosen, base = study.trial(advice.trial_id or ""), study.baseline
    if chosen is None or base is None or chosen.id == base.id:
        return ()
    comparison = compare((base, chosen), base.id)
    decided = {name for _, name in utility.axes(study)}
    tiles: dict[str, Tile] = {}
    for row in comparison.metrics():
        before, after = row.cells
        word = metrics.metric(row.key).priority
        preferred = row.key in decided or word not in tiles
        if word and preferred and after.value is not None:
            ratio = format.ratio(after.ratio) if after.ratio is not None else ""
            tiles[word] = Tile(
                row.label, after.text, before.text, ratio, verdict(after), after.origin
            )
    order = sorted(tiles, key=lambda word: -study.priorities.weight(word))
    return tuple(tiles[word] for word in order[:5])


def _blocks(comparison: Comparison) -> tuple[Block, ...]:
    base = next(i for i, column in enumerate(comparison.columns) if column.is_baseline)
    others = [i for i in range(len(comparison.columns)) if i != base]
    rows = [row for row in comparison.rows if _shown(row)]
    parts = range(0, max(len(others), 1), CANDIDATES_PER_BLOCK)
    blocks = []
    for start in parts:
        keep = [base, *others[start : start + CANDIDATES_PER_BLOCK]]
        blocks.append(
            Block(
                tuple(comparison.columns[i] for i in keep),
                tuple(part for row in rows if (part := _part(row, keep)) is not None),
            )
        )
    return tuple(blocks)


def _shown(row: Row) -> bool:
    return row.differs if row.kind == "setting" else _known(row)


def _known(row: Row) -> bool:
    return any(cell.value is not None for cell in row.cells)


def _part(row: Row, keep: list[int]) -> Row | None:
    """The row with these cells alone; None for a setting that none of them has."""
    cells = tuple(row.cells[i] for i in keep)
    if row.kind == "setting" and all(cell.text == ABSENT for cell in cells):
        return None
    return Row(row.key, row.label, row.kind, cells, row.differs, row.group, row.unit, row.better)


def _missing(row: Row) -> tuple[str, str]:
    reasons = dict.fromkeys(cell.method or cell.why for cell in row.cells)
    return row.label, "; ".join(filter(None, reasons))


def _marks(
    comparison: Comparison,
    axes: tuple[str, str] | None,
    front: tuple[str, ...],
    advice: Recommendation,
) -> tuple[PointMark, ...]:
    if axes is None:
        return ()
    x, y = (comparison.row(name) for name in axes)
    if x is None or y is None:
        return ()
    marks = []
    on = {key: f" · {name}" for key, name in machine_names(comparison.columns).items()}
    for column, across, up in zip(comparison.columns, x.cells, y.cells, strict=True):
        roles = {
            "baseline": column.is_baseline,
            "recommended" if advice.proven else "leading": column.trial_id == advice.trial_id,
            "frontier": column.trial_id in front,
        }
        role = ", ".join(word for word, holds in roles.items() if holds)
        title = column.title + on.get(column.trial_id, "")
        marks.append(PointMark(column.trial_id, title, across, up, role))
    return tuple(marks)


def _definition(row: Row) -> tuple[metrics.Metric, str]:
    methods = dict.fromkeys(
        cell.method for cell in row.cells if cell.method and cell.value is not None
    )
    return metrics.metric(row.key), "; ".join(methods)


def _facts(text: str) -> dict[str, Any]:
    try:
        facts = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return facts if isinstance(facts, dict) else {}


def _flat(facts: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested facts as `key.inner` -> text; lists in one line."""
    pairs = []
    for key, value in facts.items():
        if isinstance(value, dict) and len(prefix) < 200:
            pairs.extend(_flat(value, f"{prefix}{key}."))
        elif isinstance(value, list):
            pairs.append((f"{prefix}{key}", ", ".join(str(item) for item in value)))
        else:
            pairs.append((f"{prefix}{key}", "unknown" if value is None else str(value)))
    return pairs
