"""What a launch asks of its device: being the current one, and how many multiprocessors it has."""

import contextlib
import functools

import torch


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
