"""What a machine is called, and which environments are of one machine, from recorded facts alone:
journals come from other machines too, so a fact may be missing or of any shape.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from core.ids import distinct
from core.machine.environment import usable_gpu

# (what, version)
Versions = tuple[tuple[str, str], ...]
UNKNOWN = "unknown machine"
# A container's limit or another kernel changes what a machine says of its memory by a little.
MEMORY_SHARE = 0.02
_DECORATION = re.compile(
    r"\((?:r|tm)\)|\b\d+-core\b|\bprocessor\b|(?:\bcpu )?@.*$", flags=re.IGNORECASE
)


@dataclass(frozen=True)
class Machine:
    """A machine by a name that no other of those beside it has; `facts` are those of the first of
    its `environments`."""

    name: str
    environments: tuple[str, ...]
    facts: Mapping[str, Any]


def machines(environments: Mapping[str, Mapping[str, Any] | None]) -> dict[str, Machine]:
    """The machine of each environment id of which facts are known."""
    ids_by_first: dict[str, list[str]] = {}
    known = {key: facts for key, facts in environments.items() if facts}
    for key, facts in known.items():
        first = next((old for old in ids_by_first if same_machine(known[old], facts)), key)
        ids_by_first.setdefault(first, []).append(key)
    names = distinct({first: machine_name(known[first]) for first in ids_by_first})
    alike = [Machine(names[key], tuple(ids), known[key]) for key, ids in ids_by_first.items()]
    return {key: machine for machine in alike for key in machine.environments}


def machine_name(facts: Mapping[str, Any]) -> str:
    """Short and readable: `NVIDIA H200`, or `AMD EPYC 9J14, 2 cores` where there is no usable GPU.

    `facts` are those of core.machine.environment; UNKNOWN where they say neither.
    """
    gpu = _gpu(facts)
    if gpu is not None:
        return _words(gpu["name"])
    cpu = _words(_DECORATION.sub(" ", str(facts.get("cpu") or "")))
    cores = facts.get("cores")
    if not isinstance(cores, int) or cores < 1:
        return cpu or UNKNOWN
    counted = f"{cores} core{'s' if cores != 1 else ''}"
    return f"{cpu}, {counted}" if cpu else f"{UNKNOWN}, {counted}"


def machine_line(facts: Mapping[str, Any], at: str = "") -> str:
    """The machine with what its numbers hang on: `NVIDIA H200, driver 580.95, torch 2.11.0,
    2026-12-02`.

    `at` is a time of which the date is shown. What is not recorded is left out.
    """
    parts = (machine_name(facts), *in_words(software(facts)), at[:10])
    return ", ".join(part for part in parts if part)


def software(facts: Mapping[str, Any]) -> Versions:
    """(what, version) of the GPU's driver, where a GPU was used, and of torch, as far as they are
    recorded."""
    driver = facts.get("driver") if _gpu(facts) is not None else None
    versions = facts.get("versions")
    torch = versions.get("torch") if isinstance(versions, Mapping) else None
    named = (("driver", driver), ("torch", torch))
    return tuple((what, _words(version)) for what, version in named if version)


def in_words(versions: Versions) -> tuple[str, ...]:
    """`driver 580.95` and `torch 2.11.0` of software()."""
    return tuple(f"{what} {version}" for what, version in versions)


def same_machine(facts: Mapping[str, Any], others: Mapping[str, Any]) -> bool:
    """Whether both environments can be of one machine: the same processor, GPUs and hypervisor, as
    many cores, and as much memory.

    Facts carry no serial number: two boxes that were built alike are not told apart. Versions,
    threads and settings do not matter, they change on one machine; nor does what older versions
    did not record.
    """
    if facts.get("cpu") != others.get("cpu") or _names(facts) != _names(others):
        return False
    for key in ("cores_online", "virtual"):
        if key in facts and key in others and facts[key] != others[key]:
            return False
    here, there = facts.get("memory_bytes"), others.get("memory_bytes")
    if not isinstance(here, int) or not isinstance(there, int):
        return True
    return min(here, there) >= (1 - MEMORY_SHARE) * max(here, there)


def _names(facts: Mapping[str, Any]) -> list[str]:
    return [str(card.get("name")) for card in _cards(facts)]


def _gpu(facts: Mapping[str, Any]) -> dict[str, Any] | None:
    """The GPU that torch could drive there, with a name."""
    versions = facts.get("versions")
    torch = str(versions.get("torch") or "") if isinstance(versions, Mapping) else ""
    named = [card for card in _cards(facts) if card.get("name")]
    return usable_gpu({"gpus": named, "versions": {"torch": torch}})


def _cards(facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    listed = facts.get("gpus")
    cards = listed if isinstance(listed, list | tuple) else ()
    return [dict(card) for card in cards if isinstance(card, Mapping)]


def _words(value: object) -> str:
    return " ".join(str(value).split())
