"""Owns the judgement of a quantized matrix's numbers; names and shapes were judged before."""

from __future__ import annotations

from torch import Tensor

from core.errors import BadInput
from core.files.lean_layer import FILLED, MATRICES

# See core.files.values: a new model may start with output projections of zero, these not.
NEVER_ZERO = (
    "head", *FILLED,
    *(matrix.name for matrix in MATRICES if any(part.filled for part in matrix.parts)),
)  # fmt: skip


def finite(name: str, tensor: Tensor) -> Tensor:
    """The tensor, which must have no NaN and no infinity."""
    if not bool(tensor.isfinite().all()):
        raise BadInput(f"the tensor {name} holds values that are not finite.")
    return tensor


def check_scales(name: str, scale: Tensor) -> None:
    """BadInput when the tensor `name` of scales is all zero where no matrix is nothing."""
    if name.rpartition(".")[0].endswith(NEVER_ZERO) and not bool(scale.count_nonzero()):
        raise BadInput(f"the tensor {name} holds nothing but zeros; the file is damaged.")
