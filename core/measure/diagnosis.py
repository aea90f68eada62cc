"""What this machine is, which kernels it can run, and what is missing: the content of `trimtab
doctor`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from typing import Any

from core import format
from core.machine import calibrate as calibration
from core.machine import targets
from core.machine.calibration.record import Calibration, Rate, to_data
from core.machine.environment import environment
from core.machine.facts import LABELS, text_of
from core.machine.kernel_choice import complaint
from core.measure.energy import counters, nvml
from core.measure.fallbacks import lost
from core.target import Target
from kernels import choice
from kernels.registry import ENVIRONMENT, kernels_available

EXTRAS = {
    "triton": "own GPU kernels: pip install triton (Linux)",
    "transformers": "models outside the Llama family: pip install transformers",
    "huggingface_hub": "models by hub id: pip install huggingface_hub",
}


def diagnose(
    calibrate: bool = False,
    report: Callable[[str, float], None] = lambda stage, share: None,
) -> dict[str, Any]:
    """JSON-ready facts, and `summary`: sections of lines for people.

    `calibrate` measures this machine's limits first and stores them; `report` follows that.
    """
    identifier, facts = environment()
    if calibrate:
        calibration.store(calibration.calibrate(report=report))
    known = calibration.stored(identifier)
    target = targets.resolve("local")
    device = "cuda" if target.kind == "cuda" else "cpu"
    kernels = [
        {
            "op": info.op,
            "name": info.name,
            "formats": list(info.formats),
            "runs": reason is None,
            "reason": reason,
        }
        for info, reason in kernels_available(device)
    ]
    choices = [choice.as_data(kept) for kept in choice.here()]
    energy, counted = _energy(device)
    missing = {name: how for name, how in EXTRAS.items() if importlib.util.find_spec(name) is None}
    missing |= {f"our kernels of {', '.join(ops)}": why for why, ops in lost(device).items()}
    wrong = complaint(device)
    if wrong is not None:
        missing[ENVIRONMENT] = wrong
    return {
        "environment": identifier,
        "facts": facts,
        "target": {
            "memory_bytes": target.memory_bytes,
            "bandwidth": target.bandwidth,
            "peaks": dict(target.peaks),
        },
        "calibration": None if known is None else to_data(known),
        "kernels": kernels,
        "choices": choices,
        "energy": energy or "readable",
        "missing": missing,
        "summary": [
            ("machine", _machine(target, identifier, facts)),
            ("limits", _limits(known)),
            (f"kernels on {device}", [_kernel(kernel) for kernel in kernels]),
            *([("chosen by measuring", [_chosen(data) for data in choices])] if choices else []),
            ("energy", [energy or counted]),
            ("missing", [f"{name}: {how}" for name, how in missing.items()] or ["nothing"]),
        ],
    }


def _energy(device: str) -> tuple[str, str]:
    """Why the energy of work on the device cannot be counted, else nothing; and what counts it."""
    if device == "cuda":
        reader, why = nvml.find()
        return why, "" if reader is None else f"{reader.name} is readable"
    _, why = counters()
    return why, "RAPL counters are readable"


def _machine(target: Target, identifier: str, facts: Mapping[str, Any]) -> list[str]:
    known = [
        f"{LABELS[name]}: {text_of(facts[name])}"
        for name in ("governor", "boost", "smt", "cpu_quota", "virtual", "container", "kernel")
        if name in facts
    ]
    return [
        target.title,
        f"environment {identifier}",
        f"memory for a model: {format.number(target.memory_bytes, 'B')}",
        *known,
    ]


def _limits(known: Calibration | None) -> list[str]:
    """The stored calibration: the best of each kind, with the median of its repetitions."""
    if known is None:
        return ["not measured yet: trimtab doctor --calibrate"]
    others = ""
    if known.others_cores is not None and known.others_cores > calibration.DISTURBED:
        others = f"; other processes took {known.others_cores:.1f} cores, so all is too low"
    lines = [f"measured {known.taken_at[:16]} UTC in {known.seconds:.0f} s{others}"]
    reading = known.reading()
    for rate in (*reading[-1:], *reading[:1]):
        lines.append(f"reading {format.binary(rate.size)}: {_rate(rate)}")
    lines.append(f"copying: {format.number(known.bandwidth, 'B/s')}, read and written bytes")
    for name, best in known.peaks:
        rates = [rate for rate in known.of("peak", name) if rate.best == best]
        lines.append(f"multiplying {name}: {_rate(rates[0])}" if rates else f"{name}: {best:.3g}")
    lines += [f"{rate.format}: {_rate(rate)}" for rate in known.of("overhead")]
    return lines


def _rate(rate: Rate) -> str:
    return (
        f"{format.number(rate.best, rate.unit)} (median {format.number(rate.median, rate.unit)}"
        f" of {rate.n}; {rate.how})"
    )


def _kernel(kernel: dict[str, Any]) -> str:
    state = "runs" if kernel["runs"] else f"not here: {kernel['reason']}"
    return f"{kernel['op']:14} {kernel['name']:18} {', '.join(kernel['formats']):18} {state}"


def _chosen(data: dict[str, Any]) -> str:
    best, *others = data["seconds"].items()
    beaten = ", ".join(
        f"{name} {seconds / best[1]:.2f}x" if best[1] else name for name, seconds in others
    )
    failed = "".join(f"; {name} failed: {reason}" for name, reason in data["failed"].items())
    shape = " x ".join(map(str, data["shape"]))
    return (
        f"{data['op']:14} {data['format']:10} {shape:14} {data['rows']:5} rows of {data['dtype']}: "
        f"{best[0]} {format.number(best[1], 's')}"
        + (f", before {beaten}" if beaten else "")
        + f"{failed} ({data['device']}, {data['samples']} samples, {data['taken_at'][:10]})"
    )
