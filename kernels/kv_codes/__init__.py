"""How a KV cache is kept in 8, 4 or 2 bits: which tokens are codes, and how many bytes that takes.

Owns the rule and the arithmetic, without torch; `codes` packs and unpacks, `kernels.attention`
reads the codes.
"""

from __future__ import annotations

from dataclasses import dataclass

BITS = (8, 4, 2)
GROUPS = (32, 64)
# Tokens that one call of a kernel appends at most. As many tokens stay in the ring beyond what
# attention reads, so that a cache cut back by this many is as if they had never been said.
PASS_TOKENS = 16
MOST_RESIDUAL = 4096


@dataclass(frozen=True)
class KVFormat:
    """Keys and values in `bits` bits, but at least the newest `residual` tokens in 16 (KIVI, Liu et
    al. 2024).

    Keys: asymmetric, one scale and one minimum for each channel of `group_size` tokens. Values: one
    for each token and `group_size` channels, the last group perhaps shorter. Scales and minima are
    fp16. A block of `group_size` tokens becomes codes at once, when `residual` tokens follow it.
    """

    bits: int
    group_size: int = 32
    residual: int = 32

    def __post_init__(self) -> None:
        if self.bits not in BITS:
            raise ValueError(f"bits must be 8, 4 or 2, not {self.bits}")
        if self.group_size not in GROUPS:
            raise ValueError(f"group_size must be 32 or 64, not {self.group_size}")
        if not 0 <= self.residual <= MOST_RESIDUAL:
            raise ValueError(
                f"residual must lie between 0 and {MOST_RESIDUAL}, not {self.residual}"
            )

    @property
    def name(self) -> str:
        """As `kv4-g32-r32`."""
        return f"kv{self.bits}-g{self.group_size}-r{self.residual}"

    @property
    def kernel_format(self) -> str:
        """As the registry of kernels calls it."""
        return f"int{self.bits}"

    def coded(self, length: int) -> int:
        """How many of the first of `length` tokens the newest one sees as codes."""
        return max(0, length - self.residual) // self.group_size * self.group_size

    def slots(self, capacity: int) -> int:
        """Tokens in the ring of 16-bit keys and values."""
        return min(capacity, self.residual + self.group_size + PASS_TOKENS)

    def blocks(self, capacity: int) -> int:
        """Blocks of codes in a cache of `capacity` tokens."""
        return self.coded(capacity) // self.group_size

    def value_groups(self, dim: int) -> int:
        """Groups of channels of one token's value."""
        return -(-dim // self.group_size)

    def packed(self, count: int) -> int:
        """Bytes of `count` codes that lie together."""
        return -(-count * self.bits // 8)

    def block_bytes(self, dim: int) -> int:
        """Bytes of one block of one head: codes of keys and values, their scales and minima."""
        size = self.group_size
        keys = dim * self.packed(size) + 2 * 2 * dim
        values = size * (self.packed(dim) + 2 * 2 * self.value_groups(dim))
        return keys + values

    def head_bytes(self, dim: int, capacity: int, item: int = 2) -> int:
        """Bytes of one head of one sequence of one layer; the ring has `item` bytes a number."""
        ring = 2 * self.slots(capacity) * dim * item
        return self.blocks(capacity) * self.block_bytes(dim) + ring

    def read_bytes(self, dim: int, length: int, item: int = 2) -> float:
        """Bytes that the newest of `length` tokens reads of one head."""
        coded = self.coded(length)
        rest = 2 * (length - coded) * dim * item
        return coded / self.group_size * self.block_bytes(dim) + rest
