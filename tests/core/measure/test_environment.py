"""The environment record: stable id, honest facts, hostile /proc."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from core.measure import environment


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty /proc and /sys under tmp_path."""
    monkeypatch.setattr(environment, "_PROC", tmp_path / "proc")
    monkeypatch.setattr(environment, "_SYS", tmp_path / "sys")
    monkeypatch.setattr(environment.shutil, "which", lambda name: None)
    environment._stable.cache_clear()
    yield tmp_path
    environment._stable.cache_clear()


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_the_id_is_the_same_twice_and_the_facts_are_json() -> None:
    first, facts = environment.environment()
    second, _ = environment.environment()
    assert first == second
    assert len(first) == 12
    assert json.loads(json.dumps(facts)) == facts
    assert facts["cores"] == len(os.sched_getaffinity(0))
    assert facts["python"]
    assert "torch" in facts["versions"]


def test_load_and_free_memory_do_not_change_the_id() -> None:
    key, facts = environment.environment()
    busy = {**facts, "load_1m": 99.0, "available_bytes": 1, "frequency_mhz": 1}
    assert environment.identity(busy) == key


@pytest.mark.parametrize("fact", ["cpu", "kernel", "versions", "cores", "memory_bytes"])
def test_a_stable_fact_changes_the_id(fact: str) -> None:
    key, facts = environment.environment()
    assert environment.identity({**facts, fact: "another"}) != key


def test_a_system_that_tells_nothing_gives_facts_without_guesses(system: Path) -> None:
    key, facts = environment.environment()
    assert len(key) == 12
    assert "gpus" not in facts
    assert "flags" not in facts
    assert facts["memory_bytes"] > 0
    assert facts["available_bytes"] > 0


def test_flags_that_matter_are_found(system: Path) -> None:
    write(
        system / "proc/cpuinfo",
        "processor : 0\nmodel name : Fast 9000\ncpu MHz : 2400.5\nflags : avx2 amx_bf16 foo\n\n"
        "processor : 1\nmodel name : Slow\n",
    )
    _, facts = environment.environment()
    assert facts["cpu"] == "Fast 9000"
    assert facts["flags"] == ["avx2", "amx_bf16"]
    assert facts["frequency_mhz"] == 2400


def test_a_container_limit_counts_as_the_memory(system: Path) -> None:
    write(system / "proc/meminfo", "MemTotal: 8000000 kB\nMemAvailable: 7000000 kB\nBroken\n")
    write(system / "sys/fs/cgroup/memory.max", "1000000000\n")
    write(system / "sys/fs/cgroup/memory.current", "400000000\n")
    write(system / "sys/fs/cgroup/memory.stat", "anon 1\ninactive_file 100000000\n")
    _, facts = environment.environment()
    assert facts["memory_bytes"] == 1_000_000_000
    assert facts["available_bytes"] == 700_000_000


def test_no_container_limit_means_the_kernels_numbers(system: Path) -> None:
    write(system / "proc/meminfo", "MemTotal: 8000000 kB\nMemAvailable: 7000000 kB\n")
    write(system / "sys/fs/cgroup/memory.max", "max\n")
    assert environment.available_bytes() == 7_000_000 * 1024


def test_a_gpu_that_only_the_driver_folder_shows_is_named_but_not_used(system: Path) -> None:
    write(system / "proc/driver/nvidia/gpus/0000:01:00.0/information", "Model: \t NVIDIA L4\n")
    write(
        system / "proc/driver/nvidia/version",
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.82.07  Wed\nGCC version: 12\n",
    )
    _, facts = environment.environment()
    assert facts["gpus"] == [{"name": "NVIDIA L4"}]
    assert facts["driver"] == "580.82.07"
    assert environment.usable_gpu(facts) is None


def test_the_drivers_tool_gives_name_and_memory(
    system: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment.shutil, "which", lambda name: "/bin/" + name)
    answers = {"nvidia-smi": "NVIDIA H200, 143771\nbroken line\nNVIDIA X, [N/A]"}
    monkeypatch.setattr(environment, "_output", lambda command: answers.get(command[0]))
    _, facts = environment.environment()
    assert facts["gpus"] == [{"name": "NVIDIA H200", "memory_bytes": 143771 * 1024 * 1024}]
    facts["versions"] = {"torch": "2.13.0"}
    assert environment.usable_gpu(facts) == facts["gpus"][0]
    facts["versions"] = {"torch": "2.13.0+cpu"}
    assert environment.usable_gpu(facts) is None
    facts["versions"] = {}
    assert environment.usable_gpu(facts) is None


def test_a_program_that_fails_or_is_missing_gives_nothing() -> None:
    assert environment._output(["false"]) is None
    assert environment._output(["no-such-program-here"]) is None
    assert environment._output(["echo", "x"]) == "x"
