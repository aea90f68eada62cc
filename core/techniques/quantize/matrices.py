"""The matrices of a loaded model that a technique may replace, whatever the engine.

Owns finding and replacing them; what replaces them is each technique's business.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from core.deployment import Deployment
from core.engine.decoder import MATRICES, Decoder
from core.engine.linear import Linear
from core.engine.modules import KernelLinear
from core.errors import Refused
from kernels.weight import KernelWeight


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
    """Those of the layers and the head of a lean decoder, or every nn.Linear of a torch module.

    `dense()` gives fp32 [n, k] as it is now. Raises Refused when there is none.
    """
    engine = deployment.engine
    if isinstance(engine, Decoder):
        return of_decoder(engine)
    module = getattr(engine, "model", engine)
    found = of_module(module) if isinstance(module, nn.Module) else []
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
    """Every nn.Linear under `module`, in the order of its names."""
    found = []
    for name, part in module.named_modules():
        if type(part) is nn.Linear:
            owner, _, leaf = name.rpartition(".")
            found.append(_of_module_linear(module.get_submodule(owner), leaf, name, part))
    return found


def _of_linear(owner: Any, attribute: str, name: str, layer: int | None) -> Matrix:
    linear: Linear = getattr(owner, attribute)

    def replace(weight: KernelWeight) -> None:
        setattr(owner, attribute, Linear.from_kernel(weight))

    def dense() -> Tensor:
        now: Linear = getattr(owner, attribute)
        return now.dense()

    rows, columns = linear.out_features, linear.in_features
    return Matrix(name, rows, columns, linear.dtype, linear.bias, layer, dense, replace)


def _of_module_linear(owner: nn.Module, leaf: str, name: str, part: nn.Linear) -> Matrix:
    def replace(weight: KernelWeight) -> None:
        setattr(owner, leaf, KernelLinear(weight))

    bias = None if part.bias is None else part.bias.detach()
    rows, columns = part.out_features, part.in_features
    weight = part.weight

    def dense() -> Tensor:
        return weight.detach().float()

    return Matrix(name, rows, columns, weight.dtype, bias, None, dense, replace)
