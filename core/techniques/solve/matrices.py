"""The matrices of a loaded model that a technique may replace, whatever the engine.

Owns finding and replacing them, one at a time so that the float copies are let go; what replaces
them is each technique's business.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from core.engine.decoder import Decoder
from core.engine.experts import split_experts
from core.engine.linear import Linear
from core.engine.modules import KernelLinear, module_of
from core.errors import Refused
from core.files.lean_layer import NAMES as MATRICES
from core.techniques.deployment import Deployment
from kernels.forms import weight_of
from kernels.linear_lowbit import LowBit, quantize
from kernels.weight import KernelWeight

# Up to this share of the weights, norms and the like, nobody needs to be told of.
NOTED = 0.01
# Linear layers of transformers' own: GPT-2's y = x W + b with W [k, n], and Falcon's, an nn.Linear.
CONV1D = ("transformers.pytorch_utils", "Conv1D")
FALCON = ("transformers.models.falcon.modeling_falcon", "FalconLinear")


@dataclass(frozen=True)
class Matrix:
    """One matrix [n, k] in its place; `layer` is that of a lean decoder (None: the head, or a torch
    module's), `dtype` that of its input and output.
    """

    name: str
    n: int
    k: int
    dtype: Any
    bias: Tensor | None
    layer: int | None
    dense: Callable[[], Tensor]
    replace: Callable[[KernelWeight], None]


def matrices(deployment: Deployment) -> list[Matrix]:
    """Those of the layers and the head of a lean decoder, or every linear layer of a torch module,
    whose fused experts are taken apart first.

    `dense()` gives fp32 [n, k] as it is now. Raises Refused when there is none.
    """
    engine = deployment.engine
    if isinstance(engine, Decoder):
        return of_decoder(engine)
    module = module_of(engine)
    if module is not None:
        split_experts(module)
    found = [] if module is None else of_module(module)
    if not found:
        raise Refused(f"{deployment.case.model.id} has no linear layer that could be quantized")
    return found


def of_decoder(decoder: Decoder) -> list[Matrix]:
    """Layer by layer qkv, o, gate_up, down; then the head. A tied head becomes a matrix of its own
    when it is replaced; the 16-bit embedding stays for the lookup of input tokens.
    """
    found = []
    for index, layer in enumerate(decoder.layers):
        for name in MATRICES:
            found.append(_of_linear(layer, name, f"layers.{index}.{name}", index))
    return [*found, _of_linear(decoder, "head", "head", None)]


def of_module(module: nn.Module) -> list[Matrix]:
    """Every nn.Linear, and those of transformers, under `module`, in the order of its names."""
    found = []
    for name, part in module.named_modules():
        if _is_linear(part):
            owner, _, leaf = name.rpartition(".")
            found.append(_of_module_linear(module.get_submodule(owner), leaf, name, part))
    return found


def left_alone(deployment: Deployment) -> str:
    """A sentence when linear layers of a torch module were replaced, and more than NOTED of its
    weights outside of embeddings are in none; otherwise nothing.
    """
    module = module_of(deployment.engine)
    if module is None:
        return ""
    replaced = kept = 0
    left: list[Tensor] = []
    for part in module.modules():
        if isinstance(part, KernelLinear):
            replaced += part.in_features * part.out_features
        elif _is_linear(part):
            kept += sum(weight.numel() for weight in part.parameters())
        elif not isinstance(part, nn.Embedding):
            left += part.parameters(recurse=False)
    size = sum(weight.numel() for weight in left)
    share = size / max(1, replaced + kept + size)
    if not replaced or share <= NOTED:
        return ""
    bits = 8 * left[0].dtype.itemsize
    return f"{100 * share:.0f} % of the weights are not in linear layers and stay in {bits} bit"


def _is_linear(part: nn.Module) -> bool:
    return type(part) is nn.Linear or _kind(part) in (CONV1D, FALCON)


def _kind(part: nn.Module) -> tuple[str, str]:
    """By name, so that transformers is not imported for a classifier."""
    return type(part).__module__, type(part).__name__


def _of_linear(owner: Any, attribute: str, name: str, layer: int | None) -> Matrix:
    linear: Linear = getattr(owner, attribute)

    def replace(weight: KernelWeight) -> None:
        setattr(owner, attribute, Linear.from_kernel(weight))

    def dense() -> Tensor:
        now: Linear = getattr(owner, attribute)
        return now.dense()

    rows, columns = linear.out_features, linear.in_features
    return Matrix(name, rows, columns, linear.dtype, linear.bias, layer, dense, replace)


def _of_module_linear(owner: nn.Module, leaf: str, name: str, part: Any) -> Matrix:
    def replace(weight: KernelWeight) -> None:
        setattr(owner, leaf, KernelLinear(weight))

    bias = None if part.bias is None else part.bias.detach()
    weight = part.weight
    turned = _kind(part) == CONV1D
    rows, columns = weight.T.shape if turned else weight.shape

    def dense() -> Tensor:
        now: Tensor = weight.detach().float()
        return now.T.contiguous() if turned else now

    return Matrix(name, rows, columns, weight.dtype, bias, None, dense, replace)


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
