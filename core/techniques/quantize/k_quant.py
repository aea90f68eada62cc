"""Mixed 2 to 6 bit after llama.cpp's k-quant mixes: more bits where they matter most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from core.model import DecoderShape
from core.plan import Case, Technique
from core.techniques.base import Base

MIXES = ("q2_k", "q3_k_m", "q4_k_m", "q5_k_m", "q6_k")


@dataclass(frozen=True)
class KQuant(Base):
    """Group scales that are codes themselves, and a type for each matrix (coverage Q9; k_blocks.py
    has the types and what differs from ggml).

    The types by matrix are llama.cpp's rule: the head Q6_K; qkv, down and o more bits than the
    mix's own, in all layers or in the first eighth, the last eighth and every third between. qkv is
    one matrix here and takes the type that attn_v (or a stacked attn_qkv) has there. The embedding
    stays in 16 bit. Nothing is calibrated.
    """

    mix: str = "q4_k_m"

    name: ClassVar[str] = "k-quant"
    kind: ClassVar[str] = "quantize"
    title: ClassVar[str] = "k-quants, mixed 2 to 6 bit"
    choices: ClassVar[dict[str, tuple[Any, ...]]] = {"mix": MIXES}

    @classmethod
    def candidates(cls, case: Case) -> tuple[Technique, ...]:
        """All mixes, the usual one first."""
        return tuple(cls(mix) for mix in ("q4_k_m", "q5_k_m", "q3_k_m", "q6_k", "q2_k"))

    def apply(self, deployment: Any) -> None:
        """Replace every matrix of the layers, the head included, by packed codes."""
        from core.techniques.quantize.k_blocks import k_blocks
        from core.techniques.quantize.replace import is_head, replace_each

        shape = deployment.case.model.shape

        def form(one: Any) -> Any:
            name = "head" if is_head(deployment, one) else one.name
            return k_blocks(one.dense(), type_of(self.mix, name, shape)).low_bit()

        replace_each(deployment, form)


def type_of(mix: str, name: str, shape: Any) -> str:
    """The type (`q4_k`) of the matrix `layers.3.down` or `head` in a decoder of `shape`.

    A matrix of another name, as a classifier's, has the mix's own type.
    """
    base = mix.removesuffix("_m")
    if name == "head":
        return "q6_k"
    parts = name.split(".")
    if not isinstance(shape, DecoderShape) or len(parts) != 3 or parts[0] != "layers":
        return base
    layer, layers, part = int(parts[1]), shape.layers, parts[2]
    eighth = layers // 8
    edge = layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2
    if base in ("q4_k", "q5_k"):
        return "q6_k" if part in ("qkv", "down") and edge else base
    if base == "q3_k":
        first = {"qkv": layer < 2, "down": layer < layers // 16}.get(part, False)
        return "q5_k" if first else "q4_k" if part in ("qkv", "down", "o") else base
    if base == "q2_k":
        shared = shape.heads // shape.kv_heads
        if part == "qkv":
            return "q4_k" if shared >= 4 else "q3_k"
        return "q3_k" if part in ("down", "o") else base
    return base
