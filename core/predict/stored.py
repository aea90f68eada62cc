"""How a quantized matrix is stored, for predictions: the name of its format and its bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from core.techniques.quantize.k_quant import DENSE, fitting
from kernels.lowbit_bytes import DenseBytes, LowBitBytes


class Stored(Protocol):
    """How a matrix [n, k] is stored: its format's name and its bytes, padding included."""

    def format(self, k: int) -> str:
        """As the kernel's weight names its format."""

    def nbytes(self, n: int, k: int, kernel: str = "cpp") -> int:
        """Bytes of the matrix as the kernel keeps it."""


@dataclass(frozen=True)
class AdaptedBytes:
    """`base` with an adapter of `rank` beside it (core.engine.adapted)."""

    base: Stored
    rank: int

    def format(self, k: int) -> str:
        """See Stored."""
        return f"{self.base.format(k)}+r{self.rank}"

    def nbytes(self, n: int, k: int, kernel: str = "cpp") -> int:
        """The base's bytes and 16 bit for every number of A and B."""
        return self.base.nbytes(n, k, kernel) + 2 * self.rank * (n + k)


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
        """See Stored."""
        return self._stored(k).format(k)

    def nbytes(self, n: int, k: int, kernel: str = "cpp") -> int:
        """See Stored."""
        return self._stored(k).nbytes(n, k, kernel)

    def _stored(self, k: int) -> Stored:
        return K_BYTES[fitting(self.type, k)] or DenseBytes(self.dense)
