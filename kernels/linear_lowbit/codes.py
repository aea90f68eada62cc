"""The canonical form of a quantized matrix, which every layout and file is made from.

Owns: LowBit, the tables of the non-uniform kinds, and rounding to nearest. Calibrated methods
(GPTQ, AWQ) choose codes of their own; layouts in memory belong to the kernels' files.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.nn.functional import pad

# NormalFloat (Dettmers et al. 2023, QLoRA, appendix E): 16 quantiles of N(0, 1) scaled to [-1, 1].
_NF4 = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
    -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
    0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip
# OCP Microscaling Formats 1.0: E2M1.
_FP4 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
_FLOAT8 = {"e4m3": torch.float8_e4m3fn, "e5m2": torch.float8_e5m2}
KINDS = ("int", "nf4", "fp4", "ternary", "binary", "e4m3", "e5m2")
SCALE_FORMATS = ("fp16", "fp32", "u8")
# Scales of one second-level scale (double quantization): those of this many rows.
DOUBLE_ROWS = 16


def levels(kind: str) -> torch.Tensor | None:
    """fp32 [2 ** bits]: the value of every code of `kind`; None for "int", whose value is the code.

    The codes of NaN and infinity in the 8-bit floats have the value 0 and are never made.
    """
    if kind == "int":
        return None
    if kind == "nf4":
        return torch.tensor(_NF4)
    if kind == "fp4":
        return torch.tensor((*_FP4, *(-level for level in _FP4)))
    if kind == "ternary":
        return torch.tensor((-1.0, 0.0, 1.0, 0.0))
    if kind == "binary":
        return torch.tensor((-1.0, 1.0))
    if kind in _FLOAT8:
        table = torch.arange(256, dtype=torch.uint8).view(_FLOAT8[kind]).float()
        return torch.where(table.isfinite(), table, torch.zeros_like(table))
    raise ValueError(f"kind must be one of {', '.join(KINDS)}, not {kind!r}.")


def bits_of(kind: str) -> int | None:
    """Bits of a code of `kind`; None for "int", which has 1 to 8."""
    known = {"nf4": 4, "fp4": 4, "ternary": 2, "binary": 1, "e4m3": 8, "e5m2": 8}
    return known.get(kind)


@dataclass(frozen=True, eq=False)
class DoubleScale:
    """Scales in 8 bit: scale[i, g] = codes[i, g] * step[b] + low[b] with b = i // DOUBLE_ROWS.

    codes: uint8 [n, groups]; step, low: fp32 [ceil(n / DOUBLE_ROWS)]. QLoRA's double quantization,
    with an affine grid in place of its 8-bit float.
    """

    codes: torch.Tensor
    step: torch.Tensor
    low: torch.Tensor

    def values(self) -> torch.Tensor:
        """The scales, fp32 [n, groups]."""
        block = torch.arange(self.codes.shape[0], device=self.codes.device) // DOUBLE_ROWS
        return self.codes.float() * self.step[block, None] + self.low[block, None]


@dataclass(frozen=True, eq=False)
class LowBit:
    """A matrix [n, k]: weight[i, j] = scale[i, g] * (value(codes[i, j]) - zero[i, g]), g = j //
    group_size.

    codes: uint8 [n, k], one a byte, as long as it is being prepared. scale: fp32 [n, groups], each
    already rounded to `scale_format`. zero: fp32 [n, groups] or None: 2 ** (bits - 1) for integers,
    0 for other kinds. `group_size` >= k means one group a row. `double` holds the scales of the
    format "u8". Raises ValueError when the parts do not fit together.
    """

    codes: torch.Tensor
    scale: torch.Tensor
    zero: torch.Tensor | None
    bits: int
    group_size: int
    kind: str = "int"
    scale_format: str = "fp16"
    double: DoubleScale | None = None

    op: ClassVar[str] = "linear_lowbit"

    def __post_init__(self) -> None:
        check(self.kind, self.bits, self.group_size, self.scale_format)
        if self.codes.dtype is not torch.uint8 or self.codes.dim() != 2 or 0 in self.codes.shape:
            raise ValueError(
                "codes must be uint8 [n, k] with n, k >= 1, "
                f"not {self.codes.dtype} {list(self.codes.shape)}."
            )
        for name, side in (("scale", self.scale), ("zero", self.zero)):
            if side is not None and (
                side.shape != (self.n, self.groups) or side.dtype is not torch.float32
            ):
                raise ValueError(
                    f"{name} must be fp32 [{self.n}, {self.groups}], "
                    f"not {side.dtype} {list(side.shape)}."
                )
        if (self.double is not None) != (self.scale_format == "u8"):
            raise ValueError("scales of the format u8, and only they, come with `double`.")
        for name, side in (("scale", self.scale), ("zero", self.zero)):
            if side is not None and not bool(side.isfinite().all()):
                raise ValueError(f"{name} has NaN or infinite values.")
        if self.bits < 8 and int(self.codes.max()) >> self.bits:
            raise ValueError(f"a code does not fit {self.bits} bits.")

    @property
    def n(self) -> int:
        """Rows."""
        return int(self.codes.shape[0])

    @property
    def k(self) -> int:
        """Columns."""
        return int(self.codes.shape[1])

    @property
    def groups(self) -> int:
        """Groups of a row."""
        return -(-self.k // self.group_size)

    @property
    def format(self) -> str:
        """As `int4-g32`, `nf4-g64`, `int8` (one scale a row)."""
        name = self.codes_format
        return name if self.group_size >= self.k else f"{name}-g{self.group_size}"

    @property
    def codes_format(self) -> str:
        """As `int4`, `nf4`."""
        return f"int{self.bits}" if self.kind == "int" else self.kind

    def zeros(self) -> torch.Tensor:
        """The zero of every group, fp32 [n, groups], also where all are the same."""
        if self.zero is not None:
            return self.zero
        return torch.full_like(self.scale, 2 ** (self.bits - 1) if self.kind == "int" else 0)

    def dequantize(self) -> torch.Tensor:
        """The matrix that the codes stand for, fp32 [n, k]."""
        table = levels(self.kind)
        if table is not None:
            table = table.to(self.codes.device)
        return dequantized(self.codes, table, self.scale, self.zeros(), self.group_size)

    def rows(self, begin: int, end: int) -> "LowBit":
        """The rows [begin, end) alone; `begin` is a multiple of DOUBLE_ROWS with double scales."""
        double = self.double
        if double is not None:
            first, last = begin // DOUBLE_ROWS, -(-end // DOUBLE_ROWS)
            double = DoubleScale(
                double.codes[begin:end], double.step[first:last], double.low[first:last]
            )
        return LowBit(
            self.codes[begin:end],
            self.scale[begin:end],
            None if self.zero is None else self.zero[begin:end],
            self.bits,
            self.group_size,
            self.kind,
            self.scale_format,
            double,
        )


def dequantized(
    codes: torch.Tensor,
    table: torch.Tensor | None,
    scale: torch.Tensor,
    zeros: torch.Tensor,
    group_size: int,
) -> torch.Tensor:
    """LowBit.dequantize of the parts, unchecked, so that nothing waits for a GPU. `table` is that
    of `levels`, on their device.
    """
    n, k = codes.shape
    steps = codes.float() if table is None else table[codes.long()]
    groups, size = scale.shape[1], min(group_size, k)
    steps = pad(steps, (0, groups * size - k))
    steps = steps.view(n, groups, size) - zeros[..., None]
    return (steps * scale[..., None]).view(n, -1)[:, :k].contiguous()


def check(kind: str, bits: int, group_size: int, scale_format: str = "fp16") -> None:
    """Raise ValueError with a sentence for what no LowBit can be."""
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, not {kind!r}.")
    if bits != (bits_of(kind) or bits) or not 1 <= bits <= 8:
        raise ValueError(f"{kind} codes have {bits_of(kind) or '1 to 8'} bits, not {bits}.")
    if group_size < 1:
        raise ValueError(f"group_size must be at least 1, not {group_size}.")
    if scale_format not in SCALE_FORMATS:
        raise ValueError(
            f"scale_format must be one of {', '.join(SCALE_FORMATS)}, not {scale_format!r}."
        )


def grouped(weight: torch.Tensor, group_size: int) -> torch.Tensor:
    """fp32 [n, groups, group_size] of weight [n, k], which may share its memory; the last group is
    filled with its last column, which does not widen its range. Raises ValueError for shapes and
    values that do not fit.
    """
    if weight.dim() != 2 or 0 in weight.shape or not weight.is_floating_point():
        raise ValueError(
            f"weight must be floats [n, k] with n, k >= 1, not {weight.dtype} {list(weight.shape)}."
        )
    exact = weight.detach().float()
    if not bool(torch.isfinite(exact).all()):
        raise ValueError("weight has NaN or infinite values; it cannot be quantized.")
    size = min(group_size, weight.shape[1])
    if weight.shape[1] % size:
        exact = pad(exact[None], (0, -weight.shape[1] % size), mode="replicate")[0]
    return exact.reshape(weight.shape[0], -1, size)


def double_quantize(scale: torch.Tensor) -> DoubleScale:
    """Round scale fp32 [n, groups] to 8 bit over the rows that share a second-level scale."""
    # The last block is filled with its last row, which does not widen its range.
    rows = pad(scale.T[None], (0, -len(scale) % DOUBLE_ROWS), mode="replicate")[0].T
    blocks = rows.reshape(-1, DOUBLE_ROWS * scale.shape[1])
    low = blocks.amin(dim=1)
    step = (blocks.amax(dim=1) - low) / 255
    block = torch.arange(scale.shape[0], device=scale.device) // DOUBLE_ROWS
    divisor = torch.where(step > 0, step, torch.ones_like(step))[block, None]
    codes = ((scale - low[block, None]) / divisor).round().clamp(0, 255).to(torch.uint8)
    return DoubleScale(codes, step, low)


def round_scale(scale: torch.Tensor, scale_format: str) -> tuple[torch.Tensor, DoubleScale | None]:
    """(scale rounded to its format, fp32; its 8-bit form when there is one). ValueError when a
    scale is too large for fp16.
    """
    if scale_format == "u8":
        double = double_quantize(scale)
        return double.values(), double
    if scale_format == "fp32":
        return scale, None
    rounded = scale.half().float()
    if not bool(rounded.isfinite().all()):
        raise ValueError("a scale is above 65504, which fp16 cannot hold.")
    return rounded, None


def fp16_holds(scale: torch.Tensor) -> bool:
    """Whether every scale that is not 0 is within 2^-8 of itself in fp16: from 8e-6 to 65504."""
    return bool(((scale.half().float() - scale).abs() <= scale.abs() / 256).all())


def scales_of(
    groups: torch.Tensor, bits: int, kind: str, symmetric: bool
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """(scale, zero) fp32 [n, groups] of fp32 [n, groups, size] by the range of each group.

    Integers: symmetric lets the value of largest magnitude be code 0 (exact, as GGUF's Q4_0), zero
    is a code of its own; affine spans smallest to largest with a whole zero in 0 .. 2 ** bits - 1.
    Ternary and binary: the mean magnitude (BWN, Rastegari et al. 2016; TWN's threshold, Li and Liu
    2016, for ternary). Others: the largest magnitude is the largest level.
    """
    low, high = groups.amin(dim=2), groups.amax(dim=2)
    if kind == "binary":
        return groups.abs().mean(dim=2), None
    if kind == "ternary":
        size = groups.abs()
        kept = size > 0.7 * size.mean(dim=2, keepdim=True)
        return (size * kept).sum(dim=2) / kept.sum(dim=2).clamp(min=1), None
    if kind != "int":
        table = levels(kind)
        assert table is not None
        return torch.maximum(high, -low) / table.abs().max().item(), None
    if symmetric:
        return torch.where(high >= -low, high, low) / -(2 ** (bits - 1)), None
    # Zero lies within the range, so that the zero point is one of the codes.
    low, high = low.clamp(max=0), high.clamp(min=0)
    scale = (high - low) / (2**bits - 1)
    divisor = torch.where(scale > 0, scale, torch.ones_like(scale))
    return scale, (-low / divisor).round().clamp(0, 2**bits - 1)


def nearest(
    groups: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor | None, bits: int, kind: str
) -> torch.Tensor:
    """Codes uint8 [n, groups, size] whose values lie nearest to fp32 [n, groups, size]."""
    divisor = torch.where(scale != 0, scale, torch.ones_like(scale))[..., None]
    steps = groups / divisor
    if kind == "int":
        centre = 2 ** (bits - 1) if zero is None else zero[..., None]
        return steps.add_(centre).round_().clamp_(0, 2**bits - 1).to(torch.uint8)
    if zero is not None:
        steps += zero[..., None]
    if kind in _FLOAT8:
        most = torch.finfo(_FLOAT8[kind]).max
        return steps.clamp_(-most, most).to(_FLOAT8[kind]).view(torch.uint8)
    table = levels(kind)
    assert table is not None
    # The last code of ternary repeats zero; sorting puts equal levels side by side.
    ordered, code = table.to(steps.device).sort(stable=True)
    middles = (ordered[1:] + ordered[:-1]) / 2
    # 32 bit for a place among 16: of a large matrix these are what needs most memory.
    return code.to(torch.uint8)[torch.bucketize(steps, middles, out_int32=True)]


def quantize(
    weight: torch.Tensor,
    bits: int,
    group_size: int,
    kind: str = "int",
    symmetric: bool = True,
    scale_format: str | None = None,
) -> LowBit:
    """Round weight [n, k] to nearest. Raises ValueError for what does not fit or is not finite.

    Without a `scale_format` the scales are fp16, or fp32 where fp16 does not hold them all.
    """
    check(kind, bits, group_size, scale_format or "fp16")
    groups = grouped(weight, group_size)
    raw, zero = scales_of(groups, bits, kind, symmetric)
    scale_format = scale_format or ("fp16" if fp16_holds(raw) else "fp32")
    # Rounded first, so that the codes fit the scale that is really used.
    scale, double = round_scale(raw, scale_format)
    codes = nearest(groups, scale, zero, bits, kind)
    n, k = weight.shape
    codes = codes.view(n, -1)[:, :k].contiguous()
    return LowBit(codes, scale, zero, bits, group_size, kind, scale_format, double)
