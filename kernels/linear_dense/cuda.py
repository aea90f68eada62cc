"""torch's dense product on a GPU with its arguments fixed: what a captured step repeats.

Not yet run on a GPU.
"""

from collections.abc import Callable

import torch

from kernels.calls import count


def bound(
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    x: torch.Tensor,
    out: torch.Tensor,
    residual: torch.Tensor | None,
) -> Callable[[], object]:
    """A counted call that writes residual + x @ weight.T + bias into `out`, which may be residual.

    Nothing lies in between but where both bias and residual are added; where one of them is, the
    sum is rounded once.
    """
    n, k = weight.shape
    x, out = x.detach().view(-1, k), out.view(-1, n)
    side = None if residual is None else residual.view(-1, n)
    across = weight.t()
    between = torch.empty_like(out) if bias is not None and side is not None else None

    def step() -> None:
        count("linear_dense", "torch")
        if bias is None:
            if side is None:
                torch.mm(x, across, out=out)
            else:
                torch.addmm(side, x, across, out=out)
        elif side is None or between is None:
            torch.addmm(bias, x, across, out=out)
        else:
            torch.add(side, torch.addmm(bias, x, across, out=between), out=out)

    return step
