"""Memory of a trial: predicted equals held on the zoo, parts add up, odd systems are said."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from core import techniques
from core.catalogue import models, workloads
from core.engine.load.load import load_engine, load_tokenizer
from core.machine import targets
from core.measure.memory import measure_disk, measure_memory, trial
from core.measure.memory.peak import DeviceRound, Pages
from core.measure.serve import Service
from core.measurement import Measurement
from core.plan import Case, Plan
from core.predict.account import MemoryAccount, account
from core.techniques.deployment import Deployment

pytestmark = pytest.mark.usefixtures("one_thread")


def plan(model: str, text: str = "") -> Plan:
    found = models.resolve(model)
    workload = workloads.resolve("autocomplete" if found.task == "text" else "sensor-frame")
    local = replace(targets.resolve("h100-sxm"), id="local", kind="cpu", local=True)
    chosen = tuple(techniques.parse(part) for part in text.split())
    together = Plan(Case(found, local, workload), chosen).batch
    workload = replace(workload, prompt_tokens=70, output_tokens=3, concurrency=together)
    return Plan(Case(found, local, workload), chosen)


def measure(
    one: Plan, before: int | None = 0, device: str = "cpu"
) -> tuple[list[Measurement], list[str]]:
    notes: list[str] = []
    model = one.case.model
    tokenizer = load_tokenizer(model) if model.task == "text" else None
    engine = load_engine(model)
    deployment = Deployment(one.case, engine, lambda: None, tokenizer, note=notes.append)
    for technique in one.techniques:
        technique.apply(deployment)
    requests: Any = torch.zeros(deployment.serving.batch, 1, 8, 8)
    if model.task == "text":
        requests = torch.ones(deployment.serving.batch, 70, dtype=torch.int64)
    served = Service(deployment, one.case.workload, requests)
    deployment.device = device
    return measure_memory(deployment, one, served.workload, served.round, before), notes


@pytest.mark.parametrize(
    ("model", "text"),
    [
        ("pycode-small", ""),
        ("pycode-small", "static-batch:size=3"),
        ("pycode-small", "prune-mlp:sparsity=0.5 weight-int8"),
        ("pycode-small", "weight-int4:group_size=64"),
        ("pycode-small", "kv-cache:bits=2,residual=0 static-batch:size=3"),
        ("pycode-small", "kv-cache:group_size=64,residual=5"),
        ("digits-cnn", ""),
        ("digits-mlp", ""),
    ],
)
def test_held_memory_is_within_five_percent_of_the_prediction(model: str, text: str) -> None:
    one = plan(model, text)
    found, notes = measure(one)
    held = {str(row.condition): row.value or 0.0 for row in found if row.metric == "memory_bytes"}
    need = account(one)
    assert held[""] == pytest.approx(need.total, rel=0.05)
    for name, size in need.parts():
        if str(name) != "workspace":
            assert held[str(name)] == size
    assert "measured less predicted" in notes[-1]


def test_the_parts_add_up_to_the_peak_of_the_process() -> None:
    found, _ = measure(plan("pycode-small"))
    parts = {str(row.condition): row.value or 0.0 for row in found if row.metric == "memory_bytes"}
    whole = parts.pop("")
    (peak,) = (row.value for row in found if row.metric == "peak_bytes")
    assert sum(parts.values()) == peak
    assert sum(parts.values()) - parts["libraries"] == whole
    (kv,) = (row for row in found if row.metric == "kv_bytes")
    assert kv.value == parts["kv"] == 73 * 2 * 4 * 2 * 32 * 2
    assert "1,024 B for each token" in kv.method


def test_weights_name_their_largest_tensors() -> None:
    found, _ = measure(plan("pycode-small"))
    (weights,) = (row for row in found if str(row.condition) == "weights:bf16")
    assert "26 tensors from their own storages; the largest: embedding 1,048,576 B" in (
        weights.method
    )


def test_where_the_system_tells_nothing_the_tensors_are_still_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(trial, "page_peak", lambda run: None)
    found, _ = measure(plan("digits-mlp"))
    rows = {(row.metric, str(row.condition)): row for row in found}
    assert rows["peak_bytes", ""].value is None
    assert rows["memory_bytes", ""].value == 6570 * 4 + 512
    assert ("memory_bytes", "libraries") not in rows


def test_without_a_profiler_the_workspace_is_an_estimate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("torch.profiler.kineto_available", lambda: False)
    one = plan("digits-mlp")
    rows = {(row.metric, str(row.condition)): row for row in measure(one)[0]}
    assert rows["memory_bytes", "workspace"].origin == "estimated"
    assert rows["memory_bytes", "workspace"].value == account(one).workspace
    assert rows["memory_bytes", ""].origin == "estimated"
    assert rows["memory_bytes", "weights:fp32"].origin == "measured"


@pytest.mark.parametrize(
    ("pages", "before", "value", "word"),
    [
        (Pages(600, 900, True, True), 500, 400.0, "given back at once"),
        (Pages(600, 900, True, False), 500, 400.0, "keeps for reuse is included"),
        (Pages(600, 900, False, True), 500, 400.0, "could not be reset"),
        (Pages(400, 450, True, True), 500, 0.0, "held free memory before"),
        (None, 500, None, "does not tell"),
        (Pages(600, 900, True, True), None, None, "does not tell"),
    ],
)
def test_the_peak_is_what_came_on_top(
    pages: Pages | None, before: int | None, value: float | None, word: str
) -> None:
    rows = trial._peak(pages, before, 300.0, "cpu")
    assert rows[-1].metric == "peak_bytes"
    assert rows[-1].value == value
    assert word in rows[-1].method
    if value == 400.0:
        assert (str(rows[0].condition), rows[0].value) == ("libraries", 100.0)


def test_a_difference_is_named_by_part() -> None:
    predicted = MemoryAccount((("bf16", 1000.0),), 100.0, 1.0, 50.0)
    held = MemoryAccount((("bf16", 1000.0),), 120.0, 1.2, 45.0)
    assert trial.compared(held, predicted) == (
        "memory: 1,150 B predicted, 1,165 B held at the peak of a round (+1.3%); measured less"
        " predicted: kv +20 B, workspace -5 B"
    )
    assert trial.compared(held, held).endswith("measured less predicted: in no part")


def test_the_size_on_disk_is_that_of_the_files_that_are_loaded() -> None:
    found = measure_disk(plan("pycode-small", "static-batch:size=3"))
    folder = models.ZOO / "pycode-small"
    names = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
    assert found.value == sum((folder / name).stat().st_size for name in names)
    assert f"{(folder / 'model.safetensors').stat().st_size:,} B of them weights" in found.method


def test_what_was_never_written_has_no_size_on_disk() -> None:
    changed = measure_disk(plan("pycode-small", "prune-mlp:sparsity=0.5 weight-int8"))
    assert changed.value is None
    assert "prune-mlp, weight-int8 changed the weights in memory" in changed.method
    other = plan("pycode-small", "weight-int8")
    assert (
        "no artefact of it can be written" in measure_disk(other, SimpleNamespace(lean=None)).method
    )
    random = plan("pycode-small")
    shape = replace(random, case=replace(random.case, model=models.resolve("shape:smollm2-135m")))
    assert "no files" in measure_disk(shape).method


def test_on_a_gpu_the_workspace_is_what_is_held_beside_weights_and_cache(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A server may keep its cache from round to round: what was there before does not matter."""
    peak = DeviceRound(
        tensors=2_525_440 + 73 * 1024 + 4000, captured=500, reserved=8_000_000, used=900_000_000,
        pages=Pages(600, 900, True, False),
    )  # fmt: skip
    monkeypatch.setattr(trial, "device_round", lambda run: run() and peak)
    one = plan("pycode-small")
    found, notes = measure(one, before=500, device="cuda")
    rows = {(row.metric, str(row.condition)): row for row in found}
    assert rows["memory_bytes", "workspace"].value == 4500
    assert rows["memory_bytes", ""].value == peak.held
    device = rows["device_peak_bytes", ""]
    assert device.value == peak.held
    assert "500 B that captured steps keep" in device.method
    assert "900,000,000 B of the device taken in all" in device.method
    assert rows["peak_bytes", ""].value == 400
    assert "of the host alone" in rows["peak_bytes", ""].method
    assert ("memory_bytes", "libraries") not in rows
    assert f"{peak.held:,} B held" in notes[0]
