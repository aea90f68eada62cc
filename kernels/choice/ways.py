"""The kernels that can multiply one packed matrix as it lies in memory, and the choice among them.

Owns what happens behind kernels.packed on a GPU: which of these kernels a number of rows goes to.
They share one layout, so that the matrix is in memory once.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from kernels import choice
from kernels.calls import count
from kernels.dtypes import of_torch
from kernels.tuning import MOST_ROWS

Into = Callable[..., object]


class Ways:
    """Products over one matrix [n, k], by the names of their kernels; the first is the rule's.

    A product has `into(x, out, residual=None)`, which writes residual + y of x [M, k] into out
    [M, n] (out may be residual), and may have `ways(rows)`: such a call for each of its variants by
    name, the rule's first, none where it is of no use for so many rows.
    """

    def __init__(
        self,
        op: str,
        format: str,
        shape: tuple[int, int],
        dtype: torch.dtype,
        device: torch.device,
        products: dict[str, Any],
    ) -> None:
        self._op, self._format, self._shape, self._dtype = op, format, shape, dtype
        self._device, self._products = device, products
        self._chosen: dict[int, tuple[str, Into]] = {}

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """x [M, k], contiguous -> y [M, n]."""
        out = x.new_empty(len(x), self._shape[0])
        name, into = self.at(len(x))
        count(self._op, name)
        into(x, out)
        return out

    def bind(
        self, x: torch.Tensor, out: torch.Tensor, residual: torch.Tensor | None = None
    ) -> Callable[[], object]:
        """A counted call with its arguments fixed, by the kernel that is fastest for its rows."""
        name, into = self.at(len(x))

        def step() -> None:
            count(self._op, name)
            into(x, out, residual)

        return step

    def at(self, rows: int) -> tuple[str, Into]:
        """The kernel that so many rows go to, with its call."""
        # More rows than MOST_ROWS are answered as so many: the order does not change any more.
        bucket = min(MOST_ROWS, 1 << max(0, rows - 1).bit_length())
        known = self._chosen.get(bucket)
        if known is not None:
            return known
        ways = self.offered(bucket)
        if len(ways) == 1:
            label = next(iter(ways))
        else:
            question = choice.Question(
                self._op, self._format, self._shape, bucket, of_torch(self._dtype).name
            )
            label = choice.fastest(
                question, tuple(ways), partial(self._ready, ways, bucket), self._device
            )
        answer = label.partition("/")[0], ways[label]
        if len(ways) == 1 or choice.measures(self._device):
            self._chosen[bucket] = answer
        return answer

    def offered(self, rows: int) -> dict[str, Into]:
        """Every way for so many rows, as `kernel` or `kernel/variant`; the rule's first."""
        offered: dict[str, Into] = {}
        for name, product in self._products.items():
            variants = getattr(product, "ways", None)
            if variants is None:
                offered[name] = product.into
            else:
                found = variants(rows)
                offered |= {
                    f"{name}/{variant}" if variant else name: call
                    for variant, call in found.items()
                }
        # Asked for by name, a kernel runs at any number of rows.
        return offered or {name: product.into for name, product in self._products.items()}

    def tensors(self) -> list[torch.Tensor]:
        """What the other products keep beside the first's."""
        first, *others = self._products.values()
        kept = {tensor.data_ptr() for tensor in first.tensors()}
        extra = (tensor for product in others for tensor in product.tensors())
        return [tensor for tensor in extra if tensor.data_ptr() not in kept]

    def _ready(self, ways: dict[str, Into], rows: int) -> dict[str, Callable[[], object]]:
        # The trial's own random numbers stay as they are.
        own = torch.Generator(self._device).manual_seed(0)
        x = torch.randn(rows, self._shape[1], device=self._device, generator=own).to(self._dtype)
        out = torch.empty(rows, self._shape[0], dtype=self._dtype, device=self._device)
        return {label: partial(into, x, out) for label, into in ways.items()}
