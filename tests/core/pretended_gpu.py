"""A GPU that is not there: tensors that say they lie on it and are computed on the CPU.

As on a real one, an operation on tensors of both devices is an error, and what the host waits for
is noted. Unlike fake tensors these hold numbers, so that whole trials run, and they need no torch
that was built for CUDA. Triton's kernels do not run on them.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_iter, tree_map

from core.measure import fallbacks
from kernels import registry
from kernels.linear_w8a8 import torch_int_mm

ROOT = Path(__file__).parents[2]
GPU = torch.device("cuda", 0)
MEMORY = 141 * 10**9
# What the tensor is asked itself.
ANSWERS = {"device": GPU, "is_cuda": True, "is_cpu": False}
# What moves numbers between devices, and what takes indices from either.
MOVING = ("copy_", "to", "__getitem__", "__setitem__", "index_put_", "type_as", "set_")
# What makes a number of Python, and what else the host cannot know before the GPU is done.
TOLD = ("item", "tolist", "__float__", "__int__", "__bool__", "__index__", "__contains__", "equal")
WAITING = (*TOLD, "nonzero", "masked_select", "unique", "cpu", "allclose")

# Random streams of the GPU.
STREAMS: set[torch.Generator] = set()


class Pretended(torch.Tensor):
    """A tensor of the GPU that is not there; its numbers lie on the CPU."""

    __torch_function__ = torch._C._disabled_torch_function_impl


class Pretending(TorchFunctionMode):
    """Makes what asks for a CUDA device, and notes in `waits` where our code waits for it."""

    def __init__(self, waits: list[str]) -> None:
        super().__init__()
        self.waits = waits

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Compute on the CPU; RuntimeError for tensors of two devices."""
        kwargs = {key: value for key, value in (kwargs or {}).items() if key != "pin_memory"}
        name = getattr(func, "__name__", "")
        getter = getattr(func, "__self__", None) if name == "__get__" else None
        if getter is not None and isinstance(args[0], Pretended):
            answer = ANSWERS.get(getattr(getter, "__name__", ""))
            if answer is not None:
                return answer
        if name == "numpy" and isinstance(args[0], Pretended):
            raise TypeError("can't convert cuda:0 device type tensor to numpy")
        if name in ("_parse_to", "_has_compatible_shallow_copy_type"):
            return func(*args, **kwargs)
        if name == "register_hook":
            return func(args[0], partial(self._hooked, args[1]))
        tensors = [each for each in tree_iter((args, kwargs)) if isinstance(each, torch.Tensor)]
        ours = [each for each in tensors if isinstance(each, Pretended)]
        plain = [each for each in tensors if not isinstance(each, Pretended)]
        if ours and any(each.dim() for each in plain) and name not in MOVING:
            shapes = [f"{type(each).__name__}{list(each.shape)}" for each in tensors]
            raise RuntimeError(f"{name}: tensors of two devices: {', '.join(shapes)}")
        there = self._lies_there(name, args, kwargs, bool(ours))
        stream = kwargs.get("generator")
        if stream is not None and there != (stream in STREAMS):
            raise RuntimeError(f"{name}: a generator of the other device")
        if ours and (name in WAITING or not there):
            self.waits.append(f"{name} at {our_line()}")
        result = func(*tree_map(_here, args), **tree_map(_here, kwargs))
        if isinstance(result, torch.Size):
            return result
        if there:
            return tree_map(_dressed, result)
        return tree_map(_bare, result) if ours and name != "copy_" else result

    def _hooked(self, hook: Callable[[torch.Tensor], Any], gradient: torch.Tensor) -> Any:
        with self:
            return hook(_dressed(gradient))

    def _lies_there(self, name: str, args: Any, kwargs: Any, ours: bool) -> bool:
        """Whether the result lies on the GPU."""
        if name in ("copy_", "__setitem__"):
            return isinstance(args[0], Pretended)
        if name == "cpu":
            return False
        if name in ("to", "type_as") and len(args) > 1 and isinstance(args[1], torch.Tensor):
            return isinstance(args[1], Pretended)
        said = [each for each in (*args, *kwargs.values()) if _is_device(each)]
        return _is_gpu(said[0]) if said else ours


