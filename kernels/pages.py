"""Asks the kernel of the operating system to keep weights in huge pages.

Owns that one request. A decode step reads every weight once from memory; with pages of 4 KB the
look-up of addresses takes a fifth of that time on a virtual machine (LOG.md). The memory stays
where it is and what it holds; where the request is refused nothing changes.
"""

import ctypes
import functools
import sys
from collections.abc import Callable
from typing import Any

HUGE_BYTES = 2 << 20
# Smaller tensors are not worth a call.
SMALLEST_BYTES = 1 << 16
# From Linux's mman.h: gather the pages now (since 6.1), or in time.
_COLLAPSE, _HUGEPAGE = 25, 14


def make_huge(tensor: Any) -> int:
    """Put the memory around a CPU torch.Tensor into huge pages; the bytes for which that was done.

    Pages are 2 MiB, so neighbours in memory come along. 0 on systems other than Linux, for small
    tensors, and where huge pages are switched off. Costs about a copy of the tensor.
    """
    if not sys.platform.startswith("linux") or tensor.nbytes < SMALLEST_BYTES:
        return 0
    begin = tensor.data_ptr() // HUGE_BYTES
    end = -(-(tensor.data_ptr() + tensor.nbytes) // HUGE_BYTES)
    done = 0
    for page in range(begin, end):
        # The first and last page may reach beyond what is mapped: refused, and no matter.
        if _advise()(page * HUGE_BYTES, HUGE_BYTES, _COLLAPSE) == 0:
            done += HUGE_BYTES
    if not done:
        _advise()(begin * HUGE_BYTES, (end - begin) * HUGE_BYTES, _HUGEPAGE)
    return done


@functools.cache
def _advise() -> Callable[[int, int, int], int]:
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    madvise.restype = ctypes.c_int
    return madvise
