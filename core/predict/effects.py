"""What each technique changes about bytes, work and batch, read from its own fields. Predicts no
time.

A technique without a line in EFFECTS is unknown: no effect is claimed for it and the interval is
widened by whoever predicts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from core.files.gguf.k_types import fitting
from core.model import DecoderShape
from core.plan import Case, Plan, Technique, settings
from core.predict.stored import (
    K_BYTES,
    AdaptedBytes,
    KQuantBytes,
    OutlierBytes,
    Stored,
    as_stored,
)
from core.techniques.quantize.k_quant import type_of
from kernels.kv_codes import KVFormat
from kernels.lowbit_bytes import Fp8Bytes, LowBitBytes
from kernels.w8a8_bytes import W8A8Bytes

# Pruned widths stay multiples of this, as in core.techniques.prune.
MULTIPLE = 32
PARTS = ("qkv", "o", "gate_up", "down")
DENSE_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}


@dataclass(frozen=True)
class Effects:
    """A plan's effects together.

    `dtype` is that of what stays dense: embedding, norms, KV cache, and the matrices while `stored`
    is None. `stored` is how every matrix is kept after quantizing (the head then is one of its
    own), `mix` which matrices (`layers.3.down`, `head`) are kept in another way; None in it means
    dense. `kv` is how the cache is kept, None in `dtype`. `sparsity` is the share of MLP channels
    removed; `draft` proposes `draft_tokens` a step; `unknown` names the techniques whose effect
    nobody stated.
    """

    dtype: str = "bf16"
    stored: Stored | None = None
    mix: tuple[tuple[str, Stored | None], ...] = ()
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
        return DENSE_BYTES[self.dtype]

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
            wanted = round(width * (1 - share) / MULTIPLE) * MULTIPLE
            width = max(MULTIPLE, min(wanted, (width - 1) // MULTIPLE * MULTIPLE))
        return width


def effects(plan: Plan) -> Effects:
    """The effects of all of the plan's techniques, applied in order."""
    found = Effects(plan.case.model.precision, stored=as_stored(plan.case.model))
    for technique in plan.techniques:
        change = EFFECTS.get(technique.name)
        if change is None:
            found = replace(found, unknown=(*found.unknown, technique.name))
        else:
            found = change(found, technique, plan.case)
    return found


def _int8(before: Effects, technique: Technique, case: Case) -> Effects:
    """One byte a weight and a 16-bit scale per output row."""
    return replace(before, stored=LowBitBytes(8))


def _int4(before: Effects, technique: Technique, case: Case) -> Effects:
    """Half a byte a weight, a 16-bit scale and a zero of a byte per group."""
    size = int(_field(technique, "group_size"))
    return replace(before, stored=LowBitBytes(4, size, zero="int8"))


def _w8a8(before: Effects, technique: Technique, case: Case) -> Effects:
    """One byte a weight and a 32-bit scale per output row."""
    return replace(before, stored=W8A8Bytes(_field(technique, "mode") == "static"))


def _llm_int8(before: Effects, technique: Technique, case: Case) -> Effects:
    """As w8a8; what the outlier columns add is known after calibration only."""
    return replace(before, stored=OutlierBytes())


def _rtn(before: Effects, technique: Technique, case: Case) -> Effects:
    """So many bits a weight, a 16-bit scale and, when affine, a zero of a byte per group."""
    zero = "" if _field(technique, "symmetric") else "int8"
    bits, group = int(_field(technique, "bits")), int(getattr(technique, "group", 0))
    return replace(before, stored=LowBitBytes(bits, group, zero=zero))


def _calibrated(before: Effects, technique: Technique, case: Case) -> Effects:
    """The format of `rtn`, with codes and scales chosen by the calibration inputs."""
    zero = "" if _field(technique, "symmetric") else "int8"
    bits, group = int(_field(technique, "bits")), int(_field(technique, "group_size"))
    return replace(before, stored=LowBitBytes(bits, group, zero=zero))


def _cast(before: Effects, technique: Technique, case: Case) -> Effects:
    """Every dense value in another format."""
    return replace(before, dtype=str(_field(technique, "dtype")))


def _nf4(before: Effects, technique: Technique, case: Case) -> Effects:
    """Half a byte a weight and a scale of 8 or 16 bit per group."""
    size, scales = int(_field(technique, "group_size")), "u8" if _field(technique, "double") else ""
    return replace(before, stored=LowBitBytes(4, size, "nf4", scales or "fp16"))


def _fp8(before: Effects, technique: Technique, case: Case) -> Effects:
    """One byte a weight and a scale per output row, of 16 bit for E4M3 and of 32 for E5M2."""
    if int(_field(technique, "activations")) == 8:
        return replace(before, stored=Fp8Bytes(8, kind="e4m3"))
    kind = str(_field(technique, "format"))
    scales = "fp32" if kind == "e5m2" else "fp16"
    return replace(before, stored=LowBitBytes(8, kind=kind, scale_format=scales))


