"""Replace every matrix of a loaded model by another; the float copy is let go."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from core.engine.decoder import Decoder
from core.errors import Refused
from core.techniques.deployment import Deployment
from core.techniques.solve.matrices import Matrix, matrices
from kernels.forms import weight_of
from kernels.linear_lowbit import LowBit, quantize


def replace_each(deployment: Deployment, form: Callable[[Matrix], LowBit | None]) -> None:
    """Replace each matrix by the low-bit form made of it, one at a time, so that memory stays near
    the model; None leaves a matrix as it is.
    """
    found = matrices(deployment)
    before = deployment.engine.weight_bytes()
    formats: dict[str, int] = {}
    for index, matrix in enumerate(found):
        try:
            made = form(matrix)
        except ValueError as error:
            raise Refused(f"{matrix.name}: {error}") from None
        if made is not None:
            matrix.replace(weight_of(made, matrix.bias, matrix.dtype))
            formats[made.format] = formats.get(made.format, 0) + 1
        deployment.report((index + 1) / len(found))
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

    def made(one: Matrix) -> LowBit:
        if head_bits and is_head(deployment, one):
            return quantize(one.dense(), head_bits, one.k)
        return form(one.dense())

    replace_each(deployment, made)


def is_head(deployment: Deployment, matrix: Matrix) -> bool:
    """Whether the matrix gives a language model's logits."""
    last = matrix.name.rpartition(".")[2] in ("head", "lm_head")
    return last and deployment.case.model.task == "text"


def lean(deployment: Deployment, what: str) -> Decoder:
    """The deployment's engine as the lean decoder; Refused names what needed it."""
    if not isinstance(deployment.engine, Decoder):
        raise Refused(
            f"{what} needs a model of the Llama family (llama, mistral, qwen2, qwen3);"
            f" {deployment.case.model.id} is {deployment.case.model.family}"
        )
    return deployment.engine
