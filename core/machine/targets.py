"""Which targets can be chosen: `local`, the machine this runs on, and the catalogue's.

Nothing here measures (calibrate.py does) and nothing imports torch.
"""

from __future__ import annotations

from core.catalogue import tables
from core.catalogue import targets as catalogue
from core.machine import calibrate, environment
from core.target import HERE, Target

# What CUDA's context, its libraries' work space and loaded kernels take of a GPU before the first
# tensor: half a gigabyte to one on an H100 (an assumption; each trial tells what was really taken).
CUDA_BYTES = 1 << 30


def resolve(target_id: str) -> Target:
    """The target called `target_id`; `local` is this machine. BadInput names the known ones."""
    if target_id == catalogue.LOCAL:
        return detect_local()
    entry = catalogue.entry(target_id)
    if entry is None:
        raise tables.unknown_id(
            "target",
            target_id,
            (catalogue.LOCAL, *(known.target.id for known in catalogue.entries())),
        )
    return entry.target


def list_targets() -> tuple[Target, ...]:
    """This machine first, then the catalogue in the file's order."""
    return (detect_local(), *(entry.target for entry in catalogue.entries()))


def detect_local() -> Target:
    """This machine: memory that is free now, and bandwidth and peaks where a calibration of it is
    stored.

    The target is a GPU when the driver shows one and the installed torch is not a CPU-only build.
    """
    key, facts = environment.environment()
    gpu = environment.usable_gpu(facts)
    known = calibrate.stored(key)
    if known is None:
        measured = "bandwidth and peaks unknown until `trimtab doctor --calibrate` measures them"
    else:
        measured = f"bandwidth and peaks measured on {known.taken_at} by trimtab doctor --calibrate"
    if gpu is not None:
        title, kind = str(gpu["name"]), "cuda"
        memory = max(int(gpu["memory_bytes"]) - CUDA_BYTES, 0)
    else:
        title, kind = f"{facts['cpu']}, {facts['cores']} cores", "cpu"
        memory = int(facts["available_bytes"])
    return Target(
        id=catalogue.LOCAL,
        title=f"{HERE}{title}",
        kind=kind,
        place="local",
        memory_bytes=memory,
        bandwidth=None if known is None else known.bandwidth,
        peaks=() if known is None else known.peaks,
        source=f"detected; {measured}",
        dated="" if known is None else known.taken_at[:10],
        local=True,
    )
