"""Times candidates in turns, on a GPU each as a captured graph behind a fill of the last cache."""

import time
from collections.abc import Callable, Mapping
from typing import Any

# Candidates take turns; medians of so many samples are compared.
SAMPLES = 15
# Bytes written between two samples, more than the last cache of a GPU holds: weights come from
# memory, as they do in a decoder's step.
FLUSHED = 256 << 20

Call = Callable[[], object]


def rounds(
    calls: Mapping[str, Call], device: Any, samples: int = SAMPLES
) -> tuple[dict[str, tuple[float, ...]], dict[str, str]]:
    """Seconds of each call in turns, and why the others could not be timed.

    Each is called twice before, so that it has compiled and tuned itself. On a GPU it is captured
    then, and its replay is timed behind a fill that takes everything else out of the last cache.
    """
    timers, failed = {}, {}
    other = _filled(device)
    for name, call in calls.items():
        try:
            timers[name] = _timer(call, device, other)
        except Exception as error:
            failed[name] = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    times: dict[str, list[float]] = {name: [] for name in timers}
    for _ in range(samples):
        for name, timer in timers.items():
            times[name].append(timer())
    return {name: tuple(values) for name, values in times.items()}, failed


def _filled(device: Any) -> Any:
    """What is written over the last cache; None on the CPU."""
    import torch

    if device.type != "cuda":
        return None
    return torch.empty(FLUSHED, dtype=torch.uint8, device=device)


def _timer(call: Call, device: Any, other: Any) -> Callable[[], float]:
    import torch

    from kernels.cuda import capture

    if device.type != "cuda":
        call()
        call()

        def on_the_wall() -> float:
            started = time.perf_counter()
            call()
            return time.perf_counter() - started

        return on_the_wall
    with torch.cuda.device(device):
        call()
        call()
        torch.cuda.synchronize()
    graph = capture(call, device)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))

    def on_the_device() -> float:
        with torch.cuda.device(device):
            other.zero_()
            start.record()
            graph.replay()
            end.record()
            end.synchronize()
            return float(start.elapsed_time(end)) / 1e3

    return on_the_device
