"""What whoever launches on a GPU needs: making it the current one, how many multiprocessors it has,
whether Triton can start kernels there, and capturing a call as a CUDA graph, cleaned up where that
fails. Not yet run on a GPU.
"""

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import torch

MOST_WORDS = 200


class CaptureFailed(RuntimeError):
    """The call does what no graph can repeat; the message is what went wrong first, in one line."""


def capture(
    call: Callable[[], object], device: torch.device, pool: Any = None, stream: Any = None
) -> torch.cuda.CUDAGraph:
    """`call` on `device` as a CUDA graph.

    It must have run before, and is not run now. `pool` is a handle that several graphs share,
    `stream` where to capture; None gives a pool of its own and torch's own stream. Raises
    CaptureFailed, with the current stream as it was.
    """
    # A handle of ours, so that the allocator can be told where a capture breaks off.
    pool = torch.cuda.graph_pool_handle() if pool is None else pool
    now, graph = torch.cuda.current_stream(device), torch.cuda.CUDAGraph()
    # Threads that read sensors may go on: only this one's calls are watched.
    within = torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local")
    try:
        with torch.cuda.device(device), within:
            call()
    except Exception as error:
        # Leaving a capture that broke off ends in an error too, before the stream is put back.
        torch.cuda.set_stream(now)
        index = torch.cuda.current_device() if device.index is None else device.index
        with contextlib.suppress(Exception):
            torch._C._cuda_endAllocateToPool(index, pool)
        raise CaptureFailed(_first(error)) from error
    return graph


def _first(error: BaseException) -> str:
    while error.__context__ is not None:
        error = error.__context__
    words = " ".join(str(error).split())[:MOST_WORDS].rstrip(".")
    return f"{type(error).__name__}: {words}"


def on(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Makes a CUDA device the current one; nothing to do where it is already, or on the CPU."""
    if device.type != "cuda" or torch.cuda.current_device() == device.index:
        return contextlib.nullcontext()
    return torch.cuda.device(device)


@functools.cache
def processors(device: torch.device) -> int:
    """Multiprocessors of a CUDA device; 1 for the CPU, where Triton's interpreter runs."""
    if device.type != "cuda":
        return 1
    return int(torch.cuda.get_device_properties(device).multi_processor_count)


def no_launcher() -> str | None:
    """Why Triton cannot start kernels on this GPU, None where it can: it compiles what calls the
    driver with the system's C compiler, against Python's headers, when it is used first.
    """
    if torch.version.cuda is None:
        # A GPU that is only pretended, which nothing is started on.
        return None
    try:
        from triton.runtime import driver

        driver.active.get_current_target()
    except Exception as error:
        words = " ".join(str(error).split())[:MOST_WORDS].rstrip(".")
        return f"needs a C compiler and Python's headers, or Triton cannot start kernels ({words})"
    return None
