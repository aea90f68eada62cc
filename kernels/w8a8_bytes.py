"""How many bytes an int8 matrix with int8 inputs takes: pure arithmetic, equal to what is kept.

Owns W8A8Bytes for predictions, which load no torch; the layout itself is kernels/linear_w8a8's.
"""

from dataclasses import dataclass

# The kernel "cpp": blocks of 16 rows by 4 columns.
ROWS, COLUMNS = 16, 4


@dataclass(frozen=True)
class W8A8Bytes:
    """The format of a matrix [n, k] in int8 with one fp32 scale a row; `static` fixes x's scale."""

    static: bool = False

    def format(self, k: int) -> str:
        """As W8A8.format says it."""
        return "w8a8-static" if self.static else "w8a8"

    def nbytes(self, n: int, k: int, kernel: str = "cpp") -> int:
        """Bytes of codes and scales; the kernel "cpp" takes x in 16 and in 32 bits."""
        return -(-n // ROWS) * ROWS * -(-k // COLUMNS) * COLUMNS + 4 * n
