"""The environment record: stable id, honest facts, hostile /proc and /sys."""

from __future__ import annotations

import json
import os
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core.machine import environment, gpus, readers


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty /proc and /sys under tmp_path, and no program to ask."""
    monkeypatch.setattr(readers, "PROC", tmp_path / "proc")
    monkeypatch.setattr(readers, "SYS", tmp_path / "sys")
    monkeypatch.setattr(readers, "DEV", tmp_path / "dev")
    monkeypatch.setattr(readers, "output", lambda command: None)
    monkeypatch.setattr(readers, "affinity", lambda: [0, 1])
    monkeypatch.setitem(sys.modules, "pynvml", None)
    monkeypatch.setattr(gpus.shutil, "which", lambda name: None)
    for cached in (environment._stable, readers.caches):
        cached.cache_clear()
    yield tmp_path
    for cached in (environment._stable, readers.caches):
        cached.cache_clear()


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


def test_what_changes_from_run_to_run_does_not_change_the_id() -> None:
    key, facts = environment.environment()
    busy = dict.fromkeys(environment.VOLATILE, 99)
    assert environment.identity({**facts, **busy}) == key


@pytest.mark.parametrize(
    "fact", ["cpu", "kernel", "versions", "cores", "memory_bytes", "governor", "threads", "kernels"]
)
def test_a_stable_fact_changes_the_id(fact: str) -> None:
    key, facts = environment.environment()
    assert environment.identity({**facts, fact: "another"}) != key


def test_a_system_that_tells_nothing_gives_facts_without_guesses(system: Path) -> None:
    key, facts = environment.environment()
    assert len(key) == 12
    for unknown in ("gpus", "flags", "governor", "boost", "smt", "cpu_quota", "temperature_c"):
        assert unknown not in facts
    assert facts["memory_bytes"] > 0
    assert facts["available_bytes"] > 0


def test_flags_that_matter_are_found(system: Path) -> None:
    write(
        system / "proc/cpuinfo",
        "processor : 0\nmodel name : Fast 9000\ncpu MHz : 2400.5\n"
        "flags : avx2 amx_bf16 foo hypervisor\n\nprocessor : 1\nmodel name : Slow\n",
    )
    _, facts = environment.environment()
    assert facts["cpu"] == "Fast 9000"
    assert facts["flags"] == ["avx2", "amx_bf16"]
    assert facts["frequency_mhz"] == 2400
    assert facts["virtual"] == "yes"


def test_clocks_governor_boost_threads_caches_and_pages_are_read(system: Path) -> None:
    cpu = system / "sys/devices/system/cpu"
    for one, clock in (("cpu0", "3000000"), ("cpu1", "2000000")):
        write(cpu / one / "cpufreq/scaling_cur_freq", clock + "\n")
    write(cpu / "cpu0/cpufreq/cpuinfo_min_freq", "800000\n")
    write(cpu / "cpu0/cpufreq/cpuinfo_max_freq", "4700000\n")
    write(cpu / "cpu0/cpufreq/scaling_governor", "powersave\n")
    write(cpu / "intel_pstate/no_turbo", "0\n")
    write(cpu / "smt/active", "1\n")
    for index, (kind, level, size) in enumerate(
        [("Data", 1, "48K"), ("Instruction", 1, "32K"), ("Unified", 2, "2M"), ("Unified", 3, "x")]
    ):
        for name, value in (("type", kind), ("level", level), ("size", size)):
            write(cpu / f"cpu0/cache/index{index}/{name}", f"{value}\n")
    write(system / "sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n")
    write(system / "sys/devices/system/node/node0/x", "")
    write(system / "sys/devices/system/node/node1/x", "")
    write(system / "sys/class/thermal/thermal_zone0/temp", "51000\n")
    write(system / "sys/class/thermal/thermal_zone1/temp", "-273000\n")
    _, facts = environment.environment()
    assert facts["frequency_mhz"] == 2500
    assert (facts["frequency_min_mhz"], facts["frequency_max_mhz"]) == (800, 4700)
    assert (facts["governor"], facts["boost"], facts["smt"]) == ("powersave", "on", "on")
    assert facts["caches"] == {"L1d": 48 << 10, "L2": 2 << 20}
    assert (facts["huge_pages"], facts["numa_nodes"]) == ("madvise", 2)
    assert facts["temperature_c"] == 51.0


def test_thread_variables_are_facts(system: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    _, facts = environment.environment()
    assert facts["threads"]["OMP_NUM_THREADS"] == "3"


def test_builds_of_our_kernels_are_facts(system: Path) -> None:
    _, facts = environment.environment()
    assert facts["compiler"]
    assert {"attention", "linear_dense", "program"} <= set(facts["kernels"])


def test_a_container_limit_counts_as_the_memory(system: Path) -> None:
    write(system / "proc/meminfo", "MemTotal: 8000000 kB\nMemAvailable: 7000000 kB\nBroken\n")
    write(system / "sys/fs/cgroup/memory.max", "1000000000\n")
    write(system / "sys/fs/cgroup/memory.current", "400000000\n")
    write(system / "sys/fs/cgroup/memory.stat", "anon 1\ninactive_file 100000000\n")
    write(system / "sys/fs/cgroup/cgroup.controllers", "cpu memory\n")
    _, facts = environment.environment()
    assert facts["memory_bytes"] == 1_000_000_000
    assert facts["available_bytes"] == 700_000_000


def test_the_tightest_quota_of_the_cgroups_above_counts(system: Path) -> None:
    write(system / "sys/fs/cgroup/cgroup.controllers", "cpu\n")
    write(system / "proc/self/cgroup", "0::/box/inner\n")
    write(system / "sys/fs/cgroup/box/inner/cpu.max", "max 100000\n")
    write(system / "sys/fs/cgroup/box/cpu.max", "150000 100000\n")
    write(system / "sys/fs/cgroup/cpu.max", "400000 100000\n")
    assert readers.cpu_quota() == 1.5


def test_the_first_version_of_cgroups_is_read_too(system: Path) -> None:
    write(system / "proc/self/cgroup", "4:memory:/\n1:cpu,cpuacct:/job\n0::/\n")
    write(system / "sys/fs/cgroup/cpu/job/cpu.cfs_quota_us", "50000\n")
    write(system / "sys/fs/cgroup/cpu/job/cpu.cfs_period_us", "100000\n")
    write(system / "sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")
    assert readers.cpu_quota() == 0.5
    assert readers.memory_limit() is None


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
    assert "linear_lowbit.gpu" in facts["kernels"]
    assert environment.usable_gpu(facts) is None


def test_the_drivers_tool_gives_name_memory_power_and_clocks(
    system: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpus.shutil, "which", lambda name: "/bin/" + name)
    answer = "NVIDIA H200, 143771, 700.00, 1980, 3201\nbroken line\nNVIDIA X, [N/A], 1, 2, 3"
    monkeypatch.setattr(readers, "output", lambda command: answer)
    _, facts = environment.environment()
    assert facts["gpus"] == [
        {
            "name": "NVIDIA H200",
            "memory_bytes": 143771 * 1024 * 1024,
            "power_limit_w": 700,
            "clock_max_mhz": 1980,
            "memory_clock_max_mhz": 3201,
        }
    ]
    facts["versions"] = {"torch": "2.13.0"}
    assert environment.usable_gpu(facts) == facts["gpus"][0]
    facts["versions"] = {"torch": "2.13.0+cpu"}
    assert environment.usable_gpu(facts) is None
    facts["versions"] = {}
    assert environment.usable_gpu(facts) is None


def test_the_gpus_that_are_hidden_are_not_used() -> None:
    first, second = ({"name": name, "memory_bytes": 1} for name in ("A", "B"))
    facts: dict[str, Any] = {"gpus": [first, second], "versions": {"torch": "2.11.0+cu130"}}
    for said, used in (
        ("0", first), ("1", second), ("1,0", second), ("", None), ("-1", None), ("7", None),
        ("GPU-1234", first),
    ):  # fmt: skip
        facts["threads"] = {"CUDA_VISIBLE_DEVICES": said}
        assert environment.usable_gpu(facts) == used, said


class Library(types.ModuleType):
    """Answers like the module pynvml of nvidia-ml-py, of one card that hides its temperature."""

    NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU = 1, 2, 0

    class NVMLError(Exception):
        """As pynvml's."""

    def __init__(self, reasons: int = 0) -> None:
        super().__init__("pynvml")
        answers: dict[str, Any] = {
            "nvmlInit": None,
            "nvmlDeviceGetCount": 1,
            "nvmlDeviceGetHandleByIndex": object(),
            "nvmlDeviceGetName": b"NVIDIA H200",
            "nvmlDeviceGetMemoryInfo": types.SimpleNamespace(total=143771 * 1024 * 1024 + 12345),
            "nvmlDeviceGetPowerManagementLimit": 700_000,
            "nvmlDeviceGetMaxClockInfo": 1980,
            "nvmlDeviceGetClockInfo": 1755,
            "nvmlDeviceGetPowerUsage": 431_250,
            "nvmlDeviceGetCurrentClocksThrottleReasons": reasons,
            "nvmlSystemGetDriverVersion": "580.82.07",
        }
        for name, value in answers.items():
            setattr(self, name, lambda *given, value=value: value)

    def nvmlDeviceGetTemperature(self, handle: object, sensor: int) -> int:
        raise self.NVMLError("Not Supported")


