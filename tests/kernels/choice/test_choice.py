"""The choice by measuring, on the CPU's clock, with candidates of known speed."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from kernels import calls, choice
from kernels.calls import count
from kernels.choice import answers, clock

CPU = torch.device("cpu")
ASKED = choice.Question("linear_lowbit", "int4-g32", (96, 64), 4, "bf16")


@pytest.fixture(autouse=True)
def measuring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A cache of the test's own, and measuring on the CPU, where nothing is measured by itself."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(choice, "measures", lambda device: True)
    choice.forget()
    yield
    choice.forget()


def candidates(made: list[str]) -> Callable[[], dict[str, Callable[[], object]]]:
    def ready() -> dict[str, Callable[[], object]]:
        made.append("ready")
        return {
            "slow": lambda: time.sleep(0.004),
            "fast": lambda: time.sleep(0.0005),
            "broken": lambda: 1 / 0,
        }

    return ready


NAMES = ("slow", "fast", "broken")


def test_the_fastest_is_taken_and_kept_with_its_margin() -> None:
    made: list[str] = []
    assert choice.fastest(ASKED, NAMES, candidates(made), CPU) == "fast"
    assert choice.fastest(ASKED, NAMES, candidates(made), CPU) == "fast"
    (kept,) = choice.kept()
    assert made == ["ready"]
    assert kept.question == ASKED
    assert kept.name == "fast"
    assert list(kept.seconds()) == ["fast", "slow"]
    assert len(kept.samples["slow"]) == clock.SAMPLES
    assert kept.margin is not None
    assert kept.margin > 1.5
    assert "ZeroDivisionError" in kept.failed["broken"]
    assert choice.current(kept)


def test_another_process_reads_the_answer_from_the_disk() -> None:
    choice.fastest(ASKED, NAMES, candidates([]), CPU)
    choice.forget()
    made: list[str] = []
    assert choice.fastest(ASKED, NAMES, candidates(made), CPU) == "fast"
    assert made == []


def test_it_is_measured_again_when_what_it_depends_on_changes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    choice.fastest(ASKED, NAMES, candidates([]), CPU)
    made: list[str] = []
    choice.fastest(replace(ASKED, rows=8), NAMES, candidates(made), CPU)
    choice.fastest(ASKED, ("slow", "fast"), candidates(made), CPU)
    choice.forget()
    monkeypatch.setattr(choice, "_version", lambda package: "0.0")
    choice.fastest(ASKED, ("slow", "fast"), candidates(made), CPU)
    choice.forget()
    monkeypatch.setattr(choice, "device_name", lambda device: "another machine")
    choice.fastest(ASKED, ("slow", "fast"), candidates(made), CPU)
    assert len(made) == 4
    assert len(choice.kept()) == 4
    assert sum(map(choice.current, choice.kept())) == 2


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"question": 3}', "\x00\xff", '{"question": {"op": "x"}}']
)
def test_damaged_files_are_measured_over(text: str) -> None:
    choice.fastest(ASKED, NAMES, candidates([]), CPU)
    (path,) = choice.folder().glob("*.json")
    path.write_text(text, encoding="latin-1")
    choice.forget()
    assert choice.kept() == []
    made: list[str] = []
    assert choice.fastest(ASKED, NAMES, candidates(made), CPU) == "fast"
    assert made == ["ready"]
    assert len(choice.kept()) == 1


@pytest.mark.parametrize(
    ("field", "value"),
    [("name", "other"), ("samples", {"fast": []}), ("samples", {"fast": [-1.0]}), ("device", "x")],
)
def test_foreign_answers_are_not_believed(field: str, value: object) -> None:
    choice.fastest(ASKED, NAMES, candidates([]), CPU)
    (path,) = choice.folder().glob("*.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    choice.forget()
    made: list[str] = []
    choice.fastest(ASKED, NAMES, candidates(made), CPU)
    assert made == ["ready"]


def test_writers_at_once_leave_whole_files() -> None:
    choice.fastest(ASKED, NAMES, candidates([]), CPU)
    (kept,) = choice.kept()
    writers = [threading.Thread(target=answers.write, args=(kept,)) for _ in range(16)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert choice.kept() == [kept]
    assert len(list(choice.folder().iterdir())) == 1


def test_a_disk_that_takes_nothing_costs_only_the_memory(tmp_path: Path) -> None:
    (tmp_path / "trimtab").write_text("a file where the folder should be")
    assert choice.fastest(ASKED, NAMES, candidates([]), CPU) == "fast"
    assert choice.kept() == []


def test_what_is_tried_is_not_counted() -> None:
    calls.reset()
    tried = {name: lambda: count("linear_lowbit", "triton") for name in ("a", "b")}
    choice.fastest(ASKED, ("a", "b"), lambda: tried, CPU)
    assert calls.snapshot() == []


def test_where_nothing_may_be_measured_the_first_is_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.undo()
    made: list[str] = []
    assert choice.fastest(ASKED, NAMES, candidates(made), CPU) == "slow"
    assert made == []


def test_by_rule_nothing_is_measured_on_a_gpu_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    gpu = torch.device("cuda")
    assert choice.measures(gpu)
    with choice.by_rule():
        assert not choice.measures(gpu)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    assert not choice.measures(gpu)
