"""What techniques change about bytes, work and batch; each states its own. Predicts no time."""

from __future__ import annotations

from dataclasses import dataclass, replace

from core.files.storage import Storage
from core.model import DecoderShape
from core.techniques.prune.width import kept_width
from kernels.dtypes import nbytes
from kernels.kv_codes import KVFormat
from kernels.lowbit_bytes import LowBitBytes


@dataclass(frozen=True)
class Effects:
    """A plan's effects together.

    `dtype` is that of what stays dense: embedding, norms, KV cache, and the matrices while `stored`
    is None. `stored` is how every matrix is kept after quantizing (the head then is one of its
    own), `mix` which matrices (`layers.3.down`, `head`) are kept in another way; None in it means
    dense. Where only a search tells how each is kept, `stored` stands for it and `possible` are the
    ways. `kv` is how the cache is kept, None in `dtype`. `sparsity` is the share of MLP channels
    removed; `draft` proposes `draft_tokens` a step; `unknown` names the techniques whose effect is
    not known before they ran.
    """

    dtype: str = "bf16"
    stored: Storage | None = None
    mix: tuple[tuple[str, Storage | None], ...] = ()
    possible: tuple[LowBitBytes, ...] = ()
    kv: KVFormat | None = None
    sparsity: tuple[float, ...] = ()
    batch: int = 1
    draft: str | None = None
    draft_tokens: int = 0
    unknown: tuple[str, ...] = ()

    @property
    def packed(self) -> bool:
        """Whether the matrices are quantized."""
        return self.stored is not None

    @property
    def item(self) -> int:
        """Bytes of a dense value."""
        return nbytes(self.dtype)

    def shape(self, shape: DecoderShape) -> DecoderShape:
        """The decoder's shape after pruning, which the lean decoder's families alone can have."""
        if not self.sparsity or shape.trims:
            return shape
        kinds = tuple(
            replace(kind, projections=shape.stacks(self.width(kind.projections[-1].columns)))
            for kind in shape.kinds
        )
        return replace(shape, intermediate=self.width(shape.intermediate), kinds=kinds)

    def width(self, width: int) -> int:
        """What pruning leaves of an MLP's width."""
        for share in self.sparsity:
            width = kept_width(width, share)
        return width


def integers(before: Effects, bits: int, group_size: int, symmetric: int) -> Effects:
    """`bits` a weight, a 16-bit scale and, when affine, a zero of a byte per group (0: a row)."""
    return replace(before, stored=LowBitBytes(bits, group_size, zero="" if symmetric else "int8"))


def few_values(before: Effects, stored: Storage, head_bits: int) -> Effects:
    """Matrices of one or two bits, and a head of `head_bits` integers a row (0: like the rest)."""
    mix = (("head", LowBitBytes(head_bits)),) if head_bits else ()
    return replace(before, stored=stored, mix=mix)
