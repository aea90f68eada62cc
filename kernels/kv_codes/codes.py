"""The tensors of a KV cache in codes, and packing and unpacking them with torch.

Owns the layout, which kernels/attention/kv.cpp reads too. Within `packed(n)` bytes of n codes, code
i lies in byte i % bytes at bit `bits * (i // bytes)`: the codes of one bit position are neighbours,
so that a vector of bytes gives vectors of codes by one shift each.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from kernels.kv_codes import KVFormat

HALF_MOST = 65504.0


@dataclass(frozen=True, eq=False)
class KVCodes:
    """Keys and values of one layer or, with one more dimension in front, of all layers.

    key_codes uint8 [batch, kv_heads, blocks, dim, bytes of a block's tokens]; key_scale fp16
    [batch, kv_heads, blocks, 2, dim], scales then minima; value_codes uint8 [batch, kv_heads,
    blocks, group_size, bytes of dim channels]; value_scale fp16 [batch, kv_heads, blocks,
    group_size, 2, groups]; keys and values [batch, kv_heads, slots, dim] of the newest tokens,
    token t in slot t % slots. `capacity` counts tokens.
    """

    format: KVFormat
    capacity: int
    key_codes: Tensor
    key_scale: Tensor
    value_codes: Tensor
    value_scale: Tensor
    keys: Tensor
    values: Tensor

    def layer(self, index: int) -> KVCodes:
        """One layer's tensors, as views."""
        return KVCodes(self.format, self.capacity, *(tensor[index] for tensor in self.tensors()))

    def row(self, index: int) -> KVCodes:
        """One row of all layers, as views [layers, kv_heads, ...]."""
        return KVCodes(self.format, self.capacity, *(tensor[:, index] for tensor in self.tensors()))

    def rows(self, part: slice) -> KVCodes:
        """Some rows of one layer, as views."""
        return KVCodes(self.format, self.capacity, *(tensor[part] for tensor in self.tensors()))

    def tensors(self) -> tuple[Tensor, ...]:
        """Everything that is kept in memory."""
        return tuple(getattr(self, field.name) for field in fields(self)[2:])

    @property
    def dim(self) -> int:
        """Width of a head."""
        return self.keys.shape[-1]

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.nbytes for tensor in self.tensors())


def allocate(
    format: KVFormat,
    outer: tuple[int, ...],
    dim: int,
    capacity: int,
    dtype: torch.dtype,
    device: str | torch.device = "cpu",
) -> KVCodes:
    """Empty tensors of `outer` = ([layers,] batch, kv_heads) heads for `capacity` tokens each."""
    blocks, size = format.blocks(capacity), format.group_size

    def zeros(kind: torch.dtype, *shape: int) -> Tensor:
        return torch.zeros((*outer, *shape), dtype=kind, device=device)

    return KVCodes(
        format,
        capacity,
        zeros(torch.uint8, blocks, dim, format.packed(size)),
        zeros(torch.float16, blocks, 2, dim),
        zeros(torch.uint8, blocks, size, format.packed(dim)),
        zeros(torch.float16, blocks, size, 2, format.value_groups(dim)),
        zeros(dtype, format.slots(capacity), dim),
        zeros(dtype, format.slots(capacity), dim),
    )


def encode_keys(keys: Tensor, format: KVFormat) -> tuple[Tensor, Tensor]:
    """(codes [..., dim, bytes], scales and minima [..., 2, dim]) of keys [..., group_size, dim]."""
    codes, scale, low = quantize(keys.transpose(-1, -2), format.bits)
    return pack(codes, format.bits), torch.stack((scale, low), dim=-2)


def decode_keys(codes: Tensor, scale: Tensor, format: KVFormat) -> Tensor:
    """float32 keys [..., group_size, dim] of what `encode_keys` made."""
    values = unpack(codes, format.bits, format.group_size).float()
    steps, low = scale.float().unbind(dim=-2)
    return (values * steps[..., None] + low[..., None]).transpose(-1, -2)


def encode_values(values: Tensor, format: KVFormat) -> tuple[Tensor, Tensor]:
    """(codes [..., bytes], scales and minima [..., 2, groups]) of values [..., dim]."""
    quantized = [quantize(part, format.bits) for part in values.split(format.group_size, dim=-1)]
    codes, scale, low = (list(parts) for parts in zip(*quantized, strict=True))
    scales = torch.stack((torch.stack(scale, -1), torch.stack(low, -1)), dim=-2)
    return pack(torch.cat(codes, dim=-1), format.bits), scales


def decode_values(codes: Tensor, scale: Tensor, format: KVFormat, dim: int) -> Tensor:
    """float32 values [..., dim] of what `encode_values` made."""
    values = unpack(codes, format.bits, dim).float()
    wide = scale.float().repeat_interleave(format.group_size, dim=-1)[..., :dim]
    return values * wide[..., 0, :] + wide[..., 1, :]


def quantize(x: Tensor, bits: int) -> tuple[Tensor, Tensor, Tensor]:
    """Codes uint8 [..., n], scale and minimum fp16 [...] of one group x [..., n] each.

    scale = (max - min) / (2^bits - 1), both rounded to fp16 first, so that codes are the nearest
    for what is kept. A constant group has scale 0 and code 0. A group with an infinity or a NaN
    becomes NaN, as attention over it would be.
    """
    x = x.float()
    low, high = x.amin(dim=-1), x.amax(dim=-1)
    scale, low = _half((high - low) / (2**bits - 1)), _half(low)
    step, least = scale.float()[..., None], low.float()[..., None]
    codes = ((x - least) / step).round().nan_to_num(0.0).clamp(0, 2**bits - 1)
    codes = torch.where(step > 0, codes, 0.0)
    return codes.to(torch.uint8), scale, low + (x * 0).sum(dim=-1).half()


def _half(x: Tensor) -> Tensor:
    return x.nan_to_num(0.0, HALF_MOST, -HALF_MOST).clamp(-HALF_MOST, HALF_MOST).half()


def pack(codes: Tensor, bits: int) -> Tensor:
    """uint8 [..., packed(n)] of codes uint8 [..., n]."""
    size, each = codes.shape[-1], 8 // bits
    width = -(-size // each)
    padded = torch.nn.functional.pad(codes, (0, width * each - size))
    planes = padded.unflatten(-1, (each, width))
    shifts = torch.arange(each, device=codes.device, dtype=torch.uint8)[:, None] * bits
    packed: Tensor = (planes << shifts).sum(dim=-2, dtype=torch.uint8)
    return packed


def unpack(packed: Tensor, bits: int, size: int) -> Tensor:
    """Codes uint8 [..., size] of what `pack` made."""
    each = 8 // bits
    shifts = torch.arange(each, device=packed.device, dtype=torch.uint8)[:, None] * bits
    planes: Tensor = (packed[..., None, :] >> shifts) & (2**bits - 1)
    return planes.flatten(-2)[..., :size]
