"""Energy of an NVIDIA GPU through the driver's library (NVML) and the package nvidia-ml-py.

From Volta on the driver counts millijoules; on older GPUs its power reading is sampled and
integrated, which is an estimate.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from core.measure.energy.reader import Lap, Unreadable

# How often the driver renews the counter and the power reading: 10 to 100 ms by model (Yang et al.
# 2024, "Accurate and Convenient Energy Measurements for GPUs"); the slowest is assumed where it
# cannot be seen: a counter is watched for so many renewals, and so long at most.
RESOLUTION_S = 0.1
RENEWALS, WATCHED_S = 8, 1.0
# Updates of a sample: rounds on a GPU take fractions of a second, so that a sample may be 5 % off
# by where its ends fall between updates; a dozen are 1.5 % off together, as their interval says.
SAMPLE_UPDATES = 9.0
# Updates that idle power is measured over: it is a sixth of the draw under load or less, so that
# its own noise of 3 % is half a percent of what is left.
IDLE_UPDATES = 15.0
SAMPLE_S = 0.02
# The driver averages its power reading over a window of its own: samples may miss short peaks.
SAMPLED_SPREAD = (0.8, 1.25)


class Nvml:
    """What is read of one device; Unreadable with NVML's own words. `library` is the module pynvml
    of nvidia-ml-py.
    """

    def __init__(self, library: Any, uuid: str | None = None, index: int = 0) -> None:
        self._library = library
        with self._doing("start"):
            library.nvmlInit()
        with self._doing("find the device"):
            self._handle = self._found(uuid, index)

    def _found(self, uuid: str | None, index: int) -> Any:
        library = self._library
        if uuid is None:
            return library.nvmlDeviceGetHandleByIndex(index)
        try:
            return library.nvmlDeviceGetHandleByUUID(uuid)
        except library.NVMLError:
            # A part of a card, or a sandbox that hides names: where there is one card it is that.
            if library.nvmlDeviceGetCount() != 1:
                raise
            return library.nvmlDeviceGetHandleByIndex(0)

    def millijoules(self) -> int | None:
        """Counted since the driver was loaded; None where the GPU does not count."""
        with self._doing("read the energy counter"):
            try:
                return int(self._library.nvmlDeviceGetTotalEnergyConsumption(self._handle))
            except self._library.NVMLError_NotSupported:
                return None

    def watts(self) -> float:
        """The power reading of now."""
        with self._doing("read the power"):
            return float(self._library.nvmlDeviceGetPowerUsage(self._handle)) / 1e3

    @contextlib.contextmanager
    def _doing(self, what: str) -> Iterator[None]:
        try:
            yield
        except self._library.NVMLError as error:
            raise Unreadable(f"NVML cannot {what}: {error}") from None


class CountedReader:
    """Joules from the driver's counter; see core.measure.energy.reader.Reader."""

    name = "NVML energy counter (GPU alone)"
    origin = "measured"
    spread = (1.0, 1.0)
    draws_idle = True

    def __init__(self, nvml: Nvml) -> None:
        self._nvml = nvml
        self._began = 0
        self._at = 0.0
        self.resolution_s = RESOLUTION_S

    def watch(self) -> None:
        """See how often the driver renews the counter, in at most WATCHED_S: the longest of the
        times between RENEWALS changes is the resolution. Fewer changes tell nothing.
        """
        begun = time.perf_counter()
        last = self._read()
        changes: list[float] = []
        while len(changes) <= RENEWALS and time.perf_counter() - begun < WATCHED_S:
            value = self._read()
            if value != last:
                last = value
                changes.append(time.perf_counter())
        if len(changes) > RENEWALS:
            self.resolution_s = max(after - before for before, after in pairwise(changes))

    def start(self) -> None:
        """Read the counter."""
        self._began, self._at = self._read(), time.perf_counter()

    def lap(self) -> Lap:
        """Joules since the last reading; Unreadable when the driver was loaded anew."""
        now, at = self._read(), time.perf_counter()
        spent, seconds = now - self._began, at - self._at
        self._began, self._at = now, at
        if spent < 0:
            raise Unreadable("the GPU's energy counter went back: its driver was loaded anew")
        return Lap(seconds, (("gpu", spent / 1e3),))

    def _read(self) -> int:
        value = self._nvml.millijoules()
        if value is None:
            raise Unreadable("the GPU stopped counting energy")
        return value


class SampledReader:
    """Joules as the integral of the power reading, sampled by a thread; see reader.Reader."""

    name = f"NVML power, sampled every {SAMPLE_S * 1e3:g} ms and integrated (GPU alone)"
    resolution_s = RESOLUTION_S
    origin = "estimated"
    spread = SAMPLED_SPREAD
    draws_idle = True

    def __init__(self, nvml: Nvml, thread: bool = True) -> None:
        self._nvml = nvml
        self._lock = threading.Lock()
        self._joules = 0.0
        self._last: tuple[float, float] | None = None
        self._began = self._at = 0.0
        self._why = ""
        self._thread = thread

    def start(self) -> None:
        """Begin to sample; the thread ends with the process."""
        self.sample()
        if self._thread:
            self._thread = False
            threading.Thread(target=self._run, name="nvml-power", daemon=True).start()
        with self._lock:
            self._began, self._at = self._joules, time.perf_counter()

    def lap(self) -> Lap:
        """Joules since the last reading."""
        self.sample()
        if self._why:
            raise Unreadable(self._why)
        with self._lock:
            joules, at = self._joules, time.perf_counter()
            spent, seconds = joules - self._began, at - self._at
            self._began, self._at = joules, at
        return Lap(seconds, (("gpu", spent),))

    def sample(self) -> None:
        """One trapezoid more."""
        watts, at = self._nvml.watts(), time.perf_counter()
        with self._lock:
            if self._last is not None:
                before, was = self._last
                self._joules += (watts + was) / 2 * (at - before)
            self._last = at, watts

    def _run(self) -> None:
        while not self._why:
            time.sleep(SAMPLE_S)
            try:
                self.sample()
            except Unreadable as error:
                self._why = str(error)


def find(library: Any = None) -> tuple[CountedReader | SampledReader | None, str]:
    """The reader of the GPU that torch uses, or None and why."""
    if library is None:
        try:
            import pynvml

            library = pynvml
        except ImportError:
            return None, (
                "no GPU energy: the package nvidia-ml-py is not installed; install it with:"
                " pip install 'trimtab[energy]'"
            )
    try:
        return _reader(Nvml(library, _uuid())), ""
    except Unreadable as error:
        return None, f"no GPU energy: {error}"


def _reader(nvml: Nvml) -> CountedReader | SampledReader:
    # Drivers in a sandbox refuse one and give the other.
    with contextlib.suppress(Unreadable):
        if nvml.millijoules() is not None:
            return CountedReader(nvml)
    nvml.watts()
    return SampledReader(nvml)


def _uuid() -> str | None:
    """The UUID of torch's current device, which CUDA_VISIBLE_DEVICES may have renumbered."""
    try:
        import torch

        if not torch.cuda.is_available():
            return None
        uuid = getattr(torch.cuda.get_device_properties(torch.cuda.current_device()), "uuid", None)
    except (ImportError, RuntimeError):
        return None
    return None if uuid is None else f"GPU-{uuid}"
