"""Codes of 1 to 8 bit in bytes along k: planes of 4, 2 and 1 bit, each a whole share of a byte.

Owns packing and its reverse for the torch kernel; a layout for vector registers is layout.py's.
"""

import torch
from torch.nn.functional import pad

# The widths of the planes of b-bit codes, the lowest bits first.
WIDTHS = {1: (1,), 2: (2,), 3: (2, 1), 4: (4,), 5: (4, 1), 6: (4, 2), 7: (4, 2, 1), 8: (8,)}


def pack(codes: torch.Tensor, bits: int) -> list[torch.Tensor]:
    """uint8 codes [n, k] -> a uint8 tensor [n, ceil(k * width / 8)] for each plane."""
    planes, below = [], 0
    for width in WIDTHS[bits]:
        part = (codes >> below) & (2**width - 1)
        each = 8 // width
        part = pad(part, (0, -part.shape[1] % each)).view(part.shape[0], -1, each)
        packed = part[..., 0].clone()
        for place in range(1, each):
            packed |= part[..., place] << (place * width)
        planes.append(packed)
        below += width
    return planes


def unpack(planes: list[torch.Tensor], bits: int, k: int) -> torch.Tensor:
    """The reverse of pack: uint8 codes [n, k]."""
    codes: torch.Tensor | None = None
    below = 0
    for plane, width in zip(planes, WIDTHS[bits], strict=True):
        shifts = torch.arange(0, 8, width, dtype=torch.uint8, device=plane.device)
        part = (plane[..., None] >> shifts) & (2**width - 1)
        part = part.view(plane.shape[0], -1)[:, :k]
        codes = part.contiguous() if codes is None else codes | (part << below)
        below += width
    assert codes is not None
    return codes
