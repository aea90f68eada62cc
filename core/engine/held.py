"""Owns what an engine answers about the weights that it holds: a lean decoder's, or those of a
torch module (a classifier, a model of transformers). See core.engine.protocol.Engine.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from core.engine.experts import split_experts
from core.engine.linear import DENSE, Linear, name_of
from core.engine.matrices import Matrix, of_decoder, of_module
from core.engine.modules import KernelLinear
from core.files import lean_layer

if TYPE_CHECKING:
    from core.engine.decoder import Decoder

Tensors = Iterator[tuple[str, str, Tensor]]


def nbytes(tensors: Tensors) -> int:
    """Bytes of all tensors; memory that two names share counts once."""
    return sum({tensor.data_ptr(): tensor.nbytes for _, _, tensor in tensors}.values())


class HeldByDecoder:
    """What core.engine.decoder.Decoder answers."""

    # It runs no torch module.
    module = None

    @property
    def lean(self) -> Decoder:
        """Itself."""
        decoder: Any = self
        return decoder  # type: ignore[no-any-return]

    @property
    def compute_format(self) -> str:
        """The dtype of activations, to which packed weights are widened."""
        return name_of(self.lean.dtype)

    def kernel_formats(self) -> set[str]:
        """Every matrix is multiplied by a kernel of ours."""
        return {self.compute_format}

    def matrices(self) -> list[Matrix]:
        """The stacked matrices of every layer, then the head."""
        return of_decoder(self.lean)

    def packed(self) -> dict[str, str]:
        """The format of every matrix that is not dense, by name."""
        return {
            name: linear.format
            for name, linear in self.lean.linears()
            if linear.format not in DENSE
        }

    def linears(self) -> Iterator[tuple[str, Linear]]:
        """Every matrix with its name (`layers.3.gate_up`, `head`)."""
        for i, layer in enumerate(self.lean.layers):
            for name in lean_layer.NAMES:
                yield f"layers.{i}.{name}", getattr(layer, name)
        yield "head", self.lean.head

    def norms(self) -> Iterator[tuple[str, Tensor]]:
        """The layers' norms with their Hugging Face names."""
        for i, layer in enumerate(self.lean.layers):
            for norm in lean_layer.norms(self.lean.config):
                yield f"{lean_layer.in_layer(i, norm.module)}.weight", getattr(layer, norm.name)

    def tensors(self) -> Tensors:
        """The embedding, the matrices, the norms."""
        decoder = self.lean
        yield "embedding", name_of(decoder.embedding.dtype), decoder.embedding
        for name, linear in decoder.linears():
            for i, tensor in enumerate(linear.tensors()):
                yield f"{name}.{i}" if i else name, linear.format, tensor
        for i, layer in enumerate(decoder.layers):
            for name, value in vars(layer).items():
                if isinstance(value, Tensor):
                    yield f"layers.{i}.{name}", name_of(value.dtype), value
        yield "final_norm", name_of(decoder.final_norm.dtype), decoder.final_norm

    def weight_bytes(self) -> int:
        """Bytes resident for all weights."""
        return nbytes(self.tensors())

    def table_bytes(self) -> int:
        """Rotary cosines and sines, computed once and kept."""
        return self.lean.rotary.nbytes

    def looked_up_bytes(self) -> int:
        """The embedding, unless the head reads it."""
        table = self.lean.embedding
        read = [tensor.data_ptr() for tensor in self.lean.head.tensors()]
        return 0 if table.data_ptr() in read else table.nbytes


class HeldByModule:
    """What an engine around a torch module answers; `module` is that module."""

    # It is no lean decoder.
    lean = None

    @property
    def module(self) -> nn.Module:
        """The torch module that runs."""
        raise NotImplementedError

    @property
    def compute_format(self) -> str:
        """That of the first floats among the parameters; packed weights are widened to it."""
        for parameter in self.module.parameters():
            if parameter.is_floating_point():
                return name_of(parameter.dtype)
        # A classifier whose every matrix is packed has no parameters left.
        return next(iter(sorted(self.kernel_formats())), "")

    def kernel_formats(self) -> set[str]:
        """Those of the matrices that a technique gave to our kernels."""
        return {name_of(part.weight_of_kernel.dtype) for _, part in self._kernel_linears()}

    def matrices(self) -> list[Matrix]:
        """Every linear layer of the module, whose fused experts are taken apart first."""
        split_experts(self.module)
        return of_module(self.module)

    def packed(self) -> dict[str, str]:
        """The format of every matrix that is not dense, by name."""
        return {name: part.format for name, part in self._kernel_linears()}

    def tensors(self) -> Tensors:
        """The module's parameters and buffers."""
        for name, tensor in (*self.module.named_parameters(), *self.module.named_buffers()):
            yield name, name_of(tensor.dtype), tensor

    def table_bytes(self) -> int:
        """What a module computed once lies among its buffers."""
        return 0

    def weight_bytes(self) -> int:
        """Bytes of all parameters and buffers, packed matrices included."""
        return nbytes(self.tensors())

    def _kernel_linears(self) -> Iterator[tuple[str, KernelLinear]]:
        for name, part in self.module.named_modules():
            if isinstance(part, KernelLinear):
                yield name, part
