"""The matrices of a loaded model that a technique may replace, whatever the engine.

Owns finding and replacing them, one at a time so that the float copies are let go; what replaces
them is each technique's business.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from core.engine.decoder import Decoder
from core.engine.matrices import Matrix, is_linear
from core.engine.modules import KernelLinear
from core.errors import Refused
from core.techniques.deployment import Deployment
from kernels.forms import weight_of
from kernels.linear_lowbit import LowBit, quantize

# Up to this share of the weights, norms and the like, nobody needs to be told of.
NOTED = 0.01


def matrices(deployment: Deployment) -> list[Matrix]:
    """The engine's matrices; Refused when there is none."""
    targets: list[Matrix] = deployment.engine.matrices()
    if not targets:
        raise Refused(f"{deployment.case.model.id} has no linear layer that could be quantized")
    return targets


def left_alone(deployment: Deployment) -> str:
    """A sentence when linear layers of a torch module were replaced, and more than NOTED of its
    weights outside of embeddings are in none; otherwise nothing.
    """
    module = deployment.engine.module
    if module is None:
        return ""
    replaced = floats = 0
    left: list[Tensor] = []
    for part in module.modules():
        if isinstance(part, KernelLinear):
            replaced += part.in_features * part.out_features
        elif is_linear(part):
            floats += sum(weight.numel() for weight in part.parameters())
        elif not isinstance(part, nn.Embedding):
            left += part.parameters(recurse=False)
    size = sum(weight.numel() for weight in left)
    share = size / max(1, replaced + floats + size)
    if not replaced or share <= NOTED:
        return ""
    bits = 8 * left[0].dtype.itemsize
    return f"{100 * share:.0f} % of the weights are not in linear layers and stay in {bits} bit"


def replace_each(deployment: Deployment, form: Callable[[Matrix], LowBit | None]) -> None:
    """Replace each matrix by the low-bit form made of it, one at a time, so that memory stays near
    the model; None leaves a matrix as it is.
    """
    targets = matrices(deployment)
    before = deployment.engine.weight_bytes()
    formats: dict[str, int] = {}
    for index, matrix in enumerate(targets):
        try:
            low_bit = form(matrix)
        except ValueError as error:
            raise Refused(f"{matrix.name}: {error}") from None
        if low_bit is not None:
            matrix.replace(weight_of(low_bit, matrix.bias, matrix.dtype))
            formats[low_bit.format] = formats.get(low_bit.format, 0) + 1
        deployment.report((index + 1) / len(targets))
    names = ", ".join(f"{count} {name}" for name, count in formats.items())
    deployment.note(
        f"{names or 'nothing'}: weights went from {before:,} to"
        f" {deployment.engine.weight_bytes():,} bytes"
    )


def replace_each_but_head(
    deployment: Deployment, form: Callable[[Tensor], LowBit], head_bits: int
) -> None:
    """Replace each matrix by the form of its dense weight, and the head by `head_bits` integers a
    row; with 0 the head is no exception.
    """

    def rounded(matrix: Matrix) -> LowBit:
        if head_bits and is_head(deployment, matrix):
            return quantize(matrix.dense(), head_bits, matrix.k)
        return form(matrix.dense())

    replace_each(deployment, rounded)


def is_head(deployment: Deployment, matrix: Matrix) -> bool:
    """Whether the matrix gives a language model's logits."""
    last = matrix.name.rpartition(".")[2] in ("head", "lm_head")
    return last and deployment.case.model.task == "text"


def lean(deployment: Deployment, what: str) -> Decoder:
    """The deployment's engine as the lean decoder; Refused names what needed it."""
    decoder: Decoder | None = deployment.engine.lean
    if decoder is None:
        raise Refused(
            f"{what} needs a model of the Llama family (llama, mistral, qwen2, qwen3);"
            f" {deployment.case.model.id} is {deployment.case.model.family}"
        )
    return decoder