class Queue:
    """An event, a stream or what switches to one: here everything is done when it is asked for."""

    def __init__(self, *given: Any) -> None:
        """Nothing to wait for."""

    def record(self, stream: Any = None) -> None:
        """Nothing to do."""

    def synchronize(self) -> None:
        """Nothing to wait for."""

    def wait_stream(self, other: Any) -> None:
        """Nothing to wait for."""

    def __enter__(self) -> None:
        """Nothing to do."""

    def __exit__(self, *error: object) -> None:
        """Nothing to do."""


@contextmanager
def no_graph(*given: Any, **named: Any) -> Iterator[None]:
    """What is captured would have to be replayed by a driver."""
    raise RuntimeError("a pretended GPU captures nothing")
    yield


def _is_device(value: Any) -> bool:
    if isinstance(value, str):
        return value.partition(":")[0] in ("cpu", "cuda")
    return isinstance(value, torch.device)


def _is_gpu(value: Any) -> bool:
    return _is_device(value) and str(value).startswith("cuda")


def _here(value: Any) -> Any:
    return torch.device("cpu") if _is_gpu(value) else value


def _dressed(value: Any) -> Any:
    if isinstance(value, torch.Tensor) and not isinstance(value, Pretended):
        return value.as_subclass(Pretended)
    return value


def _bare(value: Any) -> Any:
    """In memory of its own, as what came from another device."""
    if isinstance(value, torch.Tensor):
        return value.as_subclass(torch.Tensor).clone()
    return value


def our_line() -> str:
    """`core/engine/serve/batch.py:59`: the innermost frame of the product."""
    frame: Any = sys._getframe()
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(ROOT) and path.relative_to(ROOT).parts[0] in ("core", "kernels"):
            return f"{path.relative_to(ROOT)}:{frame.f_lineno}"
        frame = frame.f_back
    return "a test"


@contextmanager
def pretended_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Within it torch has a CUDA device; yields where our code waited for it, in order."""
    nothing: Callable[..., None] = lambda *given, **named: None  # noqa: E731
    card = types.SimpleNamespace(
        name="NVIDIA H200",
        total_memory=MEMORY,
        multi_processor_count=132,
        uuid=None,
        major=9,
        minor=0,
    )
    stand_ins = {
        "_lazy_init": nothing, "init": nothing, "is_available": lambda: True,
        "is_initialized": lambda: True, "device_count": lambda: 1, "current_device": lambda: 0,
        "synchronize": nothing, "empty_cache": nothing, "reset_peak_memory_stats": nothing,
        "mem_get_info": lambda device=None: (MEMORY - 10**9, MEMORY),
        "memory_reserved": lambda device=None: 0, "memory_allocated": lambda device=None: 0,
        "max_memory_allocated": lambda device=None: 10**8,
        "max_memory_reserved": lambda device=None: 2 * 10**8,
        "memory_snapshot": lambda *given: [], "get_device_properties": lambda device=None: card,
        "get_device_capability": lambda device=None: (9, 0),
        "get_device_name": lambda device=None: card.name,
        # While capturing nobody measures which kernel is the fastest: here that tells nothing.
        "is_current_stream_capturing": lambda: True,
    }  # fmt: skip
    for name in ("Event", "Stream", "current_stream", "set_stream", "stream", "device"):
        monkeypatch.setattr(torch.cuda, name, Queue)
    stand_ins |= {"graph_pool_handle": lambda: (0, 1), "CUDAGraph": object, "graph": no_graph}
    for name, value in stand_ins.items():
        monkeypatch.setattr(torch.cuda, name, value)
    generator = torch.Generator

    class Generator:
        """A stream of the CPU, wherever it is asked for."""

        def __new__(cls, device: object = "cpu") -> Any:
            made = generator()
            if str(device).startswith("cuda"):
                STREAMS.add(made)
            return made

    monkeypatch.setattr(torch, "Generator", Generator)
    # Triton's kernels would be given an address of the host.
    kept = tuple(info for info in registry.KERNELS if info.needs != "triton")
    for module in (registry, fallbacks):
        monkeypatch.setattr(module, "KERNELS", kept)
    monkeypatch.setattr(torch_int_mm, "_gpu_rows", lambda codes: None)
    registry.reset()
    # Modules that move make new parameters, or the old ones would stay tensors of the host.
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        waits: list[str] = []
        with Pretending(waits):
            yield waits
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(False)
        registry.reset()
