"""Owns what of a GPU's memory this process could still fill."""

from __future__ import annotations

import gc


def free_bytes(device: str = "cuda") -> int:
    """Bytes that the driver has free on a CUDA device, and those that torch's allocator holds there
    without a tensor in them.
    """
    import torch

    free, _ = torch.cuda.mem_get_info(device)
    held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(free) + int(held)


def give_back() -> None:
    """Wait for the GPU's work, and let tensors that nobody holds any more leave its memory."""
    import torch

    gc.collect()
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
