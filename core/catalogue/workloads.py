"""The workload presets, read from workloads.toml and checked. Does not know models or targets."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from core.catalogue import tables
from core.errors import BadInput
from core.workload import Workload

FILE = tables.FOLDER / "workloads.toml"
_COUNTS = ("prompt_tokens", "output_tokens", "concurrency")
_SECONDS = ("ttft_limit_s", "tpot_limit_s", "arrival_per_s")
_FIELDS = ("id", "title", "task", "note", *_COUNTS, *_SECONDS)


def resolve(workload_id: str) -> Workload:
    """The preset called `workload_id`; BadInput names the known ones."""
    for workload in list_workloads():
        if workload.id == workload_id:
            return workload
    raise tables.unknown_id("workload", workload_id, (workload.id for workload in list_workloads()))


@functools.lru_cache(maxsize=1)
def list_workloads() -> tuple[Workload, ...]:
    """Every preset, in the file's order."""
    return load(FILE)


def load(path: Path) -> tuple[Workload, ...]:
    """Read and check a file of workloads; BadInput names the workload and the field."""
    document = tables.read(path)
    return tuple(
        _workload(entry, f"{path.name}: {entry['id']}")
        for entry in tables.entries(document, "workload", path.name)
    )


def _workload(entry: dict[str, Any], where: str) -> Workload:
    tables.only(entry, _FIELDS, where)
    task = tables.text(entry, "task", where, ("text", "image"))
    counts = {
        field: _count(entry[field], f"{where}: {field}") for field in _COUNTS if field in entry
    }
    if task == "text" and not {"prompt_tokens", "output_tokens"} <= set(counts):
        raise BadInput(f"{where}: a text workload needs prompt_tokens and output_tokens")
    seconds = {
        field: tables.positive(entry[field], f"{where}: {field}")
        for field in _SECONDS
        if field in entry
    }
    return Workload(
        id=entry["id"],
        title=tables.text(entry, "title", where),
        task=task,
        note=tables.text(entry, "note", where),
        prompt_tokens=counts.get("prompt_tokens", 0),
        output_tokens=counts.get("output_tokens", 0),
        concurrency=counts.get("concurrency", 1),
        arrival_per_s=seconds.get("arrival_per_s"),
        ttft_limit_s=seconds.get("ttft_limit_s"),
        tpot_limit_s=seconds.get("tpot_limit_s"),
    )


def _count(value: Any, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 10_000_000:
        raise BadInput(f"{where} must be an integer from 1 to 10,000,000, not {value!r:.60}")
    return value
