"""Names of machines from recorded facts, and which environments can be one machine."""

from __future__ import annotations

from typing import Any

import pytest

from core.machine.environment import environment
from core.machine.naming import UNKNOWN, machine_line, machine_name, same_machine

H200 = {
    "cpu": "Intel(R) Xeon(R) Platinum 8480+ CPU @ 2.00GHz",
    "cores": 16,
    "cores_online": 16,
    "memory_bytes": 128 * 2**30,
    "gpus": [{"name": "NVIDIA H200", "memory_bytes": 139 * 2**30}],
    "driver": "580.95.05",
    "virtual": "Google",
    "versions": {"torch": "2.11.0+cu130"},
}


def test_a_gpu_gives_its_name() -> None:
    assert machine_name(H200) == "NVIDIA H200"
    assert machine_line(H200, "2026-12-02T10:11:12") == (
        "NVIDIA H200, driver 580.95.05, torch 2.11.0+cu130, 2026-12-02"
    )


def test_a_gpu_that_torch_cannot_drive_is_not_what_numbers_came_from() -> None:
    facts = H200 | {"versions": {"torch": "2.11.0+cpu"}}
    assert machine_name(facts) == "Intel Xeon Platinum 8480+, 16 cores"
    assert machine_line(facts) == "Intel Xeon Platinum 8480+, 16 cores, torch 2.11.0+cpu"


def test_a_processor_loses_what_every_processor_is_called() -> None:
    facts = {"cpu": "AMD EPYC 9J14 96-Core Processor", "cores": 2}
    assert machine_name(facts) == "AMD EPYC 9J14, 2 cores"
    assert machine_name(facts | {"cores": 1}) == "AMD EPYC 9J14, 1 core"


@pytest.mark.parametrize(
    "facts",
    [
        {},
        {"gpus": "many"},
        {"gpus": ["one"], "versions": 3},
        {"gpus": [{"memory_bytes": 5}], "versions": {"torch": 2}, "cores": "two"},
    ],
)
def test_facts_of_another_shape_name_nothing(facts: dict[str, Any]) -> None:
    assert machine_name(facts) == UNKNOWN
    assert machine_line(facts).startswith(UNKNOWN)
    assert same_machine(facts, facts)


def test_what_an_older_version_did_not_record_makes_no_other_machine() -> None:
    fewer = {key: H200[key] for key in ("cpu", "gpus", "cores")}
    assert same_machine(H200, fewer)


def test_other_versions_and_settings_are_still_the_same_machine() -> None:
    later = H200 | {"versions": {"torch": "2.12.0"}, "threads": {"OMP_NUM_THREADS": "4"}}
    assert same_machine(H200, later | {"memory_bytes": int(127.5 * 2**30)})
    assert same_machine(environment()[1], environment()[1])


@pytest.mark.parametrize(
    "other",
    [
        {"gpus": []},
        {"cores_online": 32},
        {"cpu": "AMD EPYC 9J14 96-Core Processor"},
        {"memory_bytes": 64 * 2**30},
        {"virtual": "KVM"},
    ],
)
def test_other_parts_are_another_machine(other: dict[str, Any]) -> None:
    assert not same_machine(H200, H200 | other)
