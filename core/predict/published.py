"""What this project predicts for a published row: the same plan, in the row's own metric."""

from __future__ import annotations

from collections.abc import Iterable

from core import techniques
from core.catalogue.published import PublishedRow
from core.machine import targets
from core.measurement import Measurement
from core.plan import Case, Plan
from core.predict.estimate import predict
from core.predict.roofline import Span
from core.workload import Workload


def predicted(row: PublishedRow) -> Span | None:
    """The predicted range of the row's metric; None where nothing can be predicted."""
    return in_its_metric(row, predict(plan_of(row)))


def in_its_metric(row: PublishedRow, measurements: Iterable[Measurement]) -> Span | None:
    """The range of the row's metric that measurements of its plan say; None where none does."""
    wanted = row.metric
    if row.metric == "latency_s":
        wanted = "latency_p95_s"
    elif row.metric.endswith("_tokens_per_s"):
        wanted = "tpot_s" if row.metric.startswith("decode") else "ttft_s"
    found = next((entry for entry in measurements if entry.metric == wanted), None)
    if found is None or found.value is None or found.bounds is None:
        return None
    low, high = found.bounds
    if not row.metric.endswith("_tokens_per_s"):
        return Span(low, high, found.value)
    tokens = row.batch if wanted == "tpot_s" else row.prompt * row.batch
    return Span(tokens / high, tokens / low, tokens / found.value)


def plan_of(row: PublishedRow) -> Plan:
    """The row's model, target, traffic and weights as a plan; a batch is served together."""
    task = row.model.task
    traffic = Workload("published", row.id, task, row.prompt, row.output, row.batch)
    words = (*row.techniques, *([f"static-batch:size={row.batch}"] if row.batch > 1 else []))
    chosen = tuple(techniques.parse(text) for text in words)
    return Plan(Case(row.model, targets.resolve(row.target), traffic), chosen)
