"""Fake tensors on a GPU that is not there.

torch's fake tensors have a device and a shape and no numbers. A torch that was built without CUDA
still asks for the device in a few methods; here these go through the operations behind them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode

from kernels.rms_norm.reference import rms_norm


class WithoutDevice(TorchFunctionMode):
    """`x[...]` by slice, select, unsqueeze and index; copies and norms likewise."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.Tensor.__getitem__ and args[0].device.type == "cuda":
            view, tensors = _viewed(*args)
            return torch.ops.aten.index(view, tensors) if any_tensor(tensors) else view
        if func is torch.Tensor.__setitem__ and args[0].device.type == "cuda":
            view, tensors = _viewed(args[0], args[1])
            if any_tensor(tensors):
                return torch.ops.aten.index_put_(view, tensors, args[2])
            whole = isinstance(args[2], torch.Tensor)
            return (torch.ops.aten.copy_ if whole else torch.ops.aten.fill_)(view, args[2])
        if func is torch.Tensor.copy_:
            return torch.ops.aten.copy_(*args, **(kwargs or {}))
        if func is torch.Tensor.contiguous and not args[0].is_contiguous():
            return torch.ops.aten.clone(args[0], memory_format=torch.contiguous_format)
        if func in (torch.mm, torch.addmm) and kwargs:
            product = getattr(torch.ops.aten, func.__name__)(*args)
            return torch.ops.aten.copy_(kwargs["out"], product)
        if func is torch.nn.functional.rms_norm:
            x, _, weight, eps = (*args, *(kwargs or {}).values())
            return rms_norm(x, weight, eps)
        return func(*args, **(kwargs or {}))


def any_tensor(indices: list[Any]) -> bool:
    return any(index is not None for index in indices)


def _viewed(x: torch.Tensor, index: Any) -> tuple[torch.Tensor, list[torch.Tensor | None]]:
    """The view that all but the tensors of an index ask for, and those tensors by dimension."""
    parts = list(index) if isinstance(index, tuple) else [index]
    if Ellipsis in [part for part in parts if not isinstance(part, torch.Tensor)]:
        at = next(i for i, part in enumerate(parts) if part is Ellipsis)
        taken = sum(part is not None for part in parts) - 1
        parts[at : at + 1] = [slice(None)] * (x.dim() - taken)
    dim, tensors = 0, list[torch.Tensor | None]()
    for part in parts:
        if isinstance(part, int):
            x = x.select(dim, part)
            continue
        if part is None:
            x = x.unsqueeze(dim)
        elif isinstance(part, slice):
            x = torch.ops.aten.slice(x, dim, part.start, part.stop, part.step or 1)
        tensors.append(part if isinstance(part, torch.Tensor) else None)
        dim += 1
    return x, tensors


@contextlib.contextmanager
def fake_tensors() -> Iterator[None]:
    """Every tensor made within is a fake one."""
    with FakeTensorMode(), WithoutDevice():
        yield
