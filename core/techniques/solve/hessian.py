"""The inverse of a matrix's damped Hessian, as second-order rounding needs it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# Where the Hessian cannot be factored, damping grows by this factor, so often.
GROWTH, ATTEMPTS = 10.0, 7
# What is left of a column beside those before it, as a share of it, is noise below this: the sums
# are fp32.
NOISE = 2.0**-24


@dataclass(frozen=True, eq=False)
class Factor:
    """The order of columns, U upper triangular fp32 [k, k] with U^T U = the inverse of the damped
    Hessian in that order, and the share of its mean diagonal that was added.
    """

    order: Tensor
    upper: Tensor
    damping: float


def factor(hessian: Tensor, damping: float = 0.01, act_order: bool = True) -> Factor:
    """Cholesky of the inverse of hessian [k, k] + damping * mean diagonal (section 3, step 3).

    Columns that were never given anything count as the mean. With `act_order` the columns of the
    largest diagonal come first. Where the factorization fails, or leaves of a column only noise as
    twins do without damping, damping grows tenfold at a time; a Hessian that is not finite, or that
    cannot be factored even so, raises ValueError.
    """
    if not bool(torch.isfinite(hessian).all()):
        raise ValueError("the calibration inputs have NaN or infinite values.")
    diagonal = hessian.diagonal().double()
    dead = diagonal <= 0
    live = diagonal[~dead]
    mean = float(live.mean()) if len(live) else 1.0
    order = torch.arange(len(hessian), device=hessian.device)
    if act_order:
        order = torch.argsort(diagonal, descending=True, stable=True)
    # H^-1 = U^T U needs no inverse of H: with H = R R^T, R upper, U is the inverse of R, and R is
    # the Cholesky factor of H turned around.
    turned = order.flip(0)
    for attempt in range(ATTEMPTS):
        added = damping * GROWTH**attempt if damping or not attempt else 1e-6 * GROWTH**attempt
        # Two matrices in fp64 at a time are the most memory that calibration takes.
        work = hessian[turned[:, None], turned].double()
        work.diagonal()[dead[turned]] = mean
        work.diagonal().add_(added * mean)
        least = NOISE * work.diagonal()
        lower, info = torch.linalg.cholesky_ex(work)
        del work
        sound = not int(info) and bool(torch.isfinite(lower).all())
        if sound and bool((lower.diagonal().square() > least).all()):
            # Column by column in memory, as the solver wants it, or it would make a copy.
            inverse = torch.eye(len(lower), dtype=lower.dtype, device=lower.device).mT
            torch.linalg.solve_triangular(lower, inverse, upper=False, out=inverse)
            return Factor(order, inverse.float().flip(0, 1), added)
    raise ValueError(f"the Hessian cannot be factored even with damping {added:g}.")


def best_float(weight: Tensor, shift: Tensor, factored: Factor) -> Tensor:
    """fp32 [n, k]: the unquantized V whose outputs on the inputs x come nearest to those of the
    weight on other inputs c, the unchanged model's.

    shift: 2 / count * sum of (c - x) x^T, [k, k]. V = W + W S (H + damping)^-1 minimises
    mean |V x - W c|^2 + damping |V - W|^2; rounding V under H then minimises the same error. This
    is the aim of GPTAQ (Li et al. 2025), solved in closed form.
    """
    missing = (weight @ shift)[:, factored.order]
    moved = torch.empty_like(missing)
    moved[:, factored.order] = missing @ factored.upper.T @ factored.upper
    return moved.add_(weight)
