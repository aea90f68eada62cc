"""Rates that others published, read from published.toml and checked: what, where, by which program,
when, and who says so. Nothing here was measured by this project, and nothing mixes the two.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.catalogue import models, tables, targets
from core.errors import BadInput
from core.measurement import Measurement
from core.metrics import BY_NAME, metric
from core.model import ClassifierShape, Model

FILE = tables.FOLDER / "published.toml"
# What others publish beside this project's own metrics: all sequences of a batch together.
RATES = ("decode_tokens_per_s", "prompt_tokens_per_s")
USES = ("fit", "held-out")
_CLASSIFIER = ("parameters", "macs", "inputs", "classes", "activations")
_TEXTS = ("target", "model", "metric", "unit", "program", "dated", "source", "use")
_FIELDS = ("id", *_TEXTS, "techniques", "prompt", "output", "batch", "value", "conditions", "miss")


@dataclass(frozen=True)
class PublishedRow:
    """One published number. `techniques` say how the weights were stored, `prompt`, `output` and
    `batch` what was asked (0 tokens for images); `miss` is the reason why our band does not hold
    it, "" where it does.
    """

    id: str
    target: str
    model: Model
    techniques: tuple[str, ...]
    prompt: int
    output: int
    batch: int
    metric: str
    value: float
    unit: str
    program: str
    dated: str
    source: str
    use: str  # fit | held-out
    conditions: str = ""
    miss: str = ""

    def measurement(self) -> Measurement:
        """The number with origin `published`, its program, conditions, date and source."""
        how = ", ".join(filter(None, (self.program, self.conditions, self.dated, self.source)))
        return Measurement(self.metric, (), self.unit, "published", how, pooled=self.value)


@functools.lru_cache(maxsize=1)
def rows() -> tuple[PublishedRow, ...]:
    """Every published row, read once."""
    return load(FILE)


def load(path: Path) -> tuple[PublishedRow, ...]:
    """Read and check a file of published rows; BadInput names the row and the field."""
    document = tables.read(path)
    tables.only(document, ("row", "sources", "classifier"), path.name)
    sources = document.get("sources", {})
    if not isinstance(sources, dict) or not all(isinstance(text, str) for text in sources.values()):
        raise BadInput(f"{path.name}: [sources] must map short names to texts")
    classifiers = _classifiers(document.get("classifier", {}), path.name)
    return tuple(
        _row(item, sources, classifiers, f"{path.name}: {item['id']}")
        for item in tables.entries(document, "row", path.name)
    )


def _row(
    item: dict[str, Any], sources: dict[str, str], classifiers: dict[str, Model], where: str
) -> PublishedRow:
    tables.only(item, _FIELDS, where)
    words = {name: tables.text(item, name, where) for name in _TEXTS}
    tables.text(item, "metric", where, (*RATES, *BY_NAME))
    tables.text(item, "unit", where, (_unit(words["metric"]),))
    tables.text(item, "use", where, USES)
    tables.text(item, "source", where, tuple(sources))
    if not re.fullmatch(r"\d{4}-\d{2}(-\d{2})?", words["dated"]):
        raise BadInput(f"{where}: dated is {words['dated']!r}; it must be a month or a day")
    if targets.entry(words["target"]) is None:
        known = (entry.target.id for entry in targets.entries())
        raise tables.unknown_id("target", words["target"], known)
    return PublishedRow(
        id=item["id"],
        target=words["target"],
        model=classifiers.get(words["model"]) or models.resolve(words["model"]),
        techniques=tuple(str(item.get("techniques", "")).split()),
        prompt=_count(item, "prompt", 0, where),
        output=_count(item, "output", 0, where),
        batch=_count(item, "batch", 1, where),
        metric=words["metric"],
        value=tables.positive(item.get("value"), f"{where}: value"),
        unit=words["unit"],
        program=words["program"],
        dated=words["dated"],
        source=sources[words["source"]],
        use=words["use"],
        conditions=str(item.get("conditions", "")),
        miss=str(item.get("miss", "")),
    )


def _unit(name: str) -> str:
    """The unit of a published metric."""
    return "1/s" if name in RATES else metric(name).unit


def _count(item: dict[str, Any], name: str, default: int, where: str) -> int:
    if name not in item:
        return default
    count = tables.positive(item[name], f"{where}: {name}")
    if count != int(count):
        raise BadInput(f"{where}: {name} must be a whole number, not {count:g}")
    return int(count)


def _classifiers(table: Any, file: str) -> dict[str, Model]:
    """The image models of [classifier] by the id that rows give them, `tiny:NAME`."""
    if not isinstance(table, dict):
        raise BadInput(f"{file}: [classifier] must be a table of models")
    found = {}
    for name, numbers in table.items():
        where = f"{file}: classifier.{name}"
        if not isinstance(numbers, dict):
            raise BadInput(f"{where} must be a table of numbers")
        tables.only(numbers, _CLASSIFIER, where)
        counts = {field: _count(numbers, field, 0, where) for field in _CLASSIFIER}
        shape = ClassifierShape(
            counts["parameters"],
            counts["macs"],
            counts["inputs"],
            counts["classes"],
            counts["activations"],
        )
        found[f"tiny:{name}"] = Model(
            f"tiny:{name}", "image-classifier", "shape", "published", shape, 8, name
        )
    return found
