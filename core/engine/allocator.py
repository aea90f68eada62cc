"""The allocators, which can be told to give freed memory back: the C library's on the host, torch's
on a GPU.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
from collections.abc import Iterator

# mallopt's names (malloc.h) and what glibc itself ends at: it raises both thresholds as it sees
# larger blocks freed, up to these, so that a round that repeats takes its memory from the heap.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
_LARGEST_MMAP_THRESHOLD = 32 << 20
# Blocks from here on are mapped apart and leave with free(); smaller ones are not worth a call.
_APART_BYTES = 64 << 10


def give_back() -> None:
    """Let freed memory leave the process, where malloc can do that."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


@contextlib.contextmanager
def freed_at_once() -> Iterator[bool]:
    """Within it freed blocks leave the process at once; yields False where malloc cannot do that.

    A block that fits a gap which the heap already has still goes there, and stays when freed.
    Slower: never around what is timed. Afterwards blocks under 32 MiB stay in the heap when freed,
    as glibc ends up doing by itself.
    """
    yield _mallopt(_APART_BYTES, 0)
    _mallopt(_LARGEST_MMAP_THRESHOLD, 2 * _LARGEST_MMAP_THRESHOLD)


def _mallopt(mmap_threshold: int, trim_threshold: int) -> bool:
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    settings = (
        (_MMAP_THRESHOLD, mmap_threshold),
        (_TRIM_THRESHOLD, trim_threshold),
        (_MMAP_MAX, 1 << 16),
    )
    return all(mallopt(name, value) == 1 for name, value in settings)


def free_on_gpu(device: str = "cuda") -> int:
    """Bytes that the driver has free on a CUDA device, and those that torch's allocator holds there
    without a tensor in them.
    """
    import torch

    free, _ = torch.cuda.mem_get_info(device)
    held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(free) + int(held)


def give_back_on_gpu() -> None:
    """Wait for the GPU's work, and let memory that no tensor needs any more go to the driver."""
    import torch

    gc.collect()
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
