"""Casting all of a model, embeddings and norms included, to another float format."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from core.errors import Refused
from core.plan import Case
from core.techniques.base import Base, Proposal
from core.techniques.effects import Effects

if TYPE_CHECKING:
    from torch import Tensor, dtype

    from core.engine.decoder import Decoder
    from core.engine.linear import Linear


@dataclass(frozen=True)
class Cast(Base):
    """Weights, activations and KV cache in `dtype`: fp32, bf16 or fp16.

    A weight keeps the value of the file where the new format holds it: the file's own format
    changes nothing, and says so. fp16 is refused for a weight above 65,504.
    """

    dtype: str = "bf16"

    name: ClassVar[str] = "cast"
    kind: ClassVar[str] = "quantize"
    title: ClassVar[str] = "Cast to another float format"
    choices: ClassVar[dict[str, tuple[Any, ...]]] = {"dtype": ("fp32", "bf16", "fp16")}

    @classmethod
    def proposals(cls, case: Case) -> tuple[Proposal, ...]:
        """The formats that the model is not in already."""
        known = ("bf16", "fp16", "fp32")
        return tuple(Proposal(cls(dtype)) for dtype in known if dtype != case.model.precision)

    @property
    def rounds(self) -> bool:
        """Floats stay floats."""
        return False

    def effect(self, before: Effects, case: Case) -> Effects:
        """Every dense value in another format."""
        return replace(before, dtype=self.dtype)

    def apply(self, deployment: Any) -> None:
        """Convert every tensor of the engine."""
        from core.engine.linear import DENSE

        engine, to = deployment.engine, DENSE[self.dtype]
        before = engine.weight_bytes()
        if self.dtype == deployment.case.model.precision:
            deployment.note(f"the file's numbers are {self.dtype} already: a cast keeps them all")
        module = engine.module
        if engine.lean is not None:
            cast_decoder(engine.lean, to)
        elif module is not None:
            for name, tensor in (*module.named_parameters(), *module.named_buffers()):
                if tensor.is_floating_point():
                    _fits(name, tensor, to)
            module.to(to)
        else:
            raise Refused(f"{deployment.case.model.id} has no weights that could be cast")
        deployment.note(
            f"cast to {self.dtype}: weights went from {before:,} to {engine.weight_bytes():,} bytes"
        )
        deployment.report(1.0)


def cast_decoder(decoder: Decoder, to: dtype) -> None:
    """Convert a lean decoder in place; a tied head stays the embedding itself."""
    from torch import Tensor

    from core.engine.linear import Linear

    tied = (
        isinstance(decoder.head.weight, Tensor)
        and decoder.head.weight.data_ptr() == decoder.embedding.data_ptr()
    )
    decoder.embedding = _cast("embedding", decoder.embedding, to)
    decoder.final_norm = _cast("final_norm", decoder.final_norm, to)
    for index, layer in enumerate(decoder.layers):
        for field, value in vars(layer).items():
            name = f"layers.{index}.{field}"
            if isinstance(value, Tensor):
                setattr(layer, field, _cast(name, value, to))
            elif isinstance(value, Linear):
                setattr(layer, field, _linear(name, value, to))
    decoder.head = Linear(decoder.embedding) if tied else _linear("head", decoder.head, to)
    decoder.dtype = to


def _linear(name: str, linear: Linear, to: dtype) -> Linear:
    from core.engine.linear import Linear

    bias = None if linear.bias is None else _cast(f"{name}.bias", linear.bias, to)
    return Linear(_cast(name, linear.dense(), to).contiguous(), bias)


def _cast(name: str, tensor: Tensor, to: dtype) -> Tensor:
    _fits(name, tensor, to)
    return tensor.to(to)


def _fits(name: str, tensor: Tensor, to: dtype) -> None:
    import torch

    if to is torch.float16 and tensor.numel() and float(tensor.detach().abs().max()) > 65504:
        raise Refused(
            f"{name} has values above 65,504, which fp16 cannot hold; cast to bf16 or fp32"
        )
