"""Mixed 2 to 6 bit after llama.cpp's k-quant mixes: more bits where they matter most."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from core.errors import Refused
from core.files.gguf.k_types import BLOCK, DENSE, FALLBACK, SUPER, fitting
from core.files.storage import K_BYTES, KQuantBytes, Storage
from core.model import DecoderShape
from core.plan import Case
from core.techniques.base import STANDARD, Base, Proposal
from core.techniques.effects import Effects

MIXES = ("q2_k", "q3_k_m", "q4_k_m", "q5_k_m", "q6_k")


@dataclass(frozen=True)
class KQuant(Base):
    """Group scales that are codes themselves, and a type for each matrix: files/gguf/k_types.py has
    the types, solve/k_search.py what differs from ggml.

    The types by matrix are llama.cpp's rule: the head Q6_K; qkv, down and o more bits than the
    mix's own, in all layers or in the first eighth, the last eighth and every third between. qkv is
    one matrix here and takes the type that attn_v (or a stacked attn_qkv) has there. The embedding
    stays in the model's floats. Rows that are no multiple of 256 take blocks of 32 in place of the
    type, as llama.cpp does, which is noted. Nothing is calibrated.
    """

    mix: str = "q4_k_m"

    name: ClassVar[str] = "k-quant"
    kind: ClassVar[str] = "quantize"
    title: ClassVar[str] = "k-quants, mixed 2 to 6 bit"
    choices: ClassVar[dict[str, tuple[Any, ...]]] = {"mix": MIXES}

    @classmethod
    def proposals(cls, case: Case) -> tuple[Proposal, ...]:
        """All mixes, the usual one first."""
        others = ("q5_k_m", "q3_k_m", "q6_k", "q2_k")
        return (Proposal(cls(), STANDARD), *(Proposal(cls(mix)) for mix in others))

    def effect(self, before: Effects, case: Case) -> Effects:
        """llama.cpp's type for each matrix, and its fallback for rows of other lengths."""
        base, shape = self.mix.removesuffix("_m"), case.model.shape
        stored = KQuantBytes(base, before.dtype)
        if not isinstance(shape, DecoderShape):
            return replace(before, stored=stored)
        hidden, query = shape.hidden, shape.heads * shape.head_dim
        columns = {"qkv": hidden, "o": query, "gate_up": hidden, "head": shape.head().columns,
                   "down": before.shape(shape).intermediate}  # fmt: skip
        parts = ("qkv", "o", "gate_up", "down")
        names = [f"layers.{i}.{part}" for i in range(shape.layers) for part in parts]
        mix: list[tuple[str, Storage | None]] = []
        for name in (*names, "head"):
            wanted = type_of(self.mix, name, shape)
            mix.append((name, K_BYTES[fitting(wanted, columns[name.rpartition(".")[2]])]))
        return replace(before, stored=stored, mix=tuple(mix))

    def apply(self, deployment: Any) -> None:
        """Replace every matrix of the layers, the head included, by packed codes. Raises Refused
        when no row is a multiple of 32.
        """
        from core.techniques.solve.k_search import k_blocks
        from core.techniques.solve.matrices import is_head, matrices, replace_each
        from core.techniques.solve.plain_blocks import plain_blocks

        shape = deployment.case.model.shape

        def types(matrix: Any) -> tuple[str, str]:
            name = "head" if is_head(deployment, matrix) else matrix.name
            wanted = type_of(self.mix, name, shape)
            return wanted, fitting(wanted, matrix.k)

        def form(matrix: Any) -> Any:
            kind = types(matrix)[1]
            if kind == DENSE:
                return None
            if kind in FALLBACK:
                return k_blocks(matrix.dense(), kind).low_bit()
            return plain_blocks(matrix.dense(), kind)

        choices = [(*types(matrix), matrix.k) for matrix in matrices(deployment)]
        if all(kept == DENSE for _, kept, _ in choices):
            raise Refused(
                "k-quant: no matrix of this model has rows of a multiple of 32 columns, which every"
                " type of llama.cpp's is made of; rtn takes rows of any length"
            )
        for text in fallbacks(choices):
            deployment.note(text)
        replace_each(deployment, form)


def fallbacks(choices: Iterable[tuple[str, str, int]]) -> list[str]:
    """A sentence for each kind of matrix (type, type it is kept in, columns) that fell back."""
    changed = [choice for choice in choices if choice[0] != choice[1]]
    counts = Counter((kept, "" if kept == DENSE else wanted, k) for wanted, kept, k in changed)
    sentences = []
    for (kept, wanted, columns), count in counts.items():
        what = "matrix has" if count == 1 else "matrices have"
        plural = "s" if count == 1 else ""
        taken = f"take{plural} {kept} in place of {wanted}" if wanted else f"stay{plural} in floats"
        sentences.append(
            f"{count} {what} rows of {columns} columns, no multiple of"
            f" {SUPER if wanted else BLOCK}, and {taken}, as llama.cpp does"
        )
    return sentences


def type_of(mix: str, name: str, shape: Any) -> str:
    """The type (`q4_k`) of the matrix `layers.3.down` or `head` in a decoder of `shape`, whose rows
    are whole super-blocks.

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
