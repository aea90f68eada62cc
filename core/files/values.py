"""Owns the judgement of a loaded tensor's numbers; names and shapes were judged before."""

from __future__ import annotations

import torch
from torch import Tensor

from core.errors import BadInput
from core.files.architectures import family_of
from core.files.lean_layer import FILLED
from kernels.dtypes import as_torch

# A new model may start with output projections of zero, so that a block changes nothing at first;
# these it may not. A download that was cut off leaves zeros where it did not come.
NEVER_ZERO = (
    "embed_tokens.weight", "lm_head.weight", "norm.weight",
    *(f"{leaf}.weight" for leaf in FILLED),
    "wte.weight", "wpe.weight", "c_attn.weight", "c_fc.weight",
    "ln_1.weight", "ln_2.weight", "ln_f.weight", "query_key_value.weight", "embed_in.weight",
    "embed_out.weight", "dense_h_to_4h.weight", "word_embeddings.weight", "fc1.weight",
)  # fmt: skip


def check_values(file: str, name: str, tensor: Tensor, dtype: str, family: str = "") -> None:
    """Raise BadInput when a value is not finite in `dtype`, or the tensor is wrongly all zero for
    a model of this family.

    One pass over the numbers: rounding keeps their order, so that the ends speak for all.
    """
    if tensor.numel() == 0:
        return
    low, high = tensor.detach().aminmax()
    if not bool(torch.stack((low, high)).to(as_torch(dtype)).isfinite().all()):
        raise BadInput(f"{file}: the tensor {name} holds values that are not finite in {dtype}.")
    # A new norm's w is zero where it multiplies by 1 + w.
    if family_of({"model_type": family}).adds_one and name.endswith("norm.weight"):
        return
    if not bool(low) and not bool(high) and name.endswith(NEVER_ZERO):
        raise BadInput(f"{file}: the tensor {name} holds nothing but zeros; the file is damaged.")
