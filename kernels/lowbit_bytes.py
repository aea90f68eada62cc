"""How many bytes a quantized matrix takes: pure arithmetic, equal to what the kernels keep.

Owns LowBitBytes for predictions, which load no torch; the layouts themselves are those of
kernels/linear_lowbit (layout.py for "cpp", planes.py for "torch").
"""

import functools
import re
from dataclasses import dataclass
from pathlib import Path

from kernels.dtypes import nbytes

# The kernel "cpp": blocks of 16 rows by 32 columns, and a table of 128 bf16 values.
ROWS, COLUMNS, TABLE = 16, 32, 256
# Where torch is faster (writes_tiles), it writes out tiles of the weight above so many rows of x
# (kernels.linear_lowbit.cpu).
MANY_ROWS, TILE_BYTES = 24, 4 << 20
# Rows that share a second-level scale (kernels.linear_lowbit.codes.DOUBLE_ROWS).
DOUBLE_ROWS = 16
SCALE_BYTES = {name: nbytes(name) for name in ("fp16", "fp32", "u8")}
ZERO_BYTES = {"": 0, "int8": 1} | {name: nbytes(name) for name in ("fp16", "fp32")}
# Widths of the planes that codes of b bits are packed in by the kernel "torch".
PLANES = {1: (1,), 2: (2,), 3: (2, 1), 4: (4,), 5: (4, 1), 6: (4, 2), 7: (4, 2, 1), 8: (8,)}


@dataclass(frozen=True)
class LowBitBytes:
    """The format of a matrix [n, k] in codes of `bits` bits.

    `group_size` 0 is one group a row; `zero` is the format of the groups' zeros, "" for none.
    """

    bits: int
    group_size: int = 0
    kind: str = "int"
    scale_format: str = "fp16"
    zero: str = ""

    def format(self, k: int) -> str:
        """As LowBit.format says it of a matrix with k columns: `int4-g32`, `nf4-g64`, `int8`."""
        name = f"int{self.bits}" if self.kind == "int" else self.kind
        return name if self._whole(k) else f"{name}-g{self.group_size}"

    def nbytes(self, n: int, k: int, kernel: str = "cpp") -> int:
        """Bytes of codes, scales and zeros as `kernel` keeps them: "cpp", "torch" and torch's
        "torch-int4pack" and "torch-int8pack" with x of 32 bits; "fp32" is the one that takes x of
        32 bits on a CPU. ValueError for another.
        """
        if kernel == "fp32":
            kernel = self.kernel_of_fp32(k)
        groups, scale = self._groups(k), SCALE_BYTES[self.scale_format]
        if kernel == "torch":
            codes = n * sum(-(-k * width // 8) for width in PLANES[self.bits])
            zero = 1 if self.zero == "int8" else 4 * bool(self.zero)
            return codes + n * groups * (scale + zero) + self._steps(n)
        if kernel == "torch-int4pack":
            rows, size = -(-n // 16) * 16, self.group_size or k
            return rows * groups * (size // 2 + 8) + n * groups * (scale + 4 * bool(self.zero))
        if kernel == "torch-int8pack":
            return n * (-(-k // 32) * 32 + 4 + scale)
        if kernel != "cpp":
            raise ValueError(f"the bytes of kernel {kernel!r} are not known.")
        rows, columns = -(-n // ROWS), -(-k // COLUMNS)
        width = 8 if self.bits == 7 else self.bits
        codes = rows * columns * ROWS * COLUMNS * width // 8
        if self.group_size == 16 and k > 16:
            groups = columns * 2
        side = scale + ZERO_BYTES[self.zero]
        return codes + rows * ROWS * groups * side + self._steps(n) + TABLE

    def kernel_of_fp32(self, k: int) -> str:
        """The CPU kernel that takes the matrix with x of 32 bits, as linear_lowbit chooses it."""
        if self._whole(k) or self.group_size == 16 or self.group_size % 32 == 0:
            return "cpp"
        packed = self.kind == "int" and self.scale_format != "u8"
        if packed and self.bits == 4 and (self.group_size or k) in (32, 64, 128, 256):
            return "torch-int4pack"
        if packed and self.bits == 8 and self._whole(k) and not self.zero:
            return "torch-int8pack"
        return "torch"

    def _whole(self, k: int) -> bool:
        return not self.group_size or self.group_size >= k

    def _groups(self, k: int) -> int:
        return 1 if self._whole(k) else -(-k // self.group_size)

    def _steps(self, n: int) -> int:
        return 8 * -(-n // DOUBLE_ROWS) if self.scale_format == "u8" else 0


@functools.cache
def writes_tiles() -> bool:
    """Whether the kernel "cpp" gives products of many rows to torch on this processor: one with
    AMX, or without vectors that it was written for.
    """
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    flags = set(re.findall(r"\w+", text))
    return "amx_tile" in flags or not {"avx2", "fma"} <= flags


def scratch_bytes(n: int, k: int, rows: int) -> int:
    """Bytes beside its result that a product of the kernel "cpp" with `rows` rows of x holds where
    it writes tiles: above MANY_ROWS a tile of the weight in bf16, and the product with it.
    """
    if rows <= MANY_ROWS:
        return 0
    tile = min(n, max(ROWS, TILE_BYTES // (2 * k) // ROWS * ROWS))
    return 2 * tile * (k + rows)


@dataclass(frozen=True)
class Fp8Bytes(LowBitBytes):
    """E4M3 codes whose inputs are E4M3 too: the bytes of the codes alone."""

    def format(self, k: int) -> str:
        """As Fp8.format says it."""
        return "fp8-fp8"

    def kernel_of_fp32(self, k: int) -> str:
        """The CPU kernel that takes the matrix with x of 32 bits, as linear_fp8 chooses it."""
        return "torch"


@dataclass(frozen=True)
class DenseBytes:
    """A matrix of floats in `name`: fp32, bf16 or fp16."""

    name: str = "bf16"

    def format(self, k: int) -> str:
        """The dtype's name."""
        return self.name

    def nbytes(self, n: int, k: int, kernel: str = "cpp") -> int:
        """Bytes of n * k values."""
        return n * k * nbytes(self.name)
