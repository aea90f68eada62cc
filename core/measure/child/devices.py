"""The devices of this machine on which a trial can be measured, and how its process is shown one of
them alone.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from core.machine.environment import environment, usable_gpu
from core.target import Target

CPU = "cpu"
_CUDA = "cuda:"


def devices(target: Target) -> tuple[str, ...]:
    """Keys of this machine's devices on which a case for `target` can be measured: its CUDA
    devices when they are the target, else the processor.
    """
    if not (target.local and target.kind == "cuda"):
        return (CPU,)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        names = [name.strip() for name in visible.split(",") if name.strip()]
    else:
        names = [str(index) for index in range(len(environment()[1].get("gpus", ())))]
    return tuple(_CUDA + name for name in names) or (_CUDA + "0",)


def absent(target: Target) -> str | None:
    """Why a case for `target` cannot be measured on this machine, in a sentence; None when it can:
    a GPU that was local to another machine is not here.
    """
    if not (target.local and target.kind == "cuda") or usable_gpu(environment()[1]) is not None:
        return None
    return (
        f"it is for {target.title}, and this machine has no GPU that the installed torch could"
        " drive: measure it there, with `trimtab bundle` and `python -m core.measure.study`"
    )


def device_environment(device: str) -> Mapping[str, str]:
    """What a trial's environment must say so that it sees this device alone."""
    # Where there is no choice nothing is said: the variable is a fact of the environment's id.
    if device.startswith(_CUDA) and device != _CUDA + "0":
        return {"CUDA_VISIBLE_DEVICES": device.removeprefix(_CUDA)}
    return {}
