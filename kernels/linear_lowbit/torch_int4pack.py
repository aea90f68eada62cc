"""The kernel "torch-int4pack": torch's packed int4 product for the CPU (torch_packed.py)."""

import torch

from kernels.linear_lowbit.codes import LowBit
from kernels.linear_lowbit.torch_packed import INT4_GROUPS, lacks
from kernels.linear_lowbit.torch_packed import Int4Product as Product

__all__ = ["Product", "available", "refuse"]


def available() -> str | None:
    """None, or the sentence why this torch cannot do it."""
    return lacks("_convert_weight_to_int4pack_for_cpu", "_weight_int4pack_mm_for_cpu")


def refuse(form: LowBit, dtype: torch.dtype) -> str | None:
    """None, or the rest of a sentence that begins with the kernel's name."""
    if form.group_size not in INT4_GROUPS:
        return f"takes groups of 32, 64, 128 or 256, not {form.group_size}"
    return None if form.double is None else "takes no doubly quantized scales"
