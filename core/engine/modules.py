"""Owns a kernel's weight in the place of a torch.nn.Linear, for classifiers and for models that run
through transformers.
"""

from __future__ import annotations

from torch import Tensor, nn

from kernels.weight import KernelWeight


class KernelLinear(nn.Module):
    """y = x W^T + b by the weight's own kernel; x of another dtype is converted, and y back.

    The tensors are buffers under their position, so that whoever counts a module's memory finds
    them.
    """

    def __init__(self, weight: KernelWeight) -> None:
        super().__init__()
        self.weight_of_kernel = weight
        self.in_features, self.out_features = weight.k, weight.n
        for position, tensor in enumerate(weight.tensors()):
            self.register_buffer(f"part_{position}", tensor, persistent=False)

    @property
    def format(self) -> str:
        """How the weight is stored, as `int4-g32`."""
        return self.weight_of_kernel.format

    def forward(self, x: Tensor) -> Tensor:
        """y [..., out] of x [..., in], in x's dtype."""
        y: Tensor = self.weight_of_kernel(x.to(self.weight_of_kernel.dtype))
        return y.to(x.dtype)