def test_without_nvidia_smi_the_drivers_library_tells_the_same(
    system: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", Library(reasons=0x4))
    _, facts = environment.environment()
    assert facts["gpus"] == [
        {
            "name": "NVIDIA H200",
            "memory_bytes": 143771 * 1024 * 1024,
            "power_limit_w": 700,
            "clock_max_mhz": 1980,
            "memory_clock_max_mhz": 1980,
        }
    ]
    assert facts["driver"] == "580.82.07"
    assert gpus.gpu_now() == [
        {"clock_mhz": 1755, "memory_clock_mhz": 1755, "power_w": 431.25, "throttled": True}
    ]


def test_where_only_torch_sees_the_gpu_it_is_asked(
    system: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    def output(command: list[str], seconds: float = 5) -> str:
        asked.append(command)
        return 'a warning\n[["NVIDIA H200", 150000000000]]'

    monkeypatch.setattr(readers, "output", output)
    # Without the driver's devices nobody waits for torch.
    assert gpus.gpus() == []
    assert asked == []
    write(system / "dev/nvidiactl", "")
    assert gpus.gpus() == [{"name": "NVIDIA H200", "memory_bytes": 150_000_000_000}]
    assert asked[0][0] == sys.executable


def test_a_newer_driver_is_asked_for_its_own_name_of_the_reasons(
    system: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpus.shutil, "which", lambda name: "/bin/" + name)

    def answer(command: list[str]) -> str | None:
        return "1755, 3201, 61, 430.5, 0x4" if "event_reasons" in command[1] else None

    monkeypatch.setattr(readers, "output", answer)
    assert gpus.gpu_now()[0]["throttled"] is True


def test_an_old_driver_that_knows_fewer_numbers_still_names_the_gpu(
    system: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpus.shutil, "which", lambda name: "/bin/" + name)

    def answer(command: list[str]) -> str | None:
        return "Tesla K80, 11441" if command[1].count(",") == 1 else None

    monkeypatch.setattr(readers, "output", answer)
    assert gpus.gpus() == [{"name": "Tesla K80", "memory_bytes": 11441 * 1024 * 1024}]


def test_a_slowed_gpu_says_so(system: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus.shutil, "which", lambda name: "/bin/" + name)
    answer = "1200, 3201, 84, 699.5, 0x0000000000000004\n300, 3201, 40, 80, 0x1\nx, 1, 2, 3, [N/A]"
    monkeypatch.setattr(readers, "output", lambda command: answer)
    slowed, idle, unknown = gpus.gpu_now()
    assert slowed["throttled"] is True
    assert slowed["power_w"] == 699.5
    assert idle["throttled"] is False
    assert unknown == {
        "memory_clock_mhz": 1, "temperature_c": 2, "power_w": 3, "throttled": False
    }  # fmt: skip


def test_a_program_that_fails_or_is_missing_gives_nothing() -> None:
    assert readers.output(["false"]) is None
    assert readers.output(["no-such-program-here"]) is None
    assert readers.output(["echo", "x"]) == "x"
