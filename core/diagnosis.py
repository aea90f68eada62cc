"""What this machine is, which kernels it can run, and what is missing: the content of `trimtab
doctor`.
"""

from __future__ import annotations

import importlib.util
from typing import Any

from core import format
from core.catalogue import targets
from core.measure.energy import counters
from core.measure.environment import environment

EXTRAS = {
    "triton": "own GPU kernels: pip install triton (Linux)",
    "transformers": "models outside the Llama family: pip install transformers",
    "huggingface_hub": "models by hub id: pip install huggingface_hub",
}


def diagnose(calibrate: bool = False) -> dict[str, Any]:
    """JSON-ready facts, and `summary`: sections of lines for people."""
    from kernels.registry import kernels_available

    identifier, facts = environment()
    if calibrate:
        from core import calibrate as calibration

        calibration.store(calibration.calibrate())
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
    _, energy = counters()
    missing = {name: how for name, how in EXTRAS.items() if importlib.util.find_spec(name) is None}
    return {
        "environment": identifier,
        "facts": facts,
        "target": {
            "memory_bytes": target.memory_bytes,
            "bandwidth": target.bandwidth,
            "peaks": dict(target.peaks),
        },
        "kernels": kernels,
        "energy": energy or "readable",
        "missing": missing,
        "summary": [
            ("machine", _machine(target, identifier)),
            (f"kernels on {device}", [_kernel(one) for one in kernels]),
            ("energy", [energy or "RAPL counters are readable"]),
            ("missing", [f"{name}: {how}" for name, how in missing.items()] or ["nothing"]),
        ],
    }


def _machine(target: Any, identifier: str) -> list[str]:
    bandwidth = "not measured yet: trimtab doctor --calibrate"
    if target.bandwidth is not None:
        bandwidth = format.number(target.bandwidth, "B/s")
    return [
        target.title,
        f"environment {identifier}",
        f"memory for a model: {format.number(target.memory_bytes, 'B')}",
        f"copy bandwidth: {bandwidth}",
        *(f"peak {name}: {rate / 1e9:,.0f} Gop/s" for name, rate in target.peaks),
    ]


def _kernel(one: dict[str, Any]) -> str:
    state = "runs" if one["runs"] else f"not here: {one['reason']}"
    return f"{one['op']:14} {one['name']:18} {', '.join(one['formats']):18} {state}"