def _fp4(before: Effects, technique: Technique, case: Case) -> Effects:
    """Half a byte a weight and a 16-bit scale per group."""
    return replace(before, stored=LowBitBytes(4, int(_field(technique, "group_size")), "fp4"))


def _few_values(before: Effects, technique: Technique, case: Case) -> Effects:
    """One or two bits a weight and a 16-bit scale per group; the head in `head_bits` bits."""
    bits = 1 if technique.name == "binary" else 2
    group = int(getattr(technique, "group", _field(technique, "group_size")))
    head = int(_field(technique, "head_bits"))
    mix = (("head", LowBitBytes(head)),) if head else ()
    return replace(before, stored=LowBitBytes(bits, group, technique.name), mix=mix)


def _k_quant(before: Effects, technique: Technique, case: Case) -> Effects:
    """llama.cpp's type for each matrix, and its fallback where rows are no whole super-blocks."""
    mix, shape = str(_field(technique, "mix")), case.model.shape
    base = mix.removesuffix("_m")
    if not isinstance(shape, DecoderShape):
        return replace(before, stored=KQuantBytes(base, before.dtype))
    hidden, query = shape.hidden, shape.heads * shape.head_dim
    columns = {"qkv": hidden, "o": query, "gate_up": hidden, "head": shape.head().columns,
               "down": before.shape(shape).intermediate}  # fmt: skip

    def stored(name: str) -> Stored | None:
        return K_BYTES[fitting(type_of(mix, name, shape), columns[name.rpartition(".")[2]])]

    names = [f"layers.{i}.{part}" for i in range(shape.layers) for part in PARTS]
    return replace(
        before,
        stored=KQuantBytes(base, before.dtype),
        mix=tuple((name, stored(name)) for name in (*names, "head")),
    )


def _lora(before: Effects, technique: Technique, case: Case) -> Effects:
    """Two thin dense matrices beside every quantized one; a dense model is rounded first."""
    if before.stored is None:
        name, _, group = str(getattr(technique, "base_format", "")).partition("-g")
        bits = int(name[3:]) if name.startswith("int") else 4
        kind, zero = ("int", "int8") if name.startswith("int") else (name, "")
        before = replace(before, stored=LowBitBytes(bits, int(group), kind, zero=zero))
    assert before.stored is not None
    rank = int(_field(technique, "rank"))
    mix = tuple((name, one and AdaptedBytes(one, rank, before.item)) for name, one in before.mix)
    return replace(before, stored=AdaptedBytes(before.stored, rank, before.item), mix=mix)


def _auto_mixed(before: Effects, technique: Technique, case: Case) -> Effects:
    """What is chosen is known after the search only: 4 bit stand for it, as an unknown effect."""
    size = int(_field(technique, "group_size"))
    unknown = (*before.unknown, technique.name)
    return replace(before, stored=LowBitBytes(4, size, zero="int8"), unknown=unknown)


def _prune(before: Effects, technique: Technique, case: Case) -> Effects:
    """Fewer MLP channels in every layer."""
    return replace(before, sparsity=(*before.sparsity, float(_field(technique, "sparsity"))))


def _nothing(before: Effects, technique: Technique, case: Case) -> Effects:
    """Other values in the same tensors: neither bytes nor work change."""
    return before


def _kv_cache(before: Effects, technique: Technique, case: Case) -> Effects:
    """Keys and values in codes, the newest ones in the engine's own format."""
    fields = (int(_field(technique, name)) for name in ("bits", "group_size", "residual"))
    return replace(before, kv=KVFormat(*fields))


def _speculative(before: Effects, technique: Technique, case: Case) -> Effects:
    """A draft model beside the model, `tokens` proposals a step."""
    chosen = _field(technique, "draft")
    name = getattr(technique, "draft_of", lambda case: chosen)(case)
    return replace(before, draft=name, draft_tokens=int(_field(technique, "tokens")))


def _batch(before: Effects, technique: Technique, case: Case) -> Effects:
    """So many sequences share every reading of the weights, if as many are asked for at a time."""
    return replace(before, batch=min(int(_field(technique, "size")), case.workload.concurrency))


def _field(technique: Technique, name: str) -> Any:
    return settings(technique)[name]


EFFECTS: dict[str, Callable[[Effects, Technique, Case], Effects]] = {
    "weight-int8": _int8,
    "weight-int4": _int4,
    "w8a8": _w8a8,
    "llm-int8": _llm_int8,
    "rtn": _rtn,
    "gptq": _calibrated,
    "qat": _calibrated,
    "awq": _calibrated,
    "cast": _cast,
    "nf4": _nf4,
    "fp8": _fp8,
    "fp4": _fp4,
    "binary": _few_values,
    "ternary": _few_values,
    "k-quant": _k_quant,
    "auto-mixed": _auto_mixed,
    "lora": _lora,
    "prune-mlp": _prune,
    "distill-soft": _nothing,
    "kv-cache": _kv_cache,
    "speculative": _speculative,
    "static-batch": _batch,
}
