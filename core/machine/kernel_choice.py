"""The sentences about kernels that were asked for by name, in TRIMTAB_KERNEL, and cannot run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from core.errors import Refused
from kernels.registry import ENVIRONMENT, KernelUnavailable, kernels_available, requested


@contextmanager
def refusing() -> Iterator[None]:
    """Turns a kernel that cannot run into Refused, whose sentence names the variable that asks."""
    try:
        yield
    except KernelUnavailable as error:
        raise Refused(_sentence(str(error))) from None


def complaint(device: str) -> str | None:
    """None when TRIMTAB_KERNEL is unset or can be done on `device` ("cpu", "cuda"), else why not:
    one sentence, in which the variable need not be named.
    """
    try:
        wanted = requested(os.environ.get(ENVIRONMENT, ""))
    except KernelUnavailable as error:
        return str(error).removeprefix(f"{ENVIRONMENT}: ")
    for info, reason in kernels_available(device) if wanted else ():
        if reason is not None and wanted.get(info.op) == info.name:
            return (
                f"{info.op}={info.name} cannot run here ({reason}); unset the variable or name"
                f" another kernel of {info.op}."
            )
    return None


def _sentence(text: str) -> str:
    wanted = os.environ.get(ENVIRONMENT, "")
    if not wanted or ENVIRONMENT in text:
        return text
    return f"{text.rstrip('.')}; {ENVIRONMENT}={wanted} asks for it: unset it or name another."
