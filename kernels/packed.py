"""A matrix in the layout that one kernel of an operation wants: the checks, the choice, the call.

Owns what the operations on packed weights share (kernels.weight.KernelWeight); which forms there
are and what a kernel computes belong to the operation's folder.
"""

import importlib
from collections.abc import Callable
from typing import Any, ClassVar

import torch

from kernels import registry
from kernels.calls import count
from kernels.choice.ways import Ways

DTYPES = (torch.bfloat16, torch.float32, torch.float16)


class PackedWeight:
    """A form [n, k] laid out for a kernel; `dtype` is that of x, y and the bias.

    A form has `op`, whose weight it is; `n`, `k`, `codes` (whose device is the weight's); `format`,
    its name; `codes_format`, the codes' name in the registry. A kernel's module has `refuse(form,
    dtype)`, a sentence or None, and a class `Product(form, dtype, bias)`: called with x [M, k],
    contiguous, it gives y [M, n]; `undo()` gives the form back, `tensors()` what it keeps; with
    `bind(x, out, residual)` it becomes part of a bound step.

    A Product with `into(x, out, residual)` (those for a GPU) shares its layout with others: a
    module's `over(product)` gives its own Product on the same tensors, or None. Which of these runs
    is measured for each number of rows, when that is first met (kernels.choice.ways), unless one
    was asked for by name. Kernels of another layout take no part: the matrix would be in memory
    twice, so the registry's order, which `kernel` follows, decides once. What ran is counted by its
    own name.
    """

    __slots__ = ("_device", "_product", "_ways", "bias", "dtype", "format", "k", "kernel", "n")
    op: ClassVar[str]

    def __init__(
        self,
        form: Any,
        bias: torch.Tensor | None = None,
        dtype: torch.dtype = torch.bfloat16,
        kernel: str | None = None,
    ) -> None:
        """Check, choose the kernel and lay the form out for it.

        Raises ValueError for parts that do not fit, KernelUnavailable when no kernel, or not the
        one asked for by name, takes the form here.
        """
        if form.op != self.op:
            raise ValueError(f"a form of {form.op} ({form.format}) is not one of {self.op}.")
        if dtype not in DTYPES:
            raise ValueError(f"dtype {dtype} is not one of bf16, fp32 and fp16.")
        if bias is not None and (bias.shape != (form.n,) or bias.dtype is not dtype):
            raise ValueError(
                f"bias must be [{form.n}] of {dtype}, not {list(bias.shape)} of {bias.dtype}."
            )
        self.n, self.k, self.dtype, self.format = form.n, form.k, dtype, form.format
        self.bias = None if bias is None else bias.detach().contiguous()
        self._device = form.codes.device
        self.kernel = choose(form, dtype, kernel)
        self._product: Any = _module(self.op, self.kernel).Product(form, dtype, self.bias)
        self._ways: Ways | None = None
        if getattr(self._product, "into", None) is not None:
            products = {self.kernel: self._product}
            if registry.named(self.op, kernel) is None:
                products |= sharing(form, dtype, self.kernel, self._product)
            shape = (self.n, self.k)
            self._ways = Ways(self.op, self.format, shape, dtype, self._device, products)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """x [..., k] -> y [..., n]; no gradients. Raises ValueError with a sentence."""
        if x.dtype is not self.dtype or x.dim() == 0 or x.shape[-1] != self.k:
            raise ValueError(
                f"x must be [..., {self.k}] of {self.dtype}, not {list(x.shape)} of {x.dtype}."
            )
        if x.device != self._device:
            raise ValueError(f"x is on {x.device}, the packed weight on {self._device}.")
        if x.numel() == 0:
            return x.new_zeros((*x.shape[:-1], self.n))
        rows = x.detach() if x.requires_grad else x
        rows = rows.reshape(-1, self.k).contiguous()
        y: torch.Tensor
        if self._ways is not None:
            y = self._ways(rows)
        else:
            count(self.op, self.kernel)
            y = self._product(rows)
        return y if x.dim() == 2 else y.reshape(*x.shape[:-1], self.n)

    def bind(
        self, x: torch.Tensor, out: torch.Tensor, residual: torch.Tensor | None = None
    ) -> Callable[[], object]:
        """See KernelWeight.bind; a kernels.program.BoundCall where the kernel has one."""
        if self._ways is not None:
            return self._ways.bind(x, out, residual)
        bind = getattr(self._product, "bind", None)
        bound: Callable[[], object] | None = bind(x, out, residual) if bind is not None else None
        if bound is not None:
            return bound
        if residual is None:
            return lambda: out.copy_(self(x))
        return lambda: torch.add(residual, self(x), out=out)

    def dequantize(self) -> torch.Tensor:
        """The weight that the codes stand for, fp32 [n, k]."""
        weight: torch.Tensor = self._product.undo().dequantize()
        return weight

    def tensors(self) -> list[torch.Tensor]:
        """Codes, scales, zeros and the bias, as they lie in memory."""
        kept: list[torch.Tensor] = self._product.tensors()
        if self._ways is not None:
            kept = [*kept, *self._ways.tensors()]
        return kept if self.bias is None else [*kept, self.bias]


def choose(form: Any, dtype: torch.dtype, wanted: str | None) -> str:
    """The first kernel of the form's operation that runs here and whose module's `refuse` has
    nothing against it. Raises KernelUnavailable when none, or not the one asked for by name, does.
    """
    op, codes_format, device = form.op, form.codes_format, form.codes.device
    wanted = registry.named(op, wanted)
    if wanted is not None:
        name = registry.select(op, device, codes_format, wanted).name
        reason = _module(op, name).refuse(form, dtype)
        if reason is not None:
            raise registry.KernelUnavailable(f"{op}={name} {reason}.")
        return name
    reasons = []
    for info, reason in registry.kernels_available(device):
        # A kernel that runs here on request only is not chosen by itself.
        if info.op != op or codes_format not in info.formats or device.type not in info.devices:
            continue
        reason = reason or _module(op, info.name).refuse(form, dtype)
        if reason is None:
            return info.name
        reasons.append(f"{info.name} {reason}")
    raise registry.KernelUnavailable(
        f"No kernel of {op} takes {form.format} with {dtype} on {device}: {'; '.join(reasons)}."
    )


def sharing(form: Any, dtype: torch.dtype, first: str, product: Any) -> dict[str, Any]:
    """The products of other kernels of the form's operation that run here on the very tensors of
    `product`, the kernel `first`'s, by name.
    """
    found = {}
    for info, reason in registry.kernels_available(form.codes.device):
        if (info.op, reason) != (form.op, None) or info.name == first:
            continue
        module = _module(form.op, info.name)
        if form.codes.device.type not in info.devices or not hasattr(module, "over"):
            continue
        if form.codes_format in info.formats and module.refuse(form, dtype) is None:
            other = module.over(product)
            if other is not None:
                found[info.name] = other
    return found


def _module(op: str, kernel: str) -> Any:
    return importlib.import_module(
        next(info.module for info in registry.KERNELS if info.op == op and info.name == kernel)
    )
