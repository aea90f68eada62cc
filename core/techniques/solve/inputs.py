"""What one matrix is given: sums over the rows of calibration data, and some rows as they are."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class Inputs:
    """What one matrix [n, k] was given: `count` rows so far. Sums are fp32.

    The first question for a moment ends the counting.
    """

    k: int
    keep: int
    count: int = 0
    second_order: bool = True
    _sum: Tensor | None = None
    _cross: Tensor | None = None
    _abs_sum: Tensor | None = None
    _absmax: Tensor | None = None
    _total: Tensor | None = None
    _squares: Tensor | None = None
    _kept: list[Tensor] = field(default_factory=list)
    _ended: bool = False

    def add(self, x: Tensor, clean: Tensor | None = None) -> None:
        """Count the rows of x [..., k]; `clean` are the same of the unchanged model."""
        if self._ended:
            raise ValueError("these inputs were asked for their moments: no more can be counted")
        rows = x.reshape(-1, self.k).float()
        size = rows.abs()
        if self._abs_sum is None or self._absmax is None:
            self._abs_sum, self._absmax = size.sum(0), size.amax(0)
        else:
            self._abs_sum += size.sum(0)
            torch.maximum(self._absmax, size.amax(0), out=self._absmax)
        total = rows.sum(0, dtype=torch.float64)
        squares = torch.linalg.vector_norm(rows, dim=0, dtype=torch.float64).square()
        self._total = total if self._total is None else self._total + total
        self._squares = squares if self._squares is None else self._squares + squares
        if self.second_order:
            if self._sum is None:
                self._sum = self._moment(rows.device)
            self._sum.addmm_(rows.T, rows)
            if clean is not None:
                if self._cross is None:
                    self._cross = self._moment(rows.device)
                self._cross.addmm_(clean.reshape(-1, self.k).float().T, rows)
        # Every part gives the same share, evenly over its rows.
        each = max(1, self.keep // 8)
        step = max(1, len(rows) // each)
        if sum(map(len, self._kept)) < self.keep:
            self._kept.append(rows[::step][:each].clone())
        self.count += len(rows)

    def hessian(self) -> Tensor:
        """2 / count * sum of x x^T, fp32 [k, k] (GPTQ, Frantar et al. 2022, section 3).

        Not a copy.
        """
        self._end()
        if self._sum is None:
            raise ValueError("these inputs were collected without second order")
        return self._sum

    def cross(self) -> Tensor | None:
        """2 / count * sum of c x^T, fp32 [k, k], with c the unchanged model's input in the place of
        x; None where it was not collected. Not a copy.
        """
        self._end()
        return self._cross

    def _moment(self, device: torch.device) -> Tensor:
        # Not an inference tensor: it is finished, and may be trained on, outside of that mode.
        with torch.inference_mode(False):
            return torch.zeros(self.k, self.k, device=device)

    def _end(self) -> None:
        # In place: the moments of a wide matrix are what calibration needs most memory for.
        for moment in () if self._ended else (self._sum, self._cross):
            if moment is not None:
                moment *= 2 / max(1, self.count)
        self._ended = True

    @property
    def mean_abs(self) -> Tensor:
        """Mean of |x| by column, fp32 [k]."""
        assert self._abs_sum is not None
        return self._abs_sum / max(1, self.count)

    @property
    def mean(self) -> Tensor:
        """Mean of x by column, fp64 [k]."""
        assert self._total is not None
        return self._total / max(1, self.count)

    @property
    def mean_square(self) -> Tensor:
        """Mean of x^2 by column, fp64 [k]."""
        assert self._squares is not None
        return self._squares / max(1, self.count)

    @property
    def absmax(self) -> Tensor:
        """Largest |x| by column, fp32 [k]."""
        assert self._absmax is not None
        return self._absmax

    @property
    def sample(self) -> Tensor:
        """Some of the rows, fp32 [m, k], m <= keep."""
        return torch.cat(self._kept)[: self.keep]
