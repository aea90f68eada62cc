"""A report as JSON: the study's documented document, the comparison, and what was frozen beside
them.
"""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

from app.reports.content import content_of
from core.report import Report
from core.verdict.documents import study_document


def render(report: Report) -> str:
    """One JSON document; numbers that are not finite become null."""
    content = content_of(report)
    document = {
        "report": {
            "id": report.id,
            "version": report.version,
            "title": report.title,
            "note": report.note,
            "created_at": report.created_at,
            "who": report.who or None,
            "trials": list(report.trial_ids),
            "baseline": report.baseline_id,
        },
        **study_document(report.study, dict(content.facts)),
        "comparison": dataclasses.asdict(content.comparison),
        "environments": {key: dict(facts) for key, facts in content.environments},
    }
    return json.dumps(_finite(document), indent=2, ensure_ascii=True, default=str) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
