"""What the NVIDIA driver's library (NVML, package nvidia-ml-py) tells of GPUs, in the words and
numbers of nvidia-smi. Nothing where the package or the library is not there.

Energy over a span is core.measure.energy.nvml's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

MIB = 1024 * 1024


def cards() -> list[dict[str, Any]]:
    """Each GPU with its name, and what it tells of core.machine.gpus.FIXED."""

    def card(library: Any, handle: Any) -> dict[str, Any]:
        facts = {
            # nvidia-smi counts whole MiB.
            "memory_bytes": lambda: library.nvmlDeviceGetMemoryInfo(handle).total // MIB * MIB,
            "power_limit_w": lambda: _watts(library.nvmlDeviceGetPowerManagementLimit(handle)),
            "clock_max_mhz": lambda: library.nvmlDeviceGetMaxClockInfo(
                handle, library.NVML_CLOCK_SM
            ),
            "memory_clock_max_mhz": lambda: library.nvmlDeviceGetMaxClockInfo(
                handle, library.NVML_CLOCK_MEM
            ),
        }
        return {"name": _text(library.nvmlDeviceGetName(handle)), **_told(library, facts)}

    return _each(card)


def now() -> list[tuple[dict[str, Any], int]]:
    """What each GPU tells of core.machine.gpus.NOW, and the bits of why its clock is lowered."""

    def reading(library: Any, handle: Any) -> tuple[dict[str, Any], int]:
        facts = {
            "clock_mhz": lambda: library.nvmlDeviceGetClockInfo(handle, library.NVML_CLOCK_SM),
            "memory_clock_mhz": lambda: library.nvmlDeviceGetClockInfo(
                handle, library.NVML_CLOCK_MEM
            ),
            "temperature_c": lambda: library.nvmlDeviceGetTemperature(
                handle, library.NVML_TEMPERATURE_GPU
            ),
            "power_w": lambda: _watts(library.nvmlDeviceGetPowerUsage(handle)),
            "reasons": lambda: library.nvmlDeviceGetCurrentClocksThrottleReasons(handle),
        }
        told = _told(library, facts)
        return told, int(told.pop("reasons", 0))

    return _each(reading)


def driver() -> str | None:
    """The version of the driver."""
    library = _library()
    if library is None:
        return None
    try:
        return _text(library.nvmlSystemGetDriverVersion())
    except library.NVMLError:
        return None


def _each(tell: Callable[[Any, Any], Any]) -> list[Any]:
    library = _library()
    if library is None:
        return []
    try:
        handles = map(library.nvmlDeviceGetHandleByIndex, range(library.nvmlDeviceGetCount()))
        return [tell(library, handle) for handle in handles]
    except (library.NVMLError, AttributeError):
        # Older packages lack some of the functions.
        return []


def _library() -> Any:
    """The module pynvml with the driver's library loaded, or None."""
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    return pynvml


def _told(library: Any, facts: dict[str, Callable[[], Any]]) -> dict[str, Any]:
    """Of the facts those that this GPU tells."""
    told = {}
    for name, ask in facts.items():
        try:
            told[name] = ask()
        except (library.NVMLError, AttributeError):
            continue
    return told


def _watts(milliwatts: int) -> int | float:
    return milliwatts // 1000 if milliwatts % 1000 == 0 else milliwatts / 1000


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
