"""How wide an MLP is after channels were cut from it: arithmetic that predictions share."""

# Widths stay multiples of this, so that group-wise quantization still fits.
MULTIPLE = 32


def kept_width(width: int, sparsity: float) -> int:
    """Channels that stay: the nearest multiple of 32 to (1 - sparsity) width, at least 32 and under
    `width`.
    """
    wanted = round(width * (1 - sparsity) / MULTIPLE) * MULTIPLE
    return max(MULTIPLE, min(wanted, (width - 1) // MULTIPLE * MULTIPLE))
