"""How a quantized matrix is stored: the name of its format and its bytes, without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from core.files.gguf.k_types import DENSE, fitting
from core.model import DecoderShape, Model
from kernels.lowbit_bytes import DenseBytes, LowBitBytes
from kernels.w8a8_bytes import W8A8Bytes


class Storage(Protocol):
    """How a matrix [n, k] is stored: its format's name and its bytes, padding included."""

    def format(self, k: int) -> str:
        """As the kernel's weight names its format."""

    def nbytes(self, n: int, k: int, kernel: str = "cpp") -> float:
        """Bytes of the matrix as the kernel keeps it."""


@dataclass(frozen=True)
class AdaptedBytes:
    """`base` with an adapter of `rank` beside it (core.engine.adapted)."""

    base: Storage
    rank: int
    item: int = 2

    def format(self, k: int) -> str:
        """See Storage."""
        return f"{self.base.format(k)}+r{self.rank}"

    def nbytes(self, n: int, k: int, kernel: str = "cpp") -> float:
        """The base's bytes and `item` bytes for every number of A and B."""
        return self.base.nbytes(n, k, kernel) + self.item * self.rank * (n + k)


@dataclass(frozen=True)
class OutlierBytes(W8A8Bytes):
    """int8 with the columns of large inputs apart, of which there may be any number."""


# By k-quant's names of types; None for what stays dense.
K_BYTES: dict[str, LowBitBytes | None] = {
    "q2_k": LowBitBytes(2, 16, zero="fp16"),
    "q3_k": LowBitBytes(3, 16),
    "q4_k": LowBitBytes(4, 32, zero="fp16"),
    "q5_k": LowBitBytes(5, 32, zero="fp16"),
    "q6_k": LowBitBytes(6, 16),
    "q4_0": LowBitBytes(4, 32),
    "q5_0": LowBitBytes(5, 32),
    "q5_1": LowBitBytes(5, 32, zero="fp32"),
    "q8_0": LowBitBytes(8, 32),
    DENSE: None,
}


@dataclass(frozen=True)
class KQuantBytes:
    """The k-quant `type`, or what rows of another length take in its place."""

    type: str
    dense: str

    def format(self, k: int) -> str:
        """See Storage."""
        return self._stored(k).format(k)

    def nbytes(self, n: int, k: int, kernel: str = "cpp") -> float:
        """See Storage."""
        return self._stored(k).nbytes(n, k, kernel)

    def _stored(self, k: int) -> Storage:
        return K_BYTES[fitting(self.type, k)] or DenseBytes(self.dense)


@dataclass(frozen=True)
class FileBytes:
    """As the files of a model that was quantized before hold it: `bits` a weight on average."""

    bits: float

    def format(self, k: int) -> str:
        """See Storage."""
        return "as stored"

    def nbytes(self, n: int, k: int, kernel: str = "cpp") -> float:
        """The matrix's part of the files."""
        return n * k * self.bits / 8


def as_stored(model: Model) -> FileBytes | None:
    """How the matrices of a quantized decoder's files are held; None where they are floats. What
    stays dense is in the model's precision, the rest of the bytes is theirs.
    """
    shape = model.shape
    if not isinstance(shape, DecoderShape) or not model.stored or model.bits >= 16:
        return None
    numbers = sum(projection.numbers() for projection in shape.projections())
    dense = 4 if model.precision == "fp32" else 2
    rest = model.weight_bytes() - dense * (shape.head().numbers() + shape.vectors())
    return FileBytes(8 * rest / numbers) if rest > 0 else FileBytes(float(model.bits))
