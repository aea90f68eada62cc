"""The obviously right int8 weight-only linear layer, in fp64. Tests and `bench` compare with it."""

import torch


def quantize(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """weight [N, K] -> codes [N, K] in -127..127 and scale [N], both fp64: absmax / 127."""
    exact = weight.double()
    scale = exact.abs().amax(dim=1) / 127
    safe = torch.where(scale > 0, scale, torch.ones_like(scale))
    return (exact / safe[:, None]).round().clamp(-127, 127), scale


def linear(
    x: torch.Tensor, codes: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """x [..., K], codes [N, K], scale [N], bias [N] or None -> y [..., N] in fp64."""
    y = torch.einsum("...k,nk->...n", x.double(), codes.double() * scale.double()[:, None])
    return y if bias is None else y + bias.double()
