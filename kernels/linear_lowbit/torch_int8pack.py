"""The kernel "torch-int8pack": torch's packed int8 product for the CPU (torch_packed.py)."""

import torch

from kernels.linear_lowbit.codes import LowBit
from kernels.linear_lowbit.torch_packed import Int8Product as Product
from kernels.linear_lowbit.torch_packed import lacks

__all__ = ["Product", "available", "refuse"]


def available() -> str | None:
    """None, or the sentence why this torch cannot do it."""
    return lacks("_weight_int8pack_mm")


def refuse(form: LowBit, dtype: torch.dtype) -> str | None:
    """None, or the rest of a sentence that begins with the kernel's name."""
    if form.groups != 1 or form.zero is not None:
        return "takes one scale a row and no zeros"
    return None if form.double is None else "takes no doubly quantized scales"
