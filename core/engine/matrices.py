"""The matrices of a loaded model in their places: read one as it is now, put another there.

Owns finding them in a lean decoder and in a torch module; what replaces them is a technique's
business.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from core.engine.linear import Linear
from core.engine.modules import KernelLinear
from core.files.lean_layer import NAMES
from kernels.weight import KernelWeight

if TYPE_CHECKING:
    from core.engine.decoder import Decoder

# Linear layers of transformers' own: GPT-2's y = x W + b with W [k, n], and Falcon's, an nn.Linear.
CONV1D = ("transformers.pytorch_utils", "Conv1D")
FALCON = ("transformers.models.falcon.modeling_falcon", "FalconLinear")


@dataclass(frozen=True)
class Matrix:
    """One matrix [n, k] in its place, the `attribute` of `owner`; `layer` is that of a lean decoder
    (None: the head, or a torch module's), `dtype` that of its input and output.

    `dense()` gives float32 [n, k] of what stood there when it was found, or stands there now in a
    lean decoder; `wrap` makes what the place holds of a kernel's weight.
    """

    name: str
    n: int
    k: int
    dtype: Any
    bias: Tensor | None
    layer: int | None
    owner: Any
    attribute: str
    dense: Callable[[], Tensor]
    wrap: Callable[[KernelWeight], object]

    @property
    def held(self) -> Any:
        """What stands in the place now: a Linear, an nn.Linear or a KernelLinear."""
        return getattr(self.owner, self.attribute)

    def put(self, value: object) -> None:
        """Put back what once stood there."""
        setattr(self.owner, self.attribute, value)

    def replace(self, weight: KernelWeight) -> None:
        """Put a kernel's weight there."""
        self.put(self.wrap(weight))


def of_decoder(decoder: Decoder) -> list[Matrix]:
    """Layer by layer qkv, o, gate_up, down; then the head. A tied head becomes a matrix of its own
    when it is replaced; the 16-bit embedding stays for the lookup of input tokens.
    """
    matrices = []
    for index, layer in enumerate(decoder.layers):
        for name in NAMES:
            matrices.append(_of_linear(layer, name, f"layers.{index}.{name}", index))
    return [*matrices, _of_linear(decoder, "head", "head", None)]


def of_module(module: nn.Module) -> list[Matrix]:
    """Every nn.Linear, and those of transformers, under `module`, in the order of its names."""
    matrices = []
    for name, part in module.named_modules():
        if is_linear(part):
            owner, _, leaf = name.rpartition(".")
            matrices.append(_of_module_linear(module.get_submodule(owner), leaf, name, part))
    return matrices


def is_linear(part: nn.Module) -> bool:
    """Whether a module is a linear layer that can be replaced."""
    return type(part) is nn.Linear or _kind(part) in (CONV1D, FALCON)


def _kind(part: nn.Module) -> tuple[str, str]:
    """By name, so that transformers is not imported for a classifier."""
    return type(part).__module__, type(part).__name__


def _of_linear(owner: Any, attribute: str, name: str, layer: int | None) -> Matrix:
    linear: Linear = getattr(owner, attribute)

    def dense() -> Tensor:
        now: Linear = getattr(owner, attribute)
        return now.dense()

    return Matrix(
        name, linear.out_features, linear.in_features, linear.dtype, linear.bias, layer, owner,
        attribute, dense, Linear.from_kernel,
    )  # fmt: skip


def _of_module_linear(owner: nn.Module, leaf: str, name: str, part: Any) -> Matrix:
    bias = None if part.bias is None else part.bias.detach()
    weight = part.weight
    turned = _kind(part) == CONV1D
    rows, columns = weight.T.shape if turned else weight.shape

    def dense() -> Tensor:
        now: Tensor = weight.detach().float()
        return now.T.contiguous() if turned else now

    return Matrix(name, rows, columns, weight.dtype, bias, None, owner, leaf, dense, KernelLinear)
