"""Which box this is, and its ceilings: facts, versions, tools, clocks before and after, copy
bandwidth and matrix products by format. The calibration is kept for the studies behind it.
"""

from __future__ import annotations

import importlib.metadata
import shutil
from typing import Any

from core.machine import calibrate, gpus, readers
from core.machine.calibration.record import to_data
from core.machine.environment import environment
from tests.evidence.gpu import results
from tests.evidence.gpu.place import ROOT, Place

PACKAGES = (
    "torch", "triton", "transformers", "safetensors", "tokenizers", "numpy", "pytest", "psutil",
    "nvidia-ml-py", "huggingface-hub", "hypothesis",
)  # fmt: skip
TOOLS = ("nvidia-smi", "nvcc", "ptxas", "gcc", "g++", "cc", "ncu")
# What nvidia-smi tells and the facts do not have; nothing that names the card among others.
ASKED = (
    "name", "driver_version", "vbios_version", "pstate", "compute_cap", "mig.mode.current",
    "ecc.mode.current", "compute_mode", "persistence_mode", "power.limit", "power.max_limit",
    "clocks.sm", "clocks.mem", "clocks.max.sm", "clocks.max.mem", "temperature.gpu",
    "clocks_throttle_reasons.active", "pcie.link.gen.current", "memory.used",
)  # fmt: skip
CEILINGS_S = {"cuda": 22.0, "cpu": 2.0}


def run(place: Place) -> tuple[bool, str]:
    """Write environment.json in steps; content when copy and bf16 were measured on the device."""
    identity, facts = environment()
    data: dict[str, Any] = {
        "environment": identity,
        "facts": facts,
        "commit": (readers.output(["git", "-C", str(ROOT), "rev-parse", "HEAD"]) or "").strip(),
        "packages": _versions(),
        "tools": [name for name in TOOLS if shutil.which(name)],
        "nvidia_smi": asked(),
        "before": gpus.gpu_now(),
    }
    results.write_json(place, "environment.json", data)
    data["torch"] = _torch(place)
    results.write_json(place, "environment.json", data)
    calibration = calibrate.calibrate(min(CEILINGS_S[place.device], place.left / 2), place.device)
    calibrate.store(calibration)
    data |= {"ceilings": to_data(calibration), "after": gpus.gpu_now()}
    results.write_json(place, "environment.json", data)
    peaks = ", ".join(f"{name} {rate / 1e12:,.3g} Top/s" for name, rate in calibration.peaks)
    good = place.rehearsal or (calibration.device == "cuda" and "bf16" in dict(calibration.peaks))
    return good, f"copy {calibration.bandwidth / 1e9:,.0f} GB/s; {peaks}"


def asked() -> list[dict[str, str]]:
    """Each GPU's answers to ASKED, or to the first of them where the driver does not know a later
    one.
    """
    for names in (ASKED, ASKED[:2]):
        query = ["nvidia-smi", f"--query-gpu={','.join(names)}", "--format=csv,noheader"]
        lines = (readers.output(query) or "").splitlines()
        rows = [[cell.strip() for cell in line.split(",")] for line in lines]
        told = [dict(zip(names, row, strict=True)) for row in rows if len(row) == len(names)]
        if told:
            return told
    return []


def _versions() -> dict[str, str]:
    known = {}
    for package in PACKAGES:
        try:
            known[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return known


def _torch(place: Place) -> dict[str, Any]:
    """What torch itself sees; RuntimeError when it sees no GPU outside a rehearsal."""
    import torch

    facts: dict[str, Any] = {"version": torch.__version__, "cuda": torch.version.cuda}
    if not torch.cuda.is_available():
        if not place.rehearsal:
            raise RuntimeError("torch sees no CUDA device here")
        return facts
    card = torch.cuda.get_device_properties(0)
    return facts | {
        "name": card.name,
        "capability": list(torch.cuda.get_device_capability(0)),
        "multiprocessors": card.multi_processor_count,
        "memory_bytes": card.total_memory,
        "l2_bytes": card.L2_cache_size,
    }
